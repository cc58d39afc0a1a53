//! The monitor sends what the iterator of a map keeps from being sent.

use std::sync::Arc;

use super::options::JobOptions;
use super::shared::Supervisor;
use super::state::EngineState;
use super::unsent::{Unsent, Written};
use crate::kernel::KernelInfo;
use crate::kernel::wire::ArgWriter;

impl Supervisor {
    /// Before an iterator runs: has the monitor look after what is written.
    #[inline]
    pub(crate) fn look_after(
        &self,
        unsent: &Arc<Unsent>,
        written: &mut Written,
        kernel: &KernelInfo,
        options: &JobOptions,
    ) {
        if !written.leave_to_monitor(kernel, options) {
            return;
        }
        let mut state = self.lock();
        // It may sleep without a limit, unless it looks after others.
        let is_first = state.unsent.is_empty();
        state.monitor.call_if(is_first);
        state.unsent.add(unsent);
        self.unlock(state);
    }

    /// Sends what iterators keep from being sent; to be asked by the monitor, once in a while.
    pub(super) fn look_at_unsent(&self) {
        // Who comes meanwhile, perhaps once more, comes to the end of a new list.
        let mut all = self.lock().unsent.take();
        all.retain(|unsent| {
            unsent
                .upgrade()
                .is_some_and(|unsent| unsent.look(|calls| self.send_left(calls)))
        });
        self.lock().unsent.put_back(all);
    }

    /// Sends calls of a map whose iterator runs, as far as they are let in without waiting.
    fn send_left(&self, calls: &mut Written) {
        let Some((kernel, options, left, line)) = calls.left() else {
            return;
        };
        if !self.has_ceiling() {
            left.iter_mut().for_each(|call| self.spill(&mut call.0));
        }
        let mut state = self.lock();
        let mut ids = Vec::new();
        for call in left {
            let submit = |state: &mut EngineState, call: &mut ArgWriter| {
                state.submit(&kernel, call, 0, options.as_ref())
            };
            if state.admission.is_none() {
                ids.push(submit(&mut state, &mut call.0));
            } else if let Some(entry) = state.enter_or_join(&kernel, &call.0, line) {
                let (entered, id) = self.submit_let_in(state, &mut call.0, entry, submit);
                state = entered;
                ids.push(id);
            } else {
                break;
            }
        }
        self.unlock(state);
        calls.were_sent_as(ids);
    }
}
