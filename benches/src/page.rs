//! Bare ping-pong between two processes over one shared page: the cost of a round trip without an engine.
//!
//! The asking side stores its argument, then the request number. When the answering side reads a new number, it stores
//! the result, then the same number as reply. *Spinning* sides poll; *sleeping* sides wait on a futex and wake each
//! other. Between two samples a spinning answerer is parked: after it has read [`PARKED`], it sleeps until the next
//! number, so that it takes no core from other systems.

use std::hint::spin_loop;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use memmap2::MmapRaw;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use rustix::thread::futex;

use super::child::{Child, Role};
use super::linux::{Pinned, two_cores};
use super::{BenchError, work};

/// The request number that parks an answerer. No request has this number.
const PARKED: u32 = 0;
/// The time limit for a round trip, after which the other side counts as ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// The memory that the two processes share: only atomics, each in a separate pair of cache lines.
#[repr(C, align(4096))]
#[derive(Debug)]
struct PageCells {
    /// Written by the asking side, read by the answering side.
    request: Line<AtomicU32>,
    /// Written by the answering side, read by the asking side.
    reply: Line<AtomicU32>,
    /// The argument of the request; written before `request`.
    argument: Line<AtomicU64>,
    /// The result in the reply; written before `reply`.
    result: Line<AtomicU64>,
}

#[repr(C, align(128))]
#[derive(Debug)]
struct Line<T>(T);

const _: () = assert!(size_of::<PageCells>() == work::PAGE);
const _: () = assert!(align_of::<PageCells>() == work::PAGE);

/// One page that another process maps too.
#[derive(Debug)]
struct SharedPage {
    map: MmapRaw,
    memory: OwnedFd,
}

impl SharedPage {
    /// Creates a page of zeros.
    fn create() -> Result<Self, BenchError> {
        let failed = |errno| BenchError::io("create a shared page", errno);
        let memory = memfd_create("arenite-bench", MFdFlags::MFD_CLOEXEC).map_err(failed)?;
        ftruncate(&memory, work::PAGE as i64).map_err(failed)?;
        Self::open(memory)
    }

    fn open(memory: OwnedFd) -> Result<Self, BenchError> {
        let map = MmapRaw::map_raw(&memory)
            .map_err(|error| BenchError::io("map a shared page", error))?;
        // The other side has set the size, and `cells` refers to the whole page.
        BenchError::expect(map.len() as u64, work::PAGE as u64)?;
        Ok(Self { map, memory })
    }

    /// Duplicates the descriptor, for a child.
    fn descriptor(&self) -> Result<OwnedFd, BenchError> {
        self.memory
            .try_clone()
            .map_err(|error| BenchError::io("duplicate the descriptor of a shared page", error))
    }

    #[allow(
        unsafe_code,
        reason = "a page that another process writes is a raw pointer"
    )]
    fn cells(&self) -> &PageCells {
        // SAFETY: the map is one page, page-aligned, and lives as long as `self`. Only these two processes have
        // descriptors of the memory, and neither shrinks it. Every bit pattern is a valid `PageCells`, and the other
        // process accesses it through atomics only.
        unsafe { &*self.map.as_ptr().cast::<PageCells>() }
    }
}

/// Sleeps while `word` has the value `expected`. May return early: the caller reads the word again.
fn sleep(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    let timeout = timeout.map(|timeout| futex::Timespec {
        tv_sec: timeout.as_secs().cast_signed(),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    // The futex is not `PRIVATE`, because another process uses the word.
    let _ = futex::wait(word, futex::Flags::empty(), expected, timeout.as_ref());
}

/// Wakes the process that sleeps on `word`, if any.
fn wake(word: &AtomicU32) {
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}

/// The cores of the two sides, and how they wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// Two cores, both spinning.
    Spin,
    /// Two cores, both sleeping.
    Futex,
    /// One core, both sleeping.
    FutexOneCore,
}

/// The asking side.
#[derive(Debug)]
pub(super) struct PagePeer {
    child: Child,
    page: SharedPage,
    core: usize,
    spin: bool,
    parked: bool,
    number: u32,
}

impl PagePeer {
    /// Starts the answering process and makes a first round trip.
    pub(super) fn start(placement: Placement) -> Result<Self, BenchError> {
        let (system, needs_two) = match placement {
            Placement::Spin => ("spin", true),
            Placement::Futex => ("futex", true),
            Placement::FutexOneCore => ("futex-one-core", false),
        };
        let (core, other) = match (two_cores(), needs_two) {
            (Some((first, second)), true) => (first, second),
            (Some((first, _)), false) => (first, first),
            (None, true) => {
                return Err(BenchError::Missing(format!(
                    "{system} needs two cores and this process may use one"
                )));
            }
            (None, false) => (0, 0),
        };
        let page = SharedPage::create()?;
        let spin = placement == Placement::Spin;
        let role = Role::Page { core: other, spin };
        let child = Child::start(system, &role, Some(page.descriptor()?), None)?;
        let mut peer = Self {
            child,
            page,
            core,
            spin,
            parked: true,
            number: PARKED,
        };
        peer.round_trips(1)?;
        Ok(peer)
    }

    /// Makes `times` round trips, back to back. The returned time does not include waking a parked answerer.
    pub(super) fn round_trips(&mut self, times: u64) -> Result<Duration, BenchError> {
        let _pinned = Pinned::to(self.core)?;
        self.round_trip()?;
        let start = Instant::now();
        for _ in 0..times {
            self.round_trip()?;
        }
        let taken = start.elapsed();
        self.park();
        Ok(taken)
    }

    /// Makes `times` round trips, each after a pause. Returns the time of each.
    pub(super) fn after_pauses(
        &mut self,
        times: u64,
        pause: Duration,
    ) -> Result<Vec<Duration>, BenchError> {
        let _pinned = Pinned::to(self.core)?;
        (0..times)
            .map(|_| {
                std::thread::sleep(pause);
                let start = Instant::now();
                self.round_trip()?;
                Ok(start.elapsed())
            })
            .collect()
    }

    fn round_trip(&mut self) -> Result<(), BenchError> {
        let was_parked = std::mem::replace(&mut self.parked, false);
        self.number = self.number.checked_add(1).unwrap_or(1);
        let number = self.number;
        let argument = u64::from(number);
        let cells = self.page.cells();
        cells.argument.0.store(argument, Relaxed);
        // Release: "request", pairs with the answerer's Acquire.
        cells.request.0.store(number, Release);
        if self.spin && !was_parked {
            let mut polls = 0_u32;
            // Acquire: pairs with Release "reply".
            while cells.reply.0.load(Acquire) != number {
                spin_loop();
                polls = polls.wrapping_add(1);
                if polls.is_multiple_of(1 << 20) && self.child.has_ended() {
                    return Err(self.child.unresponsive());
                }
            }
        } else {
            wake(&cells.request.0);
            let mut first_poll = None;
            loop {
                // Acquire: pairs with Release "reply".
                let reply = cells.reply.0.load(Acquire);
                if reply == number {
                    break;
                }
                if first_poll.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(self.child.unresponsive());
                }
                if self.spin {
                    spin_loop();
                } else {
                    sleep(&cells.reply.0, reply, Some(PATIENCE));
                }
            }
        }
        let result = cells.result.0.load(Relaxed);
        BenchError::expect(result, work::noop(argument))
    }

    fn park(&mut self) {
        if self.spin {
            self.parked = true;
            self.page.cells().request.0.store(PARKED, Release);
        }
    }
}

/// Runs the answering side until its process is killed.
pub(super) fn answer(core: usize, spin: bool) -> Result<(), BenchError> {
    let descriptor = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| BenchError::io("take the shared page", error))?;
    let page = SharedPage::open(descriptor)?;
    let _pinned = Pinned::to(core)?;
    let cells = page.cells();
    let mut seen = PARKED;
    loop {
        // Acquire: pairs with Release "request".
        let number = cells.request.0.load(Acquire);
        if number == PARKED || (number == seen && !spin) {
            seen = number;
            sleep(&cells.request.0, number, None);
        } else if number == seen {
            spin_loop();
        } else {
            seen = number;
            let result = work::noop(cells.argument.0.load(Relaxed));
            cells.result.0.store(result, Relaxed);
            // Release: "reply", pairs with the asking side's Acquire.
            cells.reply.0.store(number, Release);
            if !spin {
                wake(&cells.reply.0);
            }
        }
    }
}
