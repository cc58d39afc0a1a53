//! Maps over iterators: ordered and unordered, stopping and going on, reports, waiting for any and for all; and reports
//! on whole arrays.

mod letters;
mod reports;
mod results;
mod rows;
mod sources;
mod waiting;

use std::sync::{Mutex, Weak};

use arenite::engine::Backtrace;
use arenite::{DeadLetter, Engine, JobErrorKind};
use bytemuck::{CheckedBitPattern, NoUninit};

pub fn tests() -> Vec<libtest_mimic::Trial> {
    let parts = [
        results::tests(),
        reports::tests(),
        letters::tests(),
        rows::tests(),
        sources::tests(),
        waiting::tests(),
    ];
    parts.into_iter().flatten().collect()
}

fn square(n: u64) -> u64 {
    n * n
}

fn odd(n: u64) -> Result<u64, String> {
    match n {
        13 => panic!("unlucky"),
        n if n.is_multiple_of(10) => Err(format!("{n} ends in 0")),
        n => Ok(n),
    }
}

/// The stack of the panic, if the job panicked in a worker.
fn backtrace_of<A>(letter: &DeadLetter<A>) -> Option<&Backtrace> {
    match letter.error.kind() {
        JobErrorKind::Panicked { backtrace, .. } if !backtrace.is_empty() => Some(backtrace),
        _ => None,
    }
}

/// The engine that a [`Watched`] value of 5 calls when it is checked.
pub(crate) static ASKED: Mutex<Weak<Engine>> = Mutex::new(Weak::new());

/// A number with a validity check of its own.
#[derive(Clone, Copy, Debug, PartialEq, NoUninit)]
#[repr(transparent)]
pub(crate) struct Watched(pub(crate) u32);

// SAFETY: any bits are a valid `u32`.
unsafe impl CheckedBitPattern for Watched {
    type Bits = u32;
    fn is_valid_bit_pattern(bits: &u32) -> bool {
        assert_ne!(*bits, 3, "the third item is not checked");
        let engine = ASKED.lock().unwrap().upgrade();
        engine.is_none_or(|engine| *bits != 5 || engine.stats().open < 100)
    }
}

impl arenite::Scalar for Watched {}
