//! Computes the seeds of jobs' random numbers, in the supervisor and in the worker.

/// Bit in the seeds of jobs that belong to a series. The seeds of jobs that are neither in a series nor spawned are
/// consecutive numbers from 1 on.
const SERIES: u64 = 1 << 63;
/// Bit in the seeds of spawned jobs.
const SPAWNED: u64 = 1 << 62;

/// Returns the seed of job `index` of a series.
#[inline]
pub(crate) fn seed_in_series(series: u64, index: u64) -> u64 {
    mixed(mixed(series) ^ index) | SERIES
}

/// Returns the seed of task number `task` that the job with the seed `parent` spawns.
pub(crate) fn seed_of_task(parent: u64, task: u64) -> u64 {
    mixed(mixed(parent) ^ task) >> 2 | SPAWNED
}

/// Spreads a number over all 64 bits, by the last step of SplitMix64. Different numbers have different results.
#[inline]
fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
