//! Kernels that a program names at run time.

use arenite::{Engine, JobOptions, Trace};

use crate::harness::{Calls, Lab, assert_says, builder, tests};

tests![
    statistics_and_errors_have_the_given_name,
    the_trace_has_the_given_name,
    every_kind_of_job_can_be_named,
];

/// Runs a function by its number, as a binding of another language does.
fn run(function: u32, value: u64) -> Result<u64, String> {
    match function {
        0 => Ok(value + 1),
        _ => Err(format!("there is no function {function}")),
    }
}

/// Calls and failures of the kernels with these names.
fn counts(engine: &Engine, names: [&str; 3]) -> [Option<(u64, u64)>; 3] {
    let kernels = engine.stats().kernels;
    names.map(|name| {
        let kernel = kernels.iter().find(|kernel| kernel.name == name)?;
        Some((kernel.calls, kernel.failures))
    })
}

fn statistics_and_errors_have_the_given_name() {
    let lab = Lab::new(1);
    let own = std::any::type_name_of_val(&run);
    let names = ["shapes.area", "shapes.length", own];
    for n in 0..10 {
        // Each time another string.
        let area = lab.job(run, (0, n)).name(format!("shapes.{}", "area"));
        assert_eq!(area.submit().wait().unwrap(), n + 1);
    }
    let error = lab.job(run, (1, 0)).name("shapes.length").submit().wait();
    let error = error.unwrap_err();
    assert_eq!(error.kernel(), "shapes.length");
    assert_says(&error, "(shapes.length on worker 0)");
    assert_eq!(counts(&lab, names), [Some((10, 0)), Some((1, 1)), None]);
    assert_eq!(lab.value_of(run, (0, 5)), 6);
    assert_eq!(
        counts(&lab, names),
        [Some((10, 0)), Some((1, 1)), Some((1, 0))]
    );
    // What the worker prints, and how it dies, is told under that name too.
    let died = lab
        .job(|| -> u64 { std::process::exit(3) }, ())
        .name("shapes.exit");
    let error = died.submit().wait().unwrap_err();
    assert_eq!(error.kernel(), "shapes.exit");
}

fn the_trace_has_the_given_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let engine = builder(1, 32 << 20);
    let engine = engine.trace(Trace::to(&path)).build().unwrap();
    engine
        .job(run, (0, 1))
        .name("shapes.area")
        .submit()
        .wait()
        .unwrap();
    engine
        .job(run, (9, 1))
        .name("shapes.none")
        .submit()
        .wait()
        .unwrap_err();
    engine.shutdown();
    let text = std::fs::read_to_string(&path).unwrap();
    let own = std::any::type_name_of_val(&run);
    assert_says(&text, "shapes.area");
    assert_says(&text, "shapes.none");
    assert!(!text.contains(own), "{text}");
}

fn every_kind_of_job_can_be_named() {
    let lab = Lab::new(1);
    let named = JobOptions::new().name("shapes.any");
    let failures = |engine: &Engine| {
        let mut errors = vec![
            engine
                .job(run, (1, 0))
                .options(&named)
                .submit()
                .wait()
                .unwrap_err(),
            engine
                .map(run, [(1, 0)])
                .options(&named)
                .next()
                .unwrap()
                .unwrap_err(),
            engine
                .map(run, [(1, 0)])
                .options(&JobOptions::new().name("shapes.any"))
                .next()
                .unwrap()
                .unwrap_err(),
            engine
                .scope(|s| drop(s.submit_with(&JobOptions::new().name("shapes.any"), run, (1, 0))))
                .unwrap_err(),
        ];
        let tried = engine.job(run, (1, 0)).name("shapes.any").try_submit();
        errors.push(tried.unwrap().wait().unwrap_err());
        let job = crate::harness::block_on(engine.job(run, (1, 0)).options(&named).submit_async());
        errors.push(job.wait().unwrap_err());
        errors
    };
    for engine in [&*lab, &Engine::inline()] {
        for error in failures(engine) {
            assert_eq!(error.kernel(), "shapes.any", "{error}");
        }
    }
    let kernels = lab.stats().kernels;
    assert_eq!(kernels.len(), 1, "{kernels:?}");
    assert_eq!((kernels[0].calls, kernels[0].failures), (6, 6));
}
