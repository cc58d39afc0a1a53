//! [`Bytes`]: a short sequence of bytes that travels within a call or a reply.

use std::fmt;
use std::ops::Deref;

use super::failure::BadArgument;
use super::param::{Arg, CallWriter, HostRef, Key, Param, RetrySafe, Words, sealed};
use super::reply::{BadReply, Receiving, Sending, Value};
use super::wire::Malformed;
use crate::arena::ArenaFull;

/// Bytes that travel with a job: a serialized message, a picture's header, a key.
///
/// A kernel takes `&Bytes` and may return `Bytes`. The bytes are copied into the call and out of the reply. Up to about
/// 64 KiB that is faster than an array. For more bytes use an [`Array<u8>`](crate::Array), which is not copied. The
/// `Bytes` and `String`s of a reply may have 64 MiB in total.
///
/// ```
/// use arenite::Bytes;
///
/// fn reversed(message: &Bytes) -> Bytes {
///     message.iter().rev().copied().collect::<Vec<u8>>().into()
/// }
///
/// # let engine = arenite::Engine::inline();
/// let job = engine.submit(reversed, (b"\x00\xffabc",));
/// assert_eq!(*job.wait()?, *b"cba\xff\x00");
/// # Ok::<(), arenite::JobError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Returns the bytes as a vector, without copying them.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&Vec<u8>> for Bytes {
    fn from(bytes: &Vec<u8>) -> Self {
        Self(bytes.clone())
    }
}

impl From<&Bytes> for Bytes {
    fn from(bytes: &Bytes) -> Self {
        bytes.clone()
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for Bytes {
    fn from(bytes: &[u8; N]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<Bytes> for Vec<u8> {
    fn from(bytes: Bytes) -> Self {
        bytes.0
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

impl sealed::Sealed for &Bytes {}
impl Param for &Bytes {
    type At<'j> = &'j Bytes;
    type Held = Bytes;
    fn receive(words: &mut Words<'_>, _: &HostRef<'_>) -> Result<Bytes, BadArgument> {
        let len = usize::try_from(words.0.word()?).map_err(|_| Malformed)?;
        Ok(words.0.bytes(len)?.into())
    }
    fn at(held: &mut Bytes, _: Key) -> &Bytes {
        held
    }
}

macro_rules! byte_arguments {
    ($($(const $n:ident)? $arg:ty)*) => { $(
        impl<'env $(, const $n: usize)?> Arg<'env, &Bytes> for $arg {
            fn send(self, call: &mut CallWriter) {
                call.0.word(self.len() as u64);
                call.0.bytes(&self[..]);
            }
            fn hold(self) -> Bytes {
                self.into()
            }
            fn bytes_held(&self) -> u64 {
                self.len() as u64
            }
        }
    )* };
}
byte_arguments!(Bytes &Bytes Vec<u8> &Vec<u8> &[u8] const N &[u8; N]);
impl RetrySafe for Bytes {}
impl RetrySafe for &Bytes {}

impl Value for Bytes {
    type Out = Bytes;
    fn send(self, reply: &mut Sending<'_>) -> Result<(), ArenaFull> {
        reply.writer.word(self.len() as u64);
        reply.writer.bytes(&self);
        Ok(())
    }
    fn receive(reply: &mut Receiving<'_>) -> Result<Bytes, BadReply> {
        let len = usize::try_from(reply.0.words.word()?).map_err(|_| BadReply)?;
        Ok(reply.0.words.bytes(len)?.into())
    }
    fn into_value(self) -> Bytes {
        self
    }
    fn text(&self) -> usize {
        self.len()
    }
}
