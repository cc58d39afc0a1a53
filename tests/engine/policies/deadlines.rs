//! Jobs that take too long.

use std::time::{Duration, Instant};

use arenite::{Array, JobErrorKind, JobOptions, TileMut};
use nix::sys::signal::Signal;

use crate::harness::{
    Diary, Gate, KILLED, Lab, assert_says, block_on, hang, late, note, pass, send_signal, step,
    tests, wait_until,
};

tests![
    a_stopped_worker_is_ended,
    the_clock_starts_when_the_worker_is_free,
    a_deadline_starts_without_a_waiter,
    jobs_behind_a_killed_one_run_once_and_in_order,
    a_scope_names_the_rows,
    a_detached_job_ends_at_its_deadline,
    an_engine_with_running_clocks_can_be_dropped,
    a_deadline_of_zero_affects_no_other_job,
    a_job_may_take_nearly_all_its_time,
];

const SHORT: Duration = Duration::from_millis(30);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// Before it has the job; `storms` stops workers at other times.
fn a_stopped_worker_is_ended() {
    let lab = Lab::balanced(1);
    for _ in 0..3 {
        wait_until("the worker is ready", || lab.stats().workers[0].ready);
        send_signal(lab.pid(0), Signal::SIGSTOP);
        let job = lab.job(|| 1u8, ()).deadline(SHORT).submit();
        assert_eq!(*lab.failure_of(job).kind(), late(SHORT));
    }
}

fn the_clock_starts_when_the_worker_is_free() {
    let lab = Lab::new(1);
    // Also for a job that begins late on a busy machine.
    let mut limit = Duration::from_millis(200);
    loop {
        let gate = Gate::new();
        let first = lab.submit(pass, (&gate.path(),));
        let second = lab.job(|| 2u8, ()).deadline(limit).submit();
        let held = gate.meet();
        let (from, restarts) = (Instant::now(), lab.stats().restarts());
        wait_until("the limit is over while it waits", || {
            from.elapsed() > limit + SHORT
        });
        assert!(!second.is_done(), "it has not begun");
        assert_eq!(lab.stats().restarts(), restarts);
        drop(held);
        first.wait().unwrap();
        match second.wait() {
            Ok(value) => break assert_eq!(value, 2),
            Err(error) => assert_eq!(*error.kind(), late(limit)),
        }
        limit *= 2;
    }
}

/// No thread drains the lane in between: the monitor must be notified of the earlier job's end.
fn a_deadline_starts_without_a_waiter() {
    let lab = Lab::new(1);
    for taken_back in [false, true] {
        let gate = Gate::new();
        let first = lab.submit(pass, (&gate.path(),));
        let between = lab.submit(|| 0u8, ());
        let hung = lab.job(hang, ()).deadline(SHORT).submit();
        let held = gate.meet();
        if taken_back {
            drop(between);
        } else {
            between.detach();
        }
        first.detach();
        drop(held);
        step("the answer of a job that only a future waits for");
        assert_eq!(*block_on(hung).unwrap_err().kind(), late(SHORT));
    }
}

/// However it is killed; what had ended before is a result.
fn jobs_behind_a_killed_one_run_once_and_in_order() {
    fn begin_and_hang(diary: &str) {
        note(diary, "begun");
        hang();
    }
    fn read(diary: &str, n: u32, input: &Array<u8>) -> Array<u32> {
        note(diary, n);
        Array::from_slice(&[u32::from(input[0]) * n])
    }
    let lab = Lab::balanced(1);
    let input = lab.from_slice(&[3u8; 100_000]).unwrap();
    for how in ["by its handle", "at its deadline", "from outside"].repeat(2) {
        step(how);
        let (begun, diary) = (Diary::new(), Diary::new());
        let first = lab.submit(read, (diary.path(), 1000, &input));
        let limit = if how == "at its deadline" {
            SHORT
        } else {
            LONG
        };
        let hung = lab.job(begin_and_hang, (begun.path(),));
        let hung = hung.deadline(limit).submit();
        // More than the slots of a link. Some have a deadline themselves.
        let behind: Vec<_> = (0..600)
            .map(|n| match lab.job(read, (diary.path(), n, &input)) {
                job if n % 100 == 0 => job.deadline(LONG).submit(),
                job => job.submit(),
            })
            .collect();
        let runs = || wait_until("it runs", || !begun.lines().is_empty());
        let expected = match how {
            "at its deadline" => late(SHORT),
            "by its handle" => {
                runs();
                hung.kill();
                JobErrorKind::Cancelled
            }
            _ => {
                runs();
                send_signal(lab.pid(0), Signal::SIGKILL);
                KILLED
            }
        };
        assert_eq!(*lab.failure_of(hung).kind(), expected);
        for (n, job) in (0..).zip(behind) {
            assert_eq!(job.wait().unwrap()[..], [3 * n]);
        }
        assert_eq!(first.wait().unwrap()[..], [3000]);
        let expected: Vec<u32> = std::iter::once(1000).chain(0..600).collect();
        assert_eq!(diary.numbers(), expected);
    }
}

/// Rows that the job may write are returned only after its process is gone.
fn a_scope_names_the_rows() {
    fn fill(mut tile: TileMut<'_, u32>) {
        let first = tile.rows().start;
        tile.fill(1);
        if first == 2000 {
            loop {
                tile.iter_mut().for_each(|x| *x = x.wrapping_add(1));
            }
        }
    }
    let lab = Lab::balanced(2);
    let mut out = lab.zeros::<u32>(4000).unwrap();
    for _ in 0..3 {
        let error = lab
            .scope(|s| {
                for (n, tile) in out.tiles_mut(1000).enumerate() {
                    // The others finish, however long that takes.
                    let limit = if n == 2 { SHORT } else { LONG };
                    s.submit_with(&JobOptions::new().deadline(limit), fill, (tile,));
                }
            })
            .unwrap_err();
        assert_eq!(*error.kind(), late(SHORT), "{error}");
        assert_eq!(
            error.unspecified_rows(),
            std::slice::from_ref(&(2000..3000))
        );
        out.fill(5);
        assert!((0..100).all(|_| out.iter().all(|&x| x == 5)));
    }
}

fn a_detached_job_ends_at_its_deadline() {
    let lab = Lab::balanced(1);
    lab.job(hang, ()).deadline(SHORT).submit().detach();
    step("a job that can only run when the hung one is gone");
    assert_eq!(block_on(lab.submit(|| 4u8, ())).unwrap(), 4);
    // Nor does it continue because its handle was dropped.
    let job = lab.job(hang, ()).deadline(SHORT).submit();
    wait_until("it runs", || job.is_running() || job.is_done());
    drop(job);
    assert_eq!(block_on(lab.submit(|| 5u8, ())).unwrap(), 5);
    assert_eq!(lab.stats().workers[0].restarts, 2);
}

fn an_engine_with_running_clocks_can_be_dropped() {
    for limit in [Duration::ZERO, SHORT, LONG, Duration::MAX] {
        let lab = Lab::new(2);
        let jobs: Vec<_> = (0..10)
            .map(|_| lab.job(hang, ()).deadline(limit).submit())
            .collect();
        drop(lab);
        for job in jobs {
            let error = job.wait().unwrap_err();
            let kind = error.kind();
            assert!(
                *kind == JobErrorKind::ShutDown || *kind == late(limit),
                "{error}"
            );
        }
    }
    // Draining waits for it.
    let lab = Lab::new(1);
    let job = lab.job(hang, ()).deadline(SHORT).submit();
    lab.into_inner().shutdown();
    assert_eq!(*job.wait().unwrap_err().kind(), late(SHORT));
}

fn a_deadline_of_zero_affects_no_other_job() {
    let none = Duration::ZERO;
    let lab = Lab::new(1);
    let list = lab.actor(Vec::<u64>::new, ()).start();
    let push = |list: &mut Vec<u64>, x: u64| list.push(x);
    list.call(push, (1,)).wait().unwrap();
    let kinds = [
        lab.job(hang, ()).deadline(none).retries(3).submit().wait(),
        lab.map(hang, [()])
            .options(&JobOptions::new().deadline(none))
            .next()
            .unwrap(),
        list.call_within(none, |_: &mut Vec<u64>| hang(), ()).wait(),
        lab.scope(|scope| {
            scope.submit_with(&JobOptions::new().deadline(none), hang, ());
        }),
    ];
    for error in kinds {
        let error = error.unwrap_err();
        assert_eq!(*error.kind(), late(none));
        let text = error.to_string();
        assert!(
            text.contains("not run: its deadline is 0") && !text.contains("kill"),
            "{text}"
        );
    }
    let input = lab.submit(|| 1u8, ());
    let takes = lab.job(|_: u8| hang(), (input,)).deadline(none).submit();
    let error = takes.wait().unwrap_err();
    assert_says(&error, "deadline");
    assert_eq!(lab.stats().restarts(), 0);
    let len = list.call(|list: &mut Vec<u64>| list.len() as u64, ());
    assert_eq!(len.wait().unwrap(), 1);
}

fn a_job_may_take_nearly_all_its_time() {
    fn work(for_ms: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(for_ms));
        for_ms
    }
    let lab = Lab::new(1);
    // Twice: when the clock is set for the second, that of the first may run.
    let jobs = [1200, 1100].map(|for_ms| {
        let job = lab.job(work, (for_ms,));
        (for_ms, job.deadline(Duration::from_secs(8)).submit())
    });
    for (for_ms, job) in jobs {
        assert_eq!(job.wait().unwrap(), for_ms);
    }
    assert_eq!(lab.stats().restarts(), 0);
}
