//! A kernel of another program.

use super::super::noop::timed;
use super::super::{BenchError, Running, Setup};
use super::refused;
use crate::service::ServicePeer;
use crate::work;

pub(in super::super) fn service_call(setup: &Setup) -> Result<Running, BenchError> {
    let peer = ServicePeer::start(setup.workers)?;
    Ok(Box::new(move |times| {
        // Makes the closure capture the whole peer: otherwise it would capture only the fields that it names.
        let peer = &peer;
        timed(times, |i| {
            let got = peer.client.call::<u64>("noop", (i,)).wait();
            BenchError::expect(got.map_err(refused)?, work::noop(i))
        })
    }))
}
