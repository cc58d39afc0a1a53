//! Commits and writes 1 GiB of memory: for the first time, and again after the memory was released.

use std::fs::File;
use std::time::{Duration, Instant};

use memmap2::{Advice, MmapMut, MmapOptions};
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::stat::Mode;

use super::start::each;
use super::{BenchError, Case, Goal, Running, Unit, ours};

/// Bytes written.
pub(super) const LEN: usize = 1 << 30;

pub(super) fn cases() -> Vec<Case> {
    let mut fresh = Case::new(
        "fresh-write-1gib",
        "Write 1 GiB of memory that was released and is committed again",
        Unit::Milliseconds,
    )
    .plan(1, 5, 1)
    .goals(&[Goal::BestAtLeast(4.0, "plain-shm")])
    .system("arenite", ours::fresh_write)
    .system("plain-shm", |_| fresh_plain());
    let mut cold = Case::new(
        "cold-write-1gib",
        "Write 1 GiB of memory for the first time",
        Unit::Milliseconds,
    )
    .plan(1, 5, 0)
    .system("arenite", ours::cold_write)
    .system("plain-shm", |_| cold_plain());
    for case in [&mut fresh, &mut cold] {
        const NOTE: &str = "arenite clears with up to four threads, in pages of 2 MiB; plain-shm is one thread, and pages of 4 KiB";
        case.notes.push(NOTE);
        case.quick = false;
        case.memory = 4 << 30;
    }
    vec![fresh, cold]
}

/// A POSIX shared memory object, made as programs usually do: named, sized and mapped, with small pages on demand.
struct PlainShm {
    file: File,
    map: MmapMut,
}

impl PlainShm {
    #[allow(unsafe_code, reason = "`memmap2` maps files by unsafe functions only")]
    fn create() -> Result<Self, BenchError> {
        let failed = |errno| BenchError::io("create plain shared memory", errno);
        let name = format!("/arenite-bench-{}", std::process::id());
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let fd = shm_open(name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed)?;
        // Unlinked at once, so that no name remains if this process is killed.
        shm_unlink(name.as_str()).map_err(failed)?;
        nix::unistd::ftruncate(&fd, LEN as i64).map_err(failed)?;
        let file = File::from(fd);
        // SAFETY: the object has no name any more and its descriptor never leaves this value, so no other process can
        // write or shrink it.
        let map = unsafe { MmapOptions::new().len(LEN).map_mut(&file) }
            .map_err(|error| BenchError::io("map plain shared memory", error))?;
        map.advise(Advice::NoHugePage)
            .map_err(|error| BenchError::io("request small pages", error))?;
        Ok(Self { file, map })
    }

    fn write(&mut self) -> Result<(), BenchError> {
        self.map.fill(7);
        let last = std::hint::black_box(&self.map)[LEN - 1];
        BenchError::expect(u64::from(last), 7)
    }

    fn release(&self) -> Result<(), BenchError> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.file, flags, 0, LEN as i64)
            .map_err(|errno| BenchError::io("release plain shared memory", errno))
    }
}

fn timed_write(shm: &mut PlainShm) -> Result<Duration, BenchError> {
    let start = Instant::now();
    shm.write()?;
    Ok(start.elapsed())
}

fn fresh_plain() -> Result<Running, BenchError> {
    let mut shm = PlainShm::create()?;
    shm.write()?;
    Ok(Box::new(move |times| {
        each(times, || {
            shm.release()?;
            timed_write(&mut shm)
        })
    }))
}

fn cold_plain() -> Result<Running, BenchError> {
    Ok(Box::new(move |times| {
        each(times, || timed_write(&mut PlainShm::create()?))
    }))
}
