//! What happens when a worker is gone. The steps are numbered in the README of this floor.

use std::time::{Duration, Instant};

use super::Shared;
use super::actor::actor_of;
use super::causes::before_ready;
use super::core::{Closing, Core};
use super::drain::lent;
use super::error::JobErrorKind;
use super::lane::NOBODY;
use super::words::LastWords;
use super::worker::{Status, WHOLE, Worker};
use crate::link::CANCEL;

/// Starts that may fail one after the other before the engine gives up.
const FAILED_STARTS: usize = 4;
/// More failed starts than this are not kept; the pause is the longest by then.
const MOST_REMEMBERED: usize = 8;
/// The processes of a worker may die this many times in a row, without a job finished, before it waits with the next.
const DEATHS_AT_ONCE: u32 = 3;
/// Workers that may die by themselves with the same job in front of a lane, not begun as far as they say. After that it counts
/// as one that runs: whoever took over a worker can write this, and his job would come back for ever.
const DEATHS_IN_FRONT: u32 = 16;
/// A death in which another lane ran something counts as one, others as so many.
const UNEXPLAINED: u32 = 4;
/// What it counts if somebody has killed an idle worker: some may go at once, but whoever kills each as soon as it is ready must
/// not keep a core busy with their successors for good.
const KILLED: u32 = 1;
/// The pause after the first failed start; it doubles, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Shared {
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
        let mut core = self.lock();
        core.workers[index].last_words = words;
        // 3. What it had finished is finished.
        for lane in core.lanes_of(index) {
            core.drain(lane);
        }
        crate::sync::point!("recover.drained");
        let was_starting = core.workers[index].status() == Status::Starting;
        core.trace_gone(index, &cause);
        // 4. and 5. What it had not begun goes back, oldest first; what it ran has failed.
        let parts = core.take_all_back(index, cause.clone(), fell);
        crate::sync::point!("recover.judged");
        // 6. and 7.
        let lanes = core.lanes_of(index);
        lanes.clone().for_each(|lane| core.lanes[lane].revoke());
        self.arena.forget_zeros(core.lanes[index].region);
        crate::sync::point!("recover.revoked");
        for lane in lanes {
            core.lanes[lane].start_over();
        }
        crate::sync::point!("recover.restarted");
        let jobs = core.jobs_of(index);
        let worker = &mut core.workers[index];
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
            core.start_failed(index, &why);
        } else if worker.retiring && cause == JobErrorKind::Exited(Some(0)) {
            worker.recycled += 1;
            core.set_status(index, Status::Absent { not_before: None });
            crate::sync::point!("recycle.counted");
        } else {
            worker.restarts += 1;
            let deaths = worker.ended(jobs, parts);
            let times = worker.deaths_in_a_row();
            let not_before = respawn_pause(deaths).map(|pause| Instant::now() + pause);
            core.set_status(index, Status::Absent { not_before });
            if !core.started && deaths >= DEATHS_AT_ONCE {
                // Whoever builds the engine waits until all are ready at one time.
                core.give_up(&format!(
                    "worker {index} was ready and died without a job, {times} times in a row: {cause}"
                ));
            }
        }
        // What died of memory that is gone is followed by others: nothing here can be trusted any more. Where the engine has
        // given up before, what was put back has nobody to run it.
        if let Some(why) = damage.or_else(|| core.broken.clone()) {
            core.give_up(&why);
        }
        core.begin_life(index, &self.settings.memory.recycling);
        core.update_flags();
        core.refill();
        self.parking.engine.notify();
        self.unlock(core);
        crate::sync::point!("recover.done");
    }
}

impl Shared {
    /// The process of a worker could not even be started.
    pub(super) fn cannot_start(&self, index: usize, why: &str) {
        let mut core = self.lock();
        core.start_failed(index, why);
        self.parking.engine.notify();
        self.unlock(core);
    }
}

impl Shared {
    /// Gives up where somebody has taken the links away. A bell that is zero again, and a worker that seems to be awake, would leave
    /// that asleep with a job before it.
    pub(super) fn look_after_links(&self) {
        let Some(why) = self.arena.damage_of_links() else {
            return;
        };
        let mut core = self.lock();
        core.give_up(&why);
        for lane in 0..core.lanes.len() {
            core.condemn(lane, NOBODY, JobErrorKind::NoWorkers(why.clone()));
        }
        self.parking.engine.notify();
        self.unlock(core);
    }
}

impl Core {
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
        if !self.started || self.workers.iter().all(hopeless) {
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
        let weight = match self.lanes_of(index).all(|lane| self.begun(lane).is_none()) {
            true => UNEXPLAINED,
            false => 1,
        };
        let mut back = Vec::new();
        let mut ran = Vec::new();
        for lane_index in self.lanes_of(index) {
            let begun = self.begun(lane_index);
            let mut in_front = begun.is_none() && verdicts.is_empty();
            for position in self.lanes[lane_index].producer.open_positions() {
                let lane = &mut self.lanes[lane_index];
                let record = lane.take(position);
                if record == NOBODY {
                    continue;
                }
                self.open -= 1;
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
                    self.never_begun(record, position);
                    back.push(record);
                } else {
                    ran.push((lane_index, record));
                }
            }
        }
        if self.lanes_per_worker() > 1 {
            back.sort_by_key(|&record| self.records.look(record).job);
        }
        for record in back.into_iter().rev() {
            if self.closing == Closing::Now {
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
        let fell = fell.and_then(|number| self.lanes_of(index).nth(number));
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
        let actor = self.starts(record);
        let job = actor.unwrap_or_else(|| self.records.look(record).job);
        let known = self.in_front.iter().position(|&(other, _)| other == job);
        let deaths = weight + known.map_or(0, |at| self.in_front.remove(at).1);
        if deaths >= DEATHS_IN_FRONT * UNEXPLAINED {
            return true;
        }
        if self.in_front.len() >= 4 * self.lanes.len() {
            self.in_front.remove(0);
        }
        self.in_front.push((job, deaths));
        false
    }

    /// Answers what ran when the worker died: the culprit with the cause, the others with its name. Where nobody can tell
    /// who it was, all with the cause. For how much of a death it counts: see [`Core::take_all_back`].
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
            self.lose_states(index, calls, &cause);
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
        self.lose_states(index, calls, &lost);
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
        let open = self.closing != Closing::Now;
        let quarantine_after = self.quarantine_after;
        let policy = self.records.at(record).policy.as_mut();
        open && policy.is_some_and(|policy| policy.may_run_again_after_loss(quarantine_after))
    }

    pub(super) fn fail_running(&mut self, worker: usize, record: u32, why: JobErrorKind) {
        let why = if self.closing == Closing::Now {
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
        self.broken.get_or_insert_with(|| why.to_owned());
        self.fail_queued(&JobErrorKind::NoWorkers(why.to_owned()));
    }

    /// No worker is left and none will come: whatever has no answer gets one.
    pub(super) fn end(&mut self) {
        self.broken
            .get_or_insert_with(|| "the engine has been shut down".into());
        self.fail_queued(&JobErrorKind::ShutDown);
        self.continue_graphs();
        self.parking.engine.notify();
    }

    /// Whoever sleeps on this job's old place looks again.
    pub(super) fn tell_moved(&mut self, record: u32) {
        if self.records.at(record).parked {
            self.parking.of(record).notify();
        }
    }

    /// Answers all jobs that no worker has.
    pub(super) fn fail_queued(&mut self, why: &JobErrorKind) {
        // First: whoever gives up a place or a permit may let others into the queue.
        self.fail_lines(why);
        // One by one: the failure of one may cancel others of its group.
        while let Some(record) = self.queue.pop_any(&self.records) {
            self.fail(record, why.clone(), None, Vec::new());
        }
        self.lose_all_actors(why);
        self.fail_waiting(why);
        self.let_all_in();
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
