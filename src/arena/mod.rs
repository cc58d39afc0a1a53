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
mod view;

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

pub use crate::sys::Error as SystemError;
pub use block::Block;
pub use error::{ArenaError, ArenaFull, Limit};
pub use names::{Control, NamedArena, SegmentName, list, segments, sweep};
pub use offset::{BadOffset, Extent, Offset};
pub(crate) use spec::Surroundings;
pub use spec::{Backing, Spec, default_capacity};
pub use stats::ArenaStats;
pub use view::{AttachSpec, View};

use budget::{Budget, lock};
pub(crate) use free::FreeRanges;
use layout::{CHUNK, Layout};
pub(crate) use layout::{HEADER_LEN, LARGE, PAGE, QUANTUM};
use region::{Region, Reserved};
use spec::Plan;

use crate::sys::limits::{self, Memory};
use crate::sys::pipe::hold_standard;
use crate::sys::{self, Segment};

/// How a block is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// Aligned to 64 bytes beside others; from 64 KiB up as [`Placement::Pages`].
    #[default]
    Packed,
    /// Aligned to a page, and nothing else in its pages: for what is lent to a worker.
    Pages,
}

impl Placement {
    /// What a block of `len` bytes is aligned to and padded with. The supervisor and the workers cut by the same rule.
    pub(crate) fn unit(self, len: u64) -> u64 {
        if self == Placement::Pages || len >= LARGE {
            PAGE
        } else {
            QUANTUM
        }
    }
}

/// How a block is cut out of a region.
#[derive(Clone, Copy)]
struct Cut {
    /// What it is aligned to and padded with.
    unit: u64,
    /// Its memory may be huge pages.
    huge: bool,
    /// It may be lent to workers.
    lent: bool,
}

impl Cut {
    fn of(placement: Placement, len: u64) -> Self {
        Self {
            unit: placement.unit(len),
            huge: true,
            lent: placement == Placement::Pages,
        }
    }

    /// What a large block that needs this much holds. To open a part of a huge page to a worker, the map has to be split
    /// into small ones, for good; so what is lent gets the rest of its last huge page, unless that is more than an
    /// eighth of all.
    fn held(self, needed: u64) -> u64 {
        let whole = needed.next_multiple_of(CHUNK);
        if self.lent && whole - needed <= needed / 8 {
            whole
        } else {
            needed
        }
    }
}

/// Shared memory in regions, one per writing process, as the supervisor holds it.
///
/// Blocks hold the arena, so memory stays as long as anybody uses it; the name does not, see [`Arena::retire`].
#[derive(Debug)]
pub struct Arena {
    id: u64,
    control: Control,
    regions: Vec<Region>,
    budget: Budget,
    /// What machine or container have, in bytes.
    memory: u64,
    backing: Backing,
    in_use: AtomicU64,
    high_water: AtomicU64,
}

/// What a person calls the segment with the header and the links.
const CONTROL: &str = "the control segment";

impl Arena {
    /// Makes an arena with `spec.writers + 1` regions; nothing but the control segment is committed.
    ///
    /// No name is left when this returns, unless `spec.name` asks for one. The header is written;
    /// [`Arena::set_ready`] declares it valid when the links are laid out too.
    ///
    /// # Errors
    ///
    /// [`ArenaError::TooLarge`] when a limit of the system is below the capacity, and says which and what to do;
    /// [`ArenaError::NameTaken`], [`ArenaError::BadName`]; [`ArenaError::System`] when the system refuses.
    ///
    /// # Examples
    ///
    /// ```
    /// use arenite::arena::{Arena, Placement, Spec};
    ///
    /// let arena = Arena::create(&Spec { capacity: 64 << 20, ..Spec::default() })?;
    /// let block = arena.alloc_zeroed(0, 10 << 20, Placement::Packed)?;
    /// assert_eq!(arena.stats().in_use, 10 << 20);
    /// drop(block);
    /// assert_eq!(arena.stats().in_use, 0);
    /// # Ok::<(), arenite::arena::ArenaError>(())
    /// ```
    pub fn create(spec: &Spec) -> Result<Arc<Arena>, ArenaError> {
        Arena::create_in(&Surroundings::read(&spec.root), spec)
    }

    /// The same for who has looked around already.
    pub(crate) fn create_in(around: &Surroundings, spec: &Spec) -> Result<Arc<Arena>, ArenaError> {
        let plan = spec.plan(around)?;
        hold_standard().map_err(ArenaError::System)?;
        // What programs left that were killed between making a name and unlinking it, and kept names of dead ones.
        if spec.sweep {
            sweep();
        }
        match Arena::build(spec, &plan, &around.memory) {
            // No memory files: by vm.memfd_noexec, or a filter of system calls.
            Err(ArenaError::System(error))
                if spec.backing == Backing::Auto
                    && matches!(error.errno(), Errno::EACCES | Errno::EPERM | Errno::ENOSYS) =>
            {
                let mut named = spec.clone();
                named.backing = Backing::Named;
                Arena::create_in(around, &named)
            }
            other => other,
        }
    }

    /// Whether somebody else has taken memory away from a segment, and what a person has to know about it.
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
        Some(missing.told(&what))
    }

    /// The same for the segment with the links alone, at the price of one system call.
    pub(crate) fn damage_of_links(&self) -> Option<String> {
        Some(self.control.missing()?.told(CONTROL))
    }

    fn build(spec: &Spec, plan: &Plan, memory: &Memory) -> Result<Arc<Arena>, ArenaError> {
        let name = spec.name.as_deref();
        let named = plan.backing == Backing::Named;
        let sealed = plan.backing == Backing::Sealed;
        let control = if named || name.is_some() {
            Control::named(name, plan.control_len)?
        } else if spec.backing == Backing::Auto
            // It takes its few pages now or not at all, so it does not matter who fills /dev/shm later.
            && let Ok(control) = Control::named(None, plan.control_len)
        {
            control
        } else {
            Control::anonymous(plan.control_len, sealed)?
        };
        let id = sys::random();
        let layout = Layout {
            id,
            control_len: plan.control_len,
            reservation: plan.reservation,
            capacity: plan.capacity,
            regions: plan.regions.into(),
            pid: std::process::id(),
        };
        // SAFETY: the control segment is mapped writable and committed whole; no descriptor of it has left this
        // function, and readers of a kept name wait for the ready word.
        unsafe { layout::write(control.base(), &layout) };
        crate::sync::point!("create.header");

        let mut regions = Vec::with_capacity(plan.regions.into());
        for index in 0..plan.regions {
            let segment = if named {
                names::region_segment(id, index)?
            } else {
                Segment::create_memfd(&format!("arenite-region-{index}"), sealed)?
            };
            regions.push(Region::new(segment, plan.reservation, index)?);
            crate::sync::point!("create.region_mapped");
        }
        Ok(Arc::new(Arena {
            id,
            control,
            regions,
            budget: Budget::new(plan.capacity, memory, &spec.root),
            memory: memory.limit,
            backing: plan.backing,
            in_use: AtomicU64::new(0),
            high_water: AtomicU64::new(0),
        }))
    }

    /// A random number that tells this arena from others.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What its segments are made of: never [`Backing::Auto`].
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// The most memory, in bytes, that this machine or its container ever has, by what it said when the arena was made.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// The most that may be committed, in bytes.
    pub fn capacity(&self) -> u64 {
        self.budget.capacity()
    }

    /// Bytes of addresses that each region reserves: the largest block there can ever be.
    pub fn reservation(&self) -> u64 {
        self.regions
            .first()
            .map_or(0, |region| region.map.len() as u64)
    }

    /// How many regions there are: one more than workers.
    pub fn regions(&self) -> u16 {
        self.regions.len() as u16
    }

    /// The control segment.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// What workers inherit: the control segment, then region 0, 1, …
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.control.as_fd())
            .chain(self.regions.iter().map(|region| region.segment.as_fd()))
            .collect()
    }

    /// Declares the control segment complete: from now on workers can attach.
    pub fn set_ready(&self) {
        // SAFETY: the control segment is mapped writable and committed as long as `self` lives.
        unsafe { layout::set_ready(self.control.base()) };
        crate::sync::point!("create.ready");
    }

    /// Takes the name away, if one was kept. Blocks may live on.
    pub fn retire(&self) {
        self.control.remove_name();
    }

    /// Allocates `len` bytes of `region`, committed, with unspecified content. No bytes are an empty block.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] with all numbers, also when the system has no memory left.
    ///
    /// # Panics
    ///
    /// If there is no such region.
    pub fn alloc(
        self: &Arc<Self>,
        region: u16,
        len: u64,
        placement: Placement,
    ) -> Result<Block, ArenaFull> {
        self.place(region, len, Cut::of(placement, len), None)
    }

    /// As [`Arena::alloc`], with zeros in it; memory that was committed just now needs no writing.
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
        placement: Placement,
    ) -> Result<Block, ArenaFull> {
        let mut stale = Vec::new();
        let block = self.place(region, len, Cut::of(placement, len), Some(&mut stale))?;
        for range in stale {
            let at = self.address(Offset::new(region, range.start));
            // SAFETY: the range lies inside the block just allocated, which is committed, and which nobody else has
            // been told of.
            unsafe { at.write_bytes(0, (range.end - range.start) as usize) };
        }
        Ok(block)
    }

    /// Allocates whole pages of `region` for a worker to allocate in. Without `huge` exactly these, as small pages.
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
        let cut = Cut {
            unit: PAGE,
            huge,
            lent: false,
        };
        self.place(region, padded, cut, None)
    }

    /// As [`Arena::grant`], but only of memory that is committed already: this takes no time. `None` where that is not to
    /// be had.
    pub(crate) fn grant_committed(self: &Arc<Self>, region: u16, len: u64) -> Option<Block> {
        let held = len.checked_next_multiple_of(PAGE)?;
        let in_use = self.in_use.load(Ordering::Relaxed);
        if held == 0 || in_use.checked_add(held)? > self.capacity() {
            return None;
        }
        let reserved = lock(&self.region(region).books).reserve_committed(held, PAGE)?;
        // Relaxed: counts that guard no other memory.
        let in_use = self.in_use.fetch_add(held, Ordering::Relaxed) + held;
        self.high_water.fetch_max(in_use, Ordering::Relaxed);
        let at = Offset::new(region, reserved.start);
        Some(Block::new(Arc::clone(self), at, held, held, reserved.fresh))
    }

    /// The process that wrote this region is gone, and nobody knows where it wrote: a hostile one can open its whole region. So
    /// what it could reach is not known to be zero, also where nothing was ever granted. Before the next one is granted any.
    pub(crate) fn forget_zeros(&self, region: u16) {
        lock(&self.region(region).books).forget_zeros();
    }

    /// Bytes that somebody holds.
    pub(crate) fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Relaxed)
    }

    fn place(
        self: &Arc<Self>,
        region: u16,
        len: u64,
        cut: Cut,
        mut stale: Option<&mut Vec<std::ops::Range<u64>>>,
    ) -> Result<Block, ArenaFull> {
        // The books of a copy would give the same memory to others.
        self.control.original.assert_here();
        let books = self.region(region);
        if len == 0 {
            let at = Offset::new(region, 0);
            return Ok(Block::new(Arc::clone(self), at, 0, 0, true));
        }
        let needed = len
            .checked_next_multiple_of(cut.unit)
            .filter(|&needed| needed <= self.capacity())
            .ok_or_else(|| self.full(region, len))?;
        let mut full_of_itself = false;
        // A failure is answered by taking free memory back, first where that costs nothing, then everywhere.
        for attempt in 0..3 {
            // Large blocks begin where a huge page does, if there is room for that: then every process maps them with
            // huge pages, and opening a part of them to a worker need not split any.
            let (align, mut held) = match attempt == 0 && needed >= 2 * CHUNK {
                true => (CHUNK, cut.held(needed)),
                false => (cut.unit, needed),
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
            let reserved = lock(&books.books).reserve(held, align, stale.as_deref_mut());
            let Some(Reserved {
                start,
                fresh,
                committed,
            }) = reserved
            else {
                // A trim that is under way holds free ranges back: wait for it, then look again.
                drop(lock(&books.turn));
                continue;
            };
            if committed
                || books
                    .commit(&(start..start + held), cut.huge, &self.budget)
                    .is_ok()
            {
                // Relaxed: counts that guard no other memory.
                let in_use = self.in_use.fetch_add(held, Ordering::Relaxed) + held;
                self.high_water.fetch_max(in_use, Ordering::Relaxed);
                let at = Offset::new(region, start);
                return Ok(Block::new(Arc::clone(self), at, len, held, fresh));
            }
            let mut own = lock(&books.books);
            full_of_itself = self
                .budget
                .is_too_small_for(own.uncommitted(&(start..start + held)));
            own.release(start, held);
            drop(own);
            let want = held.saturating_add(2 * CHUNK);
            if attempt == 2 || self.take_back(attempt == 1, want) == 0 && attempt == 1 {
                break;
            }
        }
        let mut full = self.full(region, len);
        if full_of_itself {
            full.whose = ArenaFull::ARENAS;
        }
        Err(full)
    }

    /// As a thread that is committing memory of this region: others that need some wait for it.
    #[cfg(test)]
    pub(crate) fn hold_turn(&self, region: u16) -> std::sync::MutexGuard<'_, ()> {
        lock(&self.region(region).turn)
    }

    fn region(&self, region: u16) -> &Region {
        let regions = self.regions.len();
        match self.regions.get(usize::from(region)) {
            Some(region) => region,
            None => panic!("there is no region {region} in an arena of {regions}"),
        }
    }

    /// The numbers of a refusal of so many bytes in region 0.
    pub(crate) fn no_room(&self, requested: u64) -> ArenaFull {
        self.full(0, requested)
    }

    #[cold]
    fn full(&self, region: u16, requested: u64) -> ArenaFull {
        let memory = limits::memory_available(self.budget.root());
        let mut shm_free = memory.available;
        let mut whose = match memory.available_contained {
            true => ArenaFull::CONTAINERS,
            false => ArenaFull::MACHINES,
        };
        if self.backing == Backing::Named
            && let Ok(shm) = limits::shm_space(std::path::Path::new("/dev/shm"))
            && shm.free < shm_free
        {
            shm_free = shm.free;
            whose = ArenaFull::FILE_SYSTEMS;
        }
        let capacity = self.capacity();
        let free = capacity.saturating_sub(self.in_use.load(Ordering::Relaxed));
        ArenaFull {
            requested,
            free,
            capacity,
            largest_free: lock(&self.region(region).books).free.largest().min(free),
            shm_free,
            whose,
        }
    }

    fn release(&self, at: Offset, held: u64) {
        // In a copy of the process nobody may let go of these locks any more.
        if !self.control.original.is_here() {
            return;
        }
        self.in_use.fetch_sub(held, Ordering::Relaxed);
        lock(&self.region(at.region()).books).release(at.offset(), held);
        crate::sync::point!("reclaim.freed");
    }

    fn note_split(&self, region: u16, kept: u64, rest: u64) {
        if kept > 0 && rest > 0 {
            lock(&self.region(region).books).blocks += 1;
        }
    }

    /// The address of a place inside a block, which is inside its region.
    fn address(&self, at: Offset) -> NonNull<u8> {
        let region = self.region(at.region());
        region
            .map
            .at(at.offset() as usize, 0)
            .expect("a block lies inside its region")
    }

    /// The address of `extent` in this process, if all of it has ever been committed.
    ///
    /// Nothing may be read through it while another process may write there.
    ///
    /// # Errors
    ///
    /// [`BadOffset`] when it reaches beyond the committed part, or there is no such region.
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

    /// Figures of this moment.
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
            let books = lock(&region.books);
            stats.in_use += books.in_use;
            stats.blocks += books.blocks;
            stats.largest_free = stats.largest_free.max(books.free.largest());
            holes += books.free.holes();
            largest_hole = largest_hole.max(books.free.largest_hole());
            for chunk in &books.chunks {
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

    /// Gives memory that no block holds back to the system; how many bytes. Content of blocks stays.
    pub fn trim(&self) -> u64 {
        self.take_back(false, u64::MAX)
    }

    fn take_back(&self, hard: bool, want: u64) -> u64 {
        self.control.original.assert_here();
        let mut gained = 0_u64;
        for region in &self.regions {
            if gained >= want {
                break;
            }
            gained += region.trim(hard, want - gained, &self.budget);
        }
        gained
    }
}
