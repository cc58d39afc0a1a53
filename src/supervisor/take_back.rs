//! Taking jobs back from lanes that have not begun them.

use super::actor::actor_of;
use super::lane::NOBODY;
use super::options::Priority;
use super::record::Stage;
use super::state::EngineState;
use crate::link::Retract;

impl EngineState {
    /// Retracts a job from its slot. Its sleepers are woken and find the record.
    pub(super) fn take_back(&mut self, link: usize, position: u64) -> bool {
        let lane = &mut self.lanes[link];
        // The words of a condemned lane mean nothing, and its verdict may name this very record. Nor do they where the job was
        // taken from a worker that is gone: who judges its jobs one by one answers this one as well.
        if lane.condemned || !lane.holds(position) {
            return false;
        }
        match lane.producer.retract(position) {
            Retract::TooLate => false,
            Retract::Taken { wake } => {
                let record = lane.take(position);
                self.lanes.left();
                self.actor_job_retracted(record, position);
                let lane = &mut self.lanes[link];
                crate::sync::point!("retract.taken");
                if wake {
                    let word = lane.producer.cells().state(position).as_futex();
                    crate::sys::futex::wake(word, u32::MAX >> 1);
                }
                // The worker passes over the slot when it gets there; if it sleeps it has to be told.
                lane.producer.ring();
                if !lane.timed.is_empty() {
                    self.watch(link);
                }
                crate::sync::point!("retract.reported");
                true
            }
        }
    }

    /// Takes back all that lies behind this job; false if something there has begun.
    pub(super) fn take_back_behind(&mut self, index: usize, position: u64) -> bool {
        let mut all = true;
        let mut back = Vec::new();
        // Newest first: none begins before one that was taken earlier.
        for behind in (position + 1..self.lanes[index].producer.tail()).rev() {
            let record = self.lanes[index].record_at(behind);
            if record == NOBODY {
                continue;
            }
            if !self.take_back(index, behind) {
                // It has begun, and so have those before it.
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

    /// Takes back what these lanes have not begun, to the front of the queue, in order.
    pub(super) fn reclaim(&mut self, lanes: impl Iterator<Item = usize>) {
        let mut back = Vec::new();
        for index in lanes {
            for position in self.lanes[index].producer.open_positions().rev() {
                let record = self.lanes[index].record_at(position);
                if record == NOBODY {
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
            self.tell_moved(record);
        }
        self.update_flags();
    }

    /// Before a job is taken: what lies unbegun in lanes with a lower priority will wait behind it. Where
    /// others of its priority or above wait, they have done that. True if something was taken back.
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
                if record == NOBODY {
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

    /// Puts a job that was taken back before those that wait.
    pub(super) fn requeue(&mut self, index: u32) {
        let record = self.records.at(index);
        record.stage = Stage::Queued;
        if actor_of(record.group).is_some() {
            return self.requeue_call(index);
        }
        self.queue.push_front(index, record);
    }

    /// Whoever sleeps on this job's old place looks again.
    pub(super) fn tell_moved(&mut self, record: u32) {
        if self.records.at(record).parked {
            self.waiters.notify(record);
        }
    }
}
