//! A step that is a kernel.

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

/// What was said of one stage after it was added.
pub(super) struct StageOptions<'a, I> {
    pub(super) number: usize,
    pub(super) jobs: usize,
    pub(super) results: usize,
    pub(super) options: JobOptions,
    /// How to copy an input, and who wants those that failed.
    pub(super) letters: Option<Letters<'a, I>>,
}

pub(super) struct Letters<'a, I> {
    pub(super) copy: fn(&I) -> I,
    pub(super) to: Rc<RefCell<dyn FnMut(DeadLetter<I>) + 'a>>,
}

/// Begins the job of an item: what is kept beside it, and the job.
pub(super) type CallFn<'a, I, K, R> =
    Box<dyn FnMut(&Engine, I, &Asked<'_>) -> (K, Begun<'a, R>) + 'a>;

/// What a stage asks of a job.
pub(super) struct Asked<'t> {
    options: &'t JobOptions,
    seed: u64,
    /// How many copies of the item are kept until it is answered.
    copies: usize,
}

/// The job of an item.
pub(super) enum Begun<'a, R> {
    Job(Job<R>),
    /// It is not let in yet.
    Waits(EnterFn<'a, R>),
}

type EnterFn<'a, R> =
    Box<dyn FnMut(&Arc<Supervisor>, &mut LineTicket, &Context<'_>) -> Poll<Job<R>> + 'a>;

impl<'a, R: Send + 'static> Begun<'a, R> {
    /// Submits it, unless it may have to wait for admission: the thread that drives the stream has more to do than that.
    pub(super) fn new<G, A, T>(job: JobBuilder<'_, G, A, T>, asked: &Asked<'_>) -> Self
    where
        G: Accepts<A> + 'a,
        G::Reply: Reply<Out = R>,
    {
        let job = job.checked_options(asked.options).seed(asked.seed);
        match job.engine.shared() {
            Some(shared) if shared.has_ceiling() => {
                let (mut call, ()) = job.into_pending(shared.arena.id(), asked.copies);
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
    /// The last may wait for admission; nothing comes in behind it then.
    pub(super) places: VecDeque<Place<'a, I, K, R>>,
    pub(super) running: usize,
    pub(super) ready: usize,
}

/// What came in, in its order.
pub(super) enum Place<'a, I, K, R> {
    Running(Running<'a, I, K, R>),
    Ready(Item<(K, R)>),
    Mark(Duration),
    Failed(StreamError),
    Empty,
}

pub(super) struct Running<'a, I, K, R> {
    job: Begun<'a, R>,
    kept: Item<K>,
    copy: Option<I>,
    /// It rings when it ends.
    listening: bool,
}

impl<'a, I, K, R: Send + 'static> Stage<'a, I, K, R> {
    /// Submits the job that waits for admission, if it is let in now; otherwise whoever lets it in rings. False if it still waits.
    fn let_in(&mut self, driver: &mut Driver<'_>) -> bool {
        let Some(Place::Running(last)) = self.places.back_mut() else {
            return true;
        };
        let Begun::Waits(enter) = &mut last.job else {
            return true;
        };
        let Some(job) = driver.ask(enter) else {
            return false;
        };
        last.job = Begun::Job(job);
        true
    }

    /// Takes over the answers of jobs that have ended. True if there were any.
    fn harvest(&mut self, driver: &mut Driver<'_>) -> bool {
        if self.running == 0 {
            return false;
        }
        let mut ended = false;
        for place in &mut self.places {
            let is_done = matches!(
                place,
                Place::Running(Running { job: Begun::Job(job), .. }) if job.is_done()
            );
            if is_done {
                let Place::Running(Running {
                    job: Begun::Job(job),
                    kept,
                    copy,
                    ..
                }) = std::mem::replace(place, Place::Empty)
                else {
                    unreachable!("the place was looked at");
                };
                ended = true;
                self.running -= 1;
                *place = match job.wait() {
                    Ok(value) => {
                        self.ready += 1;
                        Place::Ready(kept.with(|kept| (kept, value)))
                    }
                    Err(error) => failed(&self.options, driver, kept, copy, error),
                };
            }
        }
        if ended {
            let places = std::mem::take(&mut self.places);
            for place in places {
                self.put(place);
            }
        }
        ended
    }

    /// Behind all others. Of marks without anything between them the last says all.
    fn put(&mut self, place: Place<'a, I, K, R>) {
        match (self.places.back_mut(), place) {
            (_, Place::Empty) => {}
            (Some(Place::Mark(last)), Place::Mark(mark)) => *last = mark,
            (_, place) => self.places.push_back(place),
        }
    }

    /// Takes out a place behind others that are not through.
    fn overtake(&mut self, index: usize) -> Option<Place<'a, I, K, R>> {
        let place = self.places.remove(index);
        let is_mark = |place: Option<&Place<'a, I, K, R>>| matches!(place, Some(Place::Mark(_)));
        // As in `put`; otherwise marks would gather behind a job that takes long.
        if is_mark(self.places.get(index))
            && index
                .checked_sub(1)
                .is_some_and(|before| is_mark(self.places.get(before)))
        {
            self.places.remove(index - 1);
        }
        place
    }

    /// Fills free places from the step before. True if anything came.
    fn fill(&mut self, driver: &mut Driver<'_>) -> bool {
        let mut changed = false;
        let (jobs, results) = {
            let options = self.options.borrow();
            (options.jobs, options.results)
        };
        let most = driver.settings.in_flight;
        while self.let_in(driver)
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
                Event::Failed(error) => self.places.push_back(Place::Failed(error)),
                Event::Mark(mark) => self.put(Place::Mark(mark)),
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
        // Whatever the order is in which items come here.
        let seed = driver.series.seed(draws);
        let asked = Asked {
            options: &options.options,
            seed,
            copies: usize::from(copy.is_some()),
        };
        let (kept, job) = item.with_both(|value| (self.call)(driver.engine, value, &asked));
        self.running += 1;
        self.places.push_back(Place::Running(Running {
            job,
            kept,
            copy,
            listening: false,
        }));
    }
}

/// What stands in the place of an item that failed.
fn failed<'a, I, K, R>(
    options: &RefCell<StageOptions<'_, I>>,
    driver: &mut Driver<'_>,
    kept: Item<K>,
    copy: Option<I>,
    error: JobError,
) -> Place<'a, I, K, R> {
    let (sequence, stage) = (kept.sequence, options.borrow().number);
    // The closure of the program runs without a borrow of ours.
    let to = options
        .borrow()
        .letters
        .as_ref()
        .map(|to| Rc::clone(&to.to));
    if let (Some(to), Some(input)) = (to, copy) {
        driver.leave_admission_line();
        let letter = DeadLetter::of_stage(stage, sequence, input, error.clone());
        to.borrow_mut()(letter);
    }
    let error = StreamError::Job {
        stage,
        sequence,
        error,
    };
    driver
        .failed(kept, error)
        .map_or(Place::Empty, Place::Failed)
}

impl<I, K, R: Send + 'static> Flow<(K, R)> for Stage<'_, I, K, R> {
    fn pump(&mut self, driver: &mut Driver<'_>) -> bool {
        let ended = self.harvest(driver);
        let filled = self.fill(driver);
        self.before.pump(driver) || ended || filled
    }

    fn take(&mut self, driver: &mut Driver<'_>) -> Option<Event<(K, R)>> {
        let place = match self.places.front()? {
            Place::Running(_) if driver.settings.ordered => return None,
            Place::Running(_) => {
                let is_ready = |place: &Place<'_, I, K, R>| {
                    matches!(place, Place::Ready(_) | Place::Failed(_))
                };
                let index = self.places.iter().position(is_ready)?;
                self.overtake(index)
            }
            _ => self.places.pop_front(),
        };
        match place? {
            Place::Ready(item) => {
                self.ready -= 1;
                Some(Event::Item(item))
            }
            Place::Mark(mark) => Some(Event::Mark(mark)),
            Place::Failed(error) => Some(Event::Failed(error)),
            Place::Running(_) | Place::Empty => None,
        }
    }

    fn is_over(&self) -> bool {
        self.places.is_empty() && self.before.is_over()
    }

    fn listen(&mut self, context: &mut Context<'_>) -> bool {
        for place in &mut self.places {
            let Place::Running(running) = place else {
                continue;
            };
            if running.listening {
                continue;
            }
            let Begun::Job(job) = &mut running.job else {
                // Whoever lets it in rings.
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

    /// A job that takes long, and others behind it that overtake, each between two marks.
    #[test]
    fn marks_that_meet_become_one() {
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
            places: VecDeque::new(),
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
        let mark = |n| Place::Mark(Duration::from_secs(n));
        let slow = || {
            Place::Failed(StreamError::Source {
                sequence: 0,
                message: String::new(),
            })
        };
        stage.put(slow());
        for n in 0..100 {
            stage.put(mark(2 * n));
            stage.put(Place::Empty);
            stage.put(Place::Ready(item()));
            stage.put(mark(2 * n + 1));
            let index = stage.places.len() - 2;
            assert!(matches!(stage.overtake(index), Some(Place::Ready(_))));
        }
        assert_eq!(stage.places.len(), 2);
        assert!(matches!(stage.places.back(), Some(Place::Mark(last)) if last.as_secs() == 199));
    }
}
