//! Recovery after the exit of a worker is confirmed. The README describes the protocol, and what may happen between its
//! steps.

use std::time::{Duration, Instant};

use super::crash::crash_in_start;
use super::drain::lent;
use super::error::{JobErrorKind, WorkerExit};
use super::exit_causes::{self, before_ready};
use super::lane::NO_RECORD;
use super::options::Backoff;
use super::output::last_words::LastWords;
use super::output::{LogLevel, LogLine, LogSource};
use super::queue::Constraint;
use super::shared::Supervisor;
use super::state::EngineState;
use super::suspicion::{EXPLAINED, UNEXPLAINED};
use super::worker::{KILLED, Status, WHOLE, Worker};
use crate::control::StartFailure;
use crate::link::{CANCEL, Phase, steps};

/// The number of consecutive failed starts of each worker, for reasons that cannot pass, after which the engine is
/// broken. A start that was killed counts [`KILLED`].
const FAILED_STARTS: u32 = 4;
/// Number of consecutive processes of a worker that may die without a finished job before the next one is delayed.
const DEATHS_AT_ONCE: u32 = 3;
/// The pauses after failed starts of a worker, and between restarts of an actor while the arena is full.
pub(super) const START_PAUSES: Backoff =
    Backoff::new(Duration::from_millis(10), Duration::from_secs(1));

impl Supervisor {
    /// Recovers from the end of a worker: its jobs are answered or queued again, its memory is freed, and its next
    /// process can be started.
    pub(super) fn recover(
        &self,
        index: usize,
        cause: JobErrorKind,
        refused: Option<StartFailure>,
        words: LastWords,
    ) {
        // The link of the first lane contains the notes of the whole process.
        let phase = self.cells[index].phase();
        let was_starting = self.lock().workers[index].status() == Status::Starting;
        // This is done without the lock, because it reads files. The phase is the worker's word: names for a worker
        // that had started are looked up where the error is shown.
        let crash = match phase {
            Phase::Starting(_) if was_starting => crash_in_start(&words, &cause),
            _ => None,
        };
        let culprit_lane = self.cells[index].culprit_lane();
        let damage = self.arena.damage();
        let mut state = self.lock();
        *state.workers[index].last_words_mut() = words;
        // Jobs that the worker had finished keep their results, although it is dead.
        for lane in state.lanes.of_worker(index) {
            state.drain(lane);
        }
        crate::sync::point!("recover.drained");
        state.trace.gone(
            index,
            &state.workers[index],
            state.lifecycle.closing(),
            &cause,
        );
        // Jobs that the worker had not begun go back to the queue, oldest first. Jobs that it ran have failed.
        let parts = state.take_all_back(index, cause.clone(), culprit_lane);
        crate::sync::point!("recover.classified");
        // Granted memory that was not published is freed. The worker may have written anywhere in its region, so no
        // memory of the region counts as zeroed. Then the links are reset, which clears every word and wakes all
        // sleepers.
        let lanes = state.lanes.of_worker(index);
        for lane in lanes.clone() {
            state.lanes[lane].revoke(&self.arena);
            state.lanes.note_retaining(lane);
        }
        self.arena.forget_zeros(state.lanes[index].region());
        crate::sync::point!("recover.revoked");
        for lane in lanes {
            state.lanes[lane].reset();
        }
        crate::sync::point!("recover.restarted");
        let jobs = state.lanes.jobs_of(index);
        let worker = &mut state.workers[index];
        worker.take_process();
        let words = std::mem::take(worker.last_words_mut());
        let mut notice = None;
        // The worker is absent now. Decide when its next process may start.
        if was_starting {
            // Before the first workers were ready, nothing shows that the program's code lets them start.
            let is_excused =
                phase != Phase::Starting(steps::ON_START) || state.lifecycle.has_started();
            let parts = match refused.is_none() && is_excused && exit_causes::is_killed(&cause) {
                true => KILLED,
                false => WHOLE,
            };
            let failure = refused.unwrap_or_else(|| {
                let entry = self.settings.program.entry;
                let lines = words.all();
                let why = before_ready(entry, phase, &cause, crash.as_ref(), &lines);
                let limit = self.settings.memory_limit;
                StartFailure {
                    why: format!("worker {index} {why}"),
                    may_pass: exit_causes::may_pass(phase, &cause, &words, limit),
                }
            });
            notice = state.start_failed(index, failure, parts);
        } else if worker.is_retiring() && cause == JobErrorKind::Lost(WorkerExit::Code(Some(0))) {
            worker.has_retired();
            state.set_status(index, Status::Absent { not_before: None });
            crate::sync::point!("recycle.counted");
        } else {
            let deaths = worker.died(jobs, parts);
            let times = worker.deaths_in_a_row();
            let not_before = respawn_pause(deaths).map(|pause| Instant::now() + pause);
            state.set_status(index, Status::Absent { not_before });
            if !state.lifecycle.has_started() && deaths >= DEATHS_AT_ONCE {
                // The thread that builds the engine waits until all workers are ready at the same time.
                let why = format!(
                    "worker {index} was ready and died without a job, {times} times in a row: {cause}"
                );
                state.give_up_starts(&why);
            }
        }
        // If a worker died because the memory of its links was taken away, others will follow: no shared memory can be
        // trusted any more. If the engine was broken already, no worker will run the jobs that were queued again.
        if let Some(why) = damage {
            state.give_up(&why);
        } else if let Some(why) = state.lifecycle.broken().cloned() {
            state.fail_queued(&JobErrorKind::NoWorkers(why));
        }
        let EngineState {
            lanes,
            workers,
            queue,
            config,
            ..
        } = &mut *state;
        lanes.begin_generation(index, self.settings.memory.recycling.jobs);
        workers[index].begin_generation();
        lanes.update_flags(queue, config);
        state.refill();
        state.waiters.notify_start();
        self.unlock(state);
        self.report_start(index, notice);
        crate::sync::point!("recover.done");
    }
}

impl Supervisor {
    /// Records that the process of a worker could not be started.
    pub(super) fn cannot_start(&self, index: usize, failure: StartFailure) {
        let mut state = self.lock();
        let notice = state.start_failed(index, failure, WHOLE);
        state.waiters.notify_start();
        self.unlock(state);
        self.report_start(index, notice);
    }

    fn report_start(&self, index: usize, notice: Option<String>) {
        if let Some(why) = notice {
            self.notify_log(index as u32, why);
        }
    }

    /// Passes a notice of the engine itself to the log.
    pub(super) fn notify_log(&self, worker: u32, text: String) {
        self.log.push([LogLine {
            label: self.settings.label.as_str().into(),
            worker,
            job: None,
            source: LogSource::Notice,
            level: Some(LogLevel::Warn),
            target: None,
            text,
        }]);
    }

    /// Starts workers again, if the engine is broken only because starts failed. Returns whether it was.
    pub(crate) fn revive(&self) -> bool {
        let mut state = self.lock();
        let revived = state.lifecycle.revive();
        if revived {
            for index in 0..state.workers.len() {
                state.workers[index].forget_failed_starts();
                if let Status::Absent { .. } = state.workers[index].status() {
                    state.set_status(index, Status::Absent { not_before: None });
                }
            }
        }
        self.unlock(state);
        if revived {
            self.ring();
        }
        revived
    }
}

impl Supervisor {
    /// Ends all jobs if the memory of the links was taken away (the segment was truncated or punched). Without this, a
    /// doorbell word that is zero again could make a worker seem awake, which then sleeps with a job in its lane.
    pub(super) fn look_after_links(&self) {
        let Some(why) = self.arena.control_damage() else {
            return;
        };
        let mut state = self.lock();
        state.give_up(&why);
        for lane in 0..state.lanes.len() {
            state.condemn(lane, NO_RECORD, JobErrorKind::NoWorkers(why.clone()));
        }
        state.waiters.notify_start();
        self.unlock(state);
    }
}

impl EngineState {
    /// Records that a worker did not become ready. Another process is tried after a pause. The engine becomes broken if
    /// a thread waits for its start, or if the cause cannot pass and this is the first start, or each worker has failed
    /// to start several times in a row. A cause that cannot pass counts `parts` of [`WHOLE`]. Returns the text of a
    /// notice if the failure is news.
    #[must_use]
    fn start_failed(&mut self, index: usize, failure: StartFailure, parts: u32) -> Option<String> {
        let StartFailure { why, may_pass } = &failure;
        let notice = match may_pass {
            true => (!self.workers.iter().any(Worker::waits_for_resources))
                .then(|| format!("no worker can be started now, which is tried again: {why}")),
            false => (!self.workers[index].failed_starts().contains(&failure))
                .then(|| format!("a worker has not become ready: {why}")),
        };
        let may_pass = *may_pass;
        let pause = START_PAUSES.pause(self.workers[index].start_failed(failure, parts), 0);
        let not_before = Some(Instant::now() + pause);
        self.set_status(index, Status::Absent { not_before });
        let is_first = !self.lifecycle.has_started();
        let is_awaited = is_first && !self.config.starts_in_background;
        let hopeless = |worker: &Worker| worker.is_hopeless(FAILED_STARTS * WHOLE);
        let is_final = is_first && parts == WHOLE;
        if is_awaited || !may_pass && (is_final || self.workers.iter().all(hopeless)) {
            let why = one_after_the_other(self.workers[index].failed_starts());
            self.give_up_starts(&why);
        }
        // An awaited start returns the reason, and an engine that ends kills workers that are starting.
        let ends = self.lifecycle.is_stopping() || self.lifecycle.closes_now();
        notice.filter(|_| !is_awaited && !ends)
    }

    /// Answers or requeues the jobs that the worker still had. Returns how many parts of a death, out of [`WHOLE`],
    /// this counts: all if one of the jobs killed the worker or it died on its own.
    fn take_all_back(
        &mut self,
        index: usize,
        cause: JobErrorKind,
        culprit_lane: Option<usize>,
    ) -> u32 {
        let kill_reasons = self.workers[index].take_kill_reasons();
        let broke_protocol = kill_reasons
            .iter()
            .any(|(_, why)| matches!(why, JobErrorKind::Lost(WorkerExit::Protocol(_))));
        let weight = match self
            .lanes
            .of_worker(index)
            .all(|lane| self.lanes[lane].begun().is_none())
        {
            true => UNEXPLAINED,
            false => EXPLAINED,
        };
        let mut back = Vec::new();
        let mut ran = Vec::new();
        for lane_index in self.lanes.of_worker(index) {
            let begun = self.lanes[lane_index].begun();
            let mut in_front = begun.is_none() && kill_reasons.is_empty();
            for position in self.lanes[lane_index].producer.open_positions() {
                let record = self.lanes[lane_index].take(position);
                if record == NO_RECORD {
                    continue;
                }
                self.lanes.left();
                let lane = &self.lanes[lane_index];
                // The worker is not trusted if it broke the protocol (it may have begun a job that it reports as
                // queued), or if it reports a job as queued ahead of another that has begun: jobs are begun in order.
                let untouched = lane.producer.is_queued(position)
                    && begun.is_none_or(|begun| begun < position)
                    && !broke_protocol
                    && !(std::mem::take(&mut in_front) && {
                        // Each start of an actor is charged separately.
                        let record = self.records.look(record);
                        let job = self.actors.started_by(record.owner).unwrap_or(record.job);
                        self.suspicion.charge(job, weight, 4 * self.lanes.len())
                    });
                if !untouched && self.records.at(record).is_traced() {
                    self.trace.ran(&self.lanes, lane_index, position, record);
                }
                if kill_reasons.iter().any(|&(blamed, _)| blamed == record) {
                    continue;
                }
                if untouched {
                    let owner = self.records.look(record).owner;
                    self.actors.retracted(owner, position);
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
                // The cancellation was requested while this lane was condemned, or by the end of another of these jobs.
                self.fail(record, JobErrorKind::Cancelled, None, Vec::new());
            } else {
                self.requeue(record);
                self.waiters.notify_moved(self.records.look(record), record);
            }
        }
        // The worker reports the number of the lane among its own lanes. Any other number is ignored.
        let culprit_lane = culprit_lane.and_then(|number| self.lanes.of_worker(index).nth(number));
        self.answer_running(index, kill_reasons, ran, cause, culprit_lane)
    }

    /// Answers the jobs that ran when the worker died: the job that ended it with the cause, the others with the number
    /// of that job. If it is not known which job that is, answers all with the cause. Returns how much of a death this
    /// counts: see [`EngineState::take_all_back`].
    fn answer_running(
        &mut self,
        index: usize,
        kill_reasons: Vec<(u32, JobErrorKind)>,
        mut ran: Vec<(usize, u32)>,
        cause: JobErrorKind,
        culprit_lane: Option<usize>,
    ) -> u32 {
        let blamed = kill_reasons.iter().map(|&(record, _)| record);
        let all = blamed
            .filter(|&record| record != NO_RECORD)
            .chain(ran.iter().map(|&(_, record)| record));
        let mut jobs: Vec<u64> = all.map(|record| self.records.look(record).job).collect();
        jobs.sort_unstable();
        let mut culprits = kill_reasons;
        if culprits.is_empty() {
            let is_only_one = ran.len() == 1;
            let is_culprit = |&(lane, _): &(usize, u32)| is_only_one || culprit_lane == Some(lane);
            if let Some(at) = ran.iter().position(is_culprit) {
                let (_, culprit) = ran.remove(at);
                culprits.push((culprit, cause.clone()));
            }
        }
        let Some((first, why)) = culprits.first() else {
            let is_own_death = !ran.is_empty() || !exit_causes::is_killed(&cause);
            self.workers[index].last_words_mut().ran(jobs, false);
            let mut calls = Vec::new();
            for (_, record) in ran {
                self.fail_unless_call(index, record, cause.clone(), &mut calls);
            }
            self.lose_actor_states(index, calls, &cause);
            return if is_own_death { WHOLE } else { KILLED };
        };
        self.workers[index].last_words_mut().ran(jobs, true);
        // The error of jobs that are lost because of this job.
        let lost = JobErrorKind::Lost(WorkerExit::OtherJob {
            job: (*first != NO_RECORD).then(|| self.records.look(*first).job),
            cause: Box::new(why.clone()),
        });
        let parts = match why {
            JobErrorKind::Cancelled => 0,
            _ => WHOLE,
        };
        let mut calls = Vec::new();
        // The culprits go first, so that a scope gets this failure ahead of the others.
        for (record, why) in culprits {
            if record != NO_RECORD {
                self.fail_unless_call(index, record, why, &mut calls);
            }
        }
        for (_, record) in ran {
            // The job may have begun, and its worker died of another cause.
            let open = !self.lifecycle.closes_now();
            let most = self.config.quarantine_after;
            let policy = self.records.at(record).policy.as_mut();
            if open && policy.is_some_and(|policy| policy.may_run_again_after_loss(most)) {
                let (records, kernels) = (&self.records, &mut self.kernels);
                self.trace
                    .failed(record, records, kernels, &lost, (None, true));
                self.requeue(record);
                self.waiters.notify_moved(self.records.look(record), record);
            } else {
                self.fail_unless_call(index, record, lost.clone(), &mut calls);
            }
        }
        self.lose_actor_states(index, calls, &lost);
        parts
    }

    /// Fails a job that ran. Calls of actors are collected instead, and handled together.
    fn fail_unless_call(
        &mut self,
        worker: usize,
        record: u32,
        why: JobErrorKind,
        calls: &mut Vec<(u32, JobErrorKind)>,
    ) {
        if self.records.look(record).owner.actor().is_some() {
            calls.push((record, why));
        } else {
            self.fail_running(worker, record, why);
        }
    }

    pub(super) fn fail_running(&mut self, worker: usize, record: u32, why: JobErrorKind) {
        let why = if self.lifecycle.closes_now() {
            JobErrorKind::ShutDown
        } else {
            why
        };
        let rows = lent(&self.records.at(record).leases);
        let kernel = self.records.at(record).kernel;
        self.kernels.get(kernel).count_lost();
        self.attempt_failed(record, why, Some(worker as u32), rows);
    }

    /// Makes the engine broken permanently: no job can run any more, and every job is answered.
    pub(super) fn give_up(&mut self, why: &str) {
        self.lifecycle.set_broken(why, false);
        self.fail_queued(&JobErrorKind::NoWorkers(why.to_owned()));
    }

    /// Makes the engine broken until [`Supervisor::revive`], because workers cannot be started.
    fn give_up_starts(&mut self, why: &str) {
        self.lifecycle.set_broken(why, true);
        self.fail_queued(&JobErrorKind::NoWorkers(why.to_owned()));
    }

    /// Answers every unanswered job: no worker is left, and none will be started.
    pub(super) fn end(&mut self) {
        self.lifecycle
            .set_broken("the engine has been shut down", false);
        self.fail_queued(&JobErrorKind::ShutDown);
        self.process_all_ends();
        self.waiters.notify_start();
    }

    /// Answers all jobs that are on no lane.
    pub(super) fn fail_queued(&mut self, why: &JobErrorKind) {
        // This goes first, because leaving a line or returning a permit may move other jobs to the queue.
        self.fail_permit_waiters(why);
        // One at a time: a failure may cancel other jobs of its group.
        for constraint in [Constraint::WholeWorker, Constraint::Any] {
            while let Some(record) = self.queue.next_for(constraint, &self.records) {
                self.fail(record, why.clone(), None, Vec::new());
            }
        }
        self.lose_all_actors(why);
        self.fail_waiting(why);
        let admission = self.admission.iter_mut();
        self.waiters
            .call(admission.flat_map(|all| all.take_wakers()));
        self.lanes.update_flags(&self.queue, &self.config);
    }
}

/// Returns the reasons of failed starts, oldest first. Equal consecutive reasons are counted.
fn one_after_the_other(failures: &[StartFailure]) -> String {
    let reasons = failures
        .chunk_by(|one, next| one == next)
        .map(|same| match same.len() {
            1 => same[0].why.clone(),
            times => format!("{times} times in a row: {}", same[0]),
        });
    reasons.collect::<Vec<_>>().join("\nthen ")
}

/// Returns the pause until a worker that died this many times in a row is started again.
fn respawn_pause(deaths: u32) -> Option<Duration> {
    let more = deaths.checked_sub(DEATHS_AT_ONCE)?;
    Some(START_PAUSES.pause(more + 1, 0))
}
