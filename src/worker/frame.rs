//! What a worker says between the lines: frames in the bytes of its stdout and stderr.
//!
//! A frame begins with a mark that no text has (two bytes of it are in no UTF-8), and is written in one go of at
//! most `PIPE_BUF` bytes, so that the pipe keeps it in one piece whatever other threads print.

/// What a frame begins with. Its first byte comes in it once.
pub(crate) const MAGIC: [u8; 8] = *b"\x1e\xf5areni\xf5";
/// Mark, kind and length of the content.
pub(crate) const HEAD: usize = MAGIC.len() + 3;
/// The longest content: the whole frame is one atomic write.
pub(crate) const LONGEST: usize = 4096 - HEAD;

/// What is written since the last of these was written for this job (0: for none).
pub(crate) const BOUNDARY: u8 = 1;
/// An event: what [`event`] makes.
pub(crate) const EVENT: u8 = 2;

/// The content of an event's frame: the number of its job (8 bytes; 0: none), its level (1 for errors to 5 for
/// traces), the length of its target, the target, and its text.
#[cfg(feature = "tracing")]
pub(crate) fn event(job: u64, level: u8, target: &str, text: &str) -> Vec<u8> {
    let mut end = target.len().min(255);
    while !target.is_char_boundary(end) {
        end -= 1;
    }
    let mut content = job.to_le_bytes().to_vec();
    content.extend([level, end as u8]);
    content.extend(&target.as_bytes()[..end]);
    content.extend(text.as_bytes());
    content
}

/// Job, level, target and text of an event's frame, as far as it is one.
pub(crate) fn read_event(content: &[u8]) -> Option<(u64, u8, &[u8], &[u8])> {
    let (job, rest) = content.split_first_chunk()?;
    let (&[level, len], rest) = rest.split_first_chunk()?;
    let (target, text) = rest.split_at_checked(len.into())?;
    Some((u64::from_le_bytes(*job), level, target, text))
}

/// A frame of this kind. Content that is too long is cut.
pub(crate) fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    let content = &content[..content.len().min(LONGEST)];
    let mut bytes = Vec::with_capacity(HEAD + content.len());
    bytes.extend(MAGIC);
    bytes.push(kind);
    bytes.extend((content.len() as u16).to_le_bytes());
    bytes.extend(content);
    bytes
}

/// The whole length of a frame that begins with these bytes, at least [`HEAD`] of them; `None` if none does.
pub(crate) fn length(head: &[u8]) -> Option<usize> {
    let low = *head.get(HEAD - 2)?;
    let high = *head.get(HEAD - 1)?;
    let len = usize::from(u16::from_le_bytes([low, high]));
    (head.starts_with(&MAGIC) && len <= LONGEST).then_some(HEAD + len)
}
