//! The state of jobs without processes, compared with a model: attempts, priorities, answers.

use super::policies::{HOUR, finish, revive, submit_with};
use super::*;
use crate::sys::asked;

/// A step.
#[derive(Clone, Copy, Debug)]
enum Event {
    Submit {
        priority: Priority,
        retries: u32,
    },
    /// The worker takes the next job and ends it with a value.
    Run,
    /// The worker takes the next job and dies because of it.
    Die,
    /// The worker takes the next job, which panics.
    Panic,
    /// The worker dies before it begins a job.
    Perish,
    Cancel(usize),
    Abandon(usize),
    Detach(usize),
    /// Pauses end.
    Later,
    Close,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let priority = prop_oneof![
        Just(Priority::Low),
        Just(Priority::Normal),
        Just(Priority::High)
    ];
    let event = prop_oneof![
        12 => (priority, 0u32..5).prop_map(|(priority, retries)| Event::Submit { priority, retries }),
        6 => Just(Event::Run),
        4 => Just(Event::Die),
        2 => Just(Event::Panic),
        1 => Just(Event::Perish),
        2 => any::<usize>().prop_map(Event::Cancel),
        2 => any::<usize>().prop_map(Event::Abandon),
        1 => any::<usize>().prop_map(Event::Detach),
        3 => Just(Event::Later),
    ];
    let events = prop::collection::vec(event, 1..100);
    (events, prop::option::of(any::<prop::sample::Index>())).prop_map(|(mut events, close)| {
        if let Some(at) = close {
            events.insert(at.index(events.len()), Event::Close);
        }
        events
    })
}

/// The model's state of an unanswered job.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The handle that will take the answer.
    id: Option<JobId>,
    priority: Priority,
    retries: u32,
    failed: u32,
    costs: u32,
    waits: bool,
}

/// The engine as a list of jobs without an answer, by number.
#[derive(Default)]
struct Model {
    jobs: BTreeMap<u64, Known>,
    /// The expected answers, each with a part of its text.
    answers: Vec<(JobId, &'static str)>,
    last: u64,
    closed: bool,
}

impl Model {
    fn end(&mut self, job: u64, answer: &'static str) {
        let known = self.jobs.remove(&job).unwrap();
        self.answers.extend(known.id.map(|id| (id, answer)));
    }

    fn fail(&mut self, job: u64, costs: bool) {
        let cause = if costs { "SIGKILL" } else { "panicked" };
        let known = self.jobs.get_mut(&job).unwrap();
        known.failed += 1;
        known.costs += u32::from(costs);
        if known.retries > 0 && costs && known.costs >= QUARANTINE {
            self.end(job, "workers, and it is not tried again");
        } else if known.failed > known.retries || self.closed {
            self.end(job, cause);
        } else {
            known.waits = true;
        }
    }

    /// Returns a job that has a handle, chosen by `n`, and its id.
    fn asked(&self, n: usize) -> Option<(u64, JobId)> {
        let asked = self
            .jobs
            .iter()
            .filter_map(|(&job, known)| Some((job, known.id?)));
        let asked: Vec<_> = asked.collect();
        (!asked.is_empty()).then(|| asked[n % asked.len()])
    }

    /// Returns true if this job may begin: within each priority, first attempts begin in the order of their numbers.
    fn may_begin(&self, job: u64) -> bool {
        let Some(known) = self.jobs.get(&job) else {
            return false;
        };
        let first_try = |other: &&Known| other.failed == 0 && other.priority == known.priority;
        let older = self.jobs.range(..job).map(|(_, other)| other);
        !known.waits && (known.failed > 0 || !older.clone().any(|other| first_try(&other)))
    }
}

const QUARANTINE: u32 = 3;

/// The worker takes the next job. Returns its number.
fn take_next(shared: &Supervisor, consumer: &mut Consumer) -> Option<u64> {
    shared.stats();
    let mut state = shared.lock();
    state.refill();
    drop(state);
    (consumer.next() == Next::Run).then(|| consumer.call().job)
}

/// Kills the worker, and makes its next generation ready.
fn replace(shared: &Supervisor, consumer: &mut Consumer) {
    die(shared, 0);
    revive(shared, consumer);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases((asked::cases(10_000) / 100).max(1)))]

    /// For any order of events: each job has one answer, the right one, at the right time; first attempts begin in the
    /// order of their priority; the counts agree; no job is left.
    #[test]
    fn the_state_agrees_with_a_model(events in events()) {
        let (shared, mut consumers) = fixture(1, 1);
        shared.lock().config.quarantine_after = QUARANTINE;
        let consumer = &mut consumers[0];
        let mut model = Model::default();
        let pause = Backoff::new(HOUR, HOUR);
        for event in events {
            match event {
                Event::Submit { priority, retries } => {
                    let options = JobOptions { retries, priority, backoff: pause, ..JobOptions::default() };
                    // Some jobs have no policy.
                    let id = match options.if_set() {
                        Some(options) => submit_with(&shared, options.clone()),
                        None => submit(&shared),
                    };
                    model.last += 1;
                    let known = Known { id: Some(id), priority, retries, failed: 0, costs: 0, waits: false };
                    model.jobs.insert(model.last, known);
                    if model.closed {
                        model.end(model.last, "shut down");
                    }
                }
                Event::Run => if let Some(job) = take_next(&shared, consumer) {
                    prop_assert!(model.may_begin(job), "job {job}: {:?}", model.jobs);
                    finish(consumer);
                    model.end(job, "value");
                },
                Event::Panic => if let Some(job) = take_next(&shared, consumer) {
                    prop_assert!(model.may_begin(job), "job {job}: {:?}", model.jobs);
                    let said = one_word(kind::PANICKED, &[0]);
                    consumer.finish(true, 1, Some(&said));
                    shared.stats();
                    model.fail(job, false);
                },
                Event::Die => if let Some(job) = take_next(&shared, consumer) {
                    prop_assert!(model.may_begin(job), "job {job}: {:?}", model.jobs);
                    replace(&shared, consumer);
                    model.fail(job, true);
                },
                Event::Perish => replace(&shared, consumer),
                Event::Cancel(n) => if let Some((job, id)) = model.asked(n) {
                    if n % 2 == 0 {
                        shared.cancel(id);
                    } else {
                        shared.kill(id);
                    }
                    model.end(job, "cancelled");
                },
                Event::Abandon(n) => if let Some((job, id)) = model.asked(n) {
                    shared.abandon(id);
                    model.jobs.remove(&job);
                },
                Event::Detach(n) => if let Some((job, id)) = model.asked(n) {
                    shared.detach(id);
                    model.jobs.get_mut(&job).unwrap().id = None;
                },
                Event::Later => {
                    let mut state = shared.lock();
                    state.run_due(std::time::Instant::now() + 2 * HOUR);
                    state.refill();
                    shared.unlock(state);
                    model.jobs.values_mut().for_each(|known| known.waits = false);
                }
                Event::Close => {
                    shared.close(Closing::Drain, None);
                    model.closed = true;
                    let waiting: Vec<u64> = model.jobs.iter().filter(|(_, known)| known.waits).map(|(&job, _)| job).collect();
                    waiting.into_iter().for_each(|job| model.end(job, "shut down"));
                }
            }
            for (id, expected) in model.answers.drain(..) {
                let said = answer(&shared, id).unwrap_or_else(|| "nothing yet".into());
                prop_assert!(said.contains(expected), "{said} instead of {expected}");
            }
            let stats = shared.stats();
            let waiting = model.jobs.values().filter(|known| known.waits).count();
            prop_assert_eq!(stats.waiting, waiting);
            prop_assert_eq!(stats.queued + stats.open, model.jobs.len() - waiting);
            prop_assert_eq!(stats.untaken, model.jobs.len(), "records: {:?}", model.jobs);
        }
        // All remaining jobs run.
        let mut state = shared.lock();
        state.run_due(std::time::Instant::now() + 2 * HOUR);
        shared.unlock(state);
        while let Some(job) = take_next(&shared, consumer) {
            finish(consumer);
            model.end(job, "value");
        }
        prop_assert!(model.jobs.is_empty(), "never ran: {:?}", model.jobs);
        for (id, expected) in model.answers.drain(..) {
            prop_assert_eq!(answer(&shared, id).unwrap(), expected);
        }
        prop_assert_eq!(shared.stats().untaken, 0);
    }
}
