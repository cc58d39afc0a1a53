//! The `catch_unwind` guard around a kernel, and the panic hook, which records message and location of a panic.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use std::sync::Arc;

use super::lane::{cells_here, truncate_notes};
use crate::arena::ArenaFull;
use crate::link::LinkCells;
use crate::sync::drop_payload;

thread_local! {
    /// Whether to capture the backtrace of a panic; `Some` while a guarded call runs on this thread.
    static GUARDED: Cell<Option<Capture>> = const { Cell::new(None) };
    /// The last panic of the guarded call for which the hook was called.
    static LAST_PANIC: RefCell<Option<PanicInfo>> = const { RefCell::new(None) };
    /// The end of the recorder's notes before the first panic of the guarded call.
    static NOTES_END: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Whether the backtrace of a panic is captured, which is slow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Capture {
    Backtrace,
    Nothing,
}

/// The result of a guarded call.
pub(super) enum Outcome<T> {
    Returned(T),
    /// Message, location and backtrace, as [`split`] reads them.
    Panicked(String),
    /// An array constructor panicked because the arena had no room.
    Full(ArenaFull),
}

/// The message for a panic whose payload is no text.
const NO_MESSAGE: &str = "a panic without a text";

/// Max length in bytes of the text of a panic or error that a worker sends and the supervisor reads.
pub(crate) const TEXT_LIMIT: usize = 16 * 1024;

/// Max length in bytes of a panic message that is sent. The rest of `TEXT_LIMIT` is for the backtrace.
const MESSAGE_LIMIT: usize = TEXT_LIMIT / 2;

/// Separates location, message and backtrace.
pub(crate) const SEPARATOR: char = '\u{1e}';

/// Whether backtraces are sent as addresses, because a sandboxed worker cannot read its own executable.
#[cfg(feature = "sandbox")]
static ADDRESSES: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Sends backtraces as addresses from now on.
#[cfg(feature = "sandbox")]
pub(super) fn send_addresses() {
    // Relaxed: set before any other thread exists.
    ADDRESSES.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// Captures the current backtrace.
fn backtrace() -> String {
    #[cfg(feature = "sandbox")]
    if ADDRESSES.load(std::sync::atomic::Ordering::Relaxed) {
        return super::stacks::capture();
    }
    kernel_frames(&Backtrace::force_capture().to_string())
}

/// Converts a backtrace that a worker has sent as a list of addresses to text. Returns `None` if the worker has sent
/// text. Slow, because it reads the debug information of the program.
pub(crate) fn named_backtrace(sent: &str) -> Option<String> {
    #[cfg(feature = "sandbox")]
    return super::stacks::resolve(sent).map(|named| kernel_frames(&named));
    #[cfg(not(feature = "sandbox"))]
    {
        let _ = sent;
        None
    }
}

/// Splits the text of a panic into message, location and backtrace.
pub(crate) fn split(text: &str) -> (&str, &str, &str) {
    let mut parts = text.splitn(3, SEPARATOR);
    let mut next = || parts.next().unwrap_or("");
    let location = next();
    (next(), location, next())
}

/// Installs the panic hook. For a panic in a guarded call, the hook stores message, location and backtrace for the
/// reply of the job, and in the recorder in case the process ends before the reply. Other panics are passed to the
/// previous hook.
pub(super) fn install(cells: Arc<LinkCells>) {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |hook_info| {
        if let Some(capture) = GUARDED.get() {
            let info = describe(hook_info, capture);
            if let Some(PanicInfo {
                message, location, ..
            }) = &info
            {
                let cells = cells_here(&cells);
                let job = cells.phase().job().unwrap_or(0);
                NOTES_END.set(NOTES_END.get().or(Some(cells.notes_end())));
                cells.note(job, &format!("panicked at {location}: {message}"));
            }
            LAST_PANIC.replace(info);
        } else {
            previous(hook_info);
        }
    }));
}

/// Message, location and backtrace of a panic.
#[derive(Default)]
struct PanicInfo {
    message: String,
    location: String,
    backtrace: String,
}

impl PanicInfo {
    /// Returns the text to send, which [`split`] reads.
    fn into_text(self) -> String {
        let end = self.message.floor_char_boundary(MESSAGE_LIMIT);
        let (message, rest) = self.message.split_at(end);
        let message = message.replace(SEPARATOR, " ");
        let more = match rest.len() {
            0 => String::new(),
            bytes => format!(" … and {bytes} bytes more"),
        };
        let (location, backtrace) = (self.location, self.backtrace);
        format!("{location}{SEPARATOR}{message}{more}{SEPARATOR}{backtrace}")
    }
}

/// Describes a panic. Returns `None` if an array constructor has panicked because the arena had no room: this is
/// reported as an error, not as a panic.
fn describe(info: &PanicHookInfo<'_>, capture: Capture) -> Option<PanicInfo> {
    if info.payload().is::<ArenaFull>() {
        return None;
    }
    Some(PanicInfo {
        message: info.payload_as_str().unwrap_or(NO_MESSAGE).to_owned(),
        location: info.location().map(ToString::to_string).unwrap_or_default(),
        backtrace: match capture {
            Capture::Backtrace => backtrace(),
            Capture::Nothing => String::new(),
        },
    })
}

/// Returns the frames of a backtrace between the panic machinery and the guard.
fn kernel_frames(backtrace: &str) -> String {
    let lines: Vec<&str> = backtrace.lines().collect();
    let find = |name: &str| lines.iter().position(|line| line.contains(name));
    let end = find("arenite_runs_kernel").unwrap_or(lines.len());
    let machinery =
        |line: &&str| line.contains("panicking::panic") || line.contains("begin_unwind");
    let start = lines[..end]
        .iter()
        .rposition(machinery)
        .map_or(0, |last| last + 1);
    // A frame is a line with its name, and perhaps a line with its source location.
    let frame = |line: &&str| !line.trim_start().starts_with("at ");
    let start = lines[start..end]
        .iter()
        .position(frame)
        .map_or(start, |skip| start + skip);
    let mut part = lines[start..end].join("\n");
    part.push('\n');
    part
}

/// Calls `kernel`. The name of this function is found in backtraces: the frames inside its call are the kernel's.
#[inline(never)]
fn arenite_runs_kernel<T>(kernel: impl FnOnce() -> T) -> T {
    let value = kernel();
    // Prevents a tail call, which would remove this frame.
    std::hint::black_box(());
    value
}

/// Calls `f` and catches its panic.
pub(super) fn catch<T>(f: impl FnOnce() -> T) -> Outcome<T> {
    guarded(Capture::Backtrace, f)
}

/// Like [`catch`], without the backtrace of a panic.
pub(super) fn catch_without_backtrace<T>(f: impl FnOnce() -> T) -> Outcome<T> {
    guarded(Capture::Nothing, f)
}

fn guarded<T>(capture: Capture, f: impl FnOnce() -> T) -> Outcome<T> {
    NOTES_END.set(None);
    GUARDED.set(Some(capture));
    let result = catch_unwind(AssertUnwindSafe(|| arenite_runs_kernel(f)));
    GUARDED.set(None);
    match result {
        Ok(value) => Outcome::Returned(value),
        Err(payload) => {
            // The reply reports this panic. If the process dies later, it has another cause.
            if let Some(end) = NOTES_END.take() {
                truncate_notes(end);
            }
            if let Some(full) = payload.downcast_ref::<ArenaFull>() {
                return Outcome::Full(*full);
            }
            let message = match payload.downcast_ref::<String>() {
                Some(text) => text.clone(),
                None => payload
                    .downcast_ref::<&str>()
                    .map_or(NO_MESSAGE, |text| text)
                    .to_owned(),
            };
            drop_payload(payload);
            // `LAST_PANIC` may be another panic, which the kernel has caught. It is not this panic if this panic was
            // resumed (`resume_unwind`, as thread pools do), or if the kernel has replaced the hook.
            let info = LAST_PANIC.take().filter(|info| info.message == message);
            let info = info.unwrap_or_else(|| PanicInfo {
                message,
                ..PanicInfo::default()
            });
            Outcome::Panicked(info.into_text())
        }
    }
}
