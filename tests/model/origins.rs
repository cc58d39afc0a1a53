//! The origin, cause and last lines of failures: also for jobs that failed because of another one, and for attempts
//! before the last.

use arenite::{
    Backoff, FailedDependency, JobError, JobErrorKind, JobLimit, JobOptions, Spawn, call,
};

use crate::harness::{ABORTED, Lab, assert_kind, cause_of, tests};

tests![
    each_attempt_has_its_last_words,
    a_quarantined_job_has_the_last_lines_of_all_attempts,
    a_dependent_names_the_failed_node_as_origin,
    a_spawned_job_names_its_origin,
    a_dead_letter_has_the_last_lines,
    a_jobs_own_failure_has_no_origin,
];

fn speaks_and_dies(name: &str) -> u32 {
    eprintln!("{name}: the header is fine");
    std::process::abort();
}

fn quiet() -> Lab {
    Lab::with(1, |builder| builder.on_log(|_| ()).quarantine_after(3))
}

/// Checks the last lines of `speaks_and_dies` at each attempt, and the worker.
fn check(error: &JobError, name: &str, before: usize) {
    let said = [format!("{name}: the header is fine")];
    assert!(error.kernel().ends_with("speaks_and_dies"), "{error}");
    assert_eq!(error.worker(), Some(0), "{error}");
    assert_eq!(error.last_words(), said, "{error}");
    assert_eq!(error.deaths().len(), before, "{error:?}");
    for death in error.deaths() {
        assert_eq!((&death.kind, death.worker), (&ABORTED, Some(0)));
        assert_eq!(death.last_words, said);
        assert!(death.to_string().ends_with(&said[0]), "{death}");
    }
}

fn each_attempt_has_its_last_words() {
    let lab = quiet();
    let job = lab.job(speaks_and_dies, ("once more",)).retries(1);
    let error = lab.failure_of(job.backoff(Backoff::NONE).submit());
    assert_eq!((error.kind(), error.attempt()), (&ABORTED, 2));
    check(&error, "once more", 1);
}

fn a_quarantined_job_has_the_last_lines_of_all_attempts() {
    let lab = quiet();
    let job = lab.job(speaks_and_dies, ("poison",)).retries(9);
    let error = lab.failure_of(job.backoff(Backoff::NONE).submit());
    assert_eq!(
        *error.kind(),
        JobErrorKind::Limit(JobLimit::Quarantined { deaths: 3 })
    );
    check(&error, "poison", 3);
}

fn a_dependent_names_the_failed_node_as_origin() {
    let lab = quiet();
    let job = lab.job(speaks_and_dies, ("a node",));
    let photo = job.retries(1).backoff(Backoff::NONE).submit();
    let double = lab.submit(|x: u32| x * 2, (&photo,));
    let end = lab.submit(|x: u32| x + 1, (&double,));
    let error = end.wait().unwrap_err();
    assert_kind!(
        error,
        JobErrorKind::Dependency(FailedDependency::Input { path, cause, .. })
            if path[1].kernel.ends_with("speaks_and_dies") && **cause == ABORTED
    );
    assert!(
        error.to_string().ends_with("a node: the header is fine"),
        "{error}"
    );
    let origin = error.origin().expect("the node that died");
    assert_eq!((origin.kind(), origin.attempt()), (&ABORTED, 2));
    check(origin, "a node", 1);
}

fn spawns(name: &str) -> Spawn<u32> {
    Spawn::new(|x: u32| x, (call(speaks_and_dies, (name,)),))
}

/// Spawns a job that spawns.
fn spawns_deeper(name: &str) -> Spawn<u32> {
    Spawn::new(|x: u32| x, (call(spawns, (name,)),))
}

fn a_spawned_job_names_its_origin() {
    let lab = quiet();
    let jobs = [
        lab.submit(spawns, ("a child",)),
        lab.submit(spawns_deeper, ("a child",)),
    ];
    for job in jobs {
        let error = lab.failure_of(job);
        assert_eq!(*cause_of(&error), ABORTED);
        assert!(
            error.to_string().ends_with("a child: the header is fine"),
            "{error}"
        );
        check(error.origin().expect("the child that died"), "a child", 0);
    }
}

fn a_dead_letter_has_the_last_lines() {
    let lab = quiet();
    let names = ["a letter"].map(|name| (name,));
    let once = JobOptions::new().retries(1).backoff(Backoff::NONE);
    let report = lab.map(speaks_and_dies, names).options(&once).report();
    let [letter] = &report.failures[..] else {
        panic!("{report}");
    };
    check(&letter.error, "a letter", 1);
}

fn a_jobs_own_failure_has_no_origin() {
    let lab = quiet();
    let error = lab.failure_of(lab.submit(speaks_and_dies, ("alone",)));
    assert!(error.origin().is_none());
    check(&error, "alone", 0);
    // Without processes there are no last lines; the rest is the same.
    let engine = arenite::Engine::inline();
    let fails = |_: u32| Err::<u32, _>("no".to_owned());
    let bad = engine.submit(fails, (1,));
    let error = engine.submit(|x: u32| x, (&bad,)).wait().unwrap_err();
    let no = JobErrorKind::Returned("no".into());
    assert_eq!(error.origin().map(JobError::kind), Some(&no));
    let spawns = || {
        Spawn::<u32>::new(
            |x: u32| x,
            (call(|_: u32| Err::<u32, _>("no".to_owned()), (1,)),),
        )
    };
    let error = engine.submit(spawns, ()).wait().unwrap_err();
    assert_eq!(error.origin().map(JobError::kind), Some(&no));
}
