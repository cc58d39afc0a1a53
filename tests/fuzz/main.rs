//! Hostile input: the targets of `targets.rs` on seeds cut at every byte, with each bit of their headers flipped, and
//! on a seeded random stretch; and bombs, which have to be refused before anything is allocated for them.
//!
//! Words of a link need the feature `points`, and so a debug build.
//!
//! `ARENITE_FUZZ_RUNS` makes the random stretch longer (5,000 cases otherwise, 1,000 of words of a link), `ARENITE_FUZZ_SEED`
//! makes it another one, `ARENITE_FUZZ_TRACE` names each case before it runs, which tells where a crash in C code is.
//! A case that fails is written to a file whose name is in the message.
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
