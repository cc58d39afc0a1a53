//! Takes back jobs that have not begun from lanes.

use super::lane::NO_RECORD;
use super::options::Priority;
use super::record::Stage;
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
                    self.watch(link);
                }
                crate::sync::point!("retract.reported");
                true
            }
        }
    }

    /// Takes back all later jobs of the lane. Returns false if one of them has begun.
    pub(super) fn take_back_behind(&mut self, index: usize, position: u64) -> bool {
        let mut all = true;
        let mut back = Vec::new();
        // Newest first, because jobs begin in order.
        for behind in (position + 1..self.lanes[index].producer.tail()).rev() {
            let record = self.lanes[index].record_at(behind);
            if record == NO_RECORD {
                continue;
            }
            if !self.take_back(index, behind) {
                // This job has begun, and so have all earlier ones.
                all = false;
                break;
            }
            back.push(record);
        }
        for record in back {
            self.requeue(record);
        }
        all
    }

    /// Takes back the unbegun jobs of these lanes to the front of the queue, in order.
    pub(super) fn reclaim(&mut self, lanes: impl Iterator<Item = usize>) {
        let mut back = Vec::new();
        for index in lanes {
            for position in self.lanes[index].producer.open_positions().rev() {
                let record = self.lanes[index].record_at(position);
                if record == NO_RECORD {
                    continue;
                }
                if !self.take_back(index, position) {
                    break;
                }
                back.push(record);
            }
        }
        back.sort_unstable_by_key(|&record| self.records.at(record).job);
        for record in back.into_iter().rev() {
            self.requeue(record);
            self.waiters.notify_moved(self.records.look(record), record);
        }
        self.update_flags();
    }

    /// Takes back unbegun jobs of lower priority than this job, which is about to be submitted. Does nothing if jobs of
    /// its priority or above are queued: then that was done already. Returns true if a job was taken back.
    #[cold]
    pub(super) fn overtake(&mut self, index: u32) -> bool {
        let priority = self.records.at(index).priority();
        if priority == Priority::Low || !self.queue.has_none_from(priority) {
            return false;
        }
        let mut back = Vec::new();
        for lane in 0..self.lanes.len() {
            for position in self.lanes[lane].producer.open_positions().rev() {
                let record = self.lanes[lane].record_at(position);
                if record == NO_RECORD {
                    continue;
                }
                if self.records.at(record).priority() >= priority || !self.take_back(lane, position)
                {
                    break;
                }
                back.push(record);
            }
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
