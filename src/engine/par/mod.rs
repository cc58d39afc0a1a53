//! Work on a whole array: all workers take part, and the caller waits for the result.
//!
//! [`Engine::par`](crate::Engine::par) and [`Engine::par_mut`](crate::Engine::par_mut) start here.
//!
//! | to | call |
//! |---|---|
//! | compute each element from one element | [`map`](Par::map) |
//! | compute chunks from chunks | [`apply`](Par::apply), in place [`ParMut::apply`] |
//! | pass an additional argument to the function | [`with`](Par::with) |
//! | get the results of the rows that succeeded | [`map_report`](Par::map_report) |
//! | sum, search, count | [`sum`](Par::sum), [`mean`](Par::mean), [`min`](Par::min), [`argmax`](Par::argmax), [`histogram`](Par::histogram) |
//! | accumulate | [`cumsum`](Par::cumsum), [`scan`](Par::scan) |
//! | combine the results of a kernel over chunks | [`reduce`](Par::reduce) |
//!
//! All of these block the caller's thread. In `async` code, call them where blocking is allowed (`spawn_blocking` of
//! tokio, `unblock` of smol), like a [scope](crate::Engine::scope).

mod chunks;
mod functions;
mod report;

use std::fmt;

pub use super::numbers::{Histogram, Number};
pub use functions::ParFn;

use super::{Engine, JobError, Report};
use crate::array::{Array, ArrayMut, Element};
use crate::kernel::{Arg, Bound, Nothing, Param, captures_nothing};
use chunks::{ApplyEach, ChangeEach, MapEach};
use functions::EachWith;

/// An array that all workers work on: see [`Engine::par`]. `W` is the [argument](Self::with), as a tuple of one.
#[must_use = "nothing runs before a method such as `map` or `sum` is called"]
pub struct Par<'a, T: Element, W = ()> {
    pub(super) engine: &'a Engine,
    pub(super) array: &'a Array<T>,
    with: W,
}

/// An array that all workers change in place: see [`Engine::par_mut`]. `W` is the [argument](Self::with), as a tuple of
/// one.
#[must_use = "nothing runs before `apply` is called"]
pub struct ParMut<'a, T: Element, W = ()> {
    engine: &'a Engine,
    array: &'a mut ArrayMut<T>,
    with: W,
}

impl Engine {
    /// Works on a whole array with all workers: see [`par`](crate::par).
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let numbers = engine.from_slice(&[1i64, 2, 3])?;
    /// assert_eq!(engine.par(&numbers).map(|x| x * x)?[..], [1, 4, 9]);
    /// assert_eq!(engine.par(&numbers).sum()?, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("par_iter", "prange", "par_map", "par_apply"))]
    pub fn par<'a, T: Element>(&'a self, array: &'a Array<T>) -> Par<'a, T> {
        Par {
            engine: self,
            array,
            with: (),
        }
    }

    /// Changes a whole array in place with all workers: see [`ParMut::apply`].
    #[doc(alias = "par_apply_mut")]
    pub fn par_mut<'a, T: Element>(&'a self, array: &'a mut ArrayMut<T>) -> ParMut<'a, T> {
        ParMut {
            engine: self,
            array,
            with: (),
        }
    }
}

impl<'a, T: Element> Par<'a, T> {
    /// Passes an argument to each call of the function, after the element or the chunk: a number, an array that all
    /// workers read, a plain type of your own ([`Scalar`](crate::Scalar)). A kernel cannot capture variables: pass them
    /// with this method.
    ///
    /// ```
    /// use arenite::Array;
    ///
    /// # let engine = arenite::Engine::inline();
    /// let pixels = engine.from_slice(&[0u8, 2, 1])?;
    /// let table = engine.from_slice(&[10.0f32, 20.0, 30.0])?;
    /// let looked_up = engine.par(&pixels).with(&table).map(|x: u8, table: &Array<f32>| table[x as usize])?;
    /// assert_eq!(looked_up[..], [10.0, 30.0, 20.0]);
    ///
    /// // Several numbers go as an array of them.
    /// let line = |x: f32, [slope, offset]: [f32; 2]| slope * x + offset;
    /// assert_eq!(engine.par(&looked_up).with([2.0, 1.0]).map(line)?[..], [21.0, 61.0, 41.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with<A>(self, argument: A) -> Par<'a, T, (A,)> {
        Par {
            engine: self.engine,
            array: self.array,
            with: (argument,),
        }
    }

    /// Returns an array of the same shape whose elements are `f` of the elements of this array.
    ///
    /// The numbers that an element draws from [`rng`](crate::rng) depend on its index, and not on the number of
    /// workers.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let numbers = engine.from_slice(&[1i64, 2, 3])?;
    /// assert_eq!(engine.par(&numbers).map(|x| x * x)?[..], [1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`]: the array is not in this engine's arena, there is no room for the result, or a job failed (which a
    /// [report](Par::map_report) contains instead).
    pub fn map<U, F>(self, f: F) -> Result<Array<U>, JobError>
    where
        U: Element,
        F: Fn(T) -> U + Copy + Send + 'static,
    {
        // In this and the following methods, only the type of `f` is used: its value has no bytes.
        const { captures_nothing::<F>() };
        let _ = f;
        self.engine
            .work_on_each::<T, U, Nothing, MapEach<F>>(self.array, Nothing)
    }

    /// Like [`map`](Par::map), but keeps the results of the other rows if some rows fail, with each failure as a
    /// [`DeadLetter`](crate::DeadLetter) of its rows of the input. A row is a step of the leading axis: in an array
    /// with one axis, an element.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let numbers = engine.from_slice(&[1u32, 0, 5])?;
    /// let report = engine.par(&numbers).map_report(|x: u32| 100 / x)?;
    /// assert_eq!(report.values[..], [100, 0, 20]);
    /// let [failure] = &report.failures[..] else { panic!("{report}") };
    /// assert_eq!((failure.index, failure.args[0]), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A failure is a single row. Rows share a job at first; the rows of a failed job run again in two
    /// halves, and so on down to single rows. So the function may be called several times with an element. A row that
    /// panics costs two jobs at each halving; a row that ends its worker costs a worker at each halving: about 14
    /// workers for one number among 100,000. With several [lanes](super::Builder::lanes), rows that ended a worker run
    /// again in a worker without other jobs, like jobs with a deadline. The halving stops, and failures have several
    /// rows, if more than 10,000 parts fail at once, if more than 200 workers were lost, if parts of half of the array
    /// all end their workers, or if any other rows would fail in the same way (for example because the array is not in
    /// this engine's arena).
    ///
    /// The numbers that an element draws from [`rng`](crate::rng) depend only on its index, also when it is tried
    /// again.
    ///
    /// # Errors
    /// [`JobError`]: there is no room for the result.
    pub fn map_report<U, F>(self, f: F) -> Result<Report<Array<T>, Array<U>>, JobError>
    where
        U: Element,
        F: Fn(T) -> U + Copy + Send + 'static,
    {
        const { captures_nothing::<F>() };
        let _ = f;
        self.engine
            .report_rows::<T, U, Nothing, MapEach<F>>(self.array, Nothing)
    }

    /// Returns an array of the same shape whose elements `f` computes chunk by chunk: `f` gets two slices of equal
    /// length, a chunk and the same chunk of the result.
    ///
    /// Chunks are cut along the leading axis. Their length depends on the number of workers; so do the numbers that `f`
    /// draws from [`rng`](crate::rng). Elements of the result are unspecified until `f` writes them.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let numbers = engine.from_slice(&[1i64, 2, 3])?;
    /// let squares = engine.par(&numbers).apply(|from: &[i64], to: &mut [i64]| {
    ///     for (to, from) in to.iter_mut().zip(from) {
    ///         *to = from * from;
    ///     }
    /// })?;
    /// assert_eq!(squares[..], [1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Like [`map`](Par::map).
    pub fn apply<U, F>(self, f: F) -> Result<Array<U>, JobError>
    where
        U: Element,
        F: Fn(&[T], &mut [U]) + Copy + Send + 'static,
    {
        const { captures_nothing::<F>() };
        let _ = f;
        self.engine
            .work_on::<T, U, Nothing, ApplyEach<F>>(self.array, Nothing)
    }

    /// Like [`map`](Par::map), with a [`kernel!`](crate::kernel!) that captures variables. The same as
    /// [`with`](Par::with) and `map`.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{Array, kernel};
    ///
    /// let (pixels, table) = (engine.from_slice(&[0u8, 2, 1])?, engine.from_slice(&[10.0f32, 20.0, 30.0])?);
    /// let offset = 0.5;
    /// let levels = engine.par(&pixels).map_kernel(kernel!(|table: &Array<f32>, offset: f32| |x: u8| {
    ///     table[usize::from(x)] + offset
    /// }))?;
    /// assert_eq!(levels[..], [10.5, 30.5, 20.5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Like [`map`](Par::map); a captured array has to be in this engine's arena, too.
    pub fn map_kernel<U, P, F, C>(self, kernel: Bound<F, C>) -> Result<Array<U>, JobError>
    where
        U: Element,
        P: Param + 'static,
        C: for<'e> Arg<'e, P> + Clone,
        F: ParFn<T, U, P, From = T, To = U>,
    {
        self.with(kernel.captured).map(kernel.kernel)
    }

    /// Like [`apply`](Par::apply), with a [`kernel!`](crate::kernel!) that captures variables. The same as
    /// [`with`](Par::with) and `apply`.
    ///
    /// # Errors
    /// Like [`map`](Par::map); a captured array has to be in this engine's arena, too.
    pub fn apply_kernel<U, P, F, C>(self, kernel: Bound<F, C>) -> Result<Array<U>, JobError>
    where
        U: Element,
        P: Param + 'static,
        C: for<'e> Arg<'e, P> + Clone,
        F: ParFn<[T], [U], P, From = T, To = U>,
    {
        self.with(kernel.captured).apply(kernel.kernel)
    }
}

impl<T: Element, A> Par<'_, T, (A,)> {
    /// Like [`map`](Par::map), with the [argument](Par::with) after each element.
    ///
    /// # Errors
    /// Like [`map`](Par::map); an array argument has to be in this engine's arena, too.
    pub fn map<U, P, F>(self, f: F) -> Result<Array<U>, JobError>
    where
        U: Element,
        P: Param + 'static,
        A: for<'e> Arg<'e, P> + Clone,
        F: ParFn<T, U, P, From = T, To = U>,
    {
        const { captures_nothing::<F>() };
        let _ = f;
        self.engine
            .work_on_each::<T, U, P, EachWith<F, T, U>>(self.array, self.with.0)
    }

    /// Like [`map_report`](Par::map_report), with the [argument](Par::with) after each element.
    ///
    /// # Errors
    /// [`JobError`]: there is no room for the result.
    pub fn map_report<U, P, F>(self, f: F) -> Result<Report<Array<T>, Array<U>>, JobError>
    where
        U: Element,
        P: Param + 'static,
        A: for<'e> Arg<'e, P> + Clone,
        F: ParFn<T, U, P, From = T, To = U>,
    {
        const { captures_nothing::<F>() };
        let _ = f;
        self.engine
            .report_rows::<T, U, P, EachWith<F, T, U>>(self.array, self.with.0)
    }

    /// Like [`apply`](Par::apply), with the [argument](Par::with) after each chunk.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let samples = engine.from_slice(&[0.5f32, -2.0, 1.5])?;
    /// let clipped = engine.par(&samples).with(1.0).apply(|from: &[f32], to: &mut [f32], limit: f32| {
    ///     for (to, from) in to.iter_mut().zip(from) {
    ///         *to = from.clamp(-limit, limit);
    ///     }
    /// })?;
    /// assert_eq!(clipped[..], [0.5, -1.0, 1.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Like [`map`](Par::map); an array argument has to be in this engine's arena, too.
    pub fn apply<U, P, F>(self, f: F) -> Result<Array<U>, JobError>
    where
        U: Element,
        P: Param + 'static,
        A: for<'e> Arg<'e, P> + Clone,
        F: ParFn<[T], [U], P, From = T, To = U>,
    {
        const { captures_nothing::<F>() };
        let _ = f;
        self.engine
            .work_on::<T, U, P, EachWith<F, [T], [U]>>(self.array, self.with.0)
    }
}

impl<'a, T: Element> ParMut<'a, T> {
    /// Passes an argument to each call of the function, after the chunk: see [`Par::with`].
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let mut weights = engine.from_fn(3, |i| i as f64)?.try_into_mut().unwrap();
    /// engine.par_mut(&mut weights).with(0.5).apply(|part: &mut [f64], decay: f64| {
    ///     part.iter_mut().for_each(|weight| *weight *= decay);
    /// })?;
    /// assert_eq!(weights[..], [0.0, 0.5, 1.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with<A>(self, argument: A) -> ParMut<'a, T, (A,)> {
        ParMut {
            engine: self.engine,
            array: self.array,
            with: (argument,),
        }
    }

    /// Changes the array in place, chunk by chunk. The length of the chunks, and the numbers that `f` draws from
    /// [`rng`](crate::rng), depend on the number of workers.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let mut numbers = engine.zeros::<i64>(3)?;
    /// engine.par_mut(&mut numbers).apply(|part: &mut [i64]| part.fill(7))?;
    /// assert_eq!(numbers[..], [7, 7, 7]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`]: the array is not in this engine's arena, a chunk failed (then some chunks may be changed and
    /// others not), or the workers are sandboxed ([`Rejection::Lending`](crate::Rejection::Lending)).
    pub fn apply<F>(self, f: F) -> Result<(), JobError>
    where
        F: Fn(&mut [T]) + Copy + Send + 'static,
    {
        const { captures_nothing::<F>() };
        let _ = f;
        self.engine
            .change::<T, Nothing, ChangeEach<F>>(self.array, Nothing)
    }

    /// Like [`apply`](ParMut::apply), with a [`kernel!`](crate::kernel!) that captures variables. The same as
    /// [`with`](ParMut::with) and `apply`.
    ///
    /// # Errors
    /// Like [`apply`](ParMut::apply); a captured array has to be in this engine's arena, too.
    pub fn apply_kernel<P, F, C>(self, kernel: Bound<F, C>) -> Result<(), JobError>
    where
        P: Param + 'static,
        C: for<'e> Arg<'e, P> + Clone,
        F: ParFn<(), [T], P, From = (), To = T>,
    {
        self.with(kernel.captured).apply(kernel.kernel)
    }
}

impl<T: Element, A> ParMut<'_, T, (A,)> {
    /// Like [`apply`](ParMut::apply), with the [argument](ParMut::with) after each chunk.
    ///
    /// # Errors
    /// Like [`apply`](ParMut::apply); an array argument has to be in this engine's arena, too.
    pub fn apply<P, F>(self, f: F) -> Result<(), JobError>
    where
        P: Param + 'static,
        A: for<'e> Arg<'e, P> + Clone,
        F: ParFn<(), [T], P, From = (), To = T>,
    {
        const { captures_nothing::<F>() };
        let _ = f;
        self.engine
            .change::<T, P, EachWith<F, (), [T]>>(self.array, self.with.0)
    }
}

impl<T: Element, W: fmt::Debug> fmt::Debug for Par<'_, T, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Par")
            .field("shape", &self.array.shape())
            .field("with", &self.with)
            .finish_non_exhaustive()
    }
}

impl<T: Element, W: fmt::Debug> fmt::Debug for ParMut<'_, T, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParMut")
            .field("shape", &self.array.shape())
            .field("with", &self.with)
            .finish_non_exhaustive()
    }
}
