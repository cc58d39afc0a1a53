//! Memory files of the supervisor that jobs of a lane take, mapped.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use crate::array::{FileName, PrivateCopy, SealedFile};
use crate::kernel::BadArgument;
use crate::sys::{self, process::getppid};

/// Maps that stay between jobs.
const RETAINED: usize = 16;

/// The files that the last jobs of a lane took, and parts of files that are not sealed, so that jobs that follow each
/// other map them once. The lane forgets sealed files before it sleeps: memory of an object that was removed is free
/// once no job uses it.
#[derive(Debug, Default)]
pub(super) struct MappedFiles {
    /// The last one was used last.
    maps: RefCell<Vec<Arc<SealedFile>>>,
    /// The file of which parts were mapped last.
    source: RefCell<Option<Arc<SealedFile>>>,
    /// The parts that the running job has.
    windows: RefCell<Vec<Arc<SealedFile>>>,
    /// Private copies of arrays that the running job has made.
    private: RefCell<Vec<Weak<PrivateCopy>>>,
}

impl MappedFiles {
    /// Maps a file, or these bytes of one that is not sealed, unless they still are.
    pub(super) fn open(
        &self,
        name: FileName,
        bytes: (u64, u64),
    ) -> Result<Arc<SealedFile>, BadArgument> {
        let mut maps = self.maps.borrow_mut();
        // A file that is mapped exists, so no other one has its identity.
        let known = maps.iter().position(|file| {
            file.is_window(name.identity, bytes)
                || file.is_sealed() && file.identity() == name.identity
        });
        let file = match known {
            Some(known) => maps.remove(known),
            None => self.map(name, bytes)?,
        };
        if maps.len() >= RETAINED {
            maps.remove(0);
        }
        maps.push(Arc::clone(&file));
        if !file.is_sealed() {
            self.windows.borrow_mut().push(Arc::clone(&file));
        }
        Ok(file)
    }

    fn map(&self, name: FileName, bytes: (u64, u64)) -> Result<Arc<SealedFile>, BadArgument> {
        // The supervisor started this process, which would have ended with it.
        let supervisor = getppid();
        let refused = |error: &dyn std::fmt::Display| {
            BadArgument::NoFile(format!(
                "this worker cannot open the memory of an argument, which is descriptor {} of process {supervisor}: {error}; \
                 copy it into the engine with engine.import(&array)",
                name.fd
            ))
        };
        let mut source = self.source.borrow_mut();
        let file = match source.take_if(|file| file.identity() == name.identity) {
            Some(file) => file,
            None => Arc::new(SealedFile::open(supervisor, name).map_err(|error| refused(&error))?),
        };
        match file.window(bytes).map_err(|error| refused(&error))? {
            None => Ok(file),
            Some(window) => {
                *source = Some(file);
                Ok(Arc::new(window))
            }
        }
    }

    /// The running job has made a private copy.
    pub(super) fn note_private(&self, copy: &Arc<PrivateCopy>) {
        let mut private = self.private.borrow_mut();
        // A job that makes many drops most of them.
        if private.len() == private.capacity() {
            private.retain(|copy| copy.strong_count() > 0);
        }
        private.push(Arc::downgrade(copy));
    }

    /// After a job, before it is answered: whether there are handles to parts of files that it had, or to private
    /// copies.
    pub(super) fn has_escaped(&self) -> bool {
        if self
            .private
            .borrow()
            .iter()
            .any(|copy| copy.strong_count() > 0)
        {
            return true;
        }
        // Each is here and in `maps`, unless it was removed there for others.
        let windows = self.windows.borrow();
        windows
            .iter()
            .any(|window| is_escaped(window, &windows, &self.maps.borrow()))
    }

    /// The same: makes these copies of all bytes, which no other job is given, and forgets which ones the job had.
    pub(super) fn detach_escaped(&self) -> sys::Result<()> {
        for copy in self
            .private
            .borrow_mut()
            .drain(..)
            .filter_map(|copy| copy.upgrade())
        {
            copy.detach();
        }
        if self.windows.borrow().is_empty() {
            return Ok(());
        }
        let windows = self.windows.take();
        let mut maps = self.maps.borrow_mut();
        for window in &windows {
            if is_escaped(window, &windows, &maps) {
                maps.retain(|file| !Arc::ptr_eq(file, window));
                window.detach()?;
            }
        }
        Ok(())
    }

    /// Unmaps all sealed files that no array refers to, and all parts of files but the last.
    pub(super) fn clear(&self) {
        let source = self.source.borrow();
        let source = source.as_ref().map(|source| source.identity());
        let mut maps = self.maps.borrow_mut();
        maps.retain(|file| !file.is_sealed() && Some(file.identity()) == source);
    }
}

/// Whether there are more handles to a part than these lists have.
fn is_escaped(
    window: &Arc<SealedFile>,
    windows: &[Arc<SealedFile>],
    maps: &[Arc<SealedFile>],
) -> bool {
    let listed = windows.iter().chain(maps);
    Arc::strong_count(window) > listed.filter(|file| Arc::ptr_eq(file, window)).count()
}
