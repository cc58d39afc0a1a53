//! Parses the replies of failed jobs.
//!
//! Lengths in a reply are claims. The reading thread holds the lock of the engine, so texts are copied up to a limit,
//! and no names are looked up.

use super::error::{Backtrace, JobErrorKind, WorkerExit};
use crate::kernel::wire::WordReader;
use crate::kernel::{MAX_ERROR_BYTES, Returned};
use crate::link::{REFUSAL_WORDS, kind};
use crate::worker::panics;

/// The maximum number of words in the reply of a failed job: a text, an encoded error, and what precedes each.
pub(super) const MAX_FAILED_WORDS: usize = (panics::TEXT_LIMIT + MAX_ERROR_BYTES) / 8 + 8;

/// Parses a typed error: its text, the tag of its type, and its encoding. `None` if the lengths are wrong.
fn typed_error(words: &[u64]) -> Option<Returned> {
    let mut reader = WordReader::new(words);
    let text_len = reader.word().ok()? as usize;
    let tag = reader.word().ok()?;
    let len = usize::try_from(reader.word().ok()?).ok()?;
    if text_len > panics::TEXT_LIMIT || len > MAX_ERROR_BYTES {
        return None;
    }
    let text = String::from_utf8(reader.bytes(text_len).ok()?.to_vec()).ok()?;
    let bytes = reader.bytes(len).ok()?;
    (reader.len() == 0).then(|| Returned::from_parts(text, tag, bytes))
}

/// Returns the error that a failed reply describes.
///
/// # Errors
///
/// A description of what is wrong with the reply.
pub(super) fn failure(kind: u8, words: &[u64]) -> Result<JobErrorKind, String> {
    let text = || {
        let mut reader = WordReader::new(words);
        let len = reader.word().unwrap_or(0) as usize;
        let rest = words.len().saturating_sub(1) * 8;
        // No worker sends more than the limit, and this thread holds the engine's lock.
        let len = len.min(rest).min(panics::TEXT_LIMIT);
        let bytes = reader.bytes(len).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    Ok(match kind {
        kind::RETURNED => JobErrorKind::Returned(text().into()),
        kind::TYPED_ERROR => JobErrorKind::Returned(typed_error(words).ok_or("a broken error")?),
        kind::PANICKED => {
            let text = text();
            let (message, location, backtrace) = panics::split(&text);
            JobErrorKind::Panicked {
                message: message.to_owned(),
                location: location.to_owned(),
                backtrace: Backtrace::sent(backtrace),
            }
        }
        kind::ARENA_FULL => {
            let words = words
                .first_chunk::<REFUSAL_WORDS>()
                .ok_or("a cut refusal")?;
            crate::worker::full_from_words(*words).into()
        }
        kind::CANCELLED => JobErrorKind::Cancelled,
        kind::BAD_ARGUMENTS => JobErrorKind::Lost(WorkerExit::Protocol(format!(
            "arguments refused: {}",
            text()
        ))),
        other => return Err(format!("a failure of kind {other}")),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::wire::ReplyWriter;
    use crate::sys::asked;

    /// Returns a reply as a worker writes it: a head word, then bytes.
    fn words(head: u64, bytes: &[u8]) -> Vec<u64> {
        let mut writer = ReplyWriter::default();
        writer.word(head);
        writer.bytes(bytes);
        writer.words.to_vec()
    }

    /// Texts of up to more bytes than a worker may send, including the separators of a panic's parts.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just(b"\x1e".to_vec()),
            Just(b"@7f 0 ffffffffffffffff ".to_vec()),
            prop::collection::vec(any::<u8>(), 0..40),
            (any::<char>(), 0..6000_usize)
                .prop_map(|(each, times)| each.to_string().repeat(times).into_bytes()),
        ];
        prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(asked::cases(10_000)))]

        /// A text is read up to the limit. If the claimed length reaches beyond the end of the reply, the text is read
        /// up to that end. The model truncates the sent bytes.
        #[test]
        fn texts_are_read_up_to_the_limit(
            bytes in text(),
            claimed in prop_oneof![any::<u32>(), Just(u32::MAX), 0..40_000_u32],
        ) {
            let words = words(u64::from(claimed), &bytes);
            let mut sent = bytes;
            sent.resize(sent.len().next_multiple_of(8), 0);
            sent.truncate((claimed as usize).min(panics::TEXT_LIMIT));
            let sent = String::from_utf8_lossy(&sent).into_owned();
            prop_assert_eq!(failure(kind::RETURNED, &words), Ok(JobErrorKind::Returned(sent.as_str().into())));
            let mut parts = sent.split('\u{1e}');
            let location = parts.next().unwrap();
            let message = parts.next().unwrap_or_default();
            let backtrace = parts.collect::<Vec<_>>().join("\u{1e}");
            let panicked = JobErrorKind::Panicked {
                message: message.to_owned(),
                location: location.to_owned(),
                backtrace: Backtrace::sent(&backtrace),
            };
            prop_assert_eq!(failure(kind::PANICKED, &words), Ok(panicked));
            let WorkerExit::Protocol(refused) = (match failure(kind::BAD_ARGUMENTS, &words) {
                Ok(JobErrorKind::Lost(exit)) => exit,
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            }) else {
                return Err(TestCaseError::fail("not a fault"));
            };
            prop_assert_eq!(refused, format!("arguments refused: {sent}"));
        }

        /// Words of any content are read as a failure, or refused with a reason.
        #[test]
        fn any_words_are_read_or_refused(
            kind: u8,
            words in prop::collection::vec(prop_oneof![any::<u64>(), 0..64_u64, Just(u64::MAX)], 0..24),
        ) {
            if let Err(why) = failure(kind, &words) {
                prop_assert!(!why.is_empty());
            }
        }

        /// A typed error is accepted if and only if its lengths match the words that follow and are within the limits.
        #[test]
        fn typed_errors_have_the_lengths_that_they_claim(
            text in "[a-zé]{0,40}",
            tag: u64,
            encoding in prop::collection::vec(any::<u8>(), 0..64),
            off in prop_oneof![Just(0_i64), -9..9_i64, Just(i64::from(i32::MAX))],
        ) {
            let mut writer = ReplyWriter::default();
            writer.word(text.len() as u64);
            writer.word(tag);
            let claimed = encoding.len() as i64 + off;
            writer.word(claimed as u64);
            writer.bytes(text.as_bytes());
            writer.bytes(&encoding);
            let returned = typed_error(&writer.words);
            let fits = claimed >= 0 && (claimed as usize).div_ceil(8) == encoding.len().div_ceil(8);
            prop_assert_eq!(returned.is_some(), fits);
            if off == 0 {
                prop_assert_eq!(returned, Some(Returned::from_parts(text, tag, &encoding)));
            }
        }
    }

    #[test]
    fn an_encoding_beyond_the_limit_is_refused() {
        for (len, fits) in [(MAX_ERROR_BYTES, true), (MAX_ERROR_BYTES + 1, false)] {
            let mut writer = ReplyWriter::default();
            for word in [0, 1, len as u64] {
                writer.word(word);
            }
            writer.bytes(&vec![7; len]);
            assert_eq!(typed_error(&writer.words).is_some(), fits);
        }
    }
}
