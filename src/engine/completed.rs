//! Jobs in the order in which they end.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::{Job, JobError};

/// Yields each job's index and answer as they end, whichever ends first.
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

use std::future::Future;
