//! Results in the order in which jobs end.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::map::IN_A_ROW;
use super::{Job, JobError, JobFailure};
use crate::supervisor::{JobId, Supervisor, park_until};
use crate::sync::lock;

/// Yields the index and result of each job as soon as it ends.
///
/// The iterator is exhausted first: if its items are jobs that it submits, then all jobs are in flight at once, and all
/// their results stay in the arena until they are taken. That suits a few different jobs. For many calls of one kernel,
/// or an endless iterator, [`Engine::map`](crate::Engine::map) with [`unordered`](crate::engine::Map::unordered) pulls
/// items as workers need them, and yields the same pairs.
///
/// ```
/// # let engine = arenite::Engine::inline();
/// let jobs = (0..4u64).map(|n| engine.submit(|n: u64| n * n, (n,)));
/// for (index, square) in arenite::as_completed(jobs) {
///     assert_eq!(square?, (index * index) as u64);
/// }
/// # Ok::<(), arenite::JobError>(())
/// ```
pub fn as_completed<R: Send + 'static, E: JobFailure>(
    jobs: impl IntoIterator<Item = Job<R, E>>,
) -> AsCompleted<R, E> {
    let jobs: HashMap<usize, Job<R, E>> = jobs.into_iter().enumerate().collect();
    let ready = Arc::new(ReadyQueue::default());
    lock(&ready.ready).indices.extend(0..jobs.len());
    AsCompleted {
        next: jobs.len(),
        jobs,
        ready,
        in_a_row: 0,
    }
}

/// The iterator of [`as_completed`]. Dropping it cancels the jobs that have not ended.
#[must_use = "dropping it cancels the jobs that have not ended: take their results"]
pub struct AsCompleted<R, E: JobFailure = JobError> {
    /// Jobs whose results have not been taken, by index.
    jobs: HashMap<usize, Job<R, E>>,
    /// The index of the next job.
    next: usize,
    ready: Arc<ReadyQueue>,
    /// Number of jobs that the stream has polled since it last yielded to the executor.
    in_a_row: u32,
}

/// The indices of the jobs whose wakers were called, and which must be polled.
#[derive(Default)]
struct ReadyQueue {
    ready: Mutex<Ready>,
    arrived: Condvar,
}

#[derive(Default)]
struct Ready {
    indices: VecDeque<usize>,
    /// The waker of the task that waits.
    waker: Option<Waker>,
}

impl ReadyQueue {
    fn push(&self, index: usize) {
        let waker = {
            let mut ready = lock(&self.ready);
            ready.indices.push_back(index);
            ready.waker.take()
        };
        self.arrived.notify_one();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Returns the index of the next job to poll. If there is none, the task is woken when a job is ready.
    fn poll(&self, context: &Context<'_>) -> Option<usize> {
        // Wakers are cloned and dropped outside the lock, because they are foreign code, which may end a job on this
        // thread.
        let mut waker = Some(context.waker().clone());
        let mut ready = lock(&self.ready);
        let index = ready.indices.pop_front();
        if index.is_none() {
            std::mem::swap(&mut ready.waker, &mut waker);
        }
        drop(ready);
        drop(waker);
        index
    }

    /// Waits for the next job to poll, and returns its index. Returns `None` at the time `until`. Calls `check` before
    /// it sleeps.
    fn next(&self, until: Option<Instant>, check: impl FnOnce()) -> Option<usize> {
        let ready = lock(&self.ready);
        if ready.indices.is_empty() {
            check();
        }
        let is_empty = |ready: &mut Ready| ready.indices.is_empty();
        let mut ready = match until {
            None => self
                .arrived
                .wait_while(ready, is_empty)
                .unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                let waited = self.arrived.wait_timeout_while(ready, left, is_empty);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        ready.indices.pop_front()
    }
}

/// The waker of one job.
struct JobWaker {
    index: usize,
    ready: Arc<ReadyQueue>,
}

impl Wake for JobWaker {
    fn wake(self: Arc<Self>) {
        self.ready.push(self.index);
    }
}

impl<R: Send + 'static, E: JobFailure> AsCompleted<R, E> {
    /// Adds a job and returns its index, for programs that submit further jobs after seeing results. An exhausted
    /// iterator continues with the new job.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn links(page: u32) -> u32 {
    ///     page / 2 // to one other page, until there is none
    /// }
    ///
    /// let mut open = arenite::as_completed([engine.submit(links, (10,))]);
    /// let mut pages = Vec::new();
    /// while let Some((_, page)) = open.next() {
    ///     let page = page?;
    ///     pages.push(page);
    ///     if page > 0 {
    ///         open.push(engine.submit(links, (page,)));
    ///     }
    /// }
    /// assert_eq!(pages, [5, 2, 1, 0]);
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    pub fn push(&mut self, job: Job<R, E>) -> usize {
        let index = self.next;
        self.next += 1;
        self.jobs.insert(index, job);
        self.ready.push(index);
        index
    }

    /// Like `next`, but waits at most `limit`. Returns `None` if the limit has passed, or if no jobs are left (`len` is
    /// 0).
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use std::time::Duration;
    ///
    /// let mut jobs = arenite::as_completed([engine.submit(|| 7, ())]);
    /// match jobs.next_timeout(Duration::from_secs(10)) {
    ///     Some((index, result)) => assert_eq!((index, result?), (0, 7)),
    ///     None => println!("{} jobs still run", jobs.len()),
    /// }
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    pub fn next_timeout(&mut self, limit: Duration) -> Option<(usize, Result<R, E>)> {
        // A limit beyond the range of the clock counts as no limit.
        self.next_until(Instant::now().checked_add(limit))
    }

    fn next_until(&mut self, until: Option<Instant>) -> Option<(usize, Result<R, E>)> {
        while !self.jobs.is_empty() {
            let index = self.ready.next(until, || {
                let sent = self.jobs.values().filter_map(Job::sent_to);
                sent.for_each(|(shared, _)| shared.assert_may_wait());
            })?;
            if let Some(result) = self.poll_job(index) {
                return Some(result);
            }
        }
        None
    }

    /// Takes the result of this job if it has ended; otherwise registers its waker.
    fn poll_job(&mut self, index: usize) -> Option<(usize, Result<R, E>)> {
        let job = self.jobs.get_mut(&index)?;
        let waker = Waker::from(Arc::new(JobWaker {
            index,
            ready: Arc::clone(&self.ready),
        }));
        let Poll::Ready(result) = Pin::new(job).poll(&mut Context::from_waker(&waker)) else {
            return None;
        };
        self.jobs.remove(&index);
        Some((index, result))
    }

    /// Converts into a [`Stream`] of the results, for any executor. Dropping it cancels the jobs that have not ended.
    ///
    /// ```
    /// # fn main() -> Result<(), arenite::JobError> {
    /// # let engine = arenite::Engine::inline();
    /// use smol::stream::StreamExt;
    ///
    /// smol::block_on(async {
    ///     let jobs = (0..4u64).map(|n| engine.submit(|n: u64| n * n, (n,)));
    ///     let mut squares = arenite::as_completed(jobs).stream();
    ///     while let Some((index, square)) = squares.next().await {
    ///         assert_eq!(square?, (index * index) as u64);
    ///     }
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn stream(self) -> impl Stream<Item = (usize, Result<R, E>)> + Unpin + use<R, E> {
        CompletedStream(self)
    }
}

impl<R: Send + 'static, E: JobFailure> Iterator for AsCompleted<R, E> {
    type Item = (usize, Result<R, E>);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_until(None)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.jobs.len(), Some(self.jobs.len()))
    }
}

impl<R: Send + 'static, E: JobFailure> ExactSizeIterator for AsCompleted<R, E> {}

impl<R, E: JobFailure> fmt::Debug for AsCompleted<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted")
            .field("left", &self.jobs.len())
            .finish_non_exhaustive()
    }
}

/// The stream of [`AsCompleted::stream`]. Dropping it cancels the jobs that have not ended.
#[derive(Debug)]
#[must_use = "a stream does nothing before it is polled"]
pub(super) struct CompletedStream<R, E: JobFailure = JobError>(AsCompleted<R, E>);

// The stream is not self-referential.
impl<R, E: JobFailure> Unpin for CompletedStream<R, E> {}

impl<R: Send + 'static, E: JobFailure> Stream for CompletedStream<R, E> {
    type Item = (usize, Result<R, E>);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let own = &mut self.0;
        while !own.jobs.is_empty() {
            if own.in_a_row == IN_A_ROW {
                // Yields to the executor even if no job has ended: otherwise no other task would run.
                own.in_a_row = 0;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(index) = own.ready.poll(context) else {
                own.in_a_row = 0;
                return Poll::Pending;
            };
            own.in_a_row += 1;
            if let Some(result) = own.poll_job(index) {
                return Poll::Ready(Some(result));
            }
        }
        Poll::Ready(None)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// Sleeps until one of these jobs has ended, and returns its index. Returns `None` if there are no jobs, or the limit
/// has passed. The result is not taken: call [`wait`](Job::wait). The jobs may belong to several engines.
///
/// ```
/// # let engine = arenite::Engine::inline();
/// let mut jobs = vec![engine.submit(|n: u64| n + 1, (1,)), engine.submit(|n: u64| n * 2, (1,))];
/// let first = arenite::wait_any(&mut jobs, None).expect("there are jobs");
/// assert_eq!(jobs.swap_remove(first).wait()?, 2);
/// # Ok::<(), arenite::JobError>(())
/// ```
#[doc(alias = "FIRST_COMPLETED")]
pub fn wait_any<'j, R: Send + 'static, E: JobFailure + 'j>(
    jobs: impl IntoIterator<Item = &'j mut Job<R, E>>,
    limit: Option<Duration>,
) -> Option<usize> {
    type Sent = Vec<(usize, JobId)>;
    let mut engines: Vec<(Arc<Supervisor>, Sent)> = Vec::new();
    for (index, job) in jobs.into_iter().enumerate() {
        // A job of an inline engine has ended already.
        let Some((shared, id)) = job.sent_to() else {
            return Some(index);
        };
        match engines
            .iter_mut()
            .find(|(known, _)| Arc::ptr_eq(known, shared))
        {
            Some((_, ids)) => ids.push((index, id)),
            None => engines.push((Arc::clone(shared), vec![(index, id)])),
        }
    }
    if engines.is_empty() {
        return None;
    }
    let ids = |sent: &'_ Sent| sent.iter().map(|&(_, id)| id).collect::<Vec<_>>();
    let engines = engines
        .iter()
        .map(|(shared, sent)| (shared, sent, ids(sent)));
    let engines: Vec<_> = engines.collect();
    if limit == Some(Duration::ZERO) {
        return engines.iter().find_map(|(shared, sent, ids)| {
            let ended = shared.look_any(ids.iter().copied())?;
            Some(sent[ended].0)
        });
    }
    for (shared, ..) in &engines {
        shared.assert_may_wait();
    }
    // The wakers of tasks that wait for the same jobs. They are put back afterwards.
    let mut displaced: Vec<_> = engines.iter().map(|_| Vec::new()).collect();
    let found = park_until(limit, |waker, words| {
        // Polls all engines, even after one has a result: any of them may have woken this thread to refill its lanes.
        let ended = engines
            .iter()
            .zip(&mut displaced)
            .map(|(engine, displaced)| {
                let (shared, sent, ids) = engine;
                let ids = ids.iter().copied();
                let ended = shared.poll_any_with(ids, waker, Some(words), displaced);
                ended.map(|ended| sent[ended].0)
            });
        ended.fold(None, Option::or)
    });
    for ((shared, ..), displaced) in engines.iter().zip(displaced) {
        shared.put_back(displaced);
    }
    found
}

/// Sleeps until all of these jobs have ended. Returns false if the limit passes first. The results are not taken.
///
/// ```
/// # let engine = arenite::Engine::inline();
/// let jobs: Vec<_> = (0..4u64).map(|n| engine.submit(|n: u64| n * n, (n,))).collect();
/// assert!(arenite::wait_all(&jobs, None));
/// let squares: Vec<u64> = jobs.into_iter().map(|job| job.wait()).collect::<Result<_, _>>()?;
/// assert_eq!(squares, [0, 1, 4, 9]);
/// # Ok::<(), arenite::JobError>(())
/// ```
#[doc(alias("gather", "ALL_COMPLETED", "join_all"))]
pub fn wait_all<'j, R: Send + 'static, E: JobFailure + 'j>(
    jobs: impl IntoIterator<Item = &'j Job<R, E>>,
    limit: Option<Duration>,
) -> bool {
    // A limit beyond the range of the clock counts as no limit.
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    jobs.into_iter().all(|job| {
        job.sent_to().is_none_or(|(shared, id)| {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            shared.wait_until_done(id, left)
        })
    })
}
