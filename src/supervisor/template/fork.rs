//! The fork of the program from which the workers of an engine are copied.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Lease;
use crate::supervisor::Supervisor;
use crate::supervisor::settings::StartMethod;
use crate::sync::catch_panic;
use crate::sys::{copy, process};
use crate::worker::ForkedTemplate;

/// Whether an engine needs a fork, and the fork that its monitor has not taken yet.
#[derive(Debug)]
pub(in crate::supervisor) struct ForkSlot {
    is_missing: AtomicBool,
    made: Mutex<Option<Lease>>,
}

impl ForkSlot {
    pub(in crate::supervisor) fn new(is_forked: bool) -> Self {
        Self {
            is_missing: AtomicBool::new(is_forked),
            made: Mutex::default(),
        }
    }

    pub(in crate::supervisor) fn take(&self) -> Option<Lease> {
        self.lock().take()
    }

    pub(in crate::supervisor) fn set_missing(&self) {
        self.is_missing.store(true, Ordering::Release);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Lease>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervisor {
    /// See [`Engine::needs_fork`](crate::Engine::needs_fork).
    pub(crate) fn needs_fork(&self) -> bool {
        let start = &self.settings.program.start;
        start.is_forked() && self.fork.is_missing.load(Ordering::Acquire)
    }

    /// See [`Engine::fork`](crate::Engine::fork).
    pub(crate) fn fork_template(
        &self,
        in_copy: impl FnOnce(ForkedTemplate),
    ) -> crate::sys::Result<()> {
        let StartMethod::Fork { setup, .. } = &self.settings.program.start else {
            return Ok(());
        };
        // Another thread may have made one.
        if !self.fork.is_missing.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let fork = |seat: ForkedTemplate| match copy::fork()? {
            Some(pid) => Ok(pid),
            None => {
                // It does not return. After a panic, it must not do what this process would do next.
                catch_panic(|| in_copy(seat));
                process::exit_now(1)
            }
        };
        match Lease::fork(setup, self.monitor_event(), fork) {
            Ok(lease) => *self.fork.lock() = Some(lease),
            Err(error) => {
                self.fork.set_missing();
                return Err(error);
            }
        }
        self.ring();
        Ok(())
    }
}
