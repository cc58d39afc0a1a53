//! The start-up handshake of a worker, over `ipc-channel`, and nothing else.
//!
//! ```text
//! supervisor                                worker
//!   one-shot server; its socket is opened, and its name removed
//!   spawns with the open socket                 finds the socket among its descriptors
//!                       ◄── Hello { build id, reply channel }
//!   compares
//!   Welcome { … } ──►
//!                                             attaches
//!                       ◄── Ready, or Failed with the reason
//! ```
//!
//! The channel makes its socket in a folder of its own under `TMPDIR`. Both are gone before the process is started: what
//! it gets is a descriptor of the socket's file (`O_PATH`), through which it connects without a name. So no death leaves
//! the folder behind but one in the microseconds between the two, and what that leaves is [swept](sweep_once) by a later
//! program; who ends a program by itself waits for them ([`nameless`]). In those no other user may connect, whatever the program's umask
//! is. And so nobody but the worker can call. That matters: the channel believes the length that a message begins with, and asks the
//! allocator for as much.
//!
//! Before `Ready` a worker runs the executable's own code and what `on_worker_start` is, and has seen no input: what it says is
//! as good as the program. Both ends are dropped afterwards; everything later travels in the link.
//!
//! `accept` has no time limit, and a malformed packet makes it panic. So it runs on a thread of its
//! own ([`Server::answer`]), and whoever learns that the worker died before it connected knocks there
//! in its place ([`Door::release`]).

mod left_behind;

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::IpcError;
use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::sys;
#[cfg(feature = "sandbox")]
use crate::sys::sandbox::SandboxFeatures;

pub(crate) use left_behind::sweep_once;

/// What a worker says first, and last.
#[derive(Debug, Serialize, Deserialize)]
enum FromWorker {
    Hello {
        build_id: Vec<u8>,
        reply: IpcSender<Welcome>,
    },
    Ready,
    Failed(String),
}

/// What a worker has to know to attach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// Number of the worker, from 0.
    pub(crate) worker: u32,
    /// Its region; regions up to this engine's number of workers exist.
    pub(crate) region: u16,
    /// Its lanes, at least one.
    pub(crate) lanes: Vec<LaneStart>,
    /// Close pages that are not the running job's.
    pub(crate) guard: bool,
    /// Ceiling on private memory in bytes, 0 for none.
    pub(crate) memory_limit: u64,
    /// Most bytes of freed private memory that it keeps for its next jobs.
    pub(crate) keep_freed: u64,
    /// Lock down before `Ready`.
    pub(crate) strict: bool,
    /// By what.
    #[cfg(feature = "sandbox")]
    pub(crate) kernel: SandboxFeatures,
    /// Entry to run before `Ready`.
    pub(crate) on_start: Option<u64>,
    /// Send events of the `tracing` crate up to this level, 1 for errors to 5 for traces; 0 for none.
    pub(crate) events: u8,
    /// What messages and process lists call it.
    pub(crate) label: String,
    /// Address space reserved for each region, in bytes.
    pub(crate) reservation: u64,
    /// Of the random numbers of this run.
    pub(crate) seed: u64,
    /// Cores that this engine may use.
    pub(crate) cores: u32,
}

/// Where a lane begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaneStart {
    /// Number of its link.
    pub(crate) link: u32,
    /// Next job.
    pub(crate) position: u64,
    /// Grants already used up.
    pub(crate) grants: u32,
}

/// Why a worker did not become ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeError {
    /// The channel failed.
    Channel(String),
    /// It runs another executable.
    OtherBuild { ours: String, theirs: String },
    /// It says why.
    Failed(String),
    /// It ended before it was ready.
    Gone,
}

impl std::fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Channel(why) => write!(f, "the start-up channel failed: {why}"),
            Self::OtherBuild { ours, theirs } => write!(
                f,
                "the worker runs another build of this program ({theirs}, not {ours}): was the executable replaced while it ran?"
            ),
            Self::Failed(why) => f.write_str(why),
            Self::Gone => f.write_str("the worker ended before it was ready"),
        }
    }
}

/// The supervisor's end, waiting for one worker.
pub(crate) struct Server {
    server: IpcOneShotServer<FromWorker>,
    /// The file of its socket, which has no name any more.
    socket: Arc<OwnedFd>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// Held while a socket has a name.
static NAMED: Mutex<()> = Mutex::new(());

/// Waits until nothing of this program lies in the folder for temporary files, not longer than `patience`, and sees to it that
/// nothing is made there as long as what is returned lives. For whoever ends a program without letting it finish: a handler of
/// signals that calls `_exit`. `None` where it took longer.
#[doc(hidden)]
pub fn nameless(patience: Duration) -> Option<MutexGuard<'static, ()>> {
    /// What there is to wait for takes microseconds.
    const STEP: Duration = Duration::from_micros(100);
    let start = Instant::now();
    loop {
        match NAMED.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if start.elapsed() >= patience => return None,
            Err(TryLockError::WouldBlock) => thread::sleep(STEP),
        }
    }
}

/// The longest name of a folder in which a socket can lie, as the channel names it: 108 bytes with `/.tmpXXXXXX/socket` and
/// the zero at its end.
const LONGEST_FOLDER: usize = 108 - 19 - 1;

/// Can a socket be made in this folder? Or why not.
pub(crate) fn usable(folder: &Path) -> Result<(), String> {
    let Some(name) = folder.to_str() else {
        return Err("its name is not UTF-8".into());
    };
    if name.len() > LONGEST_FOLDER {
        return Err(format!("its name is longer than {LONGEST_FOLDER} bytes"));
    }
    match fs::metadata(folder) {
        Err(error) => Err(format!("it cannot be looked at: {error}")),
        Ok(meta) if !meta.is_dir() => Err("it is no folder".into()),
        Ok(_) if !sys::probe::may_write(folder) => Err("it cannot be written".into()),
        Ok(_) => Ok(()),
    }
}

impl Server {
    pub(crate) fn new() -> Result<Self, HandshakeError> {
        let folder = std::env::temp_dir();
        let wrong = |why: &str| {
            HandshakeError::Channel(format!(
                "workers meet their program at a socket in {}, and {why}; set TMPDIR to a folder where files can be made",
                folder.display()
            ))
        };
        usable(&folder).map_err(|why| wrong(&why))?;
        let make = || -> Result<_, HandshakeError> {
            sys::inject::allowed().map_err(channel)?;
            // Whatever else keeps the folder for it from being made is a panic inside the channel.
            let (server, name) = catch_unwind(IpcOneShotServer::new)
                .map_err(|_| wrong("none can be made there"))?
                .map_err(channel)?;
            let socket = sys::socket::open(Path::new(&name)).map_err(channel)?;
            Ok((server, name, socket))
        };
        let is_private = |socket: &OwnedFd| sys::socket::is_private(socket.as_fd());
        let _named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut server, mut name, mut socket) = make()?;
        if !is_private(&socket).map_err(channel)? {
            // By the umask of this program anybody may connect as long as there is a name, or put another socket in its place.
            // Whoever has done so finds that one gone.
            (server, name, socket) = sys::umask::with_private_umask(make).map_err(channel)??;
            if !is_private(&socket).map_err(channel)? {
                return Err(wrong("others can connect to it there"));
            }
        }
        crate::sync::point!("spawn.named");
        let name = Path::new(&name);
        // What stays is removed with the channel.
        let _ = fs::remove_file(name);
        let _ = name.parent().map(fs::remove_dir);
        Ok(Self {
            server,
            socket: Arc::new(socket),
        })
    }

    /// What the worker has to have to connect.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Where somebody else may knock.
    pub(crate) fn door(&self) -> Door {
        Door(Arc::downgrade(&self.socket))
    }

    /// Goes through the handshake; returns when the worker is ready, or why it is not. Blocks until
    /// the worker connects or [`Door::release`] is called.
    pub(crate) fn answer(
        self,
        build_id: &[u8],
        welcome: Welcome,
    ) -> Result<Greeted, HandshakeError> {
        let Self { server, socket } = self;
        // A malformed packet is a panic inside the channel.
        catch_unwind(AssertUnwindSafe(move || {
            let _until_answered = socket;
            Self::converse(server, build_id, welcome)
        }))
        .unwrap_or_else(|_| Err(HandshakeError::Channel("malformed message".into())))
    }

    fn converse(
        server: IpcOneShotServer<FromWorker>,
        build_id: &[u8],
        welcome: Welcome,
    ) -> Result<Greeted, HandshakeError> {
        // A caller that hangs up without a word is a `release`, or a worker that ended.
        let (receiver, first): (IpcReceiver<FromWorker>, _) = server.accept().map_err(silence)?;
        let reply = match first {
            FromWorker::Hello {
                build_id: theirs,
                reply,
            } if theirs == build_id => reply,
            FromWorker::Hello {
                build_id: theirs, ..
            } => {
                return Err(HandshakeError::OtherBuild {
                    ours: hex(build_id),
                    theirs: hex(&theirs),
                });
            }
            FromWorker::Failed(why) => return Err(HandshakeError::Failed(why)),
            FromWorker::Ready => {
                return Err(HandshakeError::Channel("ready before hello".into()));
            }
        };
        crate::sync::point!("spawn.accepted");
        reply.send(welcome).map_err(silence)?;
        crate::sync::point!("spawn.answered");
        // An error here is the end of the other side.
        match receiver.recv().map_err(silence)? {
            FromWorker::Ready => Ok(Greeted { _channel: receiver }),
            FromWorker::Failed(why) => Err(HandshakeError::Failed(why)),
            other => Err(HandshakeError::Channel(format!(
                "{other:?} instead of ready"
            ))),
        }
    }
}

/// A handshake that is over. The channel closes with it, which takes a while: the file system gives back the socket's file.
#[derive(Debug)]
#[must_use = "the worker is ready now, and the channel is still to be closed"]
pub(crate) struct Greeted {
    _channel: IpcReceiver<FromWorker>,
}

/// How often it is tried to let go of a thread that would wait for ever otherwise.
const KNOCKS: usize = 8;

/// The way to a [`Server`], as long as it waits.
#[derive(Debug, Clone)]
pub(crate) struct Door(Weak<OwnedFd>);

impl Door {
    /// Lets [`Server::answer`] return when its worker ended without having connected.
    pub(crate) fn release(&self) {
        use nix::errno::Errno::ECONNREFUSED;
        let Some(socket) = self.0.upgrade() else {
            return;
        };
        // Not by the channel's own `connect`, which leaves a descriptor open when it fails.
        for _ in 0..KNOCKS {
            match sys::socket::connect_and_close(&address(socket.as_fd())) {
                // Somebody heard, or nobody waits there any more, which is as good.
                Ok(()) => return,
                Err(error) if error.errno() == ECONNREFUSED => return,
                // No descriptor is left, or no memory: others are giving theirs back at this time.
                Err(_) => std::thread::yield_now(),
            }
        }
    }
}

/// What `connect` takes for a socket that has no name.
fn address(socket: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", socket.as_raw_fd())
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct Caller {
    sender: IpcSender<FromWorker>,
}

impl Caller {
    /// Connects, says hello and returns what the supervisor answers.
    pub(crate) fn hello(
        server: BorrowedFd<'_>,
        build_id: &[u8],
    ) -> Result<(Self, Welcome), HandshakeError> {
        sys::inject::allowed().map_err(channel)?;
        let sender = IpcSender::connect(address(server)).map_err(channel)?;
        sys::inject::allowed().map_err(channel)?;
        let (reply, welcome) = ipc::channel().map_err(channel)?;
        sender
            .send(FromWorker::Hello {
                build_id: build_id.to_vec(),
                reply,
            })
            .map_err(channel)?;
        crate::sync::point!("attach.called");
        let welcome = welcome.recv().map_err(silence)?;
        Ok((Self { sender }, welcome))
    }

    /// The worker takes jobs from now on.
    pub(crate) fn ready(self) -> Result<(), HandshakeError> {
        self.sender.send(FromWorker::Ready).map_err(channel)
    }

    /// The worker cannot start.
    pub(crate) fn failed(self, why: String) {
        // If even this fails the supervisor sees the exit.
        let _ = self.sender.send(FromWorker::Failed(why));
    }
}

fn channel(error: impl std::fmt::Display) -> HandshakeError {
    HandshakeError::Channel(error.to_string())
}

/// Why nothing more is heard: the other side is gone, unless it is this one that has nothing left to hear with.
fn silence(error: IpcError) -> HandshakeError {
    let short = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS];
    let errno = match error {
        IpcError::Io(error) => error
            .raw_os_error()
            .map_or(Errno::UnknownErrno, Errno::from_raw),
        _ => Errno::UnknownErrno,
    };
    match short.contains(&errno) {
        true => channel(sys::Error::new(
            "receiving",
            errno,
            "a message of the start",
        )),
        false => HandshakeError::Gone,
    }
}

fn hex(id: &[u8]) -> String {
    id.iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    pub(super) fn welcome() -> Welcome {
        Welcome {
            worker: 3,
            region: 4,
            lanes: vec![LaneStart {
                link: 3,
                position: 7,
                grants: 2,
            }],
            guard: true,
            memory_limit: 0,
            keep_freed: 5 << 20,
            strict: false,
            #[cfg(feature = "sandbox")]
            kernel: SandboxFeatures::default(),
            events: 3,
            on_start: None,
            label: "test".into(),
            reservation: 1 << 30,
            seed: 11,
            cores: 2,
        }
    }

    #[test]
    fn a_worker_of_the_same_build_is_welcomed() {
        let server = Server::new().unwrap();
        let socket = Arc::clone(&server.socket);
        let worker = std::thread::spawn(move || {
            let (caller, welcome) = Caller::hello(socket.as_fd(), b"abc").unwrap();
            caller.ready().unwrap();
            welcome
        });
        drop(server.answer(b"abc", welcome()).unwrap());
        assert_eq!(worker.join().unwrap(), welcome());
    }

    #[test]
    fn another_build_is_refused() {
        let server = Server::new().unwrap();
        let socket = Arc::clone(&server.socket);
        let worker = std::thread::spawn(move || Caller::hello(socket.as_fd(), b"old").map(drop));
        let error = server.answer(b"new", welcome()).unwrap_err();
        assert!(
            matches!(error, HandshakeError::OtherBuild { .. }),
            "{error}"
        );
        assert_eq!(worker.join().unwrap(), Err(HandshakeError::Gone));
    }

    #[test]
    fn a_worker_that_never_connects_is_released() {
        let server = Server::new().unwrap();
        let door = server.door();
        let waiting = std::thread::spawn(move || server.answer(b"", welcome()));
        door.release();
        assert_eq!(waiting.join().unwrap().unwrap_err(), HandshakeError::Gone);
        // Nobody is there any more.
        door.release();
        assert!(door.0.upgrade().is_none());
    }

    #[test]
    fn without_descriptors_it_is_not_the_other_side_that_is_gone() {
        let of = |errno: Errno| silence(IpcError::Io(errno.into()));
        assert_eq!(of(Errno::ECONNRESET), HandshakeError::Gone);
        assert_eq!(silence(IpcError::Disconnected), HandshakeError::Gone);
        let text = of(Errno::EMFILE).to_string();
        assert!(text.contains("ulimit -n"), "{text}");
    }

    #[test]
    fn a_server_that_waits_has_no_name() {
        let server = Server::new().unwrap();
        let target = fs::read_link(address(server.socket())).unwrap();
        let target = target.to_str().unwrap();
        let name = Path::new(target.strip_suffix(" (deleted)").expect("a removed file"));
        assert!(
            name.ends_with("socket") && name.starts_with(std::env::temp_dir()),
            "{target}"
        );
        assert!(!name.parent().unwrap().exists(), "{target}");
    }

    #[test]
    fn no_name_is_made_while_somebody_waits_for_the_end() {
        let nameless = nameless(Duration::MAX).unwrap();
        let (made, seen) = std::sync::mpsc::channel();
        let server = thread::spawn(move || made.send(Server::new().map(drop)));
        let early = seen.recv_timeout(Duration::from_millis(50));
        assert!(early.is_err(), "{early:?}");
        assert!(super::nameless(Duration::ZERO).is_none());
        drop(nameless);
        assert_eq!(seen.recv().unwrap(), Ok(()));
        server.join().unwrap().unwrap();
    }

    #[test]
    fn nobody_else_can_connect_whatever_the_umask_is() {
        for mask in [0, 0o002, 0o022, 0o077] {
            // Of this thread alone.
            let modes = std::thread::spawn(move || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
                nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
                let server = Server::new().unwrap();
                nix::sys::stat::fstat(server.socket()).unwrap().st_mode
            });
            let mode = modes.join().unwrap();
            assert_eq!(mode & 0o022, 0, "{mode:o} with umask {mask:o}");
        }
    }

    #[test]
    fn a_worker_that_fails_says_why() {
        let server = Server::new().unwrap();
        let socket = Arc::clone(&server.socket);
        let worker = std::thread::spawn(move || {
            Caller::hello(socket.as_fd(), b"x")
                .unwrap()
                .0
                .failed("no room".into());
        });
        let error = server.answer(b"x", welcome()).unwrap_err();
        assert_eq!(error, HandshakeError::Failed("no room".into()));
        worker.join().unwrap();
    }
}
