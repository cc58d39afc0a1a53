//! Stacks of panics in a worker that cannot read its own executable: the addresses cross, and the supervisor, which is
//! the same program, finds their names.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use crate::sys::image::image;

/// What a list of addresses begins with; no frame of a stack in words does.
const MARK: char = '@';
/// Frames that are sent.
const DEEPEST: usize = 128;
/// Names that are kept.
const KNOWN: usize = 4096;

/// The stack from here, as addresses relative to the program's image; those of libraries are left out.
pub(super) fn capture() -> String {
    let image = image();
    let mut text = String::from(MARK);
    let mut left = DEEPEST;
    backtrace::trace(|frame| {
        let at = frame.ip() as usize;
        if image.is_code(at) {
            // Writing to a string does not fail.
            let _ = write!(text, "{:x} ", at.wrapping_sub(image.base));
        }
        left -= 1;
        left > 0
    });
    text
}

/// A captured stack with names and places; `None` for one in words.
pub(super) fn resolve(text: &str) -> Option<String> {
    /// The same panics come again and again, and looking up a name is slow.
    static NAMES: Mutex<Option<HashMap<usize, String>>> = Mutex::new(None);
    let addresses = text.strip_prefix(MARK)?;
    let image = image();
    let mut known = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    let mut stack = String::new();
    let addresses = addresses.split_ascii_whitespace().take(DEEPEST);
    let addresses = addresses.filter_map(|word| usize::from_str_radix(word, 16).ok());
    for (number, offset) in addresses.enumerate() {
        if known.len() >= KNOWN {
            known.clear();
        }
        let at = image.base.wrapping_add(offset);
        let frame = known.entry(offset).or_insert_with(|| describe(at));
        let _ = writeln!(stack, "{number:4}: {frame}");
    }
    Some(stack)
}

/// Names and places of an address: several where functions were inlined.
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
    fn a_function_to_be_found() -> String {
        std::hint::black_box(capture())
    }

    #[test]
    fn names_come_back() {
        let stack = resolve(&a_function_to_be_found()).unwrap();
        assert!(stack.contains("a_function_to_be_found"), "{stack}");
        assert!(stack.contains("stacks.rs:"), "{stack}");
        assert_eq!(resolve("   0: words"), None);
    }

    #[test]
    fn addresses_from_a_hostile_worker_name_nothing() {
        for text in ["@0 ffffffffffffffff zz 7", "@", "@ 1 -1"] {
            let stack = resolve(text).unwrap();
            assert!(
                stack.lines().all(|line| line.ends_with("<unknown>")),
                "{stack}"
            );
        }
    }
}
