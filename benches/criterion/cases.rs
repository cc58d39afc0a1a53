//! The cases under Criterion, as a guard against regressions.
//!
//! One group per case, one function per system: `cargo bench -p arenite-bench -- noop-rtt-hot` measures one case and
//! compares it with the last run. Engines, pools and processes are started once per system, outside the timed part.
//! Systems that lack something on this machine are reported and left out.
//!
//! Only the program `arenite-bench` measures the cases about whole programs, processor time and memory. Take ratios
//! from that program, too, because there the systems of a case take turns. In place of `resize-12mp`, the group
//! `thumbnail-12mp` measures the work on one photo.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use arenite_bench::cases::{self, Case, Entry, Running, Setup, Unit};
use arenite_bench::{BenchError, photos};
use arenite_image::{ResizeSpec, resize_encoded};
use criterion::{Criterion, SamplingMode};

fn main() {
    // These calls come first: in a worker, one of them does not return.
    arenite::init();
    arenite_bench::init();

    let setup = Setup {
        quick: false,
        workers: 2,
        command: None,
    };
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for case in cases::all(&setup) {
        if is_a_time_in_this_process(&case) {
            measure(&mut criterion, &case, &setup);
        }
    }
    thumbnail(&mut criterion);
    criterion.final_summary();
}

/// Measures the work on one photo of `resize-12mp`, without the program around it.
fn thumbnail(criterion: &mut Criterion) {
    let spec = ResizeSpec::new("224x224".parse().expect("it is a size"));
    let mut photo = None;
    let mut group = criterion.benchmark_group("thumbnail-12mp");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("arenite", |bencher| {
        // Created once, and only if this group is selected.
        let photo: &Vec<u8> = photo.get_or_insert_with(|| {
            photos::nth(0, photos::LARGE).expect("the samples are pictures")
        });
        bencher.iter(|| resize_encoded(photo, &spec).expect("a photo can be resized"));
    });
    group.finish();
}

fn is_a_time_in_this_process(case: &Case) -> bool {
    !matches!(
        case.unit,
        Unit::ImagesPerSecond(_) | Unit::CpuMilliseconds | Unit::Megabytes
    )
}

fn measure(criterion: &mut Criterion, case: &Case, setup: &Setup) {
    // Read the free memory before the data of the case takes some of it.
    let lacking = case.lacking();
    let mut group = criterion.benchmark_group(&case.id);
    group.sampling_mode(SamplingMode::Flat);
    for entry in &case.systems {
        // Criterion calls the function for every sample; the system lives until the end of the group.
        let mut running: Option<Running> = None;
        or_left_out(|| {
            group.bench_function(entry.id, |bencher| {
                let system = running.get_or_insert_with(|| start(case, entry, &lacking, setup));
                bencher.iter_custom(|times| {
                    system
                        .run(times)
                        .unwrap_or_else(|error| panic!("{} failed: {error}", entry.id))
                        .total()
                        .expect("these cases measure times")
                });
            });
        });
    }
    group.finish();
}

/// Starts a system. Called by Criterion, because only Criterion knows what its command line selects.
fn start(case: &Case, entry: &Entry, lacking: &Option<String>, setup: &Setup) -> Running {
    let started = match lacking {
        Some(why) => Err(BenchError::Missing(why.clone())),
        None => entry.start(setup),
    };
    match started {
        Ok(running) => running,
        Err(BenchError::Missing(why)) => {
            println!("{}/{}: left out: {why}", case.id, entry.id);
            resume_unwind(Box::new(LeftOut))
        }
        Err(error) => panic!("{} cannot be started: {error}", entry.id),
    }
}

/// The payload of the panic that leaves out a system: Criterion offers no other way out of a function that it has
/// called.
struct LeftOut;

fn or_left_out(measure: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(measure))
        && !panic.is::<LeftOut>()
    {
        resume_unwind(panic);
    }
}
