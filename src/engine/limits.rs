//! Limits of an engine: which values they may have.

use super::BuildError;

/// The most workers that an engine may have.
pub(super) const MAX_WORKERS: u16 = 1024;
/// The most lanes that all workers of an engine may have together.
pub(super) const MAX_LANES: usize = 4096;
/// Private memory, in bytes, with less of which few workers start.
pub(super) const LEAST_MEMORY: u64 = 8 << 20;
/// The least that a worker may be allowed to hold of the arena: its first grant.
const LEAST_SHARE: u64 = 64 << 10;

/// Checks that a limit is at least `least`. `more` says which other values it may have.
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

/// How much of the arena one worker may hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum ArenaShare {
    /// As much as leaves others their shares.
    LeavesOthers,
    Bytes(u64),
    /// Of the capacity.
    Fraction(f64),
}

impl ArenaShare {
    /// The limit in bytes, `None` if it depends on the others.
    pub(super) fn bytes(self, capacity: u64) -> Result<Option<u64>, BuildError> {
        let (bytes, given) = match self {
            Self::LeavesOthers => return Ok(None),
            Self::Bytes(bytes) => (bytes, format!("{bytes} bytes")),
            // Saturates; what is no number becomes 0.
            Self::Fraction(fraction) => (
                if fraction > 1.0 {
                    0
                } else {
                    (capacity as f64 * fraction) as u64
                },
                format!("{fraction} of {capacity} bytes"),
            ),
        };
        if bytes < LEAST_SHARE {
            return Err(BuildError::BadLimit {
                limit: "max_arena_per_worker",
                given,
                allowed: format!(
                    "{LEAST_SHARE} bytes or more, or to a fraction of the capacity, at most 1"
                ),
            });
        }
        Ok(Some(bytes))
    }
}
