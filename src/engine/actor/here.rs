//! A state that lies in its handle: an actor of an inline engine, whose methods run in whichever thread calls.
//!
//! One at a time, behind a lock. In that thread a method can come back to its own actor, by a handle in a `static`, say:
//! the lock would never be free. So each thread knows which actors it is in.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::JobErrorKind;
use crate::engine::job::run_here;

pub(super) struct Here<S>(Mutex<State<S>>);

enum State<S> {
    There(S),
    /// There is none: what calls answer.
    Gone(JobErrorKind),
}

thread_local! {
    /// Whose methods run in this thread, the innermost last.
    static CALLED: RefCell<Vec<Called>> = const { RefCell::new(Vec::new()) };
}

/// A method of an actor that runs.
struct Called {
    actor: usize,
    /// The actor is to end when it returns.
    ends: bool,
}

/// A method of an actor runs in this thread, as long as this lives.
struct Inside(PhantomData<*const ()>);

impl Inside {
    fn enter(actor: usize) -> Self {
        let called = Called { actor, ends: false };
        CALLED.with_borrow_mut(|all| all.push(called));
        Self(PhantomData)
    }

    /// Was it told to end meanwhile?
    fn ends() -> bool {
        CALLED.with_borrow(|all| all.last().is_some_and(|last| last.ends))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        CALLED.with_borrow_mut(|all| all.pop());
    }
}

impl<S> Here<S> {
    /// A state, or why there is none.
    pub(super) fn new(state: Result<S, JobErrorKind>) -> Self {
        Self(Mutex::new(match state {
            Ok(state) => State::There(state),
            Err(why) => State::Gone(why),
        }))
    }

    /// Runs a method, which is fenced.
    pub(super) fn call<R>(&self, method: impl FnOnce(&mut S) -> R) -> Result<R, JobErrorKind> {
        if self.is_called() {
            return Err(JobErrorKind::WaitsForItself {
                why: "a method called its own actor, whose calls run one after the other; call the function itself",
            });
        }
        let (value, ends) = match &mut *self.lock() {
            State::There(state) => {
                let _inside = Inside::enter(self.address());
                (method(state), Inside::ends())
            }
            State::Gone(why) => return Err(why.clone()),
        };
        if ends {
            self.end();
        }
        Ok(value)
    }

    /// Drops the state; if a method of it runs in this thread, when that returns.
    pub(super) fn end(&self) {
        let later = CALLED.with_borrow_mut(|all| {
            let mut mine = all
                .iter_mut()
                .filter(|called| called.actor == self.address());
            mine.next().map(|called| called.ends = true)
        });
        if later.is_some() {
            return;
        }
        let state = std::mem::replace(&mut *self.lock(), State::Gone(JobErrorKind::ActorEnded));
        // A panic in its drop is that of its worker elsewhere: it is told, and goes no further.
        drop(run_here::<()>("the end of an actor", || {
            drop(state);
            Ok(())
        }));
    }

    /// Why calls cannot be answered any more.
    pub(super) fn lost(&self) -> Option<JobErrorKind> {
        if self.is_called() {
            return None;
        }
        match &*self.lock() {
            State::There(_) => None,
            State::Gone(why) => Some(why.clone()),
        }
    }

    /// Does a method of it run in this thread?
    fn is_called(&self) -> bool {
        let mine = |called: &Called| called.actor == self.address();
        CALLED.with_borrow(|all| all.iter().any(mine))
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Panics of methods are caught inside.
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
