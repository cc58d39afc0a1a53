//! `arenite serve` with a service manager that keeps descriptors: what systemd does with `FileDescriptorStoreMax=`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    clippy::disallowed_methods,
    reason = "to children that are not yet waited for"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::Value;
use tempfile::TempDir;

/// A service manager that keeps the descriptors of one service.
struct Manager {
    folder: TempDir,
    socket: UnixDatagram,
    kept: BTreeMap<String, OwnedFd>,
}

/// A running server; killed on drop.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Manager {
            folder,
            socket,
            kept: BTreeMap::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the server with what is kept, in this order of names.
    fn serve(&mut self, order: &[&str]) -> Serving {
        let mut script = String::from("exec");
        for (name, to) in order.iter().zip(3..) {
            let fd = self.kept[*name].as_raw_fd();
            script += &format!(" {to}</proc/{}/fd/{fd}", std::process::id());
        }
        let names = order.join(":");
        script += &format!(
            "; LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names} exec {} serve",
            order.len(),
            env!("CARGO_BIN_EXE_arenite")
        );
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &script])
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("NOTIFY_SOCKET", self.path("notify"))
            .env("FDSTORE", "100")
            .env_remove("ARENITE_STORE")
            .stderr(Stdio::null());
        let serving = Serving(shell.spawn().unwrap());
        self.wait_for("READY=1");
        serving
    }

    /// Receives messages up to one that begins like this.
    fn wait_for(&mut self, start: &str) {
        loop {
            let mut bytes = [0; 4096];
            let mut control = cmsg_space!([RawFd; 8]);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                flags,
            )
            .unwrap_or_else(|error| panic!("no message that begins with {start:?}: {error}"));
            let mut files = Vec::new();
            for control in message.cmsgs().unwrap() {
                if let ControlMessageOwned::ScmRights(fds) = control {
                    // SAFETY: received for this process just now.
                    files.extend(
                        fds.into_iter()
                            .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                    );
                }
            }
            let len = message.bytes;
            let text = String::from_utf8(bytes[..len].to_vec()).unwrap();
            let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
            if text.starts_with("FDSTORE=1") {
                self.kept
                    .insert(name.unwrap().to_owned(), files.pop().unwrap());
            } else if text.starts_with("FDSTOREREMOVE=1") {
                self.kept.remove(name.unwrap());
            }
            if text.starts_with(start) {
                return;
            }
        }
    }

    /// Receives messages until these are kept.
    fn wait_until_kept(&mut self, names: &[&str]) {
        while self
            .kept
            .keys()
            .map(String::as_str)
            .ne(names.iter().copied())
        {
            self.wait_for("");
        }
    }

    fn run(&self, line: &str) -> Vec<u8> {
        let output = Command::new(env!("CARGO_BIN_EXE_arenite"))
            .args(line.split_whitespace())
            .current_dir(self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env_remove("ARENITE_STORE")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {errors}");
        output.stdout
    }

    fn objects(&self) -> Vec<Value> {
        let lines = String::from_utf8(self.run("ls --json")).unwrap();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Memory files of a process that are not sockets of this test.
fn memory_files(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    files
        .filter_map(|file| fs::read_link(file.unwrap().path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("/memfd:"))
        .count()
}

#[test]
fn objects_survive_a_killed_server() {
    let mut manager = Manager::new();
    let large = vec![7; 300_000];
    fs::write(manager.path("large.bin"), &large).unwrap();
    fs::write(manager.path("small.bin"), b"small").unwrap();
    let mut serving = manager.serve(&[]);
    manager.run("put gone large.bin");
    manager.run("put large small.bin");
    manager.run("put small small.bin");
    // Object 4, in the place of object 2.
    manager.run("put large large.bin --replace");
    manager.run("rm gone");
    manager.wait_until_kept(&["arenite-3-about", "arenite-4", "arenite-4-about"]);
    let before = manager.objects();
    serving.0.kill().unwrap();
    serving.0.wait().unwrap();

    // Beside them what is left of an object that was being added when the server died.
    let half = manager.kept["arenite-4"].try_clone().unwrap();
    manager.kept.insert("arenite-9".to_owned(), half);
    let order = [
        "arenite-9",
        "arenite-4-about",
        "arenite-3-about",
        "arenite-4",
    ];
    let serving = manager.serve(&order);
    assert_eq!(manager.objects(), before);
    assert_eq!(manager.run("get large"), large);
    assert_eq!(manager.run("get small"), b"small");
    manager.wait_until_kept(&["arenite-3-about", "arenite-4", "arenite-4-about"]);
    // Numbers go on behind all of them, and what is removed is gone everywhere.
    manager.run("put new large.bin");
    manager.run("rm large");
    manager.wait_until_kept(&["arenite-10", "arenite-10-about", "arenite-3-about"]);
    while memory_files(serving.0.id()) != 1 {
        std::thread::yield_now();
    }
    assert_eq!(manager.objects().len(), 2);

    // A planned end loses nothing.
    manager.run("put last large.bin");
    manager.run("stop");
    manager.wait_for("STOPPING=1");
    assert_eq!(manager.kept.len(), 5);
}
