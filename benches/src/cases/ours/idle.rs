//! The cost of an idle engine.

use std::time::Duration;

use super::super::idle::{SPAN, cpu_time, private_bytes};
use super::super::{BenchError, Reading, Running, Setup};
use super::{engine, refused};
use crate::work;
use arenite::Engine;

/// Long enough for all threads to sleep, and for deferred work to be done.
const SETTLE: Duration = Duration::from_millis(500);

/// Starts an engine, runs jobs, and waits until it is idle.
fn idle_engine(setup: &Setup) -> Result<Engine, BenchError> {
    let engine = engine(setup.workers)?;
    for result in engine.map(work::noop, (0..1000_u64).map(|x| (x,))) {
        result.map_err(refused)?;
    }
    std::thread::sleep(SETTLE);
    Ok(engine)
}

fn workers(engine: &Engine) -> Vec<i32> {
    let stats = engine.stats();
    stats
        .workers
        .iter()
        .map(|worker| worker.pid.cast_signed())
        .collect()
}

/// Measures the workers and the supervisor. The supervisor is this process, in which nothing else runs meanwhile.
pub(in super::super) fn idle_cpu(setup: &Setup) -> Result<Running, BenchError> {
    let engine = idle_engine(setup)?;
    Ok(Box::new(move |_| {
        let mut pids = workers(&engine);
        pids.push(std::process::id().cast_signed());
        let before = cpu_time(&pids)?;
        std::thread::sleep(SPAN);
        let used = cpu_time(&pids)?.saturating_sub(before);
        Ok(Reading::Amount(used.as_secs_f64() * 1e3))
    }))
}

/// Measures the largest worker.
pub(in super::super) fn idle_memory(setup: &Setup) -> Result<Running, BenchError> {
    let engine = idle_engine(setup)?;
    Ok(Box::new(move |_| {
        let bytes = workers(&engine)
            .into_iter()
            .map(private_bytes)
            .collect::<Result<Vec<_>, _>>()?;
        let most = bytes.into_iter().max().unwrap_or(0);
        Ok(Reading::Amount(most as f64 / 1e6))
    }))
}
