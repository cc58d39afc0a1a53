//! What workers say, and what is left of them when they die.

use arenite::JobErrorKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Gate, Lab, pass, tests};

tests![
    a_panic_that_ends_the_process_is_heard,
    a_silent_death_has_no_last_words
];

/// A panic that may not leave the function: the process ends.
extern "C" fn cannot_unwind(what: u32) {
    panic!("no way \x1b[31mout of {what:x}");
}

fn a_panic_that_ends_the_process_is_heard() {
    let lab = Lab::new(1);
    let error = lab.failure_of(lab.submit(|| cannot_unwind(0xcafe), ()));
    assert_eq!(*error.kind(), JobErrorKind::Signal(6), "{error}");
    let words = error.last_words();
    let said = |what: &str| words.iter().any(|line| line.contains(what));
    assert!(
        said("tests/engine/logs.rs") && said(r"no way \u{1b}[31mout of cafe"),
        "{words:?}"
    );
    assert!(error.to_string().contains("last words"), "{error}");
    lab.assert_in_use(0);
}

/// A panic that was answered, and what an earlier worker said, are not the words of a later job.
fn a_silent_death_has_no_last_words() {
    let lab = Lab::new(1);
    for _ in 0..2 {
        let caught = lab.failure_of(lab.submit(|| -> u8 { panic!("caught") }, ()));
        assert!(matches!(caught.kind(), JobErrorKind::Panicked { .. }));
        assert!(caught.last_words().is_empty(), "{caught:?}");
        let gate = Gate::new();
        let job = lab.submit(pass, (&gate.path(),));
        let held = gate.meet();
        kill(Pid::from_raw(lab.pid(0)), Signal::SIGKILL).unwrap();
        let error = lab.failure_of(job);
        drop(held);
        assert_eq!(*error.kind(), JobErrorKind::Signal(9));
        assert!(error.last_words().is_empty(), "{error:?}");
    }
    lab.assert_in_use(0);
}
