//! Random numbers.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::clock;

/// Returns a random number that practically no other call returns, not even in other threads, other programs or forked
/// copies of this process.
pub fn random() -> u64 {
    // The keys of a hasher come from the system's random source once per thread and are then incremented, so a forked
    // copy continues the same sequence. Hashing the process id and the time makes the copy's numbers differ.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_u64(clock::monotonic_ns());
    hasher.finish()
}
