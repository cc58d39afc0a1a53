//! The books by themselves.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;

#[test]
fn one_that_is_too_large_is_let_in_alone() {
    let mut books = Admission::new(100);
    assert!(books.may_enter(u64::MAX, None, None));
    books.enter(u64::MAX);
    assert!(!books.may_enter(0, None, None), "whatever comes next waits");
    assert!(!books.entered(Some(7), u64::MAX));
    assert!(!books.may_enter(0, None, None));
    assert!(!books.discharge(7), "nobody waits");
    assert_eq!(books.bytes(), 0);
    assert!(books.may_enter(100, None, None) && books.may_enter(101, None, None));
    assert!(!books.discharge(7), "once");
}

#[test]
fn nobody_passes_the_line() {
    let mut books = Admission::new(100);
    books.enter(60);
    let _ = books.entered(Some(0), 60);
    let (first, second) = (books.join(), books.join());
    assert!(!books.may_enter(50, Some(first), None), "too large");
    assert!(!books.may_enter(1, Some(second), None), "not its turn");
    assert!(!books.may_enter(1, None, None), "behind both");
    assert!(books.discharge(0), "they want to hear of it");
    assert!(books.may_enter(50, Some(first), None));
    books.leave(first);
    books.enter(50);
    assert!(books.entered(Some(0), 50), "so does the next");
    assert!(books.may_enter(50, Some(second), None));
    assert!(!books.may_enter(51, Some(second), None));
}

#[test]
fn what_was_begun_before_goes_before() {
    let mut books = Admission::new(100);
    books.enter(60);
    let _ = books.entered(Some(0), 60);
    let (early, waits, late) = (books.number(), books.join(), books.number());
    assert!(
        books.may_enter(40, Some(early), None),
        "before all that wait"
    );
    assert!(!books.may_enter(41, Some(early), None), "too large");
    assert!(!books.may_enter(1, Some(late), None), "not its turn");
    let held_back = Some(early);
    assert!(!books.may_enter(1, Some(waits), held_back));
    assert!(!books.may_enter(1, None, held_back));
    assert!(books.may_enter(40, Some(early), held_back));
    assert!(books.may_enter(40, Some(waits), Some(late)));
}

#[test]
fn a_future_that_was_told_and_does_not_come_is_passed_over() {
    let mut books = Admission::new(100);
    let (future, thread) = (books.join(), books.join());
    let asleep = Place::Asleep(Waker::noop().clone());
    books.line.insert(future, asleep);
    books.pass_over(Instant::now() + 10 * LOOK_AGAIN);
    assert!(!books.may_enter(1, Some(thread), None), "nobody told it");
    let (_, look_at) = books.first_waker().unwrap();
    assert!(books.first_waker().is_none(), "once");
    books.pass_over(look_at - LOOK_AGAIN / 2);
    assert!(!books.may_enter(1, Some(thread), None), "it is on its way");
    books.pass_over(look_at);
    assert!(books.may_enter(1, Some(thread), None));
    books.come(future);
    assert!(!books.may_enter(1, Some(thread), None), "its old place");
    assert!(books.may_enter(1, Some(future), None));
}

/// What threads may do, in any order.
#[derive(Clone, Debug)]
enum Step {
    /// Come with a job of so many bytes; those that are not let in wait.
    Come(u64),
    /// The first in the line looks again.
    Look,
    /// One of those that wait goes away.
    Leave(prop::sample::Index),
    /// A job that was let in is submitted, or refused at once.
    Submit(prop::sample::Index, bool),
    /// A job ends.
    End(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![0_u64..60, 90..120_u64, Just(u64::MAX), Just(u64::MAX - 3)];
    let index = any::<prop::sample::Index>;
    prop::collection::vec(
        prop_oneof![
            4 => bytes.prop_map(Step::Come),
            3 => Just(Step::Look),
            1 => index().prop_map(Step::Leave),
            3 => (index(), any::<bool>()).prop_map(|(which, refused)| Step::Submit(which, refused)),
            3 => index().prop_map(Step::End),
        ],
        1..200,
    )
}

/// Plain lists: what each job in flight takes, whether it has a record, and who waits with what.
#[derive(Default)]
struct Model {
    flying: Vec<(Option<u32>, u64)>,
    waiting: Vec<(u64, u64)>,
}

impl Model {
    fn lets_in(&self, bytes: u64) -> bool {
        let sum: u128 = self
            .flying
            .iter()
            .map(|&(_, bytes)| u128::from(bytes))
            .sum();
        self.flying.is_empty() || sum + u128::from(bytes) <= 100
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The books let in whom the model lets in: in order, as many as fit, and always one.
    #[test]
    fn the_books_agree_with_a_model(steps in steps()) {
        let (mut books, mut model) = (Admission::new(100), Model::default());
        let mut next_record = 0;
        for step in steps {
            match step {
                Step::Come(bytes) => {
                    let expected = model.waiting.is_empty() && model.lets_in(bytes);
                    prop_assert_eq!(books.may_enter(bytes, None, None), expected);
                    if expected {
                        books.enter(bytes);
                        model.flying.push((None, bytes));
                    } else {
                        model.waiting.push((books.join(), bytes));
                    }
                }
                Step::Look => {
                    for (place, &(ticket, bytes)) in model.waiting.iter().enumerate() {
                        let expected = place == 0 && model.lets_in(bytes);
                        prop_assert_eq!(books.may_enter(bytes, Some(ticket), None), expected);
                    }
                    if let Some(&(ticket, bytes)) = model.waiting.first()
                        && model.lets_in(bytes)
                    {
                        books.leave(ticket);
                        books.enter(bytes);
                        model.waiting.remove(0);
                        model.flying.push((None, bytes));
                    }
                }
                Step::Leave(which) if !model.waiting.is_empty() => {
                    let (ticket, _) = model.waiting.remove(which.index(model.waiting.len()));
                    books.leave(ticket);
                }
                Step::Submit(which, refused) => {
                    let flying = &mut model.flying;
                    let entering: Vec<usize> =
                        (0..flying.len()).filter(|&at| flying[at].0.is_none()).collect();
                    if entering.is_empty() {
                        continue;
                    }
                    let at = entering[which.index(entering.len())];
                    let bytes = flying[at].1;
                    let tells = if refused {
                        flying.remove(at);
                        books.entered(None, bytes)
                    } else {
                        flying[at].0 = Some(next_record);
                        next_record += 1;
                        books.entered(flying[at].0, bytes)
                    };
                    prop_assert_eq!(tells, !model.waiting.is_empty());
                }
                Step::End(which) => {
                    let flying = &mut model.flying;
                    let open: Vec<usize> =
                        (0..flying.len()).filter(|&at| flying[at].0.is_some()).collect();
                    if open.is_empty() {
                        continue;
                    }
                    let (record, _) = flying.remove(open[which.index(open.len())]);
                    prop_assert_eq!(books.discharge(record.unwrap()), !model.waiting.is_empty());
                }
                Step::Leave(_) => {}
            }
            let sum: u128 = model.flying.iter().map(|&(_, bytes)| u128::from(bytes)).sum();
            prop_assert_eq!(u128::from(books.bytes()), sum, "only one that is let in alone is larger");
        }
    }
}
