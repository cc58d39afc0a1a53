//! Random numbers of jobs depend only on the seed and the identity of the job.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use arenite::stream::Stream;
use arenite::{Array, Backoff, Engine, raw};
use rand::{Rng, RngExt};

use crate::harness::{Gate, Lab, pass, step, tests};

tests![
    the_same_numbers_on_any_number_of_workers,
    each_job_and_each_generator_has_its_own_numbers,
    a_random_seed_can_be_reused,
    every_attempt_draws_the_same_numbers,
    maps_and_scopes_do_not_change_the_numbers_of_other_jobs,
    jobs_of_a_series_draw_what_those_of_a_map_draw,
    threads_of_a_kernel_draw_from_a_passed_generator,
    each_lane_has_its_own_scratch_values,
    scratch_values_change_no_random_number,
    elements_draw_by_their_index_alone,
    retried_elements_draw_the_same_numbers,
];

/// The first numbers of two generators, made one after the other.
fn draw() -> [u64; 2] {
    let mut first = arenite::rng();
    [first.next_u64(), arenite::rng().next_u64()]
}

fn draw_twice(_: u64) -> [u64; 2] {
    draw()
}

/// The numbers that were drawn before, and those of two more generators.
fn more(before: [u64; 2]) -> [[u64; 2]; 2] {
    [before, draw()]
}

fn seeded(workers: usize, seed: u64) -> Lab {
    Lab::with(workers, |builder| builder.seed(seed))
}

fn inline(seed: u64) -> Engine {
    Engine::builder().seed(seed).inline()
}

/// The numbers of jobs of all kinds, submitted by one thread.
fn drawn(engine: &Engine) -> Vec<[u64; 2]> {
    let mut drawn = Vec::new();
    let jobs: Vec<_> = (0..20).map(|_| engine.submit(draw, ())).collect();
    let ranked: Vec<_> = (0..20)
        .map(|_| engine.job(draw, ()).retries(1).submit())
        .collect();
    let jobs = jobs.into_iter().chain(ranked);
    drawn.extend(jobs.map(|job| job.wait().unwrap()));
    let items = (0..500u64).map(|n| (n,));
    drawn.extend(engine.map(draw_twice, items).map(Result::unwrap));
    let scoped = engine.scope(|s| {
        let jobs: Vec<_> = (0..20).map(|_| s.submit(draw, ())).collect();
        jobs.into_iter()
            .map(|job| job.wait().unwrap())
            .collect::<Vec<_>>()
    });
    drawn.extend(scoped.unwrap());
    let zeros = engine.zeros::<u8>(1 << 20).unwrap().seal();
    let last = engine.par(&zeros).reduce(
        |_: &[u8]| draw()[0],
        (),
        |a: u64, b: u64| a.wrapping_mul(3) ^ b ^ arenite::rng().next_u64(),
    );
    drawn.push([last.unwrap(), 0]);
    // In several chunks.
    let zeros = zeros.rows(0..10_000);
    let each = engine.par(&zeros).map(|_: u8| draw()).unwrap();
    drawn.extend(each.iter());
    // A state that begins with a random number, and calls that draw more.
    let actor = engine.actor(draw, ()).start();
    let mix = |state: &mut [u64; 2]| {
        state[1] = arenite::rng().next_u64();
        *state
    };
    drawn.push(actor.call(mix, ()).wait().unwrap());
    drawn.push(engine.submit(draw, ()).wait().unwrap());
    // A job that takes the value of another one.
    let first = engine.submit(|| draw()[0], ());
    let last = engine.submit(|first: u64| [first, draw()[0]], (&first,));
    drawn.push(last.wait().unwrap());
    let chain = engine.job(draw, ()).then(more, ());
    drawn.extend(chain.submit().wait().unwrap());
    // Unordered, items reach the second stage in any order.
    let stream = Stream::new(0..300u64)
        .stage_with(draw_twice, |n| (n, (n,)))
        .stage_with(more, |(n, drawn)| (n, (drawn,)));
    let stream = match engine.stats().workers.len() {
        2 => stream,
        _ => stream.unordered(),
    };
    let mut items: Vec<_> = stream.run(engine).map(Result::unwrap).collect();
    items.sort_unstable_by_key(|&(n, _)| n);
    drawn.extend(items.into_iter().flat_map(|(_, drawn)| drawn));
    drawn
}

fn the_same_numbers_on_any_number_of_workers() {
    let alone = drawn(&inline(7));
    for workers in [1, 2, 7] {
        step(format!("{workers} workers"));
        assert_eq!(drawn(&seeded(workers, 7)), alone, "{workers} workers");
    }
    assert_ne!(drawn(&seeded(2, 8)), alone);
}

fn each_job_and_each_generator_has_its_own_numbers() {
    let lab = Lab::new(2);
    let numbers = drawn(&lab);
    let distinct: HashSet<u64> = numbers.iter().flatten().copied().collect();
    // The reduction returns one number and a zero.
    assert_eq!(distinct.len(), numbers.len() * 2);
}

/// The numbers of the second of two elements of a series.
fn draw_second(series: u64, first: u64) -> [u64; 2] {
    let mut drawn = [0; 2];
    raw::for_each_element(series, |at| {
        for index in first..first + 2 {
            at.set(index);
            drawn = draw();
        }
    });
    drawn
}

fn jobs_of_a_series_draw_what_those_of_a_map_draw() {
    let mapped: Result<Vec<_>, _> = inline(3).map(draw, (0..20).map(|_| ())).collect();
    let mapped = mapped.unwrap();
    let lab = seeded(2, 3);
    let series = raw::series(&lab);
    for (index, expected) in mapped.iter().enumerate().rev() {
        let job = raw::in_series(lab.job(draw, ()), &series, index as u64);
        assert_eq!(job.retries(1).submit().wait().unwrap(), *expected);
        if let Some(first) = index.checked_sub(1) {
            let job = lab.submit(draw_second, (series.number(), first as u64));
            assert_eq!(job.wait().unwrap(), *expected);
        }
    }
    // The jobs in the series had no numbers of their own.
    let plain = inline(3);
    let drawn: Vec<_> = (0..20)
        .map(|_| plain.submit(draw, ()).wait().unwrap())
        .collect();
    assert_eq!(lab.submit(draw, ()).wait().unwrap(), *drawn.last().unwrap());
}

fn a_random_seed_can_be_reused() {
    let lab = Lab::new(2);
    let numbers = drawn(&lab);
    assert_eq!(drawn(&inline(lab.seed())), numbers);
    assert_ne!(Lab::new(1).seed(), lab.seed());
}

/// Dies at its first attempt, after drawing.
fn dies_once(folder: &str) -> [u64; 2] {
    let drawn = draw();
    if File::create_new(Path::new(folder).join("been-here")).is_ok() {
        std::process::abort();
    }
    drawn
}

fn every_attempt_draws_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let lab = seeded(2, 7);
    let job = lab.job(dies_once, (folder,)).retries(1);
    let drawn = job.backoff(Backoff::NONE).submit().wait().unwrap();
    let restarts = lab.stats().restarts();
    assert_eq!(restarts, 1, "it has died");
    assert_eq!(drawn, inline(7).submit(draw, ()).wait().unwrap());
    // A panic leaves the worker as it is.
    fn panics_once(folder: &str) -> [u64; 2] {
        let drawn = draw();
        let new = File::create_new(Path::new(folder).join("panicked"));
        assert!(new.is_err(), "the first time");
        drawn
    }
    let lab = seeded(1, 7);
    let job = lab.job(panics_once, (folder,)).retries(1);
    let again = job.backoff(Backoff::NONE).submit();
    assert_eq!(again.wait().unwrap(), drawn);
}

/// The number of items that a map sends ahead depends on the speed of workers.
fn maps_and_scopes_do_not_change_the_numbers_of_other_jobs() {
    let engine = inline(7);
    let expected = [(); 3].map(|()| engine.submit(draw, ()).wait().unwrap());
    let lab = seeded(3, 7);
    let mut drawn = vec![lab.submit(draw, ()).wait().unwrap()];
    let mut map = lab.map(draw_twice, (0..).map(|n| (n,)));
    map.next().unwrap().unwrap();
    drawn.push(lab.submit(draw, ()).wait().unwrap());
    drop(map);
    let zeros = lab.zeros::<u8>(1 << 20).unwrap().seal();
    lab.par(&zeros).map(|x| x + 1).unwrap();
    lab.par(&zeros).sum().unwrap();
    lab.par(&zeros).cumsum().unwrap();
    drawn.push(lab.submit(draw, ()).wait().unwrap());
    assert_eq!(drawn, expected);
}

fn threads_of_a_kernel_draw_from_a_passed_generator() {
    fn on_threads() -> Array<u64> {
        let mut given = arenite::rng();
        let numbers = std::thread::scope(|threads| {
            let given = threads.spawn(move || given.random::<u64>());
            let chance = threads.spawn(|| arenite::rng().random::<u64>());
            [given.join(), chance.join()].map(Result::unwrap)
        });
        Array::from_slice(&numbers)
    }
    let lab = seeded(1, 7);
    let here = inline(7).submit(on_threads, ()).wait().unwrap();
    let there = lab.submit(on_threads, ()).wait().unwrap();
    assert_eq!(here[0], there[0]);
    assert_ne!(
        here[1], there[1],
        "a thread without a job draws random numbers"
    );
    // A job waits at the gate while another ends on the same thread of the program.
    fn waits(gate: &str) -> [u64; 2] {
        let first = arenite::rng().next_u64();
        pass(gate);
        [first, arenite::rng().next_u64()]
    }
    let gate = Gate::new();
    let path = gate.path();
    let lab = seeded(2, 7);
    let job = lab.submit(waits, (&path,));
    let met = gate.meet();
    let other = lab.submit(draw, ()).wait().unwrap();
    drop(met);
    let engine = inline(7);
    let mut expected = [[0; 2]; 2];
    for drawn in &mut expected {
        let one = engine.submit(|| arenite::rng().next_u64(), ());
        drawn[0] = one.wait().unwrap();
    }
    assert_eq!(job.wait().unwrap()[0], expected[0][0]);
    assert_eq!(other[0], expected[1][0]);
}

fn each_lane_has_its_own_scratch_values() {
    let lab = Lab::with(2, |builder| builder.lanes(4));
    let held = |_: u32| -> u64 {
        let mut uses = arenite::scratch(|| 0u64);
        *uses += 1;
        std::thread::yield_now();
        *uses
    };
    let uses = lab.map(held, (0..400u32).map(|n| (n,)));
    let most = uses.map(Result::unwrap).max().unwrap();
    assert!((400 / 8..=400).contains(&most), "{most} uses of one value");
}

/// Scheduling decides which job makes a scratch value, so the numbers of a job must not depend on it.
fn scratch_values_change_no_random_number() {
    struct Kept([u64; 2]);
    fn keeps(n: u64) -> [u64; 3] {
        let first = arenite::rng().next_u64();
        let kept = arenite::scratch_for(n % 3, || Kept(draw()));
        let again = arenite::scratch_for(n % 5, || Kept(draw()));
        let [second, third] = draw();
        let own = [first, second, third];
        let kept = [kept.0, again.0].concat();
        assert!(kept.iter().all(|drawn| !own.contains(drawn)), "drawn twice");
        own
    }
    fn run(engine: &Engine) -> Vec<[u64; 3]> {
        let items = (0..60u64).map(|n| (n,));
        let mut drawn: Vec<_> = engine.map(keeps, items).map(Result::unwrap).collect();
        drawn.extend((0..10).map(|n| engine.submit(keeps, (n,)).wait().unwrap()));
        drawn
    }
    // On a new thread, which has no scratch values yet.
    let expected = std::thread::spawn(|| run(&inline(7))).join().unwrap();
    for workers in [1, 2] {
        assert_eq!(run(&seeded(workers, 7)), expected, "{workers} workers");
    }
    // On this thread the second run finds the values of the first.
    assert_eq!(run(&inline(7)), expected);
    assert_eq!(run(&inline(7)), expected);
}

fn elements_draw_by_their_index_alone() {
    let run = |engine: &Engine, with_argument: bool| {
        let input = engine.from_fn([7000, 3], |i| i as u32).unwrap();
        let all = engine.par(&input);
        let all = match with_argument {
            true => all.with(1u8).map(|_: u32, _: u8| draw()),
            false => all.map(|_: u32| draw()),
        };
        let all = all.unwrap();
        let report = engine.par(&input).map_report(|_: u32| draw()).unwrap();
        assert!(report.failures.is_empty(), "{report}");
        let report = report.values;
        let after = engine.map(draw_twice, [(0,)]).next().unwrap().unwrap();
        [all.to_vec(), report.to_vec(), vec![after]].concat()
    };
    let expected = run(&inline(7), false);
    let distinct: HashSet<u64> = expected.iter().flatten().copied().collect();
    assert_eq!(distinct.len(), 2 * (2 * 21_000 + 1));
    for workers in [1, 2, 3, 7] {
        step(format!("{workers} workers"));
        let drawn = run(&seeded(workers, 7), workers != 2);
        assert!(drawn == expected, "{workers} workers");
    }
    assert_ne!(run(&seeded(2, 8), false), expected);
    step("other numbers of other elements");
    let lab = seeded(3, 7);
    let input = lab.from_fn([7000, 3], |i| i as u32).unwrap();
    let some = lab.par(&input).map(|x: u32| match x % 3 {
        0 => [0; 2],
        1 => [arenite::rng().next_u64(), 0],
        _ => draw(),
    });
    for (i, (some, all)) in some.unwrap().iter().zip(&expected).enumerate() {
        let expected = [[0; 2], [all[0], 0], *all][i % 3];
        assert_eq!(*some, expected, "element {i}");
    }
}

/// Retries of rows change neither their numbers nor those of later rows.
fn retried_elements_draw_the_same_numbers() {
    /// The name of a file; empty for none.
    type Named = [u8; 128];
    fn dies_once(name: Named) -> [u64; 2] {
        let drawn = draw();
        let name = str::from_utf8(&name).unwrap().trim_end_matches('\0');
        assert_ne!(name, "fails");
        if !name.is_empty() && File::create_new(name).is_ok() {
            std::process::abort();
        }
        drawn
    }
    fn run(engine: &Engine, names: &[(usize, &str)]) -> (Vec<[u64; 2]>, Vec<usize>) {
        let mut input = engine.zeros::<Named>(4000).unwrap();
        for &(index, name) in names {
            input[index][..name.len()].copy_from_slice(name.as_bytes());
        }
        let report = engine.par(&input.seal()).map_report(dies_once).unwrap();
        let (values, letters) = (report.values, report.failures);
        let mut drawn = values.to_vec();
        drawn.extend(engine.map(draw_twice, [(0,), (1,)]).map(Result::unwrap));
        drawn.push(engine.submit(draw, ()).wait().unwrap());
        (drawn, letters.iter().map(|letter| letter.index).collect())
    }
    let (mut expected, _) = run(&inline(7), &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("been-here");
    let lab = seeded(2, 7);
    let dies = [(1234, file.to_str().unwrap())];
    assert_eq!(run(&lab, &dies), (expected.clone(), vec![]));
    assert_eq!(lab.stats().restarts(), 1, "it has died");
    expected[777] = [0; 2];
    for workers in [1, 3] {
        let fails = [(777, "fails")];
        let drawn = run(&seeded(workers, 7), &fails);
        assert_eq!(drawn, (expected.clone(), vec![777]));
    }
}
