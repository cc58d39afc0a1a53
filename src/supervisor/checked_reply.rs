//! Takes over the memory of replies, and checks where it lies.

use std::sync::Arc;

use smallvec::SmallVec;

use super::config::Config;
use super::lane::Lane;
use super::lanes::Lanes;
use crate::arena::Arena;
use crate::kernel::MAX_ARRAYS;
use crate::kernel::wire::{
    EXTENT_WORDS, Lease, MAX_REPLY_WORDS, ReceivedArray, SENT_WORDS, SentArray, WordReader,
};
use crate::link::{INLINE_WORDS, MAX_RETAINED, Reply};

/// A reply that was checked, and whose memory was taken over.
#[derive(Debug)]
pub(super) struct CheckedReply {
    pub(super) arrays: SmallVec<[ReceivedArray; 1]>,
    /// The words of the value, without those that describe arrays. Empty if they stay in the arena.
    pub(super) words: SmallVec<[u64; INLINE_WORDS]>,
    /// The words of the value, if they stay in the arena.
    pub(super) in_arena: Option<ReceivedArray>,
    pub(super) bytes: u64,
}

impl CheckedReply {
    /// Returns all arrays, and the block of the words if it stays in the arena.
    #[cfg(feature = "sandbox")]
    pub(super) fn blocks(&mut self) -> impl Iterator<Item = &mut ReceivedArray> {
        self.arrays.iter_mut().chain(&mut self.in_arena)
    }

    /// Returns the maximum number of bytes that [`copy_out`](super::copy_out::copy_out) copies: whole blocks, of which
    /// an array may be a small part.
    #[cfg(feature = "sandbox")]
    pub(super) fn bytes_to_copy(&self) -> u64 {
        let blocks = self.arrays.iter().chain(&self.in_arena);
        let extents = blocks.map(|array| array.block.extent());
        let fresh = extents.filter(|extent| extent.at.region() != 0);
        fresh.fold(0, |bytes, extent| bytes.saturating_add(extent.len))
    }

    /// Returns the words of the value, and the arrays.
    pub(super) fn into_words(self) -> (Vec<u64>, Vec<ReceivedArray>) {
        (self.words.into_vec(), self.arrays.into_vec())
    }
}

impl Lanes {
    /// Takes over the memory of a reply. If `stays`, its words stay in the arena, except those that describe arrays.
    ///
    /// # Errors
    ///
    /// A description of what is wrong with the reply.
    pub(super) fn unpack(
        &mut self,
        lane: usize,
        (arena, config): (&Arc<Arena>, &Config),
        reply: &Reply,
        leases: &[Lease],
        stays: bool,
    ) -> Result<CheckedReply, String> {
        let arrays = usize::from(reply.arrays);
        if arrays > MAX_ARRAYS {
            return Err(format!("a reply of {arrays} arrays"));
        }
        let most_retained = if config.retains { MAX_RETAINED } else { 0 };
        let retained = usize::try_from(reply.retained)
            .ok()
            .filter(|&retained| retained <= most_retained)
            .ok_or_else(|| format!("a reply that retains {} arrays", reply.retained))?;
        let skip = arrays * SENT_WORDS + retained * EXTENT_WORDS;
        let sent = (arrays, skip);
        let mut checked = self[lane].unpack_all(arena, reply, leases, sent, stays)?;
        if retained > 0 {
            let left = checked.arrays.drain(arrays..).map(|array| array.block);
            let lane_state = &mut self[lane];
            lane_state.retained_mut().add(arena, left, leases)?;
            self.note_retaining(lane);
            crate::sync::point!("retain.recorded");
        }
        Ok(checked)
    }
}

impl Lane {
    /// Takes over the memory of a reply. The last arrays of a reply are the arrays that the lane retains.
    fn unpack_all(
        &mut self,
        arena: &Arc<Arena>,
        reply: &Reply,
        leases: &[Lease],
        (arrays, skip): (usize, usize),
        stays: bool,
    ) -> Result<CheckedReply, String> {
        if !reply.spilled {
            let words = reply
                .words
                .get(..reply.len as usize)
                .filter(|words| words.len() >= skip)
                .ok_or("a reply longer than its slot")?;
            let sent = read_sent(&words[..skip], arrays)?;
            let taken = self.receive(arena, reply, &sent, leases)?;
            return Ok(CheckedReply {
                arrays: taken.arrays,
                words: SmallVec::from_slice(&words[skip..]),
                in_arena: None,
                bytes: taken.bytes,
            });
        }
        // The words lie in a block of their own, the first block of the reply. The arrays that they describe come out
        // of the same grants, so all are taken together.
        let at = bytemuck::cast::<u64, crate::arena::Offset>(reply.words[0]);
        let extent = crate::arena::Extent {
            at,
            len: reply.words[1],
        };
        if extent.len != u64::from(reply.len) * 8 || reply.len as usize > MAX_REPLY_WORDS {
            return Err(format!(
                "a reply of {} words in {} bytes",
                reply.len, extent.len
            ));
        }
        // Only granted memory is read: a page without memory would kill this process by SIGBUS.
        if !self.grants().contain(extent) {
            return Err(format!("a reply at {extent:?}, which was not granted"));
        }
        let len = match stays {
            true => skip,
            false => reply.len as usize,
        };
        if skip > reply.len as usize {
            return Err("a reply shorter than its arrays".into());
        }
        let copied = crate::arena::Extent {
            len: len as u64 * 8,
            ..extent
        };
        let mut words = arena
            .copy_words(copied)
            .map_err(|error| error.to_string())?;
        let mut sent = read_sent(&words[..skip], arrays)?;
        sent.push(SentArray {
            chunk: extent,
            view: extent,
        });
        let mut taken = self.receive(arena, reply, &sent, leases)?;
        let block = taken.arrays.pop().filter(|_| stays);
        words.drain(..skip);
        Ok(CheckedReply {
            arrays: taken.arrays,
            words: words.into(),
            in_arena: block.map(|block| ReceivedArray {
                skip: block.skip + skip as u64 * 8,
                len: block.len - skip as u64 * 8,
                ..block
            }),
            bytes: taken.bytes,
        })
    }
}

/// Reads the descriptors of arrays: first those of the value, then those of arrays that the lane retains.
fn read_sent(words: &[u64], arrays: usize) -> Result<SmallVec<[SentArray; 2]>, String> {
    let mut reader = WordReader::new(words);
    let mut sent = SmallVec::new();
    while reader.len() > 0 {
        let array = match sent.len() < arrays {
            true => SentArray::read(&mut reader),
            false => SentArray::read_retained(&mut reader),
        };
        sent.push(array.map_err(|_| "a cut list of arrays".to_owned())?);
    }
    Ok(sent)
}
