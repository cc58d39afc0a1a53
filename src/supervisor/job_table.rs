//! The job table: a record for each job whose answer has not been taken.

use super::owner::Owner;
use super::record::{AWAITED, JobId, Record, Stage};

/// Records lie in a slab and are reused. An id carries the record's generation, so that an old id is recognized.
#[derive(Debug, Default)]
pub(super) struct JobTable {
    records: Vec<Record>,
    free: Vec<u32>,
    /// Number of jobs added so far.
    submitted: u64,
    /// Number of seeds returned so far.
    seeds: u64,
}

impl JobTable {
    /// Adds a record for a new job and gives the job a number. The caller fills in the rest.
    #[inline]
    pub(super) fn add(&mut self) -> (JobId, &mut Record) {
        self.submitted += 1;
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.grow(),
        };
        let record = &mut self.records[index as usize];
        record.stage = Stage::Queued;
        record.job = self.submitted;
        (JobId::new(index, record.generation), record)
    }

    /// Returns the number of jobs added so far, which is the number of the last job.
    #[inline]
    pub(super) fn submitted(&self) -> u64 {
        self.submitted
    }

    /// Returns a new seed, the number of seeds returned so far: for jobs whose random numbers depend on the order in
    /// which the jobs were submitted.
    #[inline]
    pub(super) fn next_seed(&mut self) -> u64 {
        self.seeds += 1;
        self.seeds
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        let index = u32::try_from(self.records.len()).expect("fewer than 2^32 jobs at once");
        self.records.push(Record::new());
        index
    }

    /// Returns the record of a job whose answer was not taken.
    ///
    /// # Panics
    ///
    /// If the answer was taken: the record may belong to another job now.
    #[inline]
    pub(super) fn get(&mut self, id: JobId) -> &mut Record {
        self.find(id).expect("a job is taken once")
    }

    /// Returns the record of a job, or `None` if its answer was taken.
    #[inline]
    pub(super) fn find(&mut self, id: JobId) -> Option<&mut Record> {
        let record = self.records.get_mut(id.index as usize)?;
        (record.generation == id.generation() && record.stage != Stage::Free).then_some(record)
    }

    /// Returns the id of the job that this record has.
    pub(super) fn id_of(&self, index: u32) -> JobId {
        JobId::new(index, self.look(index).generation)
    }

    #[inline]
    pub(super) fn at(&mut self, index: u32) -> &mut Record {
        &mut self.records[index as usize]
    }

    #[inline]
    pub(super) fn look(&self, index: u32) -> &Record {
        &self.records[index as usize]
    }

    /// Returns the jobs without an answer whose owner satisfies `is_of`.
    pub(super) fn open_of(&self, is_of: impl Fn(Owner) -> bool) -> Vec<JobId> {
        let records = self.records.iter().zip(0..);
        records
            .filter(|(record, _)| is_of(record.owner) && record.is_open())
            .map(|(record, index)| JobId::new(index, record.generation))
            .collect()
    }

    /// Returns the records in this stage.
    #[cfg(feature = "sandbox")]
    pub(super) fn in_stage(&self, stage: Stage) -> Vec<u32> {
        let records = self.records.iter().zip(0..);
        let found = records.filter(|(record, _)| record.stage == stage);
        found.map(|(_, index)| index).collect()
    }

    /// Returns true if this job has no answer yet.
    pub(super) fn is_open(&self, id: JobId) -> bool {
        let record = self.records.get(id.index as usize);
        record.is_some_and(|record| record.generation == id.generation() && record.is_open())
    }

    /// Records that no thread sleeps for any of these jobs.
    pub(super) fn await_no_more(&mut self, ids: impl Iterator<Item = JobId>) {
        for id in ids {
            self.get(id).requests &= !AWAITED;
        }
    }

    /// Frees the record of a job whose answer was taken, or will not be taken by any handle.
    #[inline]
    pub(super) fn remove(&mut self, index: u32) {
        let record = &mut self.records[index as usize];
        record.generation = record.generation.wrapping_add(1);
        record.stage = Stage::Free;
        record.owner = Owner::None;
        record.parked = false;
        record.requests = 0;
        record.attempt = 1;
        record.waker = None;
        record.outcome = None;
        if record.policy.is_some() {
            record.policy = None;
        }
        if record.link.is_some() {
            record.link = None;
        }
        if !record.leases.is_empty() {
            record.leases.clear();
        }
        if !record.arrays.is_empty() {
            record.arrays.clear();
        }
        self.free.push(index);
    }

    /// Returns the number of jobs whose answers were not taken.
    pub(super) fn live(&self) -> usize {
        self.records.len() - self.free.len()
    }
}
