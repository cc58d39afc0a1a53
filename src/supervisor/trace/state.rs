//! The trace state of open jobs, and the events that are made from it.

use std::sync::Arc;

use crate::kernel::wire::{ArgWriter, Lease};
use crate::link::STAMPED;
use crate::supervisor::record::Record;
use crate::sys::clock::monotonic_ns;
use crate::trace::{Attempt, AttemptEnd, Event, KernelRun, LaneId, Tracer};

/// The trace state of an open job. Times are from the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    /// When the job was submitted, or its last attempt failed.
    since: u64,
    /// When the job was last posted to a worker.
    placed: u64,
    bytes: u64,
    /// The last run and when its end was drained, until the end is reported.
    ran: Option<(KernelRun, u64)>,
}

/// Trace state of an engine.
#[derive(Debug)]
pub(in crate::supervisor) struct Tracing {
    tracer: Arc<Tracer>,
    /// The state of open jobs, by index of the record.
    open: Vec<Open>,
    /// When the current process of each worker was started.
    spawned: Vec<u64>,
    /// When the last run of each lane ended.
    free_since: Vec<u64>,
    /// When each lane last got the memory that it waited for; initially when the trace began.
    granted: Vec<u64>,
}

impl Tracing {
    pub(in crate::supervisor) fn new(tracer: Arc<Tracer>, workers: usize, lanes: usize) -> Self {
        Self {
            tracer,
            open: Vec::new(),
            spawned: vec![0; workers],
            free_since: vec![0; lanes],
            granted: vec![monotonic_ns(); lanes],
        }
    }

    #[cfg(test)]
    pub(in crate::supervisor) fn tracer(&self) -> Arc<Tracer> {
        Arc::clone(&self.tracer)
    }

    /// Records a submitted job.
    pub(in crate::supervisor) fn submitted(&mut self, index: u32, call: &ArgWriter) {
        let index = index as usize;
        if index >= self.open.len() {
            self.open.resize(index + 1, Open::default());
        }
        self.open[index] = Open {
            since: monotonic_ns(),
            bytes: call.leases.iter().map(Lease::bytes).sum(),
            ..Open::default()
        };
    }

    /// Records that a job is about to be posted. Times that its worker reports are later than this.
    pub(in crate::supervisor) fn placed(&mut self, index: u32) {
        let open = &mut self.open[index as usize];
        open.placed = monotonic_ns();
        open.ran = None;
    }

    /// Records that a run is over, because the job ended or its worker did. Called before the end is reported.
    ///
    /// Times that a worker reports are clamped to the times that the supervisor knows. A lane runs one job after the
    /// other.
    pub(in crate::supervisor) fn ran(
        &mut self,
        index: u32,
        lane: usize,
        place: LaneId,
        (began, ended): (u64, u64),
    ) {
        let now = monotonic_ns();
        let open = &mut self.open[index as usize];
        let placed = open.placed;
        let earliest = placed.max(self.free_since[lane]);
        let within = |at: u64, from: u64, otherwise| {
            if (from..=now).contains(&at) {
                at
            } else {
                otherwise
            }
        };
        let began = within(began, earliest, earliest.min(now));
        let ended = within(ended, began, now);
        self.free_since[lane] = ended;
        let ran = KernelRun {
            lane: place,
            placed,
            began,
            ended,
        };
        open.ran = Some((ran, now));
    }

    /// Returns true if the job has run since it was posted.
    pub(in crate::supervisor) fn has_run(&self, index: u32) -> bool {
        self.open[index as usize].ran.is_some()
    }

    /// Reports the end of an attempt.
    pub(in crate::supervisor) fn ended(
        &mut self,
        index: u32,
        record: &Record,
        kernel: &'static str,
        bytes_out: u64,
        end: AttemptEnd,
    ) {
        let policy = record.policy.as_ref();
        let open = &mut self.open[index as usize];
        let (ran, over) = open.ran.take().unzip();
        let over = over.unwrap_or_else(monotonic_ns);
        let attempt = Attempt {
            job: record.job,
            label: policy.and_then(|policy| policy.options.label.clone()),
            kernel,
            attempt: record.attempt,
            since: open.since,
            ran,
            over,
            bytes_in: open.bytes,
            bytes_out,
            end,
        };
        // The next attempt waits from now on.
        open.since = over;
        self.send(Event::Attempt(attempt));
    }

    /// Records the start of a worker's process.
    pub(in crate::supervisor) fn spawned(&mut self, worker: usize) {
        self.spawned[worker] = monotonic_ns();
    }

    /// Reports that a worker's process is ready.
    pub(in crate::supervisor) fn ready(&self, worker: usize, pid: u32) {
        self.send(Event::Started {
            worker: worker as u32,
            pid,
            from: self.spawned[worker],
            at: monotonic_ns(),
        });
    }

    /// Reports that a lane's request for output memory, made at `requested_at` by its worker's clock, was answered at
    /// `at`.
    ///
    /// Times that a worker reports are clamped to the times that the supervisor knows. A lane makes one request after
    /// the other.
    pub(in crate::supervisor) fn granted(
        &mut self,
        lane: usize,
        worker: usize,
        place: LaneId,
        requested_at: u64,
        at: u64,
        (bytes, given): (u64, bool),
    ) {
        let before = std::mem::replace(&mut self.granted[lane], at);
        let earliest = before.max(self.free_since[lane]).max(self.spawned[worker]);
        self.send(Event::MemoryWait {
            lane: place,
            from: requested_at.max(earliest).min(at),
            at,
            bytes,
            is_granted: given,
        });
    }

    pub(in crate::supervisor) fn send(&self, event: Event) {
        self.tracer.send(event);
    }
}

impl Record {
    /// Returns true if the job belongs to a traced engine.
    #[inline]
    pub(in crate::supervisor) fn is_traced(&self) -> bool {
        self.form & STAMPED != 0
    }
}
