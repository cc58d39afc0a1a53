//! Jobs that take the values of other jobs, their *inputs*.
//!
//! The call of such a job lacks these values. It waits in the job's record until the last input has ended. Then
//! each value is read from the record of its job and written like any argument, so it never leaves the arena, and the
//! job is entered like any other. The record of an input stays until its last use and its handle are gone.
//!
//! A job can only name jobs that were submitted before it, so there are no cycles.

use super::depend::EndNotice;
use super::depend::limits::MAX_ENDS;
use super::error::{Because, Failed, JobError, JobErrorKind};
use super::options::JobOptions;
use super::record::{Handle, JobId, OpenCall, Outcome, Stage};
use super::reply::read_guarded;
use super::state::EngineState;
use super::submit::{Refusal, too_late};
use crate::kernel::wire::{ArgWriter, ReplyReader, WordReader};
use crate::kernel::{CallWriter, Input, Inputs, Receiving};

/// The name of a job whose handle was dropped before the job that takes its value was submitted.
const DROPPED: &str = "a job whose handle was dropped";

impl EngineState {
    /// Enters a job that takes values of other jobs, once these have ended.
    #[cold]
    pub(super) fn enter_with_inputs(
        &mut self,
        id: JobId,
        call: &mut ArgWriter,
        refusal: Refusal,
        options: Option<&JobOptions>,
    ) {
        let failed = call.inputs.as_mut().and_then(|inputs| inputs.failed.take());
        if let Some(why) = refusal.or_else(|| options.and_then(too_late)) {
            return self.fail(id.index, *why, None, Vec::new());
        }
        if let Some(why) = failed {
            return self.fail(id.index, Because::of_no_value(why), None, Vec::new());
        }
        let job = self.records.look(id.index).job;
        let mut open = 0;
        let mut failed = None;
        for input in call.open_inputs() {
            let source = JobId::from_bits(input.job);
            let Some(record) = self.records.find(source) else {
                // The handle was dropped between the call and its submission.
                failed
                    .get_or_insert_with(|| Failed::new(JobErrorKind::Cancelled, DROPPED, 0).into());
                continue;
            };
            record.link().uses += 1;
            if self.trace.is_on() {
                self.trace.depends(record.job, job);
            }
            if record.is_open() {
                record.link().consumers.push(id);
                record.parked = true;
                self.lanes.want_notice(source, &mut self.records);
                open += 1;
            } else if let Some(Outcome::Failed(error)) = &record.outcome {
                failed.get_or_insert_with(|| error.clone());
            }
        }
        let arena = call.arena();
        let mut open_call = std::mem::replace(call, ArgWriter::new(arena));
        // The caller drops the handles without the lock. The claims keep the jobs.
        call.inputs = open_call.inputs.as_mut().map(|inputs| {
            let handles = std::mem::take(&mut inputs.handles);
            Box::new(Inputs {
                handles,
                ..Inputs::default()
            })
        });
        let call = open_call;
        let record = self.records.at(id.index);
        // The end of the job gives back what it claims.
        record.parked = true;
        record.link().call = Some(Box::new(OpenCall { call, open }));
        let actor = record.owner.actor();
        if actor.is_none() {
            record.stage = Stage::Waiting;
        }
        self.runs.open_calls += 1;
        crate::sync::point!("input.waits");
        if let Some(error) = failed {
            self.fail(id.index, error.of_input(), None, Vec::new());
        } else if open == 0 {
            self.begin_with_inputs(id, false);
        } else {
            if let Some(actor) = actor {
                // The call keeps its place among the calls of the actor.
                self.queue_call(actor, id.index);
            }
            // A job may have ended before the request for notice.
            self.catch_up();
            self.monitor.watch_memory();
        }
    }

    /// Notifies jobs that one of their inputs has ended. Returns their number.
    pub(super) fn input_ended(&mut self, id: JobId) -> usize {
        let Some(record) = self.records.find(id) else {
            return 1;
        };
        let failed = match &record.outcome {
            Some(Outcome::Failed(error)) => Some(error.clone()),
            _ => None,
        };
        let consumers = &mut record.link().consumers;
        let rest = consumers.split_off(consumers.len().min(MAX_ENDS));
        let notified = std::mem::replace(consumers, rest);
        if !consumers.is_empty() {
            self.runs.add_notice(EndNotice::Input { job: id });
        }
        for &consumer in &notified {
            let call = self.records.find(consumer).and_then(|record| {
                let link = record.link.as_mut()?;
                link.call.as_mut()
            });
            match (call, &failed) {
                (None, _) => {}
                (Some(_), Some(error)) => {
                    self.leave_line(consumer.index);
                    self.fail(consumer.index, error.of_input(), None, Vec::new());
                }
                (Some(call), None) => {
                    call.open -= 1;
                    if call.open == 0 {
                        self.begin_with_inputs(consumer, true);
                    }
                }
            }
        }
        notified.len().max(1)
    }

    /// Removes a call of an actor from the actor's line.
    fn leave_line(&mut self, index: u32) {
        if self.records.look(index).owner.actor().is_some() {
            self.queue.give_up(index, &self.records);
        }
    }

    /// Completes the call of a job whose inputs have ended, and enters the job. `has_waited`: a call of an actor is in
    /// the actor's line.
    fn begin_with_inputs(&mut self, id: JobId, has_waited: bool) {
        let Some(open) = self.take_open_call(id.index) else {
            return;
        };
        let mut call = CallWriter(ArgWriter::new(open.arena()));
        let mut unread = None;
        open.complete(&mut call, |input, call| {
            if let Err(error) = self.take_input(input, call) {
                unread.get_or_insert(error);
            }
        });
        let record = self.records.at(id.index);
        record.stage = Stage::Queued;
        let options = record.policy.as_ref().map(|policy| policy.options.clone());
        let actor = record.owner.actor();
        let refusal = match unread {
            Some(error) => Err(error),
            None => Ok(self.write_call(id.index, &mut call.0)),
        };
        crate::sync::point!("input.taken");
        match (refusal, actor) {
            (Ok(refusal), None) => self.enter(id.index, refusal, options.as_ref()),
            (Ok(None), Some(actor)) if has_waited => self.look_at_calls(actor),
            (Ok(None), Some(actor)) => self.enter_call(actor, id.index),
            (failed, _) => {
                if has_waited {
                    self.leave_line(id.index);
                }
                match failed {
                    Ok(why) => self.fail(id.index, *why.expect("it is refused"), None, Vec::new()),
                    Err(error) => {
                        self.count_failed(id.index, error.kind(), None);
                        self.answer(id.index, Outcome::Failed(error));
                    }
                }
            }
        }
    }

    fn take_open_call(&mut self, index: u32) -> Option<ArgWriter> {
        let open = self.records.at(index).link.as_mut()?.call.take()?;
        self.runs.open_calls -= 1;
        Some(open.call)
    }

    /// Writes the value of an input into a call.
    fn take_input(&mut self, input: Input, call: &mut CallWriter) -> Result<(), JobError> {
        let source = JobId::from_bits(input.job);
        let record = self.records.get(source);
        let link = record.link();
        let is_last = link.uses == 1 && link.handle != Handle::Kept;
        let arrays = record.take_arrays(is_last);
        let copied = match &record.outcome {
            Some(Outcome::InArena(words)) => {
                Some(self.arena.copy_words(words.extent()).unwrap_or_default())
            }
            _ => None,
        };
        let words = WordReader::new(copied.as_deref().unwrap_or_else(|| record.value()));
        let arrays = arrays.into_iter();
        let mut reply = Receiving(ReplyReader { words, arrays });
        let read = read_guarded(|| (input.forward)(&mut reply, call));
        let read = read.map_err(|why| self.not_read(source.index, why));
        self.release_input(source);
        read
    }

    /// Ends the claims of a job that will not begin on the values of others.
    pub(super) fn release_inputs(&mut self, index: u32) {
        let Some(call) = self.take_open_call(index) else {
            return;
        };
        if let Some(actor) = self.records.look(index).owner.actor() {
            self.runs.add_notice(EndNotice::Call { actor });
        }
        for input in call.open_inputs() {
            self.release_input(JobId::from_bits(input.job));
        }
    }

    /// Ends one claim on the value of a job. Frees the value after the last claim, if no handle is left.
    fn release_input(&mut self, source: JobId) {
        let Some(record) = self.records.find(source) else {
            return;
        };
        let link = record.link();
        link.uses = link.uses.saturating_sub(1);
        if link.uses > 0 {
            return;
        }
        match (link.handle, record.is_open()) {
            (Handle::Kept, _) => {}
            (_, false) => self.records.remove(source.index),
            (Handle::Detached, true) => record.owner = record.owner.without_handle(),
            // No one takes the value any more.
            (Handle::Dropped, true) => self.runs.add_notice(EndNotice::Unused { job: source }),
        }
    }

    /// Gives up a handle whose job has ended. The record stays for the jobs that take the value.
    #[inline]
    pub(super) fn release_handle(&mut self, index: u32) {
        if !self.records.at(index).leave_to_consumers(Handle::Detached) {
            self.records.remove(index);
        }
    }

    /// Abandons a job whose value no one will take.
    pub(super) fn input_unused(&mut self, id: JobId) {
        if self.records.is_open(id) {
            // The waker went with the handle.
            drop(self.abandon(id));
        } else if self.records.find(id).is_some() {
            self.records.remove(id.index);
        }
    }
}
