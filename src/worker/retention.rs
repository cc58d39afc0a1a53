//! Arrays whose handles outlive their job, in a lane that may retain them.
//!
//! Such a lane counts the handles of each array separately. So if a job has many arrays as arguments and a handle to
//! one of them outlives the job, only that array stays in use.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use smallvec::SmallVec;

use super::lane::Lane;
use super::panics::{self, Outcome};
use crate::arena::{Extent, Offset};
use crate::array::LaneCount;
use crate::kernel::from_offset;
use crate::kernel::wire::{ReplyWriter, SentArray, WordReader};
use crate::link::{Consumer, MAX_RETAINED};

/// Maximum number of retained arrays that are checked between two jobs. The next check continues after them.
pub(super) const LOOKS_BETWEEN_JOBS: usize = 64;
/// Maximum number of retained arrays that are checked before a sleep.
pub(super) const LOOKS_BEFORE_SLEEP: usize = 1024;

/// An array of a job, and the counter of its handles.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountedArray {
    /// The extent of the array that was given to the job, or of the chunk that the job allocated.
    pub(super) extent: Extent,
    count: &'static LaneCount,
    pub(super) pages: RetainedPages,
}

/// The arrays whose handles outlive their job.
pub(super) type LeftBehind = SmallVec<[CountedArray; 2]>;

/// An array that the lane retains.
#[derive(Debug)]
struct RetainedArray {
    /// The number of the array. The supervisor has the same number: both count retained arrays in the order of the
    /// replies.
    number: u64,
    array: CountedArray,
}

/// How the pages of an array whose handles outlive its job differ from other pages that no job needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetainedPages {
    /// The pages do not differ.
    Plain,
    /// The pages are writable: the job has allocated the array and did not send it.
    Writable,
    /// The pages are writable in the map for lent arrays: the array moved into the job, which did not send it.
    Moved,
    /// The pages are readable in the map for lent arrays: the array was lent to the job, or moved into it and was sent.
    Lent,
}

impl RetainedPages {
    /// Returns whether the array was lent to the job or moved into it.
    fn are_lent(self) -> bool {
        matches!(self, Self::Moved | Self::Lent)
    }
}

/// The arrays of one lane: arrays of the running job, and retained arrays.
#[derive(Debug)]
pub(super) struct Retention {
    /// Entry of the program's code that runs before arrays are retained.
    before: u64,
    /// The counter of the lane, for the handles of arrays without bytes, which need not be retained.
    lane: &'static LaneCount,
    /// Arrays that were given to the running job.
    given: RefCell<Vec<CountedArray>>,
    /// Chunks that the running job has allocated, by their offset in the region.
    made: RefCell<HashMap<u64, CountedArray>>,
    retained: RefCell<Vec<RetainedArray>>,
    /// The addresses of the counters of retained arrays that were lent to their jobs or moved into them.
    lent: RefCell<HashSet<usize>>,
    /// The number of the next retained array.
    next: Cell<u64>,
    /// The index in `retained` at which the next check begins.
    look: Cell<usize>,
    /// Counters that no array uses.
    unused: RefCell<Vec<&'static LaneCount>>,
}

impl Retention {
    pub(super) fn new(before: u64, lane: &'static LaneCount) -> Self {
        Self {
            before,
            lane,
            given: RefCell::default(),
            made: RefCell::default(),
            retained: RefCell::default(),
            lent: RefCell::default(),
            next: Cell::new(0),
            look: Cell::new(0),
            unused: RefCell::default(),
        }
    }

    fn counted(&self, extent: Extent, pages: RetainedPages) -> CountedArray {
        let unused = self.unused.borrow_mut().pop();
        let new = || &*Box::leak(Box::new(LaneCount::of_array(self.lane)));
        CountedArray {
            extent,
            count: unused.unwrap_or_else(new),
            pages,
        }
    }

    /// Returns the counter for the handles of an array that is given to the running job.
    pub(super) fn count_given(&self, extent: Extent, pages: RetainedPages) -> &'static LaneCount {
        if extent.len == 0 {
            return self.lane;
        }
        let array = self.counted(extent, pages);
        self.given.borrow_mut().push(array);
        array.count
    }

    /// Returns the counter for the handles of a chunk that the running job has allocated.
    pub(super) fn count_made(&self, chunk: Extent) -> &'static LaneCount {
        if chunk.len == 0 {
            return self.lane;
        }
        let array = self.counted(chunk, RetainedPages::Writable);
        self.made.borrow_mut().insert(chunk.at.offset(), array);
        array.count
    }

    /// Returns whether the running job has allocated this chunk.
    pub(super) fn has_made(&self, chunk: Extent) -> bool {
        self.made.borrow().contains_key(&chunk.at.offset())
    }

    /// Called when the last handle to a chunk is dropped. Returns whether the running job has allocated the chunk.
    pub(super) fn release_made(&self, at: Offset) -> bool {
        let Some(array) = self.made.borrow_mut().remove(&at.offset()) else {
            return false;
        };
        // The handle that is being dropped is still counted. Its drop ends on this thread, before the lane uses the
        // counter for another array.
        self.unused.borrow_mut().push(array.count);
        true
    }

    /// Calls `f` with each array of the running job.
    fn for_each(&self, mut f: impl FnMut(&CountedArray)) {
        self.given.borrow().iter().for_each(&mut f);
        self.made.borrow().values().for_each(f);
    }

    /// Returns the number of handles to arrays of the running job.
    pub(super) fn live(&self) -> usize {
        let mut live = 0;
        self.for_each(|array| live += array.count.live());
        live
    }

    /// Clears the lists of the running job's arrays. Returns the arrays that still have handles.
    pub(super) fn take_left(&self) -> LeftBehind {
        let mut left = LeftBehind::new();
        let mut unused = self.unused.borrow_mut();
        let given = &mut *self.given.borrow_mut();
        let made = &mut *self.made.borrow_mut();
        for array in given.drain(..).chain(made.drain().map(|(_, array)| array)) {
            match array.count.live() {
                0 => unused.push(array.count),
                _ => left.push(array),
            }
        }
        left
    }

    /// Returns whether `count` is the counter of a retained array that was lent to its job or moved into the job. Such
    /// an array is sent as a copy, because the supervisor does not know which other arrays use its memory.
    pub(super) fn was_lent(&self, count: &LaneCount) -> bool {
        self.lent.borrow().contains(&address(count))
    }

    /// Returns whether `more` more arrays can be retained.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.retained.borrow().len() + more <= MAX_RETAINED
    }

    /// Retains an array. The reply of its job must name arrays in the order of these calls.
    pub(super) fn retain(&self, array: CountedArray) {
        let number = self.next.get();
        self.next.set(number + 1);
        if array.pages.are_lent() {
            self.lent.borrow_mut().insert(address(array.count));
        }
        let array = RetainedArray { number, array };
        self.retained.borrow_mut().push(array);
    }
}

fn address(count: &LaneCount) -> usize {
    std::ptr::from_ref(count).addr()
}

impl Lane {
    /// Called after a job, in a lane that may retain arrays. Returns the arrays that still have handles.
    pub(super) fn arrays_left(&'static self, retention: &Retention) -> LeftBehind {
        if retention.live() == 0 && !self.files.has_escaped() {
            return retention.take_left();
        }
        self.run_before_retaining(retention.before);
        crate::sync::point!("retain.prepared");
        retention.take_left()
    }

    /// Runs the program's code that may drop handles, for example by collecting garbage.
    #[cold]
    fn run_before_retaining(&'static self, offset: u64) {
        #[allow(unsafe_code, reason = "a kernel is called by the offset of its entry")]
        // SAFETY: the supervisor computed the offset from an entry, and is the same build (checked in the handshake).
        let entry = unsafe { from_offset(offset) };
        let mut reply = ReplyWriter::default();
        let run = || entry(WordReader::new(&[]), self, &mut reply);
        if let Outcome::Panicked(text) = panics::catch_without_backtrace(run) {
            let (message, location, _) = panics::split(&text);
            eprintln!("the code before arrays are retained panicked at {location}: {message}");
        }
    }

    /// Checks up to `looks` retained arrays, and reports those to which no handle is left. Returns whether any was
    /// reported. `sent` are the arrays of the next reply. These are not reported before a later call, even if the reply
    /// has the last handle: the supervisor must still find the array when it reads the reply.
    pub(super) fn report_releases(
        &self,
        consumer: &mut Consumer,
        looks: usize,
        sent: &[SentArray],
    ) -> bool {
        let Some(retention) = &self.retention else {
            return false;
        };
        let mut retained = retention.retained.borrow_mut();
        let mut any = false;
        for _ in 0..looks.min(retained.len()) {
            let mut look = retention.look.get();
            if look >= retained.len() {
                look = 0;
            }
            retention.look.set(look + 1);
            let array = &retained[look].array;
            let is_sent = || sent.iter().any(|sent| sent.view.overlaps(&array.extent));
            if array.count.live() != 0 || is_sent() {
                continue;
            }
            retention.look.set(look);
            if !consumer.has_room_for_release() {
                break;
            }
            let RetainedArray { number, array } = retained.swap_remove(look);
            self.worker.pages.release(array.extent, array.pages);
            crate::sync::point!("release.closed");
            consumer.report_release(number);
            if array.pages.are_lent() {
                retention.lent.borrow_mut().remove(&address(array.count));
            }
            retention.unused.borrow_mut().push(array.count);
            any = true;
        }
        any
    }
}
