//! Maps in `async` code.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::{DeadLetter, KeepingArgs, Map, Unordered, UnorderedKeepingArgs};
use crate::engine::JobError;

/// The stream of [`Map::stream`], [`Unordered::stream`], [`KeepingArgs::stream`] and [`UnorderedKeepingArgs::stream`].
///
/// Dropping it cancels what is in flight.
#[must_use = "a stream does nothing before it is polled"]
pub struct MapStream<M> {
    map: M,
}

// It borrows nothing from itself: items and answers are moved in and out.
impl<M> Unpin for MapStream<M> {}

impl<I: Iterator, R> Map<I, R> {
    /// The results as a [`Stream`], on any executor: no runtime is needed, and none is held up. Polling takes a bounded number
    /// of items and never waits, neither for a worker nor for [admission](crate::engine::Builder::admission) nor for a
    /// [`Limiter`](crate::Limiter); a stream whose results are all there lets other tasks run every now and then.
    ///
    /// A type of its own, because a map is an [`Iterator`], and both have a `next`.
    ///
    /// ```
    /// # use arenite::Engine;
    /// use smol::stream::StreamExt;
    ///
    /// # fn main() -> Result<(), arenite::JobError> {
    /// # let engine = Engine::inline();
    /// smol::block_on(async {
    ///     let mut squares = engine.map(|n: u64| n * n, (0..4).map(|n| (n,))).stream();
    ///     let mut sum = 0;
    ///     while let Some(square) = squares.next().await {
    ///         sum += square?;
    ///     }
    ///     assert_eq!(sum, 14);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// An inline engine has nobody else to run the jobs: there polling runs one.
    pub fn stream(self) -> MapStream<Self> {
        MapStream { map: self }
    }
}

impl<I: Iterator, R> Unordered<I, R> {
    /// The results as a [`Stream`]: see [`Map::stream`].
    pub fn stream(self) -> MapStream<Self> {
        MapStream { map: self }
    }
}

impl<I: Iterator<Item: Clone>, R> KeepingArgs<I, R> {
    /// The results as a [`Stream`], each failure with its arguments: see [`Map::stream`].
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use smol::stream::StreamExt;
    ///
    /// fn invert(n: i32) -> Result<i32, &'static str> {
    ///     100_i32.checked_div(n).ok_or("a division by zero")
    /// }
    ///
    /// smol::block_on(async {
    ///     let items = [1, 0, 2].map(|n| (n,));
    ///     let mut results = engine.map(invert, items).keep_args().stream();
    ///     let mut failed = Vec::new();
    ///     while let Some(result) = results.next().await {
    ///         failed.extend(result.err().map(|letter| (letter.index(), letter.into_args())));
    ///     }
    ///     assert_eq!(failed, [(1, (0,))]);
    /// });
    /// ```
    pub fn stream(self) -> MapStream<Self> {
        MapStream { map: self }
    }
}

impl<I: Iterator<Item: Clone>, R> UnorderedKeepingArgs<I, R> {
    /// The results as a [`Stream`], as they end, each failure with its arguments: see [`Map::stream`].
    pub fn stream(self) -> MapStream<Self> {
        MapStream { map: self }
    }
}

impl<I: Iterator, R> Stream for MapStream<Map<I, R>> {
    type Item = Result<R, JobError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.map.feed.poll_next(context);
        next.map(|next| next.map(|((), answer)| answer))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.map.size_hint()
    }
}

impl<I: Iterator, R> Stream for MapStream<Unordered<I, R>> {
    type Item = (usize, Result<R, JobError>);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.map.feed.poll_next(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.map.size_hint()
    }
}

impl<I: Iterator<Item: Clone>, R> Stream for MapStream<KeepingArgs<I, R>> {
    type Item = Result<R, DeadLetter<I::Item>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.map.feed.poll_next(context);
        next.map(|next| next.map(|((), answer)| self.map.letter(answer)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.map.size_hint()
    }
}

impl<I: Iterator<Item: Clone>, R> Stream for MapStream<UnorderedKeepingArgs<I, R>> {
    type Item = (usize, Result<R, DeadLetter<I::Item>>);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.map.feed.poll_next(context);
        next.map(|next| next.map(|answer| self.map.letter(answer)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.map.size_hint()
    }
}

impl<M: fmt::Debug> fmt::Debug for MapStream<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MapStream").field(&self.map).finish()
    }
}
