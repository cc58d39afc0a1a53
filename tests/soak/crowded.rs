//! A `/dev/shm` that is too small, and that another process fills and empties meanwhile. It is mounted in a namespace of a child
//! program, which needs root.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::supervisor::{is_alone, watch_starter};
use crate::harness::Dice;
use crate::harness::runs::crowded::{SHM, crowd};
use crate::harness::runs::{Figure, Order, Seen};
use crate::harness::{Invariant, step, watched};

/// Exit code of a child program that may not mount.
const MAY_NOT_MOUNT: u8 = 77;

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
        let (Seen { faults, jobs, .. }, refused) = crowd(order, &mut dice, is_alone)?;
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
