//! Jobs of a scope that need a permit of a limiter.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use arenite::{Engine, JobErrorKind, JobOptions, Limiter, TileMut};
use nix::sys::signal::Signal;

use crate::harness::{Gate, KILLED, Lab, assert_kind, pass, send_signal, step, tests, wait_until};

tests![
    tiles_share_a_limit_with_others,
    a_death_returns_the_permit,
    a_cancelled_scope_does_not_wait_for_permits,
    without_workers_a_job_runs_when_it_is_submitted,
];

fn one() -> Limiter {
    Limiter::new().concurrency(1)
}

fn fill(mut tile: TileMut<'_, u32>, by: u32) {
    let first = tile.rows().start as u32;
    for (i, x) in tile.iter_mut().enumerate() {
        *x = by * (first + i as u32);
    }
}

fn fill_at(gate: &str, tile: TileMut<'_, u32>) {
    pass(gate);
    fill(tile, 1);
}

/// While another job has the permit, none of them begins.
fn tiles_share_a_limit_with_others() {
    let lab = Lab::new(2);
    let (one, gate) = (one(), Gate::new());
    let mut out = lab.zeros::<u32>(1000).unwrap();
    let first = lab.job(pass, (&gate.path(),)).limit(&one).submit();
    let held = gate.meet();
    step("100 tiles, one at a time");
    lab.scope(|s| {
        for tile in out.tiles_mut(10) {
            s.submit_with(&JobOptions::new().limit(&one), fill, (tile, 1));
        }
        assert_eq!(lab.stats().limited, 100);
        drop(held);
    })
    .unwrap();
    first.wait().unwrap();
    assert!(out.iter().zip(0..).all(|(&x, i)| x == i));
    drop(out);
    lab.assert_in_use(0);
}

fn a_death_returns_the_permit() {
    let lab = Lab::new(2);
    let (one, gate) = (one(), Gate::new());
    let mut out = lab.zeros::<u32>(40).unwrap();
    let result = lab.scope(|s| {
        for tile in out.tiles_mut(10) {
            s.submit_with(
                &JobOptions::new().limit(&one),
                fill_at,
                (&gate.path(), tile),
            );
        }
        let held = gate.meet();
        assert_eq!(lab.stats().limited, 3);
        let pid = lab.pid(lab.busy_worker());
        send_signal(pid, Signal::SIGKILL);
        wait_until("the queue is empty", || lab.stats().limited == 0);
        drop(held);
    });
    let error = result.unwrap_err();
    assert_eq!(*error.kind(), KILLED, "{error}");
    assert!(matches!(error.unspecified_rows(), [rows] if *rows == (0..10)));
    assert!(out[10..].iter().all(|&x| x == 0), "the others never began");
    // The permit and the rows are free for the next scope.
    step("the next scope");
    lab.scope(|s| {
        for tile in out.tiles_mut(10) {
            s.submit_with(&JobOptions::new().limit(&one), fill, (tile, 2));
        }
    })
    .unwrap();
    assert!(out.iter().zip(0..).all(|(&x, i)| x == i * 2));
    drop(out);
    lab.assert_in_use(0);
}

fn a_cancelled_scope_does_not_wait_for_permits() {
    let lab = Lab::new(2);
    let (one, gate) = (one(), Gate::new());
    let first = lab.job(pass, (&gate.path(),)).limit(&one).submit();
    let held = gate.meet();
    let mut out = lab.zeros::<u32>(40).unwrap();
    step("a scope whose jobs never get a permit");
    let result = lab.scope(|s| {
        for tile in out.tiles_mut(10) {
            s.submit_with(&JobOptions::new().limit(&one), fill, (tile, 1));
        }
        s.cancel();
    });
    assert_eq!(*result.unwrap_err().kind(), JobErrorKind::Cancelled);
    assert_eq!(lab.stats().limited, 0);
    assert!(out.iter().all(|&x| x == 0));
    drop(held);
    first.wait().unwrap();
    drop(out);
    lab.assert_in_use(0);
}

fn without_workers_a_job_runs_when_it_is_submitted() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    fn count(fails: bool) -> Result<u32, String> {
        let n = RUNS.fetch_add(1, SeqCst);
        if fails { Err("it is to".into()) } else { Ok(n) }
    }
    let engine = Engine::inline();
    let one = one();
    let result = engine.scope(|s| {
        let one = JobOptions::new().limit(&one);
        assert_eq!(RUNS.load(SeqCst), 0);
        let first = s.submit_with(&one, count, (false,));
        assert_eq!(RUNS.load(SeqCst), 1);
        let second = s.submit_with(&one, count, (false,));
        assert_eq!((first.wait().unwrap(), second.wait().unwrap()), (0, 1));
        s.submit_with(&one, count, (true,)).wait().unwrap_err();
        let error = s.submit_with(&one, count, (false,)).wait().unwrap_err();
        assert_eq!(*error.kind(), JobErrorKind::Cancelled);
    });
    assert_kind!(result.unwrap_err(), JobErrorKind::Returned(_));
    assert_eq!(RUNS.load(SeqCst), 3);
    // The permit is free again.
    let next = engine.job(count, (false,)).limit(&one).submit();
    assert_eq!(next.wait().unwrap(), 3);
}
