//! Workers that die between any two of their steps, while others live: recovery compared with a model.

use super::*;
use crate::arena::BlockPlacement;
use crate::sys::asked;

const LANES: usize = 4;
const GRANTED: u64 = 64 * 1024;

/// A step.
#[derive(Clone, Debug)]
enum Event {
    Submit,
    /// The worker of the lane claims the next job.
    Claim(usize),
    /// The worker has ended the job that it claimed; the lane was not drained yet.
    Finish {
        lane: usize,
        failed: bool,
    },
    /// The supervisor drains, and places queued jobs.
    Look,
    /// The supervisor moves jobs that wait for a long job.
    EvenOut,
    /// The worker dies at any step, and is recovered. The lane may have reported itself as the culprit.
    Die {
        lane: usize,
        says_so: bool,
    },
    /// The worker of a running job is killed because of the job, and another job is cancelled before that worker has
    /// exited.
    Kill {
        lane: usize,
        cancelled: usize,
    },
    /// A lane without a worker gets one.
    Revive(usize),
    /// The handle of this job is dropped.
    Abandon(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let lane = 0..LANES;
    let event = prop_oneof![
        8 => Just(Event::Submit),
        8 => lane.clone().prop_map(Event::Claim),
        6 => (lane.clone(), prop::bool::weighted(0.2))
            .prop_map(|(lane, failed)| Event::Finish { lane, failed }),
        3 => Just(Event::Look),
        2 => Just(Event::EvenOut),
        3 => (lane.clone(), any::<bool>())
            .prop_map(|(lane, says_so)| Event::Die { lane, says_so }),
        2 => (lane.clone(), any::<usize>())
            .prop_map(|(lane, cancelled)| Event::Kill { lane, cancelled }),
        3 => lane.prop_map(Event::Revive),
        1 => any::<usize>().prop_map(Event::Abandon),
    ];
    prop::collection::vec(event, 1..150)
}

/// How far a job has come, from the view of its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Waits,
    RunsIn(usize),
    Done,
    Failed,
    /// The job ran when its worker died.
    Lost,
    Cancelled,
}

#[derive(Debug)]
struct Known {
    /// The handle that will take the answer.
    id: Option<JobId>,
    stand: Stand,
}

/// One engine, and the state that the model expects.
struct World {
    shared: Arc<Supervisor>,
    workers: usize,
    /// The consumer of each lane; `None` without a worker.
    consumers: Vec<Option<Consumer>>,
    /// The input that every job reads.
    input: Arc<Block>,
    /// The jobs by number, including answered ones.
    jobs: BTreeMap<u64, Known>,
}

impl World {
    fn new(workers: usize) -> Self {
        let lanes = LANES / workers;
        let (shared, consumers) = with_lanes(workers as u16, lanes as u16, workers);
        let input = shared.arena.alloc(0, 1000, BlockPlacement::Packed).unwrap();
        let world = Self {
            shared,
            workers,
            consumers: consumers.into_iter().map(Some).collect(),
            input: Arc::new(input),
            jobs: BTreeMap::new(),
        };
        (0..LANES).for_each(|lane| world.grant(lane));
        world
    }

    fn grant(&self, lane: usize) {
        let mut state = self.shared.lock();
        let region = state.lanes[lane].region();
        let block = self.shared.arena.grant(region, GRANTED, false).unwrap();
        state.lanes[lane].grant(block).unwrap();
    }

    fn submit(&mut self) {
        let mut call = ArgWriter::new(self.shared.arena.id());
        call.leases.push(Lease::Shared(Arc::clone(&self.input)));
        let id = self
            .shared
            .submit(&kernel(), &mut call, Owner::Handle, None);
        let known = Known {
            id: Some(id),
            stand: Stand::Waits,
        };
        self.jobs.insert(self.jobs.len() as u64 + 1, known);
    }

    fn running(&self, lane: usize) -> Option<u64> {
        let mut jobs = self.jobs.iter();
        jobs.find(|(_, known)| known.stand == Stand::RunsIn(lane))
            .map(|(&job, _)| job)
    }

    /// Claims the next job. Fails if the job must not begin.
    fn claim(&mut self, lane: usize) -> Result<bool, String> {
        if self.running(lane).is_some() {
            return Ok(false);
        }
        let Some(consumer) = &mut self.consumers[lane] else {
            return Ok(false);
        };
        if consumer.next() != Next::Run {
            return Ok(false);
        }
        let job = consumer.call().job;
        match self.jobs.get_mut(&job) {
            Some(known) if known.stand == Stand::Waits => known.stand = Stand::RunsIn(lane),
            other => return Err(format!("job {job} begins, and it is {other:?}")),
        }
        Ok(true)
    }

    fn finish(&mut self, lane: usize, failed: bool) {
        let Some(job) = self.running(lane) else {
            return;
        };
        let consumer = self.consumers[lane].as_mut().unwrap();
        let said = one_word(kind::RETURNED, &[0]);
        consumer.finish(failed, 1, failed.then_some(&said));
        self.stands(job, if failed { Stand::Failed } else { Stand::Done });
    }

    fn stands(&mut self, job: u64, stand: Stand) {
        self.jobs.get_mut(&job).unwrap().stand = stand;
    }

    /// The lanes that belong to the same process as this one.
    fn beside(&self, lane: usize) -> impl Iterator<Item = usize> + use<> {
        (lane % self.workers..LANES).step_by(self.workers)
    }

    fn die(&mut self, lane: usize, says_so: bool) {
        if self.consumers[lane].is_none() {
            return;
        }
        let worker = lane % self.workers;
        if says_so {
            let number = (lane / self.workers + 1) as u32;
            let culprit_lane = &self.shared.cells[worker].reply().culprit_lane;
            culprit_lane.store(number, std::sync::atomic::Ordering::Relaxed);
        }
        for lane in self.beside(lane) {
            self.consumers[lane] = None;
            if let Some(job) = self.running(lane) {
                self.stands(job, Stand::Lost);
            }
        }
        die(&self.shared, worker);
    }

    fn kill(&mut self, lane: usize, cancelled: usize) {
        // Jobs that have ended by now have their values.
        self.look();
        let others = self.beside(lane).filter(|&other| other != lane);
        let are_alone = others
            .map(|other| self.running(other))
            .all(|job| job.is_none());
        let running = self.running(lane).filter(|_| are_alone);
        let Some((job, id)) = running.and_then(|job| Some((job, self.jobs[&job].id?))) else {
            return;
        };
        let mut state = self.shared.lock();
        state.condemn(lane, id.index, JobErrorKind::Cancelled);
        self.shared.unlock(state);
        self.stands(job, Stand::Cancelled);
        let waiting = self.jobs.iter();
        let mut waiting = waiting.filter(|(_, known)| known.stand == Stand::Waits);
        let count = waiting.clone().count().max(1);
        if let Some((&job, &Known { id: Some(id), .. })) = waiting.nth(cancelled % count) {
            self.shared.cancel(id);
            self.stands(job, Stand::Cancelled);
        }
        self.die(lane, false);
    }

    fn revive(&mut self, lane: usize) {
        if self.consumers[lane].is_some() {
            return;
        }
        for lane in self.beside(lane) {
            self.grant(lane);
            let state = self.shared.lock();
            let producer = &state.lanes[lane].producer;
            // The first grant that the worker takes is the grant of this generation.
            let taken = producer.granted() - 1;
            let consumer =
                Consumer::new(Arc::clone(&self.shared.cells[lane]), producer.tail(), taken);
            self.consumers[lane] = Some(consumer);
        }
        let mut state = self.shared.lock();
        state.set_status(lane % self.workers, Status::Ready);
        state.refill();
        self.shared.unlock(state);
    }

    fn abandon(&mut self, n: usize) {
        let mut asked: Vec<_> = self
            .jobs
            .iter_mut()
            .filter(|(_, known)| known.id.is_some())
            .collect();
        if asked.is_empty() {
            return;
        }
        let at = n % asked.len();
        let (&job, known) = asked.swap_remove(at);
        let id = known.id.take().unwrap();
        let waits = known.stand == Stand::Waits;
        self.shared.abandon(id);
        if waits {
            // The job will not run, and no handle takes its answer.
            self.stands(job, Stand::Done);
        }
    }

    /// Checks that answers are those of the model. Answers of jobs of dead workers must exist at once.
    fn check(&mut self) -> Result<(), String> {
        for (job, known) in &mut self.jobs {
            let Some(id) = known.id else { continue };
            let said = answer(&self.shared, id);
            let expected = match known.stand {
                Stand::Waits | Stand::RunsIn(_) => None,
                Stand::Done => Some("value"),
                Stand::Failed => Some("failed"),
                Stand::Lost => Some("SIGKILL"),
                Stand::Cancelled => Some("cancelled"),
            };
            match (&said, expected) {
                (None, None) => continue,
                (Some(said), Some("failed")) if said != "value" && !said.contains("SIGKILL") => {}
                (Some(said), Some(expected)) if said.contains(expected) => {}
                _ => return Err(format!("job {job} answers {said:?}, and it is {known:?}")),
            }
            // The answer is taken: it will not be asked for again.
            known.id = None;
        }
        self.check_memory()
    }

    /// Checks that leases exist only for unanswered jobs, and grants only for lanes with a worker.
    fn check_memory(&self) -> Result<(), String> {
        let open = |known: &&Known| matches!(known.stand, Stand::Waits | Stand::RunsIn(_));
        let open = self.jobs.values().filter(open).count();
        let leases = Arc::strong_count(&self.input) - 1;
        if leases != open {
            return Err(format!("{leases} leases for {open} open jobs"));
        }
        let alive = self.consumers.iter().flatten().count() as u64;
        let in_use = self.shared.arena.stats().in_use;
        let expected = self.input.held() + alive * GRANTED;
        if in_use != expected {
            return Err(format!("{in_use} bytes in use instead of {expected}"));
        }
        Ok(())
    }

    fn look(&self) {
        let mut state = self.shared.lock();
        state.catch_up();
        self.shared.unlock(state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases((asked::cases(10_000) / 100).max(1)))]

    /// Wherever workers die: no job begins twice, a published reply is a result, jobs that ran have failed, jobs that
    /// had not begun run on other workers, and only the needed leases and grants are left.
    #[test]
    fn workers_may_die_between_any_two_steps(
        events in events(),
        workers in prop_oneof![Just(LANES), Just(2), Just(1)],
    ) {
        let mut world = World::new(workers);
        for event in events {
            let wrong = match event {
                Event::Submit => { world.submit(); Ok(false) }
                Event::Claim(lane) => world.claim(lane),
                Event::Finish { lane, failed } => { world.finish(lane, failed); Ok(false) }
                Event::Look => { world.look(); Ok(false) }
                Event::EvenOut => {
                    let mut state = world.shared.lock();
                    state.even_out(true);
                    world.shared.unlock(state);
                    Ok(false)
                }
                Event::Die { lane, says_so } => {
                    world.die(lane, says_so);
                    world.look();
                    world.check().map(|()| false)
                }
                Event::Kill { lane, cancelled } => {
                    world.kill(lane, cancelled);
                    world.look();
                    world.check().map(|()| false)
                }
                Event::Revive(lane) => { world.revive(lane); Ok(false) }
                Event::Abandon(n) => { world.abandon(n); Ok(false) }
            };
            prop_assert!(wrong.is_ok(), "{}", wrong.unwrap_err());
        }
        // The remaining workers do all remaining jobs.
        (0..LANES).for_each(|lane| world.revive(lane));
        loop {
            world.look();
            let mut any = false;
            for lane in 0..LANES {
                world.finish(lane, false);
                match world.claim(lane) {
                    Ok(began) => any |= began,
                    Err(why) => prop_assert!(false, "{why}"),
                }
            }
            if !any {
                break;
            }
        }
        world.look();
        let over = world.check();
        prop_assert!(over.is_ok(), "{}", over.unwrap_err());
        let stats = world.shared.stats();
        prop_assert_eq!((stats.open, stats.queued, stats.untaken), (0, 0, 0));
        prop_assert!(world.jobs.values().all(|known| known.stand != Stand::Waits), "{:?}", world.jobs);
    }
}

/// A worker may have written anywhere in its region, even where no memory was granted.
#[test]
fn what_a_dead_worker_may_have_written_counts_as_no_zeros() {
    let (shared, _consumers) = fixture(1, 1);
    let region = shared.lock().lanes[0].region();
    let _granted = shared.arena.grant(region, 64 << 10, false).unwrap();
    let beyond = Extent {
        at: Offset::new(region, 1 << 20),
        len: 100_000,
    };
    let beyond = shared.arena.pointer(beyond).unwrap();
    // SAFETY: the arena was created by this test. No other process maps it, and no other thread uses it.
    unsafe { beyond.write_bytes(0x41, 100_000) };
    die(&shared, 0);
    let block = shared
        .arena
        .alloc_zeroed(region, 3 << 19, BlockPlacement::Packed)
        .unwrap();
    let start = shared.arena.pointer(block.extent()).unwrap();
    // SAFETY: the block was allocated by this test, and no worker process maps the arena.
    let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), 3 << 19) };
    assert!(bytes.iter().all(|&byte| byte == 0));
}

/// The first call, after which the expected duration is still unknown.
#[test]
fn a_call_that_ends_its_worker_is_counted() {
    let (shared, mut consumers) = fixture(1, 1);
    let id = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    die(&shared, 0);
    assert!(answer(&shared, id).is_some());
    let mut state = shared.lock();
    let kernel = state.kernels.get(0);
    let figures = |kernel: &super::super::kernels::KernelStats| {
        let stats = kernel.stats();
        (stats.calls, stats.failures)
    };
    assert_eq!(figures(kernel), (1, 1));
    kernel.learn(7, 0, false);
    assert_eq!((figures(kernel), kernel.expected_ns), ((2, 1), 7));
}
