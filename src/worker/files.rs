//! Sealed files of the supervisor that jobs of a lane take, mapped.

use std::cell::RefCell;
use std::sync::Arc;

use crate::array::{FileName, SealedFile};
use crate::kernel::BadArgument;
use crate::sys::process::getppid;

/// Files that stay mapped between jobs.
const RETAINED: usize = 16;

/// The files that the last jobs of a lane took, so that jobs that follow each other map a file once. The lane forgets
/// them before it sleeps: memory of an object that was removed is free once no job uses it.
#[derive(Debug, Default)]
pub(super) struct MappedFiles(RefCell<Vec<Arc<SealedFile>>>);

impl MappedFiles {
    /// Maps a file, unless it still is.
    pub(super) fn open(&self, name: FileName) -> Result<Arc<SealedFile>, BadArgument> {
        let mut files = self.0.borrow_mut();
        // A file that is mapped exists, so no other one has its identity.
        let known = files
            .iter()
            .position(|file| file.identity() == name.identity);
        if let Some(known) = known {
            // The last one was used last.
            files[known..].rotate_left(1);
        } else {
            // The supervisor started this process, which would have ended with it.
            let supervisor = getppid();
            let file = SealedFile::open(supervisor, name).map_err(|error| {
                BadArgument::NoFile(format!(
                    "this worker cannot open an array of a store, which is descriptor {} of process {supervisor}: \
                     {error}; copy it into the engine with engine.import(&array)",
                    name.fd
                ))
            })?;
            if files.len() == RETAINED {
                files.remove(0);
            }
            files.push(Arc::new(file));
        }
        let file = files.last().map(Arc::clone);
        file.ok_or(BadArgument::Malformed)
    }

    /// Unmaps all that no array refers to.
    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}
