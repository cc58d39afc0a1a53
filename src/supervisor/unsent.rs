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

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::Shared;
use super::admission::InLine;
use super::core::Core;
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

impl Unsent {
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if it is to be forgotten.
    fn look(&self, shared: &Shared) -> bool {
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
            shared.send_left(&mut calls);
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
}

impl Shared {
    /// Before an iterator runs: has the monitor look after what is written.
    #[inline]
    pub(crate) fn look_after(
        &self,
        unsent: &Arc<Unsent>,
        written: &mut Written,
        kernel: &KernelInfo,
        options: &JobOptions,
    ) {
        if written.len == 0 || written.watched.is_some() {
            return;
        }
        written.watched = Some((*kernel, options.if_set().cloned()));
        written.idle = 0;
        let mut core = self.lock();
        // It may sleep without a limit, unless it looks after others.
        core.call_monitor |= core.unsent.is_empty();
        core.unsent.push(Arc::downgrade(unsent));
        self.unlock(core);
    }

    /// Sends what iterators keep from being sent; to be asked by the monitor, once in a while.
    pub(super) fn look_at_unsent(&self) {
        // Who comes meanwhile, perhaps once more, comes to the end of a new list.
        let mut all = std::mem::take(&mut self.lock().unsent);
        all.retain(|unsent| unsent.upgrade().is_some_and(|unsent| unsent.look(self)));
        self.lock().unsent.append(&mut all);
    }

    /// Sends calls of a map whose iterator runs, as far as they are let in without waiting.
    fn send_left(&self, calls: &mut Written) {
        let Some((kernel, options)) = calls.watched.clone() else {
            return;
        };
        if self.settings.memory.admission == 0 {
            calls
                .all()
                .iter_mut()
                .for_each(|call| self.spill(&mut call.0));
        }
        let mut core = self.lock();
        let mut ids = Vec::new();
        let Written {
            calls: all,
            len,
            line,
            ..
        } = &mut *calls;
        for call in &mut all[..*len] {
            let submit = |core: &mut Core, call: &mut ArgWriter| {
                core.submit(&kernel, call, 0, options.as_ref())
            };
            if core.admission.is_none() {
                ids.push(submit(&mut core, &mut call.0));
            } else if let Some(entry) = core.enter_or_join(&kernel, &call.0, line) {
                let (entered, id) = self.submit_let_in(core, &mut call.0, entry, submit);
                core = entered;
                ids.push(id);
            } else {
                break;
            }
        }
        self.unlock(core);
        calls.were_sent(ids.len());
        calls.sent.append(&mut ids);
    }
}
