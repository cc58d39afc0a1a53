//! A kernel over an iterator: in order and as they end, stopping and going on, reports, waiting for any and for all;
//! and reports on whole arrays.

mod letters;
mod reports;
mod results;
mod rows;
mod sources;
mod waiting;

use std::sync::{Mutex, Weak};

use arenite::Engine;
use bytemuck::{CheckedBitPattern, NoUninit};

use crate::harness::pass;

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

/// A gate in front of those items that have one.
fn through(gate: &str, n: u64) -> u64 {
    if !gate.is_empty() {
        pass(gate);
    }
    n
}

fn odd(n: u64) -> Result<u64, String> {
    match n {
        13 => panic!("unlucky"),
        n if n.is_multiple_of(10) => Err(format!("{n} ends in 0")),
        n => Ok(n),
    }
}

/// The engine that fives are compared with.
pub(crate) static ASKED: Mutex<Weak<Engine>> = Mutex::new(Weak::new());

/// A number that is looked at by code of its own.
#[derive(Clone, Copy, Debug, PartialEq, NoUninit)]
#[repr(transparent)]
pub(crate) struct Watched(pub(crate) u32);

// SAFETY: as for `u32`: any bits are one.
unsafe impl CheckedBitPattern for Watched {
    type Bits = u32;
    fn is_valid_bit_pattern(bits: &u32) -> bool {
        assert_ne!(*bits, 3, "three is not looked at");
        let engine = ASKED.lock().unwrap().upgrade();
        engine.is_none_or(|engine| *bits != 5 || engine.stats().open < 100)
    }
}

impl arenite::Scalar for Watched {}
