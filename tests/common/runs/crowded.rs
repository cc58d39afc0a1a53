//! A `/dev/shm` that is too small, and that another process fills and empties meanwhile.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Instant;

use arenite::engine::Builder;
use arenite::{Array, ArrayMut, Backing, BuildError, Engine, JobErrorKind, JobLimit};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::super::lab::{Invariant, Lab, step};
use super::{Dice, Order, Seen};

pub const SHM: &str = "/dev/shm";
/// Jobs of a round.
const JOBS: u8 = 20;

/// Returns the size of `/dev/shm`, and its free bytes.
pub fn room() -> Result<(u64, u64), String> {
    let space = nix::sys::statvfs::statvfs(SHM).map_err(|errno| errno.to_string())?;
    let unit = space.fragment_size();
    Ok((space.blocks() * unit, space.blocks_available() * unit))
}

/// Another user of `/dev/shm`, which occupies space until dropped.
#[derive(Debug)]
pub struct Hog(File);

impl Hog {
    pub fn leaving(bytes: u64) -> Result<Self, String> {
        let path = format!("{SHM}/hog");
        let text = |error: std::io::Error| error.to_string();
        let hog = Self(File::create(&path).map_err(text)?);
        std::fs::remove_file(&path).map_err(text)?;
        hog.take_all_but(bytes)?;
        Ok(hog)
    }

    /// Occupies the free space except for `bytes`.
    pub fn take_all_but(&self, bytes: u64) -> Result<(), String> {
        let more = room()?.1.saturating_sub(bytes);
        let len = self.0.metadata().map_err(|error| error.to_string())?.len();
        if more == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::empty();
        match fallocate(self.0.as_fd(), flags, len as i64, more as i64) {
            // Space that others took in between counts too.
            Ok(()) | Err(Errno::ENOSPC) => Ok(()),
            Err(errno) => Err(errno.to_string()),
        }
    }
}

/// A kernel that fills an array with a value.
pub fn fill(len: usize, with: u8) -> Array<u8> {
    let mut array = ArrayMut::<u8>::zeros(len);
    array.fill(with);
    array.seal()
}

/// Returns whether a job succeeded, with the right bytes, or found no space; an error otherwise.
fn judge(answer: Result<Array<u8>, arenite::JobError>, with: u8) -> Result<bool, String> {
    match answer {
        Ok(array) if array.iter().all(|&x| x == with) => Ok(true),
        Ok(_) => Err("an array has wrong bytes".into()),
        Err(error) if matches!(error.kind(), JobErrorKind::Limit(JobLimit::Arena(_))) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs until some jobs have succeeded and some have found no space, and until this program `is_alone`. Returns the
/// result, and the number of jobs that found no space.
pub fn crowd(
    order: Order,
    dice: &mut Dice,
    is_alone: impl Fn() -> bool,
) -> Result<(Seen, u64), String> {
    let (size, _) = room()?;
    let named = |builder: Builder| builder.capacity(size).backing(Backing::Named);
    let invariant = Invariant::before();
    let lab = Lab::with(2, named);
    // Built while there is space, and not limited by `/dev/shm`.
    let auto = |builder: Builder| builder.capacity(size / 2).backing(Backing::Auto);
    let free = Lab::with(2, auto);
    let end = Instant::now() + order.length;
    let (mut seen, mut refused, mut done) = (Seen::default(), 0, 0);
    while refused == 0 || done == 0 || Instant::now() < end {
        if is_alone() {
            return Err("the parent of this program has ended".into());
        }
        step("jobs while another process takes the space");
        lab.trim();
        free.trim();
        let hog = Hog::leaving(dice.below(4) * 300_000)?;
        let len = |n: u8| 150_000 * (usize::from(n) % 5 + 1);
        let jobs: Vec<_> = (0..JOBS).map(|n| lab.submit(fill, (len(n), n))).collect();
        hog.take_all_but(dice.below(2) * 100_000)?;
        for (n, job) in (0..).zip(jobs) {
            match judge(job.wait(), n)? {
                true => done += 1,
                false => refused += 1,
            }
        }
        // Memory that the arena has committed is written without a fault; other memory is refused.
        if let Ok(mut array) = lab.zeros::<u8>(2 << 20) {
            array.fill(9);
        }
        step("jobs that need no space there");
        for n in 0..JOBS {
            // One at a time: its own capacity is small too.
            if !judge(free.submit(fill, (len(n), n)).wait(), n)? {
                return Err("/dev/shm limits an arena that need not be there".into());
            }
        }
        let other = auto(Engine::builder().workers(1)).build();
        let other = other.map_err(|error| format!("an engine that needs no space: {error}"))?;
        if !judge(other.submit(fill, (1 << 20, 1)).wait(), 1)? {
            return Err("an arena that need not be in /dev/shm finds no space".into());
        }
        other.shutdown();
        step("another engine without free space");
        match named(Engine::builder().workers(1)).build() {
            Err(BuildError::Arena(_)) => {}
            Err(error) => return Err(format!("an engine without space: {error}")),
            Ok(other) => {
                judge(other.submit(fill, (1 << 20, 1)).wait(), 1)?;
                other.shutdown();
            }
        }
        drop(hog);
        step("jobs with free space again");
        for n in 0..JOBS {
            if !judge(lab.submit(fill, (100_000, n)).wait(), n)? {
                return Err("a job finds no space although there is some".into());
            }
        }
        seen.faults += 1;
        seen.jobs += 3 * u64::from(JOBS);
    }
    invariant.holds(&lab, 0)?;
    invariant.holds(&free, 0)?;
    drop((lab, free));
    invariant.nothing_left()?;
    Ok((seen, refused))
}
