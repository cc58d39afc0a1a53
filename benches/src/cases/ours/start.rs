//! The time from no worker to the first result.

use std::time::Instant;

use super::super::start::each;
use super::super::{BenchError, Running, Setup};
use super::{engine, refused};
use crate::work;

pub(in super::super) fn start(setup: &Setup) -> Result<Running, BenchError> {
    let workers = setup.workers;
    Ok(Box::new(move |times| {
        each(times, || {
            let start = Instant::now();
            let engine = engine(workers)?;
            let got = engine.submit(work::noop, (41,)).wait().map_err(refused)?;
            let taken = start.elapsed();
            BenchError::expect(got, 42)?;
            Ok(taken)
        })
    }))
}
