//! Functions with an additional argument: see [`Par::with`](super::Par::with).

use std::marker::PhantomData;

use super::chunks::{Change, Within, Work, map_all};
use crate::array::Element;
use crate::kernel::{Param, zst_value};

/// A function, or a closure that captures nothing, with an [argument](super::Par::with) of type `P` as its last
/// parameter. Implemented for every such function whose argument is a [`Scalar`](crate::Scalar), `&Array<V>`, `&[V]`,
/// `&[Array<V>]`, `&str` or `&Bytes`.
///
/// | `I`, `O` | the function |
/// |---|---|
/// | `T`, `U` | of an element, which returns an element: `Fn(T, P) -> U` |
/// | `[T]`, `[U]` | of a chunk and a chunk of the result: `Fn(&[T], &mut [U], P)` |
/// | `()`, `[T]` | of a chunk that it changes: `Fn(&mut [T], P)` |
///
/// Only this crate can call such a function by its type. A type without bytes need not have a value, so such a call by
/// a program could be unsound:
///
/// ```compile_fail,E0061
/// use arenite::par::ParFn;
///
/// #[derive(Clone, Copy)]
/// enum Never {}
///
/// fn of_never(never: Never) -> impl ParFn<(), [u8], u8, From = (), To = u8> {
///     move |_: &mut [u8], _: u8| -> () { match never {} }
/// }
///
/// fn call<F: ParFn<(), [u8], u8, From = (), To = u8>>(_: fn(Never) -> F) {
///     F::all(&[], &mut [], 0);
/// }
///
/// call(of_never);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function of `{I}` and `{P}` that gives `{O}`",
    label = "cannot be called with an element or a chunk, and the argument",
    note = "a closure needs the types of its parameters here: `|x: f32, scale: f32| x * scale`, \
            `|from: &[f32], to: &mut [f32], scale: f32| …`, in place `|part: &mut [f32], scale: f32| …`",
    note = "the last parameter may be `&Array<V>`, `&[V]`, `&[Array<V>]`, `&str`, `&Bytes`, a number, `[S; N]`, your own `impl arenite::Scalar`"
)]
pub trait ParFn<I: ?Sized, O: ?Sized, P: Param>: Copy + Send + 'static {
    #[doc(hidden)]
    type From;
    #[doc(hidden)]
    type To;
    #[doc(hidden)]
    fn all(from: &[Self::From], to: &mut [Self::To], within: Chunk, with: P::At<'_>);
}

/// The position of a chunk. Only this crate can create one.
#[derive(Debug)]
pub struct Chunk(Within);

impl<T, U, P, F> ParFn<T, U, P> for F
where
    T: Element,
    U: Element,
    P: Param,
    F: Fn(T, P) -> U + for<'j> Fn(T, P::At<'j>) -> U + Copy + Send + 'static,
    for<'j> P::At<'j>: Copy,
{
    type From = T;
    type To = U;
    fn all(from: &[T], to: &mut [U], within: Chunk, with: P::At<'_>) {
        let f = zst_value::<F>();
        map_all(from, to, within.0, |x| f(x, with));
    }
}

impl<T, U, P, F> ParFn<[T], [U], P> for F
where
    P: Param,
    F: Fn(&[T], &mut [U], P) + for<'j> Fn(&[T], &mut [U], P::At<'j>) + Copy + Send + 'static,
{
    type From = T;
    type To = U;
    fn all(from: &[T], to: &mut [U], _: Chunk, with: P::At<'_>) {
        zst_value::<F>()(from, to, with);
    }
}

impl<T, P, F> ParFn<(), [T], P> for F
where
    P: Param,
    F: Fn(&mut [T], P) + for<'j> Fn(&mut [T], P::At<'j>) + Copy + Send + 'static,
{
    type From = ();
    type To = T;
    fn all(_: &[()], part: &mut [T], _: Chunk, with: P::At<'_>) {
        zst_value::<F>()(part, with);
    }
}

/// Calls `F` with an argument. `I` and `O` say with what else: see [`ParFn`].
pub(super) struct EachWith<F, I: ?Sized, O: ?Sized>(PhantomData<(F, *const I, *const O)>);

impl<T, U, P, F, I, O> Work<T, U, P> for EachWith<F, I, O>
where
    P: Param,
    F: ParFn<I, O, P, From = T, To = U>,
    I: ?Sized + 'static,
    O: ?Sized + 'static,
{
    fn run(from: &[T], to: &mut [U], within: Within, with: P::At<'_>) {
        F::all(from, to, Chunk(within), with);
    }
}

impl<T, P, F> Change<T, P> for EachWith<F, (), [T]>
where
    T: 'static,
    P: Param,
    F: ParFn<(), [T], P, From = (), To = T>,
{
    fn run(part: &mut [T], with: P::At<'_>) {
        F::all(&[], part, Chunk(Within::default()), with);
    }
}
