//! The pending calls of one map.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use crate::kernel::wire::ArgWriter;
use crate::kernel::{CallWriter, KernelInfo};
use crate::supervisor::admission::LineTicket;
use crate::supervisor::options::JobOptions;
use crate::supervisor::record::JobId;

/// The number of checks without new calls after which the monitor stops watching a batch.
const IDLE_LOOKS: u32 = 10;

/// The pending calls of one map, which the monitor can also access.
#[derive(Debug, Default)]
pub(crate) struct PendingBatch(Mutex<PendingCalls>);

#[derive(Debug, Default)]
pub(crate) struct PendingCalls {
    /// The first `len` entries are written calls; the others are memory for more calls.
    calls: Vec<CallWriter>,
    len: usize,
    /// Number of calls that were ever written.
    count: u64,
    /// The jobs that the monitor has submitted from the first calls, in order.
    sent: Vec<JobId>,
    /// Whether the map asks for items. If another thread can lock the batch meanwhile, the map's iterator runs.
    is_asking: bool,
    /// The ticket in admission's line that the monitor has drawn for the first call.
    line: LineTicket,
    /// Kernel and job options for submitting. Set while the monitor watches the batch.
    watched: Option<(KernelInfo, Option<JobOptions>)>,
    /// The value of `count` at the monitor's last check.
    seen: u64,
    /// The number of consecutive checks that found nothing to submit.
    idle: u32,
}

/// The batches that the monitor watches.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct PendingBatches(Vec<Weak<PendingBatch>>);

impl PendingBatches {
    pub(in crate::supervisor) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, batch: &Arc<PendingBatch>) {
        self.0.push(Arc::downgrade(batch));
    }

    /// Takes all batches, to check them without the engine's lock.
    pub(super) fn take(&mut self) -> Vec<Weak<PendingBatch>> {
        std::mem::take(&mut self.0)
    }

    /// Puts back the taken batches, after batches that were added in the meantime.
    pub(super) fn put_back(&mut self, mut batches: Vec<Weak<PendingBatch>>) {
        self.0.append(&mut batches);
    }
}

impl PendingBatch {
    /// Calls `send` if no call was added since the last check. Returns false if the monitor should stop watching the
    /// batch.
    pub(super) fn look(&self, send: impl FnOnce(&mut PendingCalls)) -> bool {
        let mut calls = match self.0.try_lock() {
            Ok(calls) => calls,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // The map has the lock and submits its calls itself.
            Err(TryLockError::WouldBlock) => return true,
        };
        if !calls.is_asking || calls.len == 0 {
            calls.idle += 1;
            if calls.idle < IDLE_LOOKS {
                return true;
            }
            calls.watched = None;
            return false;
        }
        calls.idle = 0;
        // A batch in admission's line tries at each check, because others wait behind it.
        if calls.count == calls.seen || calls.line.is_in() {
            send(&mut calls);
        }
        calls.seen = calls.count;
        true
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, PendingCalls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingCalls {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of calls that the map does not count among its jobs yet: written, or submitted by the
    /// monitor.
    pub(crate) fn uncounted(&self) -> usize {
        self.len + self.sent.len()
    }

    /// Returns the written calls.
    pub(crate) fn all(&mut self) -> &mut [CallWriter] {
        &mut self.calls[..self.len]
    }

    /// Adds a call.
    #[inline]
    pub(crate) fn add(&mut self, arena: impl FnOnce() -> u64, write: impl FnOnce(&mut CallWriter)) {
        if self.len == self.calls.len() {
            self.calls.push(CallWriter(ArgWriter::new(arena())));
        }
        let call = &mut self.calls[self.len];
        call.0.reset();
        // Counted only after it is complete.
        write(call);
        self.len += 1;
        self.count += 1;
    }

    /// Removes the first calls, which were submitted. Their memory is reused, except for long texts.
    pub(crate) fn remove_sent(&mut self, sent: usize) {
        self.calls[..sent]
            .iter_mut()
            .for_each(|call| call.0.shrink());
        self.calls[..self.len].rotate_left(sent);
        self.len -= sent;
    }

    /// Discards all written calls.
    pub(crate) fn forget(&mut self) {
        // This also frees the memory and leases of the calls.
        self.calls.clear();
        self.len = 0;
    }

    /// Called when the map begins to ask for items, with these job options.
    pub(crate) fn begin(&mut self, options: &JobOptions) {
        self.is_asking = true;
        if let Some((_, watched_options)) = &mut self.watched {
            *watched_options = options.if_set().cloned();
        }
    }

    /// Called when the map has its items and submits them. Returns the ticket in admission's line that the monitor has
    /// drawn: the map leaves the line.
    pub(crate) fn end(&mut self) -> &mut LineTicket {
        self.is_asking = false;
        &mut self.line
    }

    /// Returns true if the monitor has submitted calls.
    #[inline]
    pub(crate) fn has_sent(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Takes the jobs that the monitor has submitted from the first calls.
    pub(crate) fn sent(&mut self) -> std::vec::Drain<'_, JobId> {
        self.sent.drain(..)
    }

    /// Lets the monitor watch the written calls. Returns false if there are none, or the monitor already watches the
    /// batch.
    pub(super) fn leave_to_monitor(&mut self, kernel: &KernelInfo, options: &JobOptions) -> bool {
        if self.len == 0 || self.watched.is_some() {
            return false;
        }
        self.watched = Some((*kernel, options.if_set().cloned()));
        self.idle = 0;
        true
    }

    /// Returns what the monitor needs to submit the calls: kernel, job options, calls, and the ticket in admission's
    /// line.
    pub(super) fn unsent_calls(
        &mut self,
    ) -> Option<(
        KernelInfo,
        Option<JobOptions>,
        &mut [CallWriter],
        &mut LineTicket,
    )> {
        let (kernel, options) = self.watched.clone()?;
        Some((kernel, options, &mut self.calls[..self.len], &mut self.line))
    }

    /// Records that the monitor has submitted the first calls as these jobs.
    pub(super) fn sent_as(&mut self, mut ids: Vec<JobId>) {
        self.remove_sent(ids.len());
        self.sent.append(&mut ids);
    }
}
