#![doc = include_str!("README.md")]

mod block;
mod budget;
mod commit;
mod error;
mod free;
mod layout;
mod names;
mod offset;
mod region;
mod spec;
mod stats;
#[cfg(test)]
mod tests;
mod transfer;
mod unused;
mod view;

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

pub use crate::sys::Error as SystemError;
pub use block::Block;
pub use error::{ArenaError, ArenaFull, SystemLimit};
pub use names::{ControlSegment, SegmentName, segments, sweep};
#[cfg(test)]
pub use names::{NamedArena, list};
pub use offset::{BadOffset, Extent, Offset};
pub(crate) use spec::SystemInfo;
pub use spec::{Backing, Spec, default_capacity};
pub use stats::ArenaStats;
pub use view::{AttachSpec, View};

use budget::Budget;
pub(crate) use free::FreeRanges;
use layout::{CHUNK, Layout};
pub(crate) use layout::{HEADER_LEN, LARGE, PAGE, QUANTUM};
use region::{Region, Reserved};
use spec::ResolvedSpec;
use unused::UnusedNote;

use crate::sync::lock;
use crate::sys::limits::{self, Memory};
use crate::sys::pipe::{open_closed_standard, open_null};
use crate::sys::{self, Segment};

/// How a block is aligned and padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlockPlacement {
    /// In units of 64 bytes, next to other blocks. Blocks of at least 64 KiB are placed as by
    /// [`BlockPlacement::Pages`].
    #[default]
    Packed,
    /// In whole pages, which no other block shares. Required for blocks that are lent to workers.
    Pages,
}

impl BlockPlacement {
    /// The alignment and padding of a block of `len` bytes, in bytes. Supervisor and workers use the same rule.
    pub(crate) fn unit(self, len: u64) -> u64 {
        if self == BlockPlacement::Pages || len >= LARGE {
            PAGE
        } else {
            QUANTUM
        }
    }
}

/// How a block is allocated within a region.
#[derive(Clone, Copy)]
struct BlockSpec {
    /// Alignment and padding in bytes.
    unit: u64,
    /// Whether the block's memory may consist of huge pages.
    huge: bool,
    /// Whether the block may be lent to workers.
    lent: bool,
}

impl BlockSpec {
    fn of(placement: BlockPlacement, len: u64) -> Self {
        Self {
            unit: placement.unit(len),
            huge: true,
            lent: placement == BlockPlacement::Pages,
        }
    }

    /// The size of a large block that needs `needed` bytes. Opening part of a huge page to a worker permanently splits
    /// its mapping into small pages. So a block that may be lent includes the rest of its last huge page, unless the
    /// rest is more than an eighth of the block.
    fn len_for(self, needed: u64) -> u64 {
        let whole = needed.next_multiple_of(CHUNK);
        if self.lent && whole - needed <= needed / 8 {
            whole
        } else {
            needed
        }
    }
}

/// Shared memory in regions, one per writing process: the supervisor's handle.
///
/// Each block has a reference to the arena, so memory stays mapped as long as a block exists. [`Arena::retire`] removes
/// the arena's name.
#[derive(Debug)]
pub struct Arena {
    id: u64,
    control: ControlSegment,
    regions: Vec<Region>,
    budget: Budget,
    /// Total memory of machine or container in bytes.
    memory: u64,
    backing: Backing,
    in_use: AtomicU64,
    /// Bytes that workers retain for arrays that outlive their jobs.
    retained: AtomicU64,
    high_water: AtomicU64,
    unused: UnusedNote,
}

/// The name of the control segment in messages.
const CONTROL: &str = "the control segment";

impl Arena {
    /// Creates an arena with `spec.writers + 1` regions. Only the control segment is committed.
    ///
    /// No name remains in `/dev/shm`, unless `spec.name` asks for one. Writes the header; [`Arena::set_ready`] declares
    /// it valid once the links are laid out too.
    ///
    /// # Errors
    ///
    /// [`ArenaError::TooLarge`] if a limit of the system is below the capacity; the error names the limit and the
    /// remedy.
    /// [`ArenaError::NameTaken`] and [`ArenaError::BadName`]; [`ArenaError::System`] if a system call fails.
    #[cfg(any(test, feature = "points"))]
    pub fn create(spec: &Spec) -> Result<Arc<Arena>, ArenaError> {
        Arena::create_in(&SystemInfo::read(&spec.root), spec)
    }

    /// Like [`create`](Arena::create), with limits of the system that the caller has read already.
    pub(crate) fn create_in(system: &SystemInfo, spec: &Spec) -> Result<Arc<Arena>, ArenaError> {
        let resolved = spec.resolve(system)?;
        open_null()
            .and_then(|null| open_closed_standard(&null))
            .map_err(ArenaError::System)?;
        // Killed programs leave names: those that were kept, and those of segments that were not unlinked yet.
        if spec.sweep {
            sweep();
        }
        match Arena::build(spec, &resolved, &system.memory) {
            // Memory files are forbidden, by vm.memfd_noexec or a system call filter.
            Err(ArenaError::System(error))
                if spec.backing == Backing::Auto
                    && matches!(error.errno(), Errno::EACCES | Errno::EPERM | Errno::ENOSYS) =>
            {
                let mut named = spec.clone();
                named.backing = Backing::Named;
                Arena::create_in(system, &named)
            }
            other => other,
        }
    }

    /// Describes memory that another process has removed from a segment, if any is missing.
    pub(crate) fn damage(&self) -> Option<String> {
        let control = self.control.missing();
        let regions = self.regions.iter().zip(0..);
        let region = || {
            regions
                .map(|(region, index)| (format!("region {index}"), region.missing()))
                .find_map(|(what, missing)| Some((what, missing?)))
        };
        let (what, missing) = match control {
            Some(missing) => (CONTROL.into(), missing),
            None => region()?,
        };
        Some(missing.describe(&what))
    }

    /// Like [`damage`](Arena::damage) for the control segment alone, with a single system call.
    pub(crate) fn control_damage(&self) -> Option<String> {
        Some(self.control.missing()?.describe(CONTROL))
    }

    fn build(
        spec: &Spec,
        resolved: &ResolvedSpec,
        memory: &Memory,
    ) -> Result<Arc<Arena>, ArenaError> {
        let name = spec.name.as_deref();
        let named = resolved.backing == Backing::Named;
        let sealed = resolved.backing == Backing::Sealed;
        let control = if named || name.is_some() {
            ControlSegment::named(name, resolved.control_len)?
        } else if spec.backing == Backing::Auto
            // The few pages of the control segment are committed now or not at all, so it does not matter whether
            // /dev/shm fills up later.
            && let Ok(control) = ControlSegment::named(None, resolved.control_len)
        {
            control
        } else {
            ControlSegment::anonymous(resolved.control_len, sealed)?
        };
        let id = sys::random();
        let layout = Layout {
            id,
            control_len: resolved.control_len,
            reservation: resolved.reservation,
            capacity: resolved.capacity,
            regions: resolved.regions.into(),
            pid: std::process::id(),
        };
        // SAFETY: the control segment is mapped writable and wholly committed. No other process has its descriptor yet;
        // a process that opens a kept name only reads, and only after the ready word is stored.
        unsafe { layout::write(control.base(), &layout) };
        crate::sync::point!("create.header");

        let mut regions = Vec::with_capacity(resolved.regions.into());
        for index in 0..resolved.regions {
            let segment = if named {
                names::region_segment(id, index)?
            } else {
                Segment::create_memfd(&format!("arenite-region-{index}"), sealed)?
            };
            let region = Region::new(segment, resolved.reservation, index)?;
            if !spec.in_core_dumps {
                region.map.exclude_from_core_dumps(0..region.map.len())?;
            }
            regions.push(region);
            crate::sync::point!("create.region_mapped");
        }
        Ok(Arc::new(Arena {
            id,
            control,
            regions,
            budget: Budget::new(resolved.capacity, memory, &spec.root),
            memory: memory.limit,
            backing: resolved.backing,
            in_use: AtomicU64::new(0),
            retained: AtomicU64::new(0),
            high_water: AtomicU64::new(0),
            unused: UnusedNote::default(),
        }))
    }

    /// The arena's random number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The kind of segment that the arena uses; never [`Backing::Auto`].
    #[cfg(test)]
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// Total memory of the machine or its container in bytes, as read when the arena was created.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// Maximum number of committed bytes.
    pub fn capacity(&self) -> u64 {
        self.budget.capacity()
    }

    /// Bytes of address space that each region reserves: the maximum size of a block.
    pub fn reservation(&self) -> u64 {
        self.regions
            .first()
            .map_or(0, |region| region.map.len() as u64)
    }

    /// The control segment.
    pub fn control(&self) -> &ControlSegment {
        &self.control
    }

    /// The descriptors that workers inherit: the control segment, then region 0, 1, …
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.control.as_fd())
            .chain(self.regions.iter().map(|region| region.segment.as_fd()))
            .collect()
    }

    /// Declares the control segment complete: workers can attach from now on.
    pub fn set_ready(&self) {
        // SAFETY: the control segment is mapped writable and committed as long as `self` lives.
        unsafe { layout::set_ready(self.control.base()) };
        crate::sync::point!("create.ready");
    }

    /// Removes the name from `/dev/shm`, if one was kept. Blocks stay valid.
    pub fn retire(&self) {
        self.control.remove_name();
    }

    /// Allocates `len` committed bytes of `region`, with unspecified content. If `len` is 0, the block is empty.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`], with all numbers, if the arena has no room or the system has no memory left.
    ///
    /// # Panics
    ///
    /// If the region does not exist.
    pub fn alloc(
        self: &Arc<Self>,
        region: u16,
        len: u64,
        placement: BlockPlacement,
    ) -> Result<Block, ArenaFull> {
        self.place(region, len, BlockSpec::of(placement, len), None)
    }

    /// Like [`Arena::alloc`], but filled with zeros. Memory that was just committed is zero already and is not written.
    ///
    /// # Errors
    ///
    /// As [`Arena::alloc`].
    ///
    /// # Panics
    ///
    /// As [`Arena::alloc`].
    pub fn alloc_zeroed(
        self: &Arc<Self>,
        region: u16,
        len: u64,
        placement: BlockPlacement,
    ) -> Result<Block, ArenaFull> {
        let mut stale = Vec::new();
        let block = self.place(region, len, BlockSpec::of(placement, len), Some(&mut stale))?;
        for range in stale {
            let at = self.address(Offset::new(region, range.start));
            // SAFETY: the range is inside the block just allocated, which is committed and known to no other code or
            // process.
            unsafe { at.write_bytes(0, (range.end - range.start) as usize) };
        }
        Ok(block)
    }

    /// Allocates whole pages of `region`, in which a worker then allocates its results. Without `huge`, commits only
    /// small pages, in the 64 KiB granules that these pages touch.
    ///
    /// # Errors
    ///
    /// As [`Arena::alloc`].
    ///
    /// # Panics
    ///
    /// As [`Arena::alloc`].
    pub fn grant(self: &Arc<Self>, region: u16, len: u64, huge: bool) -> Result<Block, ArenaFull> {
        let padded = len.checked_next_multiple_of(PAGE);
        let padded = padded.ok_or_else(|| self.full(region, len))?;
        let spec = BlockSpec {
            unit: PAGE,
            huge,
            lent: false,
        };
        self.place(region, padded, spec, None)
    }

    /// Like [`Arena::grant`], but only from memory that is already committed, which needs no system call. Returns
    /// `None` if no such memory is free.
    pub(crate) fn grant_committed(self: &Arc<Self>, region: u16, len: u64) -> Option<Block> {
        let held = len.checked_next_multiple_of(PAGE)?;
        let in_use = self.in_use.load(Ordering::Relaxed);
        if held == 0 || in_use.checked_add(held)? > self.capacity() {
            return None;
        }
        let reserved = lock(&self.region(region).accounting).reserve_committed(held, PAGE)?;
        // Relaxed: counts that guard no other memory.
        let in_use = self.in_use.fetch_add(held, Ordering::Relaxed) + held;
        self.high_water.fetch_max(in_use, Ordering::Relaxed);
        let at = Offset::new(region, reserved.start);
        Some(Block::new(Arc::clone(self), at, held, held, reserved.fresh))
    }

    /// Marks every byte of a region as possibly nonzero. Called when the process that wrote the region is gone and
    /// before the next process gets a grant: a hostile process can open its whole region and write anywhere, even where
    /// nothing was granted.
    pub(crate) fn forget_zeros(&self, region: u16) {
        lock(&self.region(region).accounting).forget_zeros();
    }

    /// Whether the byte at `at` of a region belongs to no block.
    pub(crate) fn is_free(&self, region: u16, at: u64) -> bool {
        let Some(region) = self.regions.get(usize::from(region)) else {
            return true;
        };
        let accounting = lock(&region.accounting);
        let has = |(start, len): (u64, u64)| at >= start && at - start < len;
        accounting.free.is_beyond(at) || accounting.free.ranges().into_iter().any(has)
    }

    /// The number of bytes that blocks occupy.
    pub(crate) fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Relaxed)
    }

    fn place(
        self: &Arc<Self>,
        region: u16,
        len: u64,
        spec: BlockSpec,
        mut stale: Option<&mut Vec<std::ops::Range<u64>>>,
    ) -> Result<Block, ArenaFull> {
        // A forked process would allocate the same memory as the original process.
        self.control.process.assert_current();
        let target = self.region(region);
        if len == 0 {
            let at = Offset::new(region, 0);
            return Ok(Block::new(Arc::clone(self), at, 0, 0, true));
        }
        let needed = len
            .checked_next_multiple_of(spec.unit)
            .filter(|&needed| needed <= self.capacity())
            .ok_or_else(|| self.full(region, len))?;
        let mut is_capacity_bound = false;
        // On failure, reclaim free memory and try again: first whole chunks, then parts of huge pages too.
        for attempt in 0..3 {
            // Large blocks start at a huge page if possible: every process then maps them with huge pages, and opening
            // part of a block to a worker need not split any.
            let (align, mut held) = match attempt == 0 && needed >= 2 * CHUNK {
                true => (CHUNK, spec.len_for(needed)),
                false => (spec.unit, needed),
            };
            let room = self.capacity();
            let in_use = self.in_use.load(Ordering::Relaxed);
            if in_use.saturating_add(held) > room {
                held = needed;
            }
            if in_use.saturating_add(held) > room {
                break;
            }
            if let Some(stale) = &mut stale {
                stale.clear();
            }
            let reserved = lock(&target.accounting).reserve(held, align, stale.as_deref_mut());
            let Some(Reserved {
                start,
                fresh,
                committed,
            }) = reserved
            else {
                // A trim in progress has taken free ranges out: wait until it ends, then try again.
                drop(lock(&target.commit_lock));
                continue;
            };
            if committed
                || target
                    .commit(&(start..start + held), spec.huge, &self.budget)
                    .is_ok()
            {
                // Relaxed: counts that guard no other memory.
                let in_use = self.in_use.fetch_add(held, Ordering::Relaxed) + held;
                self.high_water.fetch_max(in_use, Ordering::Relaxed);
                let at = Offset::new(region, start);
                return Ok(Block::new(Arc::clone(self), at, len, held, fresh));
            }
            let mut own = lock(&target.accounting);
            is_capacity_bound = self
                .budget
                .is_too_small_for(own.uncommitted(&(start..start + held)));
            own.release(start, held);
            drop(own);
            let want = held.saturating_add(2 * CHUNK);
            if attempt == 2 || self.reclaim(attempt == 1, want) == 0 && attempt == 1 {
                break;
            }
        }
        let mut full = self.full(region, len);
        if is_capacity_bound {
            full.source = ArenaFull::ARENA;
        }
        Err(full)
    }

    /// Locks `commit_lock` of a region: until the guard is dropped, other threads that need to commit memory there
    /// wait.
    #[cfg(test)]
    pub(crate) fn hold_commit_lock(&self, region: u16) -> std::sync::MutexGuard<'_, ()> {
        lock(&self.region(region).commit_lock)
    }

    fn region(&self, region: u16) -> &Region {
        let regions = self.regions.len();
        match self.regions.get(usize::from(region)) {
            Some(region) => region,
            None => panic!("there is no region {region} in an arena of {regions}"),
        }
    }

    /// Records that a lane retains `now` bytes, instead of `before` bytes, for arrays that outlive their jobs.
    pub(crate) fn note_retained(&self, before: u64, now: u64) {
        // Relaxed: a number for messages. The difference wraps if `now` is less than `before`.
        self.retained
            .fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// The error for an allocation of `requested` bytes by a worker that holds `held` bytes and may hold `limit`.
    pub(crate) fn over_share(
        &self,
        region: u16,
        requested: u64,
        limit: u64,
        held: u64,
    ) -> ArenaFull {
        let mut full = self.full(region, requested);
        full.largest_free = full.largest_free.min(limit.saturating_sub(held));
        full.source = ArenaFull::share(limit);
        full
    }

    /// The error for an allocation of `requested` bytes in region 0.
    pub(crate) fn full_in_region_0(&self, requested: u64) -> ArenaFull {
        self.full(0, requested)
    }

    #[cold]
    fn full(&self, region: u16, requested: u64) -> ArenaFull {
        let memory = limits::memory_available(self.budget.root());
        let mut system_free = memory.available;
        let mut source = match memory.available_contained {
            true => ArenaFull::CONTAINER,
            false => ArenaFull::MACHINE,
        };
        if self.backing == Backing::Named
            && let Ok(shm) = limits::shm_space(std::path::Path::new("/dev/shm"))
            && shm.free < system_free
        {
            system_free = shm.free;
            source = ArenaFull::FILE_SYSTEM;
        }
        let capacity = self.capacity();
        let free = capacity.saturating_sub(self.in_use.load(Ordering::Relaxed));
        let largest = lock(&self.region(region).accounting).free.largest();
        let largest_free = largest.min(free);
        let lowered = limits::file_size_limit().is_some_and(|limit| limit < capacity);
        if lowered && requested <= largest_free {
            source = ArenaFull::FILE_SIZE;
        }
        ArenaFull {
            requested,
            free,
            capacity,
            largest_free,
            shm_free: system_free,
            retained: self.retained.load(Ordering::Relaxed),
            source,
        }
    }

    fn release(&self, at: Offset, held: u64) {
        // In a forked process, a lock may be held by a thread that does not exist there.
        if !self.control.process.is_current() {
            return;
        }
        let before = self.in_use.fetch_sub(held, Ordering::Relaxed);
        lock(&self.region(at.region()).accounting).release(at.offset(), held);
        self.note_unused(before.saturating_sub(held));
        crate::sync::point!("reclaim.freed");
    }

    fn note_split(&self, region: u16, kept: u64, rest: u64) {
        if kept > 0 && rest > 0 {
            lock(&self.region(region).accounting).blocks += 1;
        }
    }

    /// The address of an offset of a block. The offset is known to be within its region.
    fn address(&self, at: Offset) -> NonNull<u8> {
        let region = self.region(at.region());
        region
            .map
            .at(at.offset() as usize, 0)
            .expect("a block is inside its region")
    }

    /// Calls `map` with the segment of an extent and the position of the extent's first byte in it.
    pub(crate) fn with_segment<T>(
        &self,
        extent: Extent,
        map: impl FnOnce(&Segment, u64) -> T,
    ) -> T {
        map(&self.region(extent.at.region()).segment, extent.at.offset())
    }

    /// The address of `extent` in this process, if the whole extent was committed at some time.
    ///
    /// The caller must not read through it while another process may write there.
    ///
    /// # Errors
    ///
    /// [`BadOffset`] if it extends beyond the committed part, or the region does not exist.
    pub fn pointer(&self, extent: Extent) -> Result<NonNull<u8>, BadOffset> {
        let region = self.regions.get(usize::from(extent.at.region()));
        let committed = region.map_or(0, Region::len);
        let bad = BadOffset { extent, committed };
        let region = region.ok_or(bad)?;
        let end = extent.end().filter(|&end| end <= committed).ok_or(bad)?;
        region
            .map
            .at(
                extent.at.offset() as usize,
                (end - extent.at.offset()) as usize,
            )
            .ok_or(bad)
    }

    /// Statistics at this moment.
    pub fn stats(&self) -> ArenaStats {
        let collapse = &self.budget.collapse;
        let mut stats = ArenaStats {
            capacity: self.capacity(),
            committed: self.budget.committed(),
            high_water: self.high_water.load(Ordering::Relaxed),
            collapses: collapse.done.load(Ordering::Relaxed),
            slow_collapses: collapse.slow.load(Ordering::Relaxed),
            failed_collapses: collapse.failed.load(Ordering::Relaxed),
            collapse_nanos: collapse.nanos.load(Ordering::Relaxed),
            ..ArenaStats::default()
        };
        let (mut holes, mut largest_hole) = (0_u64, 0_u64);
        for region in &self.regions {
            let accounting = lock(&region.accounting);
            stats.in_use += accounting.in_use;
            stats.blocks += accounting.blocks;
            stats.largest_free = stats.largest_free.max(accounting.free.largest());
            holes += accounting.free.holes();
            largest_hole = largest_hole.max(accounting.free.largest_hole());
            for chunk in &accounting.chunks {
                stats.collapsed_chunks += u64::from(chunk.huge);
                stats.small_chunks += u64::from(!chunk.huge && chunk.committed != 0);
            }
        }
        stats.largest_free = stats
            .largest_free
            .min(stats.capacity.saturating_sub(stats.in_use));
        if holes > 0 {
            stats.fragmentation = 1.0 - largest_hole as f64 / holes as f64;
        }
        stats
    }

    /// Gives back to the system the memory that no block occupies, and returns the number of bytes. The content of
    /// blocks does not change.
    pub fn trim(&self) -> u64 {
        self.reclaim(false, u64::MAX)
    }

    fn reclaim(&self, split_huge: bool, want: u64) -> u64 {
        self.control.process.assert_current();
        let mut gained = 0_u64;
        for region in &self.regions {
            if gained >= want {
                break;
            }
            gained += region.trim(split_huge, want - gained, &self.budget);
        }
        gained
    }
}
