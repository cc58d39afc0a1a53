//! Memory for bindings of other languages: buffers of bytes that a job reads or changes, without a reference to them,
//! and values of other jobs. Hidden in the documentation: it may change in any version.
//!
//! A binding (say, of Python) hands the bytes of an [`Array<u8>`](crate::Array) to objects of its language by address
//! ([`Array::as_ptr`](crate::Array::as_ptr)), passes them to a job as [`Buffer`]s, and hands the address of each
//! [`Received`] array to code of that language in the worker.
//!
//! # Memory that another language changes
//!
//! A Rust reference to elements promises that they do not change while it exists. Code of another language makes no
//! such promise: it may write to an array of this process through an address, even while a job reads it. That is sound
//! if no reference to the elements exists at that time, in any process. So a binding that lets its language write to an
//! array
//!
//! - never dereferences the array, a clone or a part of it. These methods form no reference: `as_ptr`, `len`,
//!   `is_empty`, `shape`, `rows`, `row`, `reshape`, `clone`, `drop`, and the functions of this module;
//! - passes it to jobs only as a `Buffer`, to a kernel that follows the same rule. A kernel that takes `&[u8]` or
//!   `&Array<u8>` reads through references.
//!
//! A job that reads bytes while they change may read a mixture of old and new bytes.
//!
//! ```
//! use arenite::raw::{Buffer, Buffers, Received};
//!
//! /// A function of another language: adds 1 to `len` bytes.
//! unsafe extern "C" fn increment(bytes: *mut u8, len: usize) {
//!     for at in 0..len {
//!         // SAFETY: its caller passes the address of `len` bytes.
//!         unsafe { *bytes.add(at) += 1 };
//!     }
//! }
//!
//! fn run(buffers: Buffers<'_>) -> u64 {
//!     let mut read = 0;
//!     for buffer in buffers {
//!         match buffer {
//!             Received::Read(array) => read += array.len() as u64,
//!             // SAFETY: the bytes are lent to this job alone.
//!             Received::Write(mut array) => unsafe { increment(array.as_mut_ptr(), array.len()) },
//!             Received::Value((number, ..)) => read += number,
//!         }
//!     }
//!     read
//! }
//!
//! # let engine = arenite::Engine::inline();
//! let table = engine.from_slice(&[1u8, 2, 3, 4])?;
//! // SAFETY: nothing else accesses bytes 1 and 2 before the job is answered.
//! let middle = unsafe { Buffer::write(table.rows(1..3)) };
//! let job = engine.submit(run, (vec![Buffer::read(table.rows(3..)), middle],));
//! assert_eq!(job.wait()?, 1);
//! assert_eq!(table[..], [1, 3, 4, 4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::{fmt, io};

use super::bytes::Bytes;
use super::failure::BadArgument;
use super::param::{
    Arg, CallWriter, HostRef, Key, Param, RetrySafe, Words, read_array, receive_array, sealed,
    send_array, window_at,
};
use super::reply::{AnyValue, BadReply, Receiving};
use super::wire::{Lease, Malformed};
use crate::array::{Array, ArrayLocation, ArrayMut, MapError};
use crate::sys::Segment;

#[doc(hidden)]
pub mod memory {
    //! Files, maps and leases, for the crate in `python/memory`. For no one else: they change without notice.
    //!
    //! A [`Map`] has addresses and no references, and its methods change no byte. The file of an arena is not given
    //! out: [`PrivateMap::of`] maps its bytes copy-on-write. Memory becomes that of an array only by
    //! [`SealedFile::lease`], which is `unsafe`.

    pub use crate::array::{PrivateMap, SealedFile};
    pub use crate::sys::fork::{AfterFork, OwnerProcess, run_around_forks};
    pub use crate::sys::inject::allowed;
    pub use crate::sys::limits::{
        DataRoom, address_space_limit, file_size_limit, memory_available,
    };
    pub use crate::sys::{Access, HUGE, Map, PAGE, Prot, Segment};
}

/// Maps a sealed memory file (`memfd_create`) as an array of its bytes. Jobs of any engine take the array without a
/// copy.
///
/// The file needs the seals `F_SEAL_WRITE`, `F_SEAL_GROW` and `F_SEAL_SHRINK`: then no process can change it, so
/// references to its elements are sound. Workers open the file through its descriptor in this process, which stays open
/// while there are handles to the array. The descriptor is closed at once if the file has at most 64 KiB, or if more
/// than half of the descriptors that this process may have (`RLIMIT_NOFILE`) are open; jobs then get a copy. Jobs of
/// sandboxed workers always get a copy.
///
/// ```
/// # use std::{fs::File, io::Write, os::fd::OwnedFd};
/// # use nix::{fcntl::{FcntlArg, SealFlag, fcntl}, sys::memfd::{MFdFlags, memfd_create}};
/// let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
/// let mut file = File::from(memfd_create("table", flags)?);
/// file.write_all(b"three words here")?;
/// let refused = arenite::raw::map_sealed(file.try_clone()?.into()).unwrap_err();
/// assert!(refused.to_string().contains("seal"), "{refused}");
///
/// let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
/// fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
/// let table = arenite::raw::map_sealed(file.into())?;
/// assert_eq!(table[..], *b"three words here");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If `file` is no memory file, lacks a seal, or cannot be mapped.
pub fn map_sealed(file: OwnedFd) -> io::Result<Array<u8>> {
    let segment = Segment::from(file);
    let len = usize::try_from(segment.stat()?.len).unwrap_or(usize::MAX);
    Array::map_sealed(segment.into(), len, ()).map_err(|error| match error {
        MapError::System(error) => error.into(),
        error => io::Error::new(io::ErrorKind::InvalidInput, error),
    })
}

/// Bytes for a job: the elements of an array, which the job reads or changes in place, or the value of another job.
#[derive(Debug)]
pub struct Buffer<'a> {
    content: Content,
    job: PhantomData<&'a ()>,
}

/// What a job of another language returns, so that another job can take it: a number, bytes and arrays, in an encoding
/// that only the binding knows.
pub type Value = (u64, Bytes, Vec<Array<u8>>);

enum Content {
    /// An array, and how the job accesses it.
    Array(Array<u8>, u64),
    /// A job that has been submitted, as the supervisor names it; the arena of its engine; and the error in another
    /// engine.
    Job(u64, u64, fn() -> AnyValue),
    /// The value of a job that has ended, or why it has none.
    Ended(Value),
    Failed(Reason),
}

/// Makes an error in a type of the engine.
type Reason = Box<dyn Fn() -> AnyValue + Send>;

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Array(array, access) => {
                f.debug_tuple("Array").field(array).field(access).finish()
            }
            Self::Job(job, ..) => f.debug_tuple("Job").field(job).finish(),
            Self::Ended(value) => f.debug_tuple("Ended").field(value).finish(),
            Self::Failed(_) => f.write_str("Failed"),
        }
    }
}

/// How a job accesses a buffer: its first word.
const READ: u64 = 0;
const WRITE: u64 = 1;
const WRITE_PARTS: u64 = 2;
/// The buffer is the value of another job.
const VALUE: u64 = 3;

impl Buffer<'_> {
    /// Lets the job read the elements of an array. The array may be any part of a larger one.
    pub fn read(array: Array<u8>) -> Self {
        Content::Array(array, READ).into()
    }

    /// The value of a job that was submitted to the engine of this arena.
    pub(crate) fn of_job(job: u64, arena: u64, foreign: fn() -> AnyValue) -> Self {
        Content::Job(job, arena, foreign).into()
    }

    /// The value of a job that has ended, or why it has none.
    pub(crate) fn of_ended(value: Result<Value, Reason>) -> Self {
        value.map_or_else(Content::Failed, Content::Ended).into()
    }

    /// Lends the elements of an array to one job, which changes them in place. The array may be any part of a larger
    /// one, and may share pages with other parts.
    ///
    /// The memory stays in use until the job is answered, even if every handle is dropped earlier. Such a job never
    /// runs twice, whatever its [options](crate::JobOptions) are, and changes stay if the job fails. A sandboxed engine
    /// rejects the job with [`Rejection::Lending`](crate::Rejection::Lending); so does every engine if the buffer is an
    /// argument of an actor's initial kernel. While the job runs, its worker can write to the whole pages around the
    /// bytes.
    ///
    /// # Safety
    ///
    /// From the call that submits the job until the job is answered,
    ///
    /// - no reference to these bytes exists, neither in this process nor in another job;
    /// - these bytes overlap no buffer that another job changes, and no other buffer of the same job. The worker checks
    ///   only the buffers of its job; the engine does not compare jobs with each other.
    ///
    /// If the handle of the job was dropped, the job may still run: then this must hold until the engine has ended.
    ///
    /// The kernel may form references to the bytes that it receives only if nothing else reads or writes them through
    /// an address in this time.
    pub unsafe fn write(array: Array<u8>) -> Self {
        Content::Array(array, WRITE).into()
    }

    /// Like [`write`](Self::write), for a job that changes only some of these bytes, such as the rows of a tile. Other
    /// jobs, and other buffers of the same job, may read and change the bytes in between.
    ///
    /// # Safety
    ///
    /// What [`write`](Self::write) requires holds for the bytes that the job changes; nothing is checked. No job forms
    /// a reference to bytes of this buffer, and no array of the same job that is no `Buffer` contains any of them.
    pub unsafe fn write_parts(array: Array<u8>) -> Self {
        Content::Array(array, WRITE_PARTS).into()
    }

    fn send(self, call: &mut CallWriter) {
        let (array, access) = match self.content {
            Content::Array(array, access) => (array, access),
            Content::Job(job, arena, foreign) => {
                call.0.word(VALUE);
                return match arena == call.0.arena() {
                    true => call.input_by(job, forward),
                    false => call.fail(foreign()),
                };
            }
            Content::Ended(value) => {
                call.0.word(VALUE);
                return send_value(&value, call);
            }
            Content::Failed(why) => return call.fail(why()),
        };
        call.0.word(access);
        if access == READ {
            return send_array(&array, call);
        }
        match array.location() {
            ArrayLocation::Block(block, extent) if block.arena_id() == call.0.arena() => {
                call.0.array(extent, &array.shape());
                let block = Arc::clone(block);
                call.0.leases.push(Lease::Loan { block, extent });
                call.0.exclusive = true;
                call.0.once = true;
            }
            _ => call.0.foreign = true,
        }
    }

    fn hold(self) -> Received {
        match self.content {
            Content::Array(array, READ) => Received::Read(array),
            // SAFETY: the caller of `write` guarantees that nothing else refers to the bytes while the kernel runs, the
            // caller of `write_parts` that the kernel forms no reference. The kernel is called inline, on this thread.
            Content::Array(array, _) => Received::Write(unsafe { ArrayMut::from_loan(array) }),
            Content::Ended(value) => Received::Value(value),
            Content::Job(..) | Content::Failed(_) => unreachable!("`Arg::failed` has said so"),
        }
    }
}

impl From<Content> for Buffer<'_> {
    fn from(content: Content) -> Self {
        Self {
            content,
            job: PhantomData,
        }
    }
}

fn send_value((number, bytes, arrays): &Value, call: &mut CallWriter) {
    call.0.word(*number);
    Arg::<&Bytes>::send(bytes, call);
    call.0.word(arrays.len() as u64);
    arrays.iter().for_each(|array| send_array(array, call));
}

/// See [`Forward`](super::inputs::Forward).
fn forward(reply: &mut Receiving<'_>, call: &mut CallWriter) -> Result<(), BadReply> {
    let value = <Value as super::reply::Value>::receive(reply)?;
    send_value(&value, call);
    Ok(())
}

/// A buffer in the kernel. Its handle counts as a handle of the job, like the handle of any parameter.
#[derive(Debug)]
pub enum Received {
    /// Bytes to read.
    Read(Array<u8>),
    /// Bytes to change in place. The kernel may return a part of them as an [`Array`] ([`seal`](ArrayMut::seal)), which
    /// is then a handle to the memory that was lent.
    ///
    /// A handle that outlives the job, if the engine [allows](crate::engine::Builder::retain_escaped) that, can only be
    /// read. Other code may write to the memory later, so no reference may be formed through the handle.
    Write(ArrayMut<u8>),
    /// The value of another job, whose arrays are read.
    Value(Value),
}

/// A parameter: the buffers of a job, in the order in which they were passed. The caller passes a `Vec<Buffer>`.
pub struct Buffers<'j>(std::vec::Drain<'j, Received>);

impl fmt::Debug for Buffers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.as_slice()).finish()
    }
}

impl Iterator for Buffers<'_> {
    type Item = Received;

    fn next(&mut self) -> Option<Received> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Buffers<'_> {}

impl sealed::Sealed for Buffers<'_> {}
impl Param for Buffers<'_> {
    type At<'j> = Buffers<'j>;
    type Held = Vec<Received>;
    fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Vec<Received>, BadArgument> {
        let count = words.0.word()?;
        // Each buffer consumes words of the call, so a wrong count ends with an error.
        (0..count).map(|_| receive(words, host)).collect()
    }
    fn at(held: &mut Vec<Received>, _: Key) -> Buffers<'_> {
        Buffers(held.drain(..))
    }
}

fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Received, BadArgument> {
    match words.0.word()? {
        READ => receive_array(words, host).map(Received::Read),
        access @ (WRITE | WRITE_PARTS) => {
            let (extent, shape) = read_array::<u8>(words)?;
            let how = (host.0.count_of(extent), access == WRITE_PARTS);
            window_at(extent, shape, host, how).map(Received::Write)
        }
        VALUE => {
            let number = words.0.word()?;
            let bytes = <&Bytes as Param>::receive(words, host)?;
            let count = words.0.word()?;
            let arrays = (0..count).map(|_| receive_array(words, host));
            Ok(Received::Value((
                number,
                bytes,
                arrays.collect::<Result<_, _>>()?,
            )))
        }
        _ => Err(Malformed.into()),
    }
}

impl<'env> Arg<'env, Buffers<'_>> for Vec<Buffer<'_>> {
    fn send(self, call: &mut CallWriter) {
        call.0.word(self.len() as u64);
        self.into_iter().for_each(|buffer| buffer.send(call));
    }
    fn hold(self) -> Vec<Received> {
        self.into_iter().map(Buffer::hold).collect()
    }
    fn bytes_held(&self) -> u64 {
        let held = |buffer: &Buffer<'_>| match &buffer.content {
            Content::Array(array, _) => <Array<u8> as Arg<'_, &Array<u8>>>::bytes_held(array),
            _ => 0,
        };
        self.iter().map(held).sum()
    }
    fn failed(&self) -> Option<AnyValue> {
        self.iter().find_map(|buffer| match &buffer.content {
            Content::Job(_, _, foreign) => Some(foreign()),
            Content::Failed(why) => Some(why()),
            _ => None,
        })
    }
}

/// A job that changes one of its buffers is tried only once: see [`Buffer::write`].
impl RetrySafe for Vec<Buffer<'_>> {}
