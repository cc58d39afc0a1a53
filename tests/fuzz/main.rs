//! Hostile input: the targets of `targets.rs` on seeds truncated at every byte, with bits of their headers flipped,
//! and on a seeded random stretch; and bombs, which must be refused before anything is allocated for them.
//!
//! Words of a link need the feature `points`, and so a debug build.
//!
//! `ARENITE_FUZZ_RUNS` sets the length of the random stretch (5,000 cases by default, 1,000 of words of a link), and
//! each bit is flipped instead of a quarter of them. `ARENITE_FUZZ_SEED` sets the seed of the stretch, and
//! `ARENITE_FUZZ_ONLY` the pictures that it begins with: those whose name begins with one of these words, as
//! `heic,raw`, also of the tests of `arenite-image`. `ARENITE_FUZZ_TRACE` names each case before it runs, which locates
//! a crash in C code.
//! A failing case is written to a file named in the message.
#![allow(clippy::unwrap_used, reason = "tests")]

mod arrays;
#[path = "../common/asked.rs"]
mod asked;
mod bombs;
#[path = "../common/crc32.rs"]
mod crc32;
#[path = "../common/lab/dice.rs"]
mod dice;
mod driver;
mod heads;
#[cfg(feature = "points")]
mod links;
mod memory;
mod pictures;
mod seeds;
mod targets;
