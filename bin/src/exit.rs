//! Exit codes that commands share.

/// A wrong command line, or a set-up that failed.
pub(crate) const USAGE: u8 = 2;
