//! What a reply that spawns says ([kernel](../../kernel/spawn.rs) has the form), and the calls that follow from it.
//!
//! Nothing of it is believed: each number is looked at before it is used, an entry has to be code of this program and is only
//! handed on to workers, a name is only a name. After [`Told::read`] the words are private and known to be whole.

use std::sync::Arc;

use crate::arena::{ArenaFull, Block, Offset};
use crate::array::{Array, ArrayMut, Shape};
use crate::kernel::wire::{ArgWriter, Lease, Malformed, ReceivedArray, WordReader};
use crate::kernel::{CHILDREN, GIVEN, MOVED, NAME_LIMIT, SPAWNS};
use crate::supervisor::plain;
use crate::sys::image::image;

/// How many jobs may wait for each other, each for one that it spawned.
pub(crate) const MOST_DEEP: u32 = 10_000;
/// Jobs that were spawned and have not ended.
pub(crate) const MOST_OPEN: u64 = 1 << 18;
/// Kernels that one reply may name.
const MOST_KERNELS: u64 = 1024;

/// A kernel that a reply names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelTold {
    /// Offset of the entry for tasks.
    pub(crate) entry: u64,
    /// Offset of the entry for plain calls.
    pub(crate) plain: u64,
    pub(crate) spawns: bool,
    pub(crate) name: String,
}

/// A task of a reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    /// Which of the kernels.
    pub(super) kernel: u32,
    arguments: u32,
    /// Where its arguments begin, among the words and the arrays.
    at: u32,
    array: u32,
    /// It changes some of what it takes, and so may not run twice.
    pub(super) moved: bool,
}

/// A reply that spawns, read.
#[derive(Debug)]
pub(super) struct Told {
    words: Vec<u64>,
    arrays: Vec<Option<ReceivedArray>>,
    pub(super) kernels: Vec<KernelTold>,
    /// The children, and at the end what goes on with their values.
    pub(super) tasks: Vec<Task>,
}

/// A value of a child: its words, and its arrays.
pub(super) struct ChildValue<'a> {
    pub(super) words: &'a [u64],
    pub(super) arrays: smallvec::SmallVec<[ReceivedArray; 1]>,
}

const LOW: u64 = u32::MAX as u64;

impl Told {
    /// How many tasks a list says that it has, which is not read yet.
    pub(super) fn tasks_in(words: &[u64]) -> u64 {
        words.first().map_or(0, |head| (head >> 32) + 1)
    }

    pub(super) fn read(words: Vec<u64>, arrays: Vec<ReceivedArray>) -> Result<Self, String> {
        let told = read(&words, arrays.len());
        let (kernels, tasks) =
            told.map_err(|Malformed| "a list of jobs to spawn that is none".to_owned())?;
        let code = |offset: u64| {
            let base = image().base as u64;
            let address = base.checked_add(offset);
            address.is_some_and(|address| image().is_code(address as usize))
        };
        if let Some(wild) = kernels.iter().find(|k| !code(k.entry) || !code(k.plain)) {
            return Err(format!("a kernel at {:#x}, where no code is", wild.entry));
        }
        Ok(Self {
            words,
            arrays: arrays.into_iter().map(Some).collect(),
            kernels,
            tasks,
        })
    }

    /// Writes the call of a task; `child` gives the value of the next child each time.
    pub(super) fn load<'a>(
        &mut self,
        task: usize,
        call: &mut ArgWriter,
        mut child: impl FnMut() -> Option<ChildValue<'a>>,
    ) -> Result<(), Unloaded> {
        let Task {
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
        self.forget_sent(task);
        Ok(())
    }

    /// Behind the last child: the words of all of them are not needed any more, however long the family waits for their values, and
    /// families within it for theirs.
    fn forget_sent(&mut self, task: usize) {
        match &mut self.tasks[task + 1..] {
            [] => self.words = Vec::new(),
            [last] => {
                self.words.drain(..std::mem::take(&mut last.at) as usize);
                self.words.shrink_to_fit();
            }
            _ => {}
        }
    }

    /// What it held for tasks that will never run.
    pub(super) fn forget(&mut self) {
        self.arrays.clear();
        self.words = Vec::new();
    }
}

/// A call that cannot be written.
#[derive(Debug)]
pub(super) enum Unloaded {
    /// There was no room for pages of its own.
    Full(ArenaFull),
    /// A child has no value, or the list is none: neither can be.
    Malformed,
}

impl From<Malformed> for Unloaded {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The kernels, and where each task is; the words are whole from then on.
fn read(words: &[u64], arrays: usize) -> Result<(Vec<KernelTold>, Vec<Task>), Malformed> {
    let mut rest = WordReader::new(words);
    let head = rest.word()?;
    let (count, children) = (head & LOW, head >> 32);
    if count == 0 || count > MOST_KERNELS {
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
        kernels.push(KernelTold {
            entry,
            plain,
            spawns: about & SPAWNS != 0,
            name: plain::line(name, NAME_LIMIT, 0),
        });
    }
    let mut tasks = Vec::new();
    let (mut array, mut taken) = (0u64, 0u64);
    // Each task has a word at least, so a number that is not true ends with an error.
    for number in 0..=children {
        let head = rest.word()?;
        let (kernel, arguments) = (head & LOW, head >> 32);
        if kernel >= count {
            return Err(Malformed);
        }
        let mut task = Task {
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

/// An array into a call, with its lease.
fn write_array(received: ReceivedArray, moved: bool, call: &mut ArgWriter) -> Result<(), Unloaded> {
    let ReceivedArray { block, skip, len } = received;
    let block = if moved {
        call.exclusive = true;
        Arc::new(of_its_own(block, skip, len)?)
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

/// The bytes of an array as a block that nobody else has, with no other in its pages.
fn of_its_own(block: Arc<Block>, skip: u64, len: u64) -> Result<Block, Unloaded> {
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
        .alloc(0, len, crate::arena::Placement::Pages)
        .map_err(Unloaded::Full)?;
    let mut copy = ArrayMut::<u8>::from_block(to, 0, shape);
    copy.copy_from_slice(&from);
    Ok(copy)
}

#[cfg(test)]
mod tests;
