//! Copy-on-write maps, through which a process may change an array for itself alone: [`PrivateCopy`].

use std::fmt;
use std::io;
use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

use arenite::Array;
use arenite::raw::memory::{
    Access, AfterFork, OwnerProcess, PrivateMap, Segment, run_around_forks,
};

use crate::habit::{Habit, MIN_PART};
use crate::sync::point;
use crate::written::Written;

/// Maximum number of private copies in the program at a time. Each is a map; Linux allows a process 65,530 maps.
const MAX: usize = 16 << 10;

/// A copy-on-write map of the bytes of an array. Writes to it are visible only through this map. Linux copies only the
/// pages that are written.
///
/// It is created in a worker without a sandbox, on the thread of a job; if handles to it outlive the job, all bytes are
/// copied. Or it is created in the program from an array of an engine; then the array stays allocated as long as the
/// copy exists.
///
/// ```
/// use arenite::raw::{Buffers, Received};
/// use arenite_memory::PrivateCopy;
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
    map: Arc<PrivateMap>,
    /// In the program: the array whose pages the map reads until they are written. Dropped after the map.
    source: Option<Mutex<Source>>,
}

impl PrivateCopy {
    /// Maps the bytes of an argument of the running job, or of an array of an engine of this program. Returns `None`
    /// for other arrays, in a sandbox, for arrays of a store, and if no more maps can be made.
    ///
    /// In a worker, the copy does not keep its array: of an array that the job has made, it shows what the job writes
    /// to that memory later.
    pub fn of(array: &Array<u8>) -> Option<Arc<PrivateCopy>> {
        let map = PrivateMap::of(array)?;
        let source = match map.is_of_job() {
            true => None,
            false => {
                point!("result.mapped");
                Some(Mutex::new(Source {
                    array: Some(array.clone()),
                    is_stale: false,
                    habit: Habit::default(),
                    process: OwnerProcess::current(),
                    _counted: Counted::new()?,
                }))
            }
        };
        Some(PrivateCopy { map, source }.registered())
    }

    /// In the program: frees arrays that are retained for forked processes that have ended. Without this call, the next
    /// private copy frees them.
    pub fn free_ended() {
        // Relaxed: if this misses a change, the next call frees the arrays.
        if FORKED.load(Ordering::Relaxed) > 0 {
            let ended = all().take_ended();
            drop(ended);
        }
    }

    /// Registers the copy for forks: its bytes stay valid in a forked process as long as that process lives.
    fn registered(self) -> Arc<PrivateCopy> {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| run_around_forks(before_fork));
        PrivateCopy::free_ended();
        let copy = Arc::new(self);
        let mut all = all();
        // A task may create many copies and drop most of them, so remove the dropped copies when the list is full.
        if all.copies.len() == all.copies.capacity() {
            all.copies.retain(|copy| copy.strong_count() > 0);
        }
        all.copies.push(Arc::downgrade(&copy));
        copy
    }

    /// The address of the first byte. All bytes may be read and written as long as this value lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.map.as_ptr()
    }

    /// The number of bytes.
    #[allow(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// In the program: returns `range` of the array, if the map still has the same bytes there: no page was written
    /// since the map was created or last copied into the array. Otherwise `None`.
    ///
    /// # Panics
    ///
    /// If the range is not within the bytes.
    pub fn unwritten(&self, range: Range<usize>) -> Option<Array<u8>> {
        assert!(range.start <= range.end && range.end <= self.len());
        let mut source = self.source()?;
        let array = source.array.as_ref()?.rows(range.clone());
        let is_written = Written::of_this_process()
            .and_then(|written| written.is_any(self.addresses(range)))
            .unwrap_or(true);
        source.habit.note_reuse(!is_written).then_some(array)
    }

    /// Like [`unwritten`](Self::unwritten), but also for bytes that were written: these are copied into the array, if
    /// all other handles to it are gone. Also returns the number of bytes that were copied. `None` if a copy by the
    /// caller costs less or is the only way.
    ///
    /// Other threads may write to the bytes meanwhile.
    ///
    /// # Panics
    ///
    /// If the range is not within the bytes.
    pub fn snapshot(&self, range: Range<usize>) -> Option<(Array<u8>, usize)> {
        if let Some(array) = self.unwritten(range.clone()) {
            return Some((array, 0));
        }
        let mut source = self.source()?;
        if source.habit.take_refusal() || !source.process.is_current() {
            return None;
        }
        let pages = Written::of_this_process().ok()?;
        // Track the whole map: if only a part were tracked, Linux would split the map.
        if !pages.track(self.map.addresses()) {
            return None;
        }
        let mut array = match source.array.take()?.try_into_mut() {
            Ok(array) => array,
            Err(shared) => {
                source.array = Some(shared);
                return None;
            }
        };
        let is_much = range.len() >= self.len() / MIN_PART;
        let part = if is_much {
            0..self.len()
        } else {
            range.clone()
        };
        let first = self.as_ptr().addr();
        let mut copied = 0;
        let taken = pages.take(self.addresses(part), |run| {
            // The first and the last page may extend beyond the bytes of the array.
            let start = run.start.saturating_sub(first);
            let end = (run.end - first).min(self.len());
            copied += end - start;
            point!("result.marked");
            // SAFETY: the bytes are within the map and within the block, which do not overlap: the map has pages of its
            // own. No other process reads the block, because without another handle no job has it as an input. Other
            // threads of this process may write to the map only: each byte is copied as before or after the write.
            unsafe {
                let to = array.as_mut_ptr().add(start);
                to.copy_from_nonoverlapping(self.as_ptr().add(start), end - start);
            }
        });
        point!("result.stored");
        source.habit.copied(copied, self.len());
        source.is_stale = taken.is_err();
        let array = source.array.insert(array.seal()).rows(range);
        taken.is_ok().then_some((array, copied))
    }

    /// Locks and returns the source. `None` in a worker, and if the lock is taken: in a forked process, the thread that
    /// has taken it may exist only in the original process.
    fn source(&self) -> Option<MutexGuard<'_, Source>> {
        let source = self.source.as_ref()?.try_lock().ok()?;
        (!source.is_stale).then_some(source)
    }

    fn addresses(&self, range: Range<usize>) -> Range<usize> {
        let first = self.as_ptr().addr();
        first + range.start..first + range.end
    }
}

/// The array that a private copy of the program was created from.
struct Source {
    /// Not `None` while the lock is free.
    array: Option<Array<u8>>,
    /// Whether some pages may count as not written although they were not copied into the array.
    is_stale: bool,
    habit: Habit,
    process: OwnerProcess,
    _counted: Counted,
}

/// Counts one private copy of the program in [`COUNT`] until it is dropped.
struct Counted;

static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Counted {
    fn new() -> Option<Counted> {
        // Relaxed: the counter guards no other memory.
        let more = |count| (count < MAX).then_some(count + 1);
        COUNT
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| Counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The length of [`All::forked`].
static FORKED: AtomicUsize = AtomicUsize::new(0);

/// All private copies of this process.
struct All {
    copies: Vec<Weak<PrivateCopy>>,
    /// The arrays that forked processes may read.
    forked: Vec<Forked>,
}

/// The arrays that one forked process may read.
struct Forked {
    /// A file that the forked process [holds](Segment::hold) until it ends or executes another program. `None` if the
    /// file could not be created: then the arrays are never freed.
    life: Option<Segment>,
    arrays: Vec<Array<u8>>,
}

impl All {
    /// Removes and returns the arrays of forked copies that have ended.
    fn take_ended(&mut self) -> Vec<Array<u8>> {
        let mut ended = Vec::new();
        self.forked.retain_mut(|forked| {
            let life = forked.life.as_ref();
            let lives = life.is_none_or(|life| life.is_held().unwrap_or(true));
            if !lives {
                ended.append(&mut forked.arrays);
            }
            lives
        });
        FORKED.store(self.forked.len(), Ordering::Relaxed);
        ended
    }
}

static ALL: Mutex<All> = Mutex::new(All {
    copies: Vec::new(),
    forked: Vec::new(),
});

fn all() -> MutexGuard<'static, All> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn before_fork() -> AfterFork {
    let mut all = all();
    let ended = all.take_ended();
    let mut arrays = Vec::new();
    for copy in all.copies.iter().filter_map(Weak::upgrade) {
        match &copy.source {
            // With this second handle, no thread copies into the array from now on.
            Some(source) => {
                let source = source.lock().unwrap_or_else(PoisonError::into_inner);
                arrays.extend(source.array.clone());
            }
            None => copy.map.detach(),
        }
    }
    let mut holder = None;
    if !arrays.is_empty() {
        let (life, held) = life().ok().unzip();
        all.forked.push(Forked { life, arrays });
        FORKED.store(all.forked.len(), Ordering::Relaxed);
        holder = held;
    }
    drop(ended);
    // `ALL` is locked until then.
    Box::new(|is_copy| after_fork(all, holder, is_copy))
}

/// Creates a file, and a second file description that holds it: see [`Forked::life`].
fn life() -> io::Result<(Segment, Segment)> {
    let life = Segment::create_memfd("arenite-fork", false)?;
    let holder = Segment::reopen(life.as_raw_fd(), Access::ReadOnly)?;
    holder.hold()?;
    Ok((life, holder))
}

/// `holder` stays open in the forked process.
fn after_fork(mut all: MutexGuard<'_, All>, holder: Option<Segment>, is_copy: bool) {
    if is_copy {
        // The original process frees these arrays.
        all.forked.clear();
        FORKED.store(0, Ordering::Relaxed);
        // Linux closes the descriptor when this process ends or executes another program.
        mem::forget(holder);
    }
}

impl fmt::Debug for PrivateCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateCopy")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
