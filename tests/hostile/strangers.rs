//! Another user at the socket of a handshake, at the moment when it has a name, and a program that becomes another
//! user. Needs the feature `points`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arenite::points::{Board, Fault, VARIABLE};
use arenite::{JobErrorKind, JobLimit};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::harness::programs::{Program, Scenario};
use crate::harness::{assert_kind, builder, hang, step, tests, wait_until};
use crate::users::{become_unprivileged, is_root};

// Only root can start a process of another user, and become another user.
tests![; where is_root() => no_other_user_connects_to_a_worker, a_program_becomes_another_user];

pub const SCENARIOS: &[Scenario] = &[("host", host), ("stranger", stranger), ("changed", changed)];

fn a_program_becomes_another_user() {
    Program::start("changed", || Ok(())).end().assert_done();
}

/// Becomes a user that may kill no worker, while jobs hang.
fn changed() {
    let [engine, other] = [(); 2].map(|()| builder(2, 8 << 20).build().unwrap());
    let hung = engine
        .job(hang, ())
        .deadline(Duration::from_secs(1))
        .submit();
    let endless = other.submit(hang, ());
    wait_until("both jobs to run", || {
        hung.is_running() && endless.is_running()
    });
    become_unprivileged().unwrap();
    assert_kind!(
        hung.wait().unwrap_err(),
        JobErrorKind::Limit(JobLimit::Deadline { .. })
    );
    let error = engine.submit(|| (), ()).wait().unwrap_err();
    assert!(
        error.to_string().contains("dropped its privileges"),
        "{error}"
    );
    drop(other);
    assert_kind!(endless.wait().unwrap_err(), JobErrorKind::ShutDown);
}

fn no_other_user_connects_to_a_worker() {
    // The usual umask, one for groups, and none.
    for mask in [0o022, 0o002, 0] {
        let folder = tempfile::tempdir().unwrap();
        let temporary = folder.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        for (path, mode) in [(folder.path(), 0o755), (&temporary, 0o1777)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let board_path = folder.path().join("board");
        let board = Board::create(&board_path).unwrap();
        board.arm("spawn.named", Fault::Stop, 1..2);
        let prepare = move || {
            umask(Mode::from_bits_truncate(mask));
            Ok(())
        };
        let change = |command: &mut std::process::Command| {
            command.env(VARIABLE, &board_path).env("TMPDIR", &temporary);
        };
        let host = Program::with("host", prepare, change);
        step("the host to be stopped before its worker is started");
        let pid = Pid::from_raw(host.pid());
        waitid(Id::Pid(pid), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT).unwrap();
        assert_eq!(board.done("spawn.named"), (1, host.pid()));
        let socket = only_socket(&temporary);
        let change = |command: &mut std::process::Command| {
            command.env("ARENITE_HOSTILE_PATH", &socket);
        };
        Program::with("stranger", become_unprivileged, change)
            .end()
            .assert_done();
        kill(pid, Signal::SIGCONT).unwrap();
        host.end().assert_done();
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
    }
}

/// The socket, which is alone in its own folder below this one.
fn only_socket(folder: &Path) -> PathBuf {
    let entries: Vec<_> = fs::read_dir(folder).unwrap().collect();
    let [Ok(entry)] = &entries[..] else {
        panic!("{entries:?}")
    };
    let socket = entry.path().join("socket");
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    socket
}

/// Starts an engine and works with it.
fn host() {
    let engine = builder(2, 8 << 20).build().unwrap();
    assert_eq!(engine.submit(|n: u8| n, (3,)).wait().unwrap(), 3);
    engine.shutdown();
}

/// Tries to connect, and to pose as the process to which the worker connects.
fn stranger() {
    let path = PathBuf::from(std::env::var_os("ARENITE_HOSTILE_PATH").unwrap());
    let address = UnixAddr::new(&path).unwrap();
    for kind in [SockType::SeqPacket, SockType::Stream] {
        let caller = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let called = connect(std::os::fd::AsRawFd::as_raw_fd(&caller), &address);
        assert_eq!(called, Err(Errno::EACCES));
    }
    let folder = path.parent().unwrap();
    let refused = |what: &str, answer: std::io::Result<()>| {
        let code = answer.expect_err(what).raw_os_error();
        assert!(
            matches!(code, Some(libc::EACCES | libc::EPERM)),
            "{what}: {code:?}"
        );
    };
    let everyone = || fs::Permissions::from_mode(0o777);
    refused("mode", fs::set_permissions(&path, everyone()));
    refused(
        "mode of the folder",
        fs::set_permissions(folder, everyone()),
    );
    refused("away", fs::rename(&path, folder.join("away")));
    refused("gone", fs::remove_file(&path));
    refused("a file", fs::write(folder.join("file"), b"mine"));
    refused(
        "the folder away",
        fs::rename(folder, folder.with_extension("away")),
    );
}
