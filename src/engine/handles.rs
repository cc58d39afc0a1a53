//! Checks the auto traits of the public handles: if one changes, the tests do not compile.

use std::future::Future;

use futures_core::Stream;

use super::completed::CompletedStream;
use super::map::MapStream;
use super::*;
use crate::array::{Array, ArrayMut};

fn shared<T: Send + Sync + 'static>() {}
fn sent<T: Send + 'static>() {}
fn unpinned<T: Unpin>() {}
fn future<T: Future<Output = Result<R, JobError>>, R>() {}
fn iterator<T: Iterator<Item = Result<R, JobError>>, R>() {}
fn stream<T: Stream<Item = Result<R, JobError>>, R>() {}

/// A job is `Unpin`, and `Send` if its value is `Send`.
fn a_job_of<R: Send + 'static>() {
    sent::<Job<R>>();
    unpinned::<Job<R>>();
    future::<Job<R>, R>();
    sent::<Submitting<R>>();
    unpinned::<Submitting<R>>();
    sent::<AsCompleted<R>>();
    sent::<CompletedStream<R>>();
    unpinned::<CompletedStream<R>>();
}

/// A map is `Send` if its iterator is.
fn a_map_over<I: Iterator + Send + 'static, R: Send + 'static>() {
    sent::<Map<I, R>>();
    iterator::<Map<I, R>, R>();
    sent::<Map<I, R, JobError, usize>>();
    sent::<MapStream<Map<I, R>>>();
    sent::<MapStream<Map<I, R, JobError, usize>>>();
    stream::<MapStream<Map<I, R>>, R>();
}

/// A map that keeps its arguments is `Send` if its iterator and the items are.
fn a_map_that_keeps<I: Iterator<Item: Clone + Send> + Send + 'static, R: Send + 'static>() {
    sent::<Map<I, R, DeadLetter<I::Item>>>();
    sent::<Map<I, R, DeadLetter<I::Item>, usize>>();
    sent::<MapStream<Map<I, R, DeadLetter<I::Item>, usize>>>();
    unpinned::<MapStream<Map<I, R, DeadLetter<I::Item>, usize>>>();
}

/// A stream of a map is `Unpin` even if the iterator is not.
fn a_stream_of_a_map_over<I: Iterator, R>() {
    unpinned::<MapStream<Map<I, R>>>();
    unpinned::<MapStream<Map<I, R, JobError, usize>>>();
}

/// A map over a borrowed iterator has the lifetime of the borrow.
fn a_map_over_borrowed<'a, R: Send + 'a>(map: Map<std::slice::Iter<'a, u64>, R>) -> impl Send + 'a {
    map
}

#[test]
fn handles_have_the_auto_traits_that_threads_and_executors_need() {
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
    // Used here only to be compiled: their bodies are the check.
    a_job_of::<std::cell::Cell<u64>>();
    a_map_over::<std::vec::IntoIter<u64>, std::cell::Cell<u64>>();
    a_map_that_keeps::<std::vec::IntoIter<u64>, std::cell::Cell<u64>>();
    a_stream_of_a_map_over::<std::iter::Once<std::marker::PhantomPinned>, u64>();
    let _: fn(Map<std::slice::Iter<'static, u64>, u64>) -> _ = a_map_over_borrowed::<u64>;
}
