//! Numbers that nobody else has.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::clock;

/// A number that is drawn nowhere else: not by another thread, another program, or a copy of this one.
pub fn random() -> u64 {
    // A hasher's keys come from the system's random source, once per thread, and are counted up from then on: a copy that
    // `fork` has made counts from the same. So who asks, and when, is in it too.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_u64(clock::monotonic_ns());
    hasher.finish()
}
