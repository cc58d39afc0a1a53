//! An engine that admits one large job at a time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use arenite::Array;

use crate::harness::{Lab, pass};

pub const MIB: u64 = 1 << 20;

/// Returns an engine that admits one job of 3 MiB at a time, and knows the size of what [`measure`] returns.
pub fn narrow(workers: usize) -> Lab {
    let lab = Lab::with(workers, |builder| builder.max_in_flight_bytes(4 * MIB));
    assert_eq!(
        lab.submit(measure, (three_mib(&lab), "")).wait(),
        Ok(3 * MIB)
    );
    lab
}

pub fn three_mib(lab: &Lab) -> Array<u8> {
    zeros(lab, 3072)
}

pub fn zeros(lab: &Lab, kib: usize) -> Array<u8> {
    lab.zeros(kib << 10).unwrap().seal()
}

/// Waits at the gate, if any, and returns the number of bytes.
pub fn measure(bytes: &[u8], gate: &str) -> u64 {
    if !gate.is_empty() {
        pass(gate);
    }
    bytes.len() as u64
}

/// Polls once, so that the future waits for admission.
pub fn joins<T>(future: &mut (impl Future<Output = T> + Unpin)) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(future).poll(&mut context).is_pending());
}
