//! Limits of graphs and spawned jobs.

use crate::link::SLOTS;

/// Most jobs that may wait for each other in a chain of spawns.
pub(crate) const MAX_SPAWN_DEPTH: u32 = 10_000;
/// Most spawned jobs that have not ended.
pub(crate) const MAX_OPEN_TASKS: u64 = 1 << 18;
/// Most jobs of one run with a record and no answer: enough for every worker.
pub(super) const WINDOW: usize = 2 * SLOTS;
/// Most ends that are processed before the lock is released for other threads.
pub(super) const MOST_ENDS: usize = 128;
