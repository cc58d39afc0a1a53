//! What another process has sent as a file for an object: is it one?

use std::os::fd::AsFd;

use super::kind::Kind;
use crate::sys::{self, file};

/// Bytes of a huge page.
const HUGE: u64 = 2 << 20;

/// Why a file cannot be that of an object.
#[derive(Debug)]
pub(crate) enum FileProblem {
    /// Of the file.
    Bad(String),
    /// This process has reached a limit.
    Limit(sys::Error),
}

/// The length in bytes of a memory file that nobody can change or truncate, which holds an object of this kind and has
/// memory for all of it, so that reading it cannot fail.
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
    // More would not be counted; a huge page may end behind the file.
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
