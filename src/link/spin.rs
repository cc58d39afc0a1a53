//! The time that one side of a link spins for the other before it sleeps: [`SpinLimit`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::sys::cores;

/// Maximum time of a spin.
const LONGEST_NS: u32 = 50_000;
/// A limit below this becomes 0: no spin.
const SHORTEST_NS: u32 = 3_000;
/// If a wait, including a sleep and its wake-up, took no longer than this, a spin might have been enough.
const SOON: Duration = Duration::from_micros(200);
/// The number of polls between two reads of the clock and of the peer's core. These polls take about a microsecond, in
/// which most replies arrive.
const POLLS: u32 = 32;

/// The maximum time that the threads of one side of a link spin before they sleep, learned from their last waits. The
/// rules are in the README, *Spinning*.
#[derive(Debug)]
pub(crate) struct SpinLimit(AtomicU32);

impl SpinLimit {
    /// Creates a limit of [`LONGEST_NS`], which waits may lower.
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(LONGEST_NS))
    }

    /// Forgets what waits have taught: the thread had a core on which spinning could not pay, and has another one now.
    pub(crate) fn reset(&self) {
        self.0.store(LONGEST_NS, Ordering::Relaxed);
    }

    /// Polls `ready` until it returns true, until the limit has passed since `start`, or until the peer is on this
    /// core, where it cannot run before this thread sleeps. Returns the last result of `ready`.
    pub(crate) fn poll(
        &self,
        start: Instant,
        mut ready: impl FnMut() -> bool,
        peer_core: impl Fn() -> Option<u32>,
    ) -> bool {
        loop {
            for _ in 0..POLLS {
                if ready() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if !self.goes_on(start, peer_core()) {
                return false;
            }
        }
    }

    /// Whether a thread that has spun since `start` should go on. `peer_core` is the core of the peer, if the peer is
    /// awake.
    pub(crate) fn goes_on(&self, start: Instant, peer_core: Option<u32>) -> bool {
        // Relaxed: a hint, which guards no memory.
        let limit = Duration::from_nanos(self.0.load(Ordering::Relaxed).into());
        start.elapsed() < limit && peer_core != Some(cores::current())
    }

    /// Updates the limit after a wait that [`poll`](Self::poll) did not end. `waited` is the time of the whole wait,
    /// `peer_core` the core on which the peer last ran.
    pub(crate) fn learn(&self, waited: Duration, peer_core: u32) {
        let limit = self.0.load(Ordering::Relaxed);
        let would_pay = waited < SOON && peer_core != cores::current();
        let next = if would_pay {
            (limit * 2).clamp(2 * SHORTEST_NS, LONGEST_NS)
        } else if limit < 2 * SHORTEST_NS {
            0
        } else {
            limit / 2
        };
        if next != limit {
            self.0.store(next, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(spin: &SpinLimit) -> u32 {
        spin.0.load(Ordering::Relaxed)
    }

    /// The number of polls until `poll` gives up.
    fn polls(spin: &SpinLimit, peer_core: Option<u32>) -> u32 {
        let mut polls = 0;
        let ready = || {
            polls += 1;
            false
        };
        assert!(!spin.poll(Instant::now(), ready, || peer_core));
        polls
    }

    #[test]
    fn a_waiter_stops_spinning_where_that_did_not_pay_and_begins_again_where_it_would() {
        let spin = SpinLimit::new();
        let other_core = u32::MAX;
        let (soon, late) = (SOON / 2, SOON * 2);
        for _ in 0..5 {
            assert!(limit(&spin) >= SHORTEST_NS);
            spin.learn(late, other_core);
        }
        assert_eq!(polls(&spin, None), POLLS, "it sleeps at once");
        spin.learn(late, other_core);
        assert_eq!(limit(&spin), 0);
        for _ in 0..5 {
            assert!(limit(&spin) < LONGEST_NS);
            spin.learn(soon, other_core);
        }
        assert_eq!(limit(&spin), LONGEST_NS);
        spin.learn(soon, other_core);
        assert_eq!(limit(&spin), LONGEST_NS);
    }

    #[test]
    fn a_waiter_leaves_its_core_to_the_peer() {
        // On a thread of its own, so that no other test is moved.
        let waiter = || {
            let here = cores::current();
            let spin = SpinLimit::new();
            let left_at_once = polls(&spin, Some(here)) == POLLS;
            // An answer that came soon only because this thread slept.
            spin.learn(SOON / 2, here);
            (left_at_once, limit(&spin)) == (true, LONGEST_NS / 2)
        };
        // Linux may move a thread at any moment, but hardly each time.
        assert!((0..20).any(|_| std::thread::spawn(waiter).join().is_ok_and(|left| left)));
        // The thread may lose its core for longer than the limit, but hardly each time.
        let spins = || polls(&SpinLimit::new(), Some(u32::MAX)) > POLLS;
        assert!((0..20).any(|_| spins()));
    }

    #[test]
    fn an_answer_ends_the_spin() {
        let mut polls = 0;
        let third = || {
            polls += 1;
            polls == 3
        };
        assert!(SpinLimit::new().poll(Instant::now(), third, || None));
        assert_eq!(polls, 3);
    }
}
