//! Maps of the supervisor's memory files that jobs of a lane have as arguments.

use std::cell::RefCell;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};

use crate::array::{FileName, PrivateMap, SealedFile};
use crate::kernel::BadArgument;
use crate::sys::{self, process::getppid};

/// Max number of maps that are kept between jobs.
const RETAINED: usize = 16;

/// The files that were arguments of the last jobs of a lane, and parts of files that are not sealed. They stay mapped,
/// so that consecutive jobs map a file once. Before the lane sleeps it unmaps sealed files, so that the memory of a
/// removed object is free once no job uses the object.
#[derive(Debug, Default)]
pub(super) struct MappedFiles {
    /// The maps, the most recently used last.
    maps: RefCell<Vec<Arc<SealedFile>>>,
    /// The file whose parts were mapped last.
    source: RefCell<Option<Arc<SealedFile>>>,
    /// The parts of files that are arguments of the running job.
    windows: RefCell<Vec<Arc<SealedFile>>>,
    /// Private maps of arrays that the running job has made.
    private: RefCell<Vec<Weak<PrivateMap>>>,
}

impl MappedFiles {
    /// Returns the map of a file, or of the range `bytes` of a file that is not sealed. Maps it unless it is mapped
    /// already.
    pub(super) fn open(
        &self,
        name: FileName,
        bytes: (u64, u64),
    ) -> Result<Arc<SealedFile>, BadArgument> {
        let mut maps = self.maps.borrow_mut();
        // A mapped file exists, so no other file has its identity.
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
        // The parent is the supervisor: this process would have ended with it.
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
        crate::sync::point!("file.opened");
        match file.window(bytes).map_err(|error| refused(&error))? {
            None => Ok(file),
            Some(window) => {
                crate::sync::point!("file.mapped");
                *source = Some(file);
                Ok(Arc::new(window))
            }
        }
    }

    /// Records that the running job has made a private map.
    pub(super) fn note_private(&self, map: &Arc<PrivateMap>) {
        let mut private = self.private.borrow_mut();
        // A job that makes many maps drops most of them: remove dropped maps when the list is full.
        if private.len() == private.capacity() {
            private.retain(|map| map.strong_count() > 0);
        }
        private.push(Arc::downgrade(map));
    }

    /// Called after a job, before its reply. Returns whether there are still handles to the job's private maps, or to
    /// parts of files that were its arguments.
    pub(super) fn has_escaped(&self) -> bool {
        if self
            .private
            .borrow()
            .iter()
            .any(|map| map.strong_count() > 0)
        {
            return true;
        }
        // Each part is in this list and in `maps`, unless `open` has removed it from `maps`.
        let windows = self.windows.borrow();
        let escaped = windows
            .iter()
            .any(|window| is_escaped(window, &windows, &self.maps.borrow()));
        see_last_use();
        escaped
    }

    /// Called after a job, before its reply. Makes the job's private maps independent of their files, and also the
    /// parts of files that still have handles; later jobs do not get these parts. Clears the lists of the job.
    pub(super) fn detach_escaped(&self) -> sys::Result<()> {
        if self.private.borrow().is_empty() && self.windows.borrow().is_empty() {
            return Ok(());
        }
        for map in self
            .private
            .borrow_mut()
            .drain(..)
            .filter_map(|map| map.upgrade())
        {
            map.detach();
            crate::sync::point!("private.detached");
        }
        let windows = self.windows.take();
        let mut maps = self.maps.borrow_mut();
        for window in &windows {
            if is_escaped(window, &windows, &maps) {
                maps.retain(|file| !Arc::ptr_eq(file, window));
                window.detach()?;
            }
        }
        see_last_use();
        Ok(())
    }

    /// Unmaps the sealed files to which no array refers, and all parts of files except those of the last file.
    pub(super) fn clear(&self) {
        let source = self.source.borrow();
        let source = source.as_ref().map(|source| source.identity());
        let mut maps = self.maps.borrow_mut();
        maps.retain(|file| !file.is_sealed() && Some(file.identity()) == source);
    }
}

/// Called after the counts of handles were read, and before the reply, after which the program may change the memory.
fn see_last_use() {
    // Acquire: "handle is gone", pairs with the decrement in the `drop` of `Arc`: the counts are read with `Relaxed`. At 0,
    // every access through a handle of another thread has happened.
    fence(Ordering::Acquire);
}

/// Returns whether a part of a file has handles outside the lists of the lane.
fn is_escaped(
    window: &Arc<SealedFile>,
    windows: &[Arc<SealedFile>],
    maps: &[Arc<SealedFile>],
) -> bool {
    let listed = windows.iter().chain(maps);
    Arc::strong_count(window) > listed.filter(|file| Arc::ptr_eq(file, window)).count()
}
