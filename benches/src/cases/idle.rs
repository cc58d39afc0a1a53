//! What an engine costs that has nothing to do.

use std::time::Duration;

use super::{BenchError, Case, Goal, Unit, ours};
use crate::linux;

/// How long nothing is asked of it.
pub(super) const SPAN: Duration = Duration::from_secs(3);

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "idle-3s",
            "Processor time of the whole engine in 3 idle seconds",
            Unit::CpuMilliseconds,
        )
        .plan(1, 1, 0)
        // A clock that counts nanoseconds never shows exactly none; one tick of the kernel's own accounting is 10 ms.
        .goals(&[Goal::Below(1.0)])
        .system("arenite", ours::idle_cpu),
        Case::new(
            "idle-mb",
            "Private memory of an idle worker",
            Unit::Megabytes,
        )
        .plan(1, 3, 0)
        .goals(&[Goal::Below(4.0)])
        .note("what the worker that has most has touched of its heap, stacks and data; neither arrays nor pages of the program")
        .system("arenite", ours::idle_memory),
    ]
}

/// Processor time that these processes have used so far.
pub(super) fn cpu_time(pids: &[i32]) -> Result<Duration, BenchError> {
    let mut total = Duration::ZERO;
    for &pid in pids {
        total += linux::cpu_time(pid)?;
    }
    Ok(total)
}

/// What a process has touched of its heap, its stacks and its data, in bytes: what one more of it costs. Neither arrays nor
/// pages of the program count, which all have in common. Anybody may read it of a worker, which is closed to debuggers.
pub(super) fn private_bytes(pid: i32) -> Result<u64, BenchError> {
    linux::private_memory(pid).ok_or_else(|| BenchError::Peer {
        system: "arenite".into(),
        what: format!("({pid}) does not show its memory"),
    })
}
