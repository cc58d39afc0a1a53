//! The stack of a panic.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::trace::escape::escape_text;
use crate::worker::panics;

/// The stack of a kernel's panic, as text: a part of [`JobErrorKind::Panicked`](super::JobErrorKind::Panicked).
///
/// It dereferences to the text as it was sent; shown with `{}`, the text is escaped like
/// [`escape_text`](crate::escape_text). A sandboxed worker cannot read its own executable and sends addresses. This
/// program looks up their names when the text is first read, which may take a second.
///
/// ```standalone_crate
/// use arenite::{Engine, JobErrorKind};
///
/// fn third(numbers: &[u32]) -> u32 {
///     numbers[2]
/// }
///
/// arenite::init();
/// let engine = Engine::builder().workers(1).build()?;
/// let error = engine.submit(third, (&engine.from_slice(&[1_u32])?,)).wait().unwrap_err();
/// let JobErrorKind::Panicked { backtrace, .. } = error.kind() else { panic!("{error}") };
/// assert!(backtrace.contains("third"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Backtrace(Arc<Parts>);

#[derive(Default)]
struct Parts {
    /// The text or the addresses that the worker sent.
    sent: String,
    /// The text, if the worker sent addresses.
    named: OnceLock<Option<String>>,
}

impl Backtrace {
    /// Wraps what a worker sent. Looks up no names, so it may be called under the engine's lock.
    pub(crate) fn sent(sent: &str) -> Self {
        Self(Arc::new(Parts {
            sent: sent.to_owned(),
            named: OnceLock::new(),
        }))
    }
}

impl Deref for Backtrace {
    type Target = str;

    fn deref(&self) -> &str {
        let Parts { sent, named } = &*self.0;
        let named = named.get_or_init(|| panics::named_backtrace(sent));
        named.as_deref().unwrap_or(sent)
    }
}

/// Escapes what would have an effect on a terminal.
impl fmt::Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape_text(self).fmt(f)
    }
}

/// Formats the text as `str` does.
impl fmt::Debug for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Compares what the workers sent.
impl PartialEq for Backtrace {
    fn eq(&self, other: &Self) -> bool {
        self.0.sent == other.0.sent
    }
}

impl Eq for Backtrace {}

#[cfg(all(test, feature = "sandbox"))]
mod tests {
    use super::*;
    use crate::sys::image::image;

    /// The thread that takes an answer holds the engine's lock, so names are looked up only when the text is read.
    #[test]
    fn names_are_looked_up_when_the_text_is_read() {
        // A return address: it lies after the first instruction.
        let at = names_are_looked_up_when_the_text_is_read as fn() as usize + 1;
        let backtrace = Backtrace::sent(&format!("@{:x}", at - image().base));
        let copy = backtrace.clone();
        assert_eq!(backtrace, copy);
        assert!(backtrace.0.named.get().is_none());
        assert!(copy.contains("names_are_looked_up"), "{copy}");
        // Looked up once for all clones.
        assert_eq!(
            backtrace.0.named.get().expect("just looked up").as_deref(),
            Some(&*copy)
        );
        let text = Backtrace::sent("   0: a_function");
        assert_eq!(&*text, "   0: a_function");
        let text = Backtrace::sent("0: \u{1b}]0;title\u{7}\n1: \u{202e}b");
        assert_eq!(text.to_string(), "0: \\u{1b}]0;title\\u{7}\n1: \\u{202e}b");
    }
}
