//! Stores and services whose servers and clients are processes: killed at each step, hostile, and many.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../common/mod.rs"]
mod harness;
mod hostile;
mod jobs;
mod killed;
mod many;
mod plain_client;
#[cfg(feature = "points")]
mod points;
mod programs;
mod raw;
mod service;

fn main() {
    arenite::init();
    harness::programs::play(programs::ROLES);
    harness::share_out();
    let mut tests = killed::tests();
    tests.extend(hostile::tests());
    tests.extend(jobs::tests());
    tests.extend(many::tests());
    tests.extend(plain_client::tests());
    tests.extend(service::tests());
    #[cfg(feature = "points")]
    tests.extend(points::tests());
    harness::run(tests).exit();
}
