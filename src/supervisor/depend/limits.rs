//! Limits of jobs that wait for others.

use crate::link::SLOTS;

/// Maximum number of jobs that wait for each other in a chain of spawns.
pub(crate) const MAX_SPAWN_DEPTH: u32 = 10_000;
/// Maximum number of spawned jobs that have not ended.
pub(crate) const MAX_OPEN_TASKS: u64 = 1 << 18;
/// Maximum number of unanswered tasks of one run: enough for every worker.
pub(super) const WINDOW: usize = 2 * SLOTS;
/// Maximum number of ends that are processed before the lock is released for other threads.
pub(in crate::supervisor) const MAX_ENDS: usize = 128;
