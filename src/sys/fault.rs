//! A note about which thread has ended its process.
//!
//! After a stray memory access, an abort or a call of `exit`, only the end of the process is visible from outside. So
//! the thread that causes the end stores its number in memory that outlives the process; then the process ends as it
//! would have without this module.
//!
//! `exit` calls its handlers in reverse order of registration, so this module's handler, registered first, runs last.
//! The handlers before it may destroy data that another thread still uses. If that thread crashes then, its number is
//! stored instead of the number of the thread that called `exit`.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::error::{Error, Result};
use super::fork::OwnerProcess;

/// A thread that lives as long as its process: the thread of a lane.
///
/// Not in a thread-local: in a shared library a thread's first access to a thread-local may allocate, which a signal
/// handler must not.
#[derive(Debug)]
pub(super) struct KnownThread {
    id: u32,
    /// The thread's number from 1; 0 for none.
    number: u32,
    /// The approximate start of the thread's stack.
    pub(super) stack_start: u64,
    next: Option<&'static KnownThread>,
}

/// The registered threads, the newest first.
static THREADS: AtomicPtr<KnownThread> = AtomicPtr::new(ptr::null_mut());

/// The note of this process.
static NOTE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// Makes the thread that ends this process store its number in `note`, unless a number is stored already. The number is
/// stored when the thread calls `exit`, and when [`crash`](super::crash) handles the thread's signal. A signal from
/// outside, `_exit` and a thread without a number store nothing.
pub fn note_ends(note: &'static AtomicU32) -> Result<()> {
    // Registers the fork handler that calls `forget_note` in copies of this process.
    let _ = OwnerProcess::current();
    // Release: "note mapped", pairs with `note_end`.
    NOTE.store(ptr::from_ref(note).cast_mut(), Ordering::Release);
    // SAFETY: the handler takes no arguments and only stores to an atomic.
    if unsafe { libc::atexit(on_exit) } != 0 {
        let errno = nix::errno::Errno::ENOMEM;
        return Err(Error::new("atexit", errno, "a handler for exit"));
    }
    Ok(())
}

/// Registers this thread under `number`, which is at least 1, or 0 for a thread without a number. For threads that live
/// as long as their process.
pub fn know_thread(number: u32) {
    let thread = Box::leak(Box::new(KnownThread {
        id: thread_id(),
        number,
        stack_start: stack_address() as u64,
        next: None,
    }));
    let mut head = THREADS.load(Ordering::Acquire);
    loop {
        // SAFETY: null, or a registered thread, which was leaked.
        thread.next = unsafe { head.as_ref() };
        // Release: "thread known", pairs with `known_thread`.
        let set = THREADS.compare_exchange(
            head,
            ptr::from_mut(thread),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        match set {
            Ok(_) => return,
            Err(other) => head = other,
        }
    }
}

/// Returns the registered thread with this id. Async-signal-safe.
pub(super) fn known_thread(id: u32) -> Option<&'static KnownThread> {
    // Acquire: "thread known", pairs with `know_thread`.
    // SAFETY: null, or a registered thread, which was leaked.
    let mut next = unsafe { THREADS.load(Ordering::Acquire).as_ref() };
    while let Some(thread) = next {
        if thread.id == id {
            return next;
        }
        next = thread.next;
    }
    None
}

/// Returns the id of the calling thread. Async-signal-safe.
pub(super) fn thread_id() -> u32 {
    // The C library has a function for this only from glibc 2.30 on. The id of a thread fits 32 bits.
    // SAFETY: takes nothing and returns a number.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// Returns the approximate address of the caller's stack frame.
#[inline(never)]
pub(super) fn stack_address() -> usize {
    let local = 0_u8;
    (&raw const local).addr()
}

/// Called in a forked copy, where the note is not mapped: drops the reference to the note.
pub(super) fn forget_note() {
    NOTE.store(ptr::null_mut(), Ordering::Relaxed);
}

/// Stores the calling thread's number in the note. Called in a signal handler or exit handler.
pub(crate) fn note_end() {
    // Acquire: "note mapped", pairs with `note_ends`.
    let note = NOTE.load(Ordering::Acquire);
    // SAFETY: null, or the address of an atomic that lives as long as the process.
    let Some(note) = (unsafe { note.as_ref() }) else {
        return;
    };
    let number = known_thread(thread_id()).map_or(0, |thread| thread.number);
    // Release: "number noted", pairs with the supervisor's load after the exit.
    let _ = note.compare_exchange(0, number, Ordering::Release, Ordering::Relaxed);
}

extern "C" fn on_exit() {
    note_end();
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Worker tests cover the real ends. This shows that the first number stays and that threads without one store
    /// nothing.
    #[test]
    fn the_first_numbered_thread_is_noted() {
        let note: &'static AtomicU32 = Box::leak(Box::new(AtomicU32::new(0)));
        note_end();
        NOTE.store(ptr::from_ref(note).cast_mut(), Ordering::Release);
        let ends = |number: Option<u32>| {
            let thread = std::thread::spawn(move || {
                number.into_iter().for_each(know_thread);
                note_end();
            });
            thread.join().unwrap();
            note.load(Ordering::Acquire)
        };
        assert_eq!(ends(None), 0);
        assert_eq!(ends(Some(7)), 7);
        assert_eq!(ends(Some(8)), 7);
        NOTE.store(ptr::null_mut(), Ordering::Release);
    }
}
