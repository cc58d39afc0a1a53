//! Measures an allocation and a free with 100,000 live blocks, and committing memory again after a trim.
//!
//! Not run by default: these tests measure and assert nothing.
//! `cargo test --release -p arenite --lib arena::tests::speed -- --ignored --nocapture --test-threads=1`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::arena::{Arena, Backing, Block, BlockPlacement, Spec};

const LIVE_BLOCKS: usize = 100_000;
const ROUNDS: u32 = 1_000_000;

fn arena(capacity: u64) -> Arc<Arena> {
    let spec = Spec {
        capacity,
        backing: Backing::Memfd,
        ..Spec::default()
    };
    Arena::create(&spec).unwrap()
}

/// Typical sizes of jobs: mostly small ones, some of a few pages, a few large.
fn size(random: u64) -> u64 {
    match random % 100 {
        0..70 => 64 + random / 100 % 4_000,
        70..97 => 4_000 + random / 100 % 28_000,
        _ => 65_536 + random / 100 % 200_000,
    }
}

/// A xorshift generator, with the same sequence on each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Prints the time of one operation; a round is an allocation and a free.
fn time_rounds(what: &str, mut round: impl FnMut()) {
    let start = Instant::now();
    for _ in 0..ROUNDS {
        round();
    }
    println!("{what}: {:?}", start.elapsed() / (2 * ROUNDS));
}

#[test]
#[ignore = "measures for some seconds"]
fn alloc_and_free_with_100_000_live_blocks() {
    let arena = arena(4 << 30);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let alloc = |len| arena.alloc(0, len, BlockPlacement::Packed).unwrap();
    let mut blocks: Vec<Block> = (0..LIVE_BLOCKS)
        .map(|_| alloc(size(random.next())))
        .collect();
    let mut replace_one = || {
        let at = (random.next() % LIVE_BLOCKS as u64) as usize;
        drop(blocks.swap_remove(at));
        blocks.push(black_box(alloc(size(random.next()))));
    };
    // Fragments the free memory, as a long run does.
    for _ in 0..5 * LIVE_BLOCKS {
        replace_one();
    }
    time_rounds("mixed sizes", replace_one);
    time_rounds("one size", || drop(black_box(alloc(10_000))));
}

/// The cost of a large array before its first byte is written.
#[test]
#[ignore = "measures for some seconds"]
fn commit_of_1_gib_after_a_trim() {
    const TIMES: u32 = 10;
    let arena = arena(2 << 30);
    for (what, huge) in [("huge pages", true), ("small pages", false)] {
        let mut time = Duration::ZERO;
        for _ in 0..TIMES {
            let start = Instant::now();
            let block = arena.grant(0, 1 << 30, huge).unwrap();
            time += start.elapsed();
            drop(block);
            arena.trim();
        }
        println!("{what}: {:?}", time / TIMES);
    }
    println!("{:#?}", arena.stats());
}
