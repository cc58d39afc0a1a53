//! Reports what this system offers an engine. The engine determines the same facts in the same way.
//!
//! Use it to report on a machine before an engine is started there. `arenite doctor` is such a program: it judges these
//! facts and says what to do about them.
//!
//! ```
//! use std::path::Path;
//!
//! use arenite::platform;
//!
//! for feature in platform::features() {
//!     if let Err(reason) = feature.state {
//!         println!("{} does not work here: {reason}", feature.name);
//!     }
//! }
//! if let Some(memory) = platform::memory(Path::new("/")) {
//!     println!("{} of {} bytes available", memory.available, memory.limit);
//! }
//! ```

use std::path::{Path, PathBuf};

pub use crate::arena::{SegmentName, default_capacity, segments, sweep};
pub use crate::sys::limits::{GroupLimit, Memory, memory_group, task_group};

use crate::sys::probe::{self, LANDLOCK_SCOPES};
use crate::sys::{self, limits};
use crate::{control, supervisor};

/// A feature of Linux that engines use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feature {
    /// The name of the feature in the manual pages: `pidfd`, `close_range`, `memfd`, `MADV_COLLAPSE`, `futex_waitv`,
    /// `seccomp`, `Landlock` or `mseal`.
    pub name: &'static str,
    /// `Ok` if the feature works, with a detail such as its version or an empty text. `Err` with the reason if it does
    /// not.
    pub state: Result<String, String>,
}

/// Tries each feature of Linux that engines use. Changes nothing, and takes about a millisecond.
pub fn features() -> Vec<Feature> {
    let tried = |name, outcome: sys::Result<()>| Feature {
        name,
        state: match outcome {
            Ok(()) => Ok(String::new()),
            Err(error) => Err(reason(&error)),
        },
    };
    vec![
        tried("pidfd", probe::pidfd()),
        tried("close_range", probe::close_range()),
        tried("memfd", probe::memfd_seals()),
        tried("MADV_COLLAPSE", probe::collapse()),
        tried("futex_waitv", probe::wait_any()),
        tried("seccomp", probe::seccomp()),
        Feature {
            name: "Landlock",
            state: landlock(),
        },
        tried("mseal", probe::mseal()),
    ]
}

fn landlock() -> Result<String, String> {
    match probe::landlock_abi() {
        Ok(abi) if abi < LANDLOCK_SCOPES => Err(format!(
            "version {abi} does not confine signals, version {LANDLOCK_SCOPES} (Linux 6.12) does"
        )),
        Ok(abi) => Ok(format!("version {abi}")),
        Err(error) => Err(reason(&error)),
    }
}

fn reason(error: &sys::Error) -> String {
    error.errno().desc().to_lowercase()
}

/// Returns the memory of the machine or of its container, whichever is less. `root`, usually `/`, is the folder that
/// contains `proc` and `sys`.
///
/// Returns `None` if neither size can be read.
pub fn memory(root: &Path) -> Option<Memory> {
    let memory = limits::memory_available(root);
    (memory.limit != limits::UNKNOWN_MEMORY).then_some(memory)
}

/// Returns the number of file descriptors that an engine with this number of workers needs.
pub const fn descriptors_for(workers: u64) -> u64 {
    supervisor::descriptors_for(workers, false)
}

/// Returns the folder in which a worker's socket exists, for microseconds, until the worker is connected: usually
/// [`std::env::temp_dir`].
///
/// # Errors
/// The reason why no socket can be made.
pub fn socket_folder() -> Result<PathBuf, String> {
    control::choose_socket_folder()
}
