//! The engine with a trace.

use super::super::super::work;
use super::super::noop::timed;
use super::super::{Running, Setup, TwinError};
use super::refused;
use crate::engine::{Engine, Trace};

/// Jobs between two looks at the progress.
const LOOK_EVERY: usize = 100;

pub(in super::super) fn traced(setup: &Setup, jobs: &[u64]) -> Result<Running, TwinError> {
    let name = format!("arenite-bench-trace-{}.json", std::process::id());
    let file = std::env::temp_dir().join(name);
    let builder = Engine::builder().workers(setup.workers);
    let engine = builder.trace(Trace::to(&file)).build().map_err(refused)?;
    // It is written all the same, and goes with the engine.
    std::fs::remove_file(&file).map_err(|error| TwinError::io("remove the trace", error))?;
    let jobs = jobs.to_vec();
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let submitted: Vec<_> = jobs
                .iter()
                .map(|&turns| engine.submit(work::spin, (turns,)))
                .collect();
            for (index, job) in submitted.into_iter().enumerate() {
                job.wait().map_err(refused)?;
                if index % LOOK_EVERY == 0 {
                    TwinError::expect(engine.progress().failed, 0)?;
                }
            }
            Ok(())
        })
    }))
}
