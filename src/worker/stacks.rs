//! Backtraces of a worker that cannot read its own executable. The worker sends addresses; the supervisor, which is the
//! same program, resolves them to names.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use crate::sys::image::image;

/// First character of a list of addresses. No resolved backtrace begins with it.
const MARK: char = '@';
/// Max number of frames that are sent.
const MAX_FRAMES: usize = 128;
/// Max number of names in the cache.
const MAX_NAMES: usize = 4096;

/// Captures the current backtrace as addresses relative to the program's image. Leaves out addresses of libraries.
pub(super) fn capture() -> String {
    let image = image();
    let mut text = String::from(MARK);
    let mut left = MAX_FRAMES;
    backtrace::trace(|frame| {
        let at = frame.ip() as usize;
        if image.is_code(at) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{:x} ", at.wrapping_sub(image.base));
        }
        left -= 1;
        left > 0
    });
    text
}

/// Resolves a captured backtrace to names and source locations. Returns `None` if `text` is no list of addresses.
pub(super) fn resolve(text: &str) -> Option<String> {
    /// Caches names, because resolving a name is slow and the same panics recur.
    static NAMES: Mutex<Option<HashMap<usize, String>>> = Mutex::new(None);
    let addresses = text.strip_prefix(MARK)?;
    let image = image();
    let mut known = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    let mut stack = String::new();
    let addresses = addresses.split_ascii_whitespace().take(MAX_FRAMES);
    let addresses = addresses.filter_map(|word| usize::from_str_radix(word, 16).ok());
    for (number, offset) in addresses.enumerate() {
        if known.len() >= MAX_NAMES {
            known.clear();
        }
        let at = image.base.wrapping_add(offset);
        let frame = known.entry(offset).or_insert_with(|| describe(at));
        let _ = writeln!(stack, "{number:4}: {frame}");
    }
    Some(stack)
}

/// Returns the names and source locations of an address: several if functions were inlined.
fn describe(at: usize) -> String {
    let mut frame = String::new();
    if !image().is_code(at) {
        return "<unknown>".into();
    }
    backtrace::resolve(std::ptr::without_provenance_mut(at), |symbol| {
        if !frame.is_empty() {
            frame.push_str("\n      ");
        }
        match symbol.name() {
            Some(name) => {
                let _ = write!(frame, "{name:#}");
            }
            None => frame.push_str("<unknown>"),
        }
        if let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) {
            let _ = write!(frame, "\n             at {}:{line}", file.display());
        }
    });
    if frame.is_empty() {
        frame.push_str("<unknown>");
    }
    frame
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_function_to_resolve() -> String {
        std::hint::black_box(capture())
    }

    #[test]
    fn addresses_resolve_to_names() {
        let stack = resolve(&a_function_to_resolve()).unwrap();
        assert!(stack.contains("a_function_to_resolve"), "{stack}");
        assert!(stack.contains("stacks.rs:"), "{stack}");
        assert_eq!(resolve("   0: words"), None);
    }

    #[test]
    fn arbitrary_addresses_resolve_to_unknown() {
        for text in ["@0 ffffffffffffffff zz 7", "@", "@ 1 -1"] {
            let stack = resolve(text).unwrap();
            assert!(
                stack.lines().all(|line| line.ends_with("<unknown>")),
                "{stack}"
            );
        }
    }
}
