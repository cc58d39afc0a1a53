//! Reads replies that spawn jobs ([kernel](../../kernel/spawn.rs) has the format), and writes the calls of their tasks.
//!
//! The reply is untrusted: each number is checked before use, an entry must point to code of this program and is only
//! passed to workers, and a name is only text. After [`SpawnReply::read`], the words are private and complete.

use std::sync::Arc;

use crate::arena::{ArenaFull, Block, Offset};
use crate::array::{Array, ArrayMut, Shape};
use crate::kernel::wire::{ArgWriter, Lease, Malformed, ReceivedArray, WordReader};
use crate::kernel::{CHILDREN, GIVEN, MOVED, NAME_LIMIT, SPAWNS};
use crate::sys::image::image;
use crate::trace::escape;

/// Maximum number of kernels in one reply.
const MAX_KERNELS: u64 = 1024;

/// A kernel in a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedKernel {
    /// Offset of the entry for tasks.
    pub(crate) entry: u64,
    /// Offset of the entry for plain calls.
    pub(crate) plain: u64,
    pub(crate) spawns: bool,
    pub(crate) name: String,
}

/// A task of a reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpawnedTask {
    /// Index of the kernel in the reply.
    pub(super) kernel: u32,
    arguments: u32,
    /// Index of the first word of the task's arguments.
    at: u32,
    /// Index of the first array of the task's arguments.
    array: u32,
    /// Whether the task changes some of its arguments. Then it may not run twice.
    pub(super) moved: bool,
}

/// A checked reply that spawns jobs.
#[derive(Debug)]
pub(crate) struct SpawnReply {
    words: Vec<u64>,
    arrays: Vec<Option<ReceivedArray>>,
    pub(super) kernels: Vec<NamedKernel>,
    /// The children, then the task that takes their values.
    pub(super) tasks: Vec<SpawnedTask>,
}

/// The value of a child: words and arrays.
pub(super) struct ChildValue {
    pub(super) words: Vec<u64>,
    pub(super) arrays: smallvec::SmallVec<[ReceivedArray; 1]>,
}

const LOW: u64 = u32::MAX as u64;

impl SpawnReply {
    /// Returns the number of tasks in a list, as its header claims. The rest of the list is not read.
    pub(super) fn tasks_in(words: &[u64]) -> u64 {
        words.first().map_or(0, |head| (head >> 32) + 1)
    }

    pub(super) fn read(words: Vec<u64>, arrays: Vec<ReceivedArray>) -> Result<Self, String> {
        let reply = read(&words, arrays.len());
        let (kernels, tasks) =
            reply.map_err(|Malformed| "a malformed list of jobs to spawn".to_owned())?;
        let code = |offset: u64| {
            let base = image().base as u64;
            let address = base.checked_add(offset);
            address.is_some_and(|address| image().is_code(address as usize))
        };
        if let Some(stray) = kernels.iter().find(|k| !code(k.entry) || !code(k.plain)) {
            return Err(format!(
                "a kernel at {:#x}, which is not code of this program",
                stray.entry
            ));
        }
        Ok(Self {
            words,
            arrays: arrays.into_iter().map(Some).collect(),
            kernels,
            tasks,
        })
    }

    /// Writes the call of a task. `child` returns the value of the next child each time.
    pub(super) fn load(
        &mut self,
        task: usize,
        call: &mut ArgWriter,
        mut child: impl FnMut() -> Option<ChildValue>,
    ) -> Result<(), Unloaded> {
        let SpawnedTask {
            arguments,
            at,
            array,
            ..
        } = self.tasks[task];
        let mut words = WordReader::new(&self.words[at as usize..]);
        let mut arrays = self.arrays[array as usize..].iter_mut();
        for _ in 0..arguments {
            let head = words.word()?;
            let (moved, values) = (head & MOVED != 0, head >> 32);
            call.word(values);
            for _ in 0..values {
                if head & 0xff == CHILDREN {
                    let value = child().ok_or(Malformed)?;
                    call.word(value.arrays.len() as u64 | (value.words.len() as u64) << 32);
                    for received in value.arrays {
                        write_array(received, moved, call)?;
                    }
                    value.words.iter().for_each(|&word| call.word(word));
                    continue;
                }
                let about = words.word()?;
                call.word(about);
                for _ in 0..about & LOW {
                    let received = arrays.next().and_then(Option::take).ok_or(Malformed)?;
                    write_array(received, moved, call)?;
                }
                for _ in 0..about >> 32 {
                    call.word(words.word()?);
                }
            }
        }
        self.free_sent(task);
        Ok(())
    }

    /// Frees the words of sent tasks: a run may wait long for its children, as may runs nested in it.
    fn free_sent(&mut self, task: usize) {
        match &mut self.tasks[task + 1..] {
            [] => self.words = Vec::new(),
            [last] => {
                self.words.drain(..std::mem::take(&mut last.at) as usize);
                self.words.shrink_to_fit();
            }
            _ => {}
        }
    }
}

/// Why a call cannot be written.
#[derive(Debug)]
pub(super) enum Unloaded {
    /// The arena has no room for a copy on pages of its own.
    Full(ArenaFull),
    /// A child has no value, or the list is inconsistent. Both are bugs.
    Malformed,
}

impl From<Malformed> for Unloaded {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Reads the kernels and the position of each task. Checks that the words are complete.
fn read(words: &[u64], arrays: usize) -> Result<(Vec<NamedKernel>, Vec<SpawnedTask>), Malformed> {
    let mut rest = WordReader::new(words);
    let head = rest.word()?;
    let (count, children) = (head & LOW, head >> 32);
    if count == 0 || count > MAX_KERNELS {
        return Err(Malformed);
    }
    let mut kernels = Vec::new();
    for _ in 0..count {
        let (entry, plain, about) = (rest.word()?, rest.word()?, rest.word()?);
        let len = about & !SPAWNS;
        if len > NAME_LIMIT as u64 {
            return Err(Malformed);
        }
        let name = rest.bytes(len as usize)?;
        kernels.push(NamedKernel {
            entry,
            plain,
            spawns: about & SPAWNS != 0,
            name: escape::escape_line(name, NAME_LIMIT, 0),
        });
    }
    let mut tasks = Vec::new();
    let (mut array, mut taken) = (0u64, 0u64);
    // Each task takes at least one word, so a count that is too large ends with an error.
    for number in 0..=children {
        let head = rest.word()?;
        let (kernel, arguments) = (head & LOW, head >> 32);
        if kernel >= count {
            return Err(Malformed);
        }
        let mut task = SpawnedTask {
            kernel: kernel as u32,
            arguments: arguments as u32,
            at: (words.len() - rest.len()) as u32,
            array: array as u32,
            moved: false,
        };
        for _ in 0..arguments {
            let head = rest.word()?;
            let values = head >> 32;
            task.moved |= head & MOVED != 0;
            match head & LOW & !MOVED {
                GIVEN => {
                    for _ in 0..values {
                        let about = rest.word()?;
                        array += about & LOW;
                        if array > arrays as u64 {
                            return Err(Malformed);
                        }
                        rest.split((about >> 32) as usize)?;
                    }
                }
                CHILDREN if number == children => {
                    taken += values;
                    if taken > children {
                        return Err(Malformed);
                    }
                }
                _ => return Err(Malformed),
            }
        }
        tasks.push(task);
    }
    if rest.len() > 0 || array != arrays as u64 || taken != children {
        return Err(Malformed);
    }
    Ok((kernels, tasks))
}

/// Writes an array into a call, with its lease.
fn write_array(received: ReceivedArray, moved: bool, call: &mut ArgWriter) -> Result<(), Unloaded> {
    let ReceivedArray { block, skip, len } = received;
    let block = if moved {
        call.exclusive = true;
        Arc::new(make_exclusive(block, skip, len)?)
    } else {
        block
    };
    let at = block.extent().at;
    let skip = if moved { 0 } else { skip };
    call.word(bytemuck::cast(Offset::new(at.region(), at.offset() + skip)));
    call.word(len);
    call.leases.push(if moved {
        Lease::Owned(block)
    } else {
        Lease::Shared(block)
    });
    Ok(())
}

/// Returns the bytes of an array as a block that no other handle refers to, on pages of its own.
fn make_exclusive(block: Arc<Block>, skip: u64, len: u64) -> Result<Block, Unloaded> {
    let shape = Shape::from(len as usize);
    let mut array = match Arc::try_unwrap(block) {
        Ok(block) => ArrayMut::<u8>::from_block(block, skip, shape),
        Err(shared) => copy(&shared, skip, shape)?,
    };
    array.own_block().map_err(Unloaded::Full)?;
    let (block, _) = array.into_block().map_err(|_| Unloaded::Malformed)?;
    Ok(block)
}

fn copy(block: &Arc<Block>, skip: u64, shape: Shape) -> Result<ArrayMut<u8>, Unloaded> {
    let from = Array::<u8>::from_block(Arc::clone(block), skip, shape);
    let len = from.len() as u64;
    let to = block
        .arena()
        .alloc(0, len, crate::arena::BlockPlacement::Pages)
        .map_err(Unloaded::Full)?;
    let mut copy = ArrayMut::<u8>::from_block(to, 0, shape);
    copy.copy_from_slice(&from);
    Ok(copy)
}

#[cfg(test)]
mod tests;
