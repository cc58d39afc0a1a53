//! Frames: messages of a worker to the supervisor, in the bytes of its stdout and stderr.
//!
//! A frame begins with a mark that no text contains (two bytes of the mark are not valid UTF-8). A frame is written in
//! one call of at most `PIPE_BUF` bytes, so that output of other threads does not split it.

/// The mark at the beginning of a frame. Its first byte does not occur again in it.
pub(crate) const MAGIC: [u8; 8] = *b"\x1e\xf5areni\xf5";
/// Length in bytes of the head: mark, kind and length of the content.
pub(crate) const HEAD: usize = MAGIC.len() + 3;
/// Max length in bytes of the content, so that the whole frame is one atomic write.
pub(crate) const MAX_CONTENT: usize = 4096 - HEAD;

/// Kind of a frame with the number of a job: the output since the last boundary belongs to this job (0: to no job).
pub(crate) const BOUNDARY: u8 = 1;
/// Kind of a frame that contains an event, made by [`event`].
pub(crate) const EVENT: u8 = 2;

/// Makes the content of an event's frame: the number of the job (8 bytes; 0 for no job), the level (1 for errors to 5
/// for traces), the length of the target, the target, and the text.
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

/// Reads job, level, target and text of an event's frame; `None` if it is malformed.
pub(crate) fn read_event(content: &[u8]) -> Option<(u64, u8, &[u8], &[u8])> {
    let (job, rest) = content.split_first_chunk()?;
    let (&[level, len], rest) = rest.split_first_chunk()?;
    let (target, text) = rest.split_at_checked(len.into())?;
    Some((u64::from_le_bytes(*job), level, target, text))
}

/// Makes a frame. Content that is too long is truncated.
pub(crate) fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    let content = &content[..content.len().min(MAX_CONTENT)];
    let mut bytes = Vec::with_capacity(HEAD + content.len());
    bytes.extend(MAGIC);
    bytes.push(kind);
    bytes.extend((content.len() as u16).to_le_bytes());
    bytes.extend(content);
    bytes
}

/// Returns the total length of the frame that begins with `head`. `None` if there are fewer than [`HEAD`] bytes, or
/// they do not begin a frame.
pub(crate) fn frame_len(head: &[u8]) -> Option<usize> {
    let low = *head.get(HEAD - 2)?;
    let high = *head.get(HEAD - 1)?;
    let len = usize::from(u16::from_le_bytes([low, high]));
    (head.starts_with(&MAGIC) && len <= MAX_CONTENT).then_some(HEAD + len)
}
