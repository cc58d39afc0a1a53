//! What the supervisor tells the trace, where an engine has one.
//!
//! A job of a traced engine carries `STAMPED` in its form, which is looked at where the form is anyway; so an engine without a
//! trace pays nothing. What is known of a job on its way lies beside its record, by the same index.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::error::JobErrorKind;
use super::record::Record;
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

    /// A job has left its slot, because it ended or because its worker did; before its end is reported.
    ///
    /// What a worker says counts within the limits of what is known here. A lane runs one job after the other.
    pub(super) fn ran(
        &mut self,
        index: u32,
        lane: usize,
        place: Place,
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
        let ran = Ran {
            place,
            placed,
            began,
            ended,
        };
        open.ran = Some((ran, now));
    }

    /// Has this job run since it was placed?
    pub(super) fn has_run(&self, index: u32) -> bool {
        self.open[index as usize].ran.is_some()
    }

    /// An attempt has ended.
    pub(super) fn ended(
        &mut self,
        index: u32,
        record: &Record,
        kernel: &'static str,
        bytes_out: u64,
        end: End,
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
            bytes: (open.bytes, bytes_out),
            end,
        };
        // If it is tried again it waits from here on.
        open.since = over;
        self.send(Event::Attempt(attempt));
    }

    /// The process of a worker was started.
    pub(super) fn spawned(&mut self, worker: usize) {
        self.spawned[worker] = monotonic_ns();
    }

    /// The process of a worker is ready.
    pub(super) fn ready(&self, worker: usize, pid: u32) {
        self.send(Event::Started {
            worker: worker as u32,
            pid,
            from: self.spawned[worker],
            at: monotonic_ns(),
        });
    }

    /// A lane's request for output memory, made at `wanted_at` as its worker says, was answered at `at`.
    ///
    /// What a worker says counts within the limits of what is known here. A lane waits for one thing after the other.
    pub(super) fn granted(
        &mut self,
        lane: usize,
        worker: usize,
        place: Place,
        wanted_at: u64,
        at: u64,
        (bytes, given): (u64, bool),
    ) {
        let before = std::mem::replace(&mut self.granted[lane], at);
        let earliest = before.max(self.free_since[lane]).max(self.spawned[worker]);
        self.send(Event::Granted {
            place,
            from: wanted_at.max(earliest).min(at),
            at,
            bytes,
            given,
        });
    }

    pub(super) fn send(&self, event: Event) {
        self.tracer.send(event);
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
