//! `arenite resize` from outside: one folder per test, real files, exit codes and stderr looked at.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod begun;
mod flags;
mod formats;
mod hostile;
mod inputs;
mod names;
mod output;
mod resume;
mod sandbox;
mod signals;
mod stop;
mod timeout;
mod trace;
mod world;
