//! What a kernel may return: [`Reply`].

use std::any::Any;
use std::fmt::Display;
use std::sync::Arc;

use super::actor::counts_for_actor;
use super::host::Host;
use super::param::read_scalar;
use super::scalar::Scalar;
use super::wire::{MOST_TEXT, Malformed, Received, ReplyReader, ReplyWriter, Sent};
use crate::arena::{ArenaFull, Extent};
use crate::array::{Array, ArrayMut, Element, LaneCount, Shape};

/// A value, or a plan, of a type that its owner knows.
pub(crate) type AnyValue = Box<dyn Any + Send>;

/// Why a job that a kernel spawned in this thread gave no value; whoever runs it knows what that is.
#[derive(Debug)]
pub struct SpawnedFailed(pub(crate) AnyValue);

/// Why a kernel did not produce a value.
#[derive(Debug)]
pub enum Unsent {
    /// What it spawned did not.
    Spawned(SpawnedFailed),
    /// It returned `Err`, whose text this is.
    Returned(String),
    /// There was no room for what it returned.
    Full(ArenaFull),
}

/// What a kernel may return: `()`, [`Scalar`]s, `Array<T>`, `ArrayMut<T>`, `String`, `Option`s and
/// tuples of up to four of these, `Result<T, E>` with an `E` that can be displayed, and [`Spawn`](crate::engine::Spawn), whose value
/// is that of the kernel that goes on. Sealed.
///
/// An array is not copied: the caller receives a handle on the memory that the kernel filled. An
/// `Err` arrives as [`Returned`](crate::engine::JobErrorKind::Returned) with its text, of which a worker sends the first 16 KiB.
///
/// All `String`s of a value together may have 64 MiB, in every engine; with more the job fails with
/// [`Returned`](crate::engine::JobErrorKind::Returned). Longer text returns as an array of its bytes:
/// `Array::from_slice(text.as_bytes())`.
#[diagnostic::on_unimplemented(
    message = "a kernel cannot return `{Self}`",
    label = "not something that a kernel can return",
    note = "replies: `()`, `Array<T>`, `ArrayMut<T>`, `String`, `Option`, tuples of up to 4, numbers, `bool`, `char`, your own `impl arenite::Scalar`, `Result` of these, and `Spawn`",
    note = "for a closure that never returns, write what it would return: `|| -> () {{ std::process::abort() }}`"
)]
pub trait Reply: reply_sealed::Sealed {
    /// What the caller receives when all went well.
    type Out: Send + 'static;
    #[doc(hidden)]
    fn send(self, reply: &mut Sending<'_>) -> Result<(), Unsent>;
    #[doc(hidden)]
    fn receive(reply: &mut Receiving<'_>) -> Result<Self::Out, BadReply>;
    #[doc(hidden)]
    fn keep(self) -> Result<Self::Out, Unsent>;
    /// It may be no value, but jobs that have to run first.
    #[doc(hidden)]
    const SPAWNS: bool = false;
    /// As [`keep`](Reply::keep), but without running what has to run first.
    #[doc(hidden)]
    fn unfold(self) -> Result<Unfolded<Self::Out>, Unsent>
    where
        Self: Sized,
    {
        self.keep().map(Unfolded::Value)
    }
}

/// What a kernel returned in this thread.
#[derive(Debug)]
pub enum Unfolded<V> {
    /// A value.
    Value(V),
    /// What has to run first; whoever runs it knows what that is.
    More(AnyValue),
}

pub(crate) mod reply_sealed {
    #[allow(unnameable_types, reason = "sealed on purpose")]
    pub trait Sealed {}
}

/// A reply under construction, in the worker.
#[allow(missing_debug_implementations, reason = "hidden")]
pub struct Sending<'a> {
    pub(crate) writer: &'a mut ReplyWriter,
    pub(crate) host: &'a dyn Host,
}

/// A reply as the supervisor reads it.
#[derive(Debug)]
pub struct Receiving<'a>(pub(crate) ReplyReader<'a>);

/// A reply that does not mean what its kernel returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadReply;

impl From<Malformed> for BadReply {
    fn from(_: Malformed) -> Self {
        Self
    }
}

/// A part of a reply: everything but `Result`.
pub trait Value: Sized {
    #[doc(hidden)]
    type Out: Send + 'static;
    #[doc(hidden)]
    fn send(self, reply: &mut Sending<'_>) -> Result<(), ArenaFull>;
    #[doc(hidden)]
    fn receive(reply: &mut Receiving<'_>) -> Result<Self::Out, BadReply>;
    #[doc(hidden)]
    fn keep(self) -> Self::Out;
    /// Bytes of text in it.
    #[doc(hidden)]
    #[inline]
    fn text(&self) -> usize {
        0
    }
}

/// A value that can travel. Looked at in every engine, so that a program that works in one does in the others.
#[inline]
fn fitting<V: Value>(value: V) -> Result<V, Unsent> {
    match value.text() {
        0..=MOST_TEXT => Ok(value),
        text => Err(too_long(text)),
    }
}

#[cold]
fn too_long(text: usize) -> Unsent {
    Unsent::Returned(format!(
        "it returned {text} bytes of text, and {MOST_TEXT} is the most: return an array of its bytes"
    ))
}

impl<V: Value> reply_sealed::Sealed for V {}
impl<V: Value> Reply for V {
    type Out = V::Out;
    #[inline]
    fn send(self, reply: &mut Sending<'_>) -> Result<(), Unsent> {
        Value::send(fitting(self)?, reply).map_err(Unsent::Full)
    }
    #[inline]
    fn receive(reply: &mut Receiving<'_>) -> Result<V::Out, BadReply> {
        V::receive(reply)
    }
    fn keep(self) -> Result<V::Out, Unsent> {
        fitting(self).map(Value::keep)
    }
}

impl<V: Value, E: Display> reply_sealed::Sealed for Result<V, E> {}
impl<V: Value, E: Display> Reply for Result<V, E> {
    type Out = V::Out;
    fn send(self, reply: &mut Sending<'_>) -> Result<(), Unsent> {
        let value = self.map_err(|error| Unsent::Returned(error.to_string()))?;
        Value::send(fitting(value)?, reply).map_err(Unsent::Full)
    }
    fn receive(reply: &mut Receiving<'_>) -> Result<V::Out, BadReply> {
        V::receive(reply)
    }
    fn keep(self) -> Result<V::Out, Unsent> {
        let value = self.map_err(|error| Unsent::Returned(error.to_string()))?;
        fitting(value).map(Value::keep)
    }
}

impl Value for () {
    type Out = ();
    #[inline]
    fn send(self, _: &mut Sending<'_>) -> Result<(), ArenaFull> {
        Ok(())
    }
    #[inline]
    fn receive(_: &mut Receiving<'_>) -> Result<(), BadReply> {
        Ok(())
    }
    fn keep(self) {}
}

impl<S: Scalar> Value for S {
    type Out = S;
    #[inline]
    fn send(self, reply: &mut Sending<'_>) -> Result<(), ArenaFull> {
        reply.writer.bytes(bytemuck::bytes_of(&self));
        Ok(())
    }
    #[inline]
    fn receive(reply: &mut Receiving<'_>) -> Result<S, BadReply> {
        Ok(read_scalar(&mut reply.0.words)?)
    }
    fn keep(self) -> S {
        self
    }
}

impl Value for String {
    type Out = String;
    fn send(self, reply: &mut Sending<'_>) -> Result<(), ArenaFull> {
        reply.writer.word(self.len() as u64);
        reply.writer.bytes(self.as_bytes());
        Ok(())
    }
    fn receive(reply: &mut Receiving<'_>) -> Result<String, BadReply> {
        let len = usize::try_from(reply.0.words.word()?).map_err(|_| BadReply)?;
        let bytes = reply.0.words.bytes(len)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| BadReply)
    }
    fn keep(self) -> String {
        self
    }
    fn text(&self) -> usize {
        self.len()
    }
}

/// Copies an array that does not lie in the lane (made on another thread or by another lane, or a mapped file) into it.
fn into_lane<T: Element>(elements: &[T], host: &dyn Host) -> Result<Extent, ArenaFull> {
    let bytes: &[u8] = bytemuck::cast_slice(elements);
    let chunk = host.alloc(bytes.len())?;
    // SAFETY: the chunk was just granted to this job and is at least that long; neither private memory nor that of another
    // job overlaps it.
    unsafe {
        chunk
            .ptr
            .as_ptr()
            .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
    };
    Ok(Extent {
        at: chunk.at,
        len: bytes.len() as u64,
    })
}

/// The next array, which is within its block and aligned.
fn receive_array<T: Element>(reply: &mut Receiving<'_>) -> Result<(Received, Shape), BadReply> {
    let shape = reply.0.words.shape()?;
    let received = reply.0.arrays.next().ok_or(BadReply)?;
    if shape.bytes::<T>() != usize::try_from(received.len).ok()
        || !Array::<T>::fits_block(&received.block, received.skip, shape)
    {
        return Err(BadReply);
    }
    Ok((received, shape))
}

impl<T: Element> Value for Array<T> {
    type Out = Array<T>;
    fn send(self, reply: &mut Sending<'_>) -> Result<(), ArenaFull> {
        reply.writer.shape(&self.shape());
        let chunk = self.lane_chunk();
        let own = reply.host.count();
        let is_own =
            |count: &'static LaneCount| std::ptr::eq(count, own) || counts_for_actor(count);
        let sent = match self.take_lane(is_own) {
            Ok(view) => Sent {
                chunk: chunk.unwrap_or(view),
                view,
            },
            Err(elsewhere) => {
                let view = into_lane(&elsewhere, reply.host)?;
                Sent { chunk: view, view }
            }
        };
        reply.writer.arrays.push(sent);
        Ok(())
    }
    fn receive(reply: &mut Receiving<'_>) -> Result<Array<T>, BadReply> {
        let (received, shape) = receive_array::<T>(reply)?;
        Ok(Array::from_block(received.block, received.skip, shape))
    }
    fn keep(self) -> Array<T> {
        self
    }
}

impl<T: Element> Value for ArrayMut<T> {
    type Out = ArrayMut<T>;
    fn send(self, reply: &mut Sending<'_>) -> Result<(), ArenaFull> {
        Value::send(self.seal(), reply)
    }
    fn receive(reply: &mut Receiving<'_>) -> Result<ArrayMut<T>, BadReply> {
        let (received, shape) = receive_array::<T>(reply)?;
        let block = Arc::try_unwrap(received.block).map_err(|_| BadReply)?;
        Ok(ArrayMut::from_block(block, received.skip, shape))
    }
    fn keep(self) -> ArrayMut<T> {
        self
    }
}

impl<V: Value> Value for Option<V> {
    type Out = Option<V::Out>;
    fn send(self, reply: &mut Sending<'_>) -> Result<(), ArenaFull> {
        reply.writer.word(u64::from(self.is_some()));
        self.map_or(Ok(()), |value| value.send(reply))
    }
    fn receive(reply: &mut Receiving<'_>) -> Result<Self::Out, BadReply> {
        match reply.0.words.word()? {
            0 => Ok(None),
            1 => V::receive(reply).map(Some),
            _ => Err(BadReply),
        }
    }
    fn keep(self) -> Self::Out {
        self.map(Value::keep)
    }
    fn text(&self) -> usize {
        self.as_ref().map_or(0, Value::text)
    }
}

macro_rules! tuples {
    ($(($($name:ident $index:tt),+))+) => { $(
        impl<$($name: Value),+> Value for ($($name,)+) {
            type Out = ($($name::Out,)+);
            fn send(self, reply: &mut Sending<'_>) -> Result<(), ArenaFull> {
                $(self.$index.send(reply)?;)+
                Ok(())
            }
            fn receive(reply: &mut Receiving<'_>) -> Result<Self::Out, BadReply> {
                Ok(($($name::receive(reply)?,)+))
            }
            fn keep(self) -> Self::Out {
                ($(self.$index.keep(),)+)
            }
            fn text(&self) -> usize {
                0 $(+ self.$index.text())+
            }
        }
    )+ };
}
tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
}
