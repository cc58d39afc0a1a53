//! What happens when a worker is gone. The steps are numbered in the README of this floor.

use std::time::{Duration, Instant};

use super::actor::actor_of;
use super::causes::before_ready;
use super::drain::lent;
use super::error::JobErrorKind;
use super::lane::NOBODY;
use super::output::last_words::LastWords;
use super::shared::Supervisor;
use super::state::EngineState;
use super::suspicion::{EXPLAINED, UNEXPLAINED};
use super::worker::{Status, WHOLE, Worker};
use crate::link::CANCEL;

/// Starts that may fail one after the other before the engine gives up.
const FAILED_STARTS: usize = 4;
/// More failed starts than this are not kept; the pause is the longest by then.
const MOST_REMEMBERED: usize = 8;
/// The processes of a worker may die this many times in a row, without a job finished, before it waits with the next.
const DEATHS_AT_ONCE: u32 = 3;
/// What it counts if somebody has killed an idle worker: some may go at once, but whoever kills each as soon as it is ready must
/// not keep a core busy with their successors for good.
const KILLED: u32 = 1;
/// The pause after the first failed start; it doubles, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Supervisor {
    /// The exit of a worker is confirmed: puts everything it had in order.
    pub(super) fn recover(
        &self,
        index: usize,
        cause: JobErrorKind,
        refused: Option<String>,
        words: LastWords,
    ) {
        // The first lane's link speaks for the whole process.
        let phase = self.cells[index].phase();
        let fell = self.cells[index].culprit_lane();
        let damage = self.arena.damage();
        let mut state = self.lock();
        state.workers[index].last_words = words;
        // 3. What it had finished is finished.
        for lane in state.lanes.of_worker(index) {
            state.drain(lane);
        }
        crate::sync::point!("recover.drained");
        let was_starting = state.workers[index].status() == Status::Starting;
        state.trace_gone(index, &cause);
        // 4. and 5. What it had not begun goes back, oldest first; what it ran has failed.
        let parts = state.take_all_back(index, cause.clone(), fell);
        crate::sync::point!("recover.classified");
        // 6. and 7.
        let lanes = state.lanes.of_worker(index);
        lanes.clone().for_each(|lane| state.lanes[lane].revoke());
        self.arena.forget_zeros(state.lanes[index].region);
        crate::sync::point!("recover.revoked");
        for lane in lanes {
            state.lanes[lane].start_over();
        }
        crate::sync::point!("recover.restarted");
        let jobs = state.jobs_of(index);
        let worker = &mut state.workers[index];
        worker.process = None;
        let words = std::mem::take(&mut worker.last_words);
        // 8.
        if was_starting {
            let why = refused.unwrap_or_else(|| {
                format!(
                    "worker {index} {}",
                    before_ready(phase, &cause, &words.all())
                )
            });
            state.start_failed(index, &why);
        } else if worker.retiring && cause == JobErrorKind::Exited(Some(0)) {
            worker.recycled += 1;
            state.set_status(index, Status::Absent { not_before: None });
            crate::sync::point!("recycle.counted");
        } else {
            worker.restarts += 1;
            let deaths = worker.ended(jobs, parts);
            let times = worker.deaths_in_a_row();
            let not_before = respawn_pause(deaths).map(|pause| Instant::now() + pause);
            state.set_status(index, Status::Absent { not_before });
            if !state.lifecycle.has_started() && deaths >= DEATHS_AT_ONCE {
                // Whoever builds the engine waits until all are ready at one time.
                state.give_up(&format!(
                    "worker {index} was ready and died without a job, {times} times in a row: {cause}"
                ));
            }
        }
        // What died of memory that is gone is followed by others: nothing here can be trusted any more. Where the engine has
        // given up before, what was put back has nobody to run it.
        if let Some(why) = damage.or_else(|| state.lifecycle.broken().cloned()) {
            state.give_up(&why);
        }
        state.begin_life(index, &self.settings.memory.recycling);
        state.update_flags();
        state.refill();
        state.waiters.notify_start();
        self.unlock(state);
        crate::sync::point!("recover.done");
    }
}

impl Supervisor {
    /// The process of a worker could not even be started.
    pub(super) fn cannot_start(&self, index: usize, why: &str) {
        let mut state = self.lock();
        state.start_failed(index, why);
        state.waiters.notify_start();
        self.unlock(state);
    }
}

impl Supervisor {
    /// Gives up where somebody has taken the links away. A bell that is zero again, and a worker that seems to be awake, would leave
    /// that asleep with a job before it.
    pub(super) fn look_after_links(&self) {
        let Some(why) = self.arena.control_damage() else {
            return;
        };
        let mut state = self.lock();
        state.give_up(&why);
        for lane in 0..state.lanes.len() {
            state.condemn(lane, NOBODY, JobErrorKind::NoWorkers(why.clone()));
        }
        state.waiters.notify_start();
        self.unlock(state);
    }
}

impl EngineState {
    /// A worker did not become ready: another one is tried after a pause. The engine gives up while it
    /// is being built, and when each worker has failed to start several times in a row.
    fn start_failed(&mut self, index: usize, why: &str) {
        let worker = &mut self.workers[index];
        let pause = pause_after(worker.failed_starts.len() as u32);
        worker.failed_starts.push(why.to_owned());
        if worker.failed_starts.len() > MOST_REMEMBERED {
            worker.failed_starts.remove(0);
        }
        let not_before = Some(Instant::now() + pause);
        self.set_status(index, Status::Absent { not_before });
        let hopeless = |worker: &Worker| worker.failed_starts.len() >= FAILED_STARTS;
        if !self.lifecycle.has_started() || self.workers.iter().all(hopeless) {
            let why = one_after_the_other(&self.workers[index].failed_starts);
            self.give_up(&why);
        }
    }

    /// After the exit: the jobs that the worker still had. For how much of a death it counts: a whole one if one of them killed
    /// it, or it died by itself.
    fn take_all_back(&mut self, index: usize, cause: JobErrorKind, fell: Option<usize>) -> u32 {
        let verdicts = std::mem::take(&mut self.workers[index].verdicts);
        let broke_protocol = verdicts
            .iter()
            .any(|(_, why)| matches!(why, JobErrorKind::Protocol(_)));
        let weight = match self
            .lanes
            .of_worker(index)
            .all(|lane| self.begun(lane).is_none())
        {
            true => UNEXPLAINED,
            false => EXPLAINED,
        };
        let mut back = Vec::new();
        let mut ran = Vec::new();
        for lane_index in self.lanes.of_worker(index) {
            let begun = self.begun(lane_index);
            let mut in_front = begun.is_none() && verdicts.is_empty();
            for position in self.lanes[lane_index].producer.open_positions() {
                let record = self.lanes[lane_index].take(position);
                if record == NOBODY {
                    continue;
                }
                self.lanes.left();
                let lane = &self.lanes[lane_index];
                // A worker that broke the protocol may have begun what it says is queued; only what it
                // cannot have reached is put back then.
                // What lies before one that has begun has begun as well: jobs are taken in their order.
                let untouched = lane.producer.is_queued(position)
                    && begun.is_none_or(|begun| begun < position)
                    && !broke_protocol
                    && !(std::mem::take(&mut in_front) && self.was_too_often(record, weight));
                if !untouched && self.records.at(record).is_traced() {
                    self.trace_run(lane_index, position, record);
                }
                if verdicts.iter().any(|&(blamed, _)| blamed == record) {
                    continue;
                }
                if untouched {
                    self.actor_job_retracted(record, position);
                    back.push(record);
                } else {
                    ran.push((lane_index, record));
                }
            }
        }
        if self.lanes.per_worker() > 1 {
            back.sort_by_key(|&record| self.records.look(record).job);
        }
        for record in back.into_iter().rev() {
            if self.lifecycle.closes_now() {
                self.fail(record, JobErrorKind::ShutDown, None, Vec::new());
            } else if self.records.at(record).requests & CANCEL != 0 {
                // Asked for while the words of this lane meant nothing, or by the end of another of these.
                self.fail(record, JobErrorKind::Cancelled, None, Vec::new());
            } else {
                self.requeue(record);
                self.tell_moved(record);
            }
        }
        // As far as its worker says: a lane of its own.
        let fell = fell.and_then(|number| self.lanes.of_worker(index).nth(number));
        self.judge(index, verdicts, ran, cause, fell)
    }

    /// The newest job of this lane that has begun, as far as its worker says.
    fn begun(&self, lane: usize) -> Option<u64> {
        let lane = &self.lanes[lane];
        let mut newest_first = lane.held().rev();
        newest_first.find(|&position| !lane.producer.is_queued(position))
    }

    /// One more worker has died with this job in front of a lane. Were there too many?
    fn was_too_often(&mut self, record: u32, weight: u32) -> bool {
        // A start is another job each time.
        let actor = self.started_actor(record);
        let job = actor.unwrap_or_else(|| self.records.look(record).job);
        let most = 4 * self.lanes.len();
        self.suspicion.charge(job, weight, most)
    }

    /// Answers what ran when the worker died: the culprit with the cause, the others with its name. Where nobody can tell
    /// who it was, all with the cause. For how much of a death it counts: see [`EngineState::take_all_back`].
    fn judge(
        &mut self,
        index: usize,
        verdicts: Vec<(u32, JobErrorKind)>,
        mut ran: Vec<(usize, u32)>,
        cause: JobErrorKind,
        fell: Option<usize>,
    ) -> u32 {
        let blamed = verdicts.iter().map(|&(record, _)| record);
        let all = blamed
            .filter(|&record| record != NOBODY)
            .chain(ran.iter().map(|&(_, record)| record));
        let mut jobs: Vec<u64> = all.map(|record| self.records.look(record).job).collect();
        jobs.sort_unstable();
        let mut guilty = verdicts;
        if guilty.is_empty() {
            let alone = ran.len() == 1;
            let did_it = |&(lane, _): &(usize, u32)| alone || fell == Some(lane);
            if let Some(at) = ran.iter().position(did_it) {
                let (_, culprit) = ran.remove(at);
                guilty.push((culprit, cause.clone()));
            }
        }
        let Some((first, why)) = guilty.first() else {
            let by_itself = !ran.is_empty() || cause != JobErrorKind::Signal(libc::SIGKILL);
            self.workers[index].last_words.ran(jobs, false);
            let mut calls = Vec::new();
            for (_, record) in ran {
                self.fail_unless_call(index, record, cause.clone(), &mut calls);
            }
            self.lose_actor_states(index, calls, &cause);
            return if by_itself { WHOLE } else { KILLED };
        };
        self.workers[index].last_words.ran(jobs, true);
        let lost = self.lost_with(*first, why);
        let parts = match why {
            JobErrorKind::Cancelled => 0,
            _ => WHOLE,
        };
        let mut calls = Vec::new();
        // First, so that a scope hears of it before it hears of the others.
        for (record, why) in guilty {
            if record != NOBODY {
                self.fail_unless_call(index, record, why, &mut calls);
            }
        }
        for (_, record) in ran {
            if self.may_run_again_after_loss(record) {
                if self.records.at(record).is_traced() {
                    self.trace_failed(record, &lost, true);
                }
                self.requeue(record);
                self.tell_moved(record);
            } else {
                self.fail_unless_call(index, record, lost.clone(), &mut calls);
            }
        }
        self.lose_actor_states(index, calls, &lost);
        parts
    }

    /// A job that ran has failed; what actors were at is judged with them.
    fn fail_unless_call(
        &mut self,
        worker: usize,
        record: u32,
        why: JobErrorKind,
        calls: &mut Vec<(u32, JobErrorKind)>,
    ) {
        if actor_of(self.records.look(record).group).is_some() {
            calls.push((record, why));
        } else {
            self.fail_running(worker, record, why);
        }
    }

    /// What jobs answer that are lost because of this one.
    fn lost_with(&self, record: u32, why: &JobErrorKind) -> JobErrorKind {
        let job = match record {
            NOBODY => 0,
            record => self.records.look(record).job,
        };
        JobErrorKind::LostWith {
            job,
            culprit: Box::new(why.clone()),
        }
    }

    /// A job may have begun when its worker died of something else. Does it go back to the queue?
    fn may_run_again_after_loss(&mut self, record: u32) -> bool {
        let open = !self.lifecycle.closes_now();
        let quarantine_after = self.config.quarantine_after();
        let policy = self.records.at(record).policy.as_mut();
        open && policy.is_some_and(|policy| policy.may_run_again_after_loss(quarantine_after))
    }

    pub(super) fn fail_running(&mut self, worker: usize, record: u32, why: JobErrorKind) {
        let why = if self.lifecycle.closes_now() {
            JobErrorKind::ShutDown
        } else {
            why
        };
        let rows = lent(&self.records.at(record).leases);
        let kernel = self.records.at(record).kernel;
        self.kernels.get(kernel).failures += 1;
        self.attempt_failed(record, why, Some(worker as u32), rows);
    }

    /// Nothing can run any more: every job gets its answer.
    pub(super) fn give_up(&mut self, why: &str) {
        self.lifecycle.set_broken(why);
        self.fail_queued(&JobErrorKind::NoWorkers(why.to_owned()));
    }

    /// No worker is left and none will come: whatever has no answer gets one.
    pub(super) fn end(&mut self) {
        self.lifecycle.set_broken("the engine has been shut down");
        self.fail_queued(&JobErrorKind::ShutDown);
        self.process_ends();
        self.waiters.notify_start();
    }

    /// Answers all jobs that no worker has.
    pub(super) fn fail_queued(&mut self, why: &JobErrorKind) {
        // First: whoever gives up a place or a permit may let others into the queue.
        self.fail_permit_waiters(why);
        // One by one: the failure of one may cancel others of its group.
        while let Some(record) = self.queue.pop_any(&self.records) {
            self.fail(record, why.clone(), None, Vec::new());
        }
        self.lose_all_actors(why);
        self.fail_waiting(why);
        self.admit_all();
        self.update_flags();
    }
}

/// Why starts failed, the oldest first; what is the same as before is counted.
fn one_after_the_other(failures: &[String]) -> String {
    let told = failures
        .chunk_by(|one, next| one == next)
        .map(|same| match same.len() {
            1 => same[0].clone(),
            times => format!("{times} times in a row: {}", same[0]),
        });
    told.collect::<Vec<_>>().join("\nthen ")
}

/// How long a worker whose processes die waits before it starts another, after so many.
fn respawn_pause(deaths: u32) -> Option<Duration> {
    deaths.checked_sub(DEATHS_AT_ONCE).map(pause_after)
}

/// 10 ms, 20 ms, 40 ms and so on.
fn pause_after(failures: u32) -> Duration {
    (FIRST_PAUSE * 2u32.saturating_pow(failures.min(16))).min(LONGEST_PAUSE)
}
