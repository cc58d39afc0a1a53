//! Scopes: jobs that borrow, and have ended when the scope ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use arenite::{Array, ArrayMut, JobErrorKind, TileMut};

use crate::harness::{ABORTED, Calls, Gate, Lab, assert_says, pass, step, tests, wait_until};

tests![
    a_tile_knows_its_rows,
    a_whole_array_is_lent_and_comes_back,
    a_scope_returns_values_and_a_result,
    a_scope_ends_with_its_jobs_even_when_it_panics,
    a_scope_works_in_a_destructor,
    the_first_failure_cancels_the_rest,
    a_scope_within_a_scope,
    a_worker_that_dies_in_a_tile,
    a_lent_array_returns_only_after_the_workers_exit,
    handles_may_outlive_their_scope,
    results_without_a_handle_are_dropped,
    jobs_without_a_handle_are_forgotten,
];

fn number(mut tile: TileMut<'_, u32>, by: u32) {
    let width = tile.shape().row_len().unwrap();
    let first = tile.rows().start * width;
    for (i, x) in tile.iter_mut().enumerate() {
        *x = (first + i) as u32 * by;
    }
}

fn a_tile_knows_its_rows() {
    fn rows(tile: TileMut<'_, u8>) -> (u64, u64, u64) {
        (
            tile.rows().start as u64,
            tile.rows().end as u64,
            tile.len() as u64,
        )
    }
    let lab = Lab::new(2);
    let mut out = lab.zeros::<u8>([7, 2, 3]).unwrap();
    let seen = lab.scope(|s| {
        let jobs: Vec<_> = out
            .tiles_mut(3)
            .map(|tile| s.submit(rows, (tile,)))
            .collect();
        jobs.into_iter()
            .map(|job| job.wait().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(seen.unwrap(), [(0, 3, 18), (3, 6, 18), (6, 7, 6)]);
}

fn a_whole_array_is_lent_and_comes_back() {
    fn double(values: &mut [u64]) {
        values.iter_mut().for_each(|x| *x *= 2);
    }
    fn reverse(mut values: TileMut<'_, u64>, also: &Array<u64>) -> u64 {
        values.reverse();
        also.iter().sum()
    }
    let lab = Lab::balanced(2);
    let also = lab.from_slice(&[1u64, 2]).unwrap();
    for len in [0, 1, 100, 100_000usize] {
        let mut values = lab.zeros::<u64>(len).unwrap();
        values.iter_mut().zip(0..).for_each(|(to, n)| *to = n);
        lab.scope(|s| {
            s.submit(double, (&mut values,));
        })
        .unwrap();
        let sum = lab
            .scope(|s| s.submit(reverse, (&mut values, &also)).wait())
            .unwrap();
        assert_eq!(sum.unwrap(), 3);
        assert!(values.iter().rev().zip(0..).all(|(&x, n)| x == 2 * n));
    }
    // An array made by one worker is lent to another.
    let mut made = lab.value_of(|n: usize| ArrayMut::from_fn(n, |i| i as u64), (5,));
    lab.scope(|s| {
        s.submit(double, (&mut made,));
    })
    .unwrap();
    assert_eq!(made[..], [0, 2, 4, 6, 8]);
}

fn a_scope_returns_values_and_a_result() {
    let lab = Lab::new(2);
    let sum = lab.scope(|s| {
        let jobs: Vec<_> = (0..100u32).map(|n| s.submit(|n: u32| n, (n,))).collect();
        jobs.into_iter().map(|job| job.wait().unwrap()).sum::<u32>()
    });
    assert_eq!(sum.unwrap(), 4950);
    assert_eq!(lab.scope(|_| 5).unwrap(), 5);
    // The scope fails even if its own code has handled the failure.
    let result = lab.scope(|s| s.submit(|| Err::<u8, _>("no"), ()).wait().is_err());
    assert_eq!(
        *result.unwrap_err().kind(),
        JobErrorKind::Returned("no".into())
    );
}

fn a_scope_works_in_a_destructor() {
    /// Writes its array when it is dropped, for whatever reason.
    struct Flushes<'a>(&'a Lab, &'a mut ArrayMut<u32>);
    impl Drop for Flushes<'_> {
        fn drop(&mut self) {
            let written = self.0.scope(|scope| {
                for tile in self.1.tiles_mut(1) {
                    scope.submit(number, (tile, 1));
                }
            });
            written.unwrap();
        }
    }
    let lab = Lab::balanced(1);
    let mut out = lab.zeros::<u32>([2000, 10]).unwrap();
    let panics = catch_unwind(AssertUnwindSafe(|| {
        let _flushes = Flushes(&lab, &mut out);
        panic!("while it is there");
    }));
    panics.unwrap_err();
    assert!(out.iter().zip(0..).all(|(&x, n)| x == n));
}

fn a_scope_ends_with_its_jobs_even_when_it_panics() {
    fn slow(gate: &str, values: &mut [u8]) {
        pass(gate);
        values.fill(1);
    }
    let lab = Lab::new(1);
    let gate = Gate::new();
    let mut values = lab.zeros::<u8>(100).unwrap();
    let mut others = lab.zeros::<u8>(100).unwrap();
    thread::scope(|threads| {
        let lab = &lab;
        let (values, others) = (&mut values, &mut others);
        let gate = &gate;
        let (hand_out, held) = std::sync::mpsc::channel();
        let panics = threads.spawn(move || {
            catch_unwind(AssertUnwindSafe(|| {
                lab.scope(|s| {
                    s.submit(slow, (&gate.path(), values));
                    s.submit(|values: &mut [u8]| values.fill(2), (others,));
                    hand_out.send(gate.meet()).unwrap();
                    panic!("in the scope");
                })
            }))
        });
        let held = held.recv().unwrap();
        // Cancelled, because the panic is noticed before the jobs are waited for.
        wait_until("the one at the gate is alone", || {
            let stats = lab.stats();
            stats.open + stats.queued == 1
        });
        assert!(
            !panics.is_finished(),
            "the scope waits for the job that has the array"
        );
        drop(held);
        step("the scope's panic");
        let text = *panics
            .join()
            .unwrap()
            .unwrap_err()
            .downcast::<&str>()
            .unwrap();
        assert_eq!(text, "in the scope");
    });
    assert!(
        values.iter().all(|&x| x == 1),
        "the job that ran was waited for"
    );
    assert!(
        others.iter().all(|&x| x == 0),
        "the one that had not begun did not"
    );
    drop((values, others));
    lab.assert_in_use(0);
}

fn the_first_failure_cancels_the_rest() {
    fn fail() -> Result<(), &'static str> {
        Err("first")
    }
    /// Waits for a byte, so that jobs after a failure are not done before the failure is seen.
    fn slow(tile: &mut [u8], pipe: &str) {
        let mut pipe = std::fs::File::open(pipe).unwrap();
        std::io::Read::read_exact(&mut pipe, &mut [0]).unwrap();
        tile.fill(1);
    }
    let lab = Lab::balanced(1);
    let gate = Gate::new();
    // Opened for both, so that opening it does not block.
    let open = std::fs::File::options()
        .read(true)
        .write(true)
        .open(gate.path());
    let mut pipe = open.unwrap();
    let mut out = lab.zeros::<u8>(500).unwrap();
    thread::scope(|threads| {
        let (lab, out) = (&lab, &mut out);
        let path = gate.path();
        let scope = threads.spawn(move || {
            lab.scope(|s| {
                s.submit(fail, ());
                for tile in out.tiles_mut(1) {
                    s.submit(slow, (tile, &path));
                }
            })
        });
        wait_until("the failure has cancelled what had not begun", || {
            let stats = lab.stats();
            stats.workers[0].jobs > 0 && stats.open + stats.queued <= 1
        });
        // For the job that had begun by then, if any.
        std::io::Write::write_all(&mut pipe, b"x").unwrap();
        step("the scope to end");
        let error = scope.join().unwrap().unwrap_err();
        assert_eq!(*error.kind(), JobErrorKind::Returned("first".into()));
    });
    let ran = out.iter().filter(|&&x| x == 1).count();
    assert!(ran <= 1, "{ran} jobs behind the failure have run");
    // Nothing that is submitted after a failure was seen runs at all.
    let result = lab.scope(|s| {
        s.submit(fail, ()).wait().unwrap_err();
        for tile in out.tiles_mut(1) {
            s.submit(|tile: &mut [u8]| tile.fill(2), (tile,));
        }
    });
    assert_eq!(
        *result.unwrap_err().kind(),
        JobErrorKind::Returned("first".into())
    );
    assert!(out.iter().all(|&x| x != 2));
}

fn a_scope_within_a_scope() {
    let lab = Lab::new(2);
    let (mut outer, mut inner) = (
        lab.zeros::<u32>([40, 100]).unwrap(),
        lab.zeros::<u32>([40, 100]).unwrap(),
    );
    lab.scope(|s| {
        for tile in outer.tiles_mut(3) {
            s.submit(number, (tile, 2));
        }
        lab.scope(|s| {
            for tile in inner.tiles_mut(7) {
                s.submit(number, (tile, 3));
            }
        })
        .unwrap();
        assert!(
            inner.iter().zip(0..).all(|(&x, n)| x == 3 * n),
            "the inner one has ended"
        );
        // What an inner scope has finished may be read by jobs of the outer one.
        s.submit(
            |values: &[u32]| values.len(),
            (&lab.from_slice(&inner).unwrap(),),
        )
        .wait()
        .unwrap()
    })
    .unwrap();
    assert!(outer.iter().zip(0..).all(|(&x, n)| x == 2 * n));
}

fn a_worker_that_dies_in_a_tile() {
    fn fill_or_die(mut tile: TileMut<'_, u8>, victim: usize) {
        let here = tile.rows().contains(&victim);
        tile.fill(1);
        if here {
            std::process::abort();
        }
    }
    let lab = Lab::balanced(2);
    let mut out = lab.zeros::<u8>([100, 5000]).unwrap();
    let result = lab.scope(|s| {
        for tile in out.tiles_mut(10) {
            s.submit(fill_or_die, (tile, 95));
        }
    });
    let error = result.unwrap_err();
    assert_eq!(*error.kind(), ABORTED);
    assert_eq!(error.unspecified_rows(), std::slice::from_ref(&(90..100)));
    assert_says(&error, "rows 90..100");
    // The array lives on, and its content is initialised.
    assert!(out.iter().all(|&x| x <= 1));
    lab.scope(|s| {
        out.tiles_mut(10)
            .for_each(|tile| drop(s.submit(fill_or_die, (tile, 1000))))
    })
    .unwrap();
    assert!(out.iter().all(|&x| x == 1));
}

fn a_lent_array_returns_only_after_the_workers_exit() {
    fn scribble(_: &mut [u8]) {
        std::process::abort();
    }
    let lab = Lab::balanced(1);
    let mut out = lab.zeros::<u8>(100_000).unwrap();
    for _ in 0..5 {
        let pid = lab.pid(0);
        let restarts = lab.stats().workers[0].restarts;
        let result = lab.scope(|s| drop(s.submit(scribble, (&mut out,))));
        assert!(
            !crate::harness::children().contains(&pid),
            "worker {pid} still exists"
        );
        assert_eq!(*result.unwrap_err().kind(), ABORTED);
        lab.await_restart(0, restarts + 1);
    }
}

fn handles_may_outlive_their_scope() {
    let lab = Lab::new(1);
    let mut out = lab.zeros::<u32>([10, 10]).unwrap();
    lab.scope(|s| {
        for tile in out.tiles_mut(1) {
            std::mem::forget(s.submit(number, (tile, 1)));
        }
    })
    .unwrap();
    assert!(out.iter().zip(0..).all(|(&x, n)| x == n));
}

fn results_without_a_handle_are_dropped() {
    let lab = Lab::balanced_with(2, |builder| builder.capacity(64 << 20));
    step("a thousand mebibytes at once");
    lab.scope(|s| {
        for _ in 0..1000 {
            s.submit(|| Array::<u8>::zeros(1 << 20), ());
        }
    })
    .unwrap();
    lab.assert_in_use(0);
    step("while the scope goes on");
    lab.scope(|s| {
        for _ in 0..100 {
            for _ in 0..9 {
                s.submit(|| Array::<u8>::zeros(1 << 20), ());
            }
            s.submit(|| Array::<u8>::zeros(1 << 20), ()).wait().unwrap();
        }
    })
    .unwrap();
}

/// Their failures are not forgotten.
fn jobs_without_a_handle_are_forgotten() {
    fn odd(n: u32) -> Result<u32, String> {
        if n % 1000 == 7 {
            Err(n.to_string())
        } else {
            Ok(n)
        }
    }
    let lab = Lab::balanced(1);
    let (most, errors) = lab.scope_collect(|s| {
        let open = || {
            let text = format!("{s:?}");
            let digits = text.chars().filter(char::is_ascii_digit);
            digits.collect::<String>().parse::<usize>().unwrap()
        };
        let rounds = (0..1000).map(|round| {
            for n in 0..99 {
                s.submit(odd, (100 * round + n,));
            }
            // The jobs before it have ended by then.
            s.submit(odd, (99,)).wait().unwrap();
            open()
        });
        rounds.max().unwrap()
    });
    assert!(most < 1000, "{most} of 100,000 were kept");
    assert_eq!(errors.len(), 100);
    let said = errors.iter().map(|error| match error.kind() {
        JobErrorKind::Returned(n) => n.text().parse::<u32>().unwrap(),
        kind => panic!("{kind}"),
    });
    assert!(said.eq((0..100).map(|n| 1000 * n + 7)));
}
