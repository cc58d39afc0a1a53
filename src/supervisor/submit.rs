//! Submits jobs: fills a record, then places or queues the job, or answers it with a refusal.

use std::sync::Arc;
use std::time::Duration;

use super::actor::ActorId;
use super::error::{JobErrorKind, JobLimit, Rejection};
use super::lifecycle::Closing;
use super::options::JobOptions;
use super::owner::Owner;
use super::policy::Policy;
use super::record::{JobId, Record, Stage};
use super::shared::{Locked, Supervisor};
use super::state::EngineState;
use crate::arena::{Arena, ArenaFull, BlockPlacement};
use crate::kernel::KernelInfo;
use crate::kernel::wire::{ArgWriter, Lease};
use crate::link::{INLINE_WORDS, NOTICE, SPILLED, STAMPED, fence_after_queueing};

/// Number of queued jobs after which lanes are drained again.
const LOOK_EVERY: usize = 32;

/// Why a job is refused, if it is. Boxed, because the value is moved for each job, and most are not refused.
pub(super) type Refusal = Option<Box<JobErrorKind>>;

#[cold]
pub(super) fn refuse(why: JobErrorKind) -> Refusal {
    Some(Box::new(why))
}

/// Refuses a job whose deadline is zero: no worker is killed for it.
pub(super) fn too_late(options: &JobOptions) -> Refusal {
    let limit = options.deadline.filter(Duration::is_zero)?;
    refuse(JobErrorKind::Limit(JobLimit::Deadline { limit }))
}

/// What a call is submitted to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// The workers, as a job with this owner: a handle or a scope.
    Workers(Owner),
    Actor(ActorId),
}

impl From<Owner> for Target {
    #[inline]
    fn from(owner: Owner) -> Self {
        Self::Workers(owner)
    }
}

impl From<ActorId> for Target {
    fn from(id: ActorId) -> Self {
        Self::Actor(id)
    }
}

impl EngineState {
    /// Submits a call.
    #[inline]
    pub(super) fn submit_to(
        &mut self,
        info: &KernelInfo,
        call: &mut ArgWriter,
        target: Target,
        options: Option<&JobOptions>,
    ) -> JobId {
        match target {
            Target::Workers(owner) => self.submit(info, call, owner, options),
            Target::Actor(id) => self.call_actor(id, info, call, options),
        }
    }

    /// Submits a job of a handle or of a scope.
    #[inline]
    pub(super) fn submit(
        &mut self,
        info: &KernelInfo,
        call: &mut ArgWriter,
        owner: Owner,
        options: Option<&JobOptions>,
    ) -> JobId {
        let kernel = self.kernels.index(info);
        let (id, refusal) = self.enter_record(kernel, call, owner, options);
        if call.inputs.is_none() {
            self.enter(id.index, refusal, options);
        } else {
            self.enter_with_inputs(id, call, refusal, options);
        }
        id
    }

    /// Fills a record for a job. Also returns why the job is refused, if it is.
    #[inline(always)]
    pub(super) fn enter_record(
        &mut self,
        kernel: u32,
        call: &mut ArgWriter,
        owner: Owner,
        options: Option<&JobOptions>,
    ) -> (JobId, Refusal) {
        if call.seed == 0 && owner.has_handle() {
            call.seed = self.records.next_seed();
        }
        let (id, record) = self.records.add();
        record.kernel = kernel;
        record.owner = owner;
        record.seed = call.seed;
        if let Some(options) = options {
            self.set_options(id.index, options);
            if call.once {
                self.records.at(id.index).give_up();
            }
        }
        let refusal = self.write_call(id.index, call);
        crate::sync::point!("submit.recorded");
        (id, refusal.or_else(|| self.refusal(kernel, owner)))
    }

    /// Places or queues a job whose record is filled, or answers the refusal. Jobs of actors go to the lane of their
    /// state instead: [`call_actor`](Self::call_actor).
    #[inline]
    pub(super) fn enter(&mut self, index: u32, refusal: Refusal, options: Option<&JobOptions>) {
        if let Some(why) = refusal.or_else(|| options.and_then(too_late)) {
            return self.fail(index, *why, None, Vec::new());
        }
        if options.is_some() {
            let parts = (&mut self.records, &mut self.monitor);
            if self.permit_waiters.wait_for_permit(index, parts) {
                // The limiter decides when the job continues.
                return;
            }
        }
        let overtakes = self.scheduler.has_priorities() && self.overtake(index);
        if self.runs.is_processing() {
            if overtakes || !self.queue.is_clear() || !self.place(index) {
                let record = self.records.at(index);
                if let Owner::Task { .. } = record.owner {
                    // A spawned job goes ahead of all others: work that has begun ends before more is begun, so few
                    // jobs wait at any time.
                    self.queue.push_front(index, record);
                } else {
                    self.queue.push_back(index, record);
                }
                // `process_ends` notifies the lanes.
                self.runs.note_queued();
            }
        } else if overtakes {
            self.enqueue(index);
        } else if self.queue.is_clear() {
            if !self.place(index) {
                self.place_after_drain(index);
            }
        } else {
            // The lanes' flags say already that jobs are queued, so lanes ring before they are empty. Checking lanes
            // costs a cache line each, so it is not done for every job.
            self.queue.push_back(index, self.records.at(index));
            if self.queue.len().is_multiple_of(LOOK_EVERY) {
                self.catch_up();
            }
        }
    }

    /// Sets the options of a job in its record.
    pub(super) fn set_options(&mut self, index: u32, options: &JobOptions) {
        let mut policy = Policy::new(options.clone());
        policy.is_exclusive = self.config.deadlines_are_exclusive && options.deadline.is_some();
        let record = self.records.at(index);
        record.policy = Some(Box::new(policy));
        if options.retries > 0 && options.retry_errors {
            // Possibly no thread waits for the job when an attempt fails, and the monitor has to start the next
            // attempt.
            record.requests |= NOTICE;
            self.monitor.watch_memory();
        }
        self.scheduler.saw(options.priority);
    }

    /// Moves the call of a job into its record. Returns why the job is refused, if it is.
    #[inline(always)]
    pub(super) fn write_call(&mut self, index: u32, call: &mut ArgWriter) -> Refusal {
        if call.has_files() {
            // This is for calls that the engine completes; other calls were spilled without the lock.
            let alloc = |len| self.arena.alloc(0, len, BlockPlacement::Packed);
            call.copy_files(must_copy_files(self.config.is_sandboxed), alloc);
        }
        if call.inputs.is_some() {
            return refusal_of(call, self.config.is_sandboxed);
        }
        let form = if self.trace.is_on() { STAMPED } else { 0 };
        if fill(self.records.at(index), call, form) {
            return refusal_of(call, self.config.is_sandboxed);
        }
        self.fill_specially(index, call)
    }

    /// Like [`write_call`](Self::write_call), for a call that is traced or longer than a record.
    #[cold]
    fn fill_specially(&mut self, index: u32, call: &mut ArgWriter) -> Refusal {
        if let Some(trace) = self.trace.get() {
            trace.submitted(index, call);
        }
        let record = self.records.at(index);
        if record.form & SPILLED != 0 {
            return fill_long(record, call, &self.arena, self.config.is_sandboxed);
        }
        fill_inline(record, call);
        refusal_of(call, self.config.is_sandboxed)
    }

    /// Places a job when no lane seems to have room: drains the lanes first.
    fn place_after_drain(&mut self, index: u32) {
        // The job is in no queue yet: a failure that is drained now may cancel it with its group.
        self.records.at(index).stage = Stage::Waiting;
        self.drain_busy();
        let record = self.records.at(index);
        if record.stage != Stage::Waiting {
            return;
        }
        record.stage = Stage::Queued;
        if !self.place(index) {
            self.enqueue(index);
        }
    }

    /// Queues a job until a lane has room.
    #[cold]
    fn enqueue(&mut self, index: u32) {
        self.monitor.watch_memory();
        self.queue.push_back(index, self.records.at(index));
        crate::sync::point!("submit.retained");
        self.lanes.update_flags(&self.queue, &self.config);
        fence_after_queueing();
        self.catch_up();
    }

    #[inline]
    pub(super) fn refusal(&mut self, kernel: u32, owner: Owner) -> Refusal {
        if self.groups.refuses(owner) {
            return refuse(JobErrorKind::Cancelled);
        }
        let closed = match owner {
            // Spawned jobs that have begun are finished, unless the engine closes at once.
            Owner::Task { .. } => self.lifecycle.closes_now(),
            _ => self.lifecycle.closing() != Closing::No,
        };
        if closed {
            return refuse(JobErrorKind::ShutDown);
        }
        self.cannot_run(kernel)
    }

    /// Returns why no worker can run this kernel, if so: no worker is left, or the kernel is not part of the program.
    #[inline]
    pub(super) fn cannot_run(&mut self, kernel: u32) -> Refusal {
        if let Some(why) = self.lifecycle.broken() {
            return refuse(JobErrorKind::NoWorkers(why.clone()));
        }
        if self.kernels.get(kernel).offset.is_none() {
            return refuse(JobErrorKind::Rejected(Rejection::ForeignKernel));
        }
        None
    }
}

impl Supervisor {
    /// Submits a call. With a ceiling on bytes in flight, blocks until the call is admitted.
    #[inline]
    pub(crate) fn submit(
        &self,
        kernel: &KernelInfo,
        call: &mut ArgWriter,
        target: impl Into<Target>,
        options: Option<&JobOptions>,
    ) -> JobId {
        let target = target.into();
        let mut state = self.lock();
        let id;
        if state.admission.is_none() {
            state = self.spilled(state, call);
            id = state.submit_to(kernel, call, target, options);
        } else {
            (state, id) = self.submit_admitted(state, kernel, call, target, options);
        }
        self.unlock(state);
        id
    }

    /// Copies a call that is too long for a slot into the arena, where workers can read it. Called without the lock,
    /// because the copy may have to wait for memory that another thread commits.
    pub(super) fn spill(&self, call: &mut ArgWriter) {
        self.copy_files(call);
        if call.must_spill() {
            let words = call.words();
            call.spilled = Some(self.with_room(|arena| arena.alloc_words(words)));
            crate::sync::point!("submit.spilled");
        }
    }

    /// Copies into the arena the arrays of stores that the workers cannot map. Called without the lock, for the same
    /// reason as [`spill`](Self::spill).
    pub(super) fn copy_files(&self, call: &mut ArgWriter) {
        if call.has_files() {
            call.copy_files(must_copy_files(self.is_sandboxed()), |len| {
                self.with_room(|arena| arena.alloc(0, len, BlockPlacement::Packed))
            });
        }
    }

    /// Like [`spill`](Self::spill), for a caller that holds the lock: releases it meanwhile.
    #[inline]
    pub(super) fn spilled<'a>(&'a self, mut state: Locked<'a>, call: &mut ArgWriter) -> Locked<'a> {
        if call.must_spill() || call.has_files() {
            self.unlock(state);
            self.spill(call);
            state = self.lock();
        }
        state
    }

    /// Calls `alloc`, which allocates memory for an array. If there is no room, drains finished jobs, whose inputs are
    /// then free, and tries again.
    pub(crate) fn with_room<T>(
        &self,
        alloc: impl Fn(&Arc<Arena>) -> Result<T, ArenaFull>,
    ) -> Result<T, ArenaFull> {
        alloc(&self.arena).or_else(|_| {
            let mut state = self.lock();
            state.catch_up();
            self.unlock(state);
            let again = alloc(&self.arena);
            if again.is_err() && self.settings.retain.is_some() {
                // Wakes the lanes: memory that they have released while asleep is then free for the next call.
                self.lock().lanes.ring_retaining();
            }
            again
        })
    }
}

/// Returns true if workers cannot open descriptors of this process: sandboxed workers open nothing, and Linux denies it
/// for a process that is not dumpable.
#[cold]
fn must_copy_files(is_sandboxed: bool) -> bool {
    is_sandboxed || !crate::sys::process::is_dumpable()
}

/// Moves a call into its record. Returns false if the call needs the slow path.
#[inline]
fn fill(record: &mut Record, call: &mut ArgWriter, form: u32) -> bool {
    record.len = call.words().len() as u32;
    let spilled = call.words().len() > INLINE_WORDS;
    record.form = form | if spilled { SPILLED } else { 0 };
    let plain = record.form == 0;
    if plain {
        fill_inline(record, call);
    }
    plain
}

#[inline]
fn fill_inline(record: &mut Record, call: &mut ArgWriter) {
    let words = call.words();
    record.payload[..words.len()].copy_from_slice(words);
    if !call.leases.is_empty() {
        record.leases.append(&mut call.leases);
    }
}

#[inline]
fn refusal_of(call: &ArgWriter, sandboxed: bool) -> Refusal {
    if call.exclusive && sandboxed {
        return refuse(JobErrorKind::Rejected(Rejection::Lending));
    }
    if call.foreign {
        return refuse(JobErrorKind::Rejected(Rejection::ForeignArray));
    }
    call.full.and_then(|full| refuse(full.into()))
}

#[cold]
fn fill_long(
    record: &mut Record,
    call: &mut ArgWriter,
    arena: &Arc<Arena>,
    sandboxed: bool,
) -> Refusal {
    // Calls that the engine completes, and those of spawned jobs, were not spilled before the lock was taken.
    let spilled = call.spilled.take();
    let block = match spilled.unwrap_or_else(|| arena.alloc_words(call.words())) {
        Ok(block) => block,
        Err(full) => return refuse(full.into()),
    };
    let extent = block.extent();
    record.payload[0] = bytemuck::cast(extent.at);
    record.payload[1] = extent.len;
    record.leases.append(&mut call.leases);
    record.leases.push(Lease::Shared(Arc::new(block)));
    refusal_of(call, sandboxed)
}
