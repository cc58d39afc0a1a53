//! Jobs as arguments of other jobs.

use super::{Job, State};
use crate::array::{Array, ArrayMut, Element};
use crate::kernel::raw::{self, Buffer};
use crate::kernel::{AnyValue, Arg, Bytes, CallWriter, OwnedParam, RetrySafe, Scalar};
use crate::supervisor::{Because, JobError, JobErrorKind, Rejection};

const TAKEN: &str = "the value of this job was taken before";

impl<R: Send + 'static> Job<R> {
    /// Writes the value of the job as an argument for `P`, or leaves it to be written later.
    fn send_to<P: OwnedParam<Value = R>>(&self, call: &mut CallWriter) {
        match &self.state {
            State::Sent { shared, id, .. } if shared.arena.id() == call.0.arena() => {
                call.input::<P>(id.to_bits());
            }
            State::Sent { .. } => call.fail(Box::new(foreign())),
            State::Ended(result) => match &**result {
                Ok(value) => P::send_held(P::from_value(P::share(value).expect(ONCE)), call),
                Err(error) => call.fail(Box::new(error.of_input())),
            },
            State::Taken => panic!("{TAKEN}"),
        }
    }

    /// Returns the value of a job that ran on this thread.
    fn held<P: OwnedParam<Value = R>>(&self) -> P::Held {
        match &self.state {
            State::Ended(result) => {
                let shared = (**result).as_ref().ok().and_then(|value| P::share(value));
                P::from_value(shared.expect(ONCE))
            }
            State::Sent { .. } | State::Taken => panic!("{TAKEN}"),
        }
    }

    /// Returns why the job has no value on this thread.
    fn why_none(&self) -> Option<AnyValue> {
        let why = match &self.state {
            State::Ended(result) => (**result).as_ref().err()?.of_input(),
            // The job of an engine with workers, passed to an inline engine.
            State::Sent { .. } => foreign(),
            State::Taken => panic!("{TAKEN}"),
        };
        Some(Box::new(why))
    }
}

fn foreign() -> Because {
    JobErrorKind::Rejected(Rejection::ForeignJob).into()
}

impl<'a> Buffer<'a> {
    /// Lets the job take the value of another job of the same engine, once that has ended.
    ///
    /// ```
    /// use arenite::raw::{Buffer, Buffers, Received, Value};
    /// use arenite::{Array, Bytes};
    ///
    /// fn make(len: u64) -> Value {
    ///     (len, Bytes::from(b"ones"), vec![Array::from_fn(len as usize, |_| 1)])
    /// }
    ///
    /// fn sum(buffers: Buffers<'_>) -> u64 {
    ///     let sum = |buffer| match buffer {
    ///         Received::Value((_, _, arrays)) => arrays[0].iter().map(|&x| u64::from(x)).sum(),
    ///         _ => 0,
    ///     };
    ///     buffers.map(sum).sum()
    /// }
    ///
    /// # let engine = arenite::Engine::inline();
    /// let ones = engine.submit(make, (1000,));
    /// let total = engine.submit(sum, (vec![Buffer::value(&ones), Buffer::value(&ones)],));
    /// assert_eq!(total.wait()?, 2000);
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    ///
    /// # Panics
    /// If the value of the job was taken.
    pub fn value(job: &'a Job<raw::Value>) -> Self {
        match &job.state {
            State::Sent { shared, id, .. } => {
                Self::of_job(id.to_bits(), shared.arena.id(), || Box::new(foreign()))
            }
            State::Ended(result) => Self::result(result),
            State::Taken => panic!("{TAKEN}"),
        }
    }

    /// Lets the job take the value of another job that was waited for. An error fails the job, as if it took the job
    /// itself.
    pub fn result(result: &Result<raw::Value, JobError>) -> Self {
        Self::of_ended(match result {
            Ok(value) => Ok(value.clone()),
            Err(error) => {
                let why = error.of_input();
                Err(Box::new(move || Box::new(why.clone())))
            }
        })
    }
}

const ONCE: &str = "a job with a value that only one job may have is passed by value";

/// Each line: a value, the parameter that it can be passed for, the argument as it is held.
macro_rules! values {
    ($($value:ty => $param:ty, $held:ty $(, $kind:ident: $bound:path)?;)*) => { $(
        impl<'env, $($kind: $bound)?> Arg<'env, $param> for &Job<$value> {
            fn send(self, call: &mut CallWriter) {
                self.send_to::<$param>(call);
            }
            fn hold(self) -> $held {
                self.held::<$param>()
            }
            fn failed(&self) -> Option<AnyValue> {
                self.why_none()
            }
        }
        impl<'env, $($kind: $bound)?> Arg<'env, $param> for Job<$value> {
            fn send(self, call: &mut CallWriter) {
                self.send_to::<$param>(call);
                call.keep(Box::new(self));
            }
            fn hold(self) -> $held {
                self.held::<$param>()
            }
            fn failed(&self) -> Option<AnyValue> {
                self.why_none()
            }
        }
    )* };
}
values! {
    Array<T> => &Array<T>, Array<T>, T: Element;
    Array<T> => &[T], Array<T>, T: Element;
    String => &str, String;
    Bytes => &Bytes, Bytes;
    Vec<S> => Vec<S>, Vec<S>, S: Scalar;
    S => S, S, S: Scalar;
}

impl<T: Element> Arg<'_, ArrayMut<T>> for Job<ArrayMut<T>> {
    fn send(mut self, call: &mut CallWriter) {
        if let State::Ended(_) = &self.state
            && let State::Ended(result) = std::mem::replace(&mut self.state, State::Taken)
        {
            return match *result {
                Ok(array) => Arg::<ArrayMut<T>>::send(array, call),
                Err(error) => call.fail(Box::new(error.of_input())),
            };
        }
        self.send_to::<ArrayMut<T>>(call);
        call.keep(Box::new(self));
    }
    fn hold(mut self) -> Option<ArrayMut<T>> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Ended(result) => result.ok(),
            _ => panic!("{TAKEN}"),
        }
    }
    fn failed(&self) -> Option<AnyValue> {
        self.why_none()
    }
}

/// Lists of jobs.
macro_rules! lists {
    ($($list:ty $(, $kept:ident)?;)*) => { $(
        impl<'env, T: Element> Arg<'env, &[Array<T>]> for $list {
            fn send(self, call: &mut CallWriter) {
                call.0.word(self.len() as u64);
                self.iter().for_each(|job| job.send_to::<&Array<T>>(call));
                $(call.$kept(Box::new(self));)?
            }
            fn hold(self) -> Vec<Array<T>> {
                self.iter().map(|job| job.held::<&Array<T>>()).collect()
            }
            fn failed(&self) -> Option<AnyValue> {
                self.iter().find_map(|job| job.why_none())
            }
        }
        impl<T: Element> RetrySafe for $list {}
    )* };
}
lists! {
    Vec<Job<Array<T>>>, keep;
    &Vec<Job<Array<T>>>;
    &[Job<Array<T>>];
    Vec<&Job<Array<T>>>;
    &[&Job<Array<T>>];
}

impl<R: RetrySafe> RetrySafe for Job<R> {}
impl<R> RetrySafe for &Job<R> {}
