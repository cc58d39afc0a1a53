//! Worker processes of the baselines: this program, started again with a marker in the environment.
//!
//! A child is killed when its parent ends: it sets `PR_SET_PDEATHSIG`, then checks that the parent has not ended before
//! that. Linux sends the signal when the *thread* that started the child ends, so baselines are started on a thread
//! that outlives them. Dropping a [`Child`] kills the process and waits for its end.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

use super::{BenchError, hog, ipc, page, program, service, spawn, stream};

/// The environment variable that marks a baseline's worker. Its value is the process id of the parent, the role, and
/// arguments.
pub(super) const MARKER: &str = "ARENITE_BASELINE";

/// The work of a marked process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Answers on a shared page (descriptor 0), pinned to a core, spinning or sleeping.
    Page { core: usize, spin: bool },
    /// Answers messages from descriptor 0 on descriptor 1.
    Stream,
    /// Connects to this ipc-channel server.
    Ipc { server: String },
    /// Writes one byte to descriptor 1 and ends.
    OneByte,
    /// Resizes a folder of photos with rayon, according to its arguments.
    Photos,
    /// Executes the program that its arguments name.
    Program,
    /// Uses the processor all the time, with this nice value.
    Hog { nice: i32 },
    /// Serves a kernel at this socket, with this number of workers.
    Service { workers: usize, socket: String },
}

impl Role {
    fn words(&self) -> String {
        match self {
            Self::Page { core, spin } => format!("page {core} {spin}"),
            Self::Stream => "stream".to_owned(),
            Self::Ipc { server } => format!("ipc {server}"),
            Self::OneByte => "one-byte".to_owned(),
            Self::Photos => "photos".to_owned(),
            Self::Program => "program".to_owned(),
            Self::Hog { nice } => format!("hog {nice}"),
            Self::Service { workers, socket } => format!("service {workers} {socket}"),
        }
    }

    fn parse(words: &str) -> Option<Self> {
        let mut words = words.split(' ');
        let role = match words.next()? {
            "page" => Self::Page {
                core: words.next()?.parse().ok()?,
                spin: words.next()?.parse().ok()?,
            },
            "stream" => Self::Stream,
            "ipc" => Self::Ipc {
                server: words.next()?.to_owned(),
            },
            "one-byte" => Self::OneByte,
            "photos" => Self::Photos,
            "program" => Self::Program,
            "hog" => Self::Hog {
                nice: words.next()?.parse().ok()?,
            },
            "service" => Self::Service {
                workers: words.next()?.parse().ok()?,
                socket: words.next()?.to_owned(),
            },
            _ => return None,
        };
        words.next().is_none().then_some(role)
    }
}

/// Runs a baseline's worker and ends the process, if the marker is set.
pub(super) fn become_worker_if_marked() {
    let Ok(marker) = std::env::var(MARKER) else {
        return;
    };
    let code = match run(&marker) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("arenite: a process of the benchmarks failed: {error}");
            1
        }
    };
    std::process::exit(code);
}

fn run(marker: &str) -> Result<(), BenchError> {
    let bad = || BenchError::Missing(format!("the marker {MARKER}={marker} is not valid"));
    let (parent, words) = marker.split_once(' ').ok_or_else(bad)?;
    let parent: i32 = parent.parse().map_err(|_| bad())?;
    set_pdeathsig(Signal::SIGKILL)
        .map_err(|errno| BenchError::io("arm the signal for the parent's death", errno))?;
    if getppid().as_raw() != parent {
        return Ok(());
    }
    match Role::parse(words).ok_or_else(bad)? {
        Role::Page { core, spin } => page::answer(core, spin),
        Role::Stream => stream::answer(),
        Role::Ipc { server } => ipc::answer(&server),
        Role::OneByte => spawn::answer_one_byte(),
        Role::Photos => program::resize_in_threads(),
        Role::Program => program::become_program(),
        Role::Hog { nice } => hog::burn(nice),
        Role::Service { workers, socket } => service::answer(workers, Path::new(&socket)),
    }
}

/// A running worker of a baseline. Dropping this value kills the process and waits for its end.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    system: &'static str,
}

impl Child {
    /// Starts this program again in `role`, with `input` and `output` as descriptors 0 and 1.
    pub(super) fn start(
        system: &'static str,
        role: &Role,
        input: Option<OwnedFd>,
        output: Option<OwnedFd>,
    ) -> Result<Self, BenchError> {
        let stdio = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::null, Stdio::from);
        Self::spawn(system, role, |command| {
            command.stdin(stdio(input)).stdout(stdio(output));
        })
    }

    /// Starts this program again in a role that reads its command line.
    pub(super) fn start_with(
        system: &'static str,
        role: &Role,
        arguments: &[OsString],
    ) -> Result<Self, BenchError> {
        Self::spawn(system, role, |command| {
            command
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null());
        })
    }

    fn spawn(
        system: &'static str,
        role: &Role,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self, BenchError> {
        let mut command = Command::new("/proc/self/exe");
        command.env(MARKER, format!("{} {}", getpid(), role.words()));
        prepare(&mut command);
        let process = command
            .spawn()
            .map_err(|error| BenchError::io(format!("start a process for {system}"), error))?;
        Ok(Self { process, system })
    }

    /// Waits for the child, which must end successfully.
    pub(super) fn wait_for_success(&mut self) -> Result<(), BenchError> {
        let status = self
            .process
            .wait()
            .map_err(|error| BenchError::io(format!("wait for {}", self.system), error))?;
        if status.success() {
            Ok(())
        } else {
            Err(BenchError::Peer {
                system: self.system.to_owned(),
                what: format!("ended: {status}"),
            })
        }
    }

    /// Returns the error for a child that does not answer. The error says whether the child has ended.
    pub(super) fn unresponsive(&mut self) -> BenchError {
        // A closed pipe is noticed a moment before the child's exit, so wait a little.
        let patience = Instant::now() + Duration::from_millis(200);
        let mut what = "does not answer".to_owned();
        while Instant::now() < patience {
            if let Ok(Some(status)) = self.process.try_wait() {
                what = format!("ended: {status}");
                break;
            }
            std::thread::yield_now();
        }
        BenchError::Peer {
            system: self.system.to_owned(),
            what,
        }
    }

    /// Returns whether the process has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// Returns the process id of the child.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both calls fail only if the process has ended and was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
