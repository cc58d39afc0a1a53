//! The cases of `arenite bench` under Criterion, as a guard against getting slower.
//!
//! One group per case, one function per system, so `cargo bench --features bench --bench cases -- noop-rtt-hot` measures
//! one case and compares it with the last time. Engines, pools and processes are started once per system, outside of
//! what is timed. Cases about whole programs, processor time or memory have no place here: `arenite bench` shows them,
//! and only there do the systems of a case take turns, so ratios are to be taken from it.

use std::time::Duration;

use arenite::twins::cases::{self, Case, Running, Setup, Unit};
use criterion::{Criterion, SamplingMode};

fn main() {
    // First of all: in a worker neither returns.
    arenite::init();
    arenite::twins::init();

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
    criterion.final_summary();
}

fn is_a_time_in_this_process(case: &Case) -> bool {
    !matches!(
        case.unit,
        Unit::ImagesPerSecond(_) | Unit::CpuMilliseconds | Unit::Megabytes
    )
}

fn measure(criterion: &mut Criterion, case: &Case, setup: &Setup) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut group = criterion.benchmark_group(&case.id);
    group.sampling_mode(SamplingMode::Flat);
    for entry in &case.systems {
        if cores < 2 && matches!(entry.id, "spin" | "futex") {
            continue;
        }
        // Criterion calls the function for every sample; the system lives as long as the group needs it.
        let mut running: Option<Running> = None;
        group.bench_function(entry.id, |bencher| {
            let system = running.get_or_insert_with(|| {
                entry
                    .start(setup)
                    .unwrap_or_else(|error| panic!("{} cannot be started: {error}", entry.id))
            });
            bencher.iter_custom(|times| {
                system
                    .run(times)
                    .unwrap_or_else(|error| panic!("{} failed: {error}", entry.id))
                    .total()
                    .expect("these cases measure times")
            });
        });
    }
    group.finish();
}
