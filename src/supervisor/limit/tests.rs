#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;

use super::super::JobOptions;
use super::super::fixture::{fixture, kernel};
use super::*;
use crate::kernel::wire::ArgWriter;
use proptest::prelude::*;

thread_local! {
    /// How often this thread has locked a limiter's books.
    pub(super) static LOCKS: Cell<u64> = const { Cell::new(0) };
}

const MS: fn(u64) -> Duration = Duration::from_millis;

fn bell() -> Waker {
    ThreadBell::new().waker().clone()
}

fn me() -> Caller {
    Caller::this_thread()
}

#[test]
fn permits_go_to_whoever_came_first() {
    let mut books = Books::new(Some(2), None);
    assert_eq!(books.come(MS(0), me(), &bell()), None);
    assert_eq!(books.come(MS(0), me(), &bell()), None);
    let tickets: Vec<_> = (0..3)
        .map(|_| books.come(MS(0), me(), &bell()).unwrap())
        .collect();
    assert!(books.call(MS(9)).is_empty(), "both permits are given");
    assert_eq!(books.give_back(MS(9)).len(), 1);
    assert!(!books.is_called(tickets[1]) && books.is_called(tickets[0]));
    assert!(!books.is_called(tickets[0]), "once");
    // Who leaves before he has come passes his permit on.
    assert_eq!(books.give_back(MS(9)).len(), 1);
    assert_eq!(books.leave(tickets[1], MS(9)).len(), 1);
    assert!(books.is_called(tickets[2]));
    assert_eq!(books.given, 2);
    assert!(books.give_back(MS(9)).is_empty() && books.give_back(MS(9)).is_empty());
    assert_eq!(books.given, 0);
}

/// Books in which somebody has the only permit.
fn taken() -> Books {
    let mut books = Books::new(Some(1), None);
    assert_eq!(books.come(MS(0), me(), &bell()), None);
    books
}

/// Gives the permit on until nobody waits, and says who had it in between.
fn turns(books: &mut Books, waiting: &[(Caller, Ticket)]) -> Vec<Caller> {
    let next = |_| {
        let _ = books.give_back(MS(0));
        let &(caller, _) = waiting
            .iter()
            .find(|&&(_, ticket)| books.is_called(ticket))?;
        Some(caller)
    };
    (0..=waiting.len()).map_while(next).collect()
}

#[test]
fn callers_take_turns() {
    let mut books = taken();
    let [many, few, late] = [Caller::new(), Caller::new(), Caller::new()];
    let order = [many, many, many, many, few, late, few];
    let waiting = order.map(|caller| (caller, books.come(MS(0), caller, &bell()).unwrap()));
    let fair = [many, few, late, many, few, many, many];
    assert_eq!(turns(&mut books, &waiting), fair);
}

#[test]
fn who_comes_late_has_no_turns_to_catch_up_on() {
    let mut books = taken();
    let [many, late] = [Caller::new(), Caller::new()];
    let come = |books: &mut Books, caller| (caller, books.come(MS(0), caller, &bell()).unwrap());
    let mut waiting: Vec<_> = (0..6).map(|_| come(&mut books, many)).collect();
    for &(_, ticket) in &waiting[..3] {
        let _ = books.give_back(MS(0));
        assert!(books.is_called(ticket));
    }
    waiting.drain(..3);
    waiting.extend([come(&mut books, late), come(&mut books, late)]);
    assert_eq!(turns(&mut books, &waiting), [many, late, many, late, many]);
}

#[test]
fn new_callers_without_end_starve_nobody() {
    let mut books = taken();
    let patient = Caller::new();
    let [_, second] = [0, 1].map(|_| books.come(MS(0), patient, &bell()).unwrap());
    let mut passed = 0;
    while !books.is_called(second) {
        let _ = books.come(MS(0), Caller::new(), &bell()).unwrap();
        let _ = books.give_back(MS(0));
        passed += 1;
        assert!(passed < 5, "others go first for ever");
    }
}

#[test]
fn who_leaves_the_line_loses_no_turn_by_it() {
    let mut books = taken();
    let [hasty, steady] = [Caller::new(), Caller::new()];
    let come = |books: &mut Books, caller| (caller, books.come(MS(0), caller, &bell()).unwrap());
    let mut waiting: Vec<_> = (0..4).map(|_| come(&mut books, steady)).collect();
    let given_up: Vec<_> = (0..100).map(|_| come(&mut books, hasty)).collect();
    waiting.push(come(&mut books, hasty));
    for (_, ticket) in given_up {
        let _ = books.leave(ticket, MS(0));
    }
    for _ in 0..100 {
        let (_, ticket) = come(&mut books, hasty);
        let _ = books.leave(ticket, MS(0));
    }
    waiting.push(come(&mut books, hasty));
    assert_eq!(
        turns(&mut books, &waiting),
        [steady, hasty, steady, hasty, steady, steady]
    );
}

#[test]
fn callers_that_are_gone_leave_nothing() {
    let mut books = taken();
    for turn in 0..1_000 {
        let ticket = books.come(MS(0), Caller::new(), &bell()).unwrap();
        if turn % 2 == 0 {
            let _ = books.leave(ticket, MS(0));
        } else {
            let _ = books.give_back(MS(0));
            assert!(books.is_called(ticket));
        }
        assert_eq!((books.line.len(), books.line.callers()), (0, 0));
    }
}

#[test]
fn a_rate_is_kept_and_the_first_in_the_line_looks_at_the_clock() {
    let mut books = Books::new(None, Some(Rate::new(MS(100), 1)));
    assert_eq!(books.come(MS(0), me(), &bell()), None);
    let first = books.come(MS(10), me(), &bell()).unwrap();
    let second = books.come(MS(20), me(), &bell()).unwrap();
    assert_eq!(books.due(), Some((first, MS(100))));
    let told = books.call(MS(99));
    assert_eq!(
        (told.len(), books.is_called(first)),
        (1, false),
        "only to look again"
    );
    // One is let in, and the next is told that he is the first now.
    assert_eq!(books.call(MS(100)).len(), 2);
    assert!(books.is_called(first) && !books.is_called(second));
    assert_eq!(books.due(), Some((second, MS(200))));
    // After a while without any there is no more than a burst.
    assert_eq!(books.call(MS(1000)).len(), 1);
    assert!(books.is_called(second));
    assert!(books.come(MS(1000), me(), &bell()).is_some());
}

#[test]
fn a_burst_may_begin_at_once() {
    let mut books = Books::new(None, Some(Rate::new(MS(100), 3)));
    let begun = (0..5).filter(|_| books.come(MS(50), me(), &bell()).is_none());
    assert_eq!(begun.count(), 3);
}

#[test]
fn whoever_comes_first_after_one_has_left_is_told() {
    let mut books = Books::new(Some(1), Some(Rate::new(MS(100), 1)));
    assert_eq!(books.come(MS(0), me(), &bell()), None);
    let first = books.come(MS(0), me(), &bell()).unwrap();
    let second = books.come(MS(0), me(), &bell()).unwrap();
    assert_eq!(books.due(), None, "the first waits for the permit");
    // The permit is there, the time is not: the first has to look at the clock from now on.
    assert_eq!(books.give_back(MS(10)).len(), 1);
    assert_eq!(books.due(), Some((first, MS(100))));
    assert_eq!(books.leave(first, MS(20)).len(), 1);
    assert_eq!(books.due(), Some((second, MS(100))));
}

#[test]
fn nobody_waits_for_those_who_wait_for_him() {
    let mut books = Books::new(Some(2), None);
    assert_eq!(
        (
            books.come(MS(0), me(), &bell()),
            books.come(MS(0), me(), &bell())
        ),
        (None, None)
    );
    // One of the two who have a permit wants another one: the other one may give his back.
    let first = books.come(MS(0), me(), &bell()).unwrap();
    assert!(books.waits_with(1));
    // Whoever has none keeps nobody waiting.
    let outside = books.come(MS(0), me(), &bell()).unwrap();
    assert!(books.waits_with(0));
    // The other one wants one too.
    let second = books.come(MS(0), me(), &bell()).unwrap();
    assert!(!books.waits_with(1));
    assert!(books.leave(second, MS(0)).is_empty());
    // He ends, and the first goes on.
    books.give_back(MS(0));
    assert!(books.is_called(first));
    books.has_waited_with(1);
    assert!(!books.is_called(outside));
    // With two permits in one hand, a third.
    let third = books.come(MS(0), me(), &bell()).unwrap();
    assert!(!books.waits_with(2));
    books.leave(third, MS(0));
}

#[test]
fn who_waits_for_the_clock_waits_for_nobody() {
    let mut books = Books::new(Some(2), Some(Rate::new(MS(100), 1)));
    assert_eq!(books.come(MS(0), me(), &bell()), None);
    let inside = books.come(MS(0), me(), &bell()).unwrap();
    assert!(books.waits_with(1), "the second permit will be there");
    books.call(MS(100));
    assert!(books.is_called(inside));
}

#[test]
fn limits_that_are_none_are_refused() {
    let refused =
        |make: fn() -> LimiterBuilder| std::panic::catch_unwind(|| make().build()).is_err();
    assert!(refused(|| Limiter::builder().concurrency(0)));
    assert!(refused(|| Limiter::builder().rate(0, MS(1))));
    assert!(refused(|| Limiter::builder().rate(1, Duration::ZERO)));
    assert!(refused(|| Limiter::builder().rate(2_000_000_000, MS(1))));
    assert!(refused(|| Limiter::builder().burst(2)));
    assert!(refused(|| Limiter::builder().rate(1, MS(1)).burst(0)));
    assert!(refused(|| Limiter::builder().rate(1, Duration::MAX)));
    assert!(!refused(|| Limiter::builder()
        .rate(1, MS(1))
        .burst(u32::MAX)));
    assert!(!refused(Limiter::builder));
}

#[derive(Clone, Debug)]
enum Step {
    /// One of three callers.
    Come(usize),
    /// One of those that wait looks whether he is called.
    Look(prop::sample::Index),
    Leave(prop::sample::Index),
    GiveBack,
    Pass(u64),
}

/// Who waits, and how often each caller has passed him since he is the first of his own.
struct Waiting {
    who: usize,
    ticket: Ticket,
    passed: [u32; 3],
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        4 => (0..3_usize).prop_map(Step::Come),
        3 => index().prop_map(Step::Look),
        1 => index().prop_map(Step::Leave),
        3 => Just(Step::GiveBack),
        2 => (0..150_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Never more than the limits say, everybody in turn, and nobody is forgotten who may come in.
    #[test]
    fn the_books_keep_both_limits(steps in steps(), most in 1..4_u32, burst in 1..4_u32) {
        let mut books = Books::new(Some(most), Some(Rate::new(MS(100), burst)));
        let callers = [Caller::new(), Caller::new(), Caller::new()];
        let (mut now, mut inside, mut line) = (MS(0), 0_u32, Vec::<Ticket>::new());
        let mut queue = Vec::<Waiting>::new();
        let mut begun = Vec::<Duration>::new();
        for step in steps {
            let given = books.given;
            match step {
                Step::Come(who) => match books.come(now, callers[who], &bell()) {
                    None => {
                        // Those who are left have been called.
                        prop_assert!(books.line.is_empty(), "past the line");
                        inside += 1;
                    }
                    Some(ticket) => {
                        line.push(ticket);
                        queue.push(Waiting { who, ticket, passed: [0; 3] });
                    }
                },
                Step::Look(which) if !line.is_empty() => {
                    let ticket = line[which.index(line.len())];
                    if books.is_called(ticket) {
                        line.retain(|&other| other != ticket);
                        inside += 1;
                    }
                }
                Step::Leave(which) if !line.is_empty() => {
                    let ticket = line.swap_remove(which.index(line.len()));
                    line.sort_unstable();
                    // Unless he has been called, and has not looked.
                    queue.retain(|other| other.ticket != ticket);
                    // It may pass its permit on, or others may be called because it was in their way.
                    let _ = books.leave(ticket, now);
                }
                Step::GiveBack if inside > 0 => {
                    inside -= 1;
                    let _ = books.give_back(now);
                }
                Step::Pass(ms) => {
                    now += MS(ms);
                    let _ = books.call(now);
                }
                Step::Look(_) | Step::Leave(_) | Step::GiveBack => {}
            }
            prop_assert!(books.given <= most);
            prop_assert_eq!(books.given, inside + books.called.len() as u32);
            // Among those of one caller the first come is the first, and no other caller passes him more than
            // twice.
            while let Some((at, _)) = queue.iter().enumerate()
                .filter(|(_, one)| !books.line.contains(one.ticket))
                .min_by_key(|(_, one)| books.called[&one.ticket])
            {
                let called = queue.remove(at);
                prop_assert!(queue[..at].iter().all(|other| other.who != called.who));
                let mut seen = [false; 3];
                for head in queue.iter_mut().filter(|one| !std::mem::replace(&mut seen[one.who], true)) {
                    head.passed[called.who] += 1;
                    prop_assert!(head.who == called.who || head.passed[called.who] <= 2, "{:?}", head.passed);
                }
            }
            begun.extend((given..books.given).map(|_| now));
            // Nobody stands in front of an open door.
            if !books.line.is_empty() && books.given < most {
                let (first, due) = books.due().expect("somebody looks at the clock");
                prop_assert!(books.line.first() == Some(first) && due > now);
            }
        }
        for (index, &at) in begun.iter().enumerate() {
            let within = begun[index..].iter().filter(|&&other| other < at + MS(100)).count();
            prop_assert!(within <= burst as usize + 1, "{} within one time", within);
        }
    }
}

/// With a limiter per host, each of which has somebody in its line, what a job does costs as much as with three of them.
#[test]
fn a_job_touches_no_limiter_but_its_own() {
    let locks = |hosts: usize| {
        let (shared, mut consumers) = fixture(1, 1);
        let submit = |limiter: &Limiter| {
            let options = JobOptions {
                limit: Some(Limit::of_this_thread(limiter)),
                ..JobOptions::default()
            };
            let mut call = ArgWriter::new(shared.arena.id());
            shared.submit(&kernel(), &mut call, 0, Some(&options))
        };
        let hour = Duration::from_secs(3600);
        let one = Limiter::builder().concurrency(1).build();
        let limiters: Vec<_> = (0..hosts)
            .map(|host| match host % 2 {
                0 => Limiter::builder().concurrency(1).build(),
                _ => Limiter::builder().rate(1, hour).build(),
            })
            .collect();
        let elsewhere = Limit::of_this_thread(&one);
        let mut permit = Some(elsewhere.enter_here().unwrap());
        for limiter in &limiters {
            submit(limiter);
        }
        let waiting = || shared.lock().lines.len();
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
        // A job that has to wait, and one that makes room for another.
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
        // The monitor, when nothing is new, and when a permit comes from elsewhere.
        count(&mut || shared.lock().run_timers());
        count(&mut || drop(permit.take()));
        count(&mut || shared.lock().run_timers());
        assert_eq!(waiting(), hosts);
        let first = shared.lock().line_due();
        let dues = limiters.iter().filter_map(Limiter::due);
        assert_eq!(first, dues.map(|(_, due)| due).min(), "{hosts}");
        counts
    };
    let few = locks(3);
    assert!(few.iter().sum::<u64>() < 12, "{few:?}");
    assert_eq!(locks(1000), few);
}
