//! Hints about where the lanes of an engine run, so that each lane finds a core of its own.

use std::cell::Cell;
use std::mem::offset_of;

use super::cells::{Hub, LINK_BYTES, LinkCells, PostHalf, REPLY_AT, ReplyHalf, SLOTS, link_at};
use super::recorder::{Phase, Recorder};
use crate::arena::{HEADER_LEN, View};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Bit of a lane's location. If it is set, the lane is awake and the low bits are its core. If not, the lane sleeps:
/// the low bits are the value of the doorbell when it went to sleep, and the bits from [`CORE_SHIFT`] on are its core
/// then.
const AWAKE: u64 = 1 << 32;
const CORE_SHIFT: u32 = 33;

impl<const N: usize> LinkCells<N> {
    /// Worker: publishes that this lane runs on `core`.
    pub(crate) fn set_core(&self, core: u32) {
        let location = &self.reply().location;
        let new = AWAKE | u64::from(core);
        if location.load(Ordering::Relaxed) != new {
            location.store(new, Ordering::Relaxed);
        }
    }

    /// Supervisor: the core on which this lane runs a kernel, if it runs one. A hint.
    pub(crate) fn kernel_core(&self) -> Option<u32> {
        let location = self.reply().location.load(Ordering::Relaxed);
        let runs = matches!(self.phase(), Phase::Running(_));
        (runs && location & AWAKE != 0).then_some(location as u32)
    }

    /// Supervisor: the core of this lane, if it is awake. A hint.
    pub(crate) fn awake_core(&self) -> Option<u32> {
        let location = self.reply().location.load(Ordering::Relaxed);
        (location & AWAKE != 0).then_some(location as u32)
    }

    /// Supervisor: the core on which this lane runs or went to sleep. A hint.
    pub(crate) fn last_core(&self) -> u32 {
        let location = self.reply().location.load(Ordering::Relaxed);
        match location & AWAKE {
            0 => (location >> CORE_SHIFT) as u32,
            _ => location as u32,
        }
    }

    /// Worker: publishes that this lane sleeps, and that it ran on `core` before. Valid until its doorbell is rung.
    pub(crate) fn set_asleep(&self, core: u32) {
        let doorbell = self.post().doorbell.load(Ordering::Relaxed);
        let location = u64::from(core) << CORE_SHIFT | u64::from(doorbell);
        self.reply().location.store(location, Ordering::Relaxed);
    }
}

impl Hub {
    /// Supervisor: publishes the core of a thread that waits for a lane or has woken one.
    pub(crate) fn set_waiter_core(&self, core: u32) {
        if self.waiter_core.load(Ordering::Relaxed) != core {
            self.waiter_core.store(core, Ordering::Relaxed);
        }
    }
}

/// The other lanes of an engine, as a worker reads them. All values are hints: they may be out of date or wrong.
#[derive(Debug)]
pub(crate) struct Neighbours(Vec<Neighbour>);

#[derive(Debug)]
struct Neighbour {
    location: &'static AtomicU64,
    doorbell: &'static AtomicU32,
    phase: &'static AtomicU64,
    /// The phase at the previous call of `any_waits_for_a_core`.
    seen: Cell<u64>,
}

impl Neighbours {
    /// The lanes of the engine without the lane `own`.
    pub(crate) fn in_view(view: &'static View, own: usize) -> Self {
        let len = view.control().len() - HEADER_LEN as usize;
        let lanes = len.saturating_sub(size_of::<Hub>()) / LINK_BYTES;
        let location = REPLY_AT + offset_of!(ReplyHalf<SLOTS>, location);
        let doorbell = offset_of!(PostHalf<SLOTS>, doorbell);
        let phase = REPLY_AT + offset_of!(ReplyHalf<SLOTS>, recorder) + offset_of!(Recorder, now);
        let neighbour = |lane| {
            let word = |at, len| {
                view.control()
                    .at(HEADER_LEN as usize + link_at(lane) + at, len)
            };
            let location = word(location, size_of::<u64>())?;
            let phase = word(phase, size_of::<u64>())?;
            let doorbell = word(doorbell, size_of::<u32>())?;
            // SAFETY: all three words are inside the control segment (`at`), where the supervisor, the same executable,
            // laid out atomics. Other processes write them as atomics; this one only reads them. The view is never
            // dropped.
            Some(unsafe {
                Neighbour {
                    location: location.cast().as_ref(),
                    doorbell: doorbell.cast().as_ref(),
                    phase: phase.cast().as_ref(),
                    seen: Cell::new(0),
                }
            })
        };
        let others = (0..lanes).filter(|&lane| lane != own);
        Self(others.filter_map(neighbour).collect())
    }

    /// The lanes of `links`.
    #[cfg(test)]
    pub(crate) fn of<const N: usize>(links: &[&'static LinkCells<N>]) -> Self {
        let neighbour = |cells: &&'static LinkCells<N>| Neighbour {
            location: &cells.reply().location,
            doorbell: &cells.post().doorbell,
            phase: &cells.reply().recorder.now,
            seen: Cell::new(0),
        };
        Self(links.iter().map(neighbour).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The cores of the lanes that are awake.
    pub(crate) fn cores(&self) -> impl Iterator<Item = u32> {
        let locations = self
            .0
            .iter()
            .map(|other| other.location.load(Ordering::Relaxed));
        locations.filter_map(|location| (location & AWAKE != 0).then_some(location as u32))
    }

    /// Whether a lane seems to wait for a core: it was rung and has not woken yet, or it has been between the same two
    /// jobs since the previous call.
    pub(crate) fn any_waits_for_a_core(&self) -> bool {
        let waits = |other: &Neighbour| {
            let location = other.location.load(Ordering::Relaxed);
            if location & AWAKE == 0 {
                return location as u32 != other.doorbell.load(Ordering::Relaxed);
            }
            let phase = other.phase.load(Ordering::Relaxed);
            let unchanged = other.seen.replace(phase) == phase;
            unchanged && matches!(Phase::of(phase), Phase::Opening(_) | Phase::Publishing(_))
        };
        // Not `any`: `seen` must be updated in every lane.
        self.0.iter().filter(|other| waits(other)).count() > 0
    }
}
