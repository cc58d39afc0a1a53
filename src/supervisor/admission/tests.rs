//! Tests of the accounting alone.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;

#[test]
fn a_job_above_the_limit_is_admitted_alone() {
    let mut admission = Admission::new(100);
    assert!(admission.may_admit(u64::MAX, None, None));
    admission.reserve(u64::MAX);
    assert!(!admission.may_admit(0, None, None), "the next one waits");
    assert!(!admission.charge(Some(7), u64::MAX));
    assert!(!admission.may_admit(0, None, None));
    assert!(!admission.discharge(7), "no caller waits");
    assert_eq!(admission.bytes(), 0);
    assert!(admission.may_admit(100, None, None) && admission.may_admit(101, None, None));
    assert!(!admission.discharge(7), "once");
}

#[test]
fn no_caller_passes_the_line() {
    let mut admission = Admission::new(100);
    admission.reserve(60);
    let _ = admission.charge(Some(0), 60);
    let (first, second) = (admission.join(), admission.join());
    assert!(!admission.may_admit(50, Some(first), None), "too large");
    assert!(!admission.may_admit(1, Some(second), None), "not its turn");
    assert!(!admission.may_admit(1, None, None), "behind both");
    assert!(admission.discharge(0), "the line has to be notified");
    assert!(admission.may_admit(50, Some(first), None));
    admission.leave(first);
    admission.reserve(50);
    assert!(admission.charge(Some(0), 50), "the next one waits");
    assert!(admission.may_admit(50, Some(second), None));
    assert!(!admission.may_admit(51, Some(second), None));
}

#[test]
fn a_begun_run_precedes_later_tickets() {
    let mut admission = Admission::new(100);
    admission.reserve(60);
    let _ = admission.charge(Some(0), 60);
    let (early, waits, late) = (
        admission.draw_ticket(),
        admission.join(),
        admission.draw_ticket(),
    );
    assert!(
        admission.may_admit(40, Some(early), None),
        "before all that wait"
    );
    assert!(!admission.may_admit(41, Some(early), None), "too large");
    assert!(!admission.may_admit(1, Some(late), None), "not its turn");
    let held_back = Some(early);
    assert!(!admission.may_admit(1, Some(waits), held_back));
    assert!(!admission.may_admit(1, None, held_back));
    assert!(admission.may_admit(40, Some(early), held_back));
    assert!(admission.may_admit(40, Some(waits), Some(late)));
}

#[test]
fn a_woken_future_that_is_not_polled_is_passed_over() {
    let mut admission = Admission::new(100);
    let (future, thread) = (admission.join(), admission.join());
    let asleep = LineEntry::Asleep(Waker::noop().clone());
    admission.line.insert(future, asleep);
    admission.drop_unresponsive(Instant::now() + 10 * LOOK_AGAIN);
    assert!(
        !admission.may_admit(1, Some(thread), None),
        "it was not woken"
    );
    let (_, recheck_at) = admission.first_waker().unwrap();
    assert!(admission.first_waker().is_none(), "once");
    admission.drop_unresponsive(recheck_at - LOOK_AGAIN / 2);
    assert!(
        !admission.may_admit(1, Some(thread), None),
        "it may still be polled"
    );
    admission.drop_unresponsive(recheck_at);
    assert!(admission.may_admit(1, Some(thread), None));
    admission.look_again(future);
    assert!(
        !admission.may_admit(1, Some(thread), None),
        "its old entry_in_line"
    );
    assert!(admission.may_admit(1, Some(future), None));
}

/// What threads may do, in any order.
#[derive(Clone, Debug)]
enum Step {
    /// Requests admission of a job of this number of bytes. If it is refused, the caller waits.
    Request(u64),
    /// The first caller in the line tries again.
    Look,
    /// One of the waiting callers leaves.
    Leave(prop::sample::Index),
    /// An admitted job is submitted, or refused at once.
    Submit(prop::sample::Index, bool),
    /// A job ends.
    End(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![0_u64..60, 90..120_u64, Just(u64::MAX), Just(u64::MAX - 3)];
    let index = any::<prop::sample::Index>;
    prop::collection::vec(
        prop_oneof![
            4 => bytes.prop_map(Step::Request),
            3 => Just(Step::Look),
            1 => index().prop_map(Step::Leave),
            3 => (index(), any::<bool>()).prop_map(|(which, refused)| Step::Submit(which, refused)),
            3 => index().prop_map(Step::End),
        ],
        1..200,
    )
}

/// The same state as plain lists: bytes and record of each job in flight; ticket and bytes of each waiting caller.
#[derive(Default)]
struct Model {
    in_flight: Vec<(Option<u32>, u64)>,
    waiting: Vec<(u64, u64)>,
}

impl Model {
    fn admits(&self, bytes: u64) -> bool {
        let sum: u128 = self
            .in_flight
            .iter()
            .map(|&(_, bytes)| u128::from(bytes))
            .sum();
        self.in_flight.is_empty() || sum + u128::from(bytes) <= 100
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases((crate::sys::asked::cases(10_000) / 5).max(1)))]

    /// Admission agrees with the model: callers are admitted in order, as many as fit, and always at least one.
    #[test]
    fn admission_agrees_with_a_model(steps in steps()) {
        let (mut admission, mut model) = (Admission::new(100), Model::default());
        let mut next_record = 0;
        for step in steps {
            match step {
                Step::Request(bytes) => {
                    let expected = model.waiting.is_empty() && model.admits(bytes);
                    prop_assert_eq!(admission.may_admit(bytes, None, None), expected);
                    if expected {
                        admission.reserve(bytes);
                        model.in_flight.push((None, bytes));
                    } else {
                        model.waiting.push((admission.join(), bytes));
                    }
                }
                Step::Look => {
                    for (entry_in_line, &(ticket, bytes)) in model.waiting.iter().enumerate() {
                        let expected = entry_in_line == 0 && model.admits(bytes);
                        prop_assert_eq!(admission.may_admit(bytes, Some(ticket), None), expected);
                    }
                    if let Some(&(ticket, bytes)) = model.waiting.first()
                        && model.admits(bytes)
                    {
                        admission.leave(ticket);
                        admission.reserve(bytes);
                        model.waiting.remove(0);
                        model.in_flight.push((None, bytes));
                    }
                }
                Step::Leave(which) if !model.waiting.is_empty() => {
                    let (ticket, _) = model.waiting.remove(which.index(model.waiting.len()));
                    admission.leave(ticket);
                }
                Step::Submit(which, refused) => {
                    let in_flight = &mut model.in_flight;
                    let entering: Vec<usize> =
                        (0..in_flight.len()).filter(|&at| in_flight[at].0.is_none()).collect();
                    if entering.is_empty() {
                        continue;
                    }
                    let at = entering[which.index(entering.len())];
                    let bytes = in_flight[at].1;
                    let notifies = if refused {
                        in_flight.remove(at);
                        admission.charge(None, bytes)
                    } else {
                        in_flight[at].0 = Some(next_record);
                        next_record += 1;
                        admission.charge(in_flight[at].0, bytes)
                    };
                    prop_assert_eq!(notifies, !model.waiting.is_empty());
                }
                Step::End(which) => {
                    let in_flight = &mut model.in_flight;
                    let open: Vec<usize> =
                        (0..in_flight.len()).filter(|&at| in_flight[at].0.is_some()).collect();
                    if open.is_empty() {
                        continue;
                    }
                    let (record, _) = in_flight.remove(open[which.index(open.len())]);
                    prop_assert_eq!(admission.discharge(record.unwrap()), !model.waiting.is_empty());
                }
                Step::Leave(_) => {}
            }
            let sum: u128 = model.in_flight.iter().map(|&(_, bytes)| u128::from(bytes)).sum();
            prop_assert_eq!(u128::from(admission.bytes()), sum, "only a job that is admitted alone exceeds the limit");
        }
    }
}
