//! Spares: workers that are ready before another worker ends, so that the next job does not wait for a process to
//! start.
//!
//! An engine has more workers than may be active. A worker is *active* while its status is `Ready` or `Leaving`: from
//! the time it may get a job until its exit is confirmed. The README states the invariants.

use std::time::Instant;

use super::config::Config;
use super::worker::Status;
use super::workers::Workers;

impl Workers {
    /// Returns the workers to start now: replacements for missing active workers, and the spares once no active worker
    /// is missing. None if they are not `needed`.
    pub(super) fn to_start(&self, config: &Config, needed: bool, now: Instant) -> Vec<usize> {
        let (absent, most) = self.absent(config, needed);
        let mut due: Vec<usize> = absent
            .filter(|(_, not_before)| not_before.is_none_or(|at| at <= now))
            .map(|(worker, _)| worker)
            .collect();
        // Workers with fewer failed starts go first, so a worker that fails to start takes turns with the others.
        due.sort_by_key(|&worker| self[worker].failed_starts().len());
        due.truncate(most);
        due
    }

    /// Returns the time when the next worker has to be started. `None` if workers are not `needed`.
    pub(super) fn next_start(
        &self,
        config: &Config,
        needed: bool,
        now: Instant,
    ) -> Option<Instant> {
        let (absent, most) = self.absent(config, needed);
        let times = absent.map(|(_, not_before)| not_before.unwrap_or(now));
        times.min().filter(|_| most > 0)
    }

    /// Returns the workers without a process, with the time from which each may be started; and how many of them may be
    /// started before others have become ready.
    fn absent(
        &self,
        config: &Config,
        needed: bool,
    ) -> (
        impl Iterator<Item = (usize, Option<Instant>)> + use<'_>,
        usize,
    ) {
        let workers = self.iter().enumerate();
        let absent = workers.filter_map(|(index, worker)| match worker.status() {
            Status::Absent { not_before } => Some((index, not_before)),
            _ => None,
        });
        let most = match self.missing(config.active_workers) {
            _ if !needed => 0,
            0 => usize::MAX,
            missing => missing.saturating_sub(self.with_status(Status::Starting).count()),
        };
        (absent, most)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::supervisor::fixture::fixture;
    use crate::supervisor::state::EngineState;
    use crate::supervisor::worker::WHOLE;

    const ABSENT: Status = Status::Absent { not_before: None };

    /// Returns the workers of each status, in order.
    fn look(state: &EngineState) -> String {
        let letter = |worker: usize| match state.workers[worker].status() {
            Status::Absent { .. } => 'a',
            Status::Starting => 's',
            Status::Spare => 'S',
            Status::Ready => 'R',
            Status::Leaving => 'L',
        };
        (0..state.workers.len()).map(letter).collect()
    }

    fn to_start(state: &EngineState, now: Instant) -> Vec<usize> {
        let needed = state.needs_workers();
        state.workers.to_start(&state.config, needed, now)
    }

    fn next_start(state: &EngineState, now: Instant) -> Option<Instant> {
        let needed = state.needs_workers();
        state.workers.next_start(&state.config, needed, now)
    }

    #[test]
    fn spares_start_behind_the_others_and_take_their_places() {
        let (shared, _) = fixture(4, 0);
        let mut state = shared.lock();
        state.config.active_workers = 2;
        let now = Instant::now();
        assert_eq!(to_start(&state, now), [0, 1]);
        state.set_status(0, Status::Starting);
        assert_eq!(
            (to_start(&state, now), next_start(&state, now)),
            (vec![1], Some(now))
        );
        state.set_status(1, Status::Starting);
        assert_eq!(
            (to_start(&state, now), next_start(&state, now)),
            (vec![], None)
        );
        state.set_status(0, Status::Spare);
        assert_eq!(
            (look(&state), to_start(&state, now)),
            ("Rsaa".into(), vec![])
        );
        state.set_status(1, Status::Spare);
        assert_eq!(
            (look(&state), to_start(&state, now)),
            ("RRaa".into(), vec![2, 3])
        );
        for spare in [2, 3] {
            state.set_status(spare, Status::Starting);
            state.set_status(spare, Status::Spare);
        }
        assert_eq!((look(&state), state.lanes.ready()), ("RRSS".into(), 2));
        // The worker is active until its exit is confirmed.
        state.set_status(0, Status::Leaving);
        assert_eq!((look(&state), state.lanes.ready()), ("LRSS".into(), 1));
        state.set_status(0, ABSENT);
        assert_eq!(
            (look(&state), to_start(&state, now)),
            ("aRRS".into(), vec![0])
        );
        state.set_status(1, ABSENT);
        state.set_status(2, ABSENT);
        assert_eq!(
            (look(&state), to_start(&state, now)),
            ("aaaR".into(), vec![0])
        );
    }

    #[test]
    fn one_that_fails_to_start_takes_turns_with_the_others() {
        let (shared, _) = fixture(3, 0);
        let mut state = shared.lock();
        state.config.active_workers = 1;
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut order = Vec::new();
        for _ in 0..6 {
            let next = to_start(&state, later)[0];
            order.push(next);
            state.set_status(next, Status::Starting);
            state.workers[next].start_failed("it is broken".into(), WHOLE);
            state.set_status(
                next,
                Status::Absent {
                    not_before: Some(later),
                },
            );
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
        assert_eq!(
            (to_start(&state, now), next_start(&state, now)),
            (vec![], Some(later))
        );
    }
}
