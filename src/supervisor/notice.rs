//! Requests to be notified of the end of a job: a worker rings the monitor for [`NOTICE`], and wakes a sleeper for
//! [`WAITER`](crate::link::WAITER).
//!
//! A request fails if the job has ended already. Then the caller drains the lane before it sleeps.

use super::job_table::JobTable;
use super::lane::NO_RECORD;
use super::lanes::Lanes;
use super::record::{JobId, Stage};
use crate::link::{Ask, NOTICE};

impl Lanes {
    /// Requests notice of the end of all open jobs. A lane ends its jobs in order, so one request for the newest job is
    /// enough.
    pub(super) fn want_end_of_all(&mut self) {
        for lane in self.iter_mut() {
            let newest = lane.held().next_back();
            if let Some(position) = newest {
                // If the job has ended already, the monitor finds the end when it drains, before it blocks.
                let _: Ask = lane.ask(position, NOTICE);
            }
        }
    }

    /// Requests notice of the end of a job for a thread or future that does not wait on its state word.
    pub(super) fn want_notice(&mut self, id: JobId, records: &mut JobTable) {
        let record = records.get(id);
        record.requests |= NOTICE;
        if let Stage::Placed { lane, position } = record.stage {
            // If the job has ended already, the caller finds the end when it drains, before it sleeps.
            let _: Ask = self[lane as usize].ask(position, NOTICE);
        }
    }

    /// Requests notice of the next end of a job on each lane, for callers that wait for admission. Returns false if a
    /// job has ended in the meantime.
    pub(super) fn request_next_ends(&mut self) -> bool {
        self.iter_mut().all(|lane| {
            // Replies of a condemned lane are ignored. Its jobs end when its worker exits, and all waiters are notified
            // of that.
            if lane.is_condemned() {
                return true;
            }
            let oldest = lane.held().next();
            oldest.is_none_or(|position| matches!(lane.ask(position, NOTICE), Ask::Set(_)))
        })
    }

    /// Returns the lanes and positions at which the first end among these jobs can occur. A lane ends its jobs in
    /// order, so only the oldest of these jobs on each lane is returned. If that job ends without an answer, see
    /// [`request_notice_of_later_jobs`](Lanes::request_notice_of_later_jobs). A job that is placed later is posted with
    /// the request `waits_for`. The oldest call of an actor is returned separately, because it stays on its lane when
    /// the jobs ahead of it are moved to another lane.
    pub(super) fn first_ends(
        &self,
        ids: impl Iterator<Item = JobId>,
        records: &mut JobTable,
        waits_for: u32,
    ) -> Vec<(usize, u64)> {
        let mut oldest = vec![[None; 2]; self.len()];
        for id in ids {
            let record = records.get(id);
            record.requests |= waits_for;
            if let Stage::Placed { lane, position } = record.stage {
                let stays = record.owner.actor().is_some();
                let oldest: &mut Option<u64> = &mut oldest[lane as usize][usize::from(stays)];
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

    /// Requests notice of the awaited jobs that are later on this lane, after an attempt that ended without an answer
    /// to its job: the job waits for its next attempt, for jobs that it has spawned, or for a copy. A thread that waits
    /// for the first of several jobs has requested only the end of the oldest one on the lane, and this end has not
    /// woken the thread.
    pub(super) fn request_notice_of_later_jobs(
        &mut self,
        lane: usize,
        index: u32,
        records: &JobTable,
    ) {
        let record = records.look(index);
        let goes_on = match record.stage {
            Stage::Waiting | Stage::Spawned { .. } => true,
            #[cfg(feature = "sandbox")]
            Stage::Copying => true,
            _ => false,
        };
        if !goes_on || !record.is_noticed() {
            return;
        }
        let lane = &mut self[lane];
        for position in lane.producer.open_positions() {
            let behind = lane.record_at(position);
            if behind != NO_RECORD && records.look(behind).is_noticed() {
                // If the job has ended already, the drain that is in progress finds the end.
                let _: Ask = lane.ask(position, NOTICE);
            }
        }
    }
}
