//! Inputs of a call: values of jobs that have not ended, which are written later. See [`Job`](crate::Job) as an
//! argument.

use std::fmt;

use super::failure::Failure;
use super::owned::OwnedParam;
use super::param::CallWriter;
use super::reply::{AnyValue, BadReply, Receiving, Value};
use super::wire::ArgWriter;

/// Reads the value of a job and writes it as an argument.
pub(crate) type Forward = fn(&mut Receiving<'_>, &mut CallWriter) -> Result<(), BadReply>;

/// Reads a value that can be passed for `P`, and writes it as an argument.
pub(crate) fn forward<P: OwnedParam>(
    reply: &mut Receiving<'_>,
    call: &mut CallWriter,
) -> Result<(), BadReply> {
    let value = <P::Value as Value>::receive(reply)?;
    P::send_held(P::from_value(value), call);
    Ok(())
}

/// A value of a job that a call lacks.
#[derive(Clone, Copy)]
pub(crate) struct Input {
    /// The job, as the supervisor names it.
    pub(crate) job: u64,
    pub(crate) forward: Forward,
    /// The number of words and of leases of the call before this value.
    word: usize,
    lease: usize,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("job", &self.job)
            .field("word", &self.word)
            .finish_non_exhaustive()
    }
}

/// What a call takes from other jobs.
#[derive(Default)]
pub(crate) struct Inputs {
    pub(crate) open: Vec<Input>,
    /// Handles of jobs that were passed by value. Dropped when the call has been submitted, without the lock.
    pub(crate) handles: Vec<AnyValue>,
    /// Why an argument has no value, in a type of the engine.
    pub(crate) failed: Option<AnyValue>,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.open.fmt(f)
    }
}

impl CallWriter {
    /// Leaves the value of a job to be written later, as an argument for `P`.
    pub(crate) fn input<P: OwnedParam>(&mut self, job: u64) {
        self.input_by(job, forward::<P>);
    }

    /// Leaves the value of a job to be written later, by this function.
    pub(crate) fn input_by(&mut self, job: u64, forward: Forward) {
        let call = &mut self.0;
        let input = Input {
            job,
            forward,
            word: call.words().len(),
            lease: call.leases.len(),
        };
        call.inputs_mut().open.push(input);
    }

    /// Keeps a handle until the call has been submitted.
    pub(crate) fn keep(&mut self, handle: AnyValue) {
        self.0.inputs_mut().handles.push(handle);
    }

    /// Notes why an argument has no value.
    pub(crate) fn fail(&mut self, why: AnyValue) {
        self.0.inputs_mut().failed.get_or_insert(why);
    }
}

impl ArgWriter {
    fn inputs_mut(&mut self) -> &mut Inputs {
        self.inputs.get_or_insert_default()
    }

    /// Returns the values of jobs that this call lacks.
    #[inline]
    pub(crate) fn open_inputs(&self) -> &[Input] {
        self.inputs.as_ref().map_or(&[], |inputs| &inputs.open)
    }

    /// Moves this call into `to`. `write` writes each value that it lacks.
    pub(crate) fn complete(
        mut self,
        to: &mut CallWriter,
        mut write: impl FnMut(Input, &mut CallWriter),
    ) {
        let inputs = self.inputs.take().unwrap_or_default().open;
        let mut leases = std::mem::take(&mut self.leases).into_iter();
        let (mut word, mut lease) = (0, 0);
        for input in inputs {
            to.0.extend(&self.words()[word..input.word]);
            to.0.leases
                .extend(leases.by_ref().take(input.lease - lease));
            (word, lease) = (input.word, input.lease);
            write(input, to);
        }
        to.0.extend(&self.words()[word..]);
        to.0.leases.extend(leases);
        to.0.foreign |= self.foreign;
        to.0.exclusive |= self.exclusive;
        to.0.once |= self.once;
        to.0.full = to.0.full.or(self.full);
    }
}

/// Returns the failure of a call that runs inline, if an argument has no value.
pub(crate) fn no_value(why: Option<AnyValue>) -> Result<(), Failure> {
    why.map_or(Ok(()), |why| Err(Failure::NoInput(why)))
}
