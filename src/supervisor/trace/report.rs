//! Sends events to the trace.

use std::sync::Arc;

use super::sentence;
use super::state::Tracing;
use crate::supervisor::error::{Crash, JobErrorKind, WorkerExit};
use crate::supervisor::job_table::JobTable;
use crate::supervisor::kernels::Kernels;
use crate::supervisor::lanes::Lanes;
use crate::supervisor::lifecycle::Closing;
use crate::supervisor::worker::Worker;
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

/// The trace of an engine, if it has one.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Trace(Option<Box<Tracing>>);

impl Trace {
    /// Starts tracing jobs.
    pub(in crate::supervisor) fn begin(&mut self, tracer: Arc<Tracer>, lanes: &Lanes) {
        let tracing = Tracing::new(tracer, lanes.workers(), lanes.len());
        self.0 = Some(Box::new(tracing));
    }

    #[inline]
    pub(in crate::supervisor) fn get(&mut self) -> Option<&mut Tracing> {
        self.0.as_deref_mut()
    }

    #[inline]
    pub(in crate::supervisor) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Reports that the process of a worker has exited. Called before its jobs are requeued or answered.
    pub(in crate::supervisor) fn gone(
        &self,
        index: usize,
        gone: &Worker,
        closing: Closing,
        cause: &JobErrorKind,
    ) {
        let Some(trace) = &self.0 else { return };
        let retired = gone.is_retiring() && *cause == JobErrorKind::Lost(WorkerExit::Code(Some(0)));
        let meant = retired || closing != Closing::No;
        // The supervisor has killed the worker: the kill reason is the cause.
        let why = gone.kill_reasons().first().map_or(cause, |(_, why)| why);
        trace.send(Event::Exited {
            worker: index as u32,
            at: monotonic_ns(),
            why: (!meant).then(|| sentence(why)),
        });
    }

    /// Reports that job `to` needs the value of job `from`, by job number. The jobs may have ended in either order.
    pub(in crate::supervisor) fn depends(&self, from: u64, to: u64) {
        if let Some(trace) = &self.0 {
            trace.send(Event::Depends { from, to });
        }
    }

    /// Records that a run is over, because the job ended or its worker did. Called before the end is reported.
    #[cold]
    pub(in crate::supervisor) fn ran(
        &mut self,
        lanes: &Lanes,
        lane: usize,
        position: u64,
        index: u32,
    ) {
        if let Some(trace) = self.get() {
            let stamps = lanes[lane].producer.stamps(position);
            trace.ran(index, lane, place_of(lanes, lane), stamps);
        }
    }

    /// Reports that an attempt of a job returned a value, with this number of bytes of fresh arrays, if it is traced.
    #[inline]
    pub(in crate::supervisor) fn value(
        &mut self,
        index: u32,
        records: &JobTable,
        kernels: &mut Kernels,
        bytes: u64,
    ) {
        if records.look(index).is_traced() {
            self.ended(index, records, kernels, bytes, AttemptEnd::Value);
        }
    }

    /// Reports that an attempt of a job ended without a value, if it is traced.
    pub(in crate::supervisor) fn failed(
        &mut self,
        index: u32,
        records: &JobTable,
        kernels: &mut Kernels,
        why: &JobErrorKind,
        (crash, is_retried): (Option<&Crash>, bool),
    ) {
        if !records.look(index).is_traced() {
            return;
        }
        let has_run = self.get().is_some_and(|trace| trace.has_run(index));
        let end = if *why == JobErrorKind::Cancelled && !has_run {
            AttemptEnd::Cancelled
        } else {
            AttemptEnd::Failed {
                why: sentence(why),
                crash: crash.map(|crash| Arc::new(crash.clone()) as Arc<dyn Describe>),
                is_retried,
            }
        };
        self.ended(index, records, kernels, 0, end);
    }

    #[cold]
    fn ended(
        &mut self,
        index: u32,
        records: &JobTable,
        kernels: &mut Kernels,
        bytes_out: u64,
        end: AttemptEnd,
    ) {
        let Some(trace) = self.get() else { return };
        let record = records.look(index);
        let kernel = kernels.get(record.kernel).name;
        trace.ended(index, record, kernel, bytes_out, end);
    }

    /// Reports the answer to a lane's request for output memory.
    ///
    /// `at`: a time before the answer was sent, because the lane continues at once.
    pub(in crate::supervisor) fn granted(
        &mut self,
        lanes: &Lanes,
        lane: usize,
        bytes: u64,
        given: bool,
        at: u64,
    ) {
        let requested_at = lanes[lane].producer.alloc_requested_at();
        let (place, worker) = (place_of(lanes, lane), lanes.worker_of(lane));
        if let Some(trace) = self.get() {
            trace.granted(lane, worker, place, requested_at, at, (bytes, given));
        }
    }
}

fn place_of(lanes: &Lanes, lane: usize) -> LaneId {
    LaneId {
        worker: lanes.worker_of(lane) as u32,
        lane: (lane / lanes.workers()) as u32,
    }
}
