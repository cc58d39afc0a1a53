//! Whole arrays in chunks, with one argument more for each call of the function.

use std::marker::PhantomData;

use super::par::{Change, Within, Work, map_all};
use super::{Engine, JobError};
use crate::array::{Array, ArrayMut, Element};
use crate::kernel::{Arg, Key, Param, zst_value};

/// A function, or a closure that captures nothing, of an element and one argument more: for [`Engine::par_map_with`].
/// Implemented for every such function whose argument can be had for each element: a [`Scalar`](crate::Scalar), `&Array<V>`, `&[V]`,
/// `&[Array<V>]` or `&str`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function of `{T}` and `{P}` that returns `{U}`",
    label = "cannot be called for each element",
    note = "a closure needs the types of its parameters here: `|x: f32, scale: f32| x * scale`",
    note = "the second parameter may be `&Array<V>`, `&[V]`, `&[Array<V>]`, `&str`, a number, `[S; N]`, your own `impl arenite::Scalar`"
)]
pub trait MapWith<T, U, P: Param>: Copy + Send + 'static {
    #[doc(hidden)]
    fn all(from: &[T], to: &mut [U], within: Chunk, with: P::At<'_>);
}

/// A function, or a closure that captures nothing, of a chunk, a chunk of the result, and one argument more: for
/// [`Engine::par_apply_with`]. Implemented for every such function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function of `&[{T}]`, `&mut [{U}]` and `{P}`",
    label = "cannot be called for each chunk",
    note = "a closure needs the types of its parameters here: `|from: &[f32], to: &mut [f32], scale: f32| …`"
)]
pub trait ApplyWith<T, U, P: Param>: Copy + Send + 'static {
    #[doc(hidden)]
    fn all(from: &[T], to: &mut [U], with: P::At<'_>, key: Key);
}

/// A function, or a closure that captures nothing, of a chunk and one argument more: for [`Engine::par_apply_mut_with`].
/// Implemented for every such function, and called by this crate alone: a type without bytes need not have a value.
///
/// ```compile_fail,E0061
/// use arenite::engine::ApplyMutWith;
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

/// Where a chunk is; only this crate knows, and can name or make one.
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

struct MapEach<F>(PhantomData<F>);

impl<T, U, P: Param, F: MapWith<T, U, P>> Work<T, U, P> for MapEach<F> {
    fn run(from: &[T], to: &mut [U], within: Within, with: P::At<'_>) {
        F::all(from, to, Chunk(within), with);
    }
}

struct ApplyEach<F>(PhantomData<F>);

impl<T, U, P: Param, F: ApplyWith<T, U, P>> Work<T, U, P> for ApplyEach<F> {
    fn run(from: &[T], to: &mut [U], _: Within, with: P::At<'_>) {
        F::all(from, to, with, Key::new());
    }
}

struct ChangeEach<F>(PhantomData<F>);

impl<T, P: Param, F: ApplyMutWith<T, P>> Change<T, P> for ChangeEach<F> {
    fn run(part: &mut [T], with: P::At<'_>) {
        F::all(part, with, Key::new());
    }
}

impl Engine {
    /// As [`par_map`](Engine::par_map), with an argument for each call of `f`: a number, an array that all workers read, a plain type
    /// of one's own ([`Scalar`](crate::Scalar)). A kernel must capture nothing, and this is how it gets what it needs. `f` is given it
    /// behind the element, and only reads it.
    ///
    /// ```
    /// use arenite::Array;
    ///
    /// # let engine = arenite::Engine::inline();
    /// let pixels = engine.from_slice(&[0u8, 2, 1])?;
    /// let table = engine.from_slice(&[10.0f32, 20.0, 30.0])?;
    /// let looked_up = engine.par_map_with(&pixels, &table, |x: u8, table: &Array<f32>| table[x as usize])?;
    /// assert_eq!(looked_up[..], [10.0, 30.0, 20.0]);
    ///
    /// // Several numbers go as an array of them.
    /// let line = |x: f32, [slope, offset]: [f32; 2]| slope * x + offset;
    /// assert_eq!(engine.par_map_with(&looked_up, [2.0, 1.0], line)?[..], [21.0, 61.0, 41.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`par_map`](Engine::par_map); an array that is passed has to be in this engine's arena, too.
    pub fn par_map_with<T, U, P, A, F>(
        &self,
        a: &Array<T>,
        with: A,
        f: F,
    ) -> Result<Array<U>, JobError>
    where
        T: Element,
        U: Element,
        P: Param + 'static,
        A: for<'e> Arg<'e, P> + Clone,
        F: MapWith<T, U, P>,
    {
        // A name for its type, here and below: it has no bytes.
        let _ = f;
        self.work_on_each::<T, U, P, MapEach<F>>(a, with)
    }

    /// As [`par_apply`](Engine::par_apply), with an argument for each call of `f`, as [`par_map_with`](Engine::par_map_with) has it.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let samples = engine.from_slice(&[0.5f32, -2.0, 1.5])?;
    /// let clipped = engine.par_apply_with(&samples, 1.0, |from: &[f32], to: &mut [f32], limit: f32| {
    ///     for (to, from) in to.iter_mut().zip(from) {
    ///         *to = from.clamp(-limit, limit);
    ///     }
    /// })?;
    /// assert_eq!(clipped[..], [0.5, -1.0, 1.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`par_map_with`](Engine::par_map_with).
    pub fn par_apply_with<T, U, P, A, F>(
        &self,
        a: &Array<T>,
        with: A,
        f: F,
    ) -> Result<Array<U>, JobError>
    where
        T: Element,
        U: Element,
        P: Param + 'static,
        A: for<'e> Arg<'e, P> + Clone,
        F: ApplyWith<T, U, P>,
    {
        let _ = f;
        self.work_on::<T, U, P, ApplyEach<F>>(a, with)
    }

    /// As [`par_apply_mut`](Engine::par_apply_mut), with an argument for each call of `f`, as
    /// [`par_map_with`](Engine::par_map_with) has it.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let mut weights = engine.from_fn(3, |i| i as f64)?.try_into_mut().unwrap();
    /// engine.par_apply_mut_with(&mut weights, 0.5, |part: &mut [f64], decay: f64| {
    ///     part.iter_mut().for_each(|weight| *weight *= decay);
    /// })?;
    /// assert_eq!(weights[..], [0.0, 0.5, 1.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`par_apply_mut`](Engine::par_apply_mut); an array that is passed has to be in this engine's arena, too.
    pub fn par_apply_mut_with<T, P, A, F>(
        &self,
        a: &mut ArrayMut<T>,
        with: A,
        f: F,
    ) -> Result<(), JobError>
    where
        T: Element,
        P: Param + 'static,
        A: for<'e> Arg<'e, P> + Clone,
        F: ApplyMutWith<T, P>,
    {
        let _ = f;
        self.change::<T, P, ChangeEach<F>>(a, with)
    }
}
