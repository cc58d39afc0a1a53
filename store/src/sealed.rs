//! Checks that a file from another process is fit for an object.

use std::os::fd::AsFd;

use super::kind::Kind;
use crate::sys::{self, file};

/// Bytes of a huge page.
const HUGE: u64 = 2 << 20;

/// Why a file cannot be that of an object.
#[derive(Debug)]
pub(crate) enum FileProblem {
    /// The file is unfit, for this reason.
    Bad(String),
    /// This process has reached a limit.
    Limit(sys::Error),
}

/// Returns the length in bytes of `sent`. Checks that `sent` is a memory file that no process can change or truncate,
/// that its length fits `kind`, and that all its memory is allocated, so that reading it cannot fail.
pub(crate) fn length(sent: impl AsFd, kind: &Kind) -> Result<u64, FileProblem> {
    let bad = |message: String| Err(FileProblem::Bad(message));
    match file::is_sealed(&sent) {
        Ok(true) => {}
        Ok(false) => {
            return bad(
                "the file can still be changed: unmap it where it is mapped for writing, then add the seals \
                 F_SEAL_WRITE, F_SEAL_GROW and F_SEAL_SHRINK"
                    .to_owned(),
            );
        }
        Err(_) => {
            return bad("the descriptor is none of a memory file (memfd_create)".to_owned());
        }
    }
    let stat = file::stat(&sent).map_err(FileProblem::Limit)?;
    if let Some(problem) = kind.problem(stat.len) {
        return bad(problem);
    }
    // Memory beyond the length would not be counted. A huge page may extend beyond the end of the file.
    if stat.blocks > stat.len.next_multiple_of(HUGE) {
        return bad(format!(
            "{} bytes of memory for a file of {}: allocate no more than its length",
            stat.blocks, stat.len
        ));
    }
    if stat.blocks < stat.len {
        return bad(format!(
            "{} of {} bytes have memory: allocate all of the file (fallocate), so that reading it cannot fail",
            stat.blocks, stat.len
        ));
    }
    Ok(stat.len)
}
