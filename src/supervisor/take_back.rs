//! Takes back jobs that have not begun from lanes.

use super::lane::NO_RECORD;
use super::options::Priority;
use super::record::{Record, Stage};
use super::state::EngineState;
use crate::link::Retract;

impl EngineState {
    /// Takes a job back from its slot, if it has not begun. Threads that sleep on the slot are woken and read the
    /// record.
    pub(super) fn take_back(&mut self, link: usize, position: u64) -> bool {
        let lane = &mut self.lanes[link];
        // The state words of a condemned lane are not trusted, and a kill reason may name this record. If the job is no
        // longer on the lane, its worker has exited, and recovery answers this job like the others.
        if lane.is_condemned() || !lane.holds(position) {
            return false;
        }
        match lane.producer.retract(position) {
            Retract::TooLate => false,
            Retract::Taken { wake } => {
                let record = lane.take(position);
                lane.return_share();
                self.lanes.left();
                let owner = self.records.look(record).owner;
                self.actors.retracted(owner, position);
                let lane = &mut self.lanes[link];
                crate::sync::point!("retract.taken");
                if wake {
                    let word = lane.producer.cells().state(position).as_futex();
                    crate::sys::futex::wake(word, u32::MAX >> 1);
                }
                // The worker skips the slot when it reaches it. If it sleeps, it has to be woken.
                lane.producer.ring();
                if lane.has_timed() {
                    self.lanes.watch(link, &self.records, &mut self.monitor);
                }
                crate::sync::point!("retract.reported");
                true
            }
        }
    }

    /// Takes back the jobs of a lane from position `from` on, newest first, and adds them to `back`. Stops at a job
    /// that may not be taken back, or that has begun: then all earlier jobs have begun, too. Returns false if it
    /// stopped.
    fn take_newest(
        &mut self,
        lane: usize,
        from: u64,
        may: impl Fn(&Record) -> bool,
        back: &mut Vec<u32>,
    ) -> bool {
        for position in (from..self.lanes[lane].producer.tail()).rev() {
            let record = self.lanes[lane].record_at(position);
            if record == NO_RECORD {
                continue;
            }
            if !may(self.records.look(record)) || !self.take_back(lane, position) {
                return false;
            }
            back.push(record);
        }
        true
    }

    /// Takes back all later jobs of the lane. Returns false if one of them has begun.
    pub(super) fn take_back_behind(&mut self, index: usize, position: u64) -> bool {
        let mut back = Vec::new();
        let all = self.take_newest(index, position + 1, |_| true, &mut back);
        for record in back {
            self.requeue(record);
        }
        all
    }

    /// Takes back the unbegun jobs of these lanes to the front of the queue, in order.
    pub(super) fn reclaim(&mut self, lanes: impl Iterator<Item = usize>) {
        let mut back = Vec::new();
        for index in lanes {
            let oldest = self.lanes[index].producer.open_positions().start;
            self.take_newest(index, oldest, |_| true, &mut back);
        }
        back.sort_unstable_by_key(|&record| self.records.at(record).job);
        for record in back.into_iter().rev() {
            self.requeue(record);
            self.waiters.notify_moved(self.records.look(record), record);
        }
        self.lanes.update_flags(&self.queue, &self.config);
    }

    /// Takes back unbegun jobs of lower priority than this job, which is about to be submitted. Does nothing if jobs of
    /// its priority or above are queued: then that was done already. Returns true if a job was taken back.
    #[cold]
    pub(super) fn overtake(&mut self, index: u32) -> bool {
        let record = self.records.at(index);
        let priority = record.priority();
        if priority == Priority::Low || !self.queue.has_none_from(record) {
            return false;
        }
        let mut back = Vec::new();
        for lane in 0..self.lanes.len() {
            let oldest = self.lanes[lane].producer.open_positions().start;
            let may = |record: &Record| record.priority() < priority;
            self.take_newest(lane, oldest, may, &mut back);
        }
        back.sort_unstable_by_key(|&record| self.records.look(record).job);
        for &index in back.iter().rev() {
            self.requeue(index);
        }
        !back.is_empty()
    }

    /// Queues a job that was taken back at the front.
    pub(super) fn requeue(&mut self, index: u32) {
        let record = self.records.at(index);
        record.stage = Stage::Queued;
        if record.owner.actor().is_some() {
            return self.requeue_call(index);
        }
        self.queue.push_front(index, record);
    }
}
