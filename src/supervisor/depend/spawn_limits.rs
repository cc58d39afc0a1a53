//! Limits of spawning.

/// Most jobs that may wait for each other in a chain of spawns.
pub(crate) const MAX_SPAWN_DEPTH: u32 = 10_000;
/// Most spawned jobs that have not ended.
pub(crate) const MAX_OPEN_TASKS: u64 = 1 << 18;
