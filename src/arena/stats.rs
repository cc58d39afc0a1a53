//! Figures of an arena.

/// Figures of an arena at one moment. Sizes are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct ArenaStats {
    /// The most that may be committed.
    pub capacity: u64,
    /// Has memory behind it.
    pub committed: u64,
    /// Held by blocks, padding included.
    pub in_use: u64,
    /// The most that was ever held by blocks at once.
    pub high_water: u64,
    /// The longest free run of any region, whether committed or not.
    pub largest_free: u64,
    /// 0 when the free memory between blocks is in one piece, towards 1 when it is in many: the part of it, in all regions, that
    /// is not in the largest piece.
    pub fragmentation: f64,
    /// How many blocks there are.
    pub blocks: u64,
    /// Chunks of 2 MiB that are one huge page.
    pub collapsed_chunks: u64,
    /// Chunks that have small pages.
    pub small_chunks: u64,
    /// Collapses that worked since the arena was made.
    pub collapses: u64,
    /// Of these, those that took longer than 1 ms.
    pub slow_collapses: u64,
    /// Collapses that failed and left small pages.
    pub failed_collapses: u64,
    /// Time spent collapsing, in nanoseconds.
    pub collapse_nanos: u64,
}
