//! The format of arguments and replies: 8-byte words.
//!
//! Words are in the order of the parameters, without names or types: both ends are the same function of the same
//! executable. A call of up to [`INLINE_WORDS`] words fits into a slot; a longer call goes to a block.

pub(crate) mod kind;

use std::sync::Arc;

use smallvec::SmallVec;

use super::inputs::Inputs;

use crate::arena::{ArenaFull, Block, Extent, Offset};
use crate::array::{FileName, SealedFile, Shape};

/// The number of words that fit into a slot of a link. `link` asserts that its own constant is equal.
pub(crate) const INLINE_WORDS: usize = 12;

/// The maximum size in bytes of all text in one value (`String`s and `Bytes`). It is bounded because text travels in
/// the words of a reply, which the supervisor copies under its lock.
pub(crate) const MAX_TEXT: usize = 64 << 20;

/// The maximum capacity, in words, that a writer keeps for its next call.
const RETAINED_WORDS: usize = (64 << 10) / 8;

/// The maximum number of words of a reply: its text, plus the lengths, shapes and extents of the maximum number of
/// arrays.
pub(crate) const MAX_REPLY_WORDS: usize = MAX_TEXT / 8 + (1 << 16);

/// Memory that a job holds until it is answered.
#[derive(Debug)]
pub(crate) enum Lease {
    /// An array that the job reads.
    Shared(Arc<Block>),
    /// An array that moved into the job.
    Owned(Arc<Block>),
    /// Rows of an array that a scope lends. The scope keeps the array alive; this range is only used in messages.
    Lent(std::ops::Range<usize>),
    /// A sealed memory file that the job reads. Workers open it through its descriptor.
    File(Arc<SealedFile>),
    /// Bytes that the job changes in place, in a block to which there may be other handles: see
    /// [`raw::Buffer::write`](super::raw::Buffer::write).
    Loan {
        /// Keeps the memory in use until the job is answered.
        block: Arc<Block>,
        /// The bytes that are lent, within the block.
        extent: Extent,
    },
}

impl Lease {
    /// Returns the number of bytes of the arena that the lease holds.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Shared(block) | Self::Owned(block) | Self::Loan { block, .. } => {
                block.extent().len
            }
            Self::Lent(_) | Self::File(_) => 0,
        }
    }
}

/// The leases of one call: one for each array argument, and one for the block of a call that is too long for a slot.
pub(crate) type Leases = SmallVec<[Lease; 2]>;

/// In a call, the region number of an array in a sealed memory file; no arena has such a region. The three words after
/// the offset name the file: descriptor, device, inode. If the array was copied, the three words are [`COPIED`], the
/// offset of the copy in the arena, and 0. The shape comes last.
pub(crate) const FILE_REGION: u16 = u16::MAX;
/// In a call, the region number of an array whose bytes follow: the number of bytes, then the bytes. No arena has such
/// a region.
pub(crate) const INLINE_REGION: u16 = u16::MAX - 1;
/// In place of the descriptor of a sealed file, says that the array was copied. No descriptor has this number.
pub(crate) const COPIED: u64 = u64::MAX;

/// An argument in a sealed memory file.
#[derive(Clone, Copy, Debug)]
struct FileArgument {
    /// The index of the argument's offset among the words.
    word: usize,
    /// The index of the argument's lease.
    lease: usize,
    /// The offset of the argument's first byte in the file.
    skip: u64,
    /// The length of the argument in bytes.
    len: u64,
}

/// Writes the arguments of one call, in the supervisor.
#[derive(Debug)]
pub(crate) struct ArgWriter {
    /// Id of the arena that array arguments must be in.
    arena: u64,
    len: usize,
    inline: [u64; INLINE_WORDS],
    /// All words, if there are too many for `inline`.
    long: Vec<u64>,
    pub(crate) leases: Leases,
    /// The arguments in sealed files that [`copy_files`](Self::copy_files) may have to copy. That function empties the
    /// list.
    files: SmallVec<[FileArgument; 1]>,
    /// Whether an argument is in memory that workers cannot read: private memory, a mapped file that may change, or
    /// another engine's arena.
    pub(crate) foreign: bool,
    /// Set if a lent array had to move to pages of its own and the arena had no room.
    pub(crate) full: Option<ArenaFull>,
    /// For a call that is too long for a slot: the block that contains it, or the error if there is none.
    pub(crate) spilled: Option<Result<Block, ArenaFull>>,
    /// Whether an argument is changed in place, so that the job may not run twice.
    pub(crate) exclusive: bool,
    /// Whether the job may not run twice, whatever its options are, because bytes are lent to it for one attempt.
    pub(crate) once: bool,
    /// Seed of the job's random numbers. 0 means the next seed in the order of submission.
    pub(crate) seed: u64,
    /// The number of handles to each array of the call that the submitter keeps until the job is answered.
    pub(crate) kept: usize,
    /// The values of other jobs that the call takes, if any.
    pub(crate) inputs: Option<Box<Inputs>>,
}

impl ArgWriter {
    #[inline]
    pub(crate) fn new(arena: u64) -> Self {
        Self {
            arena,
            len: 0,
            inline: [0; INLINE_WORDS],
            long: Vec::new(),
            leases: SmallVec::new(),
            files: SmallVec::new(),
            foreign: false,
            full: None,
            spilled: None,
            exclusive: false,
            once: false,
            seed: 0,
            kept: 0,
            inputs: None,
        }
    }

    /// Returns true if the call is too long for a slot and has no block yet.
    #[inline]
    pub(crate) fn must_spill(&self) -> bool {
        // A call that lacks values of jobs is not complete yet.
        self.len > INLINE_WORDS && !matches!(self.spilled, Some(Ok(_))) && self.inputs.is_none()
    }

    /// Clears everything, to write another call into the same memory.
    #[inline]
    pub(crate) fn reset(&mut self) {
        self.len = 0;
        self.long.clear();
        self.shrink();
        self.leases.clear();
        self.files.clear();
        self.foreign = false;
        self.full = None;
        self.spilled = None;
        self.exclusive = false;
        self.once = false;
        self.seed = 0;
        self.kept = 0;
        self.inputs = None;
    }

    /// Frees memory that only a long call needs. Called when the call has been sent.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        if self.long.capacity() > RETAINED_WORDS {
            self.long = Vec::new();
        }
    }

    pub(crate) fn arena(&self) -> u64 {
        self.arena
    }

    #[inline]
    pub(crate) fn word(&mut self, word: u64) {
        if self.len < INLINE_WORDS {
            self.inline[self.len] = word;
        } else {
            self.long_word(word);
        }
        self.len += 1;
    }

    #[cold]
    fn long_word(&mut self, word: u64) {
        if self.long.is_empty() {
            self.long.extend_from_slice(&self.inline);
        }
        self.long.push(word);
    }

    /// Appends several words.
    #[inline]
    pub(crate) fn extend(&mut self, words: &[u64]) {
        let end = self.len + words.len();
        if end <= INLINE_WORDS {
            self.inline[self.len..end].copy_from_slice(words);
        } else {
            if self.long.is_empty() {
                self.long.extend_from_slice(&self.inline[..self.len]);
            }
            self.long.extend_from_slice(words);
        }
        self.len = end;
    }

    /// Appends bytes, padded to whole words.
    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let words = words_of(bytes);
        if self.len + words.len() > INLINE_WORDS {
            if self.long.is_empty() {
                self.long.extend_from_slice(&self.inline[..self.len]);
            }
            self.len += words.len();
            self.long.extend(words);
            return;
        }
        words.for_each(|word| self.word(word));
    }

    pub(crate) fn array(&mut self, extent: Extent, shape: &Shape) {
        self.word(bytemuck::cast(extent.at));
        write_shape(shape, |word| self.word(word));
    }

    /// Writes the bytes of an array with this number of elements into the call itself.
    pub(crate) fn array_inline(&mut self, elements: usize, bytes: &[u8]) {
        self.word(bytemuck::cast(Offset::new(INLINE_REGION, 0)));
        self.word(elements as u64);
        self.bytes(bytes);
    }

    /// Writes an array of `len` bytes at offset `skip` of a sealed file.
    pub(crate) fn file(&mut self, file: &Arc<SealedFile>, (skip, len): (u64, u64), shape: &Shape) {
        self.files.push(FileArgument {
            word: self.len,
            lease: self.leases.len(),
            skip,
            len,
        });
        self.word(bytemuck::cast(Offset::new(FILE_REGION, skip)));
        let (fd, (device, inode)) = match file.name() {
            Some(name) => (name.fd.into(), name.identity),
            // `copy_files` replaces these words by the location of a copy.
            None => (COPIED, (0, 0)),
        };
        self.extend(&[fd, device, inode]);
        write_shape(shape, |word| self.word(word));
        self.leases.push(Lease::File(Arc::clone(file)));
    }

    /// Returns true if arguments are in sealed files and `copy_files` has not been called yet.
    #[inline]
    pub(crate) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Replaces arguments in sealed files by copies, for which `alloc` allocates blocks. Replaces all of them if `all`,
    /// otherwise only those that workers cannot open.
    #[cold]
    pub(crate) fn copy_files(
        &mut self,
        all: bool,
        alloc: impl Fn(u64) -> Result<Block, ArenaFull>,
    ) {
        for argument in std::mem::take(&mut self.files) {
            let Lease::File(file) = &self.leases[argument.lease] else {
                continue;
            };
            if !all && file.name().is_some() {
                continue;
            }
            match file.copy_in((argument.skip, argument.len), self.arena, &alloc) {
                Some(Ok(block)) => {
                    let at = bytemuck::cast(block.extent().at);
                    for (word, value) in (argument.word + 1..).zip([COPIED, at, 0]) {
                        self.words_mut()[word] = value;
                    }
                    self.leases[argument.lease] = Lease::Shared(block);
                }
                Some(Err(full)) => self.full = Some(full),
                None => self.foreign = true,
            }
        }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        if self.len <= INLINE_WORDS {
            &mut self.inline[..self.len]
        } else {
            &mut self.long
        }
    }

    /// Returns all words.
    #[inline]
    pub(crate) fn words(&self) -> &[u64] {
        if self.len <= INLINE_WORDS {
            &self.inline[..self.len]
        } else {
            &self.long
        }
    }
}

/// Converts bytes to words. Pads the last word with zeros.
#[inline]
fn words_of(bytes: &[u8]) -> impl ExactSizeIterator<Item = u64> {
    bytes.chunks(8).map(|chunk| match chunk.try_into() {
        Ok(whole) => u64::from_ne_bytes(whole),
        Err(_) => {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        }
    })
}

fn write_shape(shape: &Shape, mut word: impl FnMut(u64)) {
    word(shape.rank() as u64);
    shape.dims().iter().for_each(|&dim| word(dim as u64));
}

fn read_shape(mut word: impl FnMut() -> Result<u64, Malformed>) -> Result<Shape, Malformed> {
    let rank = word()?;
    let mut dims = [0usize; crate::array::MAX_DIMS];
    let dims = dims
        .get_mut(..usize::try_from(rank).unwrap_or(usize::MAX))
        .ok_or(Malformed)?;
    for dim in dims.iter_mut() {
        *dim = usize::try_from(word()?).map_err(|_| Malformed)?;
    }
    Shape::try_from(&*dims).map_err(|_| Malformed)
}

/// The error for words that do not match what their reader expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads words in the order in which they were written.
#[derive(Clone, Debug)]
pub(crate) struct WordReader<'a> {
    words: &'a [u64],
}

impl<'a> WordReader<'a> {
    pub(crate) fn new(words: &'a [u64]) -> Self {
        Self { words }
    }

    /// Returns the number of words that are left.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    #[inline]
    pub(crate) fn word(&mut self) -> Result<u64, Malformed> {
        let (first, rest) = self.words.split_first().ok_or(Malformed)?;
        self.words = rest;
        Ok(*first)
    }

    /// Reads `len` bytes that [`ArgWriter::bytes`] has written.
    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let count = len.div_ceil(8);
        if count > self.words.len() {
            return Err(Malformed);
        }
        let (these, rest) = self.words.split_at(count);
        self.words = rest;
        Ok(&bytemuck::cast_slice(these)[..len])
    }

    /// Splits off a reader of the next `len` words.
    pub(crate) fn split(&mut self, len: usize) -> Result<WordReader<'a>, Malformed> {
        let (these, rest) = self.words.split_at_checked(len).ok_or(Malformed)?;
        self.words = rest;
        Ok(WordReader::new(these))
    }

    pub(crate) fn offset(&mut self) -> Result<Offset, Malformed> {
        Ok(bytemuck::cast(self.word()?))
    }

    /// Reads the words after the offset of an array in a sealed file: the name of the file, or the offset of a copy.
    pub(crate) fn file(&mut self) -> Result<Result<FileName, Offset>, Malformed> {
        let (fd, first, second) = (self.word()?, self.word()?, self.word()?);
        if fd == COPIED {
            return Ok(Err(bytemuck::cast(first)));
        }
        let fd = u32::try_from(fd).map_err(|_| Malformed)?;
        Ok(Ok(FileName {
            fd,
            identity: (first, second),
        }))
    }

    pub(crate) fn shape(&mut self) -> Result<Shape, Malformed> {
        read_shape(|| self.word())
    }
}

/// An array in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SentArray {
    /// The whole allocation. Equal to `view` for a parameter that is sent back.
    pub(crate) chunk: Extent,
    /// The bytes of the array.
    pub(crate) view: Extent,
}

/// The number of words of a [`SentArray`].
pub(crate) const SENT_WORDS: usize = 4;
/// The number of words of an [`Extent`], which describes a retained array.
pub(crate) const EXTENT_WORDS: usize = 2;

impl SentArray {
    pub(crate) fn words(self) -> [u64; SENT_WORDS] {
        let Self { chunk, view } = self;
        [
            bytemuck::cast(chunk.at),
            chunk.len,
            bytemuck::cast(view.at),
            view.len,
        ]
    }

    /// Reads an array that the lane retains.
    pub(crate) fn read_retained(words: &mut WordReader<'_>) -> Result<Self, Malformed> {
        let view = Extent {
            at: words.offset()?,
            len: words.word()?,
        };
        Ok(Self { chunk: view, view })
    }

    pub(crate) fn read(words: &mut WordReader<'_>) -> Result<Self, Malformed> {
        let chunk = Extent {
            at: words.offset()?,
            len: words.word()?,
        };
        let view = Extent {
            at: words.offset()?,
            len: words.word()?,
        };
        Ok(Self { chunk, view })
    }
}

/// Writes a reply, in the worker: arrays first, then the words that describe the value.
#[derive(Debug, Default)]
pub(crate) struct ReplyWriter {
    /// One of [`kind`]. By default a value.
    pub(crate) kind: u8,
    /// The arrays, in the order of the value.
    pub(crate) arrays: SmallVec<[SentArray; 2]>,
    /// Shapes, scalars, lengths.
    pub(crate) words: SmallVec<[u64; INLINE_WORDS]>,
}

impl ReplyWriter {
    pub(crate) fn word(&mut self, word: u64) {
        self.words.push(word);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.words.extend(words_of(bytes));
    }

    pub(crate) fn shape(&mut self, shape: &Shape) {
        write_shape(shape, |word| self.words.push(word));
    }
}

/// An array of a reply, checked by the supervisor.
#[derive(Debug)]
pub(crate) struct ReceivedArray {
    pub(crate) block: Arc<Block>,
    /// The number of bytes between the start of the block and the array.
    pub(crate) skip: u64,
    pub(crate) len: u64,
}

impl ReceivedArray {
    /// Returns the bytes of the array.
    pub(crate) fn extent(&self) -> Extent {
        let at = self.block.extent().at;
        Extent {
            at: Offset::new(at.region(), at.offset() + self.skip),
            len: self.len,
        }
    }

    /// Returns another lease on the same array.
    pub(crate) fn share(&self) -> Self {
        Self {
            block: Arc::clone(&self.block),
            ..*self
        }
    }
}

/// Reads a reply, in the supervisor.
#[derive(Debug)]
pub(crate) struct ReplyReader<'a> {
    pub(crate) words: WordReader<'a>,
    pub(crate) arrays: smallvec::IntoIter<[ReceivedArray; 1]>,
}

#[cfg(test)]
mod tests;
