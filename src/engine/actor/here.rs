//! A state that lies in its handle: an actor of an inline engine, whose methods run in whichever thread calls.
//!
//! One at a time, behind a lock. In that thread a method can come back to its own actor, by a handle in a `static`, say:
//! the lock would never be free. So each thread knows which actors it is in. Whoever asks how the actor fares, or ends it, does not
//! wait for a method: what there is to know lies behind a lock of its own, which is held for a moment.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::JobErrorKind;
use crate::engine::job::run_here;

pub(super) struct Here<S> {
    /// Taken out when the actor ends.
    state: Mutex<Option<S>>,
    books: Mutex<Books>,
}

/// What is known of an actor without its state.
struct Books {
    /// Calls that run or wait for those before them.
    calls: usize,
    /// It takes no more calls, and ends with the last of those.
    ending: bool,
    /// There is no state: what calls answer.
    gone: Option<JobErrorKind>,
}

thread_local! {
    /// The actors whose methods run in this thread, the innermost last.
    static CALLED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A call has come, as long as this lives.
struct Turn<'a, S>(&'a Here<S>);

impl<S> Drop for Turn<'_, S> {
    fn drop(&mut self) {
        let mut books = self.0.books();
        books.calls -= 1;
        let ends = books.ending && books.calls == 0;
        drop(books);
        if ends {
            self.0.end_now();
        }
    }
}

/// A method of an actor runs in this thread, as long as this lives.
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

impl<S> Here<S> {
    /// A state, or why there is none.
    pub(super) fn new(state: Result<S, JobErrorKind>) -> Self {
        let (state, gone) = match state {
            Ok(state) => (Some(state), None),
            Err(why) => (None, Some(why)),
        };
        let books = Books {
            calls: 0,
            ending: false,
            gone,
        };
        Self {
            state: Mutex::new(state),
            books: Mutex::new(books),
        }
    }

    /// Runs a method, which is fenced.
    pub(super) fn call<R>(&self, method: impl FnOnce(&mut S) -> R) -> Result<R, JobErrorKind> {
        if self.is_called() {
            return Err(JobErrorKind::WaitsForItself {
                why: "a method called its own actor, whose calls run one after the other; call the function itself",
            });
        }
        let _turn = self.come()?;
        let mut state = self.state();
        match &mut *state {
            Some(state) => {
                let _inside = Inside::enter(self.address());
                Ok(method(state))
            }
            // It is taken out after the last turn only.
            None => Err(JobErrorKind::ActorEnded),
        }
    }

    /// Enters a call.
    fn come(&self) -> Result<Turn<'_, S>, JobErrorKind> {
        let mut books = self.books();
        if let Some(why) = &books.gone {
            return Err(why.clone());
        }
        if books.ending {
            return Err(JobErrorKind::ActorEnded);
        }
        books.calls += 1;
        Ok(Turn(self))
    }

    /// Drops the state; if calls run or wait, when the last of them is answered, in its thread.
    pub(super) fn end(&self) {
        let mut books = self.books();
        books.ending = true;
        let busy = books.calls > 0;
        drop(books);
        if !busy {
            self.end_now();
        }
    }

    /// Nobody is in a call, and nobody comes any more.
    fn end_now(&self) {
        let state = self.state().take();
        self.books().gone = Some(JobErrorKind::ActorEnded);
        // A panic in its drop is that of its worker elsewhere: it is told, and goes no further.
        drop(run_here::<()>("the end of an actor", || {
            drop(state);
            Ok(())
        }));
    }

    /// Why calls cannot be answered any more.
    pub(super) fn lost(&self) -> Option<JobErrorKind> {
        self.books().gone.clone()
    }

    /// Does a method of it run in this thread?
    fn is_called(&self) -> bool {
        CALLED.with_borrow(|all| all.contains(&self.address()))
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Panics of methods are caught inside.
    fn state(&self) -> MutexGuard<'_, Option<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not held while code of the program runs.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
