//! The note of a crash, and its content.

use std::cell::UnsafeCell;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::super::code_maps::{self, CodeMap};
use super::super::unwind;

/// The value of `si_code` if Linux does not know the address.
const SI_KERNEL: i32 = 0x80;

/// The last note of a process.
///
/// Writer: the process, from its signal handler. Reader: the supervisor, after the exit is confirmed. The process may
/// be hostile, so no field can be trusted.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct CrashNote {
    /// Nonzero if the fields below are written.
    is_written: AtomicU32,
    signal: AtomicU32,
    /// `si_code`.
    code: AtomicU32,
    /// [`CrashedAccess`] as a number; 0 if unknown.
    access: AtomicU32,
    /// [`Area`] as a number; 0 if the address is in no area.
    area: AtomicU32,
    region: AtomicU32,
    /// The offset of the byte in the area.
    offset: AtomicU64,
    /// The memory address whose access failed.
    address: AtomicU64,
    /// The instruction pointer.
    pub(super) instruction: AtomicU64,
    /// The stack pointer.
    pub(super) stack: AtomicU64,
    /// The start of the thread's stack; 0 if unknown.
    stack_start: AtomicU64,
    /// The number of frames on the thread's stack.
    depth: AtomicU64,
    /// The instruction pointers of the [`INNERMOST`] innermost frames. Later frames are in `outermost`, at index (frame
    /// number - [`INNERMOST`]) mod [`OUTERMOST`], so the last of them remain.
    innermost: [AtomicU64; INNERMOST],
    outermost: [AtomicU64; OUTERMOST],
    /// The number of bytes in `maps`.
    maps_len: AtomicU32,
    /// Lines of `/proc/self/maps` that map the code of these frames.
    maps: [AtomicU8; MAPS],
}

/// The number of innermost frames that are recorded.
const INNERMOST: usize = 40;
/// The number of outermost frames that are recorded too if the stack is deep.
const OUTERMOST: usize = 24;
/// Max number of frames that are counted: after a stack overflow there may be many more.
const MAX_DEPTH: u64 = 1 << 18;
/// Max number of frames of the handler and of Linux' signal frame that the walk passes before it reaches the crashed
/// code.
const HANDLER_FRAMES: u32 = 64;
/// Max length in bytes of the recorded lines.
const MAPS: usize = 7168;

const _: () = assert!(size_of::<CrashNote>() == 8192);

/// How memory was accessed when a process crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashedAccess {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A call or a jump to the address.
    Execute,
}

impl CrashedAccess {
    /// Returns a word for programs in other languages: `read`, `write` or `execute`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "execute",
        }
    }
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

/// A location in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The part of shared memory.
    pub area: Area,
    /// The number of the region; 0 for the control segment.
    pub region: u16,
    /// The byte in the region.
    pub offset: u64,
}

/// Content of a [`CrashNote`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedCrash {
    /// Number of the signal.
    pub signal: i32,
    /// The signal's `si_code`.
    pub code: i32,
    /// How memory was accessed, if known.
    pub access: Option<CrashedAccess>,
    /// The location of `address` in shared memory, if the address is in shared memory.
    pub located: Option<Located>,
    /// The address whose access failed, if the signal has one.
    pub address: Option<u64>,
    /// The address of the instruction.
    pub instruction: u64,
    /// Stack pointer.
    pub stack: u64,
    /// The start of the thread's stack, if known.
    pub stack_start: Option<u64>,
    /// Instruction pointers of the frames, the innermost first. All but the first are return addresses.
    pub frames: Vec<u64>,
    /// The index in `frames` at which frames are left out, and how many are left out.
    pub omitted: (usize, u64),
    /// The files that contain the code of these frames.
    pub files: Vec<CodeMap>,
}

impl NotedCrash {
    /// Replaces the files that the process has named by `code`, which contains all files that the process could map.
    pub fn believe_files(&mut self, code: &[CodeMap]) {
        let has_frame = |map: &&CodeMap| self.frames.iter().any(|&at| map.may_return_to(at));
        self.files = code.iter().filter(has_frame).cloned().collect();
    }
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

    /// Marks the note as written; or as not written, if the process continues.
    pub(super) fn set_written(&self, is_written: bool) {
        // Release: "crash noted", pairs with `read`.
        self.is_written.store(is_written.into(), Ordering::Release);
    }

    /// Returns the content of the note, if the process crashed. Accepts any content.
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
                1 => Some(CrashedAccess::Read),
                2 => Some(CrashedAccess::Write),
                3 => Some(CrashedAccess::Execute),
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

    /// Returns the number of frames. Acquire: "frames noted", pairs with `write_frames`.
    fn depth(&self) -> u64 {
        self.depth.load(Ordering::Acquire).min(MAX_DEPTH)
    }

    fn omitted(&self) -> u64 {
        self.depth().saturating_sub((INNERMOST + OUTERMOST) as u64)
    }

    /// Returns the instruction pointers that are recorded.
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

    /// Records the frames of this thread: `instruction`, then the frames that the walk finds after `from`. `from` is
    /// `instruction` itself, or the return address if `step_out_of_call` has changed the context. If the walk crashes,
    /// the frames found until then stay recorded.
    #[inline(never)]
    pub(super) fn write_frames(&self, instruction: u64, from: u64) {
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
            // In an overwritten stack a frame may be its own caller.
            if at == 0 || depth == MAX_DEPTH || (at, stack) == last {
                return ControlFlow::Break(());
            }
            last = (at, stack);
            set(depth, at);
            depth += 1;
            ControlFlow::Continue(())
        });
    }

    /// Records the files that contain the code of the frames.
    #[inline(never)]
    pub(super) fn write_maps(&self) {
        let mut len = 0;
        // SAFETY: only the thread that records its crash runs this: see `enter`.
        let buffer = unsafe { &mut *LINES.0.get() };
        code_maps::for_each_line(buffer, |line| {
            let Some((start, end)) = code_maps::addresses(line) else {
                return;
            };
            // A return address may be the first address after the code.
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
    pub(super) fn write(&self, crash: &NotedCrash) {
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

/// Returns whether a signal with this `si_code` comes with an address of memory.
pub(super) fn has_address(signal: i32, code: i32) -> bool {
    matches!(signal, libc::SIGSEGV | libc::SIGBUS) && code > 0 && code != SI_KERNEL
}

/// A buffer that is not on the small stack of a signal handler. Used by the thread that records its crash.
struct Lines(UnsafeCell<code_maps::Buffer>);

// SAFETY: only one thread at a time uses it: see `enter`.
unsafe impl Sync for Lines {}

static LINES: Lines = Lines(UnsafeCell::new([0; _]));

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
            access: Some(CrashedAccess::Write),
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

    /// The reader stays in bounds for any content that a hostile process may write.
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
