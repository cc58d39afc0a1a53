//! Kernels that allocate private memory without bound.

use std::time::Instant;

use arenite::{Array, JobErrorKind, JobLimit};

use super::super::lab::{Invariant, Lab, step};
use super::{Dice, Order, Seen};

const LIMIT: u64 = 64 << 20;

fn hoard(piece: usize) -> u32 {
    let mut pieces = Vec::new();
    loop {
        pieces.push(vec![1u8; piece]);
        std::hint::black_box(&pieces);
    }
}

fn large(len: usize) -> Array<u8> {
    Array::from_fn(len, |i| i as u8)
}

/// The worker reaches its ceiling and is replaced. Pages of the arena do not count.
pub fn run(order: Order) -> Result<Seen, String> {
    let invariant = Invariant::before();
    let lab = Lab::with(2, |builder| builder.memory_limit(LIMIT));
    let mut dice = Dice::new(order.seed);
    let end = Instant::now() + order.length;
    let mut seen = Seen::default();
    while seen.faults == 0 || Instant::now() < end {
        step("a kernel that takes all memory");
        let piece = 1 << (10 + dice.below(14));
        match lab.submit(hoard, (piece,)).wait() {
            Err(error) if matches!(error.kind(), JobErrorKind::Limit(JobLimit::Memory { limit, .. }) if *limit == LIMIT) =>
                {}
            other => return Err(format!("pieces of {piece} bytes: {other:?}")),
        }
        step("an array larger than the ceiling");
        let len = (LIMIT + LIMIT / 4) as usize;
        match lab.submit(large, (len,)).wait() {
            Ok(array) if array.len() == len && array[len - 1] == (len - 1) as u8 => {}
            other => return Err(format!("an array of {len} bytes: {other:?}")),
        }
        seen.faults += 1;
        seen.jobs += 2;
    }
    invariant.ends(lab)?;
    Ok(seen)
}
