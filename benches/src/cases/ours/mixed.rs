//! Long and short jobs mixed, and many workers.

use super::super::noop::{JOBS, timed};
use super::super::{BenchError, Running, Setup};
use super::noop::map_all;
use super::{engine, refused};
use crate::{pool, work};

pub(in super::super) fn mixed(setup: &Setup, jobs: &[u64]) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let jobs = jobs.to_vec();
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let submitted: Vec<_> = jobs
                .iter()
                .map(|&turns| engine.submit(work::spin, (turns,)))
                .collect();
            for job in submitted {
                job.wait().map_err(refused)?;
            }
            Ok(())
        })
    }))
}

pub(in super::super) fn scale(workers: usize) -> Result<Running, BenchError> {
    let engine = engine(workers)?;
    let expected = pool::noop_total(JOBS);
    Ok(Box::new(move |times| {
        timed(times, |_| map_all(&engine, expected))
    }))
}
