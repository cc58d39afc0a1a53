//! Starts an engine.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::admission::Admission;
use super::at_exit;
use super::config::Config;
use super::lane::Lane;
use super::lifecycle::Closing;
use super::monitor;
use super::settings::{MemorySettings, Settings, StartError, descriptors_for};
use super::shared::Supervisor;
use super::state::EngineState;
use super::waiting::parking::Parking;
use crate::arena::Arena;
use crate::link::LinkCells;
use crate::sys::event::EventFd;
use crate::trace::TraceOwner;

/// Starts the workers. Returns when all are ready, or at once if they start in the background.
pub(crate) fn start(
    arena: Arc<Arena>,
    settings: Settings,
    tracer: Option<TraceOwner>,
) -> Result<(Arc<Supervisor>, JoinHandle<()>), StartError> {
    let workers = settings.workers;
    crate::sys::limits::room_for_descriptors(descriptors_for(
        workers.into(),
        settings.program.start.has_template(),
    ))
    .map_err(StartError::System)?;
    let cells: Vec<_> = (0..usize::from(workers) * usize::from(settings.lanes))
        .map(|lane| Arc::new(LinkCells::in_arena(&arena, lane)))
        .collect();
    let parking = Arc::new(Parking::new());
    arena.set_ready();
    let (of_arena, of_parking) = (Arc::clone(&arena), Arc::clone(&parking));
    let mut state = state_of(of_arena, of_parking, &cells, &settings);
    if let Some(tracer) = &tracer {
        state.trace.begin(Arc::clone(&tracer.0), &state.lanes);
    }
    let event = Arc::new(EventFd::new().map_err(StartError::System)?);
    let shared = Supervisor::new(arena, cells, parking, event, state, settings, tracer);
    let shared = Arc::new(shared);
    let monitor = monitor::spawn(Arc::clone(&shared)).map_err(StartError::System)?;
    // Runs while the programs of the workers are loaded.
    let cores = shared.cores();
    let lanes = shared.active_lanes();
    shared.lock().config.set_cores(cores, lanes);
    if shared.settings.sweep {
        crate::control::sweep_once();
    }
    if !shared.settings.in_background
        && let Err(why) = shared.wait_until_started()
    {
        shared.end(Some(monitor), Closing::Now);
        return Err(StartError::Worker(why));
    }
    at_exit::flush_logs_of(&shared);
    Ok((shared, monitor))
}

/// Returns the initial state of an engine, before its workers start.
fn state_of(
    arena: Arc<Arena>,
    parking: Arc<Parking>,
    cells: &[Arc<LinkCells>],
    settings: &Settings,
) -> EngineState {
    // Region 0 belongs to this process. All lanes of a worker share one region.
    let regions = (1..=settings.workers).cycle();
    let lanes = cells
        .iter()
        .zip(regions)
        .map(|(cells, region)| {
            #[cfg_attr(not(feature = "points"), allow(unused_mut, reason = "for tests"))]
            let mut lane = Lane::new(region, Arc::clone(cells));
            #[cfg(feature = "points")]
            lane.producer.begin_near_wrap();
            lane
        })
        .collect();
    let MemorySettings {
        recycling,
        admission,
        ..
    } = &settings.memory;
    let workers = settings.workers.into();
    let mut state = EngineState::new(arena, parking, lanes, workers, Config::new(settings));
    for worker in 0..workers {
        state.lanes.begin_generation(worker, recycling.jobs);
        state.workers[worker].begin_generation();
    }
    state.admission = (*admission > 0).then(|| Box::new(Admission::new(*admission)));
    state
}
