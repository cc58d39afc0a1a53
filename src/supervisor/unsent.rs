//! Calls that a map has written and not sent.
//!
//! A map that gets its items at once writes many calls before it sends them: one lock for all is much less work. But its iterator
//! is the program's own code, which may take any time over the next item, and may even wait for what becomes of these very
//! calls. So while it runs, they lie where the monitor finds them. It looks a hundred times a second; if none has come since the
//! last look, it sends what there is.
//!
//! Where there is a ceiling for jobs in flight, what is not let in stands in the line like everybody, until the iterator comes back:
//! from then on the map looks after it, which may itself not be asked for long.
//!
//! The map holds the lock while it asks for items (`asking`), and lets go of it only while the iterator runs. Then the monitor may
//! take it; the map finds in `sent` what jobs have been made of the first calls. Locks are taken in the order calls, core.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use super::admission::account::InLine;
use super::options::JobOptions;
use super::record::JobId;
use crate::kernel::wire::ArgWriter;
use crate::kernel::{CallWriter, KernelInfo};

/// How often the monitor looks at them.
pub(super) const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// It forgets calls that nobody has left to it for so many looks.
const IDLE_LOOKS: u32 = 10;

/// The calls of one map.
#[derive(Debug, Default)]
pub(crate) struct Unsent(Mutex<Written>);

#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Those that are written, and behind them memory to write more into.
    calls: Vec<CallWriter>,
    len: usize,
    /// Calls that were ever written.
    count: u64,
    /// Jobs that the monitor has made of the first calls, in order.
    sent: Vec<JobId>,
    /// The map asks for items: who can have the lock finds the iterator running.
    asking: bool,
    /// The place of the first one in the line for admission, which the monitor has taken.
    line: InLine,
    /// What to send them as; if the monitor knows of them.
    watched: Option<(KernelInfo, Option<JobOptions>)>,
    /// The count when the monitor looked last, and for how many looks there was nothing to do.
    seen: u64,
    idle: u32,
}

/// The calls that the monitor looks after.
#[derive(Debug, Default)]
pub(super) struct UnsentCalls(Vec<Weak<Unsent>>);

impl UnsentCalls {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, unsent: &Arc<Unsent>) {
        self.0.push(Arc::downgrade(unsent));
    }

    /// Takes all, to look at them without the lock.
    pub(super) fn take(&mut self) -> Vec<Weak<Unsent>> {
        std::mem::take(&mut self.0)
    }

    /// Puts back what was taken, behind what came meanwhile.
    pub(super) fn put_back(&mut self, mut unsent: Vec<Weak<Unsent>>) {
        self.0.append(&mut unsent);
    }
}

impl Unsent {
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if it is to be forgotten.
    pub(super) fn look(&self, send: impl FnOnce(&mut Written)) -> bool {
        let mut calls = match self.0.try_lock() {
            Ok(calls) => calls,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // With the map, which goes on.
            Err(TryLockError::WouldBlock) => return true,
        };
        if !calls.asking || calls.len == 0 {
            calls.idle += 1;
            if calls.idle < IDLE_LOOKS {
                return true;
            }
            calls.watched = None;
            return false;
        }
        calls.idle = 0;
        // Who stands in the line looks each time: others stand behind.
        if calls.count == calls.seen || calls.line.is_in() {
            send(&mut calls);
        }
        calls.seen = calls.count;
        true
    }
}

impl Written {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Written, and sent by the monitor: what the map does not count among its jobs yet.
    pub(crate) fn ahead(&self) -> usize {
        self.len + self.sent.len()
    }

    /// The calls that are written.
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
        // It counts when it is whole.
        write(call);
        self.len += 1;
        self.count += 1;
    }

    /// The first calls are with the engine: their memory comes behind those that are not, without long texts.
    pub(crate) fn were_sent(&mut self, sent: usize) {
        self.calls[..sent]
            .iter_mut()
            .for_each(|call| call.0.shrink());
        self.calls[..self.len].rotate_left(sent);
        self.len -= sent;
    }

    /// Nothing of them is to be sent.
    pub(crate) fn forget(&mut self) {
        // With what they hold.
        self.calls.clear();
        self.len = 0;
    }

    /// The map begins to ask for items, whose jobs are sent on these options.
    pub(crate) fn begin(&mut self, options: &JobOptions) {
        self.asking = true;
        if let Some((_, told)) = &mut self.watched {
            *told = options.if_set().cloned();
        }
    }

    /// The map has what there is, and sends it. The place that the monitor has taken in the line, to be left.
    pub(crate) fn end(&mut self) -> &mut InLine {
        self.asking = false;
        &mut self.line
    }

    /// Whether the monitor has sent calls.
    #[inline]
    pub(crate) fn has_sent(&self) -> bool {
        !self.sent.is_empty()
    }

    /// The jobs that the monitor has made of the first calls since this was asked last.
    pub(crate) fn sent(&mut self) -> std::vec::Drain<'_, JobId> {
        self.sent.drain(..)
    }

    /// Leaves the calls to the monitor. False if there are none, or it has them already.
    pub(super) fn leave_to_monitor(&mut self, kernel: &KernelInfo, options: &JobOptions) -> bool {
        if self.len == 0 || self.watched.is_some() {
            return false;
        }
        self.watched = Some((*kernel, options.if_set().cloned()));
        self.idle = 0;
        true
    }

    /// What the monitor sends: the kernel and the options, the calls, and their place in the line for admission.
    pub(super) fn left(
        &mut self,
    ) -> Option<(
        KernelInfo,
        Option<JobOptions>,
        &mut [CallWriter],
        &mut InLine,
    )> {
        let (kernel, options) = self.watched.clone()?;
        Some((kernel, options, &mut self.calls[..self.len], &mut self.line))
    }

    /// The monitor has made these jobs of the first calls.
    pub(super) fn were_sent_as(&mut self, mut jobs: Vec<JobId>) {
        self.were_sent(jobs.len());
        self.sent.append(&mut jobs);
    }
}
