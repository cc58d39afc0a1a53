//! What an engine costs that has nothing to do.

use std::time::Duration;

use super::{Case, Goal, TwinError, Unit, ours};
use crate::sys::cores;

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
        .system("arenite", ours::idle_memory),
    ]
}

/// Processor time that these processes have used so far.
pub(super) fn cpu_time(pids: &[i32]) -> Result<Duration, TwinError> {
    let mut total = Duration::ZERO;
    for &pid in pids {
        total += cores::cpu_time_of(pid)?;
    }
    Ok(total)
}

/// Bytes that only this process has mapped.
pub(super) fn private_bytes(pid: i32) -> Result<u64, TwinError> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| TwinError::io(format!("read {path}"), error))?;
    Ok(text
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum::<u64>()
        * 1024)
}
