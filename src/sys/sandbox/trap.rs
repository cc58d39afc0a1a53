//! Records the number of a denied system call in a word that the supervisor can read.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use nix::errno::Errno;

use super::super::error::{Error, Result};
use super::super::inject::allowed;

/// The word in which the number is stored.
static RECORD: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());

/// The bit that is set if the word contains a number.
const NOTED: u32 = 1 << 31;
/// `si_code` of a SIGSYS that a filter sent, not a process.
const SYS_SECCOMP: i32 = 1;

/// The siginfo of a filter's SIGSYS, as Linux lays it out on 64-bit machines.
#[repr(C)]
struct Trapped {
    signal: i32,
    errno: i32,
    code: i32,
    _pad: i32,
    _address: usize,
    call: i32,
    _arch: u32,
}

/// Returns the number of the denied call in a record, if there is one.
pub fn call(record: u32) -> Option<u32> {
    (record & NOTED != 0).then_some(record & !NOTED)
}

/// Installs the handler for trapped calls: it stores the number of the call in `record`, and ends this process by
/// SIGSYS.
pub(super) fn install(record: &'static AtomicU32) -> Result<()> {
    // Release: "record mapped", pairs with the load in `on_trap`.
    RECORD.store(std::ptr::from_ref(record).cast_mut(), Ordering::Release);
    // SAFETY: an all-zero sigaction is valid: no handler, no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_trap as *const () as usize;
    // SA_RESETHAND and SA_NODEFER: the second SIGSYS, which the handler sends itself, is not blocked and has its
    // default action.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_NODEFER | libc::SA_ONSTACK;
    allowed()
        // SAFETY: the handler only stores to an atomic and makes allowed, async-signal-safe system calls; `action` is
        // initialised.
        .map(|()| unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) })
        .and_then(Errno::result)
        .map(drop)
        .map_err(|errno| Error::new("sigaction", errno, "SIGSYS"))
}

extern "C" fn on_trap(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: Linux passes its own siginfo_t (128 bytes) to a handler with SA_SIGINFO; it is only read, in the layout
    // of SIGSYS.
    let trapped = unsafe { &*info.cast::<Trapped>() };
    // Acquire: "record mapped", pairs with the store in `install`.
    let record = RECORD.load(Ordering::Acquire);
    if trapped.code == SYS_SECCOMP && trapped.signal == libc::SIGSYS && trapped.errno == 0 {
        super::super::fault::note_end();
        // SAFETY: `install` stored the address of an atomic that lives as long as the process.
        if let Some(record) = unsafe { record.as_ref() } {
            // Release: "call noted", pairs with the supervisor's load after the exit is confirmed.
            record.store(NOTED | trapped.call.cast_unsigned(), Ordering::Release);
        }
    }
    // SAFETY: takes numbers only. SIGSYS has its default action now, so this does not return.
    unsafe {
        libc::syscall(
            libc::SYS_tgkill,
            libc::getpid(),
            libc::syscall(libc::SYS_gettid),
            signal,
        );
        libc::_exit(128 + signal);
    }
}

const _: () = {
    assert!(size_of::<Trapped>() <= size_of::<libc::siginfo_t>());
    assert!(std::mem::offset_of!(Trapped, call) == 24);
};
