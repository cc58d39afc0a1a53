//! What a crashing process records of its end: the signal, the address, and where it was.
//!
//! The handler runs on the thread that crashed, on a separate stack, and makes async-signal-safe calls only. What it
//! records lies in memory that outlives the process. Then it calls the handler that the program had installed, or ends
//! the process by the same signal, so the exit and a core dump are what they would be without it.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ops::ControlFlow;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::code_maps::{self, CodeMap};
use super::error::{Error, Result};
use super::fault;
use super::fork::OwnerProcess;
use super::inject::allowed;
use super::unwind;

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
/// `si_code`: Linux does not know the address.
const SI_KERNEL: i32 = 0x80;
/// How far below the handler's frame its stack may reach.
const DEEPEST_HANDLER: u64 = 1 << 20;
/// How often a handler of the program may handle a fault and let the process continue before this one steps aside; or,
/// if it was the same fault each time, before the process ends.
const SURVIVED: u32 = 8;

/// The last note of a process.
///
/// Writer: the process, from its signal handler. Reader: the supervisor, after the exit is confirmed, to which every
/// field is the claim of a possibly hostile process.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct CrashNote {
    /// Not 0: the fields below are written.
    is_written: AtomicU32,
    signal: AtomicU32,
    /// `si_code`.
    code: AtomicU32,
    /// [`Access`] as a number; 0: unknown.
    access: AtomicU32,
    /// [`Area`] as a number; 0: none.
    area: AtomicU32,
    region: AtomicU32,
    /// Byte in the area.
    offset: AtomicU64,
    /// The address that could not be accessed.
    address: AtomicU64,
    /// Instruction pointer, stack pointer, and where the thread's stack began (0: unknown).
    instruction: AtomicU64,
    stack: AtomicU64,
    stack_start: AtomicU64,
    /// The number of frames of the thread.
    depth: AtomicU64,
    /// The instruction pointers of the [`INNERMOST`] frames; those of the rest by frame number mod [`OUTERMOST`].
    innermost: [AtomicU64; INNERMOST],
    outermost: [AtomicU64; OUTERMOST],
    /// Bytes of `maps`.
    maps_len: AtomicU32,
    /// Lines of `/proc/self/maps` with code of these frames.
    maps: [AtomicU8; MAPS],
}

/// Frames of which the instruction pointers are noted: the innermost, and of a deep stack the outermost as well.
const INNERMOST: usize = 40;
const OUTERMOST: usize = 24;
/// Max frames that are counted: a stack overflow may have many.
const MAX_DEPTH: u64 = 1 << 18;
/// Frames of the handler and of Linux after which those of the thread must have begun.
const HANDLER_FRAMES: u32 = 64;
/// Max bytes of lines of maps.
const MAPS: usize = 7168;

const _: () = assert!(size_of::<CrashNote>() == 8192);

/// How memory was accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryAccess {
    /// It was read.
    Read,
    /// It was written.
    Write,
    /// It was executed.
    Execute,
}

/// A part of shared memory as mapped in the crashed process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// A region of the arena.
    Region,
    /// The second map of a region, through which arrays are lent.
    Lent,
    /// The control segment.
    Control,
}

/// A place in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// What it is in.
    pub area: Area,
    /// Number of the region; 0 for the control segment.
    pub region: u16,
    /// Byte in it.
    pub offset: u64,
}

/// Content of a [`CrashNote`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedCrash {
    /// Number of the signal.
    pub signal: i32,
    /// Its `si_code`.
    pub code: i32,
    /// How memory was accessed, if known.
    pub access: Option<MemoryAccess>,
    /// Where the address is in shared memory.
    pub located: Option<Located>,
    /// The address that could not be accessed, if the signal is about one.
    pub address: Option<u64>,
    /// Address of the instruction.
    pub instruction: u64,
    /// Stack pointer.
    pub stack: u64,
    /// Where the thread's stack began, if known.
    pub stack_start: Option<u64>,
    /// Instruction pointers of the frames, the innermost first. All but the first are return addresses.
    pub frames: Vec<u64>,
    /// The number of frames that are left out, and after how many of `frames`.
    pub omitted: (usize, u64),
    /// The files with the code of these frames.
    pub files: Vec<CodeMap>,
}

impl CrashNote {
    /// An empty note.
    #[cfg(any(test, arenite_loom))]
    pub(crate) fn new() -> CrashNote {
        use std::array::from_fn;
        let (a32, a64) = (|| AtomicU32::new(0), || AtomicU64::new(0));
        CrashNote {
            is_written: a32(),
            signal: a32(),
            code: a32(),
            access: a32(),
            area: a32(),
            region: a32(),
            offset: a64(),
            address: a64(),
            instruction: a64(),
            stack: a64(),
            stack_start: a64(),
            depth: a64(),
            innermost: from_fn(|_| a64()),
            outermost: from_fn(|_| a64()),
            maps_len: a32(),
            maps: from_fn(|_| AtomicU8::new(0)),
        }
    }

    /// Empties the note, for the next process that writes it.
    pub fn clear(&self) {
        self.is_written.store(0, Ordering::Relaxed);
        self.depth.store(0, Ordering::Relaxed);
        self.maps_len.store(0, Ordering::Relaxed);
    }

    /// Retracts the note, if the process continues, or restores it.
    fn set_written(&self, is_written: bool) {
        // Release: "crash noted", pairs with `read`.
        self.is_written.store(is_written.into(), Ordering::Release);
    }

    /// The content, if the process crashed. Accepts any content.
    pub fn read(&self) -> Option<NotedCrash> {
        // Acquire: "crash noted", pairs with `write`.
        if self.is_written.load(Ordering::Acquire) == 0 {
            return None;
        }
        let of = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let signal = self.signal.load(Ordering::Relaxed).cast_signed();
        let code = self.code.load(Ordering::Relaxed).cast_signed();
        let area = match self.area.load(Ordering::Relaxed) {
            1 => Some(Area::Region),
            2 => Some(Area::Lent),
            3 => Some(Area::Control),
            _ => None,
        };
        let region = u16::try_from(self.region.load(Ordering::Relaxed)).ok();
        let offset = of(&self.offset);
        Some(NotedCrash {
            signal,
            code,
            access: match self.access.load(Ordering::Relaxed) {
                1 => Some(MemoryAccess::Read),
                2 => Some(MemoryAccess::Write),
                3 => Some(MemoryAccess::Execute),
                _ => None,
            },
            located: area.zip(region).map(|(area, region)| Located {
                area,
                region,
                offset,
            }),
            address: has_address(signal, code).then(|| of(&self.address)),
            instruction: of(&self.instruction),
            stack: of(&self.stack),
            stack_start: Some(of(&self.stack_start)).filter(|&start| start > 0),
            frames: self.frames().collect(),
            omitted: (INNERMOST, self.omitted()),
            files: self.files(),
        })
    }

    /// Acquire: "frames noted", pairs with `write_frames`.
    fn depth(&self) -> u64 {
        self.depth.load(Ordering::Acquire).min(MAX_DEPTH)
    }

    fn omitted(&self) -> u64 {
        self.depth().saturating_sub((INNERMOST + OUTERMOST) as u64)
    }

    /// The instruction pointers that are noted.
    fn frames(&self) -> impl Iterator<Item = u64> {
        let depth = self.depth();
        let innermost = (0..depth)
            .take(INNERMOST)
            .map(|n| &self.innermost[n as usize]);
        let rest = depth.saturating_sub(INNERMOST as u64);
        let outermost = rest.saturating_sub(OUTERMOST as u64)..rest;
        let outermost = outermost.map(|n| &self.outermost[(n % OUTERMOST as u64) as usize]);
        let both = innermost.chain(outermost);
        both.map(|cell| cell.load(Ordering::Relaxed))
    }

    fn files(&self) -> Vec<CodeMap> {
        // Acquire: "maps noted", pairs with `write_maps`.
        let len = self.maps_len.load(Ordering::Acquire) as usize;
        let text = self.maps[..len.min(MAPS)].iter();
        let text: Vec<u8> = text.map(|byte| byte.load(Ordering::Relaxed)).collect();
        code_maps::parse(&text)
    }

    /// Notes the frames of this thread from `instruction` on, of which the first is found at `from`. If the walk crashes,
    /// those up to there are noted.
    #[inline(never)]
    fn write_frames(&self, instruction: u64, from: u64) {
        let set = |number: u64, instruction: u64| {
            let cell = match number.checked_sub(INNERMOST as u64) {
                None => &self.innermost[number as usize],
                Some(rest) => &self.outermost[(rest % OUTERMOST as u64) as usize],
            };
            cell.store(instruction, Ordering::Relaxed);
            // Release: "frames noted", pairs with `depth`.
            self.depth.store(number + 1, Ordering::Release);
        };
        set(0, instruction);
        let mut depth = 1;
        let mut passed = 0;
        let mut has_begun = false;
        let mut last = (0, 0);
        unwind::walk(|at, stack| {
            let at = at as u64;
            if !has_begun {
                passed += 1;
                has_begun = at == from;
                if !has_begun && passed == HANDLER_FRAMES {
                    return ControlFlow::Break(());
                }
                if !has_begun || from == instruction {
                    return ControlFlow::Continue(());
                }
            }
            // An overwritten stack may have a frame that is its own caller.
            if at == 0 || depth == MAX_DEPTH || (at, stack) == last {
                return ControlFlow::Break(());
            }
            last = (at, stack);
            set(depth, at);
            depth += 1;
            ControlFlow::Continue(())
        });
    }

    /// Notes where the code of the frames is.
    #[inline(never)]
    fn write_maps(&self) {
        let mut len = 0;
        // SAFETY: only the thread that has set `CRASHED` is here.
        let buffer = unsafe { &mut *LINES.0.get() };
        code_maps::for_each_line(buffer, |line| {
            let Some((start, end)) = code_maps::addresses(line) else {
                return;
            };
            // A return address may be the first after the code.
            let is_wanted = |at: u64| (start..=end).contains(&at);
            if len + line.len() >= MAPS || !self.frames().any(is_wanted) {
                return;
            }
            for &byte in line.iter().chain(b"\n") {
                self.maps[len].store(byte, Ordering::Relaxed);
                len += 1;
            }
        });
        // Release: "maps noted", pairs with `files`.
        self.maps_len.store(len as u32, Ordering::Release);
    }

    #[inline(never)]
    fn write(&self, crash: &NotedCrash) {
        self.is_written.store(0, Ordering::Relaxed);
        self.depth.store(0, Ordering::Relaxed);
        self.maps_len.store(0, Ordering::Relaxed);
        let set = |cell: &AtomicU64, value: u64| cell.store(value, Ordering::Relaxed);
        let set_small = |cell: &AtomicU32, value: u32| cell.store(value, Ordering::Relaxed);
        set_small(&self.signal, crash.signal.cast_unsigned());
        set_small(&self.code, crash.code.cast_unsigned());
        let access = crash.access.map_or(0, |access| access as u32 + 1);
        set_small(&self.access, access);
        let area = crash.located.map_or(0, |located| located.area as u32 + 1);
        set_small(&self.area, area);
        let (region, offset) = crash
            .located
            .map_or((0, 0), |located| (located.region.into(), located.offset));
        set_small(&self.region, region);
        set(&self.offset, offset);
        set(&self.address, crash.address.unwrap_or(0));
        set(&self.instruction, crash.instruction);
        set(&self.stack, crash.stack);
        set(&self.stack_start, crash.stack_start.unwrap_or(0));
        self.set_written(true);
    }
}

/// Whether such a signal comes with an address of memory.
fn has_address(signal: i32, code: i32) -> bool {
    matches!(signal, libc::SIGSEGV | libc::SIGBUS) && code > 0 && code != SI_KERNEL
}

/// A buffer that is not on the small stack of a signal handler. Used by the thread that has set [`CRASHED`].
struct Lines(UnsafeCell<code_maps::Buffer>);

// SAFETY: only one thread uses it: see `CRASHED`.
unsafe impl Sync for Lines {}

static LINES: Lines = Lines(UnsafeCell::new([0; _]));

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

/// What the registers of a crashed thread say.
#[derive(Clone, Copy)]
struct Registers {
    instruction: u64,
    stack: u64,
    access: Option<MemoryAccess>,
}

impl Registers {
    /// # Safety
    /// `context` is that of a signal handler that runs.
    #[cfg(target_arch = "x86_64")]
    unsafe fn read(context: *const c_void) -> Self {
        /// The exception of an access to memory.
        const PAGE_FAULT: i64 = 14;
        // SAFETY: the caller's promise.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let error = registers[libc::REG_ERR as usize];
        Self {
            instruction: registers[libc::REG_RIP as usize].cast_unsigned(),
            stack: registers[libc::REG_RSP as usize].cast_unsigned(),
            access: (registers[libc::REG_TRAPNO as usize] == PAGE_FAULT).then_some(
                if error & 16 != 0 {
                    MemoryAccess::Execute
                } else if error & 2 != 0 {
                    MemoryAccess::Write
                } else {
                    MemoryAccess::Read
                },
            ),
        }
    }

    /// After a call of an address without code, which no unwinder knows: lets the context be that of the caller. Returns
    /// the return address.
    ///
    /// # Safety
    /// `context` is that of a signal handler that runs.
    #[cfg(target_arch = "x86_64")]
    unsafe fn step_out_of_call(crash: &NotedCrash, context: *mut c_void) -> Option<u64> {
        if crash.access != Some(MemoryAccess::Execute) {
            return None;
        }
        // SAFETY: the caller's promise. A call has just written the return address to the stack. If it was a jump with a
        // wrong stack pointer, this crashes, and the process ends with what is noted.
        unsafe {
            let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
            let caller = (crash.stack as *const u64).read_volatile();
            registers[libc::REG_RIP as usize] = caller.cast_signed();
            registers[libc::REG_RSP as usize] += 8;
            Some(caller)
        }
    }

    /// Ends the effect of [`step_out_of_call`](Self::step_out_of_call), if it had any.
    ///
    /// # Safety
    /// `context` is that of a signal handler that runs; the values are those that it had.
    #[cfg(target_arch = "x86_64")]
    unsafe fn restore(instruction: u64, stack: u64, context: *mut c_void) {
        // SAFETY: the caller's promise.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        registers[libc::REG_RIP as usize] = instruction.cast_signed();
        registers[libc::REG_RSP as usize] = stack.cast_signed();
    }

    /// As on x86_64; the return address is in a register.
    ///
    /// # Safety
    /// `context` is that of a signal handler that runs.
    #[cfg(target_arch = "aarch64")]
    unsafe fn step_out_of_call(crash: &NotedCrash, context: *mut c_void) -> Option<u64> {
        if crash.access != Some(MemoryAccess::Execute) {
            return None;
        }
        // SAFETY: the caller's promise.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
        registers.pc = registers.regs[30];
        Some(registers.pc)
    }

    /// Ends the effect of [`step_out_of_call`](Self::step_out_of_call), if it had any.
    ///
    /// # Safety
    /// `context` is that of a signal handler that runs; the values are those that it had.
    #[cfg(target_arch = "aarch64")]
    unsafe fn restore(instruction: u64, _stack: u64, context: *mut c_void) {
        // SAFETY: the caller's promise.
        unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.pc = instruction };
    }

    /// # Safety
    /// `context` is that of a signal handler that runs.
    #[cfg(target_arch = "aarch64")]
    unsafe fn read(context: *const c_void) -> Self {
        /// Where the records are from the registers on.
        const RECORDS: usize =
            (std::mem::offset_of!(libc::mcontext_t, pstate) + 8).next_multiple_of(16);
        const _: () = assert!(size_of::<libc::mcontext_t>() >= RECORDS + 4096);
        // SAFETY: the caller's promise. Linux has written 4096 bytes of records.
        let (registers, records) = unsafe {
            let registers = &raw const (*context.cast::<libc::ucontext_t>()).uc_mcontext;
            let records = registers.byte_add(RECORDS).cast::<u64>();
            (&*registers, std::slice::from_raw_parts(records, 512))
        };
        let is_jump = registers.pc == registers.fault_address;
        let access = access_by_syndrome(records);
        Self {
            instruction: registers.pc,
            stack: registers.sp,
            access: access.or_else(|| is_jump.then_some(MemoryAccess::Execute)),
        }
    }
}

/// How memory was accessed, by the exception syndrome: one of the records that Linux writes behind the registers on
/// aarch64.
#[cfg(any(target_arch = "aarch64", test))]
fn access_by_syndrome(mut records: &[u64]) -> Option<MemoryAccess> {
    /// `ESR_MAGIC`.
    const SYNDROME: u32 = 0x4553_5201;
    /// Set if a data abort was one of a write.
    const IS_WRITE: u64 = 1 << 6;
    loop {
        // The kind of the record, and its length in bytes.
        let &head = records.first()?;
        let (kind, len) = (head as u32, (head >> 32) as usize);
        if kind == SYNDROME {
            let &syndrome = records.get(1)?;
            return match (syndrome >> 26) & 0x3f {
                // Instruction aborts, and data aborts, of this and a lower exception level.
                0x20 | 0x21 => Some(MemoryAccess::Execute),
                0x24 | 0x25 if syndrome & IS_WRITE != 0 => Some(MemoryAccess::Write),
                0x24 | 0x25 => Some(MemoryAccess::Read),
                _ => None,
            };
        }
        // Record 0 is the last.
        if kind == 0 || len < 8 {
            return None;
        }
        records = records.get(len / 8..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_as_it_was_written() {
        let note = CrashNote::new();
        assert_eq!(note.read(), None);
        let mut crash = NotedCrash {
            signal: libc::SIGSEGV,
            code: 2,
            access: Some(MemoryAccess::Write),
            located: Some(Located {
                area: Area::Lent,
                region: 3,
                offset: 1 << 40,
            }),
            address: Some(0x7000_0000_0010),
            instruction: 1,
            stack: 2,
            stack_start: Some(3),
            frames: Vec::new(),
            omitted: (INNERMOST, 0),
            files: Vec::new(),
        };
        note.write(&crash);
        assert_eq!(note.read(), Some(crash.clone()));
        // A general protection fault has no address.
        crash.code = SI_KERNEL;
        note.write(&crash);
        assert_eq!(note.read().and_then(|crash| crash.address), None);
        note.clear();
        assert_eq!(note.read(), None);
    }

    #[test]
    fn a_syndrome_of_aarch64_says_how_memory_was_accessed() {
        // Registers of floating-point numbers come first.
        let records = |syndrome: u64| {
            let mut records = vec![0; 512];
            records[0] = 0x4650_8001 | 528 << 32;
            records[66] = 0x4553_5201 | 16 << 32;
            records[67] = syndrome;
            records
        };
        for (syndrome, access) in [
            (0x9200_0046, Some(MemoryAccess::Write)),
            (0x9200_0006, Some(MemoryAccess::Read)),
            (0x8200_0006, Some(MemoryAccess::Execute)),
            (0x0200_0000, None),
        ] {
            assert_eq!(access_by_syndrome(&records(syndrome)), access);
        }
        let endless = [7; 3];
        let too_long = [7 | 4096 << 32, 0];
        for records in [&[0; 512][..], &[], &endless, &too_long, &records(0)[..67]] {
            assert_eq!(access_by_syndrome(records), None);
        }
    }

    /// Whatever a hostile process has written, the reader stays in bounds.
    #[test]
    fn any_content_is_read() {
        let note = CrashNote::new();
        note.is_written.store(7, Ordering::Relaxed);
        for depth in [0, 1, 39, 40, 41, 64, 65, 1000, u64::MAX] {
            note.depth.store(depth, Ordering::Relaxed);
            note.maps_len.store(u32::MAX, Ordering::Relaxed);
            note.maps
                .iter()
                .for_each(|byte| byte.store(b'-', Ordering::Relaxed));
            let read = note.read().expect("it is written");
            assert_eq!(read.frames.len() as u64, depth.min(64));
            assert_eq!(read.omitted.1, depth.min(MAX_DEPTH).saturating_sub(64));
        }
    }
}
