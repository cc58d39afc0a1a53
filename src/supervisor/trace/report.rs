//! Sends events to the trace.

use std::sync::Arc;

use super::Tracing;
use super::sentence;
use crate::supervisor::error::{Crash, JobErrorKind, WorkerExit};
use crate::supervisor::lifecycle::Closing;
use crate::supervisor::record::Stage;
use crate::supervisor::state::EngineState;
use crate::sys::clock::monotonic_ns;
use crate::trace::{AttemptEnd, Describe, Event, LaneId, Tracer};

impl Describe for Crash {
    fn what(&self) -> String {
        Crash::what(self)
    }

    fn frames(&self) -> Vec<String> {
        let frames = Crash::frames(self).iter();
        frames.map(|frame| frame.to_string()).collect()
    }
}

impl EngineState {
    /// Starts tracing jobs.
    pub(in crate::supervisor) fn begin_trace(&mut self, tracer: Arc<Tracer>) {
        self.trace = Some(Box::new(Tracing::new(
            tracer,
            self.workers.len(),
            self.lanes.len(),
        )));
    }

    /// Removes an unbegun job whose handle was dropped, without an answer.
    pub(in crate::supervisor) fn remove_unrun(&mut self, index: u32) {
        debug_assert!(self.records.look(index).stage != Stage::Answered);
        self.counts.count(&JobErrorKind::Cancelled);
        if self.records.look(index).is_traced() {
            self.trace_failed(index, &JobErrorKind::Cancelled, None, false);
        }
        self.discharge(index);
        self.records.remove(index);
    }

    /// Reports that the process of a worker is gone. Called before its jobs are requeued or answered.
    pub(in crate::supervisor) fn trace_gone(&self, worker: usize, cause: &JobErrorKind) {
        let Some(trace) = &self.trace else { return };
        let gone = &self.workers[worker];
        let retired = gone.is_retiring() && *cause == JobErrorKind::Lost(WorkerExit::Code(Some(0)));
        let meant = retired || self.lifecycle.closing() != Closing::No;
        // The worker was killed by the supervisor: the kill reason says why.
        let why = gone.kill_reasons().first().map_or(cause, |(_, why)| why);
        trace.send(Event::Exited {
            worker: worker as u32,
            at: monotonic_ns(),
            why: (!meant).then(|| sentence(why)),
        });
    }

    fn place_of(&self, lane: usize) -> LaneId {
        LaneId {
            worker: self.lanes.worker_of(lane) as u32,
            lane: (lane / self.workers.len()) as u32,
        }
    }

    /// Reports that job `to` needs the value of job `from`, by job number, in either order of their ends.
    pub(in crate::supervisor) fn trace_depends(&self, from: u64, to: u64) {
        if let Some(trace) = &self.trace {
            trace.send(Event::Depends { from, to });
        }
    }

    /// Notes a run that is over, because the job ended or its worker did. Called before the end is reported.
    #[cold]
    pub(in crate::supervisor) fn trace_run(&mut self, lane: usize, position: u64, index: u32) {
        let stamps = self.lanes[lane].producer.stamps(position);
        let place = self.place_of(lane);
        if let Some(trace) = &mut self.trace {
            trace.ran(index, lane, place, stamps);
        }
    }

    /// Reports that a traced job gave a value, with this number of bytes of fresh arrays.
    #[cold]
    pub(in crate::supervisor) fn trace_value(&mut self, index: u32, bytes: u64) {
        self.trace_end(index, bytes, AttemptEnd::Value);
    }

    /// Reports that an attempt gave no value.
    #[cold]
    pub(in crate::supervisor) fn trace_failed(
        &mut self,
        index: u32,
        why: &JobErrorKind,
        crash: Option<&Crash>,
        again: bool,
    ) {
        let has_run = self
            .trace
            .as_ref()
            .is_some_and(|trace| trace.has_run(index));
        let end = if *why == JobErrorKind::Cancelled && !has_run {
            AttemptEnd::Cancelled
        } else {
            AttemptEnd::Failed {
                why: sentence(why),
                crash: crash.map(|crash| Arc::new(crash.clone()) as Arc<dyn Describe>),
                is_retried: again,
            }
        };
        self.trace_end(index, 0, end);
    }

    fn trace_end(&mut self, index: u32, bytes_out: u64, end: AttemptEnd) {
        let Some(trace) = &mut self.trace else { return };
        let record = self.records.at(index);
        let kernel = self.kernels.get(record.kernel).name;
        trace.ended(index, record, kernel, bytes_out, end);
    }

    pub(in crate::supervisor) fn trace_spawned(&mut self, worker: usize) {
        if let Some(trace) = &mut self.trace {
            trace.spawned(worker);
        }
    }

    pub(in crate::supervisor) fn trace_ready(&self, worker: usize) {
        let Some(trace) = &self.trace else { return };
        trace.ready(worker, self.workers[worker].pid());
    }

    /// Reports the answer to a lane's request for output memory.
    ///
    /// `at`: a time before the answer, since the lane continues then.
    pub(in crate::supervisor) fn trace_granted(
        &mut self,
        lane: usize,
        bytes: u64,
        given: bool,
        at: u64,
    ) {
        let requested_at = self.lanes[lane].producer.alloc_requested_at();
        let (place, worker) = (self.place_of(lane), self.lanes.worker_of(lane));
        if let Some(trace) = &mut self.trace {
            trace.granted(lane, worker, place, requested_at, at, (bytes, given));
        }
    }
}
