//! The allocator with 100,000 live blocks: an alloc and a free must stay below a microsecond each.
//!
//! `cargo bench --bench alloc` prints the time of a turn, which is two operations: each drops a block at random and allocates another
//! in its place, so that the number of live blocks stays.

use std::hint::black_box;
use std::time::{Duration, Instant};

use arenite::arena::{Arena, Backing, Block, Placement, Spec};
use criterion::{Criterion, Throughput, criterion_group};

const LIVE: usize = 100_000;

/// Sizes as jobs make them: many small ones, some of pages, a few large.
fn size(random: u64) -> u64 {
    match random % 100 {
        0..70 => 64 + random / 100 % 4_000,
        70..97 => 4_000 + random / 100 % 28_000,
        _ => 65_536 + random / 100 % 200_000,
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn live(criterion: &mut Criterion) {
    let spec = Spec {
        capacity: 4 << 30,
        backing: Backing::Memfd,
        ..Spec::default()
    };
    let arena = Arena::create(&spec).expect("an arena of 4 GiB");
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let place = |len| {
        arena
            .alloc(0, len, Placement::Packed)
            .expect("100,000 blocks take less than 4 GiB")
    };
    let mut blocks: Vec<Block> = (0..LIVE).map(|_| place(size(random.next()))).collect();
    let turn = |blocks: &mut Vec<Block>, random: &mut Random| {
        let at = (random.next() % LIVE as u64) as usize;
        drop(blocks.swap_remove(at));
        blocks.push(black_box(place(size(random.next()))));
    };
    // Holes everywhere, as after a long run.
    for _ in 0..5 * LIVE {
        turn(&mut blocks, &mut random);
    }
    let mut group = criterion.benchmark_group("alloc-100k-live");
    group.throughput(Throughput::Elements(2));
    group.bench_function("mixed-sizes", |bencher| {
        bencher.iter(|| turn(&mut blocks, &mut random));
    });
    group.bench_function("same-size", |bencher| {
        bencher.iter(|| drop(black_box(place(10_000))));
    });
    group.finish();
}

/// Memory committed again after a trim: what a large array costs beyond its bytes, before the first of them is written.
fn commit(criterion: &mut Criterion) {
    const LEN: u64 = 1 << 30;
    let spec = Spec {
        capacity: 2 << 30,
        backing: Backing::Memfd,
        ..Spec::default()
    };
    let arena = Arena::create(&spec).expect("an arena of 2 GiB");
    let mut group = criterion.benchmark_group("commit-1gib");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(LEN));
    for (name, huge) in [("huge", true), ("small", false)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let mut time = Duration::ZERO;
                for _ in 0..count {
                    let began = Instant::now();
                    let block = arena.grant(0, LEN, huge).expect("1 GiB of 2");
                    time += began.elapsed();
                    drop(block);
                    arena.trim();
                }
                time
            });
        });
    }
    group.finish();
    println!("{:#?}", arena.stats());
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = live, commit
}

fn main() {
    // First of all, as in every program that has arenas.
    arenite::init();

    benches();
    Criterion::default().configure_from_args().final_summary();
}
