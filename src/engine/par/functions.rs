//! Functions with an additional argument: see [`Par::with`](super::Par::with).

use std::marker::PhantomData;

use super::chunks::{Change, Within, Work, map_all};
use crate::array::Element;
use crate::kernel::{Key, Param, zst_value};

/// A function, or a closure that captures nothing, of an element and an [argument](super::Par::with). Implemented for
/// every such function whose argument is a [`Scalar`](crate::Scalar), `&Array<V>`, `&[V]`, `&[Array<V>]`, `&str` or
/// `&Bytes`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function of `{T}` and `{P}` that returns `{U}`",
    label = "cannot be called for each element",
    note = "a closure needs the types of its parameters here: `|x: f32, scale: f32| x * scale`",
    note = "the second parameter may be `&Array<V>`, `&[V]`, `&[Array<V>]`, `&str`, `&Bytes`, a number, `[S; N]`, your own `impl arenite::Scalar`"
)]
pub trait MapWith<T, U, P: Param>: Copy + Send + 'static {
    #[doc(hidden)]
    fn all(from: &[T], to: &mut [U], within: Chunk, with: P::At<'_>);
}

/// A function or a closure that captures nothing, with three parameters: a chunk, a chunk of the result, and an
/// [argument](super::Par::with). Implemented for every such function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function of `&[{T}]`, `&mut [{U}]` and `{P}`",
    label = "cannot be called for each chunk",
    note = "a closure needs the types of its parameters here: `|from: &[f32], to: &mut [f32], scale: f32| …`"
)]
pub trait ApplyWith<T, U, P: Param>: Copy + Send + 'static {
    #[doc(hidden)]
    fn all(from: &[T], to: &mut [U], with: P::At<'_>, key: Key);
}

/// A function or a closure that captures nothing, with two parameters: a chunk and an
/// [argument](super::ParMut::with). Implemented for every such function. Only this crate can call such a function by
/// its type. A type without bytes need not have a value, so such a call by a program could be unsound:
///
/// ```compile_fail,E0061
/// use arenite::par::ApplyMutWith;
///
/// #[derive(Clone, Copy)]
/// enum Never {}
///
/// fn of_never(never: Never) -> impl ApplyMutWith<u8, u8> {
///     move |_: &mut [u8], _: u8| -> () { match never {} }
/// }
///
/// fn call<F: ApplyMutWith<u8, u8>>(_: fn(Never) -> F) {
///     F::all(&mut [], 0);
/// }
///
/// call(of_never);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function of `&mut [{T}]` and `{P}`",
    label = "cannot be called for each chunk",
    note = "a closure needs the types of its parameters here: `|part: &mut [f32], scale: f32| …`"
)]
pub trait ApplyMutWith<T, P: Param>: Copy + Send + 'static {
    #[doc(hidden)]
    fn all(part: &mut [T], with: P::At<'_>, key: Key);
}

/// The position of a chunk. Only this crate can create one.
#[derive(Debug)]
pub struct Chunk(Within);

impl<T, U, P, F> MapWith<T, U, P> for F
where
    T: Element,
    U: Element,
    P: Param,
    F: Fn(T, P) -> U + for<'j> Fn(T, P::At<'j>) -> U + Copy + Send + 'static,
    for<'j> P::At<'j>: Copy,
{
    fn all(from: &[T], to: &mut [U], within: Chunk, with: P::At<'_>) {
        let f = zst_value::<F>();
        map_all(from, to, within.0, |x| f(x, with));
    }
}

impl<T, U, P, F> ApplyWith<T, U, P> for F
where
    P: Param,
    F: Fn(&[T], &mut [U], P) + for<'j> Fn(&[T], &mut [U], P::At<'j>) + Copy + Send + 'static,
{
    fn all(from: &[T], to: &mut [U], with: P::At<'_>, _: Key) {
        zst_value::<F>()(from, to, with);
    }
}

impl<T, P, F> ApplyMutWith<T, P> for F
where
    P: Param,
    F: Fn(&mut [T], P) + for<'j> Fn(&mut [T], P::At<'j>) + Copy + Send + 'static,
{
    fn all(part: &mut [T], with: P::At<'_>, _: Key) {
        zst_value::<F>()(part, with);
    }
}

pub(super) struct MapEachWith<F>(PhantomData<F>);

impl<T, U, P: Param, F: MapWith<T, U, P>> Work<T, U, P> for MapEachWith<F> {
    fn run(from: &[T], to: &mut [U], within: Within, with: P::At<'_>) {
        F::all(from, to, Chunk(within), with);
    }
}

pub(super) struct ApplyEachWith<F>(PhantomData<F>);

impl<T, U, P: Param, F: ApplyWith<T, U, P>> Work<T, U, P> for ApplyEachWith<F> {
    fn run(from: &[T], to: &mut [U], _: Within, with: P::At<'_>) {
        F::all(from, to, with, Key::new());
    }
}

pub(super) struct ChangeEachWith<F>(PhantomData<F>);

impl<T, P: Param, F: ApplyMutWith<T, P>> Change<T, P> for ChangeEachWith<F> {
    fn run(part: &mut [T], with: P::At<'_>) {
        F::all(part, with, Key::new());
    }
}
