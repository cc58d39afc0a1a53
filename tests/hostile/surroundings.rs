//! What a program may accidentally pass to its workers, and other processes: descriptors, signals, the umask, other
//! users, and reused process ids.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use arenite::{Array, Backing, JobErrorKind, JobLimit};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;

use crate::harness::programs::{Program, Scenario, say};
use crate::harness::{Lab, assert_kind, builder, hang, tests, wait_until};
use crate::users::{
    BACKING, UNPRIVILEGED, asked_backing, become_unprivileged, is_root, lose_a_worker,
};

tests![
    a_parent_with_descriptors_and_blocked_signals,
    any_umask_keeps_segments_private,
    a_name_that_is_a_link_is_refused;
    // Only root can become another user, or make a process id namespace.
    where is_root() =>
    another_user_has_no_access,
    a_squatted_name_is_refused,
    a_reused_process_id_gets_no_signal,
];

pub const SCENARIOS: &[Scenario] = &[
    ("around-umask", strange_umask),
    ("around-intruder", intruder),
    ("around-squatted", squatted),
    ("around-link", link),
    ("around-numbers", numbers),
];

/// What a worker sees: its descriptors with their targets, and its signal sets.
fn inventory() -> String {
    let mut found: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            Some(target.display().to_string())
        })
        .filter(|target| !target.ends_with("/fd"))
        .collect();
    found.sort();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let lines = status.lines().filter(|line| {
        ["SigBlk:", "ShdPnd:", "SigIgn:", "SigCgt:", "Umask:"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    found.extend(lines.map(str::to_owned));
    found.join("\n")
}

fn a_parent_with_descriptors_and_blocked_signals() {
    let plain = Lab::with(1, |builder| builder.backing(Backing::Memfd));
    let expected = plain.submit(inventory, ()).wait().unwrap();
    drop(plain);
    assert_documented(&expected, 2);
    // Twenty descriptors that every child inherits, with low and high numbers.
    let secret = tempfile::NamedTempFile::new().unwrap();
    let inherited: Vec<i32> = (0..20)
        .map(|n| {
            let file = fs::File::open(secret.path()).unwrap();
            let low = file.into_raw_fd();
            // SAFETY: descriptors that this test opens, and closes below.
            unsafe {
                if n % 2 == 0 {
                    libc::fcntl(low, libc::F_SETFD, 0);
                    return low;
                }
                let high = libc::fcntl(low, libc::F_DUPFD, 300 + n * 7);
                libc::close(low);
                high
            }
        })
        .collect();
    let mut blocked = SigSet::all();
    blocked.remove(Signal::SIGSEGV);
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
    let lab = Lab::with(1, |builder| builder.backing(Backing::Memfd));
    for _ in 0..2 {
        let found = lab.submit(inventory, ()).wait().unwrap();
        assert!(!found.contains(secret.path().to_str().unwrap()), "{found}");
        assert_eq!(strip_numbers(&found), strip_numbers(&expected));
        // Its replacement is started by the same parent.
        lab.replace(0);
    }
    drop(lab);
    before.thread_set_mask().unwrap();
    for fd in inherited {
        // SAFETY: opened above, and not owned by anything else.
        unsafe { libc::close(fd) };
    }
    // One more region, for which it needs two descriptors, as for all that are not its own.
    let two = Lab::with(2, |builder| builder.backing(Backing::Memfd));
    assert_documented(&two.submit(inventory, ()).wait().unwrap(), 3);
}

/// Exactly the descriptors that the README of the worker lists, for an arena with this number of regions.
#[track_caller]
fn assert_documented(found: &str, regions: usize) {
    let lines = || found.lines().filter(|line| !line.contains('\t'));
    let count = |what: &str| lines().filter(|line| line.contains(what)).count();
    let mut of_regions: Vec<_> = (0..regions)
        .map(|region| count(&format!("arenite-region-{region} ")))
        .collect();
    of_regions.sort_unstable();
    // To read from all, and to lend from others than its own.
    let mut expected = vec![2; regions];
    expected[0] = 1;
    assert_eq!(of_regions, expected, "{found}");
    // The empty stdin, the doorbell; the watch pipe, stdout and stderr with a copy each.
    let others = ["/dev/null", "anon_inode:[eventfd]", "pipe:"].map(count);
    assert_eq!(others, [1, 1, 5], "{found}");
    assert_eq!(lines().count(), 2 * regions - 1 + 7, "{found}");
    let pipes: BTreeSet<_> = lines().filter(|line| line.starts_with("pipe:")).collect();
    assert_eq!(pipes.len(), 3, "{found}");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let umask = own.lines().find(|line| line.starts_with("Umask:")).unwrap();
    assert!(found.lines().any(|line| line == umask), "{umask}: {found}");
    // No signal is blocked. Those that terminals, service managers and closed pipes send to the whole group have a
    // handler that does nothing. SIGURG, for output, is handled, and so are crashes. A terminal does not stop a group in
    // its background.
    let mask = |signals: &[Signal]| -> u64 {
        let bits = signals.iter().map(|&signal| 1 << (signal as i32 - 1));
        bits.sum()
    };
    use Signal::{
        SIGABRT, SIGBUS, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGPIPE, SIGSEGV, SIGTERM, SIGTRAP,
        SIGTTIN, SIGTTOU, SIGURG,
    };
    let crashes = [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP];
    let handled = [&[SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGURG], &crashes[..]].concat();
    for (name, signals) in [
        ("SigBlk", &[][..]),
        ("ShdPnd", &[]),
        ("SigIgn", &[SIGTTIN, SIGTTOU]),
        ("SigCgt", &handled),
    ] {
        let prefix = format!("{name}:");
        let found = found.lines().find_map(|line| line.strip_prefix(&prefix));
        let found = u64::from_str_radix(found.unwrap().trim(), 16).unwrap();
        // Two belong to the C library, which keeps programs from changing them.
        let found = found & !(0b11 << 31);
        assert_eq!(found, mask(signals), "{name}: {found:#x}");
    }
}

/// Pipes have individual numbers.
fn strip_numbers(text: &str) -> String {
    let plain = |line: &str| match line.split_once(":[") {
        Some((kind, _)) => format!("{kind}\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(plain).collect()
}

fn any_umask_keeps_segments_private() {
    for (mask, backing) in [
        (0, "named"),
        (0, "memfd"),
        (0o077, "named"),
        (0o777, "named"),
        (0o777, "memfd"),
    ] {
        let prepare = move || {
            become_unprivileged()?;
            umask(Mode::from_bits_truncate(mask));
            Ok(())
        };
        let temporary = tempfile::tempdir().unwrap();
        fs::set_permissions(temporary.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let change = |command: &mut std::process::Command| {
            command.env(BACKING, backing);
            command.env("TMPDIR", temporary.path());
        };
        Program::with("around-umask", prepare, change)
            .end()
            .assert_done();
        // It left the empty segment behind that it could not open.
        for left in fs::read_dir(temporary.path()).unwrap() {
            assert_eq!(mask, 0o777);
            fs::remove_dir(left.unwrap().path()).unwrap();
        }
    }
}

fn strange_umask() {
    let backing = asked_backing();
    let name = format!("umask-{}", std::process::id());
    let mut builder = builder(1, 8 << 20).backing(backing);
    if backing == Backing::Named {
        builder = builder.name(&name);
    }
    let engine = match builder.build() {
        Ok(engine) => engine,
        // Not even this user may open the files it creates.
        Err(error) => {
            assert!(error.to_string().contains("denied"), "{error}");
            let mask = umask(Mode::empty()).bits();
            assert_eq!(mask, 0o777, "{error}");
            // The channel's own socket stays open when its folder is unusable, so descriptors are not checked.
            say("done");
            std::process::exit(0);
        }
    };
    if backing == Backing::Named {
        let user = nix::unistd::geteuid();
        let meta = fs::metadata(format!("/dev/shm/arenite-{user}-{name}.kept")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    }
    let values = engine.from_slice(&[1u8, 2, 3]).unwrap();
    let double = |values: &Array<u8>| Array::from_fn(values.shape(), |i| values[i] * 2);
    let doubled = engine.submit(double, (&values,)).wait().unwrap();
    assert_eq!(doubled[..], [2, 4, 6]);
    // Only this user can access its segments, whatever the umask.
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        if target.to_string_lossy().contains("/dev/shm/arenite-") {
            let mode = fs::metadata(entry.path()).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600, "{}", target.display());
        }
    }
    drop(values);
    engine.shutdown();
}

fn another_user_has_no_access() {
    let name = format!("private-{}", std::process::id());
    let lab = Lab::with(1, |builder| builder.backing(Backing::Named).name(&name));
    let values = lab.from_slice(&[1u8; 1000]).unwrap();
    let (blocked, held) = lab.hold();
    let victims = format!("{} {} {name}", std::process::id(), lab.pid(0));
    let change = |command: &mut std::process::Command| {
        command.env("ARENITE_HOSTILE_VICTIMS", &victims);
    };
    Program::with("around-intruder", become_unprivileged, change)
        .end()
        .assert_done();
    drop(held);
    blocked.wait().unwrap();
    assert!(values.iter().all(|&x| x == 1));
    drop(values);
    lab.assert_in_use(0);
}

/// Tries what another user can try.
fn intruder() {
    let victims = std::env::var("ARENITE_HOSTILE_VICTIMS").unwrap();
    let words: Vec<&str> = victims.split(' ').collect();
    let [supervisor, worker, name] = words[..] else {
        panic!("{victims}")
    };
    let refused = |path: String, write: bool| {
        let opened = fs::File::options().read(true).write(write).open(&path);
        let error = opened.expect_err(&path);
        let is_refused = matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM));
        assert!(is_refused, "{path}: {error}");
    };
    for write in [false, true] {
        refused(format!("/dev/shm/arenite-0-{name}.kept"), write);
        for pid in [supervisor, worker] {
            refused(format!("/proc/{pid}/mem"), write);
        }
    }
    for pid in [supervisor, worker] {
        for file in ["fd/3", "environ", "maps"] {
            refused(format!("/proc/{pid}/{file}"), false);
        }
    }
    for pid in [supervisor, worker] {
        let pid: i32 = pid.parse().unwrap();
        for signal in [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGTERM] {
            let sent = kill(Pid::from_raw(pid), signal);
            assert_eq!(sent, Err(nix::errno::Errno::EPERM));
        }
        // SAFETY: takes numbers only.
        let traced = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
        assert_eq!(traced, -1);
    }
    // Neither user's arenas are listed for the other.
    assert!(arenite::platform::segments().is_empty());
    assert!(arenite::platform::sweep().is_empty());
}

fn a_squatted_name_is_refused() {
    let name = format!("squatted-{}", std::process::id());
    let path = format!("/dev/shm/arenite-0-{name}.kept");
    let change = |command: &mut std::process::Command| {
        command.env("ARENITE_HOSTILE_PATH", &path);
    };
    let mut program = Program::with("around-squatted", become_unprivileged, change);
    program.expect("taken");
    for backing in [Backing::Named, Backing::Memfd] {
        let built = builder(1, 8 << 20).backing(backing).name(&name).build();
        let error = built.unwrap_err().to_string();
        assert!(error.contains("belongs to user 65534"), "{error}");
    }
    // It is neither listed as ours nor swept, and its creator finds it unchanged.
    let mut segments = arenite::platform::segments().into_iter();
    assert!(segments.all(|segment| segment.arena.as_ref() != Some(&name)));
    let mut swept = arenite::platform::sweep().into_iter();
    assert!(!swept.any(|swept| swept.contains(&name)));
    assert_eq!(fs::metadata(&path).unwrap().uid(), UNPRIVILEGED);
    program.go_on();
    program.end().assert_done();
}

/// Takes another user's name, with content that starts like an arena.
fn squatted() {
    let path = std::env::var("ARENITE_HOSTILE_PATH").unwrap();
    fs::write(&path, [b'a'; 5000]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    say("taken");
    crate::harness::programs::pause();
    fs::remove_file(&path).unwrap();
}

fn a_name_that_is_a_link_is_refused() {
    Program::start("around-link", || Ok(())).end().assert_done();
}

fn link() {
    let user = nix::unistd::geteuid();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let name = format!("link-{}", std::process::id());
    let path = format!("/dev/shm/arenite-{user}-{name}.kept");
    for dangling in [false, true] {
        if !dangling {
            fs::write(&target, b"precious").unwrap();
        }
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let error = builder(1, 8 << 20).name(&name).build().unwrap_err();
        assert!(error.to_string().contains("shm_open"), "{error}");
        let left = fs::read(&target).ok();
        assert_eq!(left.as_deref(), (!dangling).then_some(&b"precious"[..]));
        // Nothing was created at the link's target.
        fs::remove_file(&path).unwrap();
        let _ = fs::remove_file(&target);
    }
    // A link under an unused name does not matter.
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    arenite::platform::sweep();
    let engine = builder(1, 8 << 20).backing(Backing::Named).build().unwrap();
    assert_eq!(engine.submit(|n: u8| n, (3,)).wait().unwrap(), 3);
    engine.shutdown();
    let _ = fs::remove_file(&path);
}

fn a_reused_process_id_gets_no_signal() {
    for _ in 0..10 {
        let prepare = || Ok(unshare(CloneFlags::CLONE_NEWPID)?);
        Program::start("around-numbers", prepare)
            .end()
            .assert_done();
    }
}

/// Runs in a namespace whose first process is a copy of this one: a bystander gets the id of a dead worker.
fn numbers() {
    // SAFETY: this program has one thread at this time.
    let first = unsafe { libc::fork() };
    assert!(first >= 0);
    if first > 0 {
        let mut status = 0;
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(first, &raw mut status, 0) };
        assert_eq!(status, 0, "the first process of the namespace failed");
        return;
    }
    let result = std::panic::catch_unwind(first_of_its_namespace);
    // SAFETY: ends this copy, which must not return into the parent's code.
    unsafe { libc::_exit(i32::from(result.is_err())) };
}

fn first_of_its_namespace() {
    assert_eq!(std::process::id(), 1);
    // Keeps mounts made here invisible to the waiting process.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, flags, none).unwrap();
    let proc = Some("proc");
    mount(proc, "/proc", proc, MsFlags::empty(), none).unwrap();
    let engine = builder(2, 16 << 20).build().unwrap();
    let numbers = || {
        let workers = engine.stats().workers.into_iter();
        workers.map(|worker| worker.pid as i32).collect::<Vec<_>>()
    };
    let old = numbers();
    lose_a_worker(&engine);
    wait_until("it is replaced", || {
        let now = engine.stats();
        now.workers.iter().all(|worker| worker.ready) && numbers() != old
    });
    let dead = *old.iter().find(|pid| !numbers().contains(pid)).unwrap();
    // The next process gets the dead one's id.
    fs::write("/proc/sys/kernel/ns_last_pid", (dead - 1).to_string()).unwrap();
    // SAFETY: the copy only sleeps until it is killed, and reports whether a signal arrived.
    let bystander = unsafe { libc::fork() };
    if bystander == 0 {
        // SAFETY: waits for a signal without end; any signal ends or stops it.
        unsafe {
            loop {
                libc::pause();
            }
        }
    }
    assert_eq!(bystander, dead, "the number is used again");
    // Everything that ends workers: jobs that die, deadlines, cancelling, closing the engine.
    for _ in 0..3 {
        let _ = engine.submit(|| -> u8 { std::process::abort() }, ()).wait();
        let late = engine.job(hang, ()).deadline(Duration::from_millis(1));
        let late = late.submit().wait().unwrap_err();
        let is_late = matches!(late.kind(), JobErrorKind::Limit(JobLimit::Deadline { .. }));
        assert!(is_late, "{late}");
        let cancelled = engine.submit(hang, ());
        wait_until("it runs", || {
            let kernels = engine.stats().kernels;
            (kernels.iter()).any(|kernel| kernel.name.contains("hang") && kernel.running == 1)
        });
        cancelled.kill();
        let cancelled = cancelled.wait().unwrap_err();
        assert_kind!(cancelled, JobErrorKind::Cancelled);
    }
    drop(engine);
    let mut status = 0;
    // SAFETY: checks the child made above without waiting.
    let ended =
        unsafe { libc::waitpid(bystander, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
    assert_eq!(ended, 0, "the bystander got a signal: {status:#x}");
    // A signal that was sent but not delivered yet would still end it.
    // SAFETY: the child made above, which has not been waited for.
    unsafe {
        libc::kill(bystander, libc::SIGUSR1);
        libc::waitpid(bystander, &raw mut status, libc::WUNTRACED);
    }
    assert_eq!(status, libc::SIGUSR1, "the bystander got another signal");
}
