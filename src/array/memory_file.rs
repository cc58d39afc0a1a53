//! Memory files: one process writes the file and seals it; then all processes may map it as an array
//! (`Array::map_sealed`).

use std::ops::{Deref, DerefMut};
use std::slice;

use crate::sys::{self, HUGE, Map, Prot, Segment};

/// A memory file that no other process has yet, mapped for writing. Dereferences to its bytes, which are zero at first.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    segment: Segment,
    /// `None` if the file has no bytes.
    map: Option<Map>,
}

impl MemoryFile {
    /// Creates a file of `len` bytes and allocates memory for all of them. `label` is its name in `/proc/*/maps`.
    pub(crate) fn new(label: &str, len: usize) -> sys::Result<MemoryFile> {
        let segment = Segment::create_memfd(label, true)?;
        segment.set_len(len as u64)?;
        let map = match len {
            0 => None,
            _ => Some(Map::new(&segment, 0, len, Prot::ReadWrite, len >= HUGE)?),
        };
        if let Some(map) = &map {
            // A forked copy would keep the file mapped for writing, which prevents sealing.
            map.exclude_from_forks()?;
            fill(&segment, map)?;
        }
        Ok(MemoryFile { segment, map })
    }

    /// Ends writing: content and length no longer change.
    pub(crate) fn seal(self) -> sys::Result<Segment> {
        // A map for writing would prevent sealing.
        drop(self.map);
        self.segment.seal()?;
        Ok(self.segment)
    }
}

/// Allocates memory for the whole file, in huge pages where Linux can.
fn fill(segment: &Segment, map: &Map) -> sys::Result<()> {
    let len = map.len();
    for start in (0..len / HUGE * HUGE).step_by(HUGE) {
        // Allocate one page, from which Linux makes a huge page.
        segment.allocate(start as u64..start as u64 + 1)?;
        if map.collapse(start..start + HUGE).is_err() {
            break;
        }
    }
    segment.allocate(0..len as u64)
}

impl Deref for MemoryFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.map {
            // SAFETY: the map covers `len` bytes of a file of that length, which nobody can shrink. No other process
            // has the file before `seal` consumes this value, and `&self` excludes writes in this process.
            Some(map) => unsafe { slice::from_raw_parts(map.base().as_ptr(), map.len()) },
            None => &[],
        }
    }
}

impl DerefMut for MemoryFile {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.map {
            // SAFETY: as for `deref`; `&mut self` makes this the only reference.
            Some(map) => unsafe { slice::from_raw_parts_mut(map.base().as_ptr(), map.len()) },
            None => &mut [],
        }
    }
}
