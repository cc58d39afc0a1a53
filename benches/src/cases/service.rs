//! Kernels of another program: a call, compared with a message to another process and back.

use super::noop::stream_hot;
use super::{Case, Goal, Setup, Unit, ours};
use crate::stream::StreamKind;

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let trips = if setup.quick { 500 } else { 5_000 };
    let call = Case::new(
        "service-call",
        "Call an empty kernel of another program and wait for its result, back to back",
        Unit::Microseconds,
    )
    .plan(trips, 9, 200)
    .goals(&[Goal::AtMost(2.0, "unix-socket")])
    .note("unix-socket is a message to another process and its answer; a call goes on to a worker and back")
    .system("arenite", ours::service_call)
    .system("unix-socket", |_| stream_hot(StreamKind::UnixSocket));
    vec![call]
}
