//! `arenite resize` from outside: one folder per test, real files, exit codes and stderr.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod begun;
mod check;
mod crashes;
#[path = "../../../tests/common/crc32.rs"]
mod crc32;
mod damage;
mod exchanged;
mod fits;
mod flags;
mod formats;
mod hostile;
mod inputs;
mod jobs;
mod names;
mod output;
mod palette;
mod resume;
mod sandbox;
mod servers;
mod shard;
mod signals;
mod sizes;
mod stop;
mod timeout;
mod trace;
mod world;

/// Starts first, by its name, and runs next to the others while it waits.
#[test]
fn a_hang_at_each_stage_ends_in_time() {
    timeout::all_that_wait();
}
