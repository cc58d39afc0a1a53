//! Calls of an actor, and the cancellation of a scope.

use std::time::Duration;

use super::{Case, Goal, Setup, Unit, ours};

/// The time that a job of a cancelled scope may run before its worker is killed.
pub(super) const GRACE: Duration = Duration::from_millis(100);

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let call = Case::new(
        "actor-rtt",
        "Call a method of an actor and wait for it, and an empty job",
        Unit::Microseconds,
    )
    .plan(if setup.quick { 500 } else { 2_000 }, 9, 200)
    .goals(&[Goal::AtMost(1.1, "noop")])
    .system("arenite", ours::actor_call)
    .system("noop", ours::noop_hot);
    let cancel = Case::new(
        "cancel-scope",
        "Cancel a scope of 1,000 jobs that ignore it, with 100 ms of grace",
        Unit::Milliseconds,
    )
    .plan(1, if setup.quick { 3 } else { 7 }, 1)
    .goals(&[Goal::Below(1.5 * GRACE.as_millis() as f64)])
    .system("arenite", ours::cancel_scope);
    vec![call, cancel]
}
