//! Which thread ended its process.
//!
//! To whoever looks from outside, a wild access, an abort and a call of `exit` are the end of the process. The thread that
//! did it still knows itself: it leaves its number in memory that outlives the process, and dies as it would have.
//!
//! `exit` calls the handler that was registered first after all others. A thread that crashes meanwhile, because of what those
//! have torn down under it, is noted in the place of the one that called `exit`.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::error::{Error, Result};
use super::fork::Original;
use super::inject::allowed;

/// What a thread of its own doing ends a process with.
const FAULTS: [Signal; 5] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
];

/// Bytes of the stack on which a thread hears of a fault: its own may have overflowed.
const STACK: usize = 32 * 1024;

thread_local! {
    /// 0: a thread that nobody numbered.
    static NUMBER: Cell<u32> = const { Cell::new(0) };
}

/// Where the number goes.
static NOTE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// From now on the thread that ends this process leaves its number in `note`, unless there is one already. Nothing is left
/// by a signal from outside, by `_exit`, and by a thread without a number.
pub fn note_ends(note: &'static AtomicU32) -> Result<()> {
    // A copy of this process forgets the note.
    let _ = Original::here();
    // Release: "note mapped", pairs with `note_end`.
    NOTE.store(ptr::from_ref(note).cast_mut(), Ordering::Release);
    let flags =
        SaFlags::SA_SIGINFO | SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::empty());
    for fault in FAULTS {
        allowed()
            // SAFETY: the handler makes system calls and stores to atomics only, so it may interrupt anything.
            .and_then(|()| unsafe { sigaction(fault, &action) })
            .map_err(|errno| Error::new("sigaction", errno, fault.as_str()))?;
    }
    // SAFETY: the function takes nothing and only stores to an atomic.
    if unsafe { libc::atexit(on_exit) } != 0 {
        let errno = nix::errno::Errno::ENOMEM;
        return Err(Error::new("atexit", errno, "a handler for exit"));
    }
    Ok(())
}

/// This thread has this number, from 1, and a stack on which it hears of its faults. For threads that stay as long as their
/// process: the stack does.
pub fn number_thread(number: u32) -> Result<()> {
    let stack = vec![0_u8; STACK].leak();
    let stack = libc::stack_t {
        ss_sp: stack.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: stack.len(),
    };
    allowed()
        // SAFETY: the memory is never freed, and nobody else uses it.
        .map(|()| unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) })
        .and_then(nix::errno::Errno::result)
        .map_err(|errno| Error::new("sigaltstack", errno, "a stack for faults"))?;
    NUMBER.set(number);
    Ok(())
}

/// There is no note any more.
pub(super) fn forget_note() {
    NOTE.store(ptr::null_mut(), Ordering::Relaxed);
}

/// In a handler, on the thread that ends the process: leaves its number.
pub(crate) fn note_end() {
    // Acquire: "note mapped", pairs with `note_ends`.
    let note = NOTE.load(Ordering::Acquire);
    // SAFETY: null, or the address of an atomic that lives as long as the process.
    let Some(note) = (unsafe { note.as_ref() }) else {
        return;
    };
    // A variable of the thread without a destructor is plain memory.
    let number = NUMBER.with(Cell::get);
    // Release: "number noted", for whoever reads it after the exit.
    let _ = note.compare_exchange(0, number, Ordering::Release, Ordering::Relaxed);
}

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid siginfo to a handler installed with SA_SIGINFO; a signal that a thread sent carries
    // its process number. `raise` may be called in a handler.
    unsafe {
        let code = (*info).si_code;
        // Above 0: by the kernel, for what this thread did.
        if code > 0 || code == libc::SI_TKILL && (*info).si_pid() == libc::getpid() {
            note_end();
        }
        // The handler was reset when it was entered: this ends the process.
        libc::raise(signal);
    }
}

extern "C" fn on_exit() {
    note_end();
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// The ends themselves are shown by workers; here, that the first number stays and that others leave none.
    #[test]
    fn the_first_numbered_thread_is_noted() {
        let note: &'static AtomicU32 = Box::leak(Box::new(AtomicU32::new(0)));
        note_end();
        NOTE.store(ptr::from_ref(note).cast_mut(), Ordering::Release);
        let ends = |number: Option<u32>| {
            let thread = std::thread::spawn(move || {
                number.map(number_thread).transpose().unwrap();
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
