//! Working directories and folders for temporary files: those that the program has, and those that are of no use.

use std::ffi::CStr;
use std::io;
use std::process::Command;

use arenite::Engine;
use nix::mount::{MsFlags, mount};

use crate::harness::programs::{
    Program, Scenario, is_permitted, own_mounts, own_shm, say, scenario_name,
};
use crate::harness::{Calls, Lab, assert_says, builder, tests};

tests![
    replaced_workers_start_where_the_engine_was_built,
    the_name_of_the_folder_for_temporary_files_may_be_long,
    the_folder_for_temporary_files_may_be_missing;
    where may_mount() => the_root_file_system_may_be_read_only, proc_has_to_be_mounted,
];

pub const SCENARIOS: &[Scenario] = &[
    ("moves", moves),
    ("starts-anywhere", starts_anywhere),
    ("starts-in-long", starts_in_long),
    ("starts-read-only", starts_read_only),
];

fn run(scenario: &str, folder: &std::path::Path) {
    let change = |command: &mut Command| {
        command.env("TMPDIR", folder).env_remove("XDG_RUNTIME_DIR");
    };
    let ended = Program::with(scenario, || Ok(()), change).end();
    ended.assert_done();
    assert_eq!(ended.errors, "");
}

fn replaced_workers_start_where_the_engine_was_built() {
    run("moves", &std::env::temp_dir());
}

/// Longer than the address of a socket.
fn the_name_of_the_folder_for_temporary_files_may_be_long() {
    let folder = tempfile::tempdir().unwrap();
    let long = (0..10).fold(folder.path().to_owned(), |path, _| {
        path.join("x".repeat(100))
    });
    std::fs::create_dir_all(&long).unwrap();
    run("starts-in-long", &long);
    assert_eq!(std::fs::read_dir(&long).unwrap().count(), 0);
}

fn the_folder_for_temporary_files_may_be_missing() {
    run("starts-anywhere", std::path::Path::new("/missing/folder"));
}

fn the_root_file_system_may_be_read_only() {
    let change = |command: &mut Command| {
        command.env_remove("TMPDIR").env_remove("XDG_RUNTIME_DIR");
    };
    let ended = Program::with("starts-read-only", read_only(), change).end();
    ended.assert_done();
    assert_eq!(ended.errors, "");
}

fn proc_has_to_be_mounted() {
    let hide = || {
        own_mounts()?;
        let tmpfs = Some(c"tmpfs");
        mount(tmpfs, c"/proc", tmpfs, MsFlags::empty(), None::<&CStr>)?;
        Ok(())
    };
    Program::start(WITHOUT_PROC, hide).end().assert_done();
}

const WITHOUT_PROC: &str = "without-proc";

/// Called in `main`, before scenarios that look at `/proc`.
pub fn without_proc() {
    if scenario_name().as_deref() == Some(WITHOUT_PROC) {
        let error = Engine::builder()
            .workers(1)
            .build()
            .unwrap_err()
            .to_string();
        assert_says(&error, "/proc is not mounted");
        say("done");
        std::process::exit(0);
    }
}

/// Whether a namespace with read-only mounts is permitted.
fn may_mount() -> bool {
    is_permitted(read_only())
}

/// Returns a `pre_exec` function after which all mounts but a private `/dev/shm` are read-only.
fn read_only() -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    /// From Linux' include/uapi/linux/mount.h.
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let mut shm = own_shm(None);
    move || {
        own_mounts()?;
        let attributes = [MOUNT_ATTR_RDONLY, 0, 0, 0];
        // SAFETY: the call reads the path and the attributes, which are live.
        let set = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                libc::AT_FDCWD,
                c"/".as_ptr(),
                libc::AT_RECURSIVE,
                attributes.as_ptr(),
                size_of_val(&attributes),
            )
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        shm()
    }
}

// ---- what those programs do ---------------------------------------------------------------------------------

/// Changes its working directory after it has built an engine. What Linux says about the workers counts.
fn moves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let [first, renamed, other] = ["first", "renamed", "other"].map(|name| path.join(name));
    std::fs::create_dir(&first).unwrap();
    std::fs::create_dir(&other).unwrap();
    std::env::set_current_dir(&first).unwrap();
    let lab = Lab::new(2);
    let folder_of = |worker| std::fs::read_link(format!("/proc/{}/cwd", lab.pid(worker))).unwrap();
    assert_eq!(folder_of(0), first);
    std::env::set_current_dir(&other).unwrap();
    lab.replace(0);
    assert_eq!(folder_of(0), first);
    let relative = || std::fs::write("made", "").is_ok();
    assert!(
        lab.map(relative, (0..10).map(|_| ()))
            .all(|made| made.unwrap())
    );
    assert!(first.join("made").exists() && !other.join("made").exists());
    std::fs::rename(&first, &renamed).unwrap();
    lab.replace(1);
    assert_eq!(folder_of(1), renamed);
    std::fs::remove_dir_all(&renamed).unwrap();
    lab.replace(0);
    assert!(
        folder_of(0)
            .to_string_lossy()
            .ends_with("renamed (deleted)")
    );
    assert_eq!(lab.value_of(|| 7u8, ()), 7);
}

/// First workers, and one that replaces another.
fn starts_anywhere() {
    for _ in 0..2 {
        let builder = builder(2, 64 << 20);
        let engine = builder.build().unwrap();
        let squares = |engine: &Engine| {
            let squares = engine.map(|n: u64| n * n, (0..100u64).map(|n| (n,)));
            assert!(squares.map(Result::unwrap).eq((0..100).map(|n| n * n)));
        };
        squares(&engine);
        engine.error_of(|| -> u8 { std::process::abort() }, ());
        squares(&engine);
        engine.shutdown();
    }
}

fn starts_in_long() {
    starts_anywhere();
    // The descriptor that names the folder stays open.
    say("done");
    std::process::exit(0);
}

fn starts_read_only() {
    let denied = tempfile::tempfile().unwrap_err();
    assert_eq!(denied.raw_os_error(), Some(libc::EROFS), "{denied}");
    starts_anywhere();
}
