//! The panic fence around a kernel.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use std::sync::Arc;

use super::lane::{cells_here, truncate_notes};
use crate::arena::ArenaFull;
use crate::link::LinkCells;

thread_local! {
    /// Something runs behind the fence on this thread, and whether the stack of its panic is wanted.
    static FENCED: Cell<Option<Stack>> = const { Cell::new(None) };
    /// What the panic hook heard while it did.
    static HEARD: RefCell<Option<Heard>> = const { RefCell::new(None) };
    /// Where the notes of the recorder stood before it noted the first of these.
    static NOTED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What of a panic is kept beside its message and location.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stack {
    Kept,
    /// It takes long to put into words, so not where nobody would read it.
    Dropped,
}

/// How a fenced call ended.
pub(super) enum Outcome<T> {
    Returned(T),
    /// Message, location and backtrace, as [`split`] reads them.
    Panicked(String),
    /// The panic of an array constructor that found no room.
    Full(ArenaFull),
}

/// What stands for the message of a panic that has none.
const TEXTLESS: &str = "a panic without a text";

/// The longest text of a panic or error that is sent; and that is read, from a worker that sends more all the same.
pub(crate) const TEXT_LIMIT: usize = 16 * 1024;

/// The longest message of a panic that is sent: there is to be room for where it was.
const MESSAGE_LIMIT: usize = TEXT_LIMIT / 2;

/// Separates location, message and backtrace.
pub(crate) const SEPARATOR: char = '\u{1e}';

/// Stacks are sent as addresses: this worker cannot read its own executable.
#[cfg(feature = "sandbox")]
static ADDRESSES: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// From now on stacks are sent as addresses.
#[cfg(feature = "sandbox")]
pub(super) fn send_addresses() {
    // Relaxed: set before any other thread exists.
    ADDRESSES.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// The stack at this place.
fn stack() -> String {
    #[cfg(feature = "sandbox")]
    if ADDRESSES.load(std::sync::atomic::Ordering::Relaxed) {
        return super::stacks::capture();
    }
    kernels_part(&Backtrace::force_capture().to_string())
}

/// A stack from a worker, in words.
pub(crate) fn stack_in_words(stack: &str) -> String {
    #[cfg(feature = "sandbox")]
    if let Some(named) = super::stacks::resolve(stack) {
        return kernels_part(&named);
    }
    stack.to_owned()
}

/// Message, location and backtrace of a panic's text.
pub(crate) fn split(text: &str) -> (&str, &str, &str) {
    let mut parts = text.splitn(3, SEPARATOR);
    let mut next = || parts.next().unwrap_or("");
    let location = next();
    (next(), location, next())
}

/// Installs the hook that keeps what a kernel's panic says: for the job's answer, and in the recorder if
/// there will be none, because it ends the process. Panics of other threads are printed as before.
pub(super) fn install(cells: Arc<LinkCells>) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Some(wanted) = FENCED.get() {
            let heard = describe(info, wanted);
            if let Some(Heard {
                message, location, ..
            }) = &heard
            {
                let cells = cells_here(&cells);
                let job = cells.phase().job().unwrap_or(0);
                NOTED.set(NOTED.get().or(Some(cells.notes_end())));
                cells.note(job, &format!("panicked at {location}: {message}"));
            }
            HEARD.replace(heard);
        } else {
            before(info);
        }
    }));
}

/// What a panic said.
#[derive(Default)]
struct Heard {
    message: String,
    location: String,
    backtrace: String,
}

impl Heard {
    /// As it is sent.
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

/// Nothing of an array that found no room: that is no panic to whoever asked for the job.
fn describe(info: &PanicHookInfo<'_>, wanted: Stack) -> Option<Heard> {
    if info.payload().is::<ArenaFull>() {
        return None;
    }
    Some(Heard {
        message: info.payload_as_str().unwrap_or(TEXTLESS).to_owned(),
        location: info.location().map(ToString::to_string).unwrap_or_default(),
        backtrace: match wanted {
            Stack::Kept => stack(),
            Stack::Dropped => String::new(),
        },
    })
}

/// The frames of a backtrace between the panic machinery and the fence.
fn kernels_part(backtrace: &str) -> String {
    let lines: Vec<&str> = backtrace.lines().collect();
    let find = |name: &str| lines.iter().position(|line| line.contains(name));
    let end = find("arenite_runs_kernel").unwrap_or(lines.len());
    let machinery =
        |line: &&str| line.contains("panicking::panic") || line.contains("begin_unwind");
    let start = lines[..end]
        .iter()
        .rposition(machinery)
        .map_or(0, |last| last + 1);
    // A frame is a line with its name, and perhaps one with its place.
    let frame = |line: &&str| !line.trim_start().starts_with("at ");
    let start = lines[start..end]
        .iter()
        .position(frame)
        .map_or(start, |skip| start + skip);
    let mut part = lines[start..end].join("\n");
    part.push('\n');
    part
}

/// A name to find in backtraces: what lies above it is the kernel's.
#[inline(never)]
fn arenite_runs_kernel<T>(kernel: impl FnOnce() -> T) -> T {
    let value = kernel();
    // Keeps this frame: the call is not the last thing that happens in it.
    std::hint::black_box(());
    value
}

/// Drops what a panic has thrown: a text may be long, and an array has to be given back. That is foreign code, which may panic
/// by itself, and must not take along who has caught it.
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(thrown) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // Its drop may do so again, and so on.
        std::mem::forget(thrown);
    }
}

/// Calls `f`; a panic becomes a value.
pub(super) fn run<T>(f: impl FnOnce() -> T) -> Outcome<T> {
    fenced(Stack::Kept, f)
}

/// As [`run`], for who does not want the stack of a panic.
pub(super) fn run_briefly<T>(f: impl FnOnce() -> T) -> Outcome<T> {
    fenced(Stack::Dropped, f)
}

fn fenced<T>(stack: Stack, f: impl FnOnce() -> T) -> Outcome<T> {
    NOTED.set(None);
    FENCED.set(Some(stack));
    let result = catch_unwind(AssertUnwindSafe(|| arenite_runs_kernel(f)));
    FENCED.set(None);
    match result {
        Ok(value) => Outcome::Returned(value),
        Err(payload) => {
            // It is answered: what ends a later attempt of the job in this process is something else.
            if let Some(noted) = NOTED.take() {
                truncate_notes(noted);
            }
            if let Some(full) = payload.downcast_ref::<ArenaFull>() {
                return Outcome::Full(*full);
            }
            let message = match payload.downcast_ref::<String>() {
                Some(text) => text.clone(),
                None => payload
                    .downcast_ref::<&str>()
                    .map_or(TEXTLESS, |text| text)
                    .to_owned(),
            };
            drop_payload(payload);
            // The hook may have heard another one: a panic that a kernel has caught by itself. This one it has not heard
            // if it comes from elsewhere (`resume_unwind`, as thread pools do it), or if a kernel has replaced the hook.
            let heard = HEARD.take().filter(|heard| heard.message == message);
            let heard = heard.unwrap_or_else(|| Heard {
                message,
                ..Heard::default()
            });
            Outcome::Panicked(heard.into_text())
        }
    }
}
