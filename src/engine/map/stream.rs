//! Maps in `async` code.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::Map;
use crate::engine::JobFailure;
use crate::supervisor::ResultKey;

/// The results of a [`Map`] as a [`Stream`]: see [`Map::stream`].
///
/// Dropping it cancels the jobs in flight.
#[must_use = "a stream does nothing before it is polled"]
pub(in crate::engine) struct MapStream<M>(pub(super) M);

// The stream is not self-referential.
impl<M> Unpin for MapStream<M> {}

impl<I: Iterator, R, E: JobFailure, K: ResultKey> Stream for MapStream<Map<I, R, E, K>> {
    type Item = K::Item<Result<R, E>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.0.feed.poll_next(context);
        next.map(|next| next.map(|next| self.0.give(next)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<M: fmt::Debug> fmt::Debug for MapStream<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MapStream").field(&self.0).finish()
    }
}
