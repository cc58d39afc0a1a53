//! Plays a random program on an engine. All decisions are drawn from a seed and none depends on a result, so that the
//! program is the same on each engine.

use std::collections::HashMap;
use std::time::Duration;

use arenite::stream::Stream;
use arenite::{
    Actor, Array, ArrayMut, Backoff, Engine, Job, JobError, JobOptions, Limiter, Priority,
};

use super::kernels::{self, Call, List, WAYS};
use super::verdict::{Entry, Kind, Story};
use crate::harness::{Dice, step};

/// What a program may do.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The number of acts.
    pub acts: u64,
    /// Whether kernels draw random numbers. Not if several threads submit, because a job draws by its number.
    pub draws: bool,
    /// Whether workers are sandboxed: then no job changes an array in place or spawns jobs, and kernels write no log.
    pub sandboxed: bool,
    /// Whether kernels end their workers.
    pub deadly: bool,
}

/// A job that was not waited for.
struct Open {
    number: u64,
    kind: Kind,
    job: Handle,
}

enum Handle {
    Array(Job<Array<u64>>),
    Number(Job<u64>),
    Text(Job<String>),
    Changed(Job<ArrayMut<u64>>),
}

macro_rules! of_any {
    ($handle:expr, $job:ident => $call:expr) => {
        match $handle {
            Handle::Array($job) => $call,
            Handle::Number($job) => $call,
            Handle::Text($job) => $call,
            Handle::Changed($job) => $call,
        }
    };
}

/// Numbers that stand for a text.
fn of_text(text: &str) -> Vec<u64> {
    text.bytes().map(u64::from).collect()
}

pub struct Player<'e> {
    engine: &'e Engine,
    rules: &'e Rules,
    log: String,
    limiter: &'e Limiter,
    dice: Dice,
    /// What the program got on the other engine, which takes the place of what is lost here.
    expected: &'e HashMap<u64, Vec<u64>>,
    last: u64,
    values: Vec<Array<u64>>,
    open: Vec<Open>,
    actors: Vec<(usize, u64, Actor<List>)>,
    pub story: Story,
}

impl<'e> Player<'e> {
    pub fn new(
        engine: &'e Engine,
        rules: &'e Rules,
        (log, limiter): (&str, &'e Limiter),
        (seed, first): (u64, u64),
        expected: &'e HashMap<u64, Vec<u64>>,
    ) -> Self {
        Self {
            engine,
            rules,
            log: log.into(),
            limiter,
            dice: Dice::new(seed),
            expected,
            last: first,
            values: Vec::new(),
            open: Vec::new(),
            actors: Vec::new(),
            story: Story::default(),
        }
    }

    /// Plays the whole program.
    pub fn play(&mut self) {
        for act in 0..self.rules.acts {
            step(format!("act {act}"));
            self.act();
        }
        while !self.open.is_empty() {
            self.take();
        }
        self.actors.clear();
        self.values.clear();
    }

    fn call(&mut self) -> Call {
        self.last += 1;
        [self.last, self.rules.draws.into()]
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.dice.below(count) == 0
    }

    /// How a kernel that may fail does so: 0 or 1 if it fails.
    fn how(&mut self) -> u64 {
        self.dice.below(12)
    }

    /// Returns one of the arrays, or a new one.
    fn value(&mut self) -> Array<u64> {
        if self.values.len() < 6 || self.one_in(4) {
            let len = match self.dice.below(20) {
                0 => 400_000,
                1..3 => 1 + self.dice.below(4),
                _ => 1 + self.dice.below(5_000),
            };
            let salt = self.dice.any();
            let made = self
                .engine
                .from_fn(len as usize, |i| salt.rotate_left(i as u32));
            self.keep(made.unwrap());
        }
        let at = self.dice.below(self.values.len() as u64);
        self.values[at as usize].clone()
    }

    /// Keeps an array as an argument of later calls, in the place of an older one.
    fn keep(&mut self, array: Array<u64>) {
        if self.values.len() < 12 {
            return self.values.push(array);
        }
        let at = self.dice.below(12);
        self.values[at as usize] = array;
    }

    fn enter(&mut self, number: u64, kind: Kind, result: Result<Vec<u64>, JobError>) {
        self.story.entries.push(Entry {
            number,
            kind,
            result,
        });
    }

    fn act(&mut self) {
        match self.dice.below(34) {
            0..5 => self.submit(),
            5..8 => self.submit_with_options(),
            8..10 => self.submit_chain(),
            10..14 => self.take(),
            14 => self.cancel(),
            15 => self.let_go(),
            16..18 => self.map(),
            18..20 => self.scope(),
            20 => self.scope_that_collects(),
            21 => self.par(),
            22..25 => self.jobs_of_jobs(),
            25 => self.stream(),
            26..30 => self.call_actor(),
            30 => self.end_actor(),
            31 if self.rules.deadly => self.die(),
            32 if self.rules.deadly => self.hang(),
            _ if self.rules.sandboxed => self.submit(),
            _ => self.submit_in_place_or_spawn(),
        }
        // A bounded number of jobs is in flight.
        while self.open.len() > 40 {
            self.take();
        }
    }

    fn push(&mut self, call: Call, kind: Kind, job: Handle) {
        self.open.push(Open {
            number: call[0],
            kind,
            job,
        });
    }

    fn submit(&mut self) {
        let (value, call, how) = (self.value(), self.call(), self.how());
        let (engine, log) = (self.engine, &*self.log);
        let job = match self.dice.below(4) {
            0 => Handle::Array(engine.submit(kernels::mix, (value, log, call))),
            1 => Handle::Number(engine.submit(kernels::total, (value, log, call))),
            2 => Handle::Number(engine.submit(kernels::pick, (log, call, how))),
            _ => Handle::Text(engine.submit(kernels::repeat, ("text ", log, call))),
        };
        self.push(call, Kind::default(), job);
    }

    fn options(&mut self) -> JobOptions {
        let priority = [Priority::Low, Priority::Normal, Priority::High];
        let mut options = JobOptions::new().priority(priority[self.dice.below(3) as usize]);
        if self.one_in(4) {
            options = options.limit(self.limiter);
        }
        if self.one_in(4) {
            options = options.deadline(Duration::from_secs(1_000));
        }
        options
    }

    fn submit_with_options(&mut self) {
        let (value, call, options) = (self.value(), self.call(), self.options());
        let retried = self.one_in(2);
        let job = self.engine.job(kernels::mix, (value, &*self.log, call));
        let job = match retried {
            true => job
                .options(&options.retries(50).backoff(Backoff::NONE))
                .submit(),
            false => job.options(&options).submit(),
        };
        self.push(call, Kind::retried(retried), Handle::Array(job));
    }

    fn submit_chain(&mut self) {
        let (value, calls) = (self.value(), [(); 3].map(|()| self.call()));
        let (priority, log) = (self.options(), &*self.log);
        let job = self
            .engine
            .job(kernels::mix, (value, log, calls[1]))
            .then(kernels::mix, (log, calls[2]))
            .then(kernels::total, (log, calls[0]))
            .options(&priority)
            .submit();
        self.push(calls[0], Kind::default(), Handle::Number(job));
    }

    fn submit_in_place_or_spawn(&mut self) {
        let (value, call, engine) = (self.value(), self.call(), self.engine);
        if self.dice.below(2) == 0 {
            let mut own = engine.zeros(value.len()).unwrap();
            own.copy_from_slice(&value);
            let job = engine.submit(kernels::sorted, (own, &*self.log, call));
            return self.push(call, Kind::default(), Handle::Changed(job));
        }
        let part = value.rows(..value.len().min(2_000));
        let (options, retried) = (self.options(), self.one_in(2));
        let job = engine.job(kernels::sort, (part, &*self.log, call));
        let job = match retried {
            true => job
                .options(&options.retries(50).backoff(Backoff::NONE))
                .submit(),
            false => job.options(&options).submit(),
        };
        self.push(call, Kind::retried(retried), Handle::Array(job));
    }

    /// Waits for any job.
    fn take(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let at = self.dice.below(self.open.len() as u64);
        let Open { number, kind, job } = self.open.swap_remove(at as usize);
        step(format!("call {number}"));
        let mut array = None;
        let is_kept = matches!(job, Handle::Array(_)) && kind.actor.is_none() && self.one_in(2);
        let result = match job {
            Handle::Array(job) => job.wait().map(|value| {
                let numbers = value.to_vec();
                array = Some(value);
                numbers
            }),
            Handle::Number(job) => job.wait().map(|n| vec![n]),
            Handle::Text(job) => job.wait().map(|text| of_text(&text)),
            Handle::Changed(job) => job.wait().map(|value| value.to_vec()),
        };
        if is_kept {
            // What was lost is replaced by what the other engine returned.
            let other = || self.engine.from_slice(&self.expected[&number]).unwrap();
            let value = array.unwrap_or_else(other);
            self.keep(value);
        }
        self.enter(number, kind, result);
    }

    /// Returns the index of any job that is no call of an actor, and whose kernel returns.
    fn any_open(&mut self) -> Option<usize> {
        let may = |kind: Kind| kind.actor.is_none() && !kind.dies && !kind.hangs;
        let jobs = (0..self.open.len()).filter(|&at| may(self.open[at].kind));
        let jobs: Vec<_> = jobs.collect();
        let at = self.dice.below(jobs.len() as u64);
        jobs.get(at as usize).copied()
    }

    /// Cancels any job.
    fn cancel(&mut self) {
        let Some(at) = self.any_open() else { return };
        of_any!(&self.open[at].job, job => job.cancel());
        self.open[at].kind.cancelled = true;
    }

    /// Drops or detaches the handle of any job.
    fn let_go(&mut self) {
        let Some(at) = self.any_open() else { return };
        let open = self.open.swap_remove(at);
        if self.one_in(2) {
            of_any!(open.job, job => job.detach());
        }
    }

    fn map(&mut self) {
        let count = 1 + self.dice.below(60);
        let left = self.one_in(3).then(|| self.dice.below(count));
        let taken = count - left.unwrap_or(0);
        let (retried, limited) = (self.one_in(3), self.one_in(3));
        // With retries, a kernel that panics would begin again.
        let how = |how: u64| if retried { how.max(2) } else { how };
        let items: Vec<_> = (0..count)
            .map(|_| (self.log.clone(), self.call(), how(self.how())))
            .collect();
        let numbers: Vec<_> = items.iter().map(|(_, call, _)| call[0]).collect();
        let mut options = JobOptions::new().backoff(Backoff::NONE).retries(0);
        if limited {
            options = options.limit(self.limiter);
        }
        if retried {
            options = options.retries(50);
        }
        let map = self.engine.map(kernels::pick, items).options(&options);
        let results: Vec<_> = map.take(taken as usize).collect();
        for (number, result) in numbers.into_iter().zip(results) {
            self.enter(number, Kind::retried(retried), result.map(|n| vec![n]));
        }
    }

    /// A scope whose kernels return values. Its jobs borrow tiles, unless workers are sandboxed.
    fn scope(&mut self) {
        let (values, engine, log) = (self.value(), self.engine, self.log.clone());
        let calls: Vec<_> = (0..1 + self.dice.below(8)).map(|_| self.call()).collect();
        let kind = Kind {
            scope: Some(calls[0][0]),
            ..Kind::default()
        };
        let mut out = engine.zeros::<u64>(calls.len() * 1_000).unwrap();
        let (sandboxed, log) = (self.rules.sandboxed, &*log);
        let done = engine.scope(|scope| {
            if sandboxed {
                let jobs = calls
                    .iter()
                    .map(|&call| scope.submit(kernels::total, (&values, log, call)));
                let jobs: Vec<_> = jobs.collect();
                return jobs
                    .into_iter()
                    .map(|job| job.wait().map(|n| vec![n]))
                    .collect::<Vec<_>>();
            }
            let tiles = out.tiles_mut(1_000).zip(&calls);
            let jobs =
                tiles.map(|(tile, &call)| scope.submit(kernels::fill, (tile, &values, log, call)));
            let jobs: Vec<_> = jobs.collect();
            jobs.into_iter()
                .map(|job| job.wait().map(|()| Vec::new()))
                .collect()
        });
        match done {
            Ok(results) => {
                for (at, (call, result)) in calls.into_iter().zip(results).enumerate() {
                    let written = result.map(|mut value| {
                        value.extend(&out[at * 1_000..(at + 1) * 1_000]);
                        value
                    });
                    self.enter(call[0], kind, written);
                }
            }
            Err(error) => calls
                .into_iter()
                .for_each(|call| self.enter(call[0], kind, Err(error.clone()))),
        }
    }

    fn scope_that_collects(&mut self) {
        let (engine, log) = (self.engine, self.log.clone());
        let calls: Vec<_> = (0..1 + self.dice.below(8))
            .map(|_| (self.call(), self.how()))
            .collect();
        let (results, errors) = engine.scope_collect(|scope| {
            let job = |&(call, how)| scope.submit(kernels::pick, (&*log, call, how));
            let jobs: Vec<_> = calls.iter().map(job).collect();
            jobs.into_iter().map(|job| job.wait()).collect::<Vec<_>>()
        });
        assert!(errors.len() <= results.iter().filter(|result| result.is_err()).count());
        for ((call, _), result) in calls.into_iter().zip(results) {
            self.enter(call[0], Kind::default(), result.map(|n| vec![n]));
        }
    }

    fn par(&mut self) {
        let (value, call) = (self.value(), self.call());
        let mapped = self.engine.par(&value).map(|x: u64| x.wrapping_mul(3));
        // Its kernel takes one element and has no log.
        kernels::begin(&self.log, [call[0], 0]);
        self.enter(
            call[0],
            Kind::taking_jobs(false),
            mapped.map(|array| array.to_vec()),
        );
    }

    /// Jobs that take each other's values. Some handles are dropped at once, some at the end.
    fn jobs_of_jobs(&mut self) {
        let (retried, limited) = (self.one_in(3), self.one_in(3));
        let nothing = self.engine.from_slice::<u64>(&[]).unwrap();
        let mut jobs: Vec<Job<Array<u64>>> = Vec::new();
        let mut all = Vec::new();
        for at in 0..1 + self.dice.below(14) as usize {
            let (value, call, how) = (self.value(), self.call(), self.how());
            let [left, right] = [(); 2].map(|()| self.dice.below(at.max(1) as u64) as usize);
            let how = how + u64::from(self.one_in(2));
            // Of large arrays, these jobs take parts.
            let value = value.rows(..value.len().min(3_000));
            let (engine, limiter, log) = (self.engine, self.limiter, &*self.log);
            macro_rules! job {
                ($left:expr, $right:expr) => {{
                    let job = engine.job(kernels::join, ($left, $right, log, call, how));
                    let job = if limited { job.limit(limiter) } else { job };
                    match retried {
                        true => job.retries(50).backoff(Backoff::NONE).submit(),
                        false => job.submit(),
                    }
                }};
            }
            let (job, sources) = match self.dice.below(4) {
                _ if at == 0 => (job!(&value, &nothing), vec![]),
                0 => (job!(&jobs[left], &jobs[right]), vec![left, right]),
                1 => (job!(&value, &jobs[right]), vec![right]),
                _ => (job!(&jobs[at - 1], &nothing), vec![at - 1]),
            };
            let sources = sources.into_iter().map(|source| (all[source], call[0]));
            self.story.orders.extend(sources);
            jobs.push(job);
            all.push(call[0]);
        }
        let count = jobs.len() as u64;
        let mut wanted: Vec<_> = (0..1 + self.dice.below(4))
            .map(|_| self.dice.below(count) as usize)
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut at = 0..;
        jobs.retain(|_| wanted.contains(&at.next().expect("without end")));
        for (at, job) in wanted.into_iter().zip(jobs) {
            let result = job.wait().map(|value| value.to_vec());
            self.enter(all[at], Kind::taking_jobs(retried), result);
        }
    }

    /// A stream of two stages with retries.
    fn stream(&mut self) {
        let items: Vec<_> = (0..1 + self.dice.below(30)).map(|_| self.call()).collect();
        let (value, log) = (self.value(), self.log.clone());
        let value = value.rows(..value.len().min(3_000));
        let numbers: Vec<_> = items.iter().map(|call| call[0]).collect();
        let options = JobOptions::new().retries(50).backoff(Backoff::NONE);
        let stream = Stream::new(items)
            .stage_with(kernels::mix, |call| {
                (call, (value.clone(), log.clone(), call))
            })
            .options(&options)
            .stage_with(kernels::total, |(call, mixed)| {
                (call[0], (mixed, "", [call[0], 0]))
            })
            .options(&options);
        let results: Vec<_> = stream.run(self.engine).collect();
        assert_eq!(results.len(), numbers.len(), "{results:?}");
        for (number, result) in numbers.into_iter().zip(results) {
            let (kept, total) = result.unwrap();
            assert_eq!(kept, number);
            self.enter(number, Kind::retried(true), Ok(vec![total]));
        }
    }

    fn call_actor(&mut self) {
        if self.actors.len() < 2 && self.one_in(2) || self.actors.is_empty() {
            let every = [0, 1, 2, 5][self.dice.below(4) as usize];
            let actor = self.engine.actor(List::new, ());
            let actor = match every {
                0 => actor.start(),
                _ => actor.checkpoint(every, List::save, List::restore).start(),
            };
            self.actors.push((self.last as usize, every, actor));
        }
        for _ in 0..1 + self.dice.below(6) {
            let taken = self.one_in(3).then(|| self.retried_job());
            let (at, call) = (self.dice.below(self.actors.len() as u64), self.call());
            let (number, every, actor) = &self.actors[at as usize];
            let kind = Kind {
                actor: Some((*number, *every)),
                ..Kind::default()
            };
            let job = match &taken {
                None => actor.call(List::push, (&*self.log, call)),
                Some((before, taken)) => {
                    self.story.orders.push((*before, call[0]));
                    actor.call(List::push_after, (&*self.log, call, taken))
                }
            };
            self.push(call, kind, Handle::Array(job));
        }
    }

    /// Returns a job for another one to take, with its number.
    fn retried_job(&mut self) -> (u64, Job<Array<u64>>) {
        let (value, call) = (self.value(), self.call());
        let value = value.rows(..value.len().min(3_000));
        let job = self.engine.job(kernels::mix, (value, &*self.log, call));
        (call[0], job.retries(50).backoff(Backoff::NONE).submit())
    }

    /// Ends an actor, or drops its handle: its calls are answered first.
    fn end_actor(&mut self) {
        if let Some((_, _, actor)) = self.actors.pop()
            && self.one_in(2)
        {
            actor.stop();
        }
    }

    fn die(&mut self) {
        let (call, way) = (self.call(), self.dice.below(WAYS));
        let retries = self.dice.below(2) as u32;
        let kind = Kind {
            dies: true,
            retried: retries > 0,
            ..Kind::default()
        };
        if self.is_inline() {
            return self.push(call, kind, Handle::Number(self.engine.submit(|| 0, ())));
        }
        let job = self.engine.job(kernels::die, (&*self.log, call, way));
        let job = job.retries(retries).backoff(Backoff::NONE).submit();
        self.push(call, kind, Handle::Number(job));
    }

    /// A job that hangs until its deadline, or until it is killed.
    fn hang(&mut self) {
        let (call, is_killed) = (self.call(), self.one_in(2));
        let kind = Kind {
            hangs: true,
            ..Kind::default()
        };
        if self.is_inline() {
            return self.push(call, kind, Handle::Number(self.engine.submit(|| 0, ())));
        }
        let job = self.engine.job(kernels::hang, (&*self.log, call));
        let job = match is_killed {
            true => job.submit(),
            false => job.deadline(Duration::from_millis(30)).submit(),
        };
        if is_killed {
            job.kill();
        }
        self.push(call, kind, Handle::Number(job));
    }

    fn is_inline(&self) -> bool {
        self.engine.stats().workers.is_empty()
    }
}
