//! A worker reads an array that is in the arena already.

use super::super::handover::Read;
use super::super::noop::timed;
use super::super::{BenchError, Running, Setup};
use super::{engine, refused};
use crate::work;

pub(in super::super) fn handover(
    setup: &Setup,
    bytes: &[u8],
    read: Read,
) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let array = engine.from_slice(bytes).map_err(refused)?;
    let expected = read.of(bytes);
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let job = match read {
                Read::Touch => engine.submit(work::touch, (&array,)),
                Read::Sum => engine.submit(work::sum, (&array,)),
            };
            BenchError::expect(job.wait().map_err(refused)?, expected)
        })
    }))
}
