//! How far workers are locked down.

use std::fmt;

use super::Engine;
use crate::sys::probe::LANDLOCK_SCOPES;
use crate::sys::sandbox::{SandboxFeatures, features};

/// What workers may do beside computing.
///
/// ```
/// use arenite::engine::SandboxReport;
///
/// let report = SandboxReport::of_this_kernel();
/// for part in report.lacking() {
///     eprintln!("not enforced on this machine: {part}");
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sandbox {
    /// Whatever this user may do.
    #[default]
    Off,
    /// Nothing: no file, no socket, no other process, no executable memory. A worker that tries is
    /// ended, and its job answers [`Denied`](super::JobErrorKind::Denied) with the call's name; what
    /// libraries only look for (files, sockets) they are refused.
    ///
    /// - Results are copied before anybody gets a handle to them, so that a worker cannot change them
    ///   later.
    /// - Nothing is lent: jobs that change an argument in place answer
    ///   [`NoLending`](super::JobErrorKind::NoLending), and so do nodes of a graph; only within a chain that is one job
    ///   an array is passed on to be changed.
    /// - Workers see of the environment only what loaders and the C library look at.
    /// - [`on_worker_start`](super::Builder::on_worker_start) runs before, and may open files; they are
    ///   closed afterwards. It must not leave threads behind.
    ///
    /// What the running kernel lacks is left out; [`Engine::sandbox_report`] names it.
    ///
    /// Code that takes over a worker can still read every array of its engine, and hide it in its own
    /// result: work for people who must not see each other's data belongs in engines of their own. It can
    /// spoil what the same worker has answered and the supervisor has not taken yet, the states of actors that live
    /// there, and values between two nodes of its own chain. It can use memory up
    /// to [`memory_limit`](super::Builder::memory_limit), 1 GiB, and half a GiB for each core (where that is not set, as
    /// much as there is), and processor time until a deadline. It can start threads without a bound, as many as the user or the container may have (`ulimit -u`,
    /// `pids.max`): a limit for the container keeps it from taking them from all others.
    Strict,
    /// As `Strict`; [`build`](super::Builder::build) fails where the running kernel lacks a part. Linux 6.12 has them all.
    Required,
}

/// Which parts of a [`Sandbox`] the running kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxReport {
    pub(super) kernel: SandboxFeatures,
}

impl SandboxReport {
    /// Asks the kernel; changes nothing. Without an answer nothing is there.
    pub fn of_this_kernel() -> Self {
        Self {
            kernel: features().unwrap_or_default(),
        }
    }

    /// What is not enforced, and what that means: a sentence each, none when everything is there.
    pub fn lacking(&self) -> Vec<&'static str> {
        let SandboxFeatures {
            seccomp,
            landlock,
            mseal,
        } = self.kernel;
        let mut lacking = Vec::new();
        if !seccomp {
            lacking.push("seccomp (filters on system calls): workers may make any call");
        }
        if landlock == 0 {
            lacking.push("Landlock (Linux 5.13): files are shut by seccomp alone");
        } else if landlock < LANDLOCK_SCOPES {
            lacking.push(
                "Landlock's scopes (Linux 6.12): signals to others are denied by seccomp alone",
            );
        }
        if !mseal {
            lacking.push("mseal (Linux 6.10): a worker may unmap its view of the arena, which harms itself alone");
        }
        lacking
    }

    /// Whether everything is there.
    pub fn is_complete(&self) -> bool {
        self.lacking().is_empty()
    }
}

impl fmt::Display for SandboxReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lacking = self.lacking();
        if lacking.is_empty() {
            return f.write_str("every part of the sandbox is there");
        }
        write!(f, "this kernel lacks {}", lacking.join("; "))
    }
}

impl Engine {
    /// Which parts of the sandbox are enforced in this engine's workers; `None` without one.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// if let Some(report) = engine.sandbox_report()
    ///     && !report.is_complete()
    /// {
    ///     eprintln!("warning: {report}");
    /// }
    /// ```
    pub fn sandbox_report(&self) -> Option<SandboxReport> {
        let kernel = self.shared()?.locked_by()?;
        Some(SandboxReport { kernel })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_that_is_lacking_is_named() {
        let of = |seccomp, landlock, mseal| SandboxReport {
            kernel: SandboxFeatures {
                seccomp,
                landlock,
                mseal,
            },
        };
        assert!(of(true, 6, true).is_complete());
        let all = of(false, 0, false);
        assert_eq!(all.lacking().len(), 3);
        assert!(all.to_string().contains("seccomp") && all.to_string().contains("mseal"));
        assert!(of(true, 5, true).to_string().contains("scopes"));
        assert!(of(true, 0, true).to_string().contains("5.13"));
    }
}
