//! Memory filled by many lanes of one worker, also while it is killed.

use std::collections::VecDeque;
use std::iter;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use arenite::{Array, ArrayMut, Job, TileMut};

use super::lanes;
use crate::harness::{Gate, Lab, at_gates, pass, step, tests};

tests![
    a_grant_may_cover_a_range_that_another_lane_used_up,
    empty_arrays_need_no_memory,
    tiles_in_one_page_are_written_by_many_lanes,
    a_lent_array_stays_writable_when_its_maker_goes_on,
];

/// Results that each fill a grant and are dropped at once, so that another lane is granted the same range before the
/// first has left it. The first leaves it while the other still writes in one of ten thousand jobs.
fn a_grant_may_cover_a_range_that_another_lane_used_up() {
    fn slowly(n: u32) -> Array<u32> {
        Array::from_fn([20, 41_000, 82_000][n as usize % 3], |i| {
            if i % 1024 == 0 {
                thread::yield_now();
            }
            i as u32 ^ n
        })
    }
    const JOBS: u32 = 20_000;
    // On a busy machine each yield may take a time slice.
    const ENOUGH: Duration = Duration::from_secs(10);
    let lab = lanes(1, 3);
    let mut waiting = VecDeque::new();
    let start = Instant::now();
    for n in (0..JOBS).take_while(|_| start.elapsed() < ENOUGH) {
        waiting.push_back(lab.submit(slowly, (n,)));
        if waiting.len() > 5 {
            waiting.pop_front().map(Job::wait).unwrap().unwrap();
        }
    }
    waiting
        .into_iter()
        .for_each(|job| drop(job.wait().unwrap()));
    assert_eq!(lab.stats().restarts(), 0);
    lab.assert_in_use(0);
}

/// Empty arrays can be made without free memory, in lanes that never had a grant.
fn empty_arrays_need_no_memory() {
    fn empty(gate: &str) -> Array<u64> {
        pass(gate);
        Array::from_slice(&[])
    }
    let lab = Lab::with(1, |builder| builder.lanes(3).capacity(4 << 20));
    let all = iter::from_fn(|| lab.zeros::<u8>(64 << 10).ok());
    let all: Vec<_> = all.collect();
    let (jobs, held) = at_gates(3, |gate| lab.submit(empty, (gate,)));
    drop(held);
    for job in jobs {
        assert_eq!(job.wait().unwrap().len(), 0);
    }
    drop(all);
    lab.assert_in_use(0);
}

/// Tiles that lie in one page are written at the same time, by lanes of one worker and by two workers.
fn tiles_in_one_page_are_written_by_many_lanes() {
    fn fill(mut tile: TileMut<'_, u8>, rounds: u8) {
        for round in 0..=rounds {
            tile.iter_mut().for_each(|x| *x = round);
            thread::yield_now();
        }
    }
    for lab in [Lab::new(2), lanes(1, 8)] {
        for len in [10, 64, 4096, 5000, 40_000] {
            let mut out = lab.zeros::<u8>(len).unwrap();
            for rounds in [1, 20] {
                lab.scope(|s| {
                    for tile in out.tiles_mut(32) {
                        s.submit(fill, (tile, rounds));
                    }
                })
                .unwrap();
                assert!(out.iter().all(|&x| x == rounds));
            }
        }
        lab.assert_in_use(0);
    }
}

/// Makes an array in the current grant of its lane, once both lanes run this.
fn make(len: usize) -> ArrayMut<u8> {
    static BOTH: Barrier = Barrier::new(2);
    BOTH.wait();
    ArrayMut::zeros(len)
}

fn a_lent_array_stays_writable_when_its_maker_goes_on() {
    fn write(gate: &str, mut a: TileMut<'_, u8>, mut b: TileMut<'_, u8>) {
        pass(gate);
        a.fill(1);
        b.fill(2);
    }
    // Whole pages, so that they are lent in place.
    const LEN: usize = 64 << 10;
    let lab = lanes(1, 2);
    let both = [(); 2].map(|()| lab.submit(make, (LEN,)));
    let [mut a, mut b] = both.map(|job| job.wait().unwrap());
    let gate = Gate::new();
    lab.scope(|scope| {
        let writes = scope.submit(write, (&gate.path(), a.as_tile_mut(), b.as_tile_mut()));
        let held = gate.meet();
        // Makes the other lane, which has made one of them, enter further grants.
        step("results of the other lane");
        for _ in 0..100 {
            let made = lab.submit(|len: usize| Array::<u8>::zeros(len), (1usize << 20,));
            assert_eq!(made.wait().unwrap().len(), 1 << 20);
        }
        drop(held);
        writes.wait().unwrap();
    })
    .unwrap();
    assert!(a.iter().all(|&x| x == 1) && b.iter().all(|&x| x == 2));
    drop((a, b));
    lab.assert_in_use(0);
}
