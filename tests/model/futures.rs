//! Jobs and maps in `async` code: on tokio, on smol, and with a plain `block_on`.
//!
//! That the event loop is not blocked is shown by other tasks of the same thread, which open the gates that the awaited
//! jobs wait at.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::Duration;

use arenite::{Engine, Job, JobErrorKind, JobOptions, Limiter};
use futures_core::Stream;

use crate::harness::{
    Gate, KILLED, Lab, WakeFlag, block_on, patience, shared_memory_named, step, tests, through,
    wait_until, watched,
};
use crate::narrow::{MIB, joins, measure, narrow, three_mib};

tests![
    jobs_on_each_executor,
    maps_on_each_executor,
    tasks_on_many_threads,
    other_tasks_run_while_a_job_is_awaited,
    other_tasks_run_while_a_map_is_awaited,
    other_tasks_run_while_jobs_are_awaited_as_they_end,
    other_tasks_run_while_many_jobs_are_polled,
    other_tasks_run_while_a_map_is_never_empty,
    other_tasks_run_while_admission_is_awaited,
    other_tasks_run_while_a_map_waits_for_admission,
    other_tasks_run_while_a_permit_is_awaited,
    an_unpolled_future_holds_up_no_other,
    futures_and_threads_are_admitted_in_turn,
    leaving_the_admission_queue_lets_others_in,
    all_waiters_are_admitted_when_the_engine_closes,
    an_engine_may_be_dropped_by_its_own_waker,
    two_engines_may_drop_each_other,
    a_waker_that_opens_a_scope_runs_no_job,
    a_panicking_waker_clone_loses_no_memory,
    dropping_a_job_cancels_it_and_detaching_does_not,
    async_code_works_on_an_inline_engine,
];

/// Starts smol's reactor thread, which lives as long as the process.
pub fn start_reactor() {
    // After a timer has run it has its descriptors; once it runs it has its name.
    smol::block_on(smol::Timer::after(Duration::from_millis(1)));
    let has_begun = || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let mut names = threads
            .flatten()
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        names.any(|name| name.trim() == "async-io")
    };
    let begins = move || {
        wait_until("smol has begun", has_begun);
        Ok(())
    };
    watched(patience(), begins).unwrap();
}

fn tokio_block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// The next item of a stream, without a crate for it.
fn next<S: Stream + Unpin>(stream: &mut S) -> impl Future<Output = Option<S::Item>> {
    std::future::poll_fn(|context| Pin::new(&mut *stream).poll_next(context))
}

/// Polls `first`, and `second` whenever `first` is pending, on one thread.
fn side_by_side<T>(first: impl Future<Output = T>, second: impl Future<Output = ()>) -> T {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let mut over = false;
    block_on(std::future::poll_fn(|context| {
        let first = first.as_mut().poll(context);
        if !over {
            over = second.as_mut().poll(context).is_ready();
        }
        first
    }))
}

/// Yields to the other future once.
async fn turn() {
    let mut had_it = false;
    std::future::poll_fn(|context| {
        if had_it {
            return Poll::Ready(());
        }
        had_it = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn square(n: u64) -> u64 {
    n * n
}

/// Runs it on a bare thread, on tokio and on smol.
fn on_each_executor(run: impl AsyncFn(&Lab)) {
    let lab = Lab::new(2);
    step("a bare thread");
    block_on(run(&lab));
    step("tokio");
    tokio_block_on(run(&lab));
    step("smol");
    smol::block_on(run(&lab));
    lab.assert_idle();
}

fn jobs_on_each_executor() {
    on_each_executor(async |lab| {
        let jobs: Vec<_> = (0..200).map(|n| lab.submit(square, (n,))).collect();
        for (n, job) in (0..200).zip(jobs) {
            assert_eq!(job.await.unwrap(), n * n);
        }
        let later = lab.job(square, (7,)).submit_async().await;
        assert_eq!(later.await.unwrap(), 49);
        let fails = lab.job(|n: u64| Err::<u64, _>(format!("not {n}")), (8,));
        let letter = fails.keep_args().submit().await;
        assert_eq!(letter.unwrap_err().args, (8,));
    });
}

fn maps_on_each_executor() {
    on_each_executor(async |lab| {
        let items = || (0..5000).map(|n| (n,));
        let mut map = lab.map(square, items()).stream();
        for n in 0..5000 {
            assert_eq!(next(&mut map).await.unwrap().unwrap(), n * n);
        }
        assert!(next(&mut map).await.is_none());
        let mut map = lab.map(square, items()).unordered().stream();
        let mut seen = vec![false; 5000];
        while let Some((index, value)) = next(&mut map).await {
            assert_eq!(value.unwrap(), (index * index) as u64);
            assert!(!std::mem::replace(&mut seen[index], true));
        }
        assert!(seen.into_iter().all(|seen| seen));
    });
}

/// Tasks move between threads together with their jobs and maps, and share an engine of which a worker dies meanwhile.
fn tasks_on_many_threads() {
    let lab = Arc::new(Lab::new(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let gate = Gate::new();
    let (values, killed) = runtime.block_on(async {
        let victim = lab.submit(through, (gate.path(), 1));
        let tasks: Vec<_> = (0..20u64)
            .map(|task| {
                let engine = Arc::clone(&lab);
                tokio::spawn(async move {
                    let job = engine.job(square, (task,)).retries(2).submit();
                    let first = job.await.unwrap();
                    tokio::task::yield_now().await;
                    let items = (0..200).map(|n| (n,));
                    let mut map = engine
                        .map(square, items)
                        .options(&JobOptions::new().retries(2))
                        .stream();
                    let mut sum = 0;
                    while let Some(value) = next(&mut map).await {
                        sum += value.unwrap();
                    }
                    (first, sum)
                })
            })
            .collect();
        let engine = Arc::clone(&lab);
        let killer = tokio::task::spawn_blocking(move || {
            let held = gate.meet();
            let stands = Cell::new(0);
            wait_until("only the job at the gate is with a worker", || {
                let stats = engine.stats();
                let busy = stats.workers.iter().position(|worker| worker.open > 0);
                stands.set(busy.unwrap());
                stats.open == 1
            });
            engine.replace(stands.get());
            drop(held);
        });
        let mut values = Vec::new();
        step("twenty tasks");
        for task in tasks {
            values.push(task.await.unwrap());
        }
        step("the job whose worker dies");
        let killed = tokio::spawn(victim).await.unwrap();
        killer.await.unwrap();
        (values, killed)
    });
    let sum = (0..200).map(|n| n * n).sum::<u64>();
    assert!(values.into_iter().eq((0..20).map(|n| (n * n, sum))));
    assert_eq!(*killed.unwrap_err().kind(), KILLED);
    drop(runtime);
    lab.assert_idle();
}

fn other_tasks_run_while_a_job_is_awaited() {
    let lab = Lab::new(1);
    let gate = Gate::new();
    let job = lab.submit(through, (gate.path(), 5));
    step("a job whose gate another task of the loop opens");
    let local = tokio::task::LocalSet::new();
    let value = tokio_block_on(local.run_until(async {
        let opener = tokio::task::spawn_local(async move { gate.open() });
        let value = job.await.unwrap();
        opener.await.unwrap();
        value
    }));
    assert_eq!(value, 5);
}

fn other_tasks_run_while_a_map_is_awaited() {
    async fn count(mut results: impl Stream + Unpin) -> usize {
        let mut count = 0;
        while next(&mut results).await.is_some() {
            count += 1;
        }
        count
    }
    let lab = Lab::new(2);
    for unordered in [false, true] {
        let gates = [Gate::new(), Gate::new(), Gate::new()];
        let map = lab.map(through, gates.iter().map(|gate| (gate.path(), 1)));
        step("a map whose gates another task opens");
        let open = async {
            for gate in &gates {
                turn().await;
                gate.open();
            }
        };
        let all = match unordered {
            true => side_by_side(count(map.unordered().stream()), open),
            false => side_by_side(count(map.stream()), open),
        };
        assert_eq!(all, 3);
    }
}

fn other_tasks_run_while_jobs_are_awaited_as_they_end() {
    let lab = Lab::new(2);
    let gates = [Gate::new(), Gate::new()];
    let jobs = gates
        .iter()
        .map(|gate| lab.submit(through, (gate.path(), 1)));
    let mut ends = arenite::as_completed(jobs).stream();
    step("jobs whose gates another task opens, the last first");
    let order = RefCell::new(Vec::new());
    let open = async {
        turn().await;
        gates[1].open();
        while order.borrow().is_empty() {
            turn().await;
        }
        gates[0].open();
    };
    let take = async {
        while let Some((index, answer)) = next(&mut ends).await {
            answer.unwrap();
            order.borrow_mut().push(index);
        }
    };
    side_by_side(take, open);
    assert_eq!(*order.borrow(), [1, 0]);
    assert_eq!(ends.size_hint(), (0, Some(0)));
}

/// No job has ended at the first poll, and other tasks run meanwhile.
fn other_tasks_run_while_many_jobs_are_polled() {
    const JOBS: usize = 10_000;
    let lab = Lab::new(1);
    let gate = Gate::new();
    let first = lab.submit(through, (gate.path(), 0));
    let held = gate.meet();
    let others = (1..JOBS as u64).map(|n| lab.submit(through, (String::new(), n)));
    let mut ends = arenite::as_completed(std::iter::once(first).chain(others)).stream();
    let woken = Arc::new(WakeFlag::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    let polls = std::iter::from_fn(|| {
        assert!(Pin::new(&mut ends).poll_next(&mut context).is_pending());
        // Pending for another reason than a job.
        woken.take().then_some(())
    });
    let turns = polls.count();
    assert!(turns >= 50, "{turns} turns");
    drop(held);
    step("all jobs");
    for _ in 0..JOBS {
        block_on(next(&mut ends)).unwrap().1.unwrap();
    }
    assert!(block_on(next(&mut ends)).is_none());
    lab.assert_idle();
}

/// A loop that takes results without a pause until another task ends it.
fn other_tasks_run_while_a_map_is_never_empty() {
    let lab = Lab::new(2);
    let over = Rc::new(Cell::new(false));
    let local = tokio::task::LocalSet::new();
    step("an endless stream, and a task that ends it");
    tokio_block_on(local.run_until(async {
        let ends = Rc::clone(&over);
        tokio::task::spawn_local(async move { ends.set(true) });
        let mut map = lab.map(square, (0..).map(|n| (n,))).stream();
        while !over.get() {
            next(&mut map).await.unwrap().unwrap();
        }
    }));
    // The same without anything to wait for.
    let engine = arenite::Engine::inline();
    let over = Cell::new(false);
    let endless = async {
        let mut map = engine.map(square, (0..).map(|n| (n,))).stream();
        while !over.get() {
            next(&mut map).await.unwrap().unwrap();
        }
    };
    side_by_side(endless, async { over.set(true) });
    // The same with jobs that have all ended.
    let over = Cell::new(false);
    let mut ends = arenite::as_completed((0..1000).map(|n| engine.submit(square, (n,)))).stream();
    let taken = async {
        while !over.get() {
            next(&mut ends).await.unwrap().1.unwrap();
        }
    };
    side_by_side(taken, async { over.set(true) });
    lab.assert_idle();
}

fn other_tasks_run_while_admission_is_awaited() {
    let lab = narrow(1);
    let gate = Gate::new();
    let first = lab.submit(measure, (three_mib(&lab), &gate.path()));
    step("a job that is admitted when another task has opened the gate");
    let second = async {
        let job = lab.job(measure, (three_mib(&lab), "")).submit_async().await;
        job.await.unwrap()
    };
    let value = side_by_side(second, async {
        turn().await;
        assert_eq!(lab.stats().open, 1, "the second waits for admission");
        gate.open();
    });
    assert_eq!(value, 3 * MIB);
    first.wait().unwrap();
    step("a map that keeps its arguments");
    let first = lab.submit(measure, (three_mib(&lab), &gate.path()));
    // The size of its result is unknown, so it is admitted exclusively.
    let refuse = |values: &[u8]| Err::<u64, _>(values.len());
    let job = lab
        .job(refuse, (three_mib(&lab),))
        .keep_args()
        .submit_async();
    let answer = side_by_side(async { job.await.await }, async {
        turn().await;
        assert_eq!(lab.stats().open, 1, "it waits for admission");
        gate.open();
    });
    let letter = answer.unwrap_err();
    assert_eq!(letter.args.0.len() as u64, 3 * MIB);
    drop(letter);
    first.wait().unwrap();
    lab.assert_in_use(0);
}

fn other_tasks_run_while_a_map_waits_for_admission() {
    let lab = narrow(1);
    let gate = Gate::new();
    let first = lab.submit(measure, (three_mib(&lab), &gate.path()));
    step("a map whose items are admitted when another task has opened the gate");
    let all = async {
        let mut map = lab
            .map(measure, (0..5).map(|_| (three_mib(&lab), "")))
            .stream();
        let mut count = 0;
        while let Some(value) = next(&mut map).await {
            assert_eq!(value.unwrap(), 3 * MIB);
            count += 1;
        }
        count
    };
    let count = side_by_side(all, async {
        turn().await;
        gate.open();
    });
    assert_eq!(count, 5);
    first.wait().unwrap();
    lab.assert_in_use(0);
}

fn other_tasks_run_while_a_permit_is_awaited() {
    let lab = Lab::new(2);
    let limiter = Limiter::new().concurrency(1);
    let gate = Gate::new();
    let first = lab.job(through, (gate.path(), 1)).limit(&limiter).submit();
    let second = lab.job(through, ("", 2)).limit(&limiter).submit();
    assert_eq!(lab.stats().limited, 1);
    step("a job that gets its permit when another task has opened the gate");
    let value = side_by_side(second, async {
        turn().await;
        gate.open();
    });
    assert_eq!(value.unwrap(), 2);
    first.wait().unwrap();
}

/// A task that owns an engine and drops it when as many tasks are woken as the barrier waits for.
struct Crossed(Mutex<Option<Engine>>, Arc<Barrier>);

impl Wake for Crossed {
    fn wake(self: Arc<Self>) {
        self.1.wait();
        drop(self.0.lock().unwrap().take());
    }
}

fn an_engine_may_be_dropped_by_its_own_waker() {
    let name = format!("woken-{}", std::process::id());
    let lab = Lab::with(1, |builder| builder.name(&name));
    let is_there = || shared_memory_named(&name) > 0;
    assert!(is_there());
    let pid = lab.pid(0);
    let gate = Gate::new();
    let mut job = lab.submit(through, (gate.path(), 1));
    let held = gate.meet();
    let last = Arc::new(Crossed(Mutex::default(), Arc::new(Barrier::new(1))));
    let waker = Waker::from(Arc::clone(&last));
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut job).poll(&mut context).is_pending());
    *last.0.lock().unwrap() = Some(lab.into_inner());
    // Only the engine's own thread can wake the task.
    drop(held);
    wait_until("its name is removed", || !is_there());
    wait_until("its worker has died", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
    assert_eq!(job.wait().unwrap(), 1);
}

fn two_engines_may_drop_each_other() {
    let labs = [Lab::new(1), Lab::new(1)];
    let pids = [labs[0].pid(0), labs[1].pid(0)];
    let gates = [Gate::new(), Gate::new()];
    let barrier = Arc::new(Barrier::new(2));
    let tasks = [(); 2].map(|()| Arc::new(Crossed(Mutex::default(), Arc::clone(&barrier))));
    let mut jobs = Vec::new();
    let mut hands = Vec::new();
    for ((lab, gate), task) in labs.iter().zip(&gates).zip(&tasks) {
        let mut job = lab.submit(through, (gate.path(), 1));
        hands.push(gate.meet());
        let waker = Waker::from(Arc::clone(task));
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut job).poll(&mut context).is_pending());
        jobs.push(job);
    }
    // Each task owns the engine that wakes the other.
    for (lab, task) in labs.into_iter().zip(tasks.iter().rev()) {
        *task.0.lock().unwrap() = Some(lab.into_inner());
    }
    drop(hands);
    wait_until("both workers have died", || {
        let is_gone = |pid: &i32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
        pids.iter().all(is_gone)
    });
    for job in jobs {
        assert_eq!(job.wait().unwrap(), 1);
    }
}

/// What a waker does.
type Does = fn(&Engine);

/// The monitor, which calls the waker, cannot wait for the jobs of a scope, which would write to memory that the waker
/// gets back. It cannot wait for other jobs or for admission either.
fn a_waker_that_opens_a_scope_runs_no_job() {
    struct Wakes(Mutex<Option<Arc<Engine>>>, Does, Mutex<Option<bool>>);
    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            let engine = self.0.lock().unwrap().take().unwrap();
            let does = || self.1(&engine);
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(does)).is_err();
            *self.2.lock().unwrap() = Some(panicked);
        }
    }
    fn run(_: arenite::ArrayMut<u8>, gate: &str, dies: bool) {
        through(gate, 0);
        if dies {
            std::process::abort();
        }
    }
    let wrongs: [(&str, Does); 6] = [
        ("a job", |engine| {
            let _ = engine.submit(|| 1, ()).wait();
        }),
        ("a scope", |engine| {
            let mut lent = engine.zeros::<u8>(10).unwrap();
            let _ = engine.scope(|_| unreachable!("{:?}", lent.fill(1)));
        }),
        ("a map in place", |engine| {
            let mut lent = engine.zeros::<u8>(10).unwrap();
            let _ = engine
                .par_mut(&mut lent)
                .apply(|part: &mut [u8]| part.fill(1));
        }),
        ("the first of several", |engine| {
            let _ = arenite::wait_any(&mut [engine.submit(|| 1, ())], None);
        }),
        ("all as they end", |engine| {
            let _ = arenite::as_completed([engine.submit(|| 1, ())]).next();
        }),
        ("admission", |engine| {
            let array = engine.zeros::<u8>(2 << 20).unwrap();
            engine.submit(run, (array, "", false)).detach();
        }),
    ];
    for (wrong, does) in wrongs {
        let engine = Engine::builder()
            .workers(2)
            .max_in_flight_bytes(3 << 20)
            .build();
        let engine = Arc::new(engine.unwrap());
        let submit = |len, gate: &str, dies| {
            let array = engine.zeros::<u8>(len).unwrap();
            engine.submit(run, (array, gate, dies))
        };
        // From now on its expected bytes are known.
        submit(0, "", false).wait().unwrap();
        let gates = [Gate::new(), Gate::new()];
        let large = submit(2 << 20, &gates[0].path(), false);
        let held = gates[0].meet();
        let dies = submit(0, &gates[1].path(), true);
        let wakes = Wakes(
            Mutex::new(Some(Arc::clone(&engine))),
            does,
            Mutex::new(None),
        );
        let wakes = Arc::new(wakes);
        assert!(!arenite::raw::wake_when_done(
            &dies,
            &Waker::from(Arc::clone(&wakes))
        ));
        gates[1].open();
        step("the waker to return");
        wait_until("the waker has returned", || {
            wakes.2.lock().unwrap().is_some()
        });
        assert_eq!(
            *wakes.2.lock().unwrap(),
            Some(true),
            "{wrong} does not panic"
        );
        drop(held);
        step("jobs after it");
        large.wait().unwrap();
        dies.wait().unwrap_err();
        assert_eq!(engine.submit(|| 2, ()).wait().unwrap(), 2);
        assert_eq!(engine.stats().untaken, 0, "{wrong} loses a job");
    }
}

fn a_panicking_waker_clone_loses_no_memory() {
    const TABLE: RawWakerVTable =
        RawWakerVTable::new(|_| panic!("no second one"), |_| {}, |_| {}, |_| {});
    // SAFETY: the functions of the table ignore their argument.
    let waker = unsafe { Waker::new(std::ptr::null(), &TABLE) };
    let lab = Lab::new(1);
    let gate = Gate::new();
    let mut job = lab.submit(through, (gate.path(), 1));
    let held = gate.meet();
    let poll = || {
        let mut context = Context::from_waker(&waker);
        Pin::new(&mut job).poll(&mut context).is_pending()
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll)).unwrap_err();
    drop(held);
    assert_eq!(job.wait().unwrap(), 1);
    lab.assert_idle();
}

fn an_unpolled_future_holds_up_no_other() {
    let lab = narrow(1);
    let gate = Gate::new();
    let first = lab.submit(measure, (three_mib(&lab), &gate.path()));
    let enters = || lab.job(measure, (three_mib(&lab), "")).submit_async();
    let (mut left, mut polled_again) = (enters(), enters());
    joins(&mut left);
    joins(&mut polled_again);
    gate.open();
    first.wait().unwrap();
    step("a thread's job, behind two unpolled futures");
    let job = lab.submit(measure, (three_mib(&lab), ""));
    assert_eq!(job.wait().unwrap(), 3 * MIB);
    step("one of these, polled again");
    let job = block_on(polled_again);
    step("a future, behind the other one");
    let behind = block_on(enters());
    for job in [job, behind] {
        assert_eq!(job.wait().unwrap(), 3 * MIB);
    }
    drop(left);
    step("a future that is polled repeatedly, behind an unpolled one");
    let running = lab.submit(measure, (three_mib(&lab), &gate.path()));
    let (mut left, mut looks) = (enters(), enters());
    joins(&mut left);
    gate.open();
    running.wait().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let job = loop {
        match Pin::new(&mut looks).poll(&mut context) {
            Poll::Ready(job) => break job,
            Poll::Pending => thread::park_timeout(Duration::from_millis(5)),
        }
    };
    assert_eq!(job.wait().unwrap(), 3 * MIB);
    drop(left);
    lab.assert_in_use(0);
}

fn futures_and_threads_are_admitted_in_turn() {
    let lab = narrow(1);
    let (gate, next_gate) = (Gate::new(), Gate::new());
    let first = lab.submit(measure, (three_mib(&lab), &gate.path()));
    let in_hand = gate.meet();
    let (array, one) = (three_mib(&lab), lab.from_slice(&[1u8]).unwrap());
    thread::scope(|s| {
        let (lab, next_gate) = (&lab, &next_gate);
        let thread = s.spawn(move || lab.submit(measure, (array, &next_gate.path())).wait());
        // It would fit, but must wait behind the thread.
        wait_until("the thread waits for admission", || {
            lab.job(measure, (&one, "")).try_submit().is_err()
        });
        let mut future = lab.job(measure, (three_mib(lab), "")).submit_async();
        joins(&mut future);
        drop(in_hand);
        let in_hand = next_gate.meet();
        first.wait().unwrap();
        step("the thread's job at the gate, and the future still waiting");
        joins(&mut future);
        drop(in_hand);
        thread.join().unwrap().unwrap();
        block_on(async { future.await.await.unwrap() });
    });
    lab.assert_idle();
}

fn leaving_the_admission_queue_lets_others_in() {
    let lab = narrow(1);
    let gate = Gate::new();
    let first = lab.submit(measure, (three_mib(&lab), &gate.path()));
    let in_hand = gate.meet();
    let mut large = lab.job(measure, (three_mib(&lab), "")).submit_async();
    joins(&mut large);
    // It would fit, but others came first.
    let small = lab.from_slice(&[1u8]).unwrap();
    let small = lab.job(measure, (&small, "")).submit_async();
    step("the one behind, after the one in front has left");
    let job = side_by_side(small, async {
        turn().await;
        drop(large);
    });
    assert_eq!(lab.stats().open + lab.stats().queued, 2);
    drop(job);
    drop(in_hand);
    first.wait().unwrap();
    lab.assert_idle();
}

fn all_waiters_are_admitted_when_the_engine_closes() {
    let lab = narrow(1);
    let gate = Gate::new();
    let first = lab.submit(measure, (three_mib(&lab), &gate.path()));
    let held_up = gate.meet();
    let future = lab.job(measure, (three_mib(&lab), "")).submit_async();
    let waiting = thread::spawn(move || block_on(async { future.await.await }));
    wait_until("the future waits for admission", || {
        let one = lab.from_slice(&[1u8]).unwrap();
        lab.job(measure, (&one, "")).try_submit().is_err()
    });
    step("the engine to be dropped");
    drop(lab.into_inner());
    let error = waiting.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), &JobErrorKind::ShutDown);
    drop(held_up);
    assert!(first.wait().is_err());
}

fn dropping_a_job_cancels_it_and_detaching_does_not() {
    fn write(path: &str) {
        std::fs::write(path, "done").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let lab = Lab::new(1);
    let gate = Gate::new();
    let running = lab.submit(through, (gate.path(), 0));
    let held = gate.meet();
    let polled_once = |mut job: Job<()>| {
        joins(&mut job);
        job
    };
    drop(polled_once(lab.submit(write, (path("dropped"),))));
    polled_once(lab.submit(write, (path("detached"),))).detach();
    drop(held);
    step("everything behind the gate");
    running.wait().unwrap();
    lab.submit(|| {}, ()).wait().unwrap();
    wait_until("everything has ended", || lab.stats().open == 0);
    assert!(!std::path::Path::new(&path("dropped")).exists());
    assert!(std::path::Path::new(&path("detached")).exists());
}

fn async_code_works_on_an_inline_engine() {
    let engine = arenite::Engine::inline();
    block_on(async {
        let mut map = engine.map(square, (0..500).map(|n| (n,))).stream();
        for n in 0..500 {
            assert_eq!(next(&mut map).await.unwrap().unwrap(), n * n);
        }
        assert!(next(&mut map).await.is_none());
        let job = engine.job(square, (3,)).submit_async().await;
        assert_eq!(job.await.unwrap(), 9);
    });
}
