//! The inline engine: the same calls and the same answers, without processes.

use arenite::{Array, Engine, JobError, JobErrorKind, as_completed};

use crate::harness::{Lab, assert_kind, tests};

tests![
    both_engines_give_the_same_answers,
    no_processes,
    features_of_processes_are_refused,
    a_panic_payload_that_panics_when_dropped,
];

fn words(text: &str, sep: char) -> (u32, String) {
    (text.split(sep).count() as u32, text.to_uppercase())
}

/// Elements without bytes have a number only.
fn count(units: &[()], empty: &[[u8; 0]]) -> (u64, u64) {
    (units.len() as u64, empty.len() as u64)
}

fn picky(n: i64) -> Result<i64, String> {
    match n {
        3 => Err("three".into()),
        4 => panic!("four"),
        _ => Ok(n),
    }
}

fn error(error: &JobError) -> String {
    match error.kind() {
        JobErrorKind::Panicked { message, .. } => format!("{} panicked: {message}", error.kernel()),
        kind => format!("{}: {kind}", error.kernel()),
    }
}

/// Makes the kinds of calls that random programs do not make, and some that fail. Returns the answers.
fn story(engine: &Engine) -> Vec<String> {
    let mut answers = Vec::new();
    let mut record = |what: &dyn std::fmt::Debug| answers.push(format!("{what:?}"));
    let values = engine.from_fn([4, 3], |i| i as i32).unwrap();
    record(&engine.submit(words, ("a b c", ' ')).wait());
    record(&engine.submit(count, (vec![(); 77], [[0_u8; 0]; 5])).wait());
    for result in engine.map(picky, (0..7).map(|n| (n,))) {
        record(&result.map_err(|why| error(&why)));
    }
    let mut completed: Vec<_> = as_completed((0..7).map(|n| engine.submit(picky, (n,)))).collect();
    completed.sort_by_key(|(index, _)| *index);
    for (index, result) in completed {
        record(&(index, result.map_err(|why| error(&why))));
    }
    let failed = engine.scope(|s| {
        // In this order: with two workers either could be first.
        let _ = s.submit(picky, (3,)).wait();
        s.submit(picky, (4,));
    });
    record(&failed.map_err(|why| error(&why)));
    let low = |from: &[i32], to: &mut [u8]| from.iter().zip(to).for_each(|(x, to)| *to = *x as u8);
    let low = engine.par(&values).apply(low).unwrap();
    record(&(low.shape().to_string(), low.to_vec()));
    let mut out = engine.zeros([4, 3]).unwrap();
    out.copy_from_slice(&values);
    engine
        .par_mut(&mut out)
        .apply(|part: &mut [i32]| part.iter_mut().for_each(|x| *x = -*x))
        .unwrap();
    record(&out.to_vec());
    let mut job = engine.submit(|| 'z', ());
    record(
        &std::iter::repeat_with(|| job.wait_timeout(std::time::Duration::from_millis(1)))
            .flatten()
            .next(),
    );
    record(
        &engine
            .import(&Array::from_slice(&[1u8, 2]))
            .unwrap()
            .to_vec(),
    );
    answers
}

fn both_engines_give_the_same_answers() {
    let inline = story(&Engine::inline());
    let lab = Lab::new(2);
    assert_eq!(story(&lab), inline);
    let lab = Lab::new(1);
    assert_eq!(story(&lab), inline);
}

fn no_processes() {
    let engine = Engine::inline();
    let pid = engine.submit(std::process::id, ()).wait().unwrap();
    assert_eq!(pid, std::process::id());
    assert_eq!((engine.stats().workers.len(), engine.trim()), (0, 0));
    assert!(crate::harness::children().is_empty());
    engine.shutdown();
}

/// Handles may outlive their job where no worker has to keep their memory.
fn features_of_processes_are_refused() {
    static KEPT: std::sync::Mutex<Vec<Array<u8>>> = std::sync::Mutex::new(Vec::new());
    let engine = Engine::inline();
    let values = Array::from_slice(&[1u8, 2]);
    engine
        .submit(
            |values: &Array<u8>| KEPT.lock().unwrap().push(values.clone()),
            (&values,),
        )
        .wait()
        .unwrap();
    assert_eq!(KEPT.lock().unwrap()[0][..], [1, 2]);
}

/// The payload of a kernel's panic is not inspected: dropping it may panic.
fn a_panic_payload_that_panics_when_dropped() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the bomb went off");
        }
    }
    fn throw(n: u32) -> u32 {
        match n {
            1 => std::panic::panic_any(Bomb),
            n => n,
        }
    }
    let lab = Lab::new(1);
    for engine in [&*lab, &Engine::inline()] {
        let panicked = |result: &Result<u32, JobError>| {
            let error = result.as_ref().unwrap_err();
            assert_kind!(error, JobErrorKind::Panicked { .. });
        };
        panicked(&engine.submit(throw, (1,)).wait());
        let results: Vec<_> = engine.map(throw, (0..3).map(|n| (n,))).collect();
        panicked(&results[1]);
        assert_eq!((&results[0], &results[2]), (&Ok(0), &Ok(2)));
        let progress = engine.progress();
        assert_eq!((progress.running, progress.failed), (0, 2));
    }
    assert_eq!(lab.stats().restarts(), 0);
}
