//! The start-up handshake of a worker, over `ipc-channel`, and nothing else.
//!
//! ```text
//! supervisor                                worker
//!   one-shot server; its socket is opened, and its name removed
//!   spawns with the open socket                 finds the socket among its descriptors
//!                       ◄── Hello { build id, identity, reply channel }
//!   compares
//!   Welcome { … } ──►
//!                                             attaches
//!                       ◄── Ready { code }, or Failed with the reason
//! ```
//!
//! The channel creates its socket in a new folder, within the folder for temporary files or, if that is not usable,
//! another folder ([`folder`]). Socket and new folder are removed before the worker's process is started: the process
//! gets a descriptor of the socket's file (`O_PATH`), through which it connects without a name. So socket and folder
//! are left over only if the program dies in the microseconds between creation and removal. A later program
//! [removes](sweep_once) them; code that ends the program waits for the removal ([`lock_socket_names`]). While the
//! socket has a name, no other user may connect, whatever the umask is. So only the worker can connect. This matters
//! because the channel trusts the length at the beginning of a message, and allocates that much memory.
//!
//! Before `Ready` a worker runs only code of the program and has received no input, so its messages are trusted like
//! the program. After the handshake both ends are dropped; all later communication uses the link.
//!
//! `accept` has no time limit, and panics on a malformed packet. So it runs on a separate thread ([`Server::answer`]).
//! If the worker dies before it connects, the monitor connects in its place ([`HandshakeSocket::release`]).

mod folder;
mod left_behind;
mod start_failure;
#[cfg(feature = "template")]
pub(crate) mod template;

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::IpcError;
use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::sys;
use crate::sys::event::EventFd;
#[cfg(feature = "sandbox")]
use crate::sys::sandbox::SandboxFeatures;

pub(crate) use folder::choose as choose_socket_folder;
pub(crate) use left_behind::sweep_once;
pub(crate) use start_failure::StartFailure;

/// Messages of a worker.
#[derive(Debug, Serialize, Deserialize)]
enum FromWorker {
    Hello {
        id: ProgramId,
        reply: IpcSender<Welcome>,
    },
    Ready {
        /// The lines of the worker's `/proc/self/maps` that map code of files, if the worker is sandboxed and so can
        /// map no other code; otherwise empty.
        code: Vec<u8>,
    },
    Failed(StartFailure),
}

/// The identity of a program, which must be equal in a worker and its supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgramId {
    /// The build of the object that contains this crate.
    pub(crate) build_id: Vec<u8>,
    /// The identity of a worker program; empty for a copy of this program.
    pub(crate) identity: Vec<u8>,
}

impl ProgramId {
    /// Returns the id of this process, for a program with this identity.
    pub(crate) fn of(identity: Vec<u8>) -> Self {
        let build_id = sys::image::image().build_id.as_bytes().to_vec();
        Self { build_id, identity }
    }
}

/// The settings that a worker gets from its supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// Number of the worker, from 0.
    pub(crate) worker: u32,
    /// The number of processes that had this worker number before.
    pub(crate) generation: u32,
    /// The worker's own region. Other regions have the numbers up to the engine's number of workers.
    pub(crate) region: u16,
    /// The worker's lanes, at least one.
    pub(crate) lanes: Vec<LaneStart>,
    /// Whether to close pages for writing that no running job needs.
    pub(crate) guard: bool,
    /// Limit on private memory in bytes; 0 for none.
    pub(crate) memory_limit: u64,
    /// Max number of bytes of freed private memory that the allocator keeps.
    pub(crate) keep_freed: u64,
    /// Whether to enter the sandbox before `Ready`.
    pub(crate) sandboxed: bool,
    /// The mechanisms of the sandbox that Linux supports.
    #[cfg(feature = "sandbox")]
    pub(crate) kernel: SandboxFeatures,
    /// The call of `on_worker_start`.
    pub(crate) on_start: Option<OnStart>,
    /// Entry to run before the worker retains arrays of a job; `None` if it retains none.
    pub(crate) retain: Option<u64>,
    /// Level up to which events of the `tracing` crate are sent, from 1 for errors to 5 for traces; 0 for none.
    pub(crate) events: u8,
    /// Name of the engine in messages and process lists.
    pub(crate) label: String,
    /// Address space reserved for each region, in bytes.
    pub(crate) reservation: u64,
    /// Seed of the run's random numbers.
    pub(crate) seed: u64,
    /// The number of cores that this engine may use.
    pub(crate) cores: u32,
}

/// A call of `on_worker_start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OnStart {
    /// Entry of the kernel.
    pub(crate) entry: u64,
    /// The arguments of the call.
    pub(crate) words: Vec<u64>,
}

/// The start position of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaneStart {
    /// Index of the link.
    pub(crate) link: u32,
    /// Number of the next job.
    pub(crate) position: u64,
    /// The number of grants already used.
    pub(crate) grants: u32,
}

/// The reason why a worker did not become ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeError {
    /// The channel failed.
    Channel(StartFailure),
    /// The worker runs another build.
    OtherBuild { ours: String, theirs: String },
    /// The worker program has another identity.
    OtherIdentity { ours: String, theirs: String },
    /// The worker reported this reason.
    Failed(StartFailure),
    /// The worker ended before it was ready.
    Gone,
}

impl std::fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Channel(why) => write!(f, "the start-up channel failed: {why}"),
            Self::OtherBuild { ours, theirs } => write!(
                f,
                "the worker runs another build of this program ({theirs}, not {ours}): was the file replaced while this \
                 program ran, or does the worker program use another one?"
            ),
            Self::OtherIdentity { ours, theirs } => write!(
                f,
                "the worker program calls itself {theirs}, not {ours}: use the program that belongs to this one"
            ),
            Self::Failed(why) => why.fmt(f),
            Self::Gone => f.write_str("the worker ended before it was ready"),
        }
    }
}

impl From<HandshakeError> for StartFailure {
    fn from(error: HandshakeError) -> Self {
        use HandshakeError::{Channel, Failed};
        let may_pass = matches!(&error, Channel(failure) | Failed(failure) if failure.may_pass);
        Self {
            why: error.to_string(),
            may_pass,
        }
    }
}

/// The supervisor's end of a handshake with one worker.
pub(crate) struct Server {
    server: IpcOneShotServer<FromWorker>,
    sockets: Arc<Sockets>,
}

/// The most descriptors that a handshake has in the supervisor: [`Sockets`], that of the channel, and two of the
/// worker.
const DESCRIPTORS: usize = 5;

/// Descriptors that are open until the handshake is over.
#[derive(Debug)]
struct Sockets {
    /// The file of the server's socket, whose name has been removed.
    file: OwnedFd,
    /// The socket that connects in place of a worker that has ended. It is made in advance, because descriptors may be
    /// short by then.
    releasing: OwnedFd,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("sockets", &self.sockets)
            .finish_non_exhaustive()
    }
}

/// Whether the last channel could not be made.
static HAS_FAILED: AtomicBool = AtomicBool::new(false);

/// The lock that is held while a socket has a name.
static SOCKET_NAMES: Mutex<()> = Mutex::new(());

/// Waits until this program has no file in the folder for temporary files, and prevents new ones while the guard lives.
/// Returns `None` after `timeout`. For code that ends the program at once, such as a signal handler that calls `_exit`.
#[doc(hidden)]
pub fn lock_socket_names(timeout: Duration) -> Option<MutexGuard<'static, ()>> {
    /// The pause between two tries: a socket has a name for microseconds.
    const STEP: Duration = Duration::from_micros(100);
    let start = Instant::now();
    loop {
        match SOCKET_NAMES.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if start.elapsed() >= timeout => return None,
            Err(TryLockError::WouldBlock) => thread::sleep(STEP),
        }
    }
}

/// Fixes the folder for all later sockets, in shared memory if nobody has chosen one ([`folder::in_memory`]). For
/// shared objects, where another thread may change the environment without the lock of Rust's standard library, so that
/// `TMPDIR` must not be read later; and for commands that make their own temporary files elsewhere. Other executables
/// choose a folder for each socket: see [`folder::choose`].
///
/// Called on the thread that builds an engine. Only the first call has an effect.
#[doc(hidden)]
pub fn pin_socket_folder() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error of `choose` is reported when a worker is started. `override_temp_dir` fails if a folder is set
        // already.
        let folder = folder::in_memory().map_or_else(folder::choose, Ok);
        let _ = folder.map(|folder| tempfile::env::override_temp_dir(&folder));
    });
}

/// Fixes the folder for all later sockets if this crate is in a shared object.
pub(crate) fn pin_socket_folder_of_object() {
    if !sys::image::image().is_program {
        pin_socket_folder();
    }
}

/// The name of a socket, in a folder that contains nothing else. Dropping it removes both.
struct SocketName(PathBuf);

impl Drop for SocketName {
    fn drop(&mut self) {
        // If this fails, the channel removes them when it is dropped.
        let _ = fs::remove_file(&self.0);
        let _ = self.0.parent().map(fs::remove_dir);
    }
}

impl Server {
    pub(crate) fn new() -> Result<Self, HandshakeError> {
        let releasing = sys::socket::unconnected().map_err(channel)?;
        let folder = folder::choose().map_err(channel)?;
        let wrong = |why: &str| channel(folder::fault(&folder, why));
        let make = || -> Result<_, HandshakeError> {
            let fails = |error: std::io::Error| match error.raw_os_error() {
                // The channel binds the socket without looking whether there is one.
                Some(libc::EBADF) => channel(sys::Error::new(
                    "socket",
                    Errno::EMFILE,
                    "a start-up channel",
                )),
                _ => HandshakeError::Channel(StartFailure {
                    why: folder::fault(&folder, &format!("none can be created there: {error}")),
                    ..error.into()
                }),
            };
            sys::inject::allowed().map_err(|error| fails(error.into()))?;
            // The channel leaks a descriptor if it cannot create its folder, so a folder is tried first after such a
            // failure. Not each time: a file system that has removed many files lately takes a millisecond for a
            // folder.
            if HAS_FAILED.load(Ordering::Relaxed) {
                tempfile::tempdir().map_err(fails)?;
            }
            let made = IpcOneShotServer::new();
            HAS_FAILED.store(made.is_err(), Ordering::Relaxed);
            let (server, name) = made.map_err(fails)?;
            let name = SocketName(name.into());
            let path = CString::new(name.0.as_os_str().as_bytes())
                .map_err(|_| wrong("its name has a zero byte"))?;
            let socket = sys::socket::open_path(&path).map_err(channel)?;
            Ok((server, name, socket))
        };
        let is_private = |socket: &OwnedFd| sys::socket::is_private(socket.as_fd());
        let _names = SOCKET_NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut server, mut name, mut socket) = make()?;
        if !is_private(&socket).map_err(channel)? {
            // With this umask, other users could connect to the socket or replace it while it has a name. So discard
            // the socket, and create another with a private umask.
            (server, name, socket) = sys::umask::with_private_umask(make).map_err(channel)??;
            if !is_private(&socket).map_err(channel)? {
                return Err(wrong("other users could connect to it there"));
            }
        }
        crate::sync::point!("spawn.named");
        drop(name);
        Ok(Self {
            server,
            sockets: Arc::new(Sockets {
                file: socket,
                releasing,
            }),
        })
    }

    /// Returns the descriptor through which the worker connects.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.sockets.file.as_fd()
    }

    /// Returns a handle that ends [`Server::answer`] if the worker dies.
    pub(crate) fn handshake_socket(&self) -> HandshakeSocket {
        HandshakeSocket(Arc::downgrade(&self.sockets))
    }

    /// Performs the handshake. Returns when the worker is ready or has failed. Blocks until the worker connects, or
    /// [`HandshakeSocket::release`] is called.
    pub(crate) fn answer(
        self,
        id: &ProgramId,
        welcome: Welcome,
    ) -> Result<HandshakeDone, HandshakeError> {
        let Self { server, sockets } = self;
        // The channel panics on a malformed packet.
        catch_unwind(AssertUnwindSafe(move || {
            let _until_answered = sockets;
            Self::converse(server, id, welcome)
        }))
        .unwrap_or_else(|_| {
            // Linux leaves descriptors out of a packet if this process has no numbers for them. Those of this handshake
            // have been closed since.
            let tried: Result<Vec<_>, _> = (0..=DESCRIPTORS).map(|_| EventFd::new()).collect();
            let short = tried
                .err()
                .map(|error| StartFailure::from(error).context("a message lacks descriptors"));
            Err(HandshakeError::Channel(
                short.unwrap_or_else(|| "malformed message".into()),
            ))
        })
    }

    fn converse(
        server: IpcOneShotServer<FromWorker>,
        ours: &ProgramId,
        welcome: Welcome,
    ) -> Result<HandshakeDone, HandshakeError> {
        // A peer that disconnects without a message was `release`, or a worker that has ended.
        let (receiver, first): (IpcReceiver<FromWorker>, _) =
            server.accept().map_err(receive_error)?;
        let reply = match first {
            FromWorker::Hello { id, reply } if id == *ours => reply,
            FromWorker::Hello { id, .. } if id.build_id == ours.build_id => {
                return Err(HandshakeError::OtherIdentity {
                    ours: quoted(&ours.identity),
                    theirs: quoted(&id.identity),
                });
            }
            FromWorker::Hello { id, .. } => {
                return Err(HandshakeError::OtherBuild {
                    ours: hex(&ours.build_id),
                    theirs: hex(&id.build_id),
                });
            }
            FromWorker::Failed(why) => return Err(HandshakeError::Failed(why)),
            FromWorker::Ready { .. } => {
                return Err(channel("ready before hello"));
            }
        };
        crate::sync::point!("spawn.accepted");
        reply.send(welcome).map_err(receive_error)?;
        crate::sync::point!("spawn.answered");
        // An error means that the worker has ended.
        match receiver.recv().map_err(receive_error)? {
            FromWorker::Ready { code } => Ok(HandshakeDone {
                code,
                _channel: receiver,
            }),
            FromWorker::Failed(why) => Err(HandshakeError::Failed(why)),
            other => Err(channel(format!("{other:?} instead of ready"))),
        }
    }
}

/// A completed handshake. Dropping it closes the channel, which is slow: the file system frees the socket's file.
#[derive(Debug)]
#[must_use = "dropping it closes the channel, which is slow"]
pub(crate) struct HandshakeDone {
    /// See [`FromWorker::Ready`].
    pub(crate) code: Vec<u8>,
    _channel: IpcReceiver<FromWorker>,
}

/// The sockets of a [`Server`] that waits for its worker.
#[derive(Debug, Clone)]
pub(crate) struct HandshakeSocket(Weak<Sockets>);

impl HandshakeSocket {
    /// Makes [`Server::answer`] return after its worker has ended without connecting.
    pub(crate) fn release(&self) {
        let Some(sockets) = self.0.upgrade() else {
            return;
        };
        // Does not use `connect` of the channel, which needs a descriptor. Fails if `answer` has returned already.
        let _ = sys::socket::connect_and_hang_up(
            sockets.releasing.as_fd(),
            &address(sockets.file.as_fd()),
        );
    }
}

/// Returns the address of a socket whose name has been removed.
fn address(socket: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", socket.as_raw_fd())
}

/// The worker's end of a handshake.
#[derive(Debug)]
pub(crate) struct Client {
    sender: IpcSender<FromWorker>,
}

impl Client {
    /// Connects, sends hello and returns the answer of the supervisor.
    pub(crate) fn hello(
        server: BorrowedFd<'_>,
        id: ProgramId,
    ) -> Result<(Self, Welcome), HandshakeError> {
        sys::inject::allowed().map_err(channel)?;
        let sender = IpcSender::connect(address(server)).map_err(channel)?;
        sys::inject::allowed().map_err(channel)?;
        let (reply, welcome) = ipc::channel().map_err(channel)?;
        sender
            .send(FromWorker::Hello { id, reply })
            .map_err(send_error)?;
        crate::sync::point!("attach.called");
        let welcome = welcome.recv().map_err(receive_error)?;
        Ok((Self { sender }, welcome))
    }

    /// Reports that the worker is ready for jobs. `code`: see [`FromWorker::Ready`].
    pub(crate) fn ready(self, code: Vec<u8>) -> Result<(), HandshakeError> {
        self.sender
            .send(FromWorker::Ready { code })
            .map_err(send_error)
    }

    /// Reports why the worker cannot start.
    pub(crate) fn failed(self, why: StartFailure) {
        // If this fails, the supervisor notices the exit.
        let _ = self.sender.send(FromWorker::Failed(why));
    }
}

fn channel(error: impl Into<StartFailure>) -> HandshakeError {
    HandshakeError::Channel(error.into())
}

fn send_error(error: IpcError) -> HandshakeError {
    match error {
        IpcError::Io(error) => channel(error),
        error => channel(error.to_string()),
    }
}

/// Returns the reason for a failed receive: the other side has ended, or this process has no descriptors or memory
/// left.
fn receive_error(error: IpcError) -> HandshakeError {
    let out_of_resources = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS];
    let errno = match error {
        IpcError::Io(error) => error
            .raw_os_error()
            .map_or(Errno::UnknownErrno, Errno::from_raw),
        _ => Errno::UnknownErrno,
    };
    match out_of_resources.contains(&errno) {
        true => channel(sys::Error::new(
            "receiving",
            errno,
            "a message of the handshake",
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

/// Returns the identity as text for messages.
fn quoted(identity: &[u8]) -> String {
    const MAX: usize = 80;
    let shown = &identity[..identity.len().min(MAX)];
    let more = if identity.len() > MAX { "…" } else { "" };
    format!("\"{}{more}\"", shown.escape_ascii())
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
            generation: 2,
            region: 4,
            lanes: vec![LaneStart {
                link: 3,
                position: 7,
                grants: 2,
            }],
            guard: true,
            memory_limit: 0,
            keep_freed: 5 << 20,
            sandboxed: false,
            #[cfg(feature = "sandbox")]
            kernel: SandboxFeatures::default(),
            events: 3,
            on_start: None,
            retain: None,
            label: "test".into(),
            reservation: 1 << 30,
            seed: 11,
            cores: 2,
        }
    }

    pub(super) fn id(build_id: &str, identity: &str) -> ProgramId {
        ProgramId {
            build_id: build_id.into(),
            identity: identity.into(),
        }
    }

    #[test]
    fn a_worker_of_the_same_build_is_welcomed() {
        let server = Server::new().unwrap();
        let socket = Arc::clone(&server.sockets);
        let worker = std::thread::spawn(move || {
            let (client, welcome) = Client::hello(socket.file.as_fd(), id("abc", "a")).unwrap();
            client.ready(b"code".to_vec()).unwrap();
            welcome
        });
        let done = server.answer(&id("abc", "a"), welcome()).unwrap();
        assert_eq!(done.code, b"code");
        assert_eq!(worker.join().unwrap(), welcome());
    }

    fn refused(ours: &ProgramId, theirs: ProgramId) -> HandshakeError {
        let server = Server::new().unwrap();
        let socket = Arc::clone(&server.sockets);
        let worker =
            std::thread::spawn(move || Client::hello(socket.file.as_fd(), theirs).map(drop));
        let error = server.answer(ours, welcome()).unwrap_err();
        assert_eq!(worker.join().unwrap(), Err(HandshakeError::Gone));
        error
    }

    #[test]
    fn another_build_is_rejected() {
        let error = refused(&id("new", "same"), id("old", "same"));
        assert!(
            matches!(error, HandshakeError::OtherBuild { .. }),
            "{error}"
        );
    }

    #[test]
    fn another_identity_is_rejected_by_both_names() {
        let error = refused(&id("same", "3.11"), id("same", "3.12\n"));
        let text = error.to_string();
        assert!(
            text.contains(r#"calls itself "3.12\n", not "3.11""#),
            "{text}"
        );
        let long = refused(&id("same", ""), id("same", &"x".repeat(1000)));
        assert!(long.to_string().len() < 200, "{long}");
    }

    #[test]
    fn a_worker_that_never_connects_is_released() {
        let server = Server::new().unwrap();
        let handshake = server.handshake_socket();
        let waiting = std::thread::spawn(move || server.answer(&id("", ""), welcome()));
        handshake.release();
        assert_eq!(waiting.join().unwrap().unwrap_err(), HandshakeError::Gone);
        // `answer` has returned.
        handshake.release();
        assert!(handshake.0.upgrade().is_none());
    }

    #[test]
    fn running_out_of_descriptors_is_not_reported_as_the_end_of_the_worker() {
        let of = |errno: Errno| receive_error(IpcError::Io(errno.into()));
        assert_eq!(of(Errno::ECONNRESET), HandshakeError::Gone);
        assert_eq!(receive_error(IpcError::Disconnected), HandshakeError::Gone);
        let text = of(Errno::EMFILE).to_string();
        assert!(text.contains("ulimit -n"), "{text}");
    }

    #[test]
    fn a_waiting_server_has_no_socket_name() {
        let server = Server::new().unwrap();
        let target = fs::read_link(address(server.socket())).unwrap();
        let target = target.to_str().unwrap();
        let name = std::path::Path::new(target.strip_suffix(" (deleted)").expect("a removed file"));
        assert!(
            name.ends_with("socket") && name.starts_with(std::env::temp_dir()),
            "{target}"
        );
        assert!(!name.parent().unwrap().exists(), "{target}");
    }

    #[test]
    fn no_socket_is_named_while_the_names_are_locked() {
        let names = lock_socket_names(Duration::MAX).unwrap();
        let (made, seen) = std::sync::mpsc::channel();
        let server = thread::spawn(move || made.send(Server::new().map(drop)));
        let early = seen.recv_timeout(Duration::from_millis(50));
        assert!(early.is_err(), "{early:?}");
        assert!(lock_socket_names(Duration::ZERO).is_none());
        drop(names);
        assert_eq!(seen.recv().unwrap(), Ok(()));
        server.join().unwrap().unwrap();
    }

    #[test]
    fn no_other_user_can_connect_whatever_the_umask() {
        for mask in [0, 0o002, 0o022, 0o077] {
            // The umask of this thread only.
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
    fn a_failed_worker_reports_its_reason() {
        let server = Server::new().unwrap();
        let socket = Arc::clone(&server.sockets);
        let worker = std::thread::spawn(move || {
            Client::hello(socket.file.as_fd(), id("x", ""))
                .unwrap()
                .0
                .failed("no room".into());
        });
        let error = server.answer(&id("x", ""), welcome()).unwrap_err();
        assert_eq!(error, HandshakeError::Failed("no room".into()));
        assert!(!StartFailure::from(error).may_pass);
        worker.join().unwrap();
    }
}
