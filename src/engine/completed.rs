//! Jobs in the order in which they end.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::{Job, JobError};
use crate::supervisor::{JobId, Shared, park_until};

/// Yields each job's index and answer as they end, whichever ends first.
///
/// The iterator is run to its end first: with one that submits, all jobs are under way at once, and all their results lie
/// in the arena until they are taken. That is right for a handful of different jobs. For many calls of one kernel, or an
/// iterator without an end, [`Engine::map`](crate::Engine::map) with [`unordered`](crate::engine::Map::unordered) pulls items as workers
/// need them, and gives the same pairs.
///
/// ```
/// # let engine = arenite::Engine::inline();
/// let jobs = (0..4u64).map(|n| engine.submit(|n: u64| n * n, (n,)));
/// for (index, square) in arenite::as_completed(jobs) {
///     assert_eq!(square?, (index * index) as u64);
/// }
/// # Ok::<(), arenite::JobError>(())
/// ```
pub fn as_completed<R: Send + 'static>(jobs: impl IntoIterator<Item = Job<R>>) -> AsCompleted<R> {
    let jobs: Vec<Option<Job<R>>> = jobs.into_iter().map(Some).collect();
    let news = Arc::new(News::default());
    news.lock().extend(0..jobs.len());
    let left = jobs.len();
    AsCompleted { jobs, news, left }
}

/// The iterator of [`as_completed`]. Dropping it cancels what has not ended.
pub struct AsCompleted<R> {
    jobs: Vec<Option<Job<R>>>,
    news: Arc<News>,
    left: usize,
}

/// Which jobs to look at.
#[derive(Default)]
struct News {
    indices: Mutex<VecDeque<usize>>,
    arrived: Condvar,
}

impl News {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<usize>> {
        self.indices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> usize {
        let mut indices = self.lock();
        loop {
            if let Some(index) = indices.pop_front() {
                return index;
            }
            indices = self
                .arrived
                .wait(indices)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

struct Tell {
    index: usize,
    news: Arc<News>,
}

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        self.news.lock().push_back(self.index);
        self.news.arrived.notify_one();
    }
}

impl<R: Send + 'static> Iterator for AsCompleted<R> {
    type Item = (usize, Result<R, JobError>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            let index = self.news.next();
            let Some(job) = &mut self.jobs[index] else {
                continue;
            };
            let waker = Waker::from(Arc::new(Tell {
                index,
                news: Arc::clone(&self.news),
            }));
            if let Poll::Ready(answer) = Pin::new(job).poll(&mut Context::from_waker(&waker)) {
                self.jobs[index] = None;
                self.left -= 1;
                return Some((index, answer));
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<R: Send + 'static> ExactSizeIterator for AsCompleted<R> {}

impl<R> fmt::Debug for AsCompleted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// Sleeps until one of these jobs has ended, well or badly, and gives its index; `None` if there are no jobs, or the time
/// runs out before. Nothing is taken: ask the job with [`wait`](Job::wait). The jobs may be those of several engines.
///
/// ```
/// # let engine = arenite::Engine::inline();
/// let mut jobs = vec![engine.submit(|n: u64| n + 1, (1,)), engine.submit(|n: u64| n * 2, (1,))];
/// let first = arenite::wait_any(&mut jobs, None).expect("there are jobs");
/// assert_eq!(jobs.swap_remove(first).wait()?, 2);
/// # Ok::<(), arenite::JobError>(())
/// ```
#[doc(alias = "FIRST_COMPLETED")]
pub fn wait_any<'j, R: Send + 'static>(
    jobs: impl IntoIterator<Item = &'j mut Job<R>>,
    limit: Option<Duration>,
) -> Option<usize> {
    type Sent = Vec<(usize, JobId)>;
    let mut engines: Vec<(Arc<Shared>, Sent)> = Vec::new();
    for (index, job) in jobs.into_iter().enumerate() {
        // One that ran in this thread has ended.
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
    park_until(limit, |waker| {
        engines.iter().find_map(|(shared, ids)| {
            let ended = shared.poll_any(ids.iter().map(|&(_, id)| id), waker)?;
            Some(ids[ended].0)
        })
    })
}

/// Sleeps until all of these jobs have ended, well or badly; false if the time runs out before. Nothing is taken.
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
pub fn wait_all<'j, R: Send + 'static>(
    jobs: impl IntoIterator<Item = &'j Job<R>>,
    limit: Option<Duration>,
) -> bool {
    // A limit beyond all clocks is none.
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    jobs.into_iter().all(|job| {
        job.sent_to().is_none_or(|(shared, id)| {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            shared.wait_until_done(id, left)
        })
    })
}
