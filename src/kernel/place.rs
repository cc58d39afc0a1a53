//! Places in a call for the values of jobs that have not ended: see [`Job`](crate::Job) as an argument.

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

/// A place in a call for the value of a job.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The job, as the supervisor names it.
    pub(crate) job: u64,
    pub(crate) forward: Forward,
    /// The number of words and of leases of the call before this place.
    word: usize,
    lease: usize,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("job", &self.job)
            .field("word", &self.word)
            .finish_non_exhaustive()
    }
}

/// What a call takes from other jobs.
#[derive(Default)]
pub(crate) struct Inputs {
    pub(crate) places: Vec<Place>,
    /// Handles of jobs that were passed by value. Dropped when the call has been submitted, without the lock.
    pub(crate) handles: Vec<AnyValue>,
    /// Why an argument has no value, in a type of the engine.
    pub(crate) failed: Option<AnyValue>,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.places.fmt(f)
    }
}

impl CallWriter {
    /// Leaves a place for the value of a job.
    pub(crate) fn place<P: OwnedParam>(&mut self, job: u64) {
        let call = &mut self.0;
        let place = Place {
            job,
            forward: forward::<P>,
            word: call.words().len(),
            lease: call.leases.len(),
        };
        call.inputs_mut().places.push(place);
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

    /// Returns the places that this call has for values of jobs.
    #[inline]
    pub(crate) fn places(&self) -> &[Place] {
        self.inputs.as_ref().map_or(&[], |inputs| &inputs.places)
    }

    /// Moves this call into `to`. `write` writes the value for each place.
    pub(crate) fn complete(
        mut self,
        to: &mut CallWriter,
        mut write: impl FnMut(Place, &mut CallWriter),
    ) {
        let places = self.inputs.take().unwrap_or_default().places;
        let mut leases = std::mem::take(&mut self.leases).into_iter();
        let (mut word, mut lease) = (0, 0);
        for place in places {
            to.0.extend(&self.words()[word..place.word]);
            to.0.leases
                .extend(leases.by_ref().take(place.lease - lease));
            (word, lease) = (place.word, place.lease);
            write(place, to);
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
