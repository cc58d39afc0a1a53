//! The sandbox of workers: [`Sandbox`].

use std::fmt;

use super::Engine;
use crate::sys::probe::LANDLOCK_SCOPES;
use crate::sys::sandbox::{SandboxFeatures, features};

/// How far the system calls of workers are restricted.
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
    /// Not restricted: workers have the rights of the user that runs this program.
    #[default]
    Off,
    /// Restricted to computing: no files, no sockets, no other processes, no executable memory. A denied call ends the
    /// worker, and its job fails with [`WorkerExit::Denied`](crate::WorkerExit::Denied), which names the call. Calls
    /// that libraries use only to probe (for files, sockets) return an error instead.
    ///
    /// - Results are copied before the program gets a handle to them, so that a worker cannot change them later.
    /// - No memory is lent to workers: jobs that change an argument in place fail with
    ///   [`Rejection::Lending`](crate::Rejection::Lending). Only in a chain that runs as one job can a kernel change,
    ///   in place, the array that the kernel before it returned.
    /// - Workers see only the environment variables that loaders and the C library read.
    /// - [`on_worker_start`](super::Builder::on_worker_start) runs before the sandbox is closed and may open files,
    ///   which are closed afterwards. It must not leave threads behind.
    ///
    /// Parts that the running Linux lacks are not enforced; [`Engine::sandbox_report`] lists them.
    ///
    /// Code that compromises a worker can still:
    ///
    /// - read every array of its engine and hide it in its own result: process the data of users who must not see each
    ///   other's data in separate engines;
    /// - corrupt results of the same worker that the supervisor has not received yet, the states of actors in that
    ///   worker, and values between two nodes of its own chain;
    /// - use address space of [`memory_limit`](super::Builder::memory_limit) plus 1 GiB plus half a GiB per core, of
    ///   which writable memory, except the first thread's stack, is at most `memory_limit` (without `memory_limit`, all
    ///   memory of the machine or container), and processor time until a deadline;
    /// - start as many threads as the user or the container may have (`ulimit -u`, `pids.max`): set a limit for the
    ///   container.
    Strict,
    /// Like `Strict`, but [`build`](super::Builder::build) fails if the running Linux lacks a part. Linux 6.12 has all
    /// parts.
    Required,
}

/// Lists the parts of a [`Sandbox`] that the running Linux supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxReport {
    pub(super) kernel: SandboxFeatures,
}

impl SandboxReport {
    /// Queries Linux, without changing anything. If the query fails, no part counts as supported.
    pub fn of_this_kernel() -> Self {
        Self {
            kernel: features().unwrap_or_default(),
        }
    }

    /// Lists the parts that are not enforced and what that means, one sentence each. Empty if all parts are enforced.
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

    /// Returns true if every part is enforced.
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
    /// Returns which parts of the sandbox are enforced in this engine's workers; `None` without a sandbox.
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
        let kernel = self.supervisor()?.sandbox_features()?;
        Some(SandboxReport { kernel })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_part_is_named() {
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
