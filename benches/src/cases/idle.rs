//! The cost of an idle engine.

use std::time::Duration;

use super::{BenchError, Case, Goal, Unit, ours};
use crate::linux;

/// The time for which the engine is idle.
pub(super) const SPAN: Duration = Duration::from_secs(3);

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "idle-3s",
            "Processor time of the whole engine in 3 idle seconds",
            Unit::CpuMilliseconds,
        )
        .plan(1, 1, 0)
        // The goal is not 0, because the clock counts nanoseconds. One tick of Linux' coarser accounting would be 10
        // ms.
        .goals(&[Goal::Below(1.0)])
        .system("arenite", ours::idle_cpu),
        Case::new(
            "idle-mb",
            "Private memory of an idle worker",
            Unit::Megabytes,
        )
        .plan(1, 3, 0)
        .goals(&[Goal::Below(4.0)])
        .note("touched pages of heap, stacks and data of the largest worker; without arrays and pages of the program")
        .system("arenite", ours::idle_memory),
    ]
}

/// Returns the processor time that these processes have used so far.
pub(super) fn cpu_time(pids: &[i32]) -> Result<Duration, BenchError> {
    let mut total = Duration::ZERO;
    for &pid in pids {
        total += linux::cpu_time(pid)?;
    }
    Ok(total)
}

/// Returns the bytes of heap, stacks and data that a process has touched: the cost of one more process. Arrays and
/// pages of the program do not count, because all processes share them. This can be read without privileges, although
/// debuggers may not read workers.
pub(super) fn private_bytes(pid: i32) -> Result<u64, BenchError> {
    linux::private_memory(pid).ok_or_else(|| BenchError::Peer {
        system: "arenite".into(),
        what: format!("({pid}) has no readable memory statistics"),
    })
}
