//! The engines of this user's programs: how `arenite top` and `arenite doctor` find them and ask for their state. The
//! protocol is in `src/supervisor/README.md`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

/// The version of the answers that this command reads.
const VERSION: u32 = 1;
/// How long all engines together may take to answer. A stopped program does not answer, nor does the forked copy of a
/// program that was killed, which holds the socket open.
const PATIENCE: Duration = Duration::from_millis(500);
/// Max length of an answer in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// `__SO_ACCEPTCON`: the flag of a listening socket in `/proc/net/unix`.
const LISTENING: u32 = 0x10000;

/// The state of an engine at one moment.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Engine {
    pub(super) version: u32,
    pub(crate) pid: i32,
    /// The program, which for Python is the script; found here, not in the answer.
    #[serde(default)]
    pub(crate) program: String,
    pub(super) name: String,
    pub(super) sandboxed: bool,
    pub(super) elapsed: f64,
    pub(super) submitted: u64,
    pub(super) queued: u64,
    pub(super) waiting: u64,
    pub(super) limited: u64,
    pub(super) ahead: u64,
    pub(super) running: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    pub(super) memory_short: bool,
    /// Why no worker can be started at present.
    #[serde(default)]
    pub(crate) start_failure: Option<String>,
    pub(super) arena: Arena,
    pub(super) worker_count: usize,
    pub(super) restarts: u64,
    pub(super) workers: Vec<Worker>,
    pub(super) kernels: Vec<Kernel>,
}

/// The arena of an engine, in bytes.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Arena {
    pub(super) used: u64,
    pub(super) capacity: u64,
}

/// A worker. The first of many are in the answer.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Worker {
    pid: u32,
    ready: bool,
    spare: bool,
    restarts: u64,
    jobs: u64,
    open: u64,
}

/// A kernel, or a Python function. Those that run come first; the first of many are in the answer.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Kernel {
    pub(super) name: String,
    pub(super) running: u64,
    calls: u64,
    failures: u64,
    seconds: f64,
}

/// Returns the engines of this user that answer, sorted by process, then by age.
pub(crate) fn engines() -> Vec<Engine> {
    let listed = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let prefix = format!("arenite-engine-{}-", geteuid());
    // All are asked before the first answer is read, so that one time limit suffices.
    let asked: Vec<_> = listed
        .lines()
        .filter_map(|line| listening(line, &prefix))
        .filter_map(ask)
        .collect();
    let until = Instant::now() + PATIENCE;
    let answers = asked.into_iter();
    let mut engines: Vec<_> = answers
        .filter_map(|(pid, peer)| answer(pid, peer, until))
        .collect();
    engines.sort_by(|a, b| a.pid.cmp(&b.pid).then(b.elapsed.total_cmp(&a.elapsed)));
    engines
}

/// Returns the name of the socket in a line of `/proc/net/unix`, if it is listening and has this prefix.
fn listening<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    // Num RefCount Protocol Flags Type St Inode Path
    let mut fields = line.split_ascii_whitespace();
    let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
    // A `@` stands for the byte 0 that begins the names of this namespace.
    let name = fields.nth(3)?.strip_prefix('@')?;
    (flags & LISTENING != 0 && name.starts_with(prefix)).then_some(name)
}

/// Connects to the socket of an engine, which is the request. Returns its process and the connection. `None` if the
/// socket is that of another user or of a program that has ended, or has too many requests already.
fn ask(name: &str) -> Option<(i32, UnixStream)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let own: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    let address = UnixAddr::new_abstract(name.as_bytes()).ok()?;
    connect(own.as_raw_fd(), &address).ok()?;
    let peer = getsockopt(&own, PeerCredentials).ok()?;
    // 0: a process that is not visible in this PID namespace.
    let is_alive = peer.pid() == 0 || Path::new(&format!("/proc/{}", peer.pid())).exists();
    if peer.uid() != geteuid().as_raw() || !is_alive {
        return None;
    }
    let connection = UnixStream::from(own);
    connection.set_nonblocking(false).ok()?;
    Some((peer.pid(), connection))
}

/// Reads the answer of an engine.
fn answer(pid: i32, connection: UnixStream, until: Instant) -> Option<Engine> {
    let mut bytes = Vec::new();
    let mut reader = BufReader::new(connection.take(MAX_ANSWER));
    // Up to the end of the line: a process that was forked during the answer may hold the other end open.
    while !bytes.ends_with(b"\n") {
        // Also after the limit, what has arrived is read.
        let left = until.saturating_duration_since(Instant::now());
        let limit = left.max(Duration::from_millis(1));
        reader
            .get_ref()
            .get_ref()
            .set_read_timeout(Some(limit))
            .ok()?;
        let arrived = reader.fill_buf().ok()?;
        if arrived.is_empty() {
            return None;
        }
        bytes.extend_from_slice(arrived);
        let count = arrived.len();
        reader.consume(count);
    }
    let mut engine: Engine = serde_json::from_slice(&bytes).ok()?;
    if engine.version != VERSION {
        return None;
    }
    // The process as it is called here, which the engine does not know.
    if pid != 0 {
        engine.pid = pid;
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        engine.program = program(&String::from_utf8_lossy(&command));
    }
    Some(engine)
}

/// Returns the program of a command line whose arguments end with zero bytes. For Python this is the script or module.
fn program(command: &str) -> String {
    let file_name = |path: &str| {
        let name = Path::new(path).file_name();
        name.map_or_else(
            || path.to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    };
    let mut arguments = command.split('\0');
    let program = file_name(arguments.next().unwrap_or_default());
    if !program.starts_with("python") {
        return program;
    }
    while let Some(argument) = arguments.next().filter(|argument| !argument.is_empty()) {
        if !argument.starts_with('-') {
            return file_name(argument);
        }
        // Short options may be joined: `-um module`.
        match argument.chars().last() {
            _ if argument.starts_with("--") => {}
            Some('m') => return format!("-m {}", arguments.next().unwrap_or_default()),
            Some('c') => return format!("{program} -c"),
            // Options with an argument.
            Some('W' | 'X') => drop(arguments.next()),
            _ => {}
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_python_are_their_scripts() {
        for (command, expected) in [
            ("/usr/bin/resize --size 3", "resize"),
            (
                "/usr/bin/python3.11 -X dev -u src/train.py -m x",
                "train.py",
            ),
            ("python -Wd /bin/jupyter lab", "jupyter"),
            ("python -um package.module --flag", "-m package.module"),
            ("python3 -c print(1)", "python3 -c"),
            ("python3", "python3"),
            ("", ""),
        ] {
            let command = command.replace(' ', "\0") + "\0";
            assert_eq!(program(&command), expected, "{command:?}");
        }
    }

    #[test]
    fn only_listening_sockets_of_this_prefix_are_asked() {
        let line = |flags, path| {
            format!("0000000000000000: 00000002 00000000 {flags} 0001 01 12345 {path}")
        };
        let name = |line: &str| listening(line, "arenite-engine-7-").map(str::to_owned);
        let expected = Some("arenite-engine-7-12-0".to_owned());
        assert_eq!(name(&line("00010000", "@arenite-engine-7-12-0")), expected);
        assert_eq!(name(&line("00000000", "@arenite-engine-7-12-0")), None);
        assert_eq!(name(&line("00010000", "@arenite-engine-77-12-0")), None);
        assert_eq!(name(&line("00010000", "/arenite-engine-7-12-0")), None);
        assert_eq!(name(&line("00010000", "")), None);
        assert_eq!(
            name("Num       RefCount Protocol Flags    Type St Inode Path"),
            None
        );
    }
}
