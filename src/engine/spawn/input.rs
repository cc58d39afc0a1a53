//! Inputs of the last kernel of a [`Spawn`](super::Spawn).

use super::{Call, Children};
use crate::array::{Array, ArrayMut, Element};
use crate::kernel::{Arg, Bytes, OwnedParam, OwnedParams, Scalar, Source, for_each_arity};

/// A type that may be passed to [`Spawn::new`](super::Spawn::new) for a parameter `P`: every type that may be passed to
/// a job ([`Arg`]), a [`Call`] with a value of the parameter's type, and a `Vec` of such calls for a list. This trait
/// is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed for the kernel's parameter `{P}`",
    label = "not an argument, nor a call that gives one, for `{P}`",
    note = "a call of a tuple or an `Option` has no parameter: let each part be a call of its own, or the kernel compute it"
)]
pub trait SpawnInput<P: OwnedParam> {
    #[doc(hidden)]
    fn source(self, children: &mut Children) -> Source<P::Held>;
}

/// Calls a macro with each argument that is copied into a spawned job: the argument, its parameter, the value that is
/// held, and type parameters.
macro_rules! for_each_copied_argument {
    ($with:ident) => {
        $with! {
            &str => &str, String;
            String => &str, String;
            &String => &str, String;
            Bytes => &Bytes, Bytes;
            &Bytes => &Bytes, Bytes;
            Vec<u8> => &Bytes, Bytes;
            &Vec<u8> => &Bytes, Bytes;
            &[u8] => &Bytes, Bytes;
            Vec<T> => &[T], Array<T>, T: Element;
            &Vec<T> => &[T], Array<T>, T: Element;
            &[T] => &[T], Array<T>, T: Element;
            [T; N] => &[T], Array<T>, T: Element, const N;
            &[T; N] => &[T], Array<T>, T: Element, const N;
            Vec<S> => Vec<S>, Vec<S>, S: Scalar;
            &Vec<S> => Vec<S>, Vec<S>, S: Scalar;
            &[S] => Vec<S>, Vec<S>, S: Scalar;
            S => S, S, S: Scalar;
        }
    };
}

macro_rules! given {
    ($($arg:ty => $param:ty, $held:ty $(, $kind:ident: $bound:path $(, const $n:ident)?)?;)*) => { $(
        impl$(<$kind: $bound $(, const $n: usize)?>)? SpawnInput<$param> for $arg {
            fn source(self, _: &mut Children) -> Source<$held> {
                Source::Given(Arg::<$param>::hold(self))
            }
        }
    )* };
}
given! {
    &Array<T> => &Array<T>, Array<T>, T: Element;
    Array<T> => &Array<T>, Array<T>, T: Element;
    &Array<T> => &[T], Array<T>, T: Element;
    Array<T> => &[T], Array<T>, T: Element;
    Vec<Array<T>> => &[Array<T>], Vec<Array<T>>, T: Element;
    &Vec<Array<T>> => &[Array<T>], Vec<Array<T>>, T: Element;
    &[Array<T>] => &[Array<T>], Vec<Array<T>>, T: Element;
    ArrayMut<T> => ArrayMut<T>, Option<ArrayMut<T>>, T: Element;
}
for_each_copied_argument!(given);

macro_rules! called {
    ($($call:ty => $param:ty, $held:ty $(, $kind:ident: $bound:path)?;)*) => { $(
        impl$(<$kind: $bound>)? SpawnInput<$param> for Call<$call> {
            fn source(self, children: &mut Children) -> Source<$held> {
                children.0.push(self.task);
                Source::Children(1)
            }
        }
    )* };
}
called! {
    Array<T> => &Array<T>, Array<T>, T: Element;
    Array<T> => &[T], Array<T>, T: Element;
    ArrayMut<T> => ArrayMut<T>, Option<ArrayMut<T>>, T: Element;
    String => &str, String;
    Bytes => &Bytes, Bytes;
    Vec<S> => Vec<S>, Vec<S>, S: Scalar;
    S => S, S, S: Scalar;
}

impl<T: Element + Scalar> SpawnInput<&[T]> for Vec<Call<T>> {
    fn source(self, children: &mut Children) -> Source<Array<T>> {
        collect(self, children)
    }
}

impl<T: Element> SpawnInput<&[Array<T>]> for Vec<Call<Array<T>>> {
    fn source(self, children: &mut Children) -> Source<Vec<Array<T>>> {
        collect(self, children)
    }
}

fn collect<V, H>(calls: Vec<Call<V>>, children: &mut Children) -> Source<H> {
    let count = u32::try_from(calls.len()).expect("fewer than 2^32 calls");
    children.0.extend(calls.into_iter().map(|call| call.task));
    Source::Children(count)
}

/// Inputs for a kernel with the parameters `P`: a tuple of [`SpawnInput`]s. This trait is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` are not inputs for a kernel with the parameters `{P}`",
    label = "not the inputs that this kernel takes",
    note = "pass a tuple with one argument or call for each parameter; for one parameter: `(x,)`"
)]
pub trait SpawnInputs<P: OwnedParams> {
    #[doc(hidden)]
    fn sources(self, children: &mut Children) -> P::Sources;
}

macro_rules! impl_inputs {
    ($($p:ident $a:ident $x:ident $i:tt),*) => {
        impl<$($p: OwnedParam, $a: SpawnInput<$p>),*> SpawnInputs<($($p,)*)> for ($($a,)*) {
            #[allow(unused_variables, clippy::unused_unit, reason = "for a kernel without parameters")]
            fn sources(self, children: &mut Children) -> <($($p,)*) as OwnedParams>::Sources {
                ($(self.$i.source(children),)*)
            }
        }
    };
}
for_each_arity!(impl_inputs);
