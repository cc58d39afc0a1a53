//! A step that runs a kernel.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::error::StreamError;
use super::flow::{BoxFlow, Driver, Event, Flow, Item};
use crate::engine::{DeadLetter, Engine, Job, JobBuilder, JobError};
use crate::kernel::{Accepts, Reply};
use crate::supervisor::{JobOptions, LineTicket, Supervisor};

/// Settings of one stage.
pub(super) struct StageOptions<'a, I> {
    pub(super) number: usize,
    pub(super) jobs: usize,
    pub(super) results: usize,
    pub(super) options: JobOptions,
    /// The receiver that was set by `dead_letters`.
    pub(super) letters: Option<Letters<'a, I>>,
}

/// How inputs are copied, and the receiver of failed inputs.
pub(super) struct Letters<'a, I> {
    pub(super) copy: fn(&I) -> I,
    pub(super) to: Rc<RefCell<dyn FnMut(DeadLetter<I>) + 'a>>,
}

/// A function that starts the job of an item. It returns the value that stays in this process, and the job.
pub(super) type CallFn<'a, I, K, R> =
    Box<dyn FnMut(&Engine, I, &ItemSettings<'_>) -> (K, Started<'a, R>) + 'a>;

/// Settings of the job of one item.
pub(super) struct ItemSettings<'t> {
    options: &'t JobOptions,
    seed: u64,
    /// How many copies of the item are kept until its job has ended.
    copies: usize,
}

/// The job of an item.
pub(super) enum Started<'a, R> {
    Job(Job<R>),
    /// The job is not admitted yet.
    Waits(EnterFn<'a, R>),
}

type EnterFn<'a, R> =
    Box<dyn FnMut(&Arc<Supervisor>, &mut LineTicket, &Context<'_>) -> Poll<Job<R>> + 'a>;

impl<'a, R: Send + 'static> Started<'a, R> {
    /// Submits the job. If it may have to wait for admission, does not submit it yet, because the driver must not
    /// block.
    pub(super) fn new<G, A, const RETRIES: bool>(
        job: JobBuilder<'_, G, A, RETRIES>,
        settings: &ItemSettings<'_>,
    ) -> Self
    where
        G: Accepts<A> + 'a,
        G::Reply: Reply<Out = R>,
    {
        let job = job.checked_options(settings.options).seed(settings.seed);
        match job.engine.supervisor() {
            Some(shared) if shared.has_ceiling() => {
                let (mut call, ()) = job.into_pending(shared.arena.id(), settings.copies);
                Self::Waits(Box::new(move |shared, line, context| {
                    let id = call.poll(shared, line, context);
                    id.map(|id| Job::submitted(shared, id, G::Reply::receive, ()))
                }))
            }
            _ => Self::Job(job.submit()),
        }
    }
}

pub(super) struct Stage<'a, I, K, R> {
    pub(super) before: BoxFlow<'a, I>,
    pub(super) call: CallFn<'a, I, K, R>,
    pub(super) options: Rc<RefCell<StageOptions<'a, I>>>,
    /// The events of the previous step. Only the job in the last slot may wait for admission; while it does, no more
    /// items are taken.
    pub(super) slots: VecDeque<Slot<'a, I, K, R>>,
    pub(super) running: usize,
    pub(super) ready: usize,
}

/// An event of the previous step, in order of arrival.
pub(super) enum Slot<'a, I, K, R> {
    Running(Running<'a, I, K, R>),
    Ready(Item<(K, R)>),
    Mark(Duration),
    Failed(StreamError),
    Empty,
}

pub(super) struct Running<'a, I, K, R> {
    job: Started<'a, R>,
    kept: Item<K>,
    copy: Option<I>,
    /// Whether the driver's waker is registered with the job.
    listening: bool,
}

impl<'a, I, K, R: Send + 'static> Stage<'a, I, K, R> {
    /// Submits the job that waits for admission. Returns false if the job still has to wait; then the driver's waker is
    /// registered.
    fn admit_last(&mut self, driver: &mut Driver<'_>) -> bool {
        let Some(Slot::Running(last)) = self.slots.back_mut() else {
            return true;
        };
        let Started::Waits(enter) = &mut last.job else {
            return true;
        };
        let Some(job) = driver.try_enter(enter) else {
            return false;
        };
        last.job = Started::Job(job);
        true
    }

    /// Takes the results of jobs that have ended. Returns true if there were any.
    fn take_results(&mut self, driver: &mut Driver<'_>) -> bool {
        if self.running == 0 {
            return false;
        }
        let mut ended = false;
        for slot in &mut self.slots {
            let is_done = matches!(
                slot,
                Slot::Running(Running { job: Started::Job(job), .. }) if job.is_done()
            );
            if is_done {
                let Slot::Running(Running {
                    job: Started::Job(job),
                    kept,
                    copy,
                    ..
                }) = std::mem::replace(slot, Slot::Empty)
                else {
                    unreachable!("the slot was just checked");
                };
                ended = true;
                self.running -= 1;
                *slot = match job.wait() {
                    Ok(value) => {
                        self.ready += 1;
                        Slot::Ready(kept.with(|kept| (kept, value)))
                    }
                    Err(error) => failed(&self.options, driver, kept, copy, error),
                };
            }
        }
        if ended {
            let slots = std::mem::take(&mut self.slots);
            for slot in slots {
                self.put(slot);
            }
        }
        ended
    }

    /// Appends a slot. Of adjacent watermarks, only the last one remains.
    fn put(&mut self, slot: Slot<'a, I, K, R>) {
        match (self.slots.back_mut(), slot) {
            (_, Slot::Empty) => {}
            (Some(Slot::Mark(last)), Slot::Mark(mark)) => *last = mark,
            (_, slot) => self.slots.push_back(slot),
        }
    }

    /// Removes a slot that is ready earlier than the slots ahead of it.
    fn overtake(&mut self, index: usize) -> Option<Slot<'a, I, K, R>> {
        let slot = self.slots.remove(index);
        let is_mark = |slot: Option<&Slot<'a, I, K, R>>| matches!(slot, Some(Slot::Mark(_)));
        // Of adjacent watermarks only the last remains, as in `put`. Otherwise watermarks would accumulate after a slow
        // job.
        if is_mark(self.slots.get(index))
            && index
                .checked_sub(1)
                .is_some_and(|before| is_mark(self.slots.get(before)))
        {
            self.slots.remove(index - 1);
        }
        slot
    }

    /// Takes events from the previous step, up to the limits. Returns true if there were any.
    fn fill(&mut self, driver: &mut Driver<'_>) -> bool {
        let mut changed = false;
        let (jobs, results) = {
            let options = self.options.borrow();
            (options.jobs, options.results)
        };
        let most = driver.in_flight;
        while self.admit_last(driver)
            && self.running < jobs
            && self.ready < results
            && self.running + self.ready < most
        {
            let Some(event) = self.before.take(driver) else {
                break;
            };
            changed = true;
            match event {
                Event::Item(item) => self.begin(item, driver),
                Event::Failed(error) => self.slots.push_back(Slot::Failed(error)),
                Event::Mark(mark) => self.put(Slot::Mark(mark)),
            }
        }
        changed
    }

    fn begin(&mut self, item: Item<I>, driver: &mut Driver<'_>) {
        driver.leave_admission_line();
        let options = self.options.borrow();
        let copy = options
            .letters
            .as_ref()
            .map(|letters| (letters.copy)(&item.value));
        let draws = (options.number as u64) << 48 ^ item.draws;
        // The seed does not depend on the order in which items arrive at this stage.
        let seed = driver.series.seed(draws);
        let settings = ItemSettings {
            options: &options.options,
            seed,
            copies: usize::from(copy.is_some()),
        };
        let (kept, job) = item.with_both(|value| (self.call)(driver.engine, value, &settings));
        self.running += 1;
        self.slots.push_back(Slot::Running(Running {
            job,
            kept,
            copy,
            listening: false,
        }));
    }
}

/// Reports a failed item, and returns the slot that replaces it.
fn failed<'a, I, K, R>(
    options: &RefCell<StageOptions<'_, I>>,
    driver: &mut Driver<'_>,
    kept: Item<K>,
    copy: Option<I>,
    error: JobError,
) -> Slot<'a, I, K, R> {
    let (sequence, stage) = (kept.sequence, options.borrow().number);
    // The closure is cloned, so that `options` is not borrowed while it runs.
    let to = options
        .borrow()
        .letters
        .as_ref()
        .map(|to| Rc::clone(&to.to));
    if let (Some(to), Some(input)) = (to, copy) {
        driver.leave_admission_line();
        let letter = DeadLetter::of_stage(stage, kept.sequence as usize, input, error.clone());
        to.borrow_mut()(letter);
    }
    let error = StreamError::Job {
        stage,
        sequence,
        error,
    };
    driver.failed(kept, error).map_or(Slot::Empty, Slot::Failed)
}

impl<I, K, R: Send + 'static> Flow<(K, R)> for Stage<'_, I, K, R> {
    fn pump(&mut self, driver: &mut Driver<'_>) -> bool {
        let ended = self.take_results(driver);
        let filled = self.fill(driver);
        self.before.pump(driver) || ended || filled
    }

    fn take(&mut self, driver: &mut Driver<'_>) -> Option<Event<(K, R)>> {
        let slot = match self.slots.front()? {
            Slot::Running(_) if driver.plan.ordered => return None,
            Slot::Running(_) => {
                let is_ready =
                    |slot: &Slot<'_, I, K, R>| matches!(slot, Slot::Ready(_) | Slot::Failed(_));
                let index = self.slots.iter().position(is_ready)?;
                self.overtake(index)
            }
            _ => self.slots.pop_front(),
        };
        match slot? {
            Slot::Ready(item) => {
                self.ready -= 1;
                Some(Event::Item(item))
            }
            Slot::Mark(mark) => Some(Event::Mark(mark)),
            Slot::Failed(error) => Some(Event::Failed(error)),
            Slot::Running(_) | Slot::Empty => None,
        }
    }

    fn is_over(&self) -> bool {
        self.slots.is_empty() && self.before.is_over()
    }

    fn listen(&mut self, context: &mut Context<'_>) -> bool {
        for slot in &mut self.slots {
            let Slot::Running(running) = slot else {
                continue;
            };
            if running.listening {
                continue;
            }
            let Started::Job(job) = &mut running.job else {
                // For this job the waker is registered in the line for admission.
                continue;
            };
            running.listening = true;
            if let Poll::Ready(answer) = Pin::new(&mut *job).poll(context) {
                *job = Job::ready(answer);
                return true;
            }
        }
        self.before.listen(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    struct Nothing;

    impl Flow<u8> for Nothing {
        fn pump(&mut self, _: &mut Driver<'_>) -> bool {
            false
        }

        fn take(&mut self, _: &mut Driver<'_>) -> Option<Event<u8>> {
            None
        }

        fn is_over(&self) -> bool {
            true
        }

        fn listen(&mut self, _: &mut Context<'_>) -> bool {
            false
        }
    }

    /// The jobs after a slow job, with watermarks between them, end before it.
    #[test]
    fn adjacent_watermarks_become_one() {
        let options = StageOptions {
            number: 1,
            jobs: 1,
            results: 1,
            options: JobOptions::default(),
            letters: None,
        };
        let mut stage: Stage<'_, u8, (), u8> = Stage {
            before: Box::new(Nothing),
            call: Box::new(|_, _, _| unreachable!("nothing comes")),
            options: Rc::new(RefCell::new(options)),
            slots: VecDeque::new(),
            running: 0,
            ready: 0,
        };
        let item = || Item {
            value: ((), 0),
            sequence: 0,
            draws: 0,
            time: None,
            bytes: 0,
        };
        let mark = |n| Slot::Mark(Duration::from_secs(n));
        let slow = || {
            Slot::Failed(StreamError::Source {
                sequence: 0,
                message: String::new(),
            })
        };
        stage.put(slow());
        for n in 0..100 {
            stage.put(mark(2 * n));
            stage.put(Slot::Empty);
            stage.put(Slot::Ready(item()));
            stage.put(mark(2 * n + 1));
            let index = stage.slots.len() - 2;
            assert!(matches!(stage.overtake(index), Some(Slot::Ready(_))));
        }
        assert_eq!(stage.slots.len(), 2);
        assert!(matches!(stage.slots.back(), Some(Slot::Mark(last)) if last.as_secs() == 199));
    }
}
