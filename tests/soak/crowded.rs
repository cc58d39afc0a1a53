//! A `/dev/shm` that is too small, and that somebody else fills and empties meanwhile: in a mount namespace of a program's
//! own, for which one has to be root.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use arenite::engine::Builder;
use arenite::{Array, ArrayMut, Backing, BuildError, Engine, JobErrorKind, JobLimit};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::supervisor::{is_alone, watch_starter};
use crate::harness::Dice;
use crate::harness::runs::{Figure, Order, Seen};
use crate::harness::{Invariant, Lab, step, watched};

const SHM: &str = "/dev/shm";
/// The exit code of a program that may not mount anything.
const MAY_NOT: u8 = 77;
/// Jobs of a round.
const JOBS: u8 = 20;

/// Has a program do it, and takes over what it counted.
pub(super) fn run(order: Order) -> Result<Seen, String> {
    let text = |error: std::io::Error| error.to_string();
    let invariant = Invariant::before();
    let minutes = order.length.as_secs_f64() / 60.0;
    step("a program with a /dev/shm of its own");
    let mut program = Command::new(std::env::current_exe().map_err(text)?)
        .args(["run", "--play", "crowd"])
        .args(["--seed", &order.seed.to_string()])
        .args(["--minutes", &minutes.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(text)?;
    // Closed with this program, and by nobody before: who waits for a child closes what is still with it.
    let stdin = program.stdin.take();
    let ended = program.wait_with_output().map_err(text)?;
    drop(stdin);
    invariant.nothing_left()?;
    if ended.status.code() == Some(MAY_NOT.into()) {
        return Ok(Seen::skipped("only root can mount a /dev/shm of its own"));
    }
    let counted = String::from_utf8_lossy(&ended.stdout);
    let mut counted = counted.split_whitespace().map(str::parse::<u64>);
    let mut next = || counted.next();
    match (ended.status.success(), next(), next(), next()) {
        (true, Some(Ok(faults)), Some(Ok(jobs)), Some(Ok(refused))) => Ok(Seen {
            faults,
            jobs,
            // For whoever reads it: how short it was.
            figures: vec![Figure {
                name: "without room",
                value: refused as f64,
                unit: "jobs",
                limit: f64::INFINITY,
            }],
            ..Seen::default()
        }),
        _ => Err(format!(
            "{}: {}",
            ended.status,
            String::from_utf8_lossy(&ended.stderr)
        )),
    }
}

/// In the program.
pub(super) fn play(order: Order) -> ExitCode {
    let mut dice = Dice::new(order.seed);
    match small_shm([8, 16, 64][dice.below(3) as usize]) {
        Ok(()) => {}
        Err(Errno::EPERM) => return ExitCode::from(MAY_NOT),
        Err(errno) => {
            eprintln!("a /dev/shm of its own: {errno}");
            return ExitCode::FAILURE;
        }
    }
    if let Err(error) = watch_starter() {
        eprintln!("error: no thread: {error}");
        return ExitCode::FAILURE;
    }
    let run = move || {
        let (Seen { faults, jobs, .. }, refused) = crowd(order, &mut dice)?;
        println!("{faults} {jobs} {refused}");
        Ok(())
    };
    match watched(order.length + crate::PATIENCE / 2, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// From here on this program sees another `/dev/shm` than the others.
fn small_shm(mib: u32) -> nix::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
    let room = format!("size={mib}m,mode=1777");
    let tmpfs = Some("tmpfs");
    mount(tmpfs, SHM, tmpfs, MsFlags::empty(), Some(&*room))
}

/// Bytes of `/dev/shm`, and how many of them are free.
fn room() -> Result<(u64, u64), String> {
    let space = nix::sys::statvfs::statvfs(SHM).map_err(|errno| errno.to_string())?;
    let unit = space.fragment_size();
    Ok((space.blocks() * unit, space.blocks_available() * unit))
}

/// Somebody else, who has room until dropped.
struct Hog(File);

impl Hog {
    fn leaving(bytes: u64) -> Result<Self, String> {
        let path = format!("{SHM}/hog");
        let text = |error: std::io::Error| error.to_string();
        let hog = Self(File::create(&path).map_err(text)?);
        std::fs::remove_file(&path).map_err(text)?;
        hog.take_all_but(bytes)?;
        Ok(hog)
    }

    /// Takes what is free now.
    fn take_all_but(&self, bytes: u64) -> Result<(), String> {
        let more = room()?.1.saturating_sub(bytes);
        let len = self.0.metadata().map_err(|error| error.to_string())?.len();
        if more == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::empty();
        match fallocate(self.0.as_fd(), flags, len as i64, more as i64) {
            // What others took in between is as good as taken.
            Ok(()) | Err(Errno::ENOSPC) => Ok(()),
            Err(errno) => Err(errno.to_string()),
        }
    }
}

fn fill(len: usize, with: u8) -> Array<u8> {
    let mut array = ArrayMut::<u8>::zeros(len);
    array.fill(with);
    array.seal()
}

/// An answer: every byte is as it should be, or there was no room. Whether it was the one or the other.
fn judge(answer: Result<Array<u8>, arenite::JobError>, with: u8) -> Result<bool, String> {
    match answer {
        Ok(array) if array.iter().all(|&x| x == with) => Ok(true),
        Ok(_) => Err("an array has other bytes than it was filled with".into()),
        Err(error) if matches!(error.kind(), JobErrorKind::Limit(JobLimit::Arena(_))) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// What it did, and how many jobs found no room.
fn crowd(order: Order, dice: &mut Dice) -> Result<(Seen, u64), String> {
    let (size, _) = room()?;
    let named = |builder: Builder| builder.capacity(size).backing(Backing::Named);
    let invariant = Invariant::before();
    let lab = Lab::with(2, named);
    // Built while there is room, and not bound by it.
    let auto = |builder: Builder| builder.capacity(size / 2).backing(Backing::Auto);
    let free = Lab::with(2, auto);
    let end = Instant::now() + order.length;
    let (mut seen, mut refused, mut done) = (Seen::default(), 0, 0);
    // Where nothing is refused nothing was short, and where all is there was no room at all.
    while refused == 0 || done == 0 || Instant::now() < end {
        if is_alone() {
            return Err("whoever started this program has gone".into());
        }
        step("jobs while somebody takes the room");
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
        // What the arena has kept is its own: it is written without a fault, or refused.
        if let Ok(mut array) = lab.zeros::<u8>(2 << 20) {
            array.fill(9);
        }
        step("jobs that need no room there");
        for n in 0..JOBS {
            // One by one: its own capacity is small too.
            if !judge(free.submit(fill, (len(n), n)).wait(), n)? {
                return Err("/dev/shm bounds an arena that need not be there".into());
            }
        }
        let other = auto(Engine::builder().workers(1)).build();
        let other = other.map_err(|error| format!("an engine that needs no room: {error}"))?;
        if !judge(other.submit(fill, (1 << 20, 1)).wait(), 1)? {
            return Err("an arena that need not be in /dev/shm finds no room".into());
        }
        other.shutdown();
        step("another engine where no room is");
        match named(Engine::builder().workers(1)).build() {
            Err(BuildError::Arena(_)) => {}
            Err(error) => return Err(format!("an engine without room: {error}")),
            Ok(other) => {
                judge(other.submit(fill, (1 << 20, 1)).wait(), 1)?;
                other.shutdown();
            }
        }
        drop(hog);
        step("jobs where room is again");
        for n in 0..JOBS {
            if !judge(lab.submit(fill, (100_000, n)).wait(), n)? {
                return Err("there is room, and none is found".into());
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
