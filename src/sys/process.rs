//! Functions for processes: starting a program, watching it, and ending together with the parent.

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::thread::{self, JoinHandle, Scope, ScopedJoinHandle};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, signal,
};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{AccessFlags, Pid, access};

use super::error::{Error, Result, retry};
use super::fork::Unforked;
use super::inject::allowed;
use super::loader::{StartedBy, started_by};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The process exited with this code.
    Code(i32),
    /// This signal ended the process.
    Signal(i32),
    /// The process has ended, and other code of this program has reaped it and so received its exit status.
    Unknown,
}

/// A process, identified by a descriptor. The descriptor never refers to another process, even if the process id is
/// reused.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: Pid,
}

impl PidFd {
    /// Opens `pid`, a child of this process that has not been waited for.
    pub fn open(pid: Pid) -> Result<PidFd> {
        allowed().map_err(|errno| Error::new("pidfd_open", errno, format!("process {pid}")))?;
        // SAFETY: pidfd_open takes numbers only and returns a new close-on-exec descriptor.
        let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let Ok(fd) = RawFd::try_from(answer) else {
            return Err(Error::last("pidfd_open", format!("process {pid}")));
        };
        if fd < 0 {
            return Err(Error::last("pidfd_open", format!("process {pid}")));
        }
        // SAFETY: Linux has just made this descriptor for this process, and no other code knows its number.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(PidFd { fd, pid })
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    fn send(&self, signal: Signal, flags: u32) -> nix::Result<()> {
        allowed()?;
        // SAFETY: pidfd_send_signal with a null siginfo reads no memory. `self` owns the descriptor.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal as i32,
                std::ptr::null::<libc::siginfo_t>(),
                flags,
            )
        };
        Errno::result(answer).map(drop)
    }

    /// Sends `signal`. Does not fail if the process has ended.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        let send = || self.send(signal, 0);
        // Any other failure is retried once: if the process were not killed, this program would wait for it without
        // end.
        let sent = send().or_else(|errno| match errno {
            Errno::ESRCH => Err(errno),
            _ => send(),
        });
        #[allow(clippy::disallowed_methods, reason = "see `is_unreaped`")]
        let by_number = || self.is_unreaped() && nix::sys::signal::kill(self.pid, signal).is_ok();
        match sent {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            // A system call filter forbids the call.
            Err(_) if by_number() => Ok(()),
            Err(errno) => Err(Error::new(
                "pidfd_send_signal",
                errno,
                format!("{signal} to process {}", self.pid),
            )),
        }
    }

    /// Sends `signal` to the process and to all other processes of the group that it leads. Does not fail if the group
    /// has ended.
    ///
    /// From Linux 6.9 on, the descriptor identifies the group. Older versions identify it by the process id, which no
    /// other process gets before this process is reaped. On them, nothing is sent to the rest of the group if other
    /// code of this program has reaped the process.
    pub fn kill_group(&self, signal: Signal) -> Result<()> {
        /// From Linux' include/uapi/linux/pidfd.h.
        const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;
        match self.send(signal, PIDFD_SIGNAL_PROCESS_GROUP) {
            Ok(()) | Err(Errno::ESRCH) => return Ok(()),
            // An older Linux, a filter that forbids the call, or a program of another user in the group.
            Err(_) => {}
        }
        if self.is_unreaped() {
            #[allow(clippy::disallowed_methods, reason = "see `is_unreaped`")]
            // Fails if no member may be signalled. The process itself is signalled below.
            let _ = nix::sys::signal::killpg(self.pid, signal);
        }
        self.kill(signal)
    }

    /// Returns whether the process is a child of this process and not reaped yet, so that no other process has its id.
    pub fn is_unreaped(&self) -> bool {
        let unreaped = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        retry(|| waitid(Id::PIDFd(self.fd.as_fd()), unreaped)).is_ok()
    }

    /// Sleeps until the process has exited, and reaps it.
    pub fn wait_exit(&self) -> Result<Exit> {
        loop {
            if let Some(exit) = self.status(WaitPidFlag::WEXITED)? {
                return Ok(exit);
            }
        }
    }

    /// If the process has exited, kills the processes that are left in the group that it led, and reaps the process.
    /// Does not sleep.
    pub fn try_exit_of_group(&self) -> Result<Option<Exit>> {
        let unreaped = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if self.status(unreaped)?.is_none() {
            return Ok(None);
        }
        // Kill before reaping, because the number may be reused once the process is reaped. Fails for processes of
        // other users.
        let _ = self.kill_group(Signal::SIGKILL);
        self.try_exit()
    }

    /// Reaps the process if it has exited, without sleeping.
    pub fn try_exit(&self) -> Result<Option<Exit>> {
        self.status(WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG)
    }

    fn status(&self, flags: WaitPidFlag) -> Result<Option<Exit>> {
        let ask = || retry(|| waitid(Id::PIDFd(self.fd.as_fd()), flags));
        // Any other failure is retried once: a child that is never reaped stays as a zombie.
        let answer = ask().or_else(|errno| match errno {
            Errno::ECHILD | Errno::EINVAL => Err(errno),
            _ => ask(),
        });
        match answer {
            Ok(WaitStatus::Exited(_, code)) => Ok(Some(Exit::Code(code))),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(Exit::Signal(signal as i32))),
            Ok(_) => Ok(None),
            // Other code of this program reaps all children. A pidfd is readable once its process has ended.
            Err(Errno::ECHILD) => {
                let timeout = if flags.contains(WaitPidFlag::WNOHANG) {
                    PollTimeout::ZERO
                } else {
                    PollTimeout::NONE
                };
                Ok((poll_one(self.fd.as_fd(), timeout)? != PollFlags::empty())
                    .then_some(Exit::Unknown))
            }
            // A signal that nix does not know (a real-time signal).
            Err(Errno::EINVAL) => Ok(Some(Exit::Unknown)),
            Err(errno) => Err(Error::new("waitid", errno, format!("process {}", self.pid))),
        }
    }

    /// Returns the descriptor, which is readable once the process has ended.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Kills `pid`, a child for which no `PidFd` can be opened, and reaps it. Does nothing if it was reaped already, so
/// that another process may have its number.
pub fn end_unwatched(pid: Pid) {
    let unreaped = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    if retry(|| waitid(Id::Pid(pid), unreaped)).is_err() {
        return;
    }
    #[allow(
        clippy::disallowed_methods,
        reason = "the process is a child and not reaped"
    )]
    // Fails only for processes of other users.
    let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    reap(pid);
}

/// Sleeps until `pid`, a child, has ended, and reaps it.
pub(super) fn reap(pid: Pid) {
    // An error means that other code has reaped the process.
    let _ = retry(|| waitid(Id::Pid(pid), WaitPidFlag::WEXITED));
}

fn poll_one(fd: BorrowedFd<'_>, timeout: PollTimeout) -> Result<PollFlags> {
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
    retry(|| poll(&mut polled, timeout))
        .map_err(|errno| Error::new("poll", errno, "a descriptor"))?;
    Ok(polled[0].revents().unwrap_or(PollFlags::empty()))
}

/// [`spawn`] gives `fds` consecutive descriptor numbers in the child. Returns the first of these numbers, which is
/// above the numbers of all `fds`, and of the descriptors of `program`, in this process.
pub fn first_target_fd(program: &Program, fds: &[BorrowedFd<'_>]) -> RawFd {
    fds.iter()
        .map(AsRawFd::as_raw_fd)
        .chain(program.held.as_ref().map(|held| held.as_raw_fd()))
        .max()
        .unwrap_or(2)
        .max(2)
        .saturating_add(1)
}

/// A program to start: its file, its working directory, its arguments and its environment.
#[derive(Clone, Debug)]
pub struct Program {
    pub(super) file: CString,
    /// The file, open, in case it is deleted. `None` if it could not be opened.
    held: Option<Arc<OwnedFd>>,
    /// `/dev/null`, open, since a process that has changed its root directory may not have it.
    null: Arc<OwnedFd>,
    /// The working directory of this process when the value was made. `None` if this user may not open it: then the
    /// program starts in the working directory that this process has at the time of the start.
    pub(super) folder: Option<Arc<OwnedFd>>,
    /// `argv`, which begins with the name of the program.
    pub(super) arguments: Vec<CString>,
    /// The environment variables, as `NAME=value`.
    pub(super) environment: Vec<CString>,
}

impl Program {
    /// Returns the program that this process runs, named `arenite-worker`, without arguments. If the dynamic loader has
    /// started the program, it starts the new process too, which then has the name of the program's file.
    pub fn this(environment: Vec<CString>) -> Result<Program> {
        let arguments = match started_by() {
            StartedBy::Loader(arguments) => arguments,
            StartedBy::Linux | StartedBy::Valgrind => vec![c"arenite-worker".into()],
        };
        Self::in_file(c"/proc/self/exe".into(), arguments, environment)
    }

    /// Returns the program in `file`. `arguments` begins with the program's name.
    pub fn in_file(
        file: CString,
        arguments: Vec<CString>,
        environment: Vec<CString>,
    ) -> Result<Program> {
        Ok(Program {
            held: super::socket::open_path(&file).ok().map(Arc::new),
            file,
            null: Arc::new(super::pipe::open_null()?),
            folder: working_folder()?.map(Arc::new),
            arguments,
            environment,
        })
    }

    /// Returns `/dev/null`, open for reading and writing.
    pub fn null(&self) -> &OwnedFd {
        &self.null
    }
}

/// Opens the working directory. The descriptor stays valid if the directory is renamed or removed. Returns `None` if
/// this user may not enter the directory.
fn working_folder() -> Result<Option<OwnedFd>> {
    match super::socket::open_folder(Path::new(".")) {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if error.errno() == Errno::EACCES => Ok(None),
        Err(error) => Err(error),
    }
}

/// Adds an action that changes the working directory. The descriptor must be open when the actions are performed.
///
/// Does nothing with glibc before 2.29, which lacks such actions: the program then starts in the working directory that
/// this process has at the time of the start.
fn add_fchdir(actions: &mut PosixSpawnFileActions, folder: &OwnedFd) -> nix::Result<()> {
    let Some(add) = addfchdir() else {
        return Ok(());
    };
    // SAFETY: the wrapper is `repr(transparent)` over the structure of the C library, which is initialised and
    // exclusively borrowed. The call adds a number to it.
    returned(unsafe { add(std::ptr::from_mut(actions).cast(), folder.as_raw_fd()) })
}

/// Adds an action that gives a descriptor another number. The method of the wrapper hides the error for a number above
/// the limit on open files, and adds nothing.
fn add_dup2(actions: &mut PosixSpawnFileActions, fd: RawFd, number: RawFd) -> nix::Result<()> {
    let actions = std::ptr::from_mut(actions).cast();
    // SAFETY: as in `add_fchdir`; the call adds two numbers.
    returned(unsafe { libc::posix_spawn_file_actions_adddup2(actions, fd, number) })
}

/// Turns the error number that a function returns instead of setting `errno` into a result.
fn returned(error: i32) -> nix::Result<()> {
    match error {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    }
}

type AddFchdir = unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, RawFd) -> i32;

/// Looks up `posix_spawn_file_actions_addfchdir_np` at run time: a program linked to this function would not start with
/// a C library that lacks it.
#[cfg(target_env = "gnu")]
fn addfchdir() -> Option<AddFchdir> {
    let name = c"posix_spawn_file_actions_addfchdir_np";
    // SAFETY: reads a string that ends with a zero byte.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: this is the type of the function, and null is `None`.
    unsafe { std::mem::transmute::<*mut libc::c_void, Option<AddFchdir>>(function) }
}

#[cfg(not(target_env = "gnu"))]
fn addfchdir() -> Option<AddFchdir> {
    Some(libc::posix_spawn_file_actions_addfchdir_np)
}

/// Returns true if this process certainly has no other thread. Makes no system call. False with C libraries other than
/// glibc from 2.32 on, which do not say it.
pub fn is_single_threaded() -> bool {
    static FLAG: OnceLock<Option<&AtomicU8>> = OnceLock::new();
    let find = || {
        let name = c"__libc_single_threaded";
        // SAFETY: reads a string that ends with a zero byte.
        let flag = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        // SAFETY: the flag is a byte that glibc never frees; null is `None`.
        unsafe { flag.cast::<AtomicU8>().as_ref() }
    };
    // Relaxed: written by this thread when it starts another one.
    FLAG.get_or_init(find)
        .is_some_and(|flag| flag.load(Ordering::Relaxed) != 0)
}

/// Checks that `/proc` is mounted. Workers need it to find their program, and to open inherited descriptors again.
pub fn check_proc() -> Result<()> {
    let error = |errno| Error::new("access", errno, OWN_DESCRIPTORS);
    retry(|| access(OWN_DESCRIPTORS, AccessFlags::F_OK)).map_err(error)
}

pub(super) const OWN_DESCRIPTORS: &str = "/proc/self/fd";

/// Returns the environment variables of this process whose names `passes` accepts, in the form that [`Program`] takes.
pub fn environment(passes: impl Fn(&[u8]) -> bool) -> Vec<CString> {
    std::env::vars_os()
        .filter(|(name, _)| passes(name.as_bytes()))
        // The environment consists of C strings, so it contains no zero byte.
        .filter_map(|(name, value)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect()
}

/// Starts a program in its working directory, with `fds` open as `first_target`, `first_target + 1`, … (see
/// [`first_target_fd`]). `variables` replace the variables of the same names in the program's environment. The
/// environment of this process is not read.
///
/// The three descriptors of `standard` become stdin, stdout and stderr of the child. They must be numbered above 2, and
/// be passed to [`first_target_fd`] too. Without `standard`, the child inherits the streams of this process. In the
/// child each signal has its default action, and [`GROUP_SIGNALS`] are blocked until it calls [`ignore_group_signals`].
/// The child leads a process group of its own, which includes the programs that it starts: see [`PidFd::kill_group`].
/// Uses `posix_spawn`, whose cost does not grow with the memory of this process.
pub fn spawn(
    program: &Program,
    variables: &[(&str, String)],
    fds: &[BorrowedFd<'_>],
    first_target: RawFd,
    standard: Option<[BorrowedFd<'_>; 3]>,
) -> Result<Pid> {
    let error = |errno| Error::new("posix_spawn", errno, program.file.to_string_lossy());
    let mut actions = PosixSpawnFileActions::init().map_err(error)?;
    // This action comes first: later actions may reuse the number of its descriptor.
    if let Some(folder) = &program.folder {
        add_fchdir(&mut actions, folder).map_err(error)?;
    }
    // All descriptors are open, so `EBADF` means that a number of the child is above the limit on open files.
    let error = |errno| match errno {
        Errno::EBADF => error(Errno::EMFILE),
        errno => error(errno),
    };
    let mut target = first_target;
    for fd in fds {
        add_dup2(&mut actions, fd.as_raw_fd(), target).map_err(error)?;
        target = target.checked_add(1).ok_or_else(|| error(Errno::EBADF))?;
    }
    // These come after the actions for `fds`, whose numbers in this process may be 0 to 2.
    for (fd, number) in standard.iter().flatten().zip(0..) {
        add_dup2(&mut actions, fd.as_raw_fd(), number).map_err(error)?;
    }
    let mut attributes = PosixSpawnAttr::init().map_err(error)?;
    attributes
        .set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
                | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP,
        )
        .map_err(error)?;
    // 0 stands for the child's own id.
    attributes.set_pgroup(Pid::from_raw(0)).map_err(error)?;
    attributes
        .set_sigmask(&SigSet::from_iter(GROUP_SIGNALS))
        .map_err(error)?;
    attributes.set_sigdefault(&SigSet::all()).map_err(error)?;

    let is_replaced = |pair: &&CString| {
        let name = pair.to_bytes().split(|&byte| byte == b'=').next();
        variables
            .iter()
            .any(|(replaced, _)| name == Some(replaced.as_bytes()))
    };
    let mut environment: Vec<CString> =
        Vec::with_capacity(program.environment.len() + variables.len());
    environment.extend(
        program
            .environment
            .iter()
            .filter(|pair| !is_replaced(pair))
            .cloned(),
    );
    for (name, value) in variables {
        let pair = CString::new(format!("{name}={value}")).map_err(|_| error(Errno::EINVAL))?;
        environment.push(pair);
    }
    let start = |file: &CStr| {
        retry(|| {
            posix_spawn(
                file,
                &actions,
                &attributes,
                &program.arguments,
                &environment,
            )
        })
    };
    match (start(&program.file), &program.held) {
        (Err(Errno::ENOENT), Some(held)) => start(&by_number(held.as_raw_fd())),
        (started, _) => started,
    }
    .map_err(error)
}

/// Returns the name of an open file by the number of its descriptor.
fn by_number(fd: RawFd) -> CString {
    CString::new(format!("{OWN_DESCRIPTORS}/{fd}")).expect("the text has no zero byte")
}

/// Gives this thread a root directory, a working directory and a umask of its own: those of the process at this moment.
/// Threads that it starts share them. Returns false if that is refused, for example by a container.
pub fn keep_own_folders() -> bool {
    allowed()
        // SAFETY: takes a number. Afterwards this thread shares its directories and umask with no other thread.
        .map(|()| unsafe { libc::unshare(libc::CLONE_FS) })
        .and_then(Errno::result)
        .is_ok()
}

/// Starts a thread.
pub fn start_thread<T: Send + 'static>(
    builder: thread::Builder,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    allowed()?;
    builder.spawn(body)
}

/// Blocks, on this thread, signals that other processes send, so that other threads receive them. Does not block
/// signals for the thread's own actions, such as faults and writes to a closed pipe.
pub fn block_sent_signals() {
    let own = [
        Signal::SIGABRT,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGPIPE,
        Signal::SIGSEGV,
        Signal::SIGSYS,
        Signal::SIGTRAP,
        Signal::SIGXFSZ,
    ];
    let mut sent = SigSet::all();
    own.into_iter().for_each(|signal| sent.remove(signal));
    // Fails only for a wrong argument.
    let _ = sent.thread_block();
}

/// Starts a scoped thread.
pub fn start_scoped<'scope, T: Send + 'scope>(
    builder: thread::Builder,
    scope: &'scope Scope<'scope, '_>,
    body: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<ScopedJoinHandle<'scope, T>> {
    allowed()?;
    builder.spawn_scoped(scope, body)
}

/// Makes Linux send `signal` to this process when the *thread* that started it ends.
///
/// If the parent has ended before this call, no signal is sent. So compare [`getppid`] with the expected parent after
/// the call.
pub fn set_pdeathsig(signal: Signal) -> Result<()> {
    allowed()
        .and_then(|()| nix::sys::prctl::set_pdeathsig(signal))
        .map_err(|errno| Error::new("prctl(SET_PDEATHSIG)", errno, signal.as_str()))
}

/// Returns whether a process exists and has not ended. The state comes after the name, which is in parentheses.
pub fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Returns the parent's process id.
pub fn getppid() -> Pid {
    Pid::parent()
}

/// Allows or forbids core dumps, and debugging by other processes of the same user.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    allowed()
        .and_then(|()| nix::sys::prctl::set_dumpable(dumpable))
        .map_err(|errno| Error::new("prctl(SET_DUMPABLE)", errno, "this process"))
}

/// Returns whether other processes of this user may inspect this process, for example read `/proc/PID/fd`.
pub fn is_dumpable() -> bool {
    nix::sys::prctl::get_dumpable().unwrap_or(false)
}

/// Signals that a terminal, a service manager or a closed pipe sends to all processes of a program.
pub const GROUP_SIGNALS: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGPIPE,
    Signal::SIGTERM,
];

/// Whether this process ignores [`GROUP_SIGNALS`].
static IGNORES_GROUP_SIGNALS: AtomicBool = AtomicBool::new(false);

extern "C" fn do_nothing(_: libc::c_int) {}

/// Ignores [`GROUP_SIGNALS`] and unblocks all signals: how to react to a group signal is up to the supervisor.
///
/// To ignore the signals, installs a handler that does nothing: programs started by this process would inherit ignored
/// signals, but have the default action for handled signals, so that SIGTERM can end them. Forked copies of this
/// process have the default action too ([`restore_signals_in_fork`]). Also ignores the signals that would stop this
/// process when it uses its terminal from the background; programs started by this process get an error from the
/// terminal instead.
///
/// For a process started by [`spawn`], in which these signals are blocked until this call, so that they can never end
/// the process.
pub fn ignore_group_signals() -> Result<()> {
    let nothing = SigAction::new(
        SigHandler::Handler(do_nothing),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for ignored in GROUP_SIGNALS {
        allowed()
            // SAFETY: the handler does nothing.
            .and_then(|()| unsafe { sigaction(ignored, &nothing) })
            .map_err(|errno| Error::new("sigaction", errno, ignored.as_str()))?;
    }
    for ignored in [Signal::SIGTTIN, Signal::SIGTTOU] {
        allowed()
            // SAFETY: SigIgn installs no handler function.
            .and_then(|()| unsafe { signal(ignored, SigHandler::SigIgn) })
            .map_err(|errno| Error::new("signal", errno, ignored.as_str()))?;
    }
    IGNORES_GROUP_SIGNALS.store(true, Ordering::Relaxed);
    allowed()
        .and_then(|()| SigSet::empty().thread_set_mask())
        .map_err(|errno| Error::new("pthread_sigmask", errno, "a mask without signals"))
}

/// The signals that are sent to end a process. A forked copy does not ignore them.
const ENDING_SIGNALS: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

thread_local! {
    /// The signals that this thread had blocked before [`hold_signals_for_fork`].
    static BLOCKED: Cell<Option<SigSet>> = const { Cell::new(None) };
}

/// Called before a process that ignores [`GROUP_SIGNALS`] forks. Blocks the signals that should end the copy: the
/// parent may send such a signal as soon as it knows the copy's id, and the copy would ignore it before
/// [`restore_signals_in_fork`].
pub fn hold_signals_for_fork() {
    if !IGNORES_GROUP_SIGNALS.load(Ordering::Relaxed) {
        return;
    }
    // Fails only for a wrong argument.
    let before = SigSet::from_iter(ENDING_SIGNALS).thread_swap_mask(SigmaskHow::SIG_BLOCK);
    BLOCKED.set(before.ok());
}

/// Called after the fork, in both processes: undoes [`hold_signals_for_fork`].
pub fn release_signals_after_fork() {
    if let Some(before) = BLOCKED.take() {
        // Fails only for a wrong argument.
        let _ = before.thread_set_mask();
    }
}

/// Restores the default action of the signals that end a process, in a forked copy of a process that ignores
/// [`GROUP_SIGNALS`]. The signals also end the copy if they were sent since the fork. Handlers that the program has
/// installed stay. A write to a closed pipe is still an error, not a signal.
pub fn restore_signals_in_fork() {
    if !IGNORES_GROUP_SIGNALS.load(Ordering::Relaxed) {
        return;
    }
    for ends in ENDING_SIGNALS {
        // SAFETY: `sigaction` only writes the present action, for which zeros are a valid value; SIG_DFL installs no
        // handler function. Both calls are safe in the child of a multi-threaded program.
        unsafe {
            let mut present: libc::sigaction = std::mem::zeroed();
            let read = libc::sigaction(ends as i32, std::ptr::null(), &raw mut present);
            if read == 0 && present.sa_sigaction == do_nothing as *const () as usize {
                libc::signal(ends as i32, libc::SIG_DFL);
            }
        }
    }
    release_signals_after_fork();
}

/// Closes every descriptor of this process except 0, 1, 2 and `keep`.
///
/// For a process that has just started and has opened no descriptors.
pub fn close_all_except(keep: &[RawFd]) -> Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|&fd| u32::try_from(fd).ok())
        .filter(|&fd| fd > 2)
        .collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 3;
    let close = |first: u32, last: u32| -> Result<()> {
        if first > last {
            return Ok(());
        }
        allowed()
            // SAFETY: close_range takes numbers only. It is called at the start of the process, when no value of this
            // process owns a descriptor in the range.
            .map(|()| unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
            .and_then(Errno::result)
            .map(drop)
            .map_err(|errno| {
                let what = format!("descriptors {first} to {last}");
                Error::new("close_range", errno, what)
            })
    };
    for fd in keep {
        close(first, fd - 1)?;
        first = fd + 1;
    }
    close(first, u32::MAX)
}

/// A pipe to which nothing is written. Processes with the read end are notified when the last write end is closed.
#[derive(Debug)]
pub struct WatchPipe {
    /// The read end, which workers inherit.
    pub read: OwnedFd,
    unforked: Option<Unforked>,
    /// The write end. It stays in the supervisor, and no process inherits it. `None` after
    /// [`hang_up`](WatchPipe::hang_up).
    pub write: Option<OwnedFd>,
}

impl WatchPipe {
    /// Creates a pipe; both ends are close-on-exec.
    pub fn new() -> Result<WatchPipe> {
        let (read, write) = allowed()
            .and_then(|()| nix::unistd::pipe2(OFlag::O_CLOEXEC))
            .map_err(|errno| Error::new("pipe2", errno, "a watch pipe"))?;
        Ok(WatchPipe {
            read,
            unforked: Some(Unforked::new(write.as_fd())),
            write: Some(write),
        })
    }

    /// Closes the write end. Processes that have called [`kill_me_on_hangup`] end, even if this process has lost the
    /// right to send them signals: Linux checks the rights that they had themselves at that call.
    pub fn hang_up(&mut self) {
        self.unforked = None;
        self.write = None;
    }
}

/// Makes Linux kill this process, even if it is busy or stopped, when the last write end of the pipe is closed.
///
/// Opens a new description of the pipe and sets `O_ASYNC` with SIGKILL as its signal. The description must be new,
/// because owner and signal are properties of a description, and all workers inherit the same description. The watch
/// ends when the returned descriptor is closed. Fails with `EPIPE` if the write end is closed already.
pub fn kill_me_on_hangup(inherited: BorrowedFd<'_>) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", inherited.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let own = retry(|| nix::fcntl::open(path.as_str(), flags, nix::sys::stat::Mode::empty()))
        .map_err(|errno| Error::new("open", errno, path.clone()))?;
    let set = |call, command, value: i32| -> Result<()> {
        allowed().map_err(|errno| Error::new(call, errno, "the watch pipe"))?;
        // SAFETY: fcntl with these commands takes numbers only. `own` owns the descriptor.
        if unsafe { libc::fcntl(own.as_raw_fd(), command, value) } < 0 {
            return Err(Error::last(call, "the watch pipe"));
        }
        Ok(())
    };
    /// From Linux' include/uapi/asm-generic/fcntl.h; libc names it for some targets only.
    const F_SETSIG: i32 = 10;
    set(
        "fcntl(F_SETOWN)",
        libc::F_SETOWN,
        nix::unistd::getpid().as_raw(),
    )?;
    set("fcntl(F_SETSIG)", F_SETSIG, libc::SIGKILL)?;
    let status = OFlag::O_NONBLOCK | OFlag::O_ASYNC;
    retry(|| fcntl(&own, FcntlArg::F_SETFL(status)))
        .map_err(|errno| Error::new("fcntl(O_ASYNC)", errno, "the watch pipe"))?;
    // If the write end was closed before the watch began, no signal is sent. The inherited description reports that
    // reliably.
    if poll_one(inherited, PollTimeout::ZERO)?.contains(PollFlags::POLLHUP) {
        return Err(Error::new("poll", Errno::EPIPE, "the watch pipe"));
    }
    Ok(own)
}

/// The effective user id.
pub fn effective_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Returns the number of other threads of this process, if those threads might use descriptors that [`adopt_inherited`]
/// would close: descriptors that the process has opened, other than the `count` from `first` on. Otherwise returns 0.
///
/// For a process that [`spawn`] has started. A descriptor counts as opened by the process if it is close-on-exec;
/// inherited descriptors are not.
pub fn threads_with_descriptors(first: RawFd, count: usize) -> usize {
    let names = |folder: &str| -> Vec<RawFd> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    };
    let others = names("/proc/self/task").len().saturating_sub(1);
    let inherited = first..first.saturating_add_unsigned(count as u32);
    let is_own = |fd: RawFd| {
        // SAFETY: fcntl with F_GETFD takes a number and changes nothing. A number that was closed meanwhile is an
        // error.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        !inherited.contains(&fd) && flags >= 0 && flags & libc::FD_CLOEXEC != 0
    };
    match others > 0 && names("/proc/self/fd").into_iter().any(is_own) {
        true => others,
        false => 0,
    }
}

/// Takes ownership of the `count` descriptors from `first` on and makes them close-on-exec. With `close_others`, closes
/// all other descriptors except 0, 1 and 2.
///
/// May be called once, in a process that [`spawn`] has just started with exactly these descriptors.
pub fn adopt_inherited(first: RawFd, count: usize, close_others: bool) -> Result<Vec<OwnedFd>> {
    static ADOPTED: AtomicBool = AtomicBool::new(false);
    let numbers: Vec<RawFd> = (first..).take(count).collect();
    if first <= 2 || ADOPTED.swap(true, Ordering::Relaxed) {
        return Err(Error::new(
            "adopt",
            Errno::EINVAL,
            format!("{count} descriptors from {first}"),
        ));
    }
    if close_others {
        close_all_except(&numbers)?;
    }
    let adopt = |&fd: &RawFd| {
        allowed()
            // `dup2` in `spawn` has cleared the flag, so programs that this process starts would inherit the
            // descriptors.
            // SAFETY: fcntl with F_SETFD takes numbers only; nothing else owns this descriptor.
            .map(|()| unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })
            .and_then(Errno::result)
            .map_err(|errno| {
                let what = format!("inherited descriptor {fd}");
                Error::new("fcntl(F_SETFD)", errno, what)
            })?;
        // SAFETY: the descriptor is open, was inherited at the start of this process, and nothing owns it: this
        // function runs once, before anything else opens or owns a descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    numbers.iter().map(adopt).collect()
}

/// Removes a variable from the environment and returns its value.
///
/// Must be called at the start of a process, while no other thread uses the environment.
pub fn take_env(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    // SAFETY: a process with this variable was started by this crate. It calls this in `arenite::init`, before any
    // other thread exists, or in `arenite::run_worker`, whose caller keeps other threads from the environment.
    unsafe { std::env::remove_var(name) };
    Some(value)
}

/// Makes SIGSEGV and SIGBUS end this process even if another process sends them: the standard library's handler ignores
/// the first such signal.
pub fn reset_fault_handlers() -> Result<()> {
    for fault in [Signal::SIGSEGV, Signal::SIGBUS] {
        allowed()
            // SAFETY: SigDfl installs no handler function.
            .and_then(|()| unsafe { signal(fault, SigHandler::SigDfl) })
            .map_err(|errno| Error::new("signal", errno, fault.as_str()))?;
    }
    Ok(())
}

/// Sets the name shown in process lists. Linux keeps its first 15 bytes.
pub fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        // Fails only for an unreadable pointer.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// The function to call when this process ends by `exit`.
static AT_EXIT: OnceLock<fn()> = OnceLock::new();

extern "C" fn on_exit() {
    if let Some(call) = AT_EXIT.get() {
        call();
    }
}

/// Registers `call` to be called when this process ends by `exit` or by the end of `main`. A forked copy calls it too
/// when it ends so. Only the first registration has an effect.
pub fn call_at_exit(call: fn()) {
    static REGISTERED: Once = Once::new();
    let _ = AT_EXIT.set(call);
    REGISTERED.call_once(|| {
        // SAFETY: the handler takes no arguments and calls a safe function. If registering fails for lack of memory,
        // the function is not called, which is the only effect.
        let _ = unsafe { libc::atexit(on_exit) };
    });
}

/// Ends this process at once, without running destructors or exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes a number and only ends the process.
    unsafe { libc::_exit(code) }
}
