//! What the supervisor tells the trace, where an engine has one.
//!
//! A job of a traced engine carries `STAMPED` in its form, which is looked at where the form is anyway; so an engine without a
//! trace pays nothing. What is known of a job on its way lies beside its record, by the same index.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::core::{Closing, Core};
use super::error::JobErrorKind;
use super::record::{Record, Stage};
use crate::kernel::wire::{ArgWriter, Lease};
use crate::link::STAMPED;
use crate::sys::clock::monotonic_ns;
use crate::trace::{Attempt, End, Event, Place, Ran, Tracer};
use crate::worker::fence::TEXT_LIMIT;

/// What is known of a job that is not over. Times of the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    /// Submitted, or failed the last time.
    since: u64,
    /// Given to a worker, the last time.
    placed: u64,
    bytes: u64,
    /// What is known of a run that is over, and when that was seen, until its end is told.
    ran: Option<(Ran, u64)>,
}

/// A traced engine's part of the core.
#[derive(Debug)]
pub(super) struct Tracing {
    tracer: Arc<Tracer>,
    /// By the index of the record.
    open: Vec<Open>,
    /// When the present process of each worker was started.
    spawned: Vec<u64>,
    /// When the last run of each lane ended.
    free_since: Vec<u64>,
    /// When each lane last got what it waited for; at first, when the trace began.
    granted: Vec<u64>,
}

impl Tracing {
    pub(super) fn new(tracer: Arc<Tracer>, workers: usize, lanes: usize) -> Self {
        Self {
            tracer,
            open: Vec::new(),
            spawned: vec![0; workers],
            free_since: vec![0; lanes],
            granted: vec![monotonic_ns(); lanes],
        }
    }

    #[cfg(test)]
    pub(super) fn tracer(&self) -> Arc<Tracer> {
        Arc::clone(&self.tracer)
    }

    /// A job is taken.
    pub(super) fn submitted(&mut self, index: u32, call: &ArgWriter) {
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

    /// A job is about to be posted: what its worker says of it is later than this.
    pub(super) fn placed(&mut self, index: u32) {
        let open = &mut self.open[index as usize];
        open.placed = monotonic_ns();
        open.ran = None;
    }
}

/// The sentence of an error up to the limit of a text. It may be longer, because it may have others in it and spells out
/// what harms a terminal; a trace keeps many of them, and of workers they are put together with the lock held.
pub(crate) fn sentence(why: &JobErrorKind) -> Box<str> {
    struct Cut(String);

    impl fmt::Write for Cut {
        fn write_str(&mut self, more: &str) -> fmt::Result {
            let room = more.floor_char_boundary(TEXT_LIMIT - self.0.len());
            self.0.push_str(&more[..room]);
            // What is full says so, and nothing more is put together.
            (room == more.len()).then_some(()).ok_or(fmt::Error)
        }
    }

    let mut cut = Cut(String::new());
    let _ = write!(cut, "{why}");
    cut.0.into()
}

impl Record {
    /// Its engine has a trace.
    #[inline]
    pub(super) fn is_traced(&self) -> bool {
        self.form & STAMPED != 0
    }
}

impl Core {
    /// From here on jobs are traced.
    pub(super) fn begin_trace(&mut self, tracer: Arc<Tracer>) {
        self.form |= STAMPED;
        self.trace = Some(Box::new(Tracing::new(
            tracer,
            self.workers.len(),
            self.lanes.len(),
        )));
    }

    /// Job `to` needs what job `from` gives: the numbers of two jobs, in either order of their ends.
    pub(super) fn trace_depends(&self, from: u64, to: u64) {
        if let Some(trace) = &self.trace {
            trace.tracer.send(Event::Depends { from, to });
        }
    }

    /// A job has left its slot, because it ended or because its worker did. Before its end is told.
    #[cold]
    pub(super) fn trace_run(&mut self, lane: usize, position: u64, index: u32) {
        let now = monotonic_ns();
        let (began, ended) = self.lanes[lane].producer.stamps(position);
        let place = self.place_of(lane);
        let Some(trace) = &mut self.trace else { return };
        let open = &mut trace.open[index as usize];
        let placed = open.placed;
        // What a worker says counts within the limits of what is known here. A lane runs one job after the other.
        let earliest = placed.max(trace.free_since[lane]);
        let within = |at: u64, from: u64, otherwise| {
            if (from..=now).contains(&at) {
                at
            } else {
                otherwise
            }
        };
        let began = within(began, earliest, earliest.min(now));
        let ended = within(ended, began, now);
        trace.free_since[lane] = ended;
        let ran = Ran {
            place,
            placed,
            began,
            ended,
        };
        open.ran = Some((ran, now));
    }

    /// A traced job gives a value, with so many bytes of fresh arrays.
    #[cold]
    pub(super) fn trace_value(&mut self, index: u32, bytes: u64) {
        self.trace_end(index, bytes, End::Value);
    }

    /// An attempt gave no value.
    #[cold]
    pub(super) fn trace_failed(&mut self, index: u32, why: &JobErrorKind, again: bool) {
        let trace = self.trace.as_ref();
        let has_run = trace.is_some_and(|trace| trace.open[index as usize].ran.is_some());
        let end = if *why == JobErrorKind::Cancelled && !has_run {
            End::Cancelled
        } else {
            End::Failed {
                why: sentence(why),
                again,
            }
        };
        self.trace_end(index, 0, end);
    }

    fn trace_end(&mut self, index: u32, bytes_out: u64, end: End) {
        let Some(trace) = &mut self.trace else { return };
        let record = self.records.at(index);
        let policy = record.policy.as_ref();
        let open = &mut trace.open[index as usize];
        let (ran, over) = open.ran.take().unzip();
        let over = over.unwrap_or_else(monotonic_ns);
        let attempt = Attempt {
            job: record.job,
            label: policy.and_then(|policy| policy.options.label.clone()),
            kernel: self.kernels.get(record.kernel).name,
            attempt: record.attempt,
            since: open.since,
            ran,
            over,
            bytes: (open.bytes, bytes_out),
            end,
        };
        // If it is tried again it waits from here on.
        open.since = over;
        trace.tracer.send(Event::Attempt(attempt));
    }

    /// The handle of a job that no worker has begun is dropped: it leaves without an answer.
    pub(super) fn leave_unrun(&mut self, index: u32) {
        debug_assert!(self.records.look(index).stage != Stage::Answered);
        self.cancelled += 1;
        if self.records.look(index).is_traced() {
            self.trace_failed(index, &JobErrorKind::Cancelled, false);
        }
        self.discharge(index);
        self.records.remove(index);
    }

    pub(super) fn trace_spawned(&mut self, worker: usize) {
        if let Some(trace) = &mut self.trace {
            trace.spawned[worker] = monotonic_ns();
        }
    }

    pub(super) fn trace_ready(&self, worker: usize) {
        let Some(trace) = &self.trace else { return };
        let process = self.workers[worker].process.as_ref();
        trace.tracer.send(Event::Started {
            worker: worker as u32,
            pid: process.map_or(0, |process| process.pidfd.pid().as_raw() as u32),
            from: trace.spawned[worker],
            at: monotonic_ns(),
        });
    }

    /// The process of a worker is gone, before anything about its jobs is put in order.
    pub(super) fn trace_gone(&self, worker: usize, cause: &JobErrorKind) {
        let Some(trace) = &self.trace else { return };
        let gone = &self.workers[worker];
        let retired = gone.retiring && *cause == JobErrorKind::Exited(Some(0));
        let meant = retired || self.closing != Closing::No;
        // It was killed from here: the verdict says why.
        let why = gone.verdicts.first().map_or(cause, |(_, why)| why);
        trace.tracer.send(Event::Gone {
            worker: worker as u32,
            at: monotonic_ns(),
            why: (!meant).then(|| sentence(why)),
        });
    }

    /// The want of a lane for output memory is answered.
    ///
    /// `at`: before it was, since the lane goes on then.
    pub(super) fn trace_granted(&mut self, lane: usize, bytes: u64, given: bool, at: u64) {
        let wanted_at = self.lanes[lane].producer.alloc_requested_at();
        let (place, worker) = (self.place_of(lane), self.worker_of(lane));
        let Some(trace) = &mut self.trace else { return };
        // What a worker says counts within the limits of what is known here. A lane waits for one thing after the other.
        let before = std::mem::replace(&mut trace.granted[lane], at);
        let earliest = before
            .max(trace.free_since[lane])
            .max(trace.spawned[worker]);
        trace.tracer.send(Event::Granted {
            place,
            from: wanted_at.max(earliest).min(at),
            at,
            bytes,
            given,
        });
    }

    fn place_of(&self, lane: usize) -> Place {
        Place {
            worker: self.worker_of(lane) as u32,
            lane: (lane / self.workers.len()) as u32,
        }
    }
}
