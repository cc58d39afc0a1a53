//! The engine with a trace.

use super::super::noop::timed;
use super::super::{BenchError, Reading, Running, Setup, System};
use super::refused;
use crate::photos::Folder;
use crate::work;
use arenite::{Engine, Trace};

/// The number of jobs between two progress queries.
const QUERY_EVERY: usize = 100;

/// Fields are dropped in this order, which matters: the engine completes its files when it ends, before their folder is
/// removed.
struct Traced {
    engine: Engine,
    jobs: Vec<u64>,
    _files: Folder,
}

pub(in super::super) fn traced(setup: &Setup, jobs: &[u64]) -> Result<Running, BenchError> {
    let files = Folder::create("trace")?;
    let trace = Trace::to(files.path().join("events.json"));
    let trace = trace.report(files.path().join("report.html"));
    let builder = Engine::builder().workers(setup.workers).trace(trace);
    Ok(Box::new(Traced {
        engine: builder.build().map_err(refused)?,
        jobs: jobs.to_vec(),
        _files: files,
    }))
}

impl System for Traced {
    fn run(&mut self, times: u64) -> Result<Reading, BenchError> {
        timed(times, |_| {
            let submitted: Vec<_> = self
                .jobs
                .iter()
                .map(|&turns| self.engine.submit(work::spin, (turns,)))
                .collect();
            for (index, job) in submitted.into_iter().enumerate() {
                job.wait().map_err(refused)?;
                if index % QUERY_EVERY == 0 {
                    BenchError::expect(self.engine.progress().failed, 0)?;
                }
            }
            Ok(())
        })
    }
}
