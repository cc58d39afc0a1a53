//! Actors that are found by name.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A handle of whatever type, as long as there is one.
type Held = dyn Any + Send + Sync;

/// The names that are taken in an engine.
#[derive(Clone, Default)]
pub(in crate::engine) struct Names(Arc<Mutex<HashMap<String, Weak<Held>>>>);

impl Names {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<Held>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever has this name.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Held>> {
        self.lock().get(name)?.upgrade()
    }

    /// Gives the name to what `make` makes, unless somebody has it.
    pub(super) fn give<T: Any + Send + Sync>(
        &self,
        name: &str,
        make: impl FnOnce(Name) -> Arc<T>,
    ) -> Option<Arc<T>> {
        let mut names = self.lock();
        if names.get(name).is_some_and(|held| held.strong_count() > 0) {
            return None;
        }
        let made = make(Name {
            names: self.clone(),
            name: name.to_owned(),
        });
        let held: Arc<Held> = Arc::<T>::clone(&made);
        names.insert(name.to_owned(), Arc::downgrade(&held));
        Some(made)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

/// A name that was given.
#[derive(Debug)]
pub(super) struct Name {
    names: Names,
    pub(super) name: String,
}

impl Name {
    /// Somebody else may have it. `holder`: who has it now, unless it was taken away before.
    pub(super) fn give_back(&self, holder: *const ()) {
        let mut names = self.names.lock();
        if names
            .get(&self.name)
            .is_some_and(|held| held.as_ptr().cast() == holder)
        {
            names.remove(&self.name);
        }
    }
}
