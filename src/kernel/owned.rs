//! Parameters whose arguments outlive the caller: [`OwnedParam`], for values of other jobs and for spawned jobs.

use super::arity::for_each_arity;
use super::bytes::Bytes;
use super::entry::Params;
use super::failure::BadArgument;
use super::param::{Arg, CallWriter, HostRef, Param, Words, array_mut_at, read_scalar};
use super::reply::{AnyValue, Value};
use super::scalar::Scalar;
use super::spawn::{Giving, Piece, Source, only};
use crate::arena::ArenaFull;
use crate::array::{Array, ArrayLocation, ArrayMut, Element};

/// A parameter whose argument is not borrowed: the argument can travel in a reply, and be the value of another job.
/// Sealed, like [`Param`].
#[diagnostic::on_unimplemented(
    message = "a spawned job cannot take a parameter of type `{Self}`",
    note = "lend tiles and `&mut` arrays in a scope; spawned jobs take `&Array<T>`, `&[T]`, `&[Array<T>]`, `ArrayMut<T>`, `&str`, `&Bytes`, scalars and `Vec`s of scalars"
)]
pub trait OwnedParam: Param<Held: Send + 'static> {
    /// The type of a job's value that can be passed for this parameter.
    type Value: Value<Out = Self::Value> + Send + 'static;
    /// Whether the kernel changes the argument in place.
    #[doc(hidden)]
    const MOVED: bool = false;

    #[doc(hidden)]
    fn from_value(value: Self::Value) -> Self::Held;
    /// Writes `held` as an argument of a job.
    #[doc(hidden)]
    fn send_held(held: Self::Held, call: &mut CallWriter);
    /// Returns another handle to the same value, or `None` if there can be only one handle.
    #[doc(hidden)]
    fn share(value: &Self::Value) -> Option<Self::Value>;

    /// Writes `held` into a reply, as an argument of a spawned job.
    #[doc(hidden)]
    fn give(held: Self::Held, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull>;
    /// Reads an argument of a spawned job.
    #[doc(hidden)]
    fn read_given(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, BadArgument>;
    /// Returns the argument of a spawned job that runs inline, made of the values of its children.
    #[doc(hidden)]
    fn adopt(values: Vec<AnyValue>) -> Option<Self::Held> {
        only(values).map(Self::from_value)
    }
}

/// Defines the members of `OwnedParam` for the two parameters that read one array.
macro_rules! one_array {
    () => {
        type Value = Array<T>;
        fn from_value(value: Array<T>) -> Array<T> {
            value
        }
        fn send_held(held: Array<T>, call: &mut CallWriter) {
            // A list that was passed for `&[T]`.
            if matches!(held.location(), ArrayLocation::Private) {
                Arg::<&[T]>::send(&held[..], call);
            } else {
                Arg::<Self>::send(held, call);
            }
        }
        fn share(value: &Array<T>) -> Option<Array<T>> {
            Some(value.clone())
        }
        fn give(held: Array<T>, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
            giving.one(held, Self::MOVED)
        }
    };
}

impl<T: Element> OwnedParam for &Array<T> {
    one_array!();
    fn read_given(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Array<T>, BadArgument> {
        Piece::single(&mut words.0)?.array_at(host)
    }
}

impl<T: Element> OwnedParam for &[T] {
    one_array!();
    /// Reads an array, or a number of elements, each of which is the value of a job.
    fn read_given(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Array<T>, BadArgument> {
        let count = words.0.word()?;
        let mut elements = Vec::new();
        for _ in 0..count {
            let mut piece = Piece::read(&mut words.0)?;
            if piece.count > 0 {
                return match count {
                    1 => piece.array_at(host),
                    _ => Err(BadArgument::Malformed),
                };
            }
            let bytes = piece.words.bytes(size_of::<T>())?;
            elements.push(bytemuck::pod_read_unaligned::<T>(bytes));
        }
        Ok(Array::from_slice(&elements))
    }
    fn adopt(mut values: Vec<AnyValue>) -> Option<Array<T>> {
        if values.len() == 1 && (&*values[0] as &dyn std::any::Any).is::<Array<T>>() {
            return only(values);
        }
        let elements: Option<Vec<T>> = values.drain(..).map(|value| only(vec![value])).collect();
        Some(Array::from_slice(&elements?))
    }
}

/// A list: each position has an array or the value of a job.
impl<T: Element> OwnedParam for &[Array<T>] {
    type Value = Array<T>;
    fn from_value(value: Array<T>) -> Vec<Array<T>> {
        vec![value]
    }
    fn send_held(held: Vec<Array<T>>, call: &mut CallWriter) {
        Arg::<Self>::send(held, call);
    }
    fn share(value: &Array<T>) -> Option<Array<T>> {
        Some(value.clone())
    }
    fn give(held: Vec<Array<T>>, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
        giving.argument(held.len(), Self::MOVED);
        held.into_iter().try_for_each(|array| giving.value(array))
    }
    fn read_given(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Vec<Array<T>>, BadArgument> {
        // Each piece consumes words of the call, so a wrong count ends with an error.
        let count = words.0.word()?;
        (0..count)
            .map(|_| Piece::read(&mut words.0)?.array_at(host))
            .collect()
    }
    fn adopt(values: Vec<AnyValue>) -> Option<Vec<Array<T>>> {
        values.into_iter().map(|value| only(vec![value])).collect()
    }
}

const ONCE: &str = "each argument is passed once";

impl<T: Element> OwnedParam for ArrayMut<T> {
    type Value = ArrayMut<T>;
    const MOVED: bool = true;
    fn from_value(value: ArrayMut<T>) -> Option<ArrayMut<T>> {
        Some(value)
    }
    fn send_held(held: Option<ArrayMut<T>>, call: &mut CallWriter) {
        match held {
            Some(array) => Arg::<Self>::send(array, call),
            None => call.0.foreign = true,
        }
    }
    fn share(_: &ArrayMut<T>) -> Option<ArrayMut<T>> {
        None
    }
    fn give(held: Self::Held, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
        giving.one(held.expect(ONCE), Self::MOVED)
    }
    fn read_given(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, BadArgument> {
        let (extent, shape) = Piece::single(&mut words.0)?.array::<T>()?;
        array_mut_at(extent, shape, host).map(Some)
    }
}

macro_rules! in_words {
    ($($param:ty, $value:ty $(, $kind:ident: $bound:path)?;)*) => { $(
        impl$(<$kind: $bound>)? OwnedParam for $param {
            type Value = $value;
            fn from_value(value: $value) -> $value {
                value
            }
            fn send_held(held: $value, call: &mut CallWriter) {
                Arg::<$param>::send(held, call);
            }
            fn share(value: &$value) -> Option<$value> {
                Some(value.clone())
            }
            fn give(held: $value, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
                giving.one(held, Self::MOVED)
            }
            fn read_given(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<$value, BadArgument> {
                let piece = Piece::single(&mut words.0)?;
                <$param as Param>::receive(&mut Words(piece.words), host)
            }
        }
    )* };
}
in_words! {
    &str, String;
    &Bytes, Bytes;
    Vec<S>, Vec<S>, S: Scalar;
}

impl<S: Scalar> OwnedParam for S {
    type Value = S;
    #[inline]
    fn from_value(value: S) -> S {
        value
    }
    #[inline]
    fn send_held(held: S, call: &mut CallWriter) {
        Arg::<S>::send(held, call);
    }
    fn share(value: &S) -> Option<S> {
        Some(*value)
    }
    fn give(held: S, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
        giving.one(held, Self::MOVED)
    }
    fn read_given(words: &mut Words<'_>, _: &HostRef<'_>) -> Result<S, BadArgument> {
        Ok(read_scalar(&mut Piece::single(&mut words.0)?.words)?)
    }
}

/// The parameters of a kernel that other kernels can run: a tuple of [`OwnedParam`]s. This trait is sealed.
pub trait OwnedParams: Params<Held: Send + 'static> {
    /// The arguments of a spawned job while they wait.
    #[doc(hidden)]
    type Sources: Send + 'static;
    #[doc(hidden)]
    const COUNT: u32;

    #[doc(hidden)]
    fn sources(held: Self::Held) -> Self::Sources;
    #[doc(hidden)]
    fn give(sources: Self::Sources, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull>;
    #[doc(hidden)]
    fn read_given(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, BadArgument>;
    /// Returns the arguments of a spawned job that runs inline. `values` are the values of its children.
    #[doc(hidden)]
    fn adopt(sources: Self::Sources, values: &mut dyn Iterator<Item = AnyValue>) -> Self::Held;
}

macro_rules! impl_owned_params {
    ($($p:ident $a:ident $x:ident $i:tt),*) => {
        #[allow(unused_variables, clippy::unused_unit, reason = "for a kernel without parameters")]
        impl<$($p: OwnedParam),*> OwnedParams for ($($p,)*) {
            type Sources = ($(Source<$p::Held>,)*);
            const COUNT: u32 = <[&str]>::len(&[$(stringify!($p)),*]) as u32;

            fn sources(held: Self::Held) -> Self::Sources {
                let ($($x,)*) = held;
                ($(Source::Given($x),)*)
            }
            fn give(sources: Self::Sources, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
                let ($($x,)*) = sources;
                $($x.give::<$p>(giving)?;)*
                Ok(())
            }
            fn read_given(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, BadArgument> {
                Ok(($($p::read_given(words, host)?,)*))
            }
            fn adopt(sources: Self::Sources, values: &mut dyn Iterator<Item = AnyValue>) -> Self::Held {
                let ($($x,)*) = sources;
                ($($x.adopt::<$p>(values),)*)
            }
        }
    };
}
for_each_arity!(impl_owned_params);
