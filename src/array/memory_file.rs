//! [`MemoryFile`]: written by one process, then sealed, after which all processes may map it as an array.

use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::slice;

use crate::sys::{self, HUGE, Map, Prot, Segment};

/// A memory file (`memfd_create`) that only this process has, mapped for writing. Dereferences to its bytes, which are
/// zeros at first and start at a page.
///
/// Fill it, seal it, and pass the descriptor to other processes, for example over a Unix socket. They map it by
/// [`Array::map_sealed`](super::Array::map_sealed), without a copy.
///
/// ```
/// use arenite::array::{Array, MemoryFile};
///
/// let mut file = MemoryFile::new("prices", 2 * size_of::<f32>())?;
/// bytemuck::cast_slice_mut::<u8, f32>(&mut file).copy_from_slice(&[1.5, 2.5]);
/// let descriptor = file.seal()?;
/// let prices = Array::<f32>::map_sealed(descriptor, 2, ())?;
/// assert_eq!(prices[..], [1.5, 2.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MemoryFile {
    segment: Segment,
    /// `None` if the file has no bytes.
    map: Option<Map>,
}

impl MemoryFile {
    /// Creates a memory file of `len` bytes, and allocates memory for all of them. `/proc/*/maps` shows the `label`.
    ///
    /// # Errors
    ///
    /// There is no memory, no address range or no descriptor for it, `len` exceeds the limit on file sizes
    /// (`RLIMIT_FSIZE`), or `label` has a zero byte or more than 249 bytes.
    pub fn new(label: &str, len: usize) -> sys::Result<MemoryFile> {
        let segment = Segment::create_memfd(label, true)?;
        segment.set_len(len as u64)?;
        let map = match len {
            0 => None,
            _ => Some(Map::new(&segment, 0, len, Prot::ReadWrite, len >= HUGE)?),
        };
        if let Some(map) = &map {
            // A forked process would keep the file mapped for writing, which prevents sealing.
            map.exclude_from_forks()?;
            fill(&segment, map)?;
        }
        Ok(MemoryFile { segment, map })
    }

    /// Ends writing, and returns the file's descriptor, which is close-on-exec. From now on no process can change the
    /// content or the length.
    ///
    /// # Errors
    ///
    /// Linux refuses the seals. It does so only if another process has got hold of the descriptor, and maps the file
    /// for writing.
    pub fn seal(self) -> sys::Result<OwnedFd> {
        // Linux does not seal a file that is mapped for writing.
        drop(self.map);
        self.segment.seal()?;
        Ok(self.segment.into())
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
