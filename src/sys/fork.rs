//! Detects whether the calling process is a forked copy of the process that created a value.
//!
//! A forked copy has the memory, the descriptors and one thread of its original, but neither its child processes nor
//! its file locks. The process that owns an engine would not notice what a copy did with the engine.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};

/// The number of forks between this process and the first process that called [`OwnerProcess::current`].
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The function that each forked copy calls before any other handler.
static FIRST: OnceLock<fn()> = OnceLock::new();

/// Is called after a fork in both processes. The argument is true in the copy.
pub type AfterFork = Box<dyn FnOnce(bool)>;

/// The functions to call before each fork.
static BEFORE: Mutex<Vec<fn() -> AfterFork>> = Mutex::new(Vec::new());

/// What a thread that forks has until the fork is done. The copy inherits it.
struct Forking {
    _before: MutexGuard<'static, Vec<fn() -> AfterFork>>,
    after: Vec<AfterFork>,
}

thread_local! {
    static FORKING: RefCell<Option<Forking>> = const { RefCell::new(None) };
}

/// Registers `before` to be called before each `fork`. What `before` returns is called after the fork, in both
/// processes. It may own guards of locks: the copy has only the thread that forks, and the locks are free in both.
pub fn run_around_forks(before: fn() -> AfterFork) {
    let _ = OwnerProcess::current();
    lock_before().push(before);
}

fn lock_before() -> MutexGuard<'static, Vec<fn() -> AfterFork>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn before_fork() {
    let before = lock_before();
    let after = before.iter().map(|before| before()).collect();
    FORKING.set(Some(Forking {
        _before: before,
        after,
    }));
}

fn after_fork(is_copy: bool) {
    if let Some(forking) = FORKING.take() {
        let after = forking.after.into_iter().rev();
        after.for_each(|after| after(is_copy));
    }
}

/// Registers `first` to be called in each copy that `fork` makes of this process, before anything else. Copies made by
/// the bare system call do not call it. Only the first registration has an effect.
///
/// The copy has only one thread. Locks that other threads held at the fork stay locked there.
pub fn run_first_in_forks(first: fn()) {
    let _ = OwnerProcess::current();
    let _ = FIRST.set(first);
}

/// The descriptors that copies close which are made to be templates of workers.
static UNFORKED: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

pub(super) fn lock_unforked() -> MutexGuard<'static, Vec<RawFd>> {
    UNFORKED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As long as this exists, templates that are copies of this process do not have a descriptor: if they had it, the
/// process at the other end would not notice the end of this process.
#[derive(Debug)]
pub struct Unforked(RawFd);

impl Unforked {
    pub fn new(fd: BorrowedFd<'_>) -> Self {
        lock_unforked().push(fd.as_raw_fd());
        Self(fd.as_raw_fd())
    }
}

impl Drop for Unforked {
    fn drop(&mut self) {
        lock_unforked().retain(|one| *one != self.0);
    }
}

/// Identifies the process that created a value, as opposed to its forked copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerProcess(u32);

impl OwnerProcess {
    /// Identifies the calling process.
    pub fn current() -> Self {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| {
            // SAFETY: the handlers store to atomics and call functions that are safe in the child of a multi-threaded
            // program. If registering fails for lack of memory, copies are not detected, which is the only effect.
            let _ = unsafe { libc::pthread_atfork(Some(prepare), Some(after), Some(count)) };
        });
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Returns whether the calling process is this process, and not a forked copy of it.
    #[inline]
    pub fn is_current(self) -> bool {
        // Relaxed: written only when a process begins, by its only thread.
        FORKS.load(Ordering::Relaxed) == self.0
    }

    /// Checks that the calling process is this process.
    ///
    /// # Panics
    /// In a forked copy of the process.
    #[inline]
    #[track_caller]
    pub fn assert_current(self) {
        if !self.is_current() {
            wrong_process();
        }
    }
}

#[cold]
#[track_caller]
fn wrong_process() -> ! {
    panic!(
        "this engine belongs to the process that built it, and this process is a copy made by fork(): build an engine \
         after forking, or exec a program in the copy"
    )
}

/// Called before a fork.
extern "C" fn prepare() {
    before_fork();
    super::process::hold_signals_for_fork();
}

/// Called after a fork in the process that was copied.
extern "C" fn after() {
    super::process::release_signals_after_fork();
    after_fork(false);
}

/// Called in a forked copy before anything else.
extern "C" fn count() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    // The notes of a worker are not mapped in its copies.
    super::fault::forget_note();
    super::abort::forget_note();
    super::crash::forget_note();
    super::process::restore_signals_in_fork();
    if let Some(first) = FIRST.get() {
        first();
    }
    after_fork(true);
}
