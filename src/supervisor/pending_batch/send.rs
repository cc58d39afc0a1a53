//! Submits calls of a map whose iterator does not return.

use std::sync::Arc;

use super::calls::{PendingBatch, PendingCalls};
use crate::kernel::KernelInfo;
use crate::supervisor::options::JobOptions;
use crate::supervisor::owner::Owner;
use crate::supervisor::shared::Supervisor;

impl Supervisor {
    /// Makes the monitor watch the written calls. Called each time before the iterator runs.
    #[inline]
    pub(crate) fn watch_pending(
        &self,
        batch: &Arc<PendingBatch>,
        calls: &mut PendingCalls,
        kernel: &KernelInfo,
        options: &JobOptions,
    ) {
        if !calls.leave_to_monitor(kernel, options) {
            return;
        }
        let mut state = self.lock();
        // The monitor may sleep without a limit, unless it watches other batches.
        let is_first = state.pending_batches.is_empty();
        state.monitor.call_if(is_first);
        state.pending_batches.add(batch);
        self.unlock(state);
    }

    /// Submits the calls of stalled batches. The monitor calls this regularly.
    pub(in crate::supervisor) fn send_stalled_batches(&self) {
        let mut all = self.lock().pending_batches.take();
        all.retain(|batch| {
            batch
                .upgrade()
                .is_some_and(|batch| batch.look(|calls| self.send_stalled(calls)))
        });
        self.lock().pending_batches.put_back(all);
    }

    /// Submits the calls of a map whose iterator runs, as far as admission allows without waiting.
    fn send_stalled(&self, calls: &mut PendingCalls) {
        let Some((kernel, options, written, line)) = calls.unsent_calls() else {
            return;
        };
        if !self.has_ceiling() {
            written.iter_mut().for_each(|call| self.spill(&mut call.0));
        }
        let mut state = self.lock();
        let mut ids = Vec::new();
        for call in written {
            let (call, owner, options) = (&mut call.0, Owner::Handle, options.as_ref());
            if state.admission.is_none() {
                ids.push(state.submit(&kernel, call, owner, options));
            } else if let Some(admitted) = state.admit_or_join(&kernel, call, line) {
                let (entered, id) = self.submit_with_admission(
                    state,
                    &kernel,
                    call,
                    owner.into(),
                    options,
                    admitted,
                );
                state = entered;
                ids.push(id);
            } else {
                break;
            }
        }
        self.unlock(state);
        calls.sent_as(ids);
    }
}
