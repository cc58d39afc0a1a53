//! Arena statistics.

/// Statistics of an arena at one moment. Sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct ArenaStats {
    /// Maximum number of committed bytes.
    pub capacity: u64,
    /// Bytes backed by memory.
    pub committed: u64,
    /// Bytes that blocks occupy, padding included.
    pub in_use: u64,
    /// Maximum of `in_use` so far.
    pub high_water: u64,
    /// The longest free run in any region, committed or not.
    pub largest_free: u64,
    /// How scattered the free memory between blocks is, over all regions: 0 if it is in one piece, towards 1 if it is
    /// in many. Computed as the fraction that is not in the largest piece.
    pub fragmentation: f64,
    /// Number of blocks.
    pub blocks: u64,
    /// Chunks of 2 MiB that are one huge page.
    pub collapsed_chunks: u64,
    /// Chunks with small pages.
    pub small_chunks: u64,
    /// Successful collapses so far.
    pub collapses: u64,
    /// Successful collapses that took longer than 1 ms.
    pub slow_collapses: u64,
    /// Failed collapses, which left small pages.
    pub failed_collapses: u64,
    /// Time spent collapsing, in nanoseconds.
    pub collapse_nanos: u64,
}
