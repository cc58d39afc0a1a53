//! Limits of an engine, and the values that they may have.

use super::BuildError;

/// The maximum number of workers of an engine.
pub(super) const MAX_WORKERS: u16 = 1024;
/// The maximum number of lanes of all workers of an engine.
pub(super) const MAX_LANES: usize = 4096;
/// The default capacity is reduced to what the process's limits allow, but not below this size: then `build` fails.
pub(super) const MIN_DEFAULT: u64 = 16 << 20;
/// The minimum capacity in bytes: with less, not even one array may fit beside the first grants of a worker.
const MIN_CAPACITY: u64 = 1 << 20;
/// The minimum limit of private memory in bytes: few workers start with less.
const MIN_MEMORY: u64 = 8 << 20;
/// The minimum number of bytes of the arena that a worker must be allowed to occupy: its first grant.
const MIN_SHARE: u64 = 64 << 10;

/// Checks that a limit is at least `least`. `more` describes other values that are allowed.
pub(super) fn check_least(
    limit: &'static str,
    given: u64,
    least: u64,
    more: &str,
) -> Result<(), BuildError> {
    match given < least {
        false => Ok(()),
        true => Err(BuildError::BadLimit {
            limit,
            given: given.to_string(),
            allowed: format!("{least} or more{more}"),
        }),
    }
}

/// Checks a capacity in bytes.
pub(super) fn check_capacity(capacity: Option<u64>) -> Result<(), BuildError> {
    let given = capacity.unwrap_or(MIN_CAPACITY);
    check_least("capacity", given, MIN_CAPACITY, "")
}

/// Checks a limit of private memory in bytes.
pub(super) fn check_memory(limit: u64) -> Result<(), BuildError> {
    match limit {
        0 => Ok(()),
        _ => check_least("memory_limit", limit, MIN_MEMORY, ", or to 0 for no limit"),
    }
}

/// Checks the name of an engine, which becomes a name of processes.
pub(super) fn check_label(label: &str) -> Result<(), BuildError> {
    match label.contains('\0') {
        false => Ok(()),
        true => Err(BuildError::BadLimit {
            limit: "label",
            given: format!("{label:?}"),
            allowed: "a text without zero bytes".into(),
        }),
    }
}

/// How much of the arena one worker may occupy.
#[derive(Clone, Copy, Debug)]
pub(super) enum ArenaShare {
    /// Everything except the shares of the other workers.
    LeavesOthers,
    Bytes(u64),
    /// A fraction of the capacity.
    Fraction(f64),
}

impl ArenaShare {
    /// Returns the limit in bytes, or `None` if it depends on the other workers.
    pub(super) fn bytes(self, capacity: u64) -> Result<Option<u64>, BuildError> {
        let (bytes, given) = match self {
            Self::LeavesOthers => return Ok(None),
            Self::Bytes(bytes) => (bytes, format!("{bytes} bytes")),
            // The conversion saturates; NaN becomes 0.
            Self::Fraction(fraction) => (
                if fraction > 1.0 {
                    0
                } else {
                    (capacity as f64 * fraction) as u64
                },
                format!("{fraction} of {capacity} bytes"),
            ),
        };
        if bytes < MIN_SHARE {
            return Err(BuildError::BadLimit {
                limit: "max_arena_per_worker",
                given,
                allowed: format!(
                    "{MIN_SHARE} bytes or more, or to a fraction of the capacity, at most 1"
                ),
            });
        }
        Ok(Some(bytes))
    }
}
