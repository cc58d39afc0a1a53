//! The cost of protection: the same work with and without a protection, and the time to replace a worker.

use super::arrays::Pictures;
use super::{BenchError, Case, Goal, Running, Setup, Unit, ours};
use arenite::{Builder, Guard, Sandbox, SandboxReport};

/// The number of words in the array that is modified in place, which has 10 MB.
pub(super) const WORDS: usize = 1_250_000;

/// Turns a protection on or off.
type Change = fn(Builder) -> Builder;

pub(super) fn cases(setup: &Setup, pictures: &Pictures) -> Vec<Case> {
    let on: Change = |builder| builder.guard(Guard::On);
    let off: Change = |builder| builder.guard(Guard::Off);
    let guard_images = images(
        "guard-images-64",
        "Shrink 64 pictures of 10 MB, with published pages made read-only and left writable",
        (on, off),
        setup,
        pictures,
    );
    let guard_inplace = pair(
        Case::new(
            "guard-inplace",
            "Modify 10 MB in place, with lent pages writable during the job and always",
            Unit::Microseconds,
        )
        .plan(if setup.quick { 10 } else { 50 }, 15, 10)
        .restarting()
        .goals(&[Goal::AtMost(1.10, "off")]),
        (on, off),
        ours::in_place,
    );
    let (strict, none): (Change, Change) = (
        |builder| builder.sandbox(Sandbox::Strict),
        |builder| builder.sandbox(Sandbox::Off),
    );
    let sandbox_images = images(
        "sandbox-images-64",
        "Shrink 64 pictures of 10 MB, in sandboxed workers and in others",
        (strict, none),
        setup,
        pictures,
    );
    let sandbox_noop = pair(
        Case::new(
            "sandbox-noop",
            "Hand over an empty job and wait for it, with sandboxed workers and others",
            Unit::Microseconds,
        )
        .plan(if setup.quick { 500 } else { 2_000 }, 9, 200)
        .goals(&[Goal::AtMost(1.1, "off")]),
        (strict, none),
        ours::noop_with,
    );
    let respawn = Case::new(
        "respawn",
        "From the error that a worker has died to the first result of its replacement",
        Unit::Milliseconds,
    )
    .plan(10, 7, 2)
    .goals(&[Goal::Below(5.0)])
    .system("arenite", |_| ours::respawn(|builder| builder))
    .system("sandbox", |_| {
        require_sandbox()?;
        ours::respawn(|builder| builder.sandbox(Sandbox::Strict))
    });
    vec![
        guard_images,
        guard_inplace,
        sandbox_images,
        sandbox_noop,
        respawn,
    ]
}

fn images(
    id: &'static str,
    title: &'static str,
    changes: (Change, Change),
    setup: &Setup,
    pictures: &Pictures,
) -> Case {
    let mut case = Case::new(id, title, Unit::Milliseconds)
        .plan(1, if setup.quick { 3 } else { 15 }, 1)
        .restarting()
        .goals(&[Goal::AtMost(1.03, "off")]);
    case.memory = 3 << 30;
    let pictures = pictures.clone();
    pair(case, changes, move |setup, change| {
        ours::images_with(setup, &pictures.get(), change)
    })
}

/// Adds the two systems of a case.
fn pair<F>(case: Case, (on, off): (Change, Change), start: F) -> Case
where
    F: Fn(&Setup, Change) -> Result<Running, BenchError> + Clone + 'static,
{
    let needs_sandbox = case.id.starts_with("sandbox");
    let without = start.clone();
    case.system("on", move |setup| {
        if needs_sandbox {
            require_sandbox()?;
        }
        start(setup, on)
    })
    .system("off", move |setup| without(setup, off))
}

/// Requires a complete sandbox, because a partial sandbox would cost less.
fn require_sandbox() -> Result<(), BenchError> {
    let report = SandboxReport::of_this_kernel();
    if report.is_complete() {
        Ok(())
    } else {
        Err(BenchError::Missing(report.to_string()))
    }
}
