//! Asking lanes to ring the monitor, or to wake a waiter, at the end of a job.

use super::actor::actor_of;
use super::lane::NOBODY;
use super::record::{AWAITED, JobId, Stage};
use super::state::EngineState;
use crate::link::{Ask, NOTICE};

impl EngineState {
    /// The monitor wants to hear of the end of all that is open. A lane ends its jobs in order, so
    /// its newest is enough.
    pub(super) fn want_end_of_all(&mut self) {
        for lane in self.lanes.iter_mut() {
            let newest = lane.held().next_back();
            if let Some(position) = newest {
                // Over already: the monitor looks again before it sleeps.
                let _: Ask = lane.ask(position, NOTICE);
            }
        }
    }

    /// Somebody waits for this job elsewhere than on its state word.
    pub(super) fn want_notice(&mut self, id: JobId) {
        let record = self.records.get(id);
        record.requests |= NOTICE;
        if let Stage::Placed { link, position } = record.stage {
            // Over already: whoever waits drains before it sleeps.
            let _: Ask = self.lanes[link as usize].ask(position, NOTICE);
        }
    }

    /// Whoever waits for admission wants to hear of the next end of a job in each lane. False if one has ended meanwhile.
    pub(super) fn request_next_ends(&mut self) -> bool {
        self.lanes.iter_mut().all(|lane| {
            // The words of a condemned lane mean nothing: its jobs end with its worker, which everybody hears of.
            if lane.condemned {
                return true;
            }
            let oldest = lane.held().next();
            oldest.is_none_or(|position| matches!(lane.ask(position, NOTICE), Ask::Set(_)))
        })
    }

    /// Somebody waits for the first end among these jobs: where that may be seen, by lane and position. A lane ends its jobs in
    /// order, so the oldest one in each is enough, unless it [goes on](EngineState::notice_behind); one that is posted later says so by
    /// itself, as all of them `wait_for`. The oldest call of an actor is asked as well: it stays where it is when those before it
    /// are given to a lane without work.
    pub(super) fn first_ends(
        &mut self,
        ids: impl Iterator<Item = JobId>,
        waits_for: u32,
    ) -> Vec<(usize, u64)> {
        let mut oldest = vec![[None; 2]; self.lanes.len()];
        for id in ids {
            let record = self.records.get(id);
            record.requests |= waits_for;
            if let Stage::Placed { link, position } = record.stage {
                let stays = actor_of(record.group).is_some();
                let oldest: &mut Option<u64> = &mut oldest[link as usize][usize::from(stays)];
                *oldest = Some(oldest.map_or(position, |other| other.min(position)));
            }
        }
        let oldest = oldest.into_iter().enumerate();
        oldest
            .flat_map(|(lane, positions)| {
                let positions = positions.into_iter().flatten();
                positions.map(move |position| (lane, position))
            })
            .collect()
    }

    /// No thread sleeps for any of these jobs.
    pub(super) fn await_no_more(&mut self, ids: impl Iterator<Item = JobId>) {
        for id in ids {
            self.records.get(id).requests &= !AWAITED;
        }
    }

    /// This job's end in this lane may be no answer: it waits for its next attempt, or for what it has spawned. Then nobody who
    /// waits for the first of several has been told, and those behind it in the lane, which were not asked, are.
    pub(super) fn notice_behind(&mut self, lane: usize, index: u32) {
        let record = self.records.look(index);
        let goes_on = matches!(record.stage, Stage::Waiting | Stage::Spawned { .. });
        if !goes_on || !record.is_noticed() {
            return;
        }
        let lane = &mut self.lanes[lane];
        for position in lane.producer.open_positions() {
            let behind = lane.record_at(position);
            if behind != NOBODY && self.records.look(behind).is_noticed() {
                // Over already: the drain that is under way finds it.
                let _: Ask = lane.ask(position, NOTICE);
            }
        }
    }
}
