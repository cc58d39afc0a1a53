//! Memory for the arrays of another language, with snapshots of it for jobs: [`CowHeap`].
//!
//! A heap consists of *regions*. A region is a memory file that is mapped twice: for writing, where the program uses
//! its blocks, and for reading. A block begins at a chunk of 2 MiB, and its chunks contain no other block.
//!
//! | state of a block | the map for writing | the file |
//! |---|---|---|
//! | shared | shows the file | changes with each write |
//! | private, from its first snapshot on | shows the file, and copies of the pages that were written since | changes when a snapshot is taken, and no other is left |
//! | own, instead of shared | shows large zeros of this process alone | is empty; snapshots show an image from the first on |
//! | free | is shared again | may be reused once no snapshot is left |
//!
//! A private block never becomes shared again while it is in use: what other threads write to it during the change
//! would be lost. What was written since the last snapshot is copied into the *image*, which the next snapshot shows:
//! see `image.rs`.
//!
//! A process made by `fork` must not write to the file. So all blocks become private before each fork, and their
//! regions are *retired*: none of their blocks is reused, because the forked process reads the file as long as it
//! lives. From then on both processes allocate in regions of their own. A process made by the bare system call, without
//! `fork`, shares all blocks that are not private.

#[forbid(unsafe_code)]
mod chunks;
#[forbid(unsafe_code)]
mod forks;
#[forbid(unsafe_code)]
mod image;
#[forbid(unsafe_code)]
mod region;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use chunks::{bytes, huge_part, join};
use image::Image;
use region::Region;

use arenite::Array;
use arenite::raw::memory::{
    HUGE, SealedFile, Segment, address_space_limit, file_size_limit, memory_available,
};

use crate::habit::Habit;
use crate::pages::Pages;
use crate::sync::{lock, point};
use crate::written::Written;

/// Freed memory is returned to Linux by the first call of the heap after this time.
const KEEP_FREE: Duration = Duration::from_secs(5);
/// Maximum size in bytes at which freed memory is cleared for a request for zeros, as glibc does. Larger blocks are
/// allocated anew: Linux clears each page when it is first used.
const CLEARED: usize = 16 << 20;
/// A block of large zeros becomes memory of this process alone only if all blocks, with an image for this one, then
/// take at most 1/`OWN_HELD` of the memory.
const OWN_HELD: usize = 8;
/// Maximum number of private blocks at a time. Each is a map of its own; Linux allows a process 65,530 maps.
const MAX_PRIVATE: usize = 16 << 10;

/// Memory for the allocator of another language. To the language, blocks are ordinary memory. At any time a job can be
/// given a [`snapshot`](Self::snapshot) of bytes of a block, without a copy, while the language goes on writing.
///
/// ```
/// let heap = arenite_memory::CowHeap::new("numbers")?;
/// let block = heap.alloc(4 << 20, true).ok_or("no memory")?;
/// // SAFETY: the block was just allocated, and is used by this thread alone.
/// unsafe { block.write(7) };
/// let (snapshot, copied) = heap.snapshot(block.addr().get(), 4 << 20).ok_or("to be copied")?;
/// // SAFETY: as above.
/// unsafe { block.write(8) };
/// assert_eq!((snapshot[0], copied), (7, 0));
/// // SAFETY: no pointer to the block is used from here on.
/// unsafe { heap.free(block) };
/// assert_eq!(snapshot[0], 7, "a snapshot keeps its memory");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CowHeap {
    label: String,
    /// The length of each region in bytes.
    len: usize,
    /// The memory of this machine, or of its container, in bytes.
    memory: usize,
    /// Maximum number of freed bytes that are kept for reuse.
    most_free: usize,
    /// Lower bound of the addresses of all regions.
    lowest: AtomicUsize,
    /// Upper bound of the addresses of all regions.
    highest: AtomicUsize,
    state: Mutex<State>,
    /// Region number and first chunk of the block of each ended snapshot that [`tidy`](Self::tidy) has not processed
    /// yet. Has a mutex of its own, because a snapshot may end where no system call may be made.
    ended: Mutex<Vec<(u64, usize)>>,
}

#[derive(Default)]
struct State {
    regions: Vec<Region>,
    /// The number of the next region.
    next: u64,
    /// The number of private blocks.
    private: usize,
    /// The number of freed bytes that still have memory.
    free: usize,
    /// The next time at which freed memory may be old enough to be returned. `None` if no freed memory is left.
    next_return: Option<Instant>,
    /// The number of bytes of all blocks, in whole chunks.
    held: usize,
    /// The time before which no huge pages are allocated ahead, and the length of the next pause.
    pause: Option<(Instant, Duration)>,
    /// The time that allocating huge pages took beyond `FAIR`.
    debt: Duration,
}

/// A block: the number of its region, and its first chunk.
type Place = (u64, usize);

struct Block {
    chunks: usize,
    /// The number of bytes requested.
    len: usize,
    /// Whether the map for writing shows the block in a way that other maps of the file do not.
    is_private: bool,
    /// Whether the block is memory of this process alone, and its chunks of the file have no memory. Such a block is
    /// private. Linux makes huge pages of its memory when they are first used, as it does for other memory.
    is_own: bool,
    /// Whether the block is in use: neither the allocator of the language nor, if the block is an image, `release` has
    /// freed it.
    is_owned: bool,
    /// The number of snapshots that have not ended.
    snapshots: usize,
    /// The file of the last snapshot, which further snapshots share while it exists.
    last: Weak<SealedFile>,
    image: Image,
    habit: Habit,
    /// Whether a thread is making a new image. Meanwhile other snapshots of the block are refused.
    is_busy: bool,
}

/// Chunks that were just taken for a block.
struct NewBlock {
    region: u64,
    write: Arc<Pages>,
    segment: Arc<Segment>,
    first: usize,
    chunks: usize,
    /// Whether the chunks still have memory, with its old content.
    is_warm: bool,
    /// Whether to allocate huge pages before the first access.
    goes_ahead: bool,
}

/// Dropped with the last handle to a snapshot. Records that the snapshot has ended.
struct Snapshot {
    heap: &'static CowHeap,
    region: u64,
    block: usize,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        lock(&self.heap.ended).push((self.region, self.block));
    }
}

impl CowHeap {
    /// Creates a heap. It is never freed, because its blocks may be used until the program ends. `label` is the name of
    /// its memory in `/proc/*/maps`. No memory is allocated yet.
    ///
    /// # Errors
    ///
    /// If Linux has no memory files, accounts for each page before it is used (`vm.overcommit_memory=2`), or limits the
    /// address space of this process (`RLIMIT_AS`).
    pub fn new(label: &str) -> std::io::Result<&'static CowHeap> {
        let unsupported = |why| std::io::Error::new(std::io::ErrorKind::Unsupported, why);
        if address_space_limit().is_some() {
            return Err(unsupported(
                "the address space of this process is limited (ulimit -v)",
            ));
        }
        let policy = std::fs::read("/proc/sys/vm/overcommit_memory").unwrap_or_default();
        if policy.starts_with(b"2") {
            return Err(unsupported("vm.overcommit_memory is 2"));
        }
        let memory = memory_available(Path::new("/"))
            .limit
            .clamp(1 << 30, 1 << 38) as usize;
        let len = (4 * memory).next_multiple_of(HUGE);
        let len = file_size_limit().map_or(len, |most| (most as usize / HUGE * HUGE).min(len));
        if len == 0 {
            return Err(unsupported("the length of files is limited (ulimit -f)"));
        }
        let heap = CowHeap {
            label: label.to_owned(),
            len,
            memory,
            most_free: (memory / 16).clamp(64 << 20, 1 << 30),
            lowest: AtomicUsize::new(usize::MAX),
            highest: AtomicUsize::new(0),
            state: Mutex::default(),
            ended: Mutex::default(),
        };
        let mut state = lock(&heap.state);
        heap.add_region(&mut state)?;
        drop(state);
        let heap: &'static CowHeap = Box::leak(Box::new(heap));
        forks::register(heap);
        Ok(heap)
    }

    /// Allocates a block of `len` bytes, aligned to 2 MiB. If `zeroed`, all bytes are zero; otherwise they are
    /// initialised, but unspecified. Returns `None` if there is no room.
    pub fn alloc(&self, len: usize, zeroed: bool) -> Option<NonNull<u8>> {
        let mut state = lock(&self.state);
        self.tidy(&mut state);
        let new = self.add_block(&mut state, len, zeroed)?;
        drop(state);
        point!("heap.taken");
        self.prepare(&new, len);
        point!("heap.prepared");
        let block = new.write.at(new.first * HUGE, new.chunks * HUGE)?;
        if new.is_warm && zeroed {
            // SAFETY: `len` bytes of the chunks, which were just taken for this block: no other code has their address,
            // no snapshot of them is left, and no other process writes them.
            unsafe { block.write_bytes(0, len) };
        }
        Some(block)
    }

    /// Takes chunks for a block.
    fn add_block(&self, state: &mut State, len: usize, zeroed: bool) -> Option<NewBlock> {
        let chunks = len.max(1).div_ceil(HUGE);
        if len > self.memory {
            return None;
        }
        state.regions.iter_mut().for_each(Region::check);
        if state.regions.iter().all(|region| region.is_retired) {
            self.add_region(state).ok()?;
        }
        let goes_ahead = !zeroed && self.goes_ahead(state, len);
        let may_be_own = zeroed && self.may_be_own(state, len);
        let State {
            regions,
            free,
            held,
            private,
            ..
        } = state;
        let region = regions.iter_mut().find(|region| !region.is_retired)?;
        let warm = (!zeroed || len <= CLEARED)
            .then(|| region.take_free(chunks))
            .flatten();
        let first = match warm {
            Some(first) => {
                *free -= chunks * HUGE;
                first
            }
            None => match region.take(chunks) {
                Some(first) => first,
                None => {
                    region.return_free(free, 0, None);
                    region.take(chunks)?
                }
            },
        };
        let all = bytes(first, chunks);
        let is_own = may_be_own && region.write.set_anonymous(all.clone()).is_ok();
        if is_own {
            *private += 1;
            // Advice.
            let _ = region.write.exclude_from_core_dumps(all);
        }
        let block = Block {
            chunks,
            len,
            is_private: is_own,
            is_own,
            is_owned: true,
            snapshots: 0,
            last: Weak::new(),
            image: if is_own { Image::Zero } else { Image::Own },
            habit: Habit::default(),
            is_busy: false,
        };
        region.blocks.insert(first, block);
        *held += chunks * HUGE;
        Some(NewBlock {
            region: region.number,
            write: Arc::clone(&region.write),
            segment: Arc::clone(&region.segment),
            first,
            chunks,
            is_warm: warm.is_some(),
            goes_ahead,
        })
    }

    /// Asks Linux for huge pages, unless the block has its memory already.
    fn prepare(&self, new: &NewBlock, len: usize) {
        if !new.is_warm {
            let all = bytes(new.first, new.chunks);
            let huge = all.start..all.start + huge_part(len);
            // Advice: either may fail.
            let _ = new.write.advise_huge(huge.clone(), true);
            let _ = new.write.advise_huge(huge.end..all.end, false);
            if new.goes_ahead {
                self.populate(&new.write, &new.segment, huge);
            }
        }
    }

    /// Whether to allocate huge pages for a new block of `len` bytes before the first access. False if Linux makes huge
    /// pages at the first access, or if pages that are never used could take too much of the memory.
    fn goes_ahead(&self, state: &State, len: usize) -> bool {
        !faults_are_huge()
            && len <= self.most_free
            && state.held + len <= self.memory / 4
            && state.pause.is_none_or(|(until, _)| until <= Instant::now())
    }

    /// Whether a new block of `len` bytes of zeros may be memory of this process alone. Only then Linux makes huge
    /// pages when they are first used, unless it does so for shared memory, too. The first snapshot copies the block.
    fn may_be_own(&self, state: &State, len: usize) -> bool {
        let with_image = 2 * len.next_multiple_of(HUGE);
        CLEARED < len
            && len <= self.most_free
            && state.held + with_image <= self.memory / OWN_HELD
            && state.private < MAX_PRIVATE
            && !faults_are_huge()
            && Written::of_this_process().is_ok_and(|pages| pages.can_track())
    }

    /// Allocates huge pages for `range`. If Linux has none, or the calls take too long, stops and starts a pause.
    /// During the pause, pages are allocated at their first access: those left of this block, and those of new blocks.
    fn populate(&self, write: &Pages, segment: &Segment, range: Range<usize>) {
        /// A collapse may fail because Linux is using a page of the chunk for a moment.
        const TRIES: usize = 4;
        /// The time that a huge page may cost, which is about the time that it saves.
        const FAIR: Duration = Duration::from_micros(300);
        /// The value is large because the first use of memory in a virtual machine takes long with small pages, too.
        const MAX_DEBT: Duration = Duration::from_secs(2);
        const PAUSES: Range<Duration> = Duration::from_millis(100)..Duration::from_secs(5);
        /// The number of bytes that one call collapses. Each call waits for all cores once.
        const AT_ONCE: usize = 32 * HUGE;
        let mut last = Instant::now();
        let mut debt = lock(&self.state).debt;
        for start in range.clone().step_by(AT_ONCE) {
            let part = start..range.end.min(start + AT_ONCE);
            let chunks = part.clone().step_by(HUGE);
            // Allocate one page of each chunk, from which Linux makes a huge page.
            let is_made = chunks
                .clone()
                .all(|chunk| segment.allocate(chunk as u64..chunk as u64 + 1).is_ok())
                && (0..TRIES).any(|_| write.collapse(part.clone()).is_ok());
            let now = Instant::now();
            debt = (debt + (now - last)).saturating_sub(FAIR * (2 + chunks.len() as u32));
            last = now;
            if !is_made || debt > MAX_DEBT {
                let mut state = lock(&self.state);
                let pause = state.pause.map_or(PAUSES.start, |(_, pause)| pause);
                state.pause = Some((now + pause, (2 * pause).min(PAUSES.end)));
                state.debt = MAX_DEBT - MAX_DEBT / 4;
                return;
            }
        }
        lock(&self.state).debt = debt;
    }

    /// Changes the length of a block in bytes without moving it. Returns false if that is not possible.
    ///
    /// # Safety
    ///
    /// `block` is what [`alloc`](Self::alloc) returned, and bytes beyond `len` are not used afterwards.
    pub unsafe fn resize(&self, block: NonNull<u8>, len: usize) -> bool {
        let mut state = lock(&self.state);
        let Some((index, first)) = state.find(block.addr().get()) else {
            return false;
        };
        let region = &mut state.regions[index];
        let Some(block) = region.blocks.get(&first) else {
            return false;
        };
        let (chunks, is_private, is_own) = (block.chunks, block.is_private, block.is_own);
        let needed = len.max(1).div_ceil(HUGE);
        let more = needed.saturating_sub(chunks);
        let was_free = match more {
            0 => (needed > chunks / 2 || chunks == 1).then_some(0),
            // The chunks of a block are all of one kind.
            _ if is_own => None,
            _ => region.extend(first + chunks, more, is_private),
        };
        if let Some(block) = region.blocks.get_mut(&first)
            && let Some(was_free) = was_free
        {
            block.len = len;
            block.chunks += more;
            state.free -= was_free * HUGE;
            state.held += more * HUGE;
            let region = &state.regions[index];
            if more > 0 && was_free == 0 && !is_private && self.goes_ahead(&state, len) {
                let (write, segment) = (Arc::clone(&region.write), Arc::clone(&region.segment));
                drop(state);
                self.populate(&write, &segment, bytes(first + chunks, more));
            }
        }
        was_free.is_some()
    }

    /// Frees a block. Its memory is reused once no snapshot of it is left. Returns false if no block begins at `block`.
    ///
    /// # Safety
    ///
    /// If `block` is what [`alloc`](Self::alloc) returned, no pointer to the block is used afterwards.
    pub unsafe fn free(&self, block: NonNull<u8>) -> bool {
        let address = block.addr().get();
        if !self.may_contain(address) {
            return false;
        }
        let mut state = lock(&self.state);
        self.tidy(&mut state);
        let Some((region, first)) = state.find(address) else {
            return false;
        };
        let blocks = &mut state.regions[region].blocks;
        let Some(block) = blocks.get_mut(&first).filter(|block| block.is_owned) else {
            return false;
        };
        block.is_owned = false;
        let image = std::mem::take(&mut block.image);
        point!("heap.freed");
        self.recycle(&mut state, region, first);
        self.release(&mut state, image);
        true
    }

    /// Returns false if `address` is certainly not in a block of this heap.
    #[inline]
    pub fn may_contain(&self, address: usize) -> bool {
        // Relaxed: a thread gets the address of a block from the thread that allocated it, in a way that also orders
        // these stores.
        address >= self.lowest.load(Ordering::Relaxed)
            && address < self.highest.load(Ordering::Relaxed)
    }

    /// The length in bytes of the block that begins at `address`, if there is such a block.
    pub fn len_of(&self, address: usize) -> Option<usize> {
        if !self.may_contain(address) {
            return None;
        }
        let state = lock(&self.state);
        let (region, first) = state.find(address)?;
        let region = &state.regions[region];
        let begin = region.write.base().addr().get() + first * HUGE;
        let block = region.blocks.get(&first).filter(|block| block.is_owned)?;
        (begin == address).then_some(block.len)
    }

    /// Returns the `len` bytes at this address as they are now: later writes to the block change copies of the pages.
    /// `None` if the bytes are not in a block, or if a copy by the caller costs less, because this call would have to
    /// copy many other bytes, too, or because the bytes are written again before each snapshot.
    ///
    /// Also returns the number of bytes that were copied. If another thread writes meanwhile, each byte of the snapshot
    /// is the old or the new one.
    pub fn snapshot(&'static self, address: usize, len: usize) -> Option<(Array<u8>, usize)> {
        if !self.may_contain(address) {
            return None;
        }
        let mut state = lock(&self.state);
        self.tidy(&mut state);
        let (index, first) = state.find(address)?;
        let State {
            regions, private, ..
        } = &mut *state;
        let region = &mut regions[index];
        let begin = region.write.base().addr().get() + first * HUGE;
        let block = region.blocks.get_mut(&first)?;
        let skip = address - begin;
        if !block.is_owned || len > block.len.checked_sub(skip)? {
            return None;
        }
        region.segment.check().ok()?;
        let place = (region.number, first);
        let mut copied = 0;
        if !block.is_private {
            if *private == MAX_PRIVATE {
                return None;
            }
            let all = bytes(first, block.chunks);
            region.write.set_shared(all, &region.segment, false).ok()?;
            point!("heap.private");
            block.is_private = true;
            *private += 1;
        } else if !state.is_current(place, skip..skip + len)? {
            (state, copied) = self.renew(state, place, skip..skip + len)?;
            // Another thread may have freed the block meanwhile.
            state.block(place).filter(|block| block.is_owned)?;
        }
        let (number, first) = state.image_of(place)?;
        let region = state.region(number)?;
        region.segment.check().ok()?;
        let (read, segment) = (Arc::clone(&region.read), Arc::clone(&region.segment));
        let image = state.block((number, first))?;
        let file = match image.last.upgrade() {
            Some(file) => file,
            None => {
                let keep = Snapshot {
                    heap: self,
                    region: number,
                    block: first,
                };
                // SAFETY: `read` maps the segment, which cannot shrink, for reading. The heap writes to the block's
                // part of the file only while `snapshots` is 0: programs write copies of the pages, because the block
                // is private.
                let file = unsafe { SealedFile::lease(read, segment, keep) };
                image.snapshots += 1;
                image.last = Arc::downgrade(&file);
                file
            }
        };
        point!("heap.lent");
        drop(state);
        // SAFETY: the bytes are of the block that was leased: `skip` and `len` are within the block.
        let array = unsafe { file.array((first * HUGE + skip) as u64, len) }?;
        Some((array, copied))
    }

    /// Returns the memory of freed blocks to Linux.
    pub fn trim(&self) {
        let mut state = lock(&self.state);
        self.tidy(&mut state);
        let State { regions, free, .. } = &mut *state;
        for region in regions {
            region.return_free(free, 0, None);
        }
    }

    /// The number of bytes in blocks, and the number of freed bytes that still have memory.
    pub fn in_use(&self) -> (usize, usize) {
        let mut state = lock(&self.state);
        self.tidy(&mut state);
        let blocks = state
            .regions
            .iter()
            .flat_map(|region| region.blocks.values());
        (blocks.map(|block| block.len).sum(), state.free)
    }

    fn add_region(&self, state: &mut State) -> std::io::Result<()> {
        let region = Region::new(state.next, &self.label, self.len)?;
        point!("heap.mapped");
        let begin = region.write.base().addr().get();
        // Relaxed: see `may_contain`.
        self.lowest.fetch_min(begin, Ordering::Relaxed);
        self.highest.fetch_max(begin + self.len, Ordering::Relaxed);
        state.regions.push(region);
        state.next += 1;
        Ok(())
    }

    /// Takes snapshots that have ended off their blocks, and gives memory that was freed more than [`KEEP_FREE`] ago
    /// back to Linux.
    fn tidy(&self, state: &mut State) {
        let ended = std::mem::take(&mut *lock(&self.ended));
        for (number, first) in ended {
            let Some(region) = state.index_of(number) else {
                continue;
            };
            if let Some(block) = state.regions[region].blocks.get_mut(&first) {
                block.snapshots -= 1;
            }
            self.recycle(state, region, first);
        }
        let State {
            regions,
            free,
            next_return,
            ..
        } = state;
        let now = Instant::now();
        if next_return.take_if(|at| *at <= now).is_some() {
            for region in regions.iter_mut() {
                region.return_free(free, self.most_free, now.checked_sub(KEEP_FREE));
            }
            let runs = regions.iter().flat_map(|region| region.free.values());
            *next_return = runs
                .map(|(_, since)| *since)
                .min()
                .map(|since| since + KEEP_FREE);
        }
    }

    /// Makes the chunks of a block free, if the block was freed and no snapshot of it is left. Called after each of
    /// these events.
    fn recycle(&self, state: &mut State, index: usize, first: usize) {
        let region = &mut state.regions[index];
        let Some(block) = region.blocks.get(&first) else {
            return;
        };
        if block.is_owned || block.snapshots > 0 {
            return;
        }
        let (chunks, is_private, is_own) = (block.chunks, block.is_private, block.is_own);
        region.check();
        if region.is_retired {
            // A forked process may read the file, so the chunks are not reused.
            let _ = region.write.release(bytes(first, chunks));
            region.freed_while_retired.push((first, chunks));
        } else if is_private && region.share(bytes(first, chunks)).is_err() {
            // The next call of `tidy` tries again.
            lock(&self.ended).push((region.number, first));
            if let Some(block) = region.blocks.get_mut(&first) {
                block.snapshots += 1;
            }
            return;
        }
        point!("heap.shared");
        region.blocks.remove(&first);
        state.private -= usize::from(is_private);
        state.held -= chunks * HUGE;
        if region.is_retired {
            if region.blocks.is_empty() {
                state.regions.remove(index);
            }
            return;
        }
        if is_own {
            join(&mut region.unused, first, chunks, ());
            return;
        }
        let now = Instant::now();
        join(&mut region.free, first, chunks, now);
        state.next_return.get_or_insert(now + KEEP_FREE);
        state.free += chunks * HUGE;
        if state.free > self.most_free {
            region.return_free(&mut state.free, self.most_free, None);
        }
    }
}

impl State {
    fn index_of(&self, number: u64) -> Option<usize> {
        self.regions
            .iter()
            .position(|region| region.number == number)
    }

    fn region(&mut self, number: u64) -> Option<&mut Region> {
        self.index_of(number).map(|index| &mut self.regions[index])
    }

    fn block(&mut self, (region, first): Place) -> Option<&mut Block> {
        self.region(region)?.blocks.get_mut(&first)
    }

    /// The index of the region that contains `address`, and the first chunk of the block there.
    fn find(&self, address: usize) -> Option<(usize, usize)> {
        self.regions.iter().enumerate().find_map(|(index, region)| {
            let begin = region.write.base().addr().get();
            let at = address
                .checked_sub(begin)
                .filter(|at| *at < region.write.len())?;
            let (&first, block) = region.blocks.range(..=at / HUGE).next_back()?;
            (at < (first + block.chunks) * HUGE).then_some((index, first))
        })
    }
}

/// Whether Linux makes huge pages of shared memory at the first access, where this is advised.
fn faults_are_huge() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
        let setting = setting.unwrap_or_default();
        ["[always]", "[within_size]", "[advise]", "[force]"]
            .iter()
            .any(|one| setting.contains(one))
    })
}

impl fmt::Debug for CowHeap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CowHeap")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
