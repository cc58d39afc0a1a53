//! Environment variables of workers.

use std::ffi::{OsStr, OsString};

/// Sets an environment variable until dropped, also when the test fails. Tests run one after the other.
#[derive(Debug)]
pub struct Env {
    name: &'static str,
    before: Option<OsString>,
}

impl Env {
    /// Sets a variable. Call it before the engine is built, so that the engine is dropped first.
    pub fn set(name: &'static str, value: impl AsRef<OsStr>) -> Self {
        let before = std::env::var_os(name);
        // SAFETY: no other thread of this program reads the environment now: the last test's engines are gone.
        unsafe { std::env::set_var(name, value) };
        Self { name, before }
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        // SAFETY: as in `set`; it is dropped after the engine of its test.
        unsafe {
            match self.before.take() {
                Some(value) => std::env::set_var(self.name, value),
                None => std::env::remove_var(self.name),
            }
        }
    }
}
