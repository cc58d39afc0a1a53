//! Actors of an inline engine: the state is in the handle, and methods run on the calling thread.
//!
//! Methods run one at a time, under a lock. A method that calls its own actor (by a handle in a `static`, for example)
//! would deadlock, so each thread has a list of the actors whose methods it runs. Reading the status and ending the
//! actor must not wait for a method, so they use a second lock, which is never held while a method runs.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard};

use crate::engine::job::run_inline;
use crate::engine::{JobErrorKind, Rejection};
use crate::sync::lock;

pub(super) struct InlineActor<S> {
    /// `None` after the actor has ended.
    state: Mutex<Option<S>>,
    accounting: Mutex<Accounting>,
}

/// The state of the actor's calls.
struct Accounting {
    /// Number of calls that run, or wait for earlier calls.
    calls: usize,
    /// Whether the actor accepts no more calls, and ends after the last of `calls`.
    is_ending: bool,
    /// The error of all calls if the actor has no state.
    gone: Option<JobErrorKind>,
}

thread_local! {
    /// The actors whose methods run on this thread, the innermost last.
    static CALLED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Counts a call from creation to drop.
struct Turn<'a, S>(&'a InlineActor<S>);

impl<S> Drop for Turn<'_, S> {
    fn drop(&mut self) {
        let mut accounting = self.0.accounting();
        accounting.calls -= 1;
        let ends = accounting.is_ending && accounting.calls == 0;
        drop(accounting);
        if ends {
            self.0.end_now();
        }
    }
}

/// Marks, from creation to drop, that a method of an actor runs on this thread.
struct Inside(());

impl Inside {
    fn enter(actor: usize) -> Self {
        CALLED.with_borrow_mut(|all| all.push(actor));
        Self(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        CALLED.with_borrow_mut(|all| all.pop());
    }
}

impl<S> InlineActor<S> {
    /// Creates an actor with this state, or with the reason why it has no state.
    pub(super) fn new(state: Result<S, JobErrorKind>) -> Self {
        let (state, gone) = match state {
            Ok(state) => (Some(state), None),
            Err(why) => (None, Some(why)),
        };
        let accounting = Accounting {
            calls: 0,
            is_ending: false,
            gone,
        };
        Self {
            state: Mutex::new(state),
            accounting: Mutex::new(accounting),
        }
    }

    /// Runs a method, which must catch its own panics.
    pub(super) fn call<R>(&self, method: impl FnOnce(&mut S) -> R) -> Result<R, JobErrorKind> {
        if self.is_called() {
            return Err(JobErrorKind::Rejected(Rejection::Deadlock {
                why: "a method called its own actor, whose calls run one after the other; call the function itself",
            }));
        }
        let _turn = self.accept()?;
        let mut state = self.state();
        match &mut *state {
            Some(state) => {
                let _inside = Inside::enter(self.address());
                Ok(method(state))
            }
            // Unreachable: the state is removed after the last call only.
            None => Err(JobErrorKind::Rejected(Rejection::ActorEnded)),
        }
    }

    /// Counts a call, unless the actor accepts no more calls.
    fn accept(&self) -> Result<Turn<'_, S>, JobErrorKind> {
        let mut accounting = self.accounting();
        if let Some(why) = &accounting.gone {
            return Err(why.clone());
        }
        if accounting.is_ending {
            return Err(JobErrorKind::Rejected(Rejection::ActorEnded));
        }
        accounting.calls += 1;
        Ok(Turn(self))
    }

    /// Ends the actor. Its state is dropped at once, or by the last call that runs or waits.
    pub(super) fn end(&self) {
        let mut accounting = self.accounting();
        accounting.is_ending = true;
        let busy = accounting.calls > 0;
        drop(accounting);
        if !busy {
            self.end_now();
        }
    }

    /// Drops the state. The caller ensures that no call runs, and that no more calls are accepted.
    fn end_now(&self) {
        let state = self.state().take();
        self.accounting().gone = Some(JobErrorKind::Rejected(Rejection::ActorEnded));
        // With workers, a panic in the state's `drop` would not reach the program. Here it is caught and reported.
        drop(run_inline::<()>("the end of an actor", || {
            drop(state);
            Ok(())
        }));
    }

    /// Returns the error of all calls if the actor has no state.
    pub(super) fn lost(&self) -> Option<JobErrorKind> {
        self.accounting().gone.clone()
    }

    /// Returns true if a method of this actor runs on this thread.
    fn is_called(&self) -> bool {
        CALLED.with_borrow(|all| all.contains(&self.address()))
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Panics of methods are caught while the lock is held, so it is never poisoned.
    fn state(&self) -> MutexGuard<'_, Option<S>> {
        lock(&self.state)
    }

    /// This lock is not held while code of the program runs.
    fn accounting(&self) -> MutexGuard<'_, Accounting> {
        lock(&self.accounting)
    }
}
