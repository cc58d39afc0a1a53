//! What bindings of other languages need, beside their calls: see [`kernel::raw`](crate::kernel::raw).

use std::task::Waker;
use std::time::Duration;

pub use super::seeds::Series;
use super::{Engine, Job, JobBuilder, JobFailure};
use crate::kernel::Program;
use crate::supervisor::JobOptions;

/// Returns the series for a call that runs several jobs, such as a map, which draw their [random numbers](crate::rng)
/// by their index in it.
pub fn series(engine: &Engine) -> Series {
    engine.seeds.series()
}

/// Makes the job draw the [random numbers](crate::rng) of this index of a series, instead of those of its number among
/// the submitted jobs.
pub fn in_series<'e, G: Program, A, const RETRIES: bool, E: JobFailure>(
    job: JobBuilder<'e, G, A, RETRIES, E>,
    series: &Series,
    index: u64,
) -> JobBuilder<'e, G, A, RETRIES, E> {
    job.seed(series.seed(index))
}

/// Starts the clock of the [deadline](JobOptions::deadline) when the kernel calls
/// [`begin_timed`](crate::raw::begin_timed), instead of when its worker gets the job, for functions that the kernel
/// loads. The job is ended in any case after `most` plus the deadline.
pub fn loading<const RETRIES: bool>(
    options: JobOptions<RETRIES>,
    most: Duration,
) -> JobOptions<RETRIES> {
    options.loading(most)
}

/// Registers `waker` to be called when the job has ended. Returns true if the job has ended already: then the waker
/// is not called.
///
/// The value is not taken. Use this in programs whose event loop is not made of futures, and in bindings to other
/// languages. It replaces the waker of an earlier call or poll; threads that wait for the job are not affected.
///
/// A waker should do no more than wake a thread or a task. The engine's own thread may call it, and until it
/// returns that thread replaces no workers and ends no jobs at their deadlines. If a waker waits for a job of this
/// engine there, the wait panics.
///
/// ```standalone_crate
/// use std::sync::Arc;
/// use std::sync::mpsc::{SyncSender, sync_channel};
/// use std::task::{Wake, Waker};
///
/// use arenite::Engine;
///
/// struct Report(SyncSender<()>);
///
/// impl Wake for Report {
///     fn wake(self: Arc<Self>) {
///         let _ = self.0.try_send(());
///     }
/// }
///
/// arenite::init();
/// let engine = Engine::builder().workers(1).build()?;
/// let (sender, ended) = sync_channel(1);
/// let job = engine.submit(|n: u32| n + 1, (1,));
/// if !arenite::raw::wake_when_done(&job, &Waker::from(Arc::new(Report(sender)))) {
///     ended.recv()?;
/// }
/// assert!(job.is_done());
/// assert_eq!(job.wait()?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wake_when_done<R: Send + 'static, E: JobFailure>(job: &Job<R, E>, waker: &Waker) -> bool {
    job.wake_when_done(waker)
}
