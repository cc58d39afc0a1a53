//! Calls that wait for admission, in `async` code.

use arenite::engine::Submitting;
use smol::future::zip;

use super::*;
use crate::harness::{block_on, patience};
use crate::narrow::{MIB, joins, measure, three_mib};

tests![
    other_tasks_run_while_a_call_waits_for_admission,
    calls_run_in_the_order_of_admission,
    calls_of_each_thread_are_in_order,
    a_waiting_call_keeps_its_actor_alive,
    a_call_waiting_for_admission_reports_that_the_actor_ended,
    without_workers_a_job_has_run_when_its_handle_is_returned,
];

impl List {
    fn weigh(&mut self, x: u64, values: &[u8]) -> u64 {
        self.push(x);
        values.len() as u64
    }
}

/// An engine that admits one job of 3 MiB at a time, and an actor. The engine knows the sizes of their results.
fn narrow() -> (Lab, Actor<List>) {
    let lab = crate::narrow::narrow(1);
    let list = new_list(&lab);
    let one = lab.from_slice(&[1u8]).unwrap();
    assert_eq!(list.call(List::weigh, (0, &one)).wait(), Ok(1));
    assert_eq!(seen(&list), [0]);
    (lab, list)
}

fn weigh(lab: &Lab, list: &Actor<List>, x: u64) -> Submitting<u64> {
    list.call_async(List::weigh, (x, three_mib(lab)))
}

async fn answer<R: Send + 'static>(call: Submitting<R>) -> Result<R, arenite::JobError> {
    call.await.await
}

fn other_tasks_run_while_a_call_waits_for_admission() {
    let (lab, list) = narrow();
    for limit in [None, Some(patience())] {
        let gate = Gate::new();
        let first = lab.submit(measure, (three_mib(&lab), &gate.path()));
        let in_hand = gate.meet();
        let args = (1, three_mib(&lab));
        let call = match limit {
            None => list.call_async(List::weigh, args),
            Some(limit) => list.call_within_async(limit, List::weigh, args),
        };
        step("a call that is admitted when another task has opened the gate");
        let (answer, ()) = block_on(zip(answer(call), async {
            let stats = lab.stats();
            assert_eq!(
                (stats.open, list.status().waiting),
                (1, 0),
                "it waits for admission"
            );
            drop(in_hand);
        }));
        assert_eq!(answer, Ok(3 * MIB));
        first.wait().unwrap();
    }
    assert_eq!(seen(&list), [0, 1, 1]);
    // The limit applies to the call.
    let hangs = list.call_within_async(Duration::from_millis(20), List::hang, ());
    let (cause, _, restarted) = lost(block_on(hangs));
    assert!(matches!(cause, JobErrorKind::Limit(JobLimit::Deadline { .. })) && !restarted);
    drop(list);
    lab.assert_in_use(0);
}

fn calls_run_in_the_order_of_admission() {
    let (lab, list) = narrow();
    let gate = Gate::new();
    let first = lab.submit(measure, (three_mib(&lab), &gate.path()));
    let in_hand = gate.meet();
    let (array, one) = (three_mib(&lab), lab.from_slice(&[1u8]).unwrap());
    // Created in another order than the one in which they are polled. The second is dropped.
    let [mut fourth, mut second, mut third] = [4, 2, 3].map(|x| weigh(&lab, &list, x));
    let mut small = list.call_async(List::weigh, (5, &one));
    thread::scope(|s| {
        let list = &list;
        let thread = s.spawn(move || list.call(List::weigh, (1, array)).wait());
        wait_until("the thread waits for admission", || {
            lab.job(measure, (&one, "")).try_submit().is_err()
        });
        joins(&mut second);
        joins(&mut third);
        joins(&mut fourth);
        // It would fit beside the running job, and so could be admitted first.
        joins(&mut small);
        drop(second);
        drop(in_hand);
        step("calls in the order of admission, whichever is polled first");
        let all = zip(zip(answer(small), answer(fourth)), answer(third));
        assert_eq!(block_on(all), ((Ok(1), Ok(3 * MIB)), Ok(3 * MIB)));
        assert_eq!(thread.join().unwrap(), Ok(3 * MIB));
    });
    first.wait().unwrap();
    assert_eq!(seen(&list), [0, 1, 3, 4, 5]);
    drop((list, one));
    lab.assert_in_use(0);
}

fn calls_of_each_thread_are_in_order() {
    let (lab, list) = narrow();
    step("calls of three threads, one admitted at a time");
    thread::scope(|threads| {
        for by in 1..4 {
            let (lab, list) = (&lab, &list);
            threads.spawn(move || {
                block_on(async {
                    let mut jobs = Vec::new();
                    for n in 0..30 {
                        jobs.push(weigh(lab, list, by * 100 + n).await);
                    }
                    for job in jobs {
                        assert_eq!(job.await, Ok(3 * MIB));
                    }
                });
            });
        }
    });
    let seen = seen(&list);
    assert_eq!(seen.len(), 91);
    for by in 1..4 {
        let own = seen.iter().filter(|&&x| x / 100 == by);
        assert!(own.copied().eq((0..30).map(|n| by * 100 + n)));
    }
    assert_eq!(lab.stats().admitted, 0);
}

fn a_waiting_call_keeps_its_actor_alive() {
    let lab = Lab::new(1);
    let call = new_list(&lab).call_async(List::push, (7,));
    step("a call whose future has the only handle");
    assert_eq!(block_on(answer(call)), Ok(1));
    drop(new_list(&lab).call_async(List::push, (7,)));
    lab.assert_in_use(0);
}

fn a_call_waiting_for_admission_reports_that_the_actor_ended() {
    let (lab, list) = narrow();
    let gate = Gate::new();
    let first = lab.submit(measure, (three_mib(&lab), &gate.path()));
    let mut call = weigh(&lab, &list, 1);
    joins(&mut call);
    list.stop();
    gate.open();
    step("a call of an actor that was stopped");
    let error = block_on(answer(call)).unwrap_err();
    assert_eq!(*error.kind(), rejected(Rejection::ActorEnded));
    first.wait().unwrap();
    lab.assert_in_use(0);
}

fn without_workers_a_job_has_run_when_its_handle_is_returned() {
    let engine = Engine::inline();
    let list = new_list(&engine);
    let call = list.call_async(List::push, (7,));
    assert_eq!(seen(&list), [7], "before it is polled");
    assert_eq!(block_on(answer(call)), Ok(1));
}
