//! `arenite serve`, `put`, `get`, `ls`, `rm`, `top` and `stop` from outside.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    clippy::disallowed_methods,
    reason = "to children that are not yet waited for"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use arenite::array::npy;
use arenite::{Array, ArrayMut};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// A folder for files and for the store's socket.
struct World(TempDir);

/// A running server; killed on drop.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Serving {
    fn signal(&mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
        self.ended()
    }

    fn ended(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl World {
    fn new() -> World {
        World(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arenite"));
        command
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env_remove("ARENITE_STORE")
            .env_remove("NOTIFY_SOCKET");
        command
    }

    /// Runs a command that succeeds, and returns what it printed.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        let output = self.command(line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a command that fails with this code, and returns its error.
    #[track_caller]
    fn fails(&self, code: i32, line: &str) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(line).output().unwrap();
        assert_eq!(status.code(), Some(code), "{line}: {}", text(&stderr));
        assert_eq!(text(&stdout), "", "nothing but results");
        text(&stderr)
    }

    fn json(&self, line: &str) -> Vec<Value> {
        let lines = self.run(line);
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Starts a server and waits until it says that clients can connect.
    fn serve(&self, flags: &str) -> Serving {
        let mut child = self
            .command(&format!("serve --json {flags}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let ready: Value = serde_json::from_str(&ready).unwrap();
        assert_eq!(ready["pid"], child.id(), "{ready}");
        Serving(child)
    }

    fn npy(&self, name: &str, array: &Array<f32>) {
        npy::write(self.path(name), array).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn files_go_in_and_come_out_as_they_were() {
    let world = World::new();
    let mut serving = world.serve("");
    let array = Array::from_fn([100, 300], |i| i as f32);
    world.npy("a.npy", &array);
    fs::write(world.path("b.bin"), b"some bytes").unwrap();
    assert_eq!(world.run("put prices a.npy"), "");
    world.run("put bytes b.bin");
    world.run("get prices -o out.npy");
    assert_eq!(npy::read::<f32>(world.path("out.npy")).unwrap(), array);
    assert_eq!(
        fs::read(world.path("a.npy")).unwrap(),
        fs::read(world.path("out.npy")).unwrap()
    );
    assert_eq!(world.run("get bytes"), "some bytes");

    let listed = world.json("ls --json");
    let facts: Vec<_> = listed
        .iter()
        .map(|o| (&o["name"], &o["kind"], &o["bytes"]))
        .collect();
    assert_eq!(
        format!("{facts:?}"),
        r#"[(String("bytes"), String("bytes"), Number(10)), (String("prices"), String("array"), Number(120000))]"#
    );
    assert_eq!(listed[1]["shape"], serde_json::json!([100, 300]));
    let table = world.run("ls");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("NAME    KIND"), "{table}");
    assert!(
        lines[2].starts_with("prices  array <f4 100×300  117.2 KiB"),
        "{table}"
    );

    world.run("rm prices bytes");
    assert_eq!(world.run("ls --json"), "");
    world.run("stop");
    assert_eq!(serving.ended(), Some(0));
    assert!(!world.path("arenite/main.sock").exists());
}

#[test]
fn a_file_or_a_link_is_replaced_and_a_pipe_is_written_to() {
    let world = World::new();
    let _serving = world.serve("");
    fs::write(world.path("b.bin"), b"some bytes").unwrap();
    world.run("put bytes b.bin");
    fs::write(world.path("precious"), b"mine").unwrap();
    std::os::unix::fs::symlink("precious", world.path("link")).unwrap();
    fs::hard_link(world.path("precious"), world.path("hard")).unwrap();
    for name in ["new", "link", "hard", "./link"] {
        world.run(&format!("get bytes -o {name}"));
        assert!(world.path(name).symlink_metadata().unwrap().is_file());
        assert_eq!(fs::read(world.path(name)).unwrap(), b"some bytes");
        assert_eq!(fs::read(world.path("precious")).unwrap(), b"mine");
    }
    world.run("get bytes -o /dev/null");
    nix::unistd::mkfifo(&world.path("pipe"), Mode::S_IRWXU).unwrap();
    let pipe = world.path("pipe");
    let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
    world.run("get bytes -o pipe");
    assert_eq!(reader.join().unwrap(), b"some bytes");
    fs::create_dir(world.path("folder")).unwrap();
    for name in ["folder", "folder/", "..", "no/file"] {
        let said = world.fails(1, &format!("get bytes -o {name}"));
        assert!(said.contains(name.trim_end_matches('/')), "{said}");
    }
    let names = fs::read_dir(world.path("")).unwrap().flatten();
    let is_left = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".tmp");
    assert!(!names.into_iter().any(|entry| is_left(&entry.file_name())));
}

#[test]
fn standard_input_is_a_file() {
    let world = World::new();
    let _serving = world.serve("");
    let put = |line: &str, input: &[u8]| {
        let mut child = world.command(line).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        assert!(child.wait().unwrap().success(), "{line}");
    };
    put("put empty -", b"");
    put("put text -", b"from a pipe");
    let mut npy = Vec::new();
    npy::write_to(&mut npy, [2, 2], &[1_u8, 2, 3, 4]).unwrap();
    put("put array -", &npy);
    put("put npy - --kind bytes", &npy);
    let kinds: Vec<_> = world
        .json("ls --json")
        .iter()
        .map(|o| o["kind"].to_string())
        .collect();
    assert_eq!(
        kinds,
        [r#""array""#, r#""bytes""#, r#""bytes""#, r#""bytes""#]
    );
    assert_eq!(world.run("get text"), "from a pipe");
    assert_eq!(world.run("get empty"), "");
}

#[test]
fn names_are_taken_until_they_are_replaced() {
    let world = World::new();
    let _serving = world.serve("");
    fs::write(world.path("one"), b"1").unwrap();
    fs::write(world.path("two"), b"22").unwrap();
    world.run("put a one");
    let error = world.fails(1, "put a two");
    assert!(
        error.starts_with("error: a exists already: bytes from process"),
        "{error}"
    );
    let object = &world.json("put a two --replace --json")[0];
    assert_eq!(
        (&object["name"], &object["bytes"]),
        (&"a".into(), &2.into())
    );
    let error = world.fails(1, "get b");
    assert!(
        error.contains("there is no object \"b\"; list them with `arenite ls`"),
        "{error}"
    );
    let error = world.fails(1, "rm c a d");
    assert_eq!(error.lines().count(), 2, "{error}");
    assert_eq!(world.run("ls --json"), "", "what exists is removed");
}

#[test]
fn get_waits_for_an_object() {
    let world = World::new();
    let _serving = world.serve("");
    fs::write(world.path("one"), b"1").unwrap();
    std::thread::scope(|scope| {
        let got = scope.spawn(|| world.run("get later --wait 10m"));
        world.run("put later one");
        assert_eq!(got.join().unwrap(), "1");
    });
    let error = world.fails(1, "get never --wait 10ms");
    assert!(error.contains("\"never\" appeared"), "{error}");
}

#[test]
fn a_replacement_is_whole_or_refused() {
    let world = World::new();
    let _serving = world.serve("--capacity 10MB");
    fs::write(world.path("six"), vec![1; 6_000_000]).unwrap();
    fs::write(world.path("seven"), vec![2; 7_000_000]).unwrap();
    world.run("put x six");
    // It needs the room of what it replaces.
    world.run("put x seven --replace");
    world.run("get x -o out");
    assert_eq!(fs::read(world.path("out")).unwrap(), vec![2; 7_000_000]);
    fs::write(world.path("eleven"), vec![3; 11_000_000]).unwrap();
    assert!(
        world
            .fails(1, "put x eleven --replace")
            .contains("the store is full")
    );
    world.run("get x -o out");
    assert_eq!(fs::metadata(world.path("out")).unwrap().len(), 7_000_000);
}

#[test]
fn files_of_others_are_left_alone() {
    let world = World::new();
    fs::write(world.path("data.npy"), "mine").unwrap();
    fs::write(world.path("x.sock.lock"), "mine").unwrap();
    let error = world.fails(2, "serve --name ./data.npy");
    assert!(
        error.contains("exists and is no socket of a server"),
        "{error}"
    );
    let error = world.fails(2, "serve --name ./x.sock");
    assert!(
        error.contains("exists and is no lock of a server"),
        "{error}"
    );
    let mut serving = world.serve("--name ./data.sock");
    assert_eq!(serving.signal(Signal::SIGTERM), Some(0));
    assert_eq!(fs::read(world.path("data.npy")).unwrap(), b"mine");
    assert_eq!(fs::read(world.path("x.sock.lock")).unwrap(), b"mine");
    // Without its lock's file the server still has its name.
    let mut serving = world.serve("--name ./y.sock");
    fs::remove_file(world.path("y.sock.lock")).unwrap();
    assert!(
        world
            .fails(2, "serve --name ./y.sock")
            .contains("is served already")
    );
    world.run("ls --store ./y.sock");
    assert_eq!(serving.signal(Signal::SIGTERM), Some(0));
    // A device is written to, not replaced.
    let _serving = world.serve("");
    world.run("put a data.npy");
    let link = world.path("null");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    world.run("get a -o null");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let world = World::new();
    let script = format!(
        "trap '' HUP; exec {} serve --json",
        env!("CARGO_BIN_EXE_arenite")
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .env("XDG_RUNTIME_DIR", world.0.path())
        .env_remove("ARENITE_STORE")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut ready)
        .unwrap();
    let mut serving = Serving(child);
    kill(Pid::from_raw(serving.0.id() as i32), Signal::SIGHUP).unwrap();
    world.run("ls");
    assert_eq!(serving.signal(Signal::SIGTERM), Some(0));
}

#[test]
fn a_full_store_says_how_full() {
    let world = World::new();
    let _serving = world.serve("--capacity 100K");
    fs::write(world.path("large"), vec![0; 200_000]).unwrap();
    let error = world.fails(1, "put a large");
    assert!(
        error.contains("the store is full: requested 102401 bytes, free 102400, capacity 102400"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_is_said() {
    let world = World::new();
    let error = world.fails(2, "ls");
    assert_eq!(
        error,
        "error: no store main is served; start it with `arenite serve --name main`\n"
    );
    assert!(world.fails(2, "ls --store ../x").contains("is served"));
    assert!(
        world
            .fails(2, "ls --store a:b")
            .contains("is no name for a server")
    );
    let _serving = world.serve("");
    let error = world.fails(2, "serve");
    assert!(
        error.contains("the store main is served already (process"),
        "{error}"
    );
    assert!(
        world
            .fails(1, "put a missing")
            .contains("missing: no such file or directory")
    );
    let column_major =
        b"\x93NUMPY\x01\x00\x3b\x00{'descr': '<u2', 'fortran_order': True, 'shape': (2,2), } \n";
    fs::write(world.path("f.npy"), column_major).unwrap();
    assert!(
        world.fails(1, "put a f.npy").contains("column-major"),
        "{}",
        world.fails(1, "put a f.npy")
    );
    fs::write(world.path("a.feather"), b"ARROW1\0\0more").unwrap();
    assert!(
        world
            .fails(1, "put a a.feather")
            .contains("is an Arrow file")
    );
    fs::write(world.path("one"), b"1").unwrap();
    world.run("put a one");
    assert!(world.fails(2, "get a --json").contains("--out"));
    assert!(
        world
            .fails(1, "get a -o no/such/folder")
            .contains("no such file or directory")
    );
}

#[test]
fn stores_are_told_apart_by_name_and_path() {
    let world = World::new();
    let _one = world.serve("");
    let _two = world.serve("--name two");
    let path = world.path("three.sock");
    let path = path.to_str().unwrap();
    let _three = world.serve(&format!("--name {path}"));
    fs::write(world.path("file"), b"1").unwrap();
    world.run("put a file --store two");
    world.run(&format!("put b file --store {path}"));
    assert_eq!(world.run("ls --json"), "");
    assert_eq!(world.json("ls --store two --json")[0]["name"], "a");
    let listed = world
        .command("ls --json")
        .env("ARENITE_STORE", path)
        .output()
        .unwrap();
    assert!(text(&listed.stdout).contains(r#""name":"b""#));
}

#[test]
fn every_command_of_a_store_takes_its_name_by_either_flag() {
    let world = World::new();
    fs::write(world.path("file"), b"1").unwrap();
    for flag in ["--name", "--store"] {
        let mut serving = world.serve(&format!("{flag} two"));
        for line in [
            "put a file",
            "get a --out copy",
            "ls",
            "top --json",
            "rm a",
            "call --json",
            "stop",
        ] {
            world.run(&format!("{line} {flag} two"));
        }
        assert_eq!(serving.ended(), Some(0), "{flag}");
    }
}

#[test]
fn a_server_ends_by_signal_and_when_idle() {
    let world = World::new();
    // A server that a shell has started in the background ignores SIGINT, as this program does then.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let heard = |signal: &Signal| ignored & 1 << (*signal as i32 - 1) == 0;
    for signal in signals.into_iter().filter(heard) {
        let mut serving = world.serve("");
        assert_eq!(serving.signal(signal), Some(0));
        let files = fs::read_dir(world.path("arenite")).unwrap().count();
        assert_eq!(files, 0, "nothing is left");
    }
    let mut serving = world.serve("--idle-exit 1ms");
    assert_eq!(serving.ended(), Some(0));
    // Killed, it leaves a socket, which the next one replaces.
    let mut serving = world.serve("");
    assert_eq!(serving.signal(Signal::SIGKILL), None);
    assert!(world.path("arenite/main.sock").exists());
    let _serving = world.serve("");
    world.run("ls");
}

/// A server that starts answers its clients; otherwise it says which limit is too low, and what it needs.
#[test]
fn a_low_limit_on_open_files_is_an_error_at_the_start() {
    let world = World::new();
    for limit in [0, 3, 4, 5, 6, 7, 8, 12, 24, 32, 36, 40, 64] {
        let mut server = Command::new("sh")
            .args(["-c", "ulimit -n $0 && exec \"$@\"", &limit.to_string()])
            .args([env!("CARGO_BIN_EXE_arenite"), "serve", "--json"])
            .env("XDG_RUNTIME_DIR", world.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let output = server.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut ready).unwrap();
        if !ready.is_empty() {
            let _serving = Serving(server);
            assert_eq!(world.run("ls --json"), "", "a limit of {limit}");
            continue;
        }
        let Output { status, stderr, .. } = server.wait_with_output().unwrap();
        let errors = text(&stderr);
        // The dynamic loader needs a descriptor.
        let is_loaded = !errors.contains("error while loading shared libraries");
        if is_loaded {
            assert_eq!(status.code(), Some(2), "{errors}");
            assert!(
                errors.contains(&format!("32 more descriptors of {limit} in all")),
                "{errors}"
            );
            assert!(errors.contains("ulimit -n"), "{errors}");
        }
        assert!(limit < 64, "{errors}");
    }
}

#[test]
fn a_service_manager_is_told() {
    let world = World::new();
    let path = world.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut command = world.command("serve");
    command.env("NOTIFY_SOCKET", &path).stderr(Stdio::null());
    let mut serving = Serving(command.spawn().unwrap());
    let mut buffer = [0; 64];
    let mut received = || {
        let len = manager.recv(&mut buffer).unwrap();
        text(&buffer[..len])
    };
    assert_eq!(received(), "READY=1");
    world.run("stop");
    assert_eq!(received(), "STOPPING=1");
    assert_eq!(serving.ended(), Some(0));
}

/// As systemd does for a socket unit: clients wait until the server runs, and the next one finds the same socket.
#[test]
fn a_socket_that_was_passed_is_served_and_stays() {
    let world = World::new();
    let folder = world.path("arenite");
    fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
    // Not close-on-exec: the shell gets it.
    let socket = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::empty(),
        None,
    )
    .unwrap();
    let address = UnixAddr::new(&folder.join("main.sock")).unwrap();
    bind(socket.as_raw_fd(), &address).unwrap();
    listen(&socket, Backlog::MAXCONN).unwrap();
    for bytes in [b"first".as_slice(), b"second"] {
        fs::write(world.path("a.bin"), bytes).unwrap();
        let early = world.command("put a a.bin").spawn().unwrap();
        let script = format!(
            "exec 3<&{} && LISTEN_PID=$$ LISTEN_FDS=1 exec {} serve",
            socket.as_raw_fd(),
            env!("CARGO_BIN_EXE_arenite")
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stderr(Stdio::null());
        shell.env("XDG_RUNTIME_DIR", world.path(""));
        let mut serving = Serving(shell.spawn().unwrap());
        assert!(early.wait_with_output().unwrap().status.success());
        assert_eq!(world.run("get a").as_bytes(), bytes);
        assert!(world.fails(2, "serve").contains("is served already"));
        world.run("stop");
        assert_eq!(serving.ended(), Some(0));
    }
}

#[test]
fn top_shows_one_view_where_there_is_no_terminal() {
    let world = World::new();
    let _serving = world.serve("--capacity 1M");
    world.npy("a.npy", &Array::from_slice(&[1.0; 10_000]));
    fs::write(world.path("b"), b"1").unwrap();
    world.run("put small b");
    world.run("put large a.npy");
    let view = world.run("top");
    let lines: Vec<&str> = view.lines().collect();
    assert!(lines[0].starts_with("store main   process"), "{view}");
    assert_eq!(
        lines[1],
        "memory [#...................] 39.1 KiB of 1.0 MiB (4 %)"
    );
    assert!(
        lines[4].starts_with("large  array <f4 10000"),
        "by size: {view}"
    );
    assert!(lines[5].starts_with("small  bytes"), "{view}");
    assert!(lines[7].starts_with("CLIENT"), "{view}");
    assert!(lines[8].starts_with("arenite"), "{view}");
    let view = &world.json("top --json")[0];
    assert_eq!(view["store"]["objects"], 2);
    assert_eq!(view["objects"][0]["name"], "large");
    assert_eq!(view["clients"].as_array().unwrap().len(), 1);
}

#[test]
fn top_shows_the_memory_of_removed_objects_in_a_line_of_its_own() {
    let world = World::new();
    let _serving = world.serve("--capacity 1M");
    world.npy("a.npy", &Array::from_slice(&[1.0; 10_000]));
    world.run("put large a.npy");
    let socket = world.0.path().join("arenite/main.sock");
    let store = arenite_store::connect(socket.to_str().unwrap()).unwrap();
    let held = store.get::<f32>("large").unwrap();
    world.run("rm large");
    let view = world.run("top");
    let lines: Vec<&str> = view.lines().collect();
    assert_eq!(
        lines[1..4],
        [
            "memory [#...................] 39.1 KiB of 1.0 MiB (4 %)",
            "       39.1 KiB of removed objects, in use",
            ""
        ]
    );
    drop(held);
}

/// A terminal by `script`, in which `q` is typed.
#[test]
fn top_is_live_on_a_terminal_and_q_quits() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("not tried: there is no `script`");
        return;
    }
    let world = World::new();
    let _serving = world.serve("");
    let mut filled = ArrayMut::<f32>::zeros(10);
    filled[0] = 1.0;
    world.npy("a.npy", &filled.seal());
    world.run("put prices a.npy");
    let line = format!("{} top --interval 10ms", env!("CARGO_BIN_EXE_arenite"));
    let mut child = Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("XDG_RUNTIME_DIR", world.0.path())
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut screen = BufReader::new(child.stdout.take().unwrap());
    let mut seen = String::new();
    // Two views: it is live.
    while seen.matches("prices").count() < 2 {
        let before = seen.len();
        screen.read_line(&mut seen).unwrap();
        assert!(seen.len() > before, "it ended: {seen:?}");
    }
    child.stdin.take().unwrap().write_all(b"q").unwrap();
    std::io::Read::read_to_string(&mut screen, &mut seen).unwrap();
    assert!(child.wait().unwrap().success(), "{seen:?}");
    assert!(
        seen.contains("\x1b[?1049h") && seen.contains("\x1b[?1049l"),
        "{seen:?}"
    );
    assert!(seen.contains("\x1b[1mstore main"), "{seen:?}");
}
