//! A worker that crashes in the middle of a picture: what stderr and `--json` say of it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use crate::world::{
    Run, World, children, gone, own_session, png, private_bytes, signal, wait, wait_until,
};

/// An instruction that the processor does not have.
const ILLEGAL: &[u8] = if cfg!(target_arch = "x86_64") {
    &[0x0f, 0x0b]
} else {
    &[0, 0, 0, 0]
};

/// Makes a process run into an illegal instruction, where it is now.
fn crash(process: u32) {
    signal(process, libc::SIGSTOP);
    let mut place = None;
    wait_until("the process has stopped", || {
        // The number of a system call or -1, the stack pointer and the instruction pointer; or "running".
        let text = fs::read_to_string(format!("/proc/{process}/syscall")).unwrap();
        place = text
            .rsplit_once("0x")
            .map(|(_, hexadecimal)| hexadecimal.trim().to_owned());
        place.is_some()
    });
    let place = u64::from_str_radix(&place.unwrap(), 16).unwrap();
    let memory = OpenOptions::new()
        .write(true)
        .open(format!("/proc/{process}/mem"));
    memory.unwrap().write_all_at(ILLEGAL, place).unwrap();
    signal(process, libc::SIGCONT);
}

/// Runs the program on a large picture, and lets its worker crash. The file of the program is deleted meanwhile, as by a
/// build.
fn crashed(world: &World, flags: &str) -> Run {
    world.file("large.png", &png(6000, 4000));
    let command = world.command(&format!("large.png -s 8 -o out -j 1 --json {flags}"));
    let program = world.path("arenite");
    // By another program: a child that a test beside this one starts meanwhile would have the file open for writing, and
    // a file that is open so cannot be started.
    let mut copy = Command::new("cp");
    let copied = copy.arg(command.get_program()).arg(&program).status();
    assert!(copied.unwrap().success());
    let mut copy = Command::new(&program);
    copy.args(command.get_args())
        .current_dir(command.get_current_dir().unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => copy.env(name, value),
            None => copy.env_remove(name),
        };
    }
    let child = own_session(&mut copy).spawn().unwrap();
    let id = child.id();
    let mut worker = None;
    wait_until("a worker is in the middle of the picture", || {
        let mut workers = children(id).into_iter();
        worker = workers.find(|&worker| private_bytes(worker) > Some(30 << 20));
        worker.is_some()
    });
    fs::remove_file(program).unwrap();
    crash(worker.unwrap());
    let run = wait(child);
    gone(id);
    run
}

#[test]
fn a_crash_is_named_with_the_functions_of_its_stack() {
    let is_root = nix::unistd::geteuid().is_root();
    // Only root may write into a sandboxed process.
    let flags = ["--sandbox off", ""]
        .into_iter()
        .take(1 + usize::from(is_root));
    for flags in flags {
        let world = World::new();
        let run = crashed(&world, flags).exits(1);
        let error = run.errors()[0];
        assert!(
            error.contains("its worker was ended by SIGILL: an illegal instruction, at 0x"),
            "{error}"
        );
        let line = &run.json()[0];
        assert_eq!(
            (&line["cause"], &line["attempts"]),
            (&"signal-4".into(), &1.into()),
            "{line}"
        );
        let crash = &line["crash"];
        assert_eq!(crash["class"], "instruction", "{line}");
        assert_eq!(
            (&crash["address"], &crash["access"]),
            (&().into(), &().into())
        );
        let what = crash["what"].as_str().unwrap();
        assert!(error.contains(what), "{what}: {error}");
        let frames = crash["frames"].as_array().unwrap();
        let has = |part: &str| {
            let mut names = frames.iter().filter_map(|frame| frame["function"].as_str());
            names.any(|name| name.contains(part))
        };
        assert!(
            has("arenite_image") && !has("arenite_runs_kernel"),
            "{line:#}"
        );
        // The first of them are in the sentence.
        let mut shown = error.split("; in ");
        let shown = shown.nth(1).unwrap_or_else(|| panic!("{error}"));
        assert!(shown.contains(", called from "), "{shown}");
    }
}
