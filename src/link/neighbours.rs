//! Where the lanes of an engine are: hints that they give each other, so that each finds a core of its own.

use std::cell::Cell;
use std::mem::offset_of;

use super::cells::{Hub, LINK_BYTES, LinkCells, PostHalf, REPLY_AT, ReplyHalf, SLOTS, link_at};
use super::recorder::{Phase, Recorder};
use crate::arena::{HEADER_LEN, View};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// In a lane's place: it is awake. The core is below, of a lane that sleeps the bell's value when it went to sleep.
const AWAKE: u64 = 1 << 32;

impl<const N: usize> LinkCells<N> {
    /// Tells the neighbours that this lane runs on `core`.
    pub(crate) fn runs_on(&self, core: u32) {
        let place = &self.reply().place;
        let here = AWAKE | u64::from(core);
        if place.load(Ordering::Relaxed) != here {
            place.store(here, Ordering::Relaxed);
        }
    }

    /// Supervisor: the core on which this lane runs a kernel, as it said before that.
    pub(crate) fn kernel_core(&self) -> Option<u32> {
        let place = self.reply().place.load(Ordering::Relaxed);
        let runs = matches!(self.phase(), Phase::Running(_));
        (runs && place & AWAKE != 0).then_some(place as u32)
    }

    /// Tells the neighbours that this lane sleeps until its bell is rung.
    pub(crate) fn goes_to_sleep(&self) {
        let heard = self.post().bell.load(Ordering::Relaxed);
        self.reply().place.store(heard.into(), Ordering::Relaxed);
    }
}

/// The other lanes of an engine, as a worker sees them. All of it may be out of date, or wrong.
#[derive(Debug)]
pub(crate) struct Neighbours(Vec<Neighbour>);

#[derive(Debug)]
struct Neighbour {
    place: &'static AtomicU64,
    bell: &'static AtomicU32,
    phase: &'static AtomicU64,
    /// Its phase when it was last looked at.
    seen: Cell<u64>,
}

impl Neighbours {
    /// All lanes but `own`.
    pub(crate) fn in_view(view: &'static View, own: usize) -> Self {
        let len = view.control().len() - HEADER_LEN as usize;
        let lanes = len.saturating_sub(size_of::<Hub>()) / LINK_BYTES;
        let place = REPLY_AT + offset_of!(ReplyHalf<SLOTS>, place);
        let bell = offset_of!(PostHalf<SLOTS>, bell);
        let phase = REPLY_AT + offset_of!(ReplyHalf<SLOTS>, recorder) + offset_of!(Recorder, now);
        let neighbour = |lane| {
            let word = |at, len| {
                view.control()
                    .at(HEADER_LEN as usize + link_at(lane) + at, len)
            };
            let (place, phase) = (
                word(place, size_of::<u64>())?,
                word(phase, size_of::<u64>())?,
            );
            let bell = word(bell, size_of::<u32>())?;
            // SAFETY: all lie within the control segment (`at`), where the supervisor, which is of the same build, laid out
            // atomics, which are only accessed as such. The view is never dropped. It is read-only, and they are only read.
            Some(unsafe {
                Neighbour {
                    place: place.cast().as_ref(),
                    bell: bell.cast().as_ref(),
                    phase: phase.cast().as_ref(),
                    seen: Cell::new(0),
                }
            })
        };
        let others = (0..lanes).filter(|&lane| lane != own);
        Self(others.filter_map(neighbour).collect())
    }

    /// Those with these links.
    #[cfg(test)]
    pub(crate) fn of<const N: usize>(links: &[&'static LinkCells<N>]) -> Self {
        let neighbour = |cells: &&'static LinkCells<N>| Neighbour {
            place: &cells.reply().place,
            bell: &cells.post().bell,
            phase: &cells.reply().recorder.now,
            seen: Cell::new(0),
        };
        Self(links.iter().map(neighbour).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The cores of those that are awake.
    pub(crate) fn cores(&self) -> impl Iterator<Item = u32> {
        let places = self
            .0
            .iter()
            .map(|other| other.place.load(Ordering::Relaxed));
        places.filter_map(|place| (place & AWAKE != 0).then_some(place as u32))
    }

    /// Does one of them wait for a core, by the look of it? One that was rung has not woken up yet, or one has been between
    /// two jobs since somebody asked last.
    pub(crate) fn any_waits_for_a_core(&self) -> bool {
        let waits = |other: &Neighbour| {
            let place = other.place.load(Ordering::Relaxed);
            if place & AWAKE == 0 {
                return place as u32 != other.bell.load(Ordering::Relaxed);
            }
            let phase = other.phase.load(Ordering::Relaxed);
            let stands = other.seen.replace(phase) == phase;
            stands && matches!(Phase::of(phase), Phase::Opening(_) | Phase::Publishing(_))
        };
        // All of them, so that the next answer is about the time since this one.
        self.0.iter().filter(|other| waits(other)).count() > 0
    }
}
