//! The crash of a worker, as part of a job's error.

use std::fmt;

use super::display::signal_name;
use super::{CrashFrame, FailedDependency, JobErrorKind, Stack, WorkerExit};
pub use crate::sys::crash::CrashedAccess;

/// How the worker of a job crashed: the signal, the address that it could not access, and what lies there.
///
/// The worker records the crash in the handler of SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE or SIGABRT. A hostile worker
/// can claim anything about it, but only this description depends on it. [`JobError::crash`](super::JobError::crash)
/// returns it, and the text of the error contains it.
///
/// ```standalone_crate
/// use arenite::engine::{CrashClass, CrashedAccess};
/// use arenite::{Array, Engine};
///
/// fn invert(pixels: &Array<u8>, mask: &Array<u8>) -> u8 {
///     let input = mask.as_ptr().cast_mut();
///     // SAFETY: none: a bug. The array belongs to the caller, and other jobs read it.
///     unsafe { input.add(2).write(!pixels[2]) };
///     mask[2]
/// }
///
/// arenite::init();
/// let engine = Engine::builder().workers(1).build()?;
/// let (pixels, mask) = (engine.from_slice(&[1_u8; 9])?, engine.from_slice(&[0_u8; 9])?);
/// let error = engine.submit(invert, (&pixels, &mask)).wait().unwrap_err();
/// let crash = error.crash().expect("SIGSEGV");
/// let class = CrashClass::Input { array: 2, offset: 2, len: 9 };
/// assert_eq!((&crash.class, crash.access), (&class, Some(CrashedAccess::Write)));
/// assert_eq!(class.name(), "input");
/// assert!(crash.what().starts_with("SIGSEGV: a write to array 2 of its arguments"));
/// assert_eq!(crash.access.map(CrashedAccess::name), Some("write"));
/// let text = "its worker was ended by SIGSEGV: a write to array 2 of its arguments (byte 2 of 9)";
/// assert!(error.to_string().contains(text), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Crash {
    /// The number of the signal.
    pub signal: i32,
    /// The signal's `si_code`, which gives its reason: see `man sigaction`.
    pub code: i32,
    /// The kind of access, or what lies at the address.
    pub class: CrashClass,
    /// The address in the worker that could not be accessed. `None` if the signal is not about an address, or if Linux
    /// does not know it.
    pub address: Option<u64>,
    /// How the memory was accessed, if known.
    pub access: Option<CrashedAccess>,
    /// The address of the instruction, in the worker.
    pub instruction: u64,
    pub(crate) stack: Stack,
}

/// The class of a crash: see [`Crash::class`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrashClass {
    /// An access through a null pointer, or at a small offset from it.
    Null,
    /// A write to an array that the job was given to read.
    Input {
        /// The number of the array among the job's arguments, from 1.
        array: usize,
        /// The offset of the byte from the start of the memory that contains the array.
        offset: u64,
        /// The length of that memory in bytes.
        len: u64,
    },
    /// A write to the copied arguments of the job, which are read-only.
    Arguments,
    /// A write to an array of the engine that is not an argument of the job: a published result, an array of another
    /// job, or an array that was lent to an earlier job.
    Published {
        /// The region of the arena: 0 is the program's, each other region belongs to one worker.
        region: u16,
        /// The offset of the byte in the region.
        offset: u64,
    },
    /// An access to memory of the arena that is in no array: freed, or never used.
    Unused {
        /// The region of the arena: 0 is the program's, each other region belongs to one worker.
        region: u16,
        /// The offset of the byte in the region.
        offset: u64,
    },
    /// A write to the records through which the engine passes jobs to its workers.
    Records,
    /// The stack of the thread was full.
    StackOverflow {
        /// The depth of the stack in bytes, if known.
        depth: Option<u64>,
    },
    /// An access to memory that is not mapped.
    Unmapped,
    /// An access for which the memory has no permission, such as a write to a constant.
    Protected,
    /// An access to an address that no program can have. Linux does not report which address.
    Impossible,
    /// An access beyond the end of a mapped file, which another process may have truncated.
    BeyondFile,
    /// A page of memory that Linux could not provide: a hardware defect, or a full file system.
    Hardware,
    /// An instruction that the processor does not know or does not permit, or a trap instruction. Compilers emit traps
    /// where code is unreachable.
    Instruction,
    /// An integer division by zero or overflow.
    Division,
    /// Another arithmetic fault.
    Arithmetic,
    /// An abort: for example after a failed allocation, or a failed check of a library.
    Abort,
    /// The process sent itself the signal.
    Raised,
    /// Any other crash.
    Unknown,
}

impl CrashClass {
    /// Returns a word for programs in other languages: the name of the variant in lower case, such as `null` or
    /// `stack-overflow`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Input { .. } => "input",
            Self::Arguments => "arguments",
            Self::Published { .. } => "published",
            Self::Unused { .. } => "unused",
            Self::Records => "records",
            Self::StackOverflow { .. } => "stack-overflow",
            Self::Unmapped => "unmapped",
            Self::Protected => "protected",
            Self::Impossible => "impossible",
            Self::BeyondFile => "beyond-file",
            Self::Hardware => "hardware",
            Self::Instruction => "instruction",
            Self::Division => "division",
            Self::Arithmetic => "arithmetic",
            Self::Abort => "abort",
            Self::Raised => "raised",
            Self::Unknown => "unknown",
        }
    }
}

impl Crash {
    /// Returns the signal and the access in words, without the stack:
    /// `SIGSEGV: a read of a null pointer (address 0x0)`.
    pub fn what(&self) -> String {
        format!("{}: {}", signal_name(self.signal), self.cause())
    }

    fn cause(&self) -> String {
        let access = match self.access {
            None => "an access to",
            Some(CrashedAccess::Read) => "a read of",
            Some(CrashedAccess::Write) => "a write to",
            Some(CrashedAccess::Execute) => "a call of",
        };
        let at = match self.address {
            Some(address) => format!(" (address {address:#x})"),
            None => String::new(),
        };
        match &self.class {
            CrashClass::Null => format!("{access} a null pointer{at}"),
            CrashClass::Input { array, offset, len } => format!(
                "{access} array {array} of its arguments (byte {offset} of {len}), which it may only read"
            ),
            CrashClass::Arguments => {
                format!("{access} the copied values of its arguments, which it may only read")
            }
            CrashClass::Published { region, offset } => format!(
                "{access} an array of the engine that it may not write (byte {offset} of region {region})"
            ),
            CrashClass::Unused { region, offset } => format!(
                "{access} memory of the arena that is freed or was never used (byte {offset} of region {region})"
            ),
            CrashClass::Records => format!("{access} the records of the engine"),
            CrashClass::StackOverflow { depth: Some(depth) } => {
                format!("a stack overflow, {} KiB deep", depth / 1024)
            }
            CrashClass::StackOverflow { depth: None } => "a stack overflow".into(),
            CrashClass::Unmapped => format!("{access} memory that is not mapped{at}"),
            CrashClass::Protected => format!("{access} protected memory{at}"),
            CrashClass::Impossible => "an access to an impossible address".into(),
            CrashClass::BeyondFile => format!(
                "{access} memory beyond the end of a mapped file{at}; has the file been truncated?"
            ),
            CrashClass::Hardware => format!("{access} memory that cannot be provided{at}"),
            CrashClass::Instruction if self.signal == libc::SIGTRAP => {
                format!("a trap instruction, at {:#x}", self.instruction)
            }
            CrashClass::Instruction => {
                format!("an illegal instruction, at {:#x}", self.instruction)
            }
            CrashClass::Division => "an integer division by zero, or its overflow".into(),
            CrashClass::Arithmetic => "an arithmetic fault".into(),
            CrashClass::Abort => "an abort (a failed allocation, or a library's own check)".into(),
            CrashClass::Raised => "it sent itself this signal".into(),
            CrashClass::Unknown => "for an unknown reason".into(),
        }
    }

    /// Returns the stack of the thread that crashed, the innermost function first, up to the kernel. Functions have
    /// names and lines if the files of the program and its libraries contain them. The middle of a deep stack is left
    /// out: see [`omitted`](Self::omitted).
    ///
    /// The worker records only addresses. The first call in this process reads the files, which takes some milliseconds
    /// or more, and so does formatting the error.
    ///
    /// Empty if the worker died before it had recorded the frames, for example because its stack was overwritten.
    pub fn frames(&self) -> &[CrashFrame] {
        self.stack.frames()
    }

    /// Returns the number of frames that [`frames`](Self::frames) leaves out, for example of a stack overflow.
    pub fn omitted(&self) -> u64 {
        self.stack.omitted()
    }
}

/// Displays the signal, the access and the first frames, such as "SIGSEGV: a write to array 2 of its arguments (byte 10
/// of 4000), which it may only read; in invert (src/main.rs:7)".
impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())?;
        self.stack.write_first(f)
    }
}

/// Returns the signal that ended the worker of this job, if the job caused it or may have caused it.
pub(crate) fn fatal_signal(kind: &JobErrorKind) -> Option<i32> {
    match kind {
        JobErrorKind::Lost(WorkerExit::Signal(signal)) => Some(*signal),
        JobErrorKind::Dependency(FailedDependency::Actor { cause, .. }) => fatal_signal(cause),
        _ => None,
    }
}
