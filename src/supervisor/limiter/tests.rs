#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;

use super::*;
use crate::kernel::wire::ArgWriter;
use crate::supervisor::JobOptions;
use crate::supervisor::fixture::{fixture, kernel};
use crate::supervisor::owner::Owner;
use proptest::prelude::*;

thread_local! {
    /// Number of times that this thread has locked a limiter's state.
    pub(super) static LOCKS: Cell<u64> = const { Cell::new(0) };
}

const MS: fn(u64) -> Duration = Duration::from_millis;

fn waker() -> Waker {
    ThreadWaker::new().waker().clone()
}

fn this_thread() -> Caller {
    Caller::this_thread()
}

#[test]
fn permits_go_to_the_oldest_waiter() {
    let mut state = PermitState::new(Some(2), None);
    assert_eq!(state.request(MS(0), this_thread(), &waker()), None);
    assert_eq!(state.request(MS(0), this_thread(), &waker()), None);
    let tickets: Vec<_> = (0..3)
        .map(|_| state.request(MS(0), this_thread(), &waker()).unwrap())
        .collect();
    assert!(state.call(MS(9)).is_empty(), "both permits are given");
    assert_eq!(state.give_back(MS(9)).len(), 1);
    assert!(!state.take_call(tickets[1]) && state.take_call(tickets[0]));
    assert!(!state.take_call(tickets[0]), "once");
    // A called waiter that leaves passes its permit on.
    assert_eq!(state.give_back(MS(9)).len(), 1);
    assert_eq!(state.leave(tickets[1], MS(9)).len(), 1);
    assert!(state.take_call(tickets[2]));
    assert_eq!(state.given, 2);
    assert!(state.give_back(MS(9)).is_empty() && state.give_back(MS(9)).is_empty());
    assert_eq!(state.given, 0);
}

/// A state whose only permit is taken.
fn taken() -> PermitState {
    let mut state = PermitState::new(Some(1), None);
    assert_eq!(state.request(MS(0), this_thread(), &waker()), None);
    state
}

/// Passes the permit on until no caller waits. Returns the callers in the order in which they had it.
fn turns(state: &mut PermitState, waiting: &[(Caller, Ticket)]) -> Vec<Caller> {
    let next = |_| {
        let _ = state.give_back(MS(0));
        let &(caller, _) = waiting
            .iter()
            .find(|&&(_, ticket)| state.take_call(ticket))?;
        Some(caller)
    };
    (0..=waiting.len()).map_while(next).collect()
}

#[test]
fn callers_take_turns() {
    let mut state = taken();
    let [many, few, late] = [Caller::new(), Caller::new(), Caller::new()];
    let order = [many, many, many, many, few, late, few];
    let waiting = order.map(|caller| (caller, state.request(MS(0), caller, &waker()).unwrap()));
    let fair = [many, few, late, many, few, many, many];
    assert_eq!(turns(&mut state, &waiting), fair);
}

#[test]
fn a_late_caller_does_not_catch_up_on_turns() {
    let mut state = taken();
    let [many, late] = [Caller::new(), Caller::new()];
    let come =
        |state: &mut PermitState, caller| (caller, state.request(MS(0), caller, &waker()).unwrap());
    let mut waiting: Vec<_> = (0..6).map(|_| come(&mut state, many)).collect();
    for &(_, ticket) in &waiting[..3] {
        let _ = state.give_back(MS(0));
        assert!(state.take_call(ticket));
    }
    waiting.drain(..3);
    waiting.extend([come(&mut state, late), come(&mut state, late)]);
    assert_eq!(turns(&mut state, &waiting), [many, late, many, late, many]);
}

#[test]
fn endless_new_callers_starve_no_waiter() {
    let mut state = taken();
    let patient = Caller::new();
    let [_, second] = [0, 1].map(|_| state.request(MS(0), patient, &waker()).unwrap());
    let mut passed = 0;
    while !state.take_call(second) {
        let _ = state.request(MS(0), Caller::new(), &waker()).unwrap();
        let _ = state.give_back(MS(0));
        passed += 1;
        assert!(passed < 5, "other callers always go first");
    }
}

#[test]
fn leaving_the_queue_costs_a_caller_no_turn() {
    let mut state = taken();
    let [hasty, steady] = [Caller::new(), Caller::new()];
    let come =
        |state: &mut PermitState, caller| (caller, state.request(MS(0), caller, &waker()).unwrap());
    let mut waiting: Vec<_> = (0..4).map(|_| come(&mut state, steady)).collect();
    let given_up: Vec<_> = (0..100).map(|_| come(&mut state, hasty)).collect();
    waiting.push(come(&mut state, hasty));
    for (_, ticket) in given_up {
        let _ = state.leave(ticket, MS(0));
    }
    for _ in 0..100 {
        let (_, ticket) = come(&mut state, hasty);
        let _ = state.leave(ticket, MS(0));
    }
    waiting.push(come(&mut state, hasty));
    assert_eq!(
        turns(&mut state, &waiting),
        [steady, hasty, steady, hasty, steady, steady]
    );
}

#[test]
fn callers_without_waiters_are_forgotten() {
    let mut state = taken();
    for turn in 0..1_000 {
        let ticket = state.request(MS(0), Caller::new(), &waker()).unwrap();
        if turn % 2 == 0 {
            let _ = state.leave(ticket, MS(0));
        } else {
            let _ = state.give_back(MS(0));
            assert!(state.take_call(ticket));
        }
        assert_eq!((state.line.len(), state.line.callers()), (0, 0));
    }
}

#[test]
fn a_rate_holds_and_the_first_waiter_watches_the_clock() {
    let mut state = PermitState::new(None, Some(Rate::new(MS(100), 1)));
    assert_eq!(state.request(MS(0), this_thread(), &waker()), None);
    let first = state.request(MS(10), this_thread(), &waker()).unwrap();
    let second = state.request(MS(20), this_thread(), &waker()).unwrap();
    assert_eq!(state.due(), Some((first, MS(100))));
    let notified = state.call(MS(99));
    assert_eq!(
        (notified.len(), state.take_call(first)),
        (1, false),
        "only to look again"
    );
    // One waiter is called, and the next is notified that it is the first now.
    assert_eq!(state.call(MS(100)).len(), 2);
    assert!(state.take_call(first) && !state.take_call(second));
    assert_eq!(state.due(), Some((second, MS(200))));
    // After a pause no more than a burst is available.
    assert_eq!(state.call(MS(1000)).len(), 1);
    assert!(state.take_call(second));
    assert!(state.request(MS(1000), this_thread(), &waker()).is_some());
}

#[test]
fn a_burst_may_begin_at_once() {
    let mut state = PermitState::new(None, Some(Rate::new(MS(100), 3)));
    let started = (0..5).filter(|_| state.request(MS(50), this_thread(), &waker()).is_none());
    assert_eq!(started.count(), 3);
}

#[test]
fn the_new_first_waiter_is_notified_after_one_left() {
    let mut state = PermitState::new(Some(1), Some(Rate::new(MS(100), 1)));
    assert_eq!(state.request(MS(0), this_thread(), &waker()), None);
    let first = state.request(MS(0), this_thread(), &waker()).unwrap();
    let second = state.request(MS(0), this_thread(), &waker()).unwrap();
    assert_eq!(state.due(), None, "the first waits for the permit");
    // A permit is available, the rate is not: the first waiter watches the clock from now on.
    assert_eq!(state.give_back(MS(10)).len(), 1);
    assert_eq!(state.due(), Some((first, MS(100))));
    assert_eq!(state.leave(first, MS(20)).len(), 1);
    assert_eq!(state.due(), Some((second, MS(100))));
}

#[test]
fn blocking_on_permits_of_blocked_threads_is_refused() {
    let mut state = PermitState::new(Some(2), None);
    assert_eq!(
        (
            state.request(MS(0), this_thread(), &waker()),
            state.request(MS(0), this_thread(), &waker())
        ),
        (None, None)
    );
    // One of the two holders requests another permit: the other holder may return its permit.
    let first = state.request(MS(0), this_thread(), &waker()).unwrap();
    assert!(state.begin_blocking_wait(1));
    // A waiter without a permit does not cause a deadlock.
    let outside = state.request(MS(0), this_thread(), &waker()).unwrap();
    assert!(state.begin_blocking_wait(0));
    // The other holder requests another permit, too.
    let second = state.request(MS(0), this_thread(), &waker()).unwrap();
    assert!(!state.begin_blocking_wait(1));
    assert!(state.leave(second, MS(0)).is_empty());
    // That thread ends, and the first continues.
    state.give_back(MS(0));
    assert!(state.take_call(first));
    state.end_blocking_wait(1);
    assert!(!state.take_call(outside));
    // A thread that holds two permits requests a third.
    let third = state.request(MS(0), this_thread(), &waker()).unwrap();
    assert!(!state.begin_blocking_wait(2));
    state.leave(third, MS(0));
}

#[test]
fn who_waits_for_the_clock_waits_for_nobody() {
    let mut state = PermitState::new(Some(2), Some(Rate::new(MS(100), 1)));
    assert_eq!(state.request(MS(0), this_thread(), &waker()), None);
    let inside = state.request(MS(0), this_thread(), &waker()).unwrap();
    assert!(
        state.begin_blocking_wait(1),
        "the second permit will be there"
    );
    state.call(MS(100));
    assert!(state.take_call(inside));
}

#[test]
fn limits_that_are_none_are_refused() {
    let refused = |make: fn() -> Limiter| std::panic::catch_unwind(make).is_err();
    assert!(refused(|| Limiter::new().concurrency(0)));
    assert!(refused(|| Limiter::new().rate(0, MS(1))));
    assert!(refused(|| Limiter::new().rate(1, Duration::ZERO)));
    assert!(refused(|| Limiter::new().rate(2_000_000_000, MS(1))));
    assert!(refused(|| Limiter::new().burst(2)));
    assert!(refused(|| Limiter::new().rate(1, MS(1)).burst(0)));
    assert!(refused(|| Limiter::new().rate(1, Duration::MAX)));
    assert!(!refused(|| Limiter::new().rate(1, MS(1)).burst(u32::MAX)));
    assert!(!refused(Limiter::new));
}

#[derive(Clone, Debug)]
enum Step {
    /// A request by one of three callers.
    Request(usize),
    /// A waiter checks whether it was called.
    Look(prop::sample::Index),
    Leave(prop::sample::Index),
    GiveBack,
    Pass(u64),
}

/// A waiter, and how often each other caller has passed it since it became the first of its own caller.
struct Waiting {
    caller: usize,
    ticket: Ticket,
    passed: [u32; 3],
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        4 => (0..3_usize).prop_map(Step::Request),
        3 => index().prop_map(Step::Look),
        1 => index().prop_map(Step::Leave),
        3 => Just(Step::GiveBack),
        2 => (0..150_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases((crate::sys::asked::cases(10_000) / 10).max(1)))]

    /// The limits are kept, callers take turns, and a waiter that may be called is called.
    #[test]
    fn permits_keep_both_limits(steps in steps(), max_given in 1..4_u32, burst in 1..4_u32) {
        let mut state = PermitState::new(Some(max_given), Some(Rate::new(MS(100), burst)));
        let callers = [Caller::new(), Caller::new(), Caller::new()];
        let (mut now, mut inside, mut line) = (MS(0), 0_u32, Vec::<Ticket>::new());
        let mut queue = Vec::<Waiting>::new();
        let mut started = Vec::<Duration>::new();
        for step in steps {
            let given = state.given;
            match step {
                Step::Request(caller) => match state.request(now, callers[caller], &waker()) {
                    None => {
                        // The remaining waiters have been called.
                        prop_assert!(state.line.is_empty(), "past the line");
                        inside += 1;
                    }
                    Some(ticket) => {
                        line.push(ticket);
                        queue.push(Waiting { caller, ticket, passed: [0; 3] });
                    }
                },
                Step::Look(which) if !line.is_empty() => {
                    let ticket = line[which.index(line.len())];
                    if state.take_call(ticket) {
                        line.retain(|&other| other != ticket);
                        inside += 1;
                    }
                }
                Step::Leave(which) if !line.is_empty() => {
                    let ticket = line.swap_remove(which.index(line.len()));
                    line.sort_unstable();
                    // Does nothing if the waiter was called and has not collected its permit.
                    queue.retain(|other| other.ticket != ticket);
                    // The waiter that leaves may pass its permit on, or unblock others.
                    let _ = state.leave(ticket, now);
                }
                Step::GiveBack if inside > 0 => {
                    inside -= 1;
                    let _ = state.give_back(now);
                }
                Step::Pass(ms) => {
                    now += MS(ms);
                    let _ = state.call(now);
                }
                Step::Look(_) | Step::Leave(_) | Step::GiveBack => {}
            }
            prop_assert!(state.given <= max_given);
            prop_assert_eq!(state.given, inside + state.called.len() as u32);
            // Waiters of one caller are called in order, and no other caller passes a waiter more than twice.
            while let Some((at, _)) = queue.iter().enumerate()
                .filter(|(_, one)| !state.line.contains(one.ticket))
                .min_by_key(|(_, one)| state.called[&one.ticket])
            {
                let called = queue.remove(at);
                prop_assert!(queue[..at].iter().all(|other| other.caller != called.caller));
                let mut seen = [false; 3];
                for head in queue.iter_mut().filter(|one| !std::mem::replace(&mut seen[one.caller], true)) {
                    head.passed[called.caller] += 1;
                    prop_assert!(head.caller == called.caller || head.passed[called.caller] <= 2, "{:?}", head.passed);
                }
            }
            started.extend((given..state.given).map(|_| now));
            // No waiter is left while a permit is available.
            if !state.line.is_empty() && state.given < max_given {
                let (first, due) = state.due().expect("a waiter watches the clock");
                prop_assert!(state.line.first() == Some(first) && due > now);
            }
        }
        for (index, &at) in started.iter().enumerate() {
            let within = started[index..].iter().filter(|&&other| other < at + MS(100)).count();
            prop_assert!(within <= burst as usize + 1, "{} within one time", within);
        }
    }
}

/// With a limiter per host and a waiter at each, a job costs as much as with three limiters.
#[test]
fn a_job_touches_no_limiter_but_its_own() {
    let locks = |hosts: usize| {
        let (shared, mut consumers) = fixture(1, 1);
        let submit = |limiter: &Limiter| {
            let options = JobOptions {
                limit: Some(PermitSource::for_this_thread(limiter)),
                ..JobOptions::default()
            };
            let mut call = ArgWriter::new(shared.arena.id());
            shared.submit(&kernel(), &mut call, Owner::Handle, Some(&options))
        };
        let hour = Duration::from_secs(3600);
        let one = Limiter::new().concurrency(1);
        let limiters: Vec<_> = (0..hosts)
            .map(|host| match host % 2 {
                0 => Limiter::new().concurrency(1),
                _ => Limiter::new().rate(1, hour),
            })
            .collect();
        let elsewhere = PermitSource::for_this_thread(&one);
        let mut permit = Some(elsewhere.acquire_inline().unwrap());
        for limiter in &limiters {
            submit(limiter);
        }
        let waiting = || shared.lock().permit_waiters.len();
        assert_eq!(waiting(), 0);
        for limiter in limiters.iter().chain([&one]) {
            submit(limiter);
        }
        assert_eq!(waiting(), hosts + 1);
        let mut counts = Vec::new();
        let mut count = |what: &mut dyn FnMut()| {
            let before = LOCKS.get();
            what();
            counts.push(LOCKS.get() - before);
        };
        // First a job that has to wait, then a job that frees a permit for another.
        count(&mut || {
            submit(&limiters[0]);
        });
        assert_eq!(waiting(), hosts + 2);
        count(&mut || {
            let _ = consumers[0].next();
            consumers[0].finish(false, 0, None);
            shared.stats();
        });
        assert_eq!(waiting(), hosts + 1);
        // Then what the monitor does if nothing has changed, and what follows if another engine returns a permit.
        count(&mut || shared.lock().run_timers());
        count(&mut || drop(permit.take()));
        count(&mut || shared.lock().run_timers());
        assert_eq!(waiting(), hosts);
        let first = shared.lock().permit_waiters.due();
        let dues = limiters.iter().filter_map(Limiter::due);
        assert_eq!(first, dues.map(|(_, due)| due).min(), "{hosts}");
        counts
    };
    let few = locks(3);
    assert!(few.iter().sum::<u64>() < 12, "{few:?}");
    assert_eq!(locks(1000), few);
}
