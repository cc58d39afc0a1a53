//! What a sandboxed worker inherits, and what Linux reports about it.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use arenite::Array;

use crate::harness::{Calls, Lab, assert_says, field_of, tests, wait_until};
use crate::lab::{descriptors, may_look, strict};

tests![
    secrets_of_the_environment_are_not_inherited,
    every_thread_is_filtered,
    replacement_workers_are_sandboxed,
    without_a_sandbox_nothing_changes;
    where may_look() => descriptors_are_the_documented_ones,
];

const SECRETS: [&str; 3] = ["AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "HOME"];
const SECRET: &str = "not for workers 7041776";

/// Called before any thread exists.
pub fn hide_secrets_in_the_environment() {
    for name in SECRETS {
        // SAFETY: the program still has one thread.
        unsafe { std::env::set_var(name, SECRET) };
    }
    // SAFETY: as above.
    unsafe { std::env::set_var("LC_ALL", "C") };
    // SAFETY: as above.
    unsafe { std::env::set_var("OMP_NUM_THREADS", "1") };
}

fn environment() -> Array<u8> {
    let all = std::env::vars_os()
        .map(|(name, value)| format!("{}={}\n", name.display(), value.display()));
    Array::from_slice(all.collect::<String>().as_bytes())
}

fn secrets_of_the_environment_are_not_inherited() {
    let lab = strict(1);
    let seen = lab.value_of(environment, ());
    let seen = String::from_utf8_lossy(&seen);
    assert_says(&seen, "LC_ALL=C\n");
    assert_says(&seen, "OMP_NUM_THREADS=1\n");
    assert!(!seen.contains(SECRET), "{seen}");
    let known = [
        "PATH",
        "LANG",
        "LANGUAGE",
        "TZ",
        "LD_LIBRARY_PATH",
        "GLIBC_TUNABLES",
    ];
    let beginnings = ["LC_", "RUST_", "MALLOC_", "ARENITE_"];
    for name in seen.lines().filter_map(|line| line.split('=').next()) {
        let is_known = known.contains(&name)
            || name.ends_with("_NUM_THREADS")
            || beginnings.iter().any(|start| name.starts_with(start));
        assert!(is_known, "{name}");
    }
    // Not on its initial stack either.
    match fs::read(format!("/proc/{}/environ", lab.pid(0))) {
        Ok(bytes) => assert!(!String::from_utf8_lossy(&bytes).contains(SECRET)),
        Err(error) => assert!(!may_look(), "{error}"),
    }
}

fn descriptors_are_the_documented_ones() {
    // Twenty descriptors that a careless program would leak.
    let file = fs::File::open("/etc/passwd").unwrap();
    let careless: Vec<OwnedFd> = (0..20)
        .map(|_| {
            // SAFETY: `dup` makes a new descriptor without close-on-exec, which nothing else owns.
            unsafe { OwnedFd::from_raw_fd(libc::dup(file.as_raw_fd())) }
        })
        .collect();
    let lab = strict(2);
    for pid in [lab.pid(0), lab.pid(1)] {
        let inherited = || -> Vec<String> {
            let all = descriptors(pid).into_iter();
            all.filter(|(number, _)| *number > 2)
                .map(|(_, target)| target)
                .collect()
        };
        // The worker reports ready on this channel, so it may still be open at first.
        wait_until("the channel of the handshake is closed", || {
            !inherited()
                .iter()
                .any(|target| target.starts_with("socket:"))
        });
        let mut targets = inherited();
        targets.sort();
        // The doorbell, the watch pipe, and copies of both logs.
        assert_eq!(targets.len(), 4, "{targets:?}");
        let pipes = targets[1..]
            .iter()
            .all(|target| target.starts_with("pipe:"));
        assert!(targets[0].contains("eventfd") && pipes, "{targets:?}");
    }
    drop(careless);
}

/// Seccomp mode and NoNewPrivs of all threads of a process.
fn modes(pid: i32) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let read = |task: fs::DirEntry| {
        // A thread that has just ended is still listed for a moment.
        let text = fs::read_to_string(task.path().join("status")).ok()?;
        Some((field_of(&text, "Seccomp")?, field_of(&text, "NoNewPrivs")?))
    };
    tasks.filter_map(|task| read(task.unwrap())).collect()
}

fn locked() -> (String, String) {
    ("2".into(), "1".into())
}

fn every_thread_is_filtered() {
    let lab = strict(2);
    for worker in 0..2 {
        assert_eq!(modes(lab.pid(worker)), [locked()]);
    }
    // Threads that outlive their job.
    let leave = || {
        for _ in 0..3 {
            std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            });
        }
    };
    lab.value_of(leave, ());
    let pids = [lab.pid(0), lab.pid(1)];
    wait_until("one worker has four threads", || {
        pids.iter().any(|&pid| modes(pid).len() == 4)
    });
    for pid in pids {
        assert!(
            modes(pid).iter().all(|mode| *mode == locked()),
            "{:?}",
            modes(pid)
        );
    }
}

fn replacement_workers_are_sandboxed() {
    let lab = strict(1);
    for _ in 0..3 {
        lab.replace(0);
        assert_eq!(modes(lab.pid(0)), [locked()]);
    }
}

fn without_a_sandbox_nothing_changes() {
    let lab = Lab::new(1);
    assert_eq!(lab.sandbox_report(), None);
    assert_eq!(modes(lab.pid(0))[0].0, "0");
    let seen = lab.value_of(environment, ());
    let seen: BTreeSet<&[u8]> = seen.split(|&byte| byte == b'\n').collect();
    for name in SECRETS {
        assert!(seen.contains(format!("{name}={SECRET}").as_bytes()));
    }
}
