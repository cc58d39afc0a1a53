//! Building an engine, and the errors of doing so.

use std::path::Path;

use arenite::Backing;
use arenite::engine::Builder;
use arenite::{Array, ArrayMut, BuildError, Engine, Guard, platform};

use crate::harness::{
    Calls, Gate, Lab, assert_says, builder, pass, refused, shared_memory_named, tests, wait_until,
};

tests![
    the_requested_number_of_workers_starts,
    workers_have_a_label,
    an_end_in_on_worker_start_fails_the_build,
    too_large_a_capacity,
    too_large_a_capacity_for_dev_shm,
    too_many_workers,
    too_many_lanes,
    names,
    invalid_names_are_refused,
    a_ceiling_of_zero_is_off,
    without_the_guard,
    limits_that_are_too_low_are_named,
    the_arena_is_left_out_of_core_dumps,
];

fn the_requested_number_of_workers_starts() {
    for expected in [1, 3] {
        let lab = Lab::new(expected);
        let workers = lab.stats().workers;
        assert_eq!(workers.len(), expected);
        assert!(
            workers
                .iter()
                .all(|worker| worker.ready && worker.pid != 0 && worker.restarts == 0)
        );
        assert_eq!(crate::harness::children().len(), expected);
    }
    let engine = Engine::builder().capacity(64 << 20).build().unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(engine.stats().workers.len(), cores, "one per core");
}

fn workers_have_a_label() {
    let lab = Lab::with(2, |builder| builder.label("thumbs"));
    for worker in 0..2 {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", lab.pid(worker))).unwrap();
        assert_eq!(name.trim(), format!("thumbs:{worker}"));
    }
    let long = Lab::with(1, |builder| {
        builder.label("a label that is far longer than the fifteen bytes")
    });
    let name = std::fs::read_to_string(format!("/proc/{}/comm", long.pid(0))).unwrap();
    assert!(name.starts_with("a label"), "{name}");
}

fn an_end_in_on_worker_start_fails_the_build() {
    let small = || builder(2, 64 << 20);
    let of_abort = [
        "SIGABRT: an abort",
        "gives_up_at_the_start",
        "on_worker_start did it",
        r"no such \u{1b}[31mlibrary",
    ];
    for (builder, parts) in [
        (
            small().on_worker_start(|| panic!("no model file")),
            &["no model file", "builder.rs"][..],
        ),
        (
            small().on_worker_start(|| std::process::exit(9)),
            &["code 9"],
        ),
        (small().on_worker_start(gives_up_at_the_start), &of_abort),
    ] {
        let error = refused(builder);
        assert!(matches!(error, BuildError::Worker(_)), "{error:?}");
        parts.iter().for_each(|part| assert_says(&error, part));
    }
}

#[inline(never)]
fn gives_up_at_the_start() {
    eprintln!("no such \x1b[31mlibrary");
    std::process::abort()
}

/// Checks that the sentence names what was asked for, the limit, and both remedies.
#[track_caller]
fn assert_too_large(builder: Builder, capacity: u64, parts: &[&str], largest: u64) {
    let error = refused(builder.workers(1).capacity(capacity));
    assert!(matches!(error, BuildError::Arena(_)), "{error:?}");
    let text = error.to_string();
    let asked = format!("a capacity of {capacity} bytes is more than");
    assert!(!text.contains("TooLarge"), "a sentence, not a name: {text}");
    // The message contains the cause, so `source` must not repeat it.
    assert!(std::error::Error::source(&error).is_none());
    let lower = format!("or lower the capacity to {largest} bytes at most");
    for part in [&[&*asked, &*lower], parts].concat() {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

/// The memory limit in force, its remedy, and its bytes.
fn memory() -> ([&'static str; 2], u64) {
    let largest = platform::memory(Path::new("/")).unwrap().limit;
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.lines().find(|line| line.starts_with("MemTotal:"));
    let total: u64 = total
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let words = match largest < total * 1024 {
        true => ["the memory limit of this container", "raise that limit"],
        false => ["the memory of this machine", "add memory"],
    };
    (words, largest)
}

fn too_large_a_capacity() {
    let (words, largest) = memory();
    assert_too_large(Engine::builder(), 1 << 50, &words, largest);
}

fn too_large_a_capacity_for_dev_shm() {
    let shm = nix::sys::statvfs::statvfs("/dev/shm");
    let shm = shm.map_or(0, |stat| stat.blocks() * stat.fragment_size());
    let capacity = shm + (1 << 20);
    let builder = Engine::builder().backing(Backing::Named);
    // Memory is checked first if it is the smaller limit.
    let (words, largest) = match memory() {
        (words, memory) if capacity > memory => (words, memory),
        _ => (["/dev/shm has", "mount a larger one"], shm),
    };
    assert_too_large(builder, capacity, &words, largest);
}

fn too_many_workers() {
    for workers in [1025, 5000, usize::MAX] {
        let error = Engine::builder().workers(workers).build().unwrap_err();
        assert!(
            matches!(error, BuildError::TooManyWorkers { asked } if asked == workers),
            "{error:?}"
        );
        assert_says(&error, &workers.to_string());
    }
}

/// Exceeds the maximum number of lanes of all workers together.
fn too_many_lanes() {
    // The last has the maximum number of workers.
    for (workers, lanes) in [(1, 4097), (2, 2049), (17, 241), (1, usize::MAX), (1024, 5)] {
        let builder = Engine::builder().workers(workers).lanes(lanes);
        let error = builder.build().unwrap_err();
        assert!(
            matches!(error, BuildError::TooManyLanes { asked } if asked == lanes),
            "{error:?}"
        );
        let text = format!("{lanes} lanes in each worker");
        assert_says(&error, &text);
    }
    // Their stacks do not fit into the memory limit: an error, without leftovers.
    let builder = Engine::builder().workers(1).lanes(200);
    let builder = builder.capacity(64 << 20).memory_limit(64 << 20);
    let error = builder.build().unwrap_err();
    assert_says(&error, "lanes cannot be started");
}

fn names() {
    let name = format!("tests-{}", std::process::id());
    let lab = Lab::with(1, |builder| builder.name(&name));
    assert!(shared_memory_named(&name) >= 1, "it can be found");
    let taken = builder(1, 64 << 20).name(&name).build();
    let error = taken.unwrap_err();
    assert_says(&error, &name);
    assert_eq!(lab.value_of(|| 1u8, ()), 1);
    let array = lab.from_slice(&[1u8]).unwrap();
    drop(lab);
    assert_eq!(
        shared_memory_named(&name),
        0,
        "arrays outlive the engine, its name does not"
    );
    let again = Lab::with(1, |builder| builder.name(&name));
    again.into_inner().shutdown();
    assert_eq!((shared_memory_named(&name), array[0]), (0, 1));
    assert_eq!(Lab::new(1).import(&array).unwrap()[..], [1]);
}

fn invalid_names_are_refused() {
    for name in ["", "a/b", "..", "a name", &"x".repeat(200)] {
        let error = refused(builder(1, 64 << 20).name(name));
        assert!(matches!(error, BuildError::Arena(_)), "{name}: {error:?}");
    }
}

fn a_ceiling_of_zero_is_off() {
    fn fill(values: ArrayMut<u8>, gate: &str) -> usize {
        pass(gate);
        std::hint::black_box(vec![1_u8; 64 << 20]).len() + values.len()
    }
    let lab = Lab::with(1, |builder| {
        builder
            .memory_limit(0)
            .max_in_flight_bytes(0)
            .recycle_above_bytes(0)
            .recycle_after_jobs(0)
    });
    let gate = Gate::new();
    let jobs: Vec<_> = (0..2)
        .map(|_| {
            let values = lab.zeros::<u8>(1 << 20).unwrap();
            lab.job(fill, (values, gate.path())).try_submit().unwrap()
        })
        .collect();
    assert_eq!(lab.stats().admitted, 0, "nothing is counted");
    for job in jobs {
        gate.open();
        assert_eq!(job.wait().unwrap(), 65 << 20);
    }
    // A second engine with a ceiling shows that enough time has passed for a memory check.
    let other = Lab::with(1, |builder| builder.recycle_above_bytes(1));
    for round in 1..=3 {
        other.value_of(|| (), ());
        wait_until("the other engine's worker is replaced", || {
            other.stats().recycled() == round
        });
    }
    assert_eq!(lab.stats().recycled(), 0);
    lab.assert_idle();
}

fn without_the_guard() {
    fn invert(values: &Array<u8>) -> Array<u8> {
        Array::from_fn(values.shape(), |i| !values[i])
    }
    let lab = Lab::balanced_with(2, |builder| builder.guard(Guard::Off));
    let values = lab.from_fn(1_000_000, |i| i as u8).unwrap();
    let inverted = lab.value_of(invert, (&values,));
    assert!(values.iter().zip(inverted.iter()).all(|(&a, &b)| a == !b));
    let mut out = lab.zeros::<u8>(100_000).unwrap();
    for value in 0..10 {
        lab.scope(|s| {
            for tile in out.tiles_mut(30_000) {
                s.submit(|tile: &mut [u8], value: u8| tile.fill(value), (tile, value));
            }
        })
        .unwrap();
        assert!(out.iter().all(|&x| x == value));
    }
    // Inputs are protected all the same.
    let vandal = |victim: &Array<u8>| {
        // SAFETY: none: a bug in a kernel, on purpose.
        unsafe { victim.as_ptr().cast_mut().write_volatile(1) };
    };
    let error = lab.error_of(vandal, (&values,));
    assert_eq!(
        *error.kind(),
        arenite::JobErrorKind::Lost(arenite::WorkerExit::Signal(11))
    );
    assert_eq!(values[0], 0);
}

/// Linux says which maps a core dump leaves out. The arena is large enough to be told apart.
fn the_arena_is_left_out_of_core_dumps() {
    const CAPACITY: u64 = 1 << 30;
    for included in [false, true] {
        let lab = Lab::with(1, |builder| {
            builder.capacity(CAPACITY).include_in_core_dumps(included)
        });
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let flags: Vec<bool> = smaps
            .split_inclusive("VmFlags:")
            .zip(smaps.split("VmFlags:").skip(1))
            .filter(|(map, _)| {
                let size = map.lines().find_map(|line| line.strip_prefix("Size:"));
                let kib = size.and_then(|size| size.trim().trim_end_matches(" kB").parse().ok());
                map.contains("arenite-region") && kib.is_some_and(|kib: u64| kib << 10 >= CAPACITY)
            })
            .map(|(_, flags)| {
                flags
                    .lines()
                    .next()
                    .unwrap()
                    .split(' ')
                    .any(|flag| flag == "dd")
            })
            .collect();
        assert_eq!(flags, [!included; 2], "two regions");
        assert_eq!(lab.value_of(|| 1u8, ()), 1);
    }
}

fn limits_that_are_too_low_are_named() {
    type Change = fn(Builder) -> Builder;
    let changes: [(Change, &str); 8] = [
        (
            |builder| builder.capacity(0),
            "capacity cannot be 0: set it to 1048576 or more",
        ),
        (
            |builder| builder.capacity((1 << 20) - 1),
            "capacity cannot be 1048575: set it to 1048576 or more",
        ),
        (
            |builder| builder.label("a\0b"),
            "label cannot be \"a\\0b\": set it to a text without zero bytes",
        ),
        (
            |builder| builder.workers(0),
            "workers cannot be 0: set it to 1 or more",
        ),
        (
            |builder| builder.lanes(0),
            "lanes cannot be 0: set it to 1 or more",
        ),
        (
            |builder| builder.memory_limit(1),
            "memory_limit cannot be 1: set it to 8388608 or more",
        ),
        (
            |builder| builder.memory_limit((8 << 20) - 1),
            "memory_limit cannot be 8388607",
        ),
        (
            |builder| builder.max_arena_per_worker(1),
            "max_arena_per_worker cannot be 1 bytes: set it to 65536 bytes",
        ),
    ];
    for (change, expected) in changes {
        let text = refused(change(builder(1, 64 << 20))).to_string();
        assert!(text.starts_with(expected), "{text}");
    }
}
