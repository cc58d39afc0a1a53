//! The names of an engine's actors.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// An actor with a state of any type.
type Held = dyn Any + Send + Sync;

/// The actor of each name, or `None` while the actor is being started.
type Taken = HashMap<String, Option<Weak<Held>>>;

/// The names of an engine's actors.
#[derive(Clone, Default)]
pub(in crate::engine) struct Names(Arc<Mutex<Taken>>);

impl Names {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the actor of this name.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Held>> {
        self.lock().get(name)?.as_ref()?.upgrade()
    }

    /// Gives a name to the actor that `make` creates. Returns `None` if another actor has the name. `make` may run code
    /// of the program, which may use names itself, so `make` is called without the lock.
    pub(super) fn give<T: Any + Send + Sync>(
        &self,
        name: &str,
        make: impl FnOnce(Name) -> Arc<T>,
    ) -> Option<Arc<T>> {
        let own = name.to_owned();
        {
            let mut names = self.lock();
            let is_free = |held: &Option<Weak<Held>>| {
                held.as_ref().is_some_and(|held| held.strong_count() == 0)
            };
            if !names.get(name).is_none_or(is_free) {
                return None;
            }
            names.insert(own.clone(), None);
        }
        let made = make(Name {
            names: self.clone(),
            name: own.clone(),
        });
        let held: Arc<Held> = Arc::<T>::clone(&made);
        self.lock().insert(own, Some(Arc::downgrade(&held)));
        Some(made)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

/// The name of one actor.
#[derive(Debug)]
pub(super) struct Name {
    names: Names,
    pub(super) name: String,
}

impl Name {
    /// Frees the name, if the actor `holder` still has it.
    pub(super) fn give_back(&self, holder: *const ()) {
        let mut names = self.names.lock();
        if names
            .get(&self.name)
            .and_then(Option::as_ref)
            .is_some_and(|held| held.as_ptr().cast() == holder)
        {
            names.remove(&self.name);
        }
    }
}
