//! Jobs that take too long.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use arenite::{Array, Graph, Job, JobErrorKind, TileMut};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{
    Diary, Gate, Lab, block_on, hang, late, note, pass, send_signal, step, tests, wait_until,
};

tests![
    a_stopped_worker_is_ended,
    a_resumed_worker_changes_nothing,
    the_clock_starts_when_the_worker_is_free,
    a_deadline_starts_without_a_waiter,
    jobs_behind_a_killed_one_run_once_and_in_order,
    a_map_goes_on_beside_hung_items,
    a_scope_names_the_rows,
    a_detached_job_ends_at_its_deadline,
    an_engine_with_running_clocks_can_be_dropped,
    a_deadline_of_zero_affects_no_other_job,
    a_job_may_take_nearly_all_its_time,
];

const SHORT: Duration = Duration::from_millis(30);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// A job that has reached its gate within its limit, and continues when `held` is dropped.
struct AtGate<R> {
    job: Job<R>,
    /// The process that runs it.
    pid: i32,
    /// Taken before it was submitted.
    began: Instant,
    limit: Duration,
    /// The deaths of its worker before it was submitted.
    restarts: u64,
    held: File,
}

/// Submits a job with this limit to the only worker. The limit is doubled each time it passes before the job has
/// reached its gate, because the machine may be busy.
fn at_gate<R: std::fmt::Debug + Send + 'static>(
    lab: &Lab,
    mut limit: Duration,
    submit: impl Fn(&str, Duration) -> Job<R>,
) -> AtGate<R> {
    loop {
        wait_until("the worker is ready", || lab.stats().workers[0].ready);
        let (pid, gate) = (lab.pid(0), Gate::new());
        let restarts = lab.stats().restarts();
        let began = Instant::now();
        let job = submit(&gate.path(), limit);
        step(format!("a job to come to its gate within {limit:?}"));
        while !job.is_done() {
            // For writing only, which fails while there is no reader.
            let mut writer = File::options();
            let writer = writer.write(true).custom_flags(libc::O_NONBLOCK);
            if let Ok(held) = writer.open(gate.path()) {
                return AtGate {
                    job,
                    pid,
                    began,
                    limit,
                    restarts,
                    held,
                };
            }
            std::thread::park_timeout(Duration::from_micros(500));
        }
        assert_eq!(*lab.failure_of(job).kind(), late(limit));
        limit *= 2;
    }
}

fn a_stopped_worker_is_ended() {
    let lab = Lab::new(1);
    for _ in 0..3 {
        // Before it has the job, and while it runs.
        wait_until("the worker is ready", || lab.stats().workers[0].ready);
        send_signal(lab.pid(0), Signal::SIGSTOP);
        let job = lab.job(|| 1u8, ()).deadline(SHORT).submit();
        assert_eq!(*lab.failure_of(job).kind(), late(SHORT));

        let at_gate = at_gate(&lab, 3 * SHORT, |gate, limit| {
            lab.job(pass, (gate,)).deadline(limit).submit()
        });
        let behind = lab.submit(|| 2u8, ());
        // It may be gone already.
        let _ = kill(Pid::from_raw(at_gate.pid), Signal::SIGSTOP);
        let error = lab.failure_of(at_gate.job);
        assert_eq!(*error.kind(), late(at_gate.limit));
        drop(at_gate.held);
        assert_eq!(behind.wait().unwrap(), 2);
    }
    lab.assert_in_use(0);
}

/// It continues at about the time of its deadline. If it finishes by then, its answer counts; a late one is not read.
fn a_resumed_worker_changes_nothing() {
    const LIMIT: Duration = Duration::from_millis(50);
    fn once(gate: &str) -> u8 {
        pass(gate);
        1
    }
    let lab = Lab::new(1);
    let (mut rounds, mut done, mut overdue) = (0, 0, 0);
    // Microseconds before the deadline. The time at which both outcomes are equally likely moves with the load and is
    // adjusted.
    let mut before = 0i64;
    while rounds < 20 || done == 0 || overdue == 0 {
        rounds += 1;
        let at_gate = at_gate(&lab, LIMIT, |gate, limit| {
            lab.job(once, (gate,)).deadline(limit).submit()
        });
        let pid = Pid::from_raw(at_gate.pid);
        // It may be gone already, here and below.
        let _ = kill(pid, Signal::SIGSTOP);
        drop(at_gate.held);
        let scatter = (rounds * 7919) % 4001 - 2000;
        let at = at_gate.limit.as_micros() as i64 - before + scatter;
        let at = Duration::from_micros(at.max(0) as u64);
        wait_until("about the deadline", || at_gate.began.elapsed() >= at);
        let _ = kill(pid, Signal::SIGCONT);
        let is_late = match at_gate.job.wait() {
            Ok(value) => {
                assert_eq!(value, 1);
                done += 1;
                before -= 500;
                false
            }
            Err(error) => {
                assert_eq!(*error.kind(), late(at_gate.limit), "{error}");
                overdue += 1;
                before += 1000;
                true
            }
        };
        assert_eq!(lab.submit(|| 3u8, ()).wait().unwrap(), 3);
        let restarts = lab.stats().restarts() - at_gate.restarts;
        assert_eq!(restarts, u64::from(is_late));
    }
    println!("{done} done, {overdue} too late, the balance {before} µs before");
    lab.assert_in_use(0);
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

/// Whether it is killed by its handle or at its deadline.
fn jobs_behind_a_killed_one_run_once_and_in_order() {
    fn begin_and_hang(diary: &str) {
        note(diary, "begun");
        hang();
    }
    fn read(diary: &str, n: u32, input: &Array<u8>) -> u32 {
        note(diary, n);
        u32::from(input[0]) * n
    }
    let lab = Lab::new(1);
    let input = lab.from_slice(&[3u8; 100_000]).unwrap();
    for by_handle in [true, false].repeat(3) {
        let (begun, diary) = (Diary::new(), Diary::new());
        let hung = lab.job(begin_and_hang, (begun.path(),));
        let hung = if by_handle {
            hung
        } else {
            hung.deadline(SHORT)
        };
        let hung = hung.submit();
        let behind: Vec<_> = (0..50)
            .map(|n| {
                let job = lab.job(read, (diary.path(), n, &input));
                // Some have a deadline themselves.
                if n % 3 == 0 {
                    job.deadline(LONG).submit()
                } else {
                    job.submit()
                }
            })
            .collect();
        let expected = if by_handle {
            wait_until("it runs", || !begun.lines().is_empty());
            hung.kill();
            JobErrorKind::Cancelled
        } else {
            late(SHORT)
        };
        assert_eq!(*lab.failure_of(hung).kind(), expected);
        for (n, job) in (0..).zip(behind) {
            assert_eq!(job.wait().unwrap(), 3 * n);
        }
        assert_eq!(diary.numbers(), Vec::from_iter(0..50));
    }
    drop(input);
    lab.assert_in_use(0);
}

fn a_map_goes_on_beside_hung_items() {
    fn square(n: u64) -> u64 {
        if hangs(n) {
            hang();
        }
        n * n
    }
    /// Two at a time, while a third worker continues.
    fn hangs(n: u64) -> bool {
        [7, 8].contains(&n)
    }
    let lab = Lab::new(3);
    // The others have this time too, on a machine that may be busy.
    let mut limit = Duration::from_millis(250);
    loop {
        step(format!("a map of jobs that have {limit:?}"));
        let items = (0..150u64).map(|n| (n,));
        let squares = lab.map(square, items).deadline(limit);
        let mut ended = Vec::new();
        for (n, square) in (0..).zip(squares) {
            match square {
                Ok(square) => assert_eq!(square, n * n),
                Err(error) => {
                    assert_eq!(*error.kind(), late(limit));
                    ended.push(n);
                }
            }
        }
        assert!(ended.contains(&7) && ended.contains(&8), "{ended:?}");
        if ended.into_iter().all(hangs) {
            break;
        }
        limit *= 2;
    }
    lab.assert_in_use(0);
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
    let lab = Lab::new(2);
    let mut out = lab.zeros::<u32>(4000).unwrap();
    for _ in 0..3 {
        let error = lab
            .scope(|s| {
                for (n, tile) in out.tiles_mut(1000).enumerate() {
                    // The others finish, however long that takes.
                    let limit = if n == 2 { SHORT } else { LONG };
                    s.job(fill, (tile,)).deadline(limit).submit();
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
    drop(out);
    lab.assert_in_use(0);
}

fn a_detached_job_ends_at_its_deadline() {
    let lab = Lab::new(1);
    lab.job(hang, ()).deadline(SHORT).submit().detach();
    step("a job that can only run when the hung one is gone");
    assert_eq!(block_on(lab.submit(|| 4u8, ())).unwrap(), 4);
    assert_eq!(lab.stats().workers[0].restarts, 1);
    // Nor does it continue because its handle was dropped.
    let hung = |gate: &str| {
        pass(gate);
        hang();
    };
    let at_gate = at_gate(&lab, 3 * SHORT, |gate, limit| {
        lab.job(hung, (gate,)).deadline(limit).submit()
    });
    drop(at_gate.job);
    drop(at_gate.held);
    assert_eq!(block_on(lab.submit(|| 5u8, ())).unwrap(), 5);
    assert_eq!(lab.stats().restarts(), at_gate.restarts + 1);
    lab.assert_in_use(0);
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
        lab.map(hang, [()]).deadline(none).next().unwrap(),
        list.call_within(none, |_: &mut Vec<u64>| hang(), ()).wait(),
        lab.scope(|scope| {
            let _ = scope.job(hang, ()).deadline(none).submit();
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
    let mut graph = Graph::new();
    let node = graph.job(hang, ()).deadline(none).add();
    let error = graph.run(&lab, &node).unwrap().wait().unwrap_err();
    assert!(error.to_string().contains("deadline"), "{error}");
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
