//! Bytes of an array that a job may change for itself: [`PrivateCopy`].

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

use super::Array;
use super::lane::CurrentLane;
use crate::sys::limits::DataRoom;
use crate::sys::{self, HUGE, Map, PAGE, Segment, fork};

/// The bytes of an array of a job, for code that writes to them: no one else sees that. Only pages that are written are
/// copied.
///
/// In a worker without a sandbox, on the thread of the job. Handles that outlive the job make it a copy of all bytes.
///
/// ```
/// use arenite::raw::{Buffers, PrivateCopy, Received};
///
/// fn change(buffers: Buffers<'_>) -> Vec<u8> {
///     buffers
///         .map(|buffer| {
///             let Received::Read(array) = buffer else { panic!("nothing is lent") };
///             let copy = PrivateCopy::of(&array).expect("a worker can map it");
///             // SAFETY: within the bytes, to which no one else has a pointer.
///             unsafe {
///                 copy.as_ptr().write(7);
///                 copy.as_ptr().read() - array[0]
///             }
///         })
///         .collect()
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     arenite::init();
///     let engine = arenite::Engine::builder().workers(1).build()?;
///     let ones = engine.from_slice(&[1_u8; 100_000])?;
///     let job = engine.submit(change, (vec![arenite::raw::Buffer::read(ones.clone())],));
///     assert_eq!((job.wait()?, ones[0]), (vec![6], 1));
///     Ok(())
/// }
/// ```
pub struct PrivateCopy {
    map: Map,
    skip: usize,
    len: usize,
    /// A limit of private memory is for what the job allocates. Dropped after the map.
    _room: DataRoom,
}

impl PrivateCopy {
    /// Maps the bytes of an array of the running job. `None` outside of a job, in a sandbox, and for arrays of a store.
    pub fn of(array: &Array<u8>) -> Option<Arc<PrivateCopy>> {
        if array.is_empty() {
            return None;
        }
        CurrentLane::get()?
            .memory
            .private_copy(array.location(), array.len())
    }

    /// Maps `len` bytes of a segment, from this one on.
    pub(crate) fn map(segment: &Segment, at: u64, len: usize) -> sys::Result<PrivateCopy> {
        // So that huge pages of the segment are mapped as such.
        let unit = if len >= HUGE { HUGE } else { PAGE } as u64;
        let start = at / unit * unit;
        let skip = (at - start) as usize;
        let room = DataRoom::new((skip + len).next_multiple_of(PAGE) as u64);
        Ok(PrivateCopy {
            map: Map::new_private(segment, start, skip + len)?,
            skip,
            len,
            _room: room,
        })
    }

    /// The same, known to forks: a copy of this process reads the bytes as long as it lives.
    pub(crate) fn listed(self) -> Arc<PrivateCopy> {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| fork::run_around_forks(before_fork, after_fork));
        let copy = Arc::new(self);
        let mut all = all();
        // A task that makes many drops most of them.
        if all.len() == all.capacity() {
            all.retain(|copy| copy.strong_count() > 0);
        }
        all.push(Arc::downgrade(&copy));
        copy
    }

    /// The first byte. All of them may be read and written as long as this value lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.map.base().as_ptr().wrapping_add(self.skip)
    }

    /// The number of bytes.
    #[allow(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Copies all pages: from here on the segment may change. Other threads may write to them meanwhile.
    pub(crate) fn detach(&self) {
        self.map.copy_pages();
    }
}

/// All private copies of this process.
static ALL: Mutex<Vec<Weak<PrivateCopy>>> = Mutex::new(Vec::new());

thread_local! {
    /// The lock, while this thread forks.
    static HELD: RefCell<Option<MutexGuard<'static, Vec<Weak<PrivateCopy>>>>> = const { RefCell::new(None) };
}

fn all() -> MutexGuard<'static, Vec<Weak<PrivateCopy>>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn before_fork() {
    let all = all();
    for copy in all.iter().filter_map(Weak::upgrade) {
        copy.detach();
    }
    HELD.with_borrow_mut(|held| *held = Some(all));
}

fn after_fork(_is_copy: bool) {
    HELD.take();
}

impl fmt::Debug for PrivateCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateCopy")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
