//! Servers with a page, clients of the page, and services that are not there.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use arenite_store::{Store, connect};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind, listen, recv,
    send, socket,
};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

/// For what takes no time unless something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for files and for sockets.
pub struct World(TempDir);

/// A running server with a page; killed on drop.
pub struct Serving {
    child: Child,
    /// What it printed about itself.
    pub ready: Value,
    /// The address of the page that it printed to stderr, and what came after it.
    pub page: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Serving {
    /// Host and port.
    pub fn host(&self) -> &str {
        self.url().split('/').nth(2).unwrap()
    }

    pub fn token(&self) -> &str {
        self.url().split_once("?token=").unwrap().1
    }

    pub fn url(&self) -> &str {
        self.ready["page"].as_str().unwrap()
    }

    /// A connection that gives up on what does not come.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.host()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request as it is.
    #[track_caller]
    pub fn send(&self, request: &str) -> Response {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        Response::read(stream)
    }

    /// Gets what a client with the token gets.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
            self.host(),
            self.token()
        ))
    }

    /// The data of the page now.
    #[track_caller]
    pub fn data(&self) -> Value {
        let response = self.get("/data");
        assert_eq!(response.status, 200, "{}", response.body);
        assert_eq!(response.header("content-type"), "application/json");
        serde_json::from_str(&response.body).unwrap()
    }

    pub fn signal(&mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        self.ended()
    }

    pub fn ended(&mut self) -> Option<i32> {
        until("the server ends", || self.has_ended());
        self.child.wait().unwrap().code()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

/// An answer of the page's server.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Response {
    #[track_caller]
    pub fn read(mut stream: impl Read) -> Response {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let response = Response {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        };
        assert_eq!(response.header("connection"), "close");
        assert_eq!(response.header("cache-control"), "no-store");
        assert_eq!(response.header("referrer-policy"), "no-referrer");
        assert_eq!(response.header("x-content-type-options"), "nosniff");
        let policy = response.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        response
    }

    /// The value of a header; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let named = self.head.lines().filter_map(|line| line.split_once(": "));
        named
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
            .unwrap_or("")
    }
}

impl World {
    pub fn new() -> World {
        World(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, line: &str) -> Command {
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
    pub fn run(&self, line: &str) -> String {
        let output = self.command(line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a command that fails with this code, and returns its error.
    #[track_caller]
    pub fn fails(&self, code: i32, line: &str) -> String {
        let Output { status, stderr, .. } = self.command(line).output().unwrap();
        assert_eq!(status.code(), Some(code), "{line}: {}", text(&stderr));
        text(&stderr)
    }

    /// Starts a server with a page at `address`, and waits until clients can connect.
    #[track_caller]
    pub fn serve(&self, address: &str, flags: &str) -> Serving {
        let mut child = self
            .command(&format!("serve --json --http {address} {flags}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap();
        assert!(next().starts_with("serving "));
        let page = next().strip_prefix("page at ").unwrap().to_owned();
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let serving = Serving { child, ready, page };
        assert!(serving.page.starts_with(serving.url()), "{}", serving.page);
        serving
    }

    /// The store `main` as a client in this process.
    pub fn store(&self) -> Store {
        connect(self.path("arenite/main.sock").to_str().unwrap()).unwrap()
    }

    /// Listens as the service `name` would.
    fn listen(&self, name: &str) -> OwnedFd {
        let folder = self.path("arenite");
        if !folder.exists() {
            fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        }
        let socket = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        let address = UnixAddr::new(&folder.join(format!("{name}.sock"))).unwrap();
        bind(socket.as_raw_fd(), &address).unwrap();
        listen(&socket, Backlog::new(8).unwrap()).unwrap();
        socket
    }

    /// A service that answers each request with `answer`, to the end of this process.
    pub fn service(&self, name: &str, answer: &Value) {
        let listener = self.listen(name);
        let answer = serde_json::to_vec(answer).unwrap();
        thread::spawn(move || {
            while let Ok(connection) = accept(&listener) {
                let mut request = [0; 1024];
                while let Ok(len @ 1..) =
                    recv(connection.as_raw_fd(), &mut request, MsgFlags::empty())
                {
                    assert_eq!(&request[..len], br#"{"op":"status"}"#);
                    let _ = send(connection.as_raw_fd(), &answer, MsgFlags::MSG_NOSIGNAL);
                }
            }
        });
    }

    /// A service that accepts nothing. It listens until this is dropped.
    pub fn hung_service(&self, name: &str) -> OwnedFd {
        self.listen(name)
    }
}

/// What a service reports.
pub fn status(name: &str) -> Value {
    json!({
        "service": true, "protocol": 1, "name": name, "pid": 123, "started": 1.0, "program": "photo-server",
        "workers": [
            {"pid": 124, "state": "busy", "kernel": "sharpen", "jobs": 10, "restarts": 0},
            {"pid": 125, "state": "dead", "kernel": null, "jobs": 0, "restarts": 7},
        ],
        "kernels": [{
            "name": "sharpen", "signature": "(array f32, f32) -> array f32", "queued": 4321, "running": 1, "done": 9,
            "failed": 1, "seconds": 0.52,
        }],
        "clients": [{"id": 2, "pid": 99, "program": "notebook", "queued": 0, "running": 1, "done": 10}],
        "memory": {"capacity": 1 << 20, "in_use": 1 << 19},
        "failures": [{
            "at": 1.0, "kernel": "sharpen", "client": 2, "cause": "crashed", "message": "it read a null pointer",
            "last_words": "panicked at <b>blur</b>.rs:42",
        }],
    })
}

/// Waits until `done`.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "not yet: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
