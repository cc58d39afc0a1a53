//! An engine without processes, whose workers are handles in this process. For unit tests of the state and for a
//! fuzzer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use super::config::Config;
use super::lane::Lane;
use super::output::Sink;
use super::settings::{MemorySettings, ProgramSpec, QUARANTINE_AFTER, Settings, WorkerEntry};
use super::shared::Supervisor;
use super::state::EngineState;
use super::waiting::parking::Parking;
use super::worker::Status;
use crate::arena::{Arena, Backing, Spec};
use crate::kernel::{KernelInfo, Single};
use crate::link::{Consumer, LinkCells};
use crate::sys::event::EventFd;
use crate::sys::process::Program;

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
    let program = Program::this(Vec::new()).expect("the working directory can be opened");
    Settings {
        program: ProgramSpec::new(program, Vec::new(), WorkerEntry::Init),
        workers,
        spares: 0,
        lanes,
        co_schedule_deadlines: false,
        guard: true,
        memory_limit: 0,
        max_arena_per_worker: None,
        sandboxed: false,
        #[cfg(feature = "sandbox")]
        kernel: crate::sys::sandbox::SandboxFeatures::default(),
        on_start: None,
        retain: None,
        label: "test".into(),
        log: Sink::Stderr,
        memory: MemorySettings::default(),
        in_background: false,
        start_timeout: None,
        grace: Duration::from_secs(5),
        quarantine_after: QUARANTINE_AFTER,
        sweep: false,
        seed: 0,
    }
}

/// Returns an engine without a monitor, and its workers as handles in this process.
pub(super) fn fixture(workers: u16, ready: usize) -> (Arc<Supervisor>, Vec<Consumer>) {
    with_lanes(workers, 1, ready)
}

/// Like [`fixture`], with `lanes` lanes in each worker.
pub(super) fn with_lanes(
    workers: u16,
    lanes: u16,
    ready: usize,
) -> (Arc<Supervisor>, Vec<Consumer>) {
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
    // Unit tests set up deadlines and grace periods themselves.
    let plain = Settings {
        co_schedule_deadlines: true,
        grace: Duration::ZERO,
        ..settings.clone()
    };
    let mut state = EngineState::new(
        Arc::clone(&arena),
        Arc::clone(&parking),
        lanes,
        workers.into(),
        Config::new(&plain),
    );
    let lanes = state.config.active_workers * state.lanes.per_worker();
    state.config.set_cores(2, lanes);
    state.lifecycle.set_started();
    for worker in 0..ready {
        state.set_status(worker, Status::Ready);
    }
    let event = Arc::new(EventFd::new().unwrap());
    let shared = Supervisor::new(arena, cells, parking, event, state, settings, None);
    shared.assume_cores(1);
    (Arc::new(shared), consumers)
}
