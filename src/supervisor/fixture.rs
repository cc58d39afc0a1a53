//! An engine without processes, whose workers are handles in this one: for tests of the books, and for a fuzzer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::core::Core;
use super::worker::Status;
use super::*;
use crate::arena::{Backing, Spec};
use crate::kernel::Single;
use crate::link::Consumer;

pub(super) fn arena_for(workers: u16, lanes: u16) -> Arc<Arena> {
    let spec = Spec {
        capacity: 64 << 20,
        writers: workers,
        backing: Backing::Memfd,
        control_len: crate::link::control_bytes(usize::from(workers * lanes)) as u64,
        ..Spec::default()
    };
    Arena::create(&spec).unwrap()
}

pub(super) fn kernel() -> KernelInfo {
    fn nothing() {}
    fn info<F: crate::kernel::Kernel<(), ()>>(_: F) -> KernelInfo {
        KernelInfo::of::<Single<F, (), ()>>()
    }
    info(nothing)
}

pub(super) fn settings(workers: u16, lanes: u16) -> Settings {
    Settings {
        workers,
        lanes,
        share_deadlines: false,
        guard: true,
        memory_limit: 0,
        strict: false,
        #[cfg(feature = "sandbox")]
        kernel: crate::sys::sandbox::Kernel::default(),
        on_start: None,
        label: "test".into(),
        log: super::Sink::Stderr,
        memory: super::MemorySettings::default(),
        start_timeout: Duration::from_secs(60),
        grace: Duration::from_secs(5),
        quarantine_after: QUARANTINE_AFTER,
        sweep: false,
        seed: 0,
    }
}

/// An engine without a monitor, whose workers are handles in this process.
pub(super) fn fixture(workers: u16, ready: usize) -> (Arc<Shared>, Vec<Consumer>) {
    with_lanes(workers, 1, ready)
}

/// The same, with so many lanes in each worker.
pub(super) fn with_lanes(workers: u16, lanes: u16, ready: usize) -> (Arc<Shared>, Vec<Consumer>) {
    let arena = arena_for(workers, lanes);
    let settings = settings(workers, lanes);
    let cells: Vec<_> = (0..usize::from(workers * lanes))
        .map(|lane| Arc::new(LinkCells::in_arena(&arena, lane)))
        .collect();
    let parking = Arc::new(Parking::new());
    let lanes = cells.iter().zip((1..=workers).cycle());
    let lanes: Vec<_> = lanes
        .map(|(cells, region)| Lane::new(region, Arc::clone(cells)))
        .collect();
    let consumers = cells
        .iter()
        .map(|cells| Consumer::new(Arc::clone(cells), 0, 0))
        .collect();
    let mut core = Core::new(
        Arc::clone(&arena),
        Arc::clone(&parking),
        lanes,
        workers.into(),
    );
    core.has_cores(2);
    core.started = true;
    for worker in 0..ready {
        core.set_status(worker, Status::Ready);
    }
    let shared = Shared {
        arena,
        core: Mutex::new(core),
        cells,
        parking,
        bell: EventFd::new().unwrap(),
        refusals: Mutex::default(),
        log: super::log::Logger::new(super::Sink::Stderr),
        spinners: AtomicUsize::new(0),
        cores: std::sync::OnceLock::from(1),
        looks: Mutex::new(super::progress::Looks::new()),
        tracer: Mutex::default(),
        original: Original::here(),
        one_came: AtomicBool::new(false),
        settings,
    };
    (Arc::new(shared), consumers)
}
