//! What other threads and executors may do with the handles: a change of it is an error when the tests are compiled.

use std::future::Future;

use futures_core::Stream;

use super::*;
use crate::array::{Array, ArrayMut};

fn shared<T: Send + Sync + 'static>() {}
fn sent<T: Send + 'static>() {}
fn unpinned<T: Unpin>() {}
fn future<T: Future<Output = Result<R, JobError>>, R>() {}
fn iterator<T: Iterator<Item = Result<R, JobError>>, R>() {}
fn stream<T: Stream<Item = Result<R, JobError>>, R>() {}

/// A job is sent wherever its value may be, and polled without being pinned.
fn a_job_of<R: Send + 'static>() {
    sent::<Job<R>>();
    unpinned::<Job<R>>();
    future::<Job<R>, R>();
    sent::<Calling<u64, R>>();
    unpinned::<Calling<u64, R>>();
    sent::<AsCompleted<R>>();
    sent::<CompletedStream<R>>();
    unpinned::<CompletedStream<R>>();
}

/// A map is as free as the iterator that it pulls from.
fn a_map_over<I: Iterator + Send + 'static, R: Send + 'static>() {
    sent::<Map<I, R>>();
    iterator::<Map<I, R>, R>();
    sent::<Map<I, R, JobError, usize>>();
    sent::<MapStream<Map<I, R>>>();
    sent::<MapStream<Map<I, R, JobError, usize>>>();
    stream::<MapStream<Map<I, R>>, R>();
}

/// So is one that keeps arguments.
fn a_map_that_keeps<I: Iterator<Item: Clone + Send> + Send + 'static, R: Send + 'static>() {
    sent::<Map<I, R, DeadLetter<I::Item>>>();
    sent::<Map<I, R, DeadLetter<I::Item>, usize>>();
    sent::<MapStream<Map<I, R, DeadLetter<I::Item>, usize>>>();
    unpinned::<MapStream<Map<I, R, DeadLetter<I::Item>, usize>>>();
}

/// Also where the iterator must not be moved.
fn a_stream_of_a_map_over<I: Iterator, R>() {
    unpinned::<MapStream<Map<I, R>>>();
    unpinned::<MapStream<Map<I, R, JobError, usize>>>();
}

/// A borrowed iterator is not `'static`, and neither is its map.
fn a_map_over_borrowed<'a, R: Send + 'a>(map: Map<std::slice::Iter<'a, u64>, R>) -> impl Send + 'a {
    map
}

#[test]
fn handles_go_where_threads_and_executors_need_them() {
    shared::<Engine>();
    shared::<Limiter>();
    shared::<Canceller>();
    shared::<Actor<u64>>();
    shared::<Array<u64>>();
    shared::<ArrayMut<u64>>();
    sent::<Builder>();
    sent::<JobError>();
    shared::<DeadLetter<u64>>();
    shared::<JobError>();
    // Named, so that nobody takes them away: their bodies are what is checked.
    a_job_of::<std::cell::Cell<u64>>();
    a_map_over::<std::vec::IntoIter<u64>, std::cell::Cell<u64>>();
    a_map_that_keeps::<std::vec::IntoIter<u64>, std::cell::Cell<u64>>();
    a_stream_of_a_map_over::<std::iter::Once<std::marker::PhantomPinned>, u64>();
    let _: fn(Map<std::slice::Iter<'static, u64>, u64>) -> _ = a_map_over_borrowed::<u64>;
}
