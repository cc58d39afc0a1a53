//! The monitor: the only thread that an engine starts for itself.
//!
//! It starts workers, notices their ends, answers requests for output memory, drains and refills lanes while no thread
//! of the program does, moves jobs to idle lanes, and ends the engine. With nothing to do it sleeps without a time
//! limit.

mod ends;
mod memory_requests;
mod observers;
mod starts;
#[cfg(feature = "template")]
mod template;

use starts::Starting;
use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::control::StartFailure;
#[cfg(feature = "sandbox")]
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::exit_causes::{self, OomKills};
use crate::supervisor::memory::MemoryWatch;
use crate::supervisor::output::last_words::LastWords;
use crate::supervisor::output::streams::{OutputStreams, STDERR, STDOUT};
use crate::supervisor::pending_batch::BETWEEN_LOOKS;
use crate::supervisor::shared::Supervisor;
use crate::supervisor::template::Templates;
use crate::supervisor::worker::{Process, Worker};
use crate::sync::FIRST_COUNT;
use crate::sys::clock;
use crate::sys::event::Poller;
use crate::sys::listener::Listener;
use crate::sys::process::{Exit, WatchPipe};

/// While clocks run, the monitor sleeps at most this long. If it wakes up later than planned by this much, then the
/// program was stopped.
const BEAT: Duration = Duration::from_millis(500);
/// How often the monitor checks whether jobs wait for a long job on one lane while another lane has none.
const TICK: Duration = Duration::from_millis(1);
/// The time between two checks for unused memory of the arena: see
/// [`Arena::return_unused`](crate::arena::Arena::return_unused).
pub(in crate::supervisor) const UNUSED_PERIOD: Duration = Duration::from_secs(5);
/// After this number of consecutive passes that changed something, the monitor polls its descriptors, whatever else it
/// has to do.
const LISTEN_EVERY: u32 = 64;

const MONITOR_EVENT: u64 = u64::MAX;
const WORKER_EVENT: u64 = 1 << 32;
const OBSERVERS: u64 = u64::MAX - 1;

thread_local! {
    /// The supervisor whose monitor this thread is. Only compared.
    static MONITORED: Cell<*const Supervisor> = const { Cell::new(ptr::null()) };
}

/// Returns true if this thread is the monitor of an engine.
pub(in crate::supervisor) fn is_here() -> bool {
    !MONITORED.get().is_null()
}

impl Supervisor {
    /// Called before this thread waits for a job of this engine.
    ///
    /// # Panics
    ///
    /// If this thread is the engine's monitor: it runs a waker, and the job may need a worker that only the monitor can
    /// start.
    pub(crate) fn assert_may_wait(&self) {
        assert!(
            !ptr::eq(MONITORED.get(), self),
            "a waker waits for a job of its engine, which cannot go on until the waker has returned: let the waker \
             wake a thread that waits"
        );
    }
}

/// Starts the monitor of an engine, which starts the workers.
pub(in crate::supervisor) fn spawn(shared: Arc<Supervisor>) -> crate::sys::Result<JoinHandle<()>> {
    let poller = Poller::new()?;
    poller.add(shared.monitor_event().as_fd(), MONITOR_EVENT)?;
    let pipe = WatchPipe::new()?;
    let (keeps, kept) = channel();
    let run = move || {
        MONITORED.set(Arc::as_ptr(&shared));
        // Later workers start where the program was when it built the engine, even if it changes its root directory.
        // Where this is refused, only the working directory is kept.
        crate::sys::process::keep_own_folders();
        drop(keeps);
        let mut monitor = Monitor::new(shared, poller, pipe);
        monitor.observers = observers::listen(&monitor.poller);
        // A panic here is a bug of this crate. No thread may wait endlessly because of it.
        match catch_unwind(AssertUnwindSafe(|| monitor.run())) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => monitor.end_without_poller(&error.to_string()),
            Err(_) => monitor.end_without_poller("the engine's monitor thread panicked"),
        }
        let shared = Arc::clone(&monitor.shared);
        drop(monitor);
        shared.flushes.end();
        // If this thread does not end last, the thread that joins it finishes the engine.
        if shared.ends_last() {
            shared.finish();
        }
    };
    let builder = thread::Builder::new().name("arenite-monitor".into());
    let monitor = crate::sys::process::start_thread(builder, run).map_err(|error| {
        let errno = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN));
        crate::sys::Error::new("clone", errno, "the monitor thread")
    })?;
    let _: Result<(), _> = kept.recv();
    Ok(monitor)
}

pub(in crate::supervisor) struct Monitor {
    shared: Arc<Supervisor>,
    poller: Poller,
    /// The template that workers are forked from. Dropped before the pipe, whose end kills the template.
    template: Templates,
    pipe: WatchPipe,
    /// Counts the sleeps.
    epoch: u32,
    /// Set when the workers were asked to stop: the time at which they are killed.
    stopping: Option<Instant>,
    /// The number of the last job that had been submitted at the last pass.
    seen_job: u64,
    /// When the monitor last checked whether the program was stopped, and the processor time it had used until then.
    pub(in crate::supervisor) looked: (Instant, Duration),
    /// How long the monitor has slept since the time in `looked`.
    pub(in crate::supervisor) slept: Duration,
    /// When the monitor last checked whether jobs are spread badly.
    ticked: Instant,
    /// When the monitor last checked calls that maps have not submitted.
    looked_at_unsent: Instant,
    /// Reports of workers that could not start.
    refusals: HashMap<usize, StartFailure>,
    /// The streams that workers print to.
    outputs: OutputStreams,
    /// For each worker, a channel that is disconnected when the handshake with its present process is over.
    handshakes: HashMap<usize, Receiver<()>>,
    /// Workers that are starting.
    starting: HashMap<usize, Starting>,
    /// The memory of the machine and of each worker.
    memory: MemoryWatch,
    /// The time of the next check for unused memory of the arena. `None`: there is none.
    unused_look: Option<Instant>,
    /// The kills of Linux's out-of-memory killer.
    kills: OomKills,
    /// The socket at which processes ask for the engine's state.
    observers: Option<Listener>,
}

impl Monitor {
    fn new(shared: Arc<Supervisor>, poller: Poller, pipe: WatchPipe) -> Self {
        let workers = shared.workers();
        Monitor {
            kills: OomKills::new(&shared.settings.memory.root, workers),
            memory: MemoryWatch::new(shared.settings.memory.root.clone(), workers),
            unused_look: None,
            template: Templates::new(&shared.settings),
            shared,
            poller,
            pipe,
            epoch: FIRST_COUNT,
            stopping: None,
            looked: (Instant::now(), clock::thread_cpu_time()),
            slept: Duration::ZERO,
            ticked: Instant::now(),
            looked_at_unsent: Instant::now(),
            seen_job: 0,
            refusals: HashMap::new(),
            outputs: OutputStreams::default(),
            handshakes: HashMap::new(),
            starting: HashMap::new(),
            observers: None,
        }
    }

    /// Returns a monitor that a test advances step by step.
    #[cfg(any(test, feature = "points"))]
    pub(in crate::supervisor) fn idle(shared: Arc<Supervisor>) -> Self {
        let poller = Poller::new().expect("a poller");
        Self::new(shared, poller, WatchPipe::new().expect("a pipe"))
    }

    /// Recovers a worker that is a handle in this process, for a test.
    #[cfg(any(test, feature = "points"))]
    pub(in crate::supervisor) fn recover_for_test(&mut self, index: usize, exit: Exit) {
        let mut words = self.outputs.finish(&self.shared, index);
        words.crash = self.shared.cells[index].reply().crash.read();
        let cause = self.cause_of(index, exit, &words, false);
        self.shared.recover(index, cause, None, words);
    }

    /// Kills all workers and answers every job. Used if the monitor has panicked or cannot poll.
    fn end_without_poller(&mut self, why: &str) {
        {
            let mut state = self.shared.lock();
            // A panic may have interrupted the processing of ends.
            state.runs.end_processing();
            state.give_up(why);
            self.shared.unlock(state);
        }
        for index in 0..self.shared.workers() {
            let process = self.shared.lock().workers[index].take_process();
            let Some(process) = process else { continue };
            // Succeeds if the process has ended already. In both cases its exit is awaited.
            if process.pidfd.kill_group(Signal::SIGKILL).is_err() {
                self.pipe.hang_up();
            }
            process.handshake.release();
            let exit = process.pidfd.wait_exit().unwrap_or(Exit::Unknown);
            let words = LastWords::default();
            self.shared
                .recover(index, exit_causes::plain(exit), None, words);
        }
        let mut state = self.shared.lock();
        #[cfg(feature = "sandbox")]
        state.fail_uncopied(&JobErrorKind::NoWorkers(why.to_owned()));
        state.end();
        self.shared.unlock(state);
    }

    /// Supervises until the engine has ended.
    ///
    /// # Errors
    ///
    /// If descriptors cannot be polled, for example because a filter denies the system call: then nothing can be
    /// supervised.
    fn run(&mut self) -> crate::sys::Result<()> {
        let mut hasty = 0u32;
        loop {
            self.start_absent();
            #[cfg(feature = "template")]
            self.look_at_template();
            self.end_overdue();
            self.look_at_memory();
            let progress = self.serve();
            if self.step_closing() {
                return Ok(());
            }
            self.end_unkillable();
            // A worker that requests something endlessly must not delay the handling of other workers' ends.
            hasty = if progress { hasty + 1 } else { 0 };
            if !hasty.is_multiple_of(LISTEN_EVERY) {
                continue;
            }
            self.arm(true);
            // Another pass, now that workers know that they have to ring.
            let progress = self.serve() || self.may_stop();
            // This also starts to watch memory for a job that was submitted only now.
            self.look_at_memory();
            self.return_unused(Instant::now());
            let tokens = self.sleep(progress.then_some(Duration::ZERO))?;
            self.arm(false);
            for token in tokens {
                self.handle(token);
            }
        }
    }

    fn look_at_memory(&mut self) {
        if self.memory.look(&self.shared) {
            self.kills.look(Instant::now());
        }
    }

    /// Returns memory of the arena to Linux that was unused for a while, if it is time. Returns the time of the next
    /// check.
    pub(in crate::supervisor) fn return_unused(&mut self, now: Instant) -> Option<Instant> {
        let arena = &self.shared.arena;
        let looks_on = match self.unused_look {
            Some(at) if at > now => return Some(at),
            Some(_) => arena.return_unused(),
            None => arena.has_unused(),
        };
        self.unused_look = looks_on.then(|| now + UNUSED_PERIOD);
        self.unused_look
    }

    fn arm(&mut self, asleep: bool) {
        let Some(cells) = self.shared.cells.first() else {
            return;
        };
        let hub = cells.hub();
        if asleep {
            self.epoch = self.epoch.wrapping_add(1).max(1);
            hub.arm(self.epoch);
        } else {
            hub.disarm();
        }
    }

    /// Sleeps until the monitor is rung, a worker ends, or a timer is due, for at most `limit`.
    fn sleep(&mut self, limit: Option<Duration>) -> crate::sys::Result<Vec<u64>> {
        let limit = limit.or_else(|| self.next_time());
        let asleep = Instant::now();
        let tokens = self.poller.wait(limit)?;
        let slept = asleep.elapsed();
        if limit.is_some_and(|limit| slept > limit.saturating_add(BEAT)) {
            self.postpone(slept);
        }
        self.slept += slept;
        Ok(tokens)
    }

    /// Detects whether the program was stopped while this thread was awake: then the thread has used less processor
    /// time than has passed. Called before clocks are read. Reading the processor time is expensive, so it is done only
    /// now and then.
    fn look_at_itself(&mut self, now: Instant) {
        let (since, worked) = self.looked;
        let passed = now.saturating_duration_since(since);
        if passed <= BEAT {
            return;
        }
        let works = clock::thread_cpu_time();
        let idle = idle(passed, self.slept, works.saturating_sub(worked));
        if idle > BEAT {
            self.postpone(idle);
        }
        self.looked = (now, works);
        self.slept = Duration::ZERO;
    }

    /// Postpones all deadlines after the program was stopped by Ctrl-Z or a debugger, or got no time on the machine.
    /// Workers may have continued meanwhile: jobs that have ended by then keep their values.
    fn postpone(&mut self, by: Duration) {
        let starting = self.starting.values_mut().map(|start| &mut start.until);
        let ends = starting.chain(&mut self.stopping);
        ends.for_each(|at| *at = clock::postponed(*at, by));
        self.template.postpone(by);
        self.shared.lock().postpone(by);
    }

    /// Returns the time after which the monitor has something to do without being rung.
    fn next_time(&self) -> Option<Duration> {
        let mut state = self.shared.lock();
        let now = Instant::now();
        let starts = match self.template.is_awaited() {
            true => None,
            false => {
                let needed = state.needs_workers();
                state.workers.next_start(&state.config, needed, now)
            }
        };
        let tick = state.monitor.ticks().then(|| now + TICK);
        let unsent =
            (!state.pending_batches.is_empty()).then_some(self.looked_at_unsent + BETWEEN_LOOKS);
        let starting = self.starting.values().map(|start| start.until);
        let times = starts
            .into_iter()
            .chain(starting)
            .chain(self.stopping)
            .chain(self.template.until())
            .chain(tick);
        let times = times
            .chain(self.memory.next())
            .chain(self.unused_look)
            .chain(unsent);
        let next = times
            .chain(state.next_timer())
            .chain(self.outputs.due())
            .min();
        let clocks = state.monitor.take_end()
            || state.has_clocks()
            || !self.starting.is_empty()
            || self.stopping.is_some()
            || self.template.until().is_some();
        let next = next.map(|at| if clocks { at.min(now + BEAT) } else { at });
        state.monitor.sleeps_until(next, clocks);
        next.map(|at| at.saturating_duration_since(now))
    }

    /// Handles a readable descriptor: the monitor was rung, an observer has connected, a worker printed something, or a
    /// worker ended.
    fn handle(&mut self, token: u64) {
        if token == MONITOR_EVENT {
            let _ = self.shared.monitor_event().clear();
            return;
        }
        if token == OBSERVERS {
            self.answer_observers();
            return;
        }
        let index = (token & (WORKER_EVENT - 1)) as usize;
        if token & (STDOUT | STDERR) != 0 {
            self.outputs.read_ready(&self.shared, index, token);
            return;
        }
        if token & WORKER_EVENT != 0 {
            let state = self.shared.lock();
            if let Some(process) = process_of(&state.workers, index) {
                let _ = process.event.clear();
            }
            return;
        }
        self.reap(index);
    }

    /// Does everything that is possible now. Returns true if a change may make more possible at once.
    pub(in crate::supervisor) fn serve(&mut self) -> bool {
        let mut progress = self.take_refusals();
        self.outputs.tick(&self.shared);
        if let Some(made) = self.shared.flushes.open() {
            self.outputs.flush(&self.shared);
            self.shared.flushes.done(made);
        }
        let now = Instant::now();
        self.look_at_itself(now);
        let (short, unsent);
        let wants = {
            let mut state = self.shared.lock();
            // A thread that submits needs a core of its own: then sleeping workers are not woken.
            let submitted = state.records.submitted();
            state
                .scheduler
                .set_submitter_idle(submitted == self.seen_job);
            self.seen_job = submitted;
            state.drain_busy();
            state.run_timers();
            state.refill();
            // Clears calls: the monitor is awake.
            state.monitor.take_call();
            let tick = now.saturating_duration_since(self.ticked) >= TICK;
            if tick {
                self.ticked = now;
            }
            unsent = !state.pending_batches.is_empty()
                && now.saturating_duration_since(self.looked_at_unsent) >= BETWEEN_LOOKS;
            state.even_out(tick);
            state.scheduler.set_submitter_idle(false);
            let wanted = state.lanes.iter().enumerate().filter_map(|(index, lane)| {
                let retiring = || state.workers[state.lanes.worker_of(index)].is_retiring();
                let ready = lane.is_ready() || retiring();
                lane.producer
                    .alloc_request()
                    // Only lanes with jobs are served: a lane without a job needs no memory, and could request all
                    // there is.
                    .filter(|_| ready && lane.live() > 0)
                    .map(|want| (index, lane.generation(), want))
            });
            let wants: Vec<_> = wanted.collect();
            let lanes = state.lanes.iter_mut().enumerate();
            short = lanes
                .filter_map(|(index, lane)| {
                    let bytes = lane.grants_mut().take_short_of()?;
                    Some((index, lane.generation(), bytes))
                })
                .collect::<Vec<_>>();
            // The last job has ended: the workers are asked to stop, once.
            progress |= state.is_drained() && self.stopping.is_none();
            progress |= state.monitor.take_look_again();
            state.monitor.take_call();
            self.shared.unlock(state);
            wants
        };
        if unsent {
            self.looked_at_unsent = now;
            self.shared.send_stalled_batches();
        }
        #[cfg(feature = "sandbox")]
        if self.shared.is_sandboxed() {
            progress |= self.shared.copy_values();
        }
        for (index, generation, want) in wants {
            self.grant(index, generation, want);
            progress = true;
        }
        for (index, generation, bytes) in short {
            self.grant_ahead(index, generation, bytes);
        }
        progress
    }
}

/// Returns how long a thread was awake without running.
pub(in crate::supervisor) fn idle(passed: Duration, slept: Duration, worked: Duration) -> Duration {
    passed.saturating_sub(slept).saturating_sub(worked)
}

/// Returns the process of this worker, if it has one.
fn process_of(workers: &[Worker], index: usize) -> Option<&Arc<Process>> {
    workers.get(index)?.process()
}
