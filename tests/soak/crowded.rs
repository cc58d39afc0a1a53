//! A `/dev/shm` that is too small, and that another process fills and empties meanwhile. It is mounted in a namespace of a child
//! program, which needs root.

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
/// Exit code of a child program that may not mount.
const MAY_NOT_MOUNT: u8 = 77;
/// Jobs of a round.
const JOBS: u8 = 20;

/// Starts a child program for the run, and returns its counts.
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
    // Taken, because `wait_with_output` would close it; it is to be closed when this program ends.
    let stdin = program.stdin.take();
    let ended = program.wait_with_output().map_err(text)?;
    drop(stdin);
    invariant.nothing_left()?;
    if ended.status.code() == Some(MAY_NOT_MOUNT.into()) {
        return Ok(Seen::skipped("only root can mount a /dev/shm of its own"));
    }
    let counted = String::from_utf8_lossy(&ended.stdout);
    let mut counted = counted.split_whitespace().map(str::parse::<u64>);
    let mut next = || counted.next();
    match (ended.status.success(), next(), next(), next()) {
        (true, Some(Ok(faults)), Some(Ok(jobs)), Some(Ok(refused))) => Ok(Seen {
            faults,
            jobs,
            // For information: how short memory was.
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

/// The child program.
pub(super) fn play(order: Order) -> ExitCode {
    let mut dice = Dice::new(order.seed);
    match small_shm([8, 16, 64][dice.below(3) as usize]) {
        Ok(()) => {}
        Err(Errno::EPERM) => return ExitCode::from(MAY_NOT_MOUNT),
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

/// Mounts a small `/dev/shm` for this program only.
fn small_shm(mib: u32) -> nix::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
    let room = format!("size={mib}m,mode=1777");
    let tmpfs = Some("tmpfs");
    mount(tmpfs, SHM, tmpfs, MsFlags::empty(), Some(&*room))
}

/// Returns the size of `/dev/shm`, and its free bytes.
fn room() -> Result<(u64, u64), String> {
    let space = nix::sys::statvfs::statvfs(SHM).map_err(|errno| errno.to_string())?;
    let unit = space.fragment_size();
    Ok((space.blocks() * unit, space.blocks_available() * unit))
}

/// Another user of `/dev/shm`, which occupies space until dropped.
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

    /// Occupies the free space except for `bytes`.
    fn take_all_but(&self, bytes: u64) -> Result<(), String> {
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

fn fill(len: usize, with: u8) -> Array<u8> {
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

/// Returns the result, and the number of jobs that found no space.
fn crowd(order: Order, dice: &mut Dice) -> Result<(Seen, u64), String> {
    let (size, _) = room()?;
    let named = |builder: Builder| builder.capacity(size).backing(Backing::Named);
    let invariant = Invariant::before();
    let lab = Lab::with(2, named);
    // Built while there is space, and not limited by `/dev/shm`.
    let auto = |builder: Builder| builder.capacity(size / 2).backing(Backing::Auto);
    let free = Lab::with(2, auto);
    let end = Instant::now() + order.length;
    let (mut seen, mut refused, mut done) = (Seen::default(), 0, 0);
    // Until some jobs have succeeded and some have found no space.
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
