//! The note that a crashing process leaves: signal, address, registers and stack frames.
//!
//! The handler runs on the thread that crashed, on a separate stack, and makes async-signal-safe calls only. It writes
//! to memory that outlives the process. Then it calls the handler that the program had installed, or ends the process
//! by the same signal: exit status and core dump are the same as without this handler.

mod note;
mod registers;

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::error::{Error, Result};
use super::fault;
use super::fork::OwnerProcess;
use super::inject::allowed;
use super::unwind;
use note::has_address;
pub use note::{Area, CrashNote, CrashedAccess, Located, NotedCrash};
use registers::Registers;

/// The signals that a thread causes by its own actions and whose default action ends the process.
const FAULTS: [Signal; 6] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    // Some compilers emit a trap where code is unreachable, on aarch64.
    Signal::SIGTRAP,
];

/// Size in bytes of the alternate signal stack, which is needed because the thread's own stack may have overflowed.
const STACK: usize = 64 * 1024;
/// Max distance in bytes from the handler's stack frame to the frames of functions that it calls.
const DEEPEST_HANDLER: u64 = 1 << 20;
/// The number of faults that a handler of the program may handle. After that this module stops recording faults; or, if
/// the same fault has recurred each time, it ends the process.
const SURVIVED: u32 = 8;

/// The note of this process.
static NOTE: AtomicPtr<CrashNote> = AtomicPtr::new(ptr::null_mut());
/// The id of the process that writes the note: a copy made by the bare system call, where the note is not mapped, has
/// another id.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Finds the location of an address in shared memory.
static LOCATE: OnceLock<fn(usize) -> Option<Located>> = OnceLock::new();
/// The actions that the program had installed before this process became a worker.
static BEFORE: [OnceLock<SigAction>; FAULTS.len()] = [const { OnceLock::new() }; FAULTS.len()];
/// The actions that `on_worker_start` has installed.
static STARTED: [OnceLock<SigAction>; FAULTS.len()] = [const { OnceLock::new() }; FAULTS.len()];
/// The thread that runs the handler; 0 for none.
static CRASHED: AtomicU32 = AtomicU32::new(0);
/// A stack address of this module's handler, stored before the handler calls a handler of the program or walks the
/// stack.
static HANDLER_STACK: AtomicU64 = AtomicU64::new(0);
/// The arguments of the handler that walks the stack. The signal is 0 while no walk runs.
static WALKING: Walking = Walking {
    signal: AtomicI32::new(0),
    info: AtomicPtr::new(ptr::null_mut()),
    context: AtomicPtr::new(ptr::null_mut()),
};
/// The number of crashes that handlers of the program have handled.
static HANDLED: AtomicU32 = AtomicU32::new(0);
/// The last fault that was passed to a handler of the program.
static LAST_FAULT: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// The number of times that [`LAST_FAULT`] has recurred since.
static RECURRED: AtomicU32 = AtomicU32::new(0);

struct Walking {
    signal: AtomicI32,
    info: AtomicPtr<libc::siginfo_t>,
    context: AtomicPtr<c_void>,
}

/// Makes this process record a crash in `note`. `locate` finds the location of an address in shared memory, and must be
/// async-signal-safe. Signals from outside are not recorded.
pub fn note_crashes(note: &'static CrashNote, locate: fn(usize) -> Option<Located>) -> Result<()> {
    // Registers the fork handler that calls `forget_note` in copies of this process.
    let _ = OwnerProcess::current();
    let _ = LOCATE.set(locate);
    unwind::prepare();
    PROCESS.store(std::process::id(), Ordering::Relaxed);
    // Release: "note mapped", pairs with `on_crash`.
    NOTE.store(ptr::from_ref(note).cast_mut(), Ordering::Release);
    install(on_crash, &BEFORE)
}

/// Makes this module's handler run before the handlers that the program has installed since [`note_crashes`]. It calls
/// them after it has recorded the crash.
pub fn note_crashes_first() -> Result<()> {
    install(on_crash_in_front, &STARTED)
}

fn install(handler: Handler, before: &[OnceLock<SigAction>; FAULTS.len()]) -> Result<()> {
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_NODEFER | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(handler), flags, SigSet::empty());
    for (fault, before) in FAULTS.into_iter().zip(before) {
        let set = |action| {
            allowed()
                // SAFETY: the handler makes async-signal-safe system calls and stores to atomics only; other actions
                // are those that the program had installed itself.
                .and_then(|()| unsafe { sigaction(fault, action) })
                .map_err(|errno| Error::new("sigaction", errno, fault.as_str()))
        };
        let found = set(&action)?;
        match found.handler() {
            // The program ignores this signal and continues: restore that.
            SigHandler::SigIgn => drop(set(&found)?),
            SigHandler::SigDfl => {}
            SigHandler::SigAction(handler) if ptr::fn_addr_eq(handler, on_crash as Handler) => {}
            SigHandler::SigAction(_) | SigHandler::Handler(_) => drop(before.set(found)),
        }
    }
    Ok(())
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// Gives this thread an alternate stack for its fault signals. Only for threads that live as long as their process: the
/// stack is never freed.
pub fn prepare_thread() -> Result<()> {
    let stack = vec![0_u8; STACK].leak();
    let stack = libc::stack_t {
        ss_sp: stack.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: stack.len(),
    };
    allowed()
        // SAFETY: the memory is never freed, and nothing else uses it.
        .map(|()| unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) })
        .and_then(Errno::result)
        .map(drop)
        .map_err(|errno| Error::new("sigaltstack", errno, "a stack for faults"))
}

/// Called in a forked copy, where the note is not mapped: drops the reference to the note.
pub(super) fn forget_note() {
    NOTE.store(ptr::null_mut(), Ordering::Relaxed);
}

/// The handler that [`note_crashes`] installs. If the program installs its own handler later, it gets this handler as
/// the previous action, and restores it when it removes its own.
extern "C" fn on_crash(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    crashed(signal, info, context, false);
}

/// The handler that [`note_crashes_first`] installs. It calls the handler that the program has installed.
extern "C" fn on_crash_in_front(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    crashed(signal, info, context, true);
}

/// Records the crash. The functions that it calls are not inlined: the alternate stack of a thread that a kernel has
/// started may have only 8 KiB. The signal's frame takes half of them, and the unwinder needs the rest.
fn crashed(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, in_front: bool) {
    let errno = Errno::last_raw();
    // SAFETY: Linux passes a valid siginfo to a handler installed with SA_SIGINFO. For a signal sent by a thread it
    // contains the sender's process id. `getpid` takes no arguments.
    let (code, is_own, process) = unsafe {
        let code = (*info).si_code;
        let process = libc::getpid();
        // A code above 0 means that Linux sent the signal because of an action of this thread.
        let raised = code == libc::SI_TKILL && (*info).si_pid() == process;
        (code, code > 0 || raised, process.cast_unsigned())
    };
    let this = fault::thread_id();
    // SAFETY: Linux has passed the context to the running handler.
    if !unsafe { enter(this, context) } {
        return end_again(signal, in_front);
    }
    if is_own && process == PROCESS.load(Ordering::Relaxed) {
        fault::note_end();
        if signal == libc::SIGABRT && code == libc::SI_TKILL {
            super::abort::note_abort(errno);
        }
        if let Some(note) = note() {
            // SAFETY: Linux has passed both pointers, which are valid during this call.
            unsafe {
                let crash = describe(signal, this, info, context);
                note.write(&crash);
                HANDLER_STACK.store(fault::stack_address() as u64, Ordering::Relaxed);
                WALKING.info.store(info, Ordering::Relaxed);
                WALKING.context.store(context, Ordering::Relaxed);
                WALKING.signal.store(signal, Ordering::Relaxed);
                let caller = Registers::step_out_of_call(&crash, context);
                note.write_frames(crash.instruction, caller.unwrap_or(crash.instruction));
                Registers::restore(crash.instruction, crash.stack, context);
            }
            WALKING.signal.store(0, Ordering::Relaxed);
            note.write_maps();
        }
    }
    Errno::set_raw(errno);
    hand_on(signal, info, context, in_front);
}

/// Returns the note of this process, if it has one.
fn note() -> Option<&'static CrashNote> {
    // Acquire: "note mapped", pairs with `note_crashes`.
    let note = NOTE.load(Ordering::Acquire);
    // SAFETY: null, or the address of a note that lives as long as the process.
    unsafe { note.as_ref() }
}

/// Waits until this thread may record its crash. Returns false if this thread is already recording a crash, which means
/// that the handler itself has crashed.
///
/// # Safety
/// `context` is that of a signal handler that runs.
#[inline(never)]
unsafe fn enter(this: u32, context: *const c_void) -> bool {
    let mut expected = 0;
    loop {
        // Acquire: "crash over", pairs with the store in `hand_on`.
        let set = CRASHED.compare_exchange(expected, this, Ordering::Acquire, Ordering::Acquire);
        expected = match set {
            Ok(_) => return true,
            // SAFETY: the caller guarantees it.
            Err(first) if first == this && unsafe { is_in_handler(context) } => return false,
            // A handler of the program has left an earlier call of this handler by `longjmp`.
            Err(first) if first == this => return true,
            Err(0) => 0,
            // Another thread has crashed at the same time. After recording its crash, that thread ends the process, or
            // continues if a handler of the program has handled the crash. If it does neither, the program's handler
            // has left by `longjmp`.
            Err(first) => match wait_for(first) {
                true => 0,
                false => first,
            },
        };
    }
}

/// Returns whether the signal has interrupted the handler itself, judged by the stack pointer: the handler and the code
/// that it calls use the same stack.
///
/// # Safety
/// `context` is that of a signal handler that runs.
unsafe fn is_in_handler(context: *const c_void) -> bool {
    // SAFETY: the caller guarantees it.
    let stack = unsafe { Registers::read(context) }.stack;
    let below = HANDLER_STACK.load(Ordering::Relaxed).saturating_sub(stack);
    let above = stack.saturating_sub(HANDLER_STACK.load(Ordering::Relaxed));
    below < DEEPEST_HANDLER && above < 4096
}

/// Called if the handler itself has crashed: ends the process by the signal of the first crash.
#[inline(never)]
fn end_again(signal: c_int, in_front: bool) {
    let walked = WALKING.signal.swap(0, Ordering::Relaxed);
    if walked == 0 {
        // A handler of the program has crashed, or has raised the signal again to end the process.
        return end_by(signal);
    }
    // The unwinder crashed because the stack was not what it expected.
    let (info, context) = (&WALKING.info, &WALKING.context);
    let (info, context) = (
        info.load(Ordering::Relaxed),
        context.load(Ordering::Relaxed),
    );
    if let Some(note) = note() {
        let of = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        // SAFETY: the context is that of the first handler, which this one has interrupted.
        unsafe { Registers::restore(of(&note.instruction), of(&note.stack), context) };
        note.write_maps();
    }
    hand_on(walked, info, context, in_front);
    // End the process here: otherwise Linux would return to the unwinder.
    note().into_iter().for_each(|note| note.set_written(true));
    end_by(walked);
}

/// Calls the program's own handler, or ends the process by the signal. `in_front`: whether the handler of
/// [`note_crashes_first`] runs, after which a handler that `on_worker_start` has installed comes next.
#[inline(never)]
fn hand_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, in_front: bool) {
    let Some(index) = FAULTS.iter().position(|&fault| fault as c_int == signal) else {
        return end_by(signal);
    };
    let started = STARTED[index].get().filter(|_| in_front);
    let Some(own) = started.or_else(|| BEFORE[index].get()) else {
        return end_by(signal);
    };
    // SAFETY: Linux has passed both pointers to the running handler.
    let recurred = unsafe { count_recurrence(info, context) };
    if recurred >= SURVIVED {
        return end_by(signal);
    }
    HANDLER_STACK.store(fault::stack_address() as u64, Ordering::Relaxed);
    match own.handler() {
        SigHandler::SigAction(handler) => handler(signal, info, context),
        SigHandler::Handler(handler) => handler(signal),
        SigHandler::SigDfl | SigHandler::SigIgn => return end_by(signal),
    }
    // The program's handler has handled the fault, or it has restored another action, so that the fault recurs and that
    // action ends the process. In the first case the note is withdrawn, since the crash did not end the process. An
    // `abort` cannot be handled.
    let now = action_of(FAULTS[index]);
    if [
        on_crash as Handler as usize,
        on_crash_in_front as Handler as usize,
        address_of(own.handler()),
    ]
    .contains(&now)
    {
        if signal != libc::SIGABRT {
            note().into_iter().for_each(|note| note.set_written(false));
        }
        // If a program handles many faults, recording each of them would take too long.
        if HANDLED.fetch_add(1, Ordering::Relaxed) >= SURVIVED && recurred == 0 {
            // SAFETY: this is the action that the program had installed itself.
            let _ = unsafe { sigaction(FAULTS[index], own) };
        }
    }
    // Release: "crash over", pairs with `on_crash`.
    CRASHED.store(0, Ordering::Release);
}

/// Returns how many times the same instruction has failed before, at the same address and without another fault in
/// between. If the program's handler returns without any effect, as the one of Python's `faulthandler` does once it is
/// disabled, the instruction would fail again without end.
///
/// # Safety
/// Both pointers are those that Linux has passed to the handler that runs.
unsafe fn count_recurrence(info: *const libc::siginfo_t, context: *const c_void) -> u32 {
    // SAFETY: the caller guarantees it.
    let (code, address, registers) = unsafe {
        let address = (*info).si_addr().addr() as u64;
        ((*info).si_code, address, Registers::read(context))
    };
    // The signal was raised by a call, which returns after the handler, so the signal does not recur.
    if code <= 0 {
        return 0;
    }
    let fault = [registers.instruction, registers.stack, address];
    let mut is_same = true;
    for (last, now) in LAST_FAULT.iter().zip(fault) {
        is_same &= last.swap(now, Ordering::Relaxed) == now;
    }
    if !is_same {
        RECURRED.store(0, Ordering::Relaxed);
        return 0;
    }
    RECURRED.fetch_add(1, Ordering::Relaxed) + 1
}

/// Ends the process by the signal's default action.
fn end_by(signal: c_int) {
    // SAFETY: async-signal-safe calls; SIG_DFL is no function.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Returns the address of the handler that is installed for the signal.
fn action_of(signal: Signal) -> usize {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: writes the action if it succeeds.
    unsafe {
        match libc::sigaction(signal as c_int, ptr::null(), action.as_mut_ptr()) {
            0 => action.assume_init().sa_sigaction,
            _ => libc::SIG_DFL,
        }
    }
}

fn address_of(handler: SigHandler) -> usize {
    match handler {
        SigHandler::SigAction(handler) => handler as usize,
        SigHandler::Handler(handler) => handler as usize,
        SigHandler::SigDfl => libc::SIG_DFL,
        SigHandler::SigIgn => libc::SIG_IGN,
    }
}

/// Waits up to five seconds for the thread `first`, which is handling a crash. Returns true if that thread continues,
/// and false if the time is over. If the thread ends the process, this function does not return.
#[inline(never)]
fn wait_for(first: u32) -> bool {
    let pause = libc::timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    for _ in 0..500 {
        // SAFETY: reads the pause. The remaining time is not requested.
        unsafe { libc::nanosleep(&raw const pause, ptr::null_mut()) };
        if CRASHED.load(Ordering::Relaxed) != first {
            return true;
        }
    }
    false
}

/// Describes the crash of this thread.
///
/// # Safety
/// Both pointers are those that Linux has passed to the handler that runs.
#[inline(never)]
unsafe fn describe(
    signal: c_int,
    thread: u32,
    info: *const libc::siginfo_t,
    context: *const c_void,
) -> NotedCrash {
    // SAFETY: the caller guarantees it.
    let (code, registers) = unsafe { ((*info).si_code, Registers::read(context)) };
    let address = has_address(signal, code).then(|| {
        // SAFETY: the caller guarantees it, and the siginfo of such a signal has an address.
        unsafe { (*info).si_addr() }.addr()
    });
    let locate = LOCATE.get();
    NotedCrash {
        signal,
        code,
        access: address.and(registers.access),
        located: address.and_then(|address| locate.and_then(|locate| locate(address))),
        address: address.map(|address| address as u64),
        instruction: registers.instruction,
        stack: registers.stack,
        stack_start: fault::known_thread(thread).map(|thread| thread.stack_start),
        frames: Vec::new(),
        omitted: (0, 0),
        files: Vec::new(),
    }
}
