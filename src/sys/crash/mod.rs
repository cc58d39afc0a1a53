//! What a crashing process records of its end: the signal, the address, and where it was.
//!
//! The handler runs on the thread that crashed, on a separate stack, and makes async-signal-safe calls only. What it
//! records lies in memory that outlives the process. Then it calls the handler that the program had installed, or ends
//! the process by the same signal, so the exit and a core dump are what they would be without it.

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
use note::has_address;
pub use note::{Area, CrashNote, Located, MemoryAccess, NotedCrash};
use registers::Registers;

/// Signals that a thread raises by its own actions and that end the process.
const FAULTS: [Signal; 6] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    // What some compilers emit where code is unreachable, on aarch64.
    Signal::SIGTRAP,
];

/// Bytes of the alternate signal stack, used because the thread's own stack may have overflowed.
const STACK: usize = 64 * 1024;
/// How far below the handler's frame its stack may reach.
const DEEPEST_HANDLER: u64 = 1 << 20;
/// How often a handler of the program may handle a fault and let the process continue before this one steps aside; or,
/// if it was the same fault each time, before the process ends.
const SURVIVED: u32 = 8;

/// The note of this process.
static NOTE: AtomicPtr<CrashNote> = AtomicPtr::new(ptr::null_mut());
/// The process that writes it. A copy made by the bare system call finds it unmapped.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Finds an address in shared memory.
static LOCATE: OnceLock<fn(usize) -> Option<Located>> = OnceLock::new();
/// Handlers that the program had installed before this process became a worker, and later those of its
/// `on_worker_start`.
static BEFORE: [OnceLock<SigAction>; FAULTS.len()] = [const { OnceLock::new() }; FAULTS.len()];
static STARTED: [OnceLock<SigAction>; FAULTS.len()] = [const { OnceLock::new() }; FAULTS.len()];
/// The thread that is in the handler, 0 for none.
static CRASHED: AtomicU32 = AtomicU32::new(0);
/// Where its stack is while a handler of the program runs, or the walk.
static HANDLER_STACK: AtomicU64 = AtomicU64::new(0);
/// What Linux has passed to the handler that walks the stack. The signal is 0 for none.
static WALKING: Walking = Walking {
    signal: AtomicI32::new(0),
    info: AtomicPtr::new(ptr::null_mut()),
    context: AtomicPtr::new(ptr::null_mut()),
};
/// Crashes that a handler of the program has handled.
static HANDLED: AtomicU32 = AtomicU32::new(0);
/// The last fault that was handed to a handler of the program, and how often it has recurred since.
static LAST_FAULT: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
static RECURRED: AtomicU32 = AtomicU32::new(0);

struct Walking {
    signal: AtomicI32,
    info: AtomicPtr<libc::siginfo_t>,
    context: AtomicPtr<c_void>,
}

/// Makes this process record a crash in `note`, in which `locate` finds addresses in shared memory. It must be
/// async-signal-safe. Signals from outside record nothing.
pub fn note_crashes(note: &'static CrashNote, locate: fn(usize) -> Option<Located>) -> Result<()> {
    // Registers the fork handler, which makes copies of this process forget the note.
    let _ = OwnerProcess::current();
    let _ = LOCATE.set(locate);
    PROCESS.store(std::process::id(), Ordering::Relaxed);
    // Release: "note mapped", pairs with `on_crash`.
    NOTE.store(ptr::from_ref(note).cast_mut(), Ordering::Release);
    install(on_crash, &BEFORE)
}

/// Runs in front of the handlers that the program has installed since [`note_crashes`], and calls them afterwards.
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
            // The program continues after this signal.
            SigHandler::SigIgn => drop(set(&found)?),
            SigHandler::SigDfl => {}
            SigHandler::SigAction(handler) if ptr::fn_addr_eq(handler, on_crash as Handler) => {}
            SigHandler::SigAction(_) | SigHandler::Handler(_) => drop(before.set(found)),
        }
    }
    Ok(())
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// Gives this thread an alternate stack for its fault signals. For threads that live as long as their process: the
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

/// Drops the reference to the note, which is not mapped in a forked copy.
pub(super) fn forget_note() {
    NOTE.store(ptr::null_mut(), Ordering::Relaxed);
}

/// The handler from the start on. A program that installs one of its own later finds it, and restores it when it removes
/// its own.
extern "C" fn on_crash(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    crashed(signal, info, context, false);
}

/// The handler in front of those that the program has installed.
extern "C" fn on_crash_in_front(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    crashed(signal, info, context, true);
}

/// What it calls is not inlined: the alternate stack of a thread that the kernel has started is as small as 8 KiB, half of
/// which the signal's frame takes, and the unwinder needs the rest.
fn crashed(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, in_front: bool) {
    let errno = Errno::last_raw();
    // SAFETY: Linux passes a valid siginfo to a handler installed with SA_SIGINFO; for a signal sent by a thread it
    // holds the sender's process id. `getpid` takes nothing.
    let (code, is_own, process) = unsafe {
        let code = (*info).si_code;
        let process = libc::getpid();
        // Above 0: sent by Linux, for what this thread did.
        let raised = code == libc::SI_TKILL && (*info).si_pid() == process;
        (code, code > 0 || raised, process.cast_unsigned())
    };
    let this = fault::thread_id();
    // SAFETY: Linux has passed the context.
    if !unsafe { enter(this, context) } {
        return end_again(signal, in_front);
    }
    if is_own && process == PROCESS.load(Ordering::Relaxed) {
        fault::note_end();
        if signal == libc::SIGABRT && code == libc::SI_TKILL {
            super::abort::note_abort(errno);
        }
        if let Some(note) = note() {
            // SAFETY: Linux passes both, for the time of this call.
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

/// The note of this process, if it has one.
fn note() -> Option<&'static CrashNote> {
    // Acquire: "note mapped", pairs with `note_crashes`.
    let note = NOTE.load(Ordering::Acquire);
    // SAFETY: null, or the address of a note that lives as long as the process.
    unsafe { note.as_ref() }
}

/// Waits until this thread is the one whose crash is recorded. Returns false if it is already, and what it has crashed in
/// is the handler.
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
            // SAFETY: the caller's promise.
            Err(first) if first == this && unsafe { is_in_handler(context) } => return false,
            // A handler of the program has left with `longjmp`.
            Err(first) if first == this => return true,
            Err(0) => 0,
            // Another thread has crashed at the same time. It ends the process when it has recorded that, or goes on if
            // a handler of the program has handled it. If neither, then such a handler has left with `longjmp`.
            Err(first) => match wait_for(first) {
                true => 0,
                false => first,
            },
        };
    }
}

/// Whether the handler of this thread was interrupted, which runs on the same stack: by the stack pointer.
///
/// # Safety
/// `context` is that of a signal handler that runs.
unsafe fn is_in_handler(context: *const c_void) -> bool {
    // SAFETY: the caller's promise.
    let stack = unsafe { Registers::read(context) }.stack;
    let below = HANDLER_STACK.load(Ordering::Relaxed).saturating_sub(stack);
    let above = stack.saturating_sub(HANDLER_STACK.load(Ordering::Relaxed));
    below < DEEPEST_HANDLER && above < 4096
}

/// Ends a process that has crashed in the handler, by the first signal.
#[inline(never)]
fn end_again(signal: c_int, in_front: bool) {
    let walked = WALKING.signal.swap(0, Ordering::Relaxed);
    if walked == 0 {
        // A handler of the program has crashed, or raises the signal again to end the process.
        return end_by(signal);
    }
    // What the stack looks like was not what the unwinder took it for.
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
    // What it has returned to is the unwinder.
    note().into_iter().for_each(|note| note.set_written(true));
    end_by(walked);
}

/// Calls the program's own handler, or ends the process by the signal. `in_front`: the program has not removed the one that
/// it installed last.
#[inline(never)]
fn hand_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, in_front: bool) {
    let Some(index) = FAULTS.iter().position(|&fault| fault as c_int == signal) else {
        return end_by(signal);
    };
    let started = STARTED[index].get().filter(|_| in_front);
    let Some(own) = started.or_else(|| BEFORE[index].get()) else {
        return end_by(signal);
    };
    // SAFETY: Linux has passed both to the handler that runs.
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
    // It has handled the fault, or restored another action, for which the fault recurs. In the first case the note is of
    // a crash that was none; but `abort` does not let a handler handle it.
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
        // A program that lives with its faults must not pay for their description each time.
        if HANDLED.fetch_add(1, Ordering::Relaxed) >= SURVIVED && recurred == 0 {
            // SAFETY: this is the action that the program had installed itself.
            let _ = unsafe { sigaction(FAULTS[index], own) };
        }
    }
    // Release: "crash over", pairs with `on_crash`.
    CRASHED.store(0, Ordering::Release);
}

/// How often the same instruction has failed before, at the same address and without another fault in between: a handler
/// that returns without any effect would let it fail for ever. Python's `faulthandler` is such a handler once disabled.
///
/// # Safety
/// Both pointers are those that Linux has passed to the handler that runs.
unsafe fn count_recurrence(info: *const libc::siginfo_t, context: *const c_void) -> u32 {
    // SAFETY: the caller's promise.
    let (code, address, registers) = unsafe {
        let address = (*info).si_addr().addr() as u64;
        ((*info).si_code, address, Registers::read(context))
    };
    // Raised by a call, which has ended.
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

/// Ends the process by the signal.
fn end_by(signal: c_int) {
    // SAFETY: async-signal-safe calls; SIG_DFL is no function.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// The address of the handler that the signal has now.
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

/// Waits for a few seconds until another thread, which has crashed, has ended this process or goes on. Returns whether it
/// goes on.
#[inline(never)]
fn wait_for(first: u32) -> bool {
    let pause = libc::timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    for _ in 0..500 {
        // SAFETY: reads the pause; the rest of it is not wanted.
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
    // SAFETY: the caller's promise.
    let (code, registers) = unsafe { ((*info).si_code, Registers::read(context)) };
    let address = has_address(signal, code).then(|| {
        // SAFETY: the caller's promise; such a signal has an address.
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
