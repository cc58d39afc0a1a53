//! The types that a kernel may return: [`Reply`].

use std::any::Any;
use std::fmt::Display;
use std::sync::Arc;

use super::actor::counts_for_actor;
use super::error::{KernelError, Returned, Typed};
use super::failure::Failure;
use super::host::Host;
use super::param::{read_scalar, read_scalars};
use super::scalar::Scalar;
use super::spawn::MAX_ARRAYS;
use super::wire::{
    MAX_REPLY_WORDS, MAX_TEXT, Malformed, ReceivedArray, ReplyReader, ReplyWriter, SENT_WORDS,
    SentArray,
};
use crate::arena::{ArenaFull, Extent};
use crate::array::{Array, ArrayMut, Element, LaneCount, MAX_DIMS, Shape};

/// A value whose type is known only to the code that takes it.
pub(crate) type AnyValue = Box<dyn Any + Send>;

/// A type that a kernel may return: `()`, [`Scalar`]s, `Array<T>`, `Vec<Array<T>>`, `ArrayMut<T>`, `String`,
/// [`Bytes`](super::Bytes), `Vec`s of scalars, `Option`s and tuples of up to four of these, `Result<T, E>`, and
/// [`Spawn`](crate::engine::Spawn), which stands for the value of its continuation. This trait is sealed.
///
/// Arrays are not copied: the caller receives a handle to the memory that the kernel filled. A value may have up to
/// 4096 arrays; with more arrays the job fails with [`Returned`](crate::engine::JobErrorKind::Returned).
///
/// An `Err` fails the job with [`Returned`](crate::engine::JobErrorKind::Returned). A [`Typed<E>`](Typed) reaches the
/// caller as a value. Any other `E` that implements `Display` reaches it as text, of which a worker sends the first 16
/// KiB. An `E` without `Display` cannot be returned:
///
/// ```compile_fail,E0277
/// # let engine = arenite::Engine::inline();
/// #[derive(Debug)]
/// struct Empty;
///
/// fn first(values: &[u8]) -> Result<u8, Empty> {
///     values.first().copied().ok_or(Empty)
/// }
///
/// engine.submit(first, (vec![1u8],));
/// ```
///
/// A kernel runs to its end on its worker, so an `async` function is no kernel. Let the kernel block on the future,
/// with an executor of its own:
///
/// ```compile_fail,E0277
/// # let engine = arenite::Engine::inline();
/// async fn double(x: u32) -> u32 {
///     2 * x
/// }
///
/// engine.submit(double, (1,));
/// ```
///
/// `String`s, `Bytes` and `Vec`s of scalars are copied. Together they may have 64 MiB in one value, in every engine;
/// with more text the job fails with [`Returned`](crate::engine::JobErrorKind::Returned). Return larger data as an
/// array: `Array::from_slice(text.as_bytes())`.
#[diagnostic::on_unimplemented(
    message = "a kernel cannot return `{Self}`",
    label = "not something that a kernel can return",
    note = "replies: `()`, `Array<T>`, `Vec<Array<T>>`, `ArrayMut<T>`, `String`, `Bytes`, `Vec` of numbers, `Option`, tuples of up to 4, numbers, `bool`, `char`, your own `impl arenite::Scalar`, `Result` of these, and `Spawn`",
    note = "the error `E` of a `Result<T, E>`: a type that implements `Display`, which arrives as its text, or `arenite::Typed<E>` of an `E: arenite::KernelError`, which arrives as a value; for a type with `Debug` alone: `.map_err(|error| format!(\"{{error:?}}\"))`",
    note = "for a closure that never returns, write what it would return: `|| -> () {{ std::process::abort() }}`"
)]
pub trait Reply: reply_sealed::Sealed {
    /// The type that the caller receives if the job succeeds.
    type Out: Send + 'static;
    #[doc(hidden)]
    fn send(self, reply: &mut Sending<'_>) -> Result<(), Failure>;
    #[doc(hidden)]
    fn receive(reply: &mut Receiving<'_>) -> Result<Self::Out, BadReply>;
    /// Returns the value for the caller, if the kernel ran inline. Runs spawned jobs first.
    #[doc(hidden)]
    fn into_value(self) -> Result<Self::Out, Failure>;
    /// Checks that a kernel with this return type can have returned this typed error.
    #[doc(hidden)]
    fn check_error(_: &Returned) -> Result<(), BadReply> {
        Err(BadReply)
    }
    /// Whether the reply may consist of jobs to run instead of a value.
    #[doc(hidden)]
    const SPAWNS: bool = false;
    /// Like [`into_value`](Reply::into_value), but returns spawned jobs instead of running them.
    #[doc(hidden)]
    fn unfold(self) -> Result<Unfolded<Self::Out>, Failure>
    where
        Self: Sized,
    {
        self.into_value().map(Unfolded::Value)
    }
}

/// The result of a kernel that ran inline: see [`Reply::unfold`].
#[derive(Debug)]
pub enum Unfolded<V> {
    /// A value.
    Value(V),
    /// Spawned jobs, as a plan. The engine knows the plan's type.
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

/// The error for a reply that does not encode a value of its kernel's return type.
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
    fn into_value(self) -> Self::Out;
    /// Returns the number of bytes of all text in the value.
    #[doc(hidden)]
    #[inline]
    fn text(&self) -> usize {
        0
    }
    /// Returns the number of arrays in the value.
    #[doc(hidden)]
    #[inline]
    fn arrays(&self) -> usize {
        0
    }
}

// A reply has room for the maximum number of arrays, with their extents and shapes, and for the maximum amount of text.
const _: () = assert!(MAX_ARRAYS * (SENT_WORDS + 1 + MAX_DIMS) < MAX_REPLY_WORDS - MAX_TEXT / 8);

/// Checks the length of a value's text and the number of its arrays. Inline engines check this too, so that a program
/// that works with an inline engine works with any other engine.
#[inline]
fn check_size<V: Value>(value: V) -> Result<V, Failure> {
    match (value.text(), value.arrays()) {
        (0..=MAX_TEXT, 0..=MAX_ARRAYS) => Ok(value),
        (text, arrays) => Err(too_long(text, arrays)),
    }
}

#[cold]
fn too_long(text: usize, arrays: usize) -> Failure {
    let why = if text > MAX_TEXT {
        format!(
            "it returned {text} bytes of texts and lists; the limit is {MAX_TEXT}: return an array"
        )
    } else {
        format!(
            "it returned {arrays} arrays; the limit is {MAX_ARRAYS}: return parts of fewer, larger arrays"
        )
    };
    Failure::Returned(why.into())
}

impl<V: Value> reply_sealed::Sealed for V {}
impl<V: Value> Reply for V {
    type Out = V::Out;
    #[inline]
    fn send(self, reply: &mut Sending<'_>) -> Result<(), Failure> {
        Value::send(check_size(self)?, reply).map_err(Failure::Full)
    }
    #[inline]
    fn receive(reply: &mut Receiving<'_>) -> Result<V::Out, BadReply> {
        V::receive(reply)
    }
    fn into_value(self) -> Result<V::Out, Failure> {
        check_size(self).map(Value::into_value)
    }
}

macro_rules! results {
    ($($bound:ident $error:ty, |$e:ident| $returned:expr, |$sent:ident| $is_own:expr;)+) => { $(
        impl<R: Reply, E: $bound> reply_sealed::Sealed for Result<R, $error> {}
        impl<R: Reply, E: $bound> Reply for Result<R, $error> {
            type Out = R::Out;
            const SPAWNS: bool = R::SPAWNS;
            fn send(self, reply: &mut Sending<'_>) -> Result<(), Failure> {
                self.map_err(|$e| Failure::Returned($returned))?.send(reply)
            }
            fn receive(reply: &mut Receiving<'_>) -> Result<R::Out, BadReply> {
                R::receive(reply)
            }
            fn into_value(self) -> Result<R::Out, Failure> {
                self.map_err(|$e| Failure::Returned($returned))?.into_value()
            }
            fn unfold(self) -> Result<Unfolded<R::Out>, Failure> {
                self.map_err(|$e| Failure::Returned($returned))?.unfold()
            }
            fn check_error($sent: &Returned) -> Result<(), BadReply> {
                if $is_own { Ok(()) } else { R::check_error($sent) }
            }
        }
    )+ };
}
// The two implementations do not overlap, because `Typed` does not implement `Display`.
results! {
    Display E, |error| error.to_string().into(), |_sent| false;
    KernelError Typed<E>, |error| Returned::encode(&error.0), |sent| sent.value::<E>().is_some();
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
    fn into_value(self) {}
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
    fn into_value(self) -> S {
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
    fn into_value(self) -> String {
        self
    }
    fn text(&self) -> usize {
        self.len()
    }
}

/// Copies an array to memory of this job. This is needed if the array is not in the lane's memory (it was made on
/// another thread or lane, or is a mapped file), or may not be sent from there. Forms no reference to the elements,
/// because those of a [raw](super::raw) buffer may change meanwhile.
fn into_lane<T: Element>(array: &Array<T>, host: &dyn Host) -> Result<Extent, ArenaFull> {
    let bytes = array.len() * size_of::<T>();
    let chunk = host.alloc(bytes)?;
    // SAFETY: the handle keeps that many bytes mapped at its address. The chunk was just granted to this job and is
    // long enough; it overlaps no other memory of this job or of another job.
    unsafe {
        chunk
            .ptr
            .as_ptr()
            .copy_from_nonoverlapping(array.as_ptr().cast(), bytes);
    }
    Ok(Extent {
        at: chunk.at,
        len: bytes as u64,
    })
}

/// Reads the next array, and checks that it is aligned and inside its block.
fn receive_array<T: Element>(
    reply: &mut Receiving<'_>,
) -> Result<(ReceivedArray, Shape), BadReply> {
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
        let host = reply.host;
        let is_own = |count: &'static LaneCount| host.owns(count) || counts_for_actor(count);
        let sent = match self.take_lane(is_own) {
            Ok(view) => SentArray {
                chunk: chunk.unwrap_or(view),
                view,
            },
            Err(elsewhere) => {
                let view = into_lane(&elsewhere, reply.host)?;
                SentArray { chunk: view, view }
            }
        };
        reply.writer.arrays.push(sent);
        Ok(())
    }
    fn receive(reply: &mut Receiving<'_>) -> Result<Array<T>, BadReply> {
        let (received, shape) = receive_array::<T>(reply)?;
        Ok(Array::from_block(received.block, received.skip, shape))
    }
    fn into_value(self) -> Array<T> {
        self
    }
    #[inline]
    fn arrays(&self) -> usize {
        1
    }
}

impl<S: Scalar> Value for Vec<S> {
    type Out = Vec<S>;
    fn send(self, reply: &mut Sending<'_>) -> Result<(), ArenaFull> {
        reply.writer.word(self.len() as u64);
        reply.writer.bytes(bytemuck::cast_slice(&self));
        Ok(())
    }
    fn receive(reply: &mut Receiving<'_>) -> Result<Vec<S>, BadReply> {
        Ok(read_scalars(&mut reply.0.words, MAX_TEXT)?)
    }
    fn into_value(self) -> Vec<S> {
        self
    }
    fn text(&self) -> usize {
        self.len() * size_of::<S>().max(1)
    }
}

impl<T: Element> Value for Vec<Array<T>> {
    type Out = Vec<Array<T>>;
    fn send(self, reply: &mut Sending<'_>) -> Result<(), ArenaFull> {
        reply.writer.word(self.len() as u64);
        self.into_iter()
            .try_for_each(|array| Value::send(array, reply))
    }
    fn receive(reply: &mut Receiving<'_>) -> Result<Vec<Array<T>>, BadReply> {
        let count = reply.0.words.word()?;
        // Each array consumes words of the reply, so a wrong count ends with an error.
        (0..count)
            .map(|_| <Array<T> as Value>::receive(reply))
            .collect()
    }
    fn into_value(self) -> Vec<Array<T>> {
        self
    }
    fn arrays(&self) -> usize {
        self.len()
    }
}

impl<T: Element> Value for ArrayMut<T> {
    type Out = ArrayMut<T>;
    fn send(self, reply: &mut Sending<'_>) -> Result<(), ArenaFull> {
        let sealed = self.seal();
        let is_retained = |chunk| reply.host.has_retained(chunk);
        if !sealed.lane_chunk().is_some_and(is_retained) {
            return Value::send(sealed, reply);
        }
        // A copy is sent, because the supervisor has a lease on the array for the lane: the caller would not get the
        // only handle.
        reply.writer.shape(&sealed.shape());
        let view = into_lane(&sealed, reply.host)?;
        reply.writer.arrays.push(SentArray { chunk: view, view });
        Ok(())
    }
    fn receive(reply: &mut Receiving<'_>) -> Result<ArrayMut<T>, BadReply> {
        let (received, shape) = receive_array::<T>(reply)?;
        let block = Arc::try_unwrap(received.block).map_err(|_| BadReply)?;
        Ok(ArrayMut::from_block(block, received.skip, shape))
    }
    fn into_value(self) -> ArrayMut<T> {
        self
    }
    #[inline]
    fn arrays(&self) -> usize {
        1
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
    fn into_value(self) -> Self::Out {
        self.map(Value::into_value)
    }
    fn text(&self) -> usize {
        self.as_ref().map_or(0, Value::text)
    }
    fn arrays(&self) -> usize {
        self.as_ref().map_or(0, Value::arrays)
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
            fn into_value(self) -> Self::Out {
                ($(self.$index.into_value(),)+)
            }
            fn text(&self) -> usize {
                0 $(+ self.$index.text())+
            }
            fn arrays(&self) -> usize {
                0 $(+ self.$index.arrays())+
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
