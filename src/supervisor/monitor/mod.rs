//! The monitor: the one thread of its own that an engine has.
//!
//! It starts workers, notices their end, answers requests for output memory, drains and refills lanes when no user
//! thread does, evens out work, and ends the engine. Without anything to do it sleeps without a time limit.

mod ends;
mod memory_requests;
mod starts;
mod template;

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

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
use crate::sys::process::{Exit, WatchPipe};

/// While clocks run, the monitor sleeps no longer than this. If it wakes up this much later than it wanted to, the
/// program was stopped.
const BEAT: Duration = Duration::from_millis(500);
/// How often the monitor looks whether one lane waits behind a long job while another has none.
const TICK: Duration = Duration::from_millis(1);
/// Time between two looks at memory that no block holds: see [`Arena::return_unused`](crate::arena::Arena::return_unused).
pub(in crate::supervisor) const UNUSED_PERIOD: Duration = Duration::from_secs(5);
/// After this many passes in a row that changed something, the monitor polls its descriptors, whatever else there is to
/// do.
const LISTEN_EVERY: u32 = 64;

const MONITOR_EVENT: u64 = u64::MAX;
const WORKER_EVENT: u64 = 1 << 32;
const TEMPLATE: u64 = u64::MAX - 1;

thread_local! {
    static IS_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is the monitor of some engine.
pub(in crate::supervisor) fn is_here() -> bool {
    IS_HERE.get()
}

/// Starts the monitor of an engine, which starts the workers.
pub(in crate::supervisor) fn spawn(shared: Arc<Supervisor>) -> crate::sys::Result<JoinHandle<()>> {
    let poller = Poller::new()?;
    poller.add(shared.monitor_event().as_fd(), MONITOR_EVENT)?;
    let pipe = WatchPipe::new()?;
    let run = move || {
        IS_HERE.set(true);
        let mut monitor = Monitor::new(shared, poller, pipe);
        // A panic here is a defect of this crate. No thread may wait without end because of it.
        match catch_unwind(AssertUnwindSafe(|| monitor.run())) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => monitor.end_without_poller(&error.to_string()),
            Err(_) => monitor.end_without_poller("the engine's monitor thread panicked"),
        }
        let shared = Arc::clone(&monitor.shared);
        drop(monitor);
        shared.flushes.end();
        // Otherwise the thread that joins this one does it.
        if shared.ends_last() {
            shared.finish();
        }
    };
    let builder = thread::Builder::new().name("arenite-monitor".into());
    crate::sys::process::start_thread(builder, run).map_err(|error| {
        let errno = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN));
        crate::sys::Error::new("clone", errno, "the monitor thread")
    })
}

pub(in crate::supervisor) struct Monitor {
    shared: Arc<Supervisor>,
    poller: Poller,
    /// What workers are copied from. Dropped before the pipe, whose end kills it.
    template: Templates,
    pipe: WatchPipe,
    /// Number of sleeps.
    epoch: u32,
    /// The workers were asked to stop. From this time on they are killed.
    stopping: Option<Instant>,
    /// The last job that had been submitted at the last pass.
    seen_job: u64,
    /// When the monitor last looked whether the program was stopped, and how long it had worked until then.
    pub(in crate::supervisor) looked: (Instant, Duration),
    /// How long it has slept since.
    pub(in crate::supervisor) slept: Duration,
    /// When it last looked whether work is spread badly.
    ticked: Instant,
    /// When it last looked at calls that maps have not submitted.
    looked_at_unsent: Instant,
    /// What workers reported before they gave up their start.
    refusals: HashMap<usize, String>,
    /// What workers print.
    outputs: OutputStreams,
    /// Disconnected when the handshake with the present process of a worker is over.
    handshakes: HashMap<usize, Receiver<()>>,
    /// Workers that are starting, and when they have to be ready.
    starting: HashMap<usize, Instant>,
    /// How much memory there is, and how much each worker has taken.
    memory: MemoryWatch,
    /// When to look next at memory that no block holds. `None`: there is none.
    unused_look: Option<Instant>,
    /// What the out-of-memory killer of Linux has done.
    kills: OomKills,
}

impl Monitor {
    fn new(shared: Arc<Supervisor>, poller: Poller, pipe: WatchPipe) -> Self {
        let workers = shared.workers();
        Monitor {
            kills: OomKills::new(&shared.settings.memory.root, workers),
            memory: MemoryWatch::new(shared.settings.memory.root.clone(), workers),
            unused_look: None,
            template: Templates::new(&shared.settings.program),
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
        }
    }

    /// A monitor that a test calls step by step.
    #[cfg(any(test, feature = "points"))]
    pub(in crate::supervisor) fn idle(shared: Arc<Supervisor>) -> Self {
        let poller = Poller::new().expect("a poller");
        Self::new(shared, poller, WatchPipe::new().expect("a pipe"))
    }

    /// Recovers a worker that is a handle in this process, for a test.
    #[cfg(any(test, feature = "points"))]
    pub(in crate::supervisor) fn bury(&mut self, index: usize, exit: Exit) {
        let mut words = self.outputs.finish(&self.shared, index);
        words.crash = self.shared.cells[index].reply().crash.read();
        let cause = self.cause_of(index, exit, &words, false);
        self.shared.recover(index, cause, None, words);
    }

    /// Kills all workers and answers every job: what a monitor that panicked, or cannot poll, can still do.
    fn end_without_poller(&self, why: &str) {
        {
            let mut state = self.shared.lock();
            state.runs.reset_after_panic();
            state.give_up(why);
            self.shared.unlock(state);
        }
        for index in 0..self.shared.workers() {
            let process = self.shared.lock().workers[index].take_process();
            let Some(process) = process else { continue };
            // Fails if it has ended already. Either way its exit is waited for.
            let _ = process.pidfd.kill_group(Signal::SIGKILL);
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
    /// If descriptors cannot be polled, as where a filter refuses the system call: then nothing can be supervised.
    fn run(&mut self) -> crate::sys::Result<()> {
        let mut hasty = 0u32;
        loop {
            self.start_absent();
            self.look_at_template();
            self.end_overdue();
            self.look_at_memory();
            let progress = self.serve();
            if self.step_closing() {
                return Ok(());
            }
            // A worker that always requests something must not delay the handling of other workers' ends.
            hasty = if progress { hasty + 1 } else { 0 };
            if !hasty.is_multiple_of(LISTEN_EVERY) {
                continue;
            }
            self.arm(true);
            // Once more, now that workers know that they have to ring.
            let progress = self.serve() || self.may_stop();
            // A job that was submitted only now is watched too.
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

    /// Returns memory of the arena that was not in use for a while, if it is time. Returns when to look next.
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

    /// Sleeps until it is rung, a worker ends, or it is time for something; at most for `limit`.
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

    /// Notices whether the program was stopped while this thread was awake: then it has worked less than time has
    /// passed. To be called before clocks are read. Reading the work is expensive, so it is done once in a while.
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

    /// The program was stopped, by Ctrl-Z or a debugger, or the machine gave it no time. Whatever is to end by some
    /// time may take this much longer. Workers were not necessarily stopped too: what has ended meanwhile is found
    /// ended.
    fn postpone(&mut self, by: Duration) {
        let ends = self.starting.values_mut().chain(&mut self.stopping);
        ends.for_each(|at| *at = clock::postponed(*at, by));
        self.template.postpone(by);
        self.shared.lock().postpone(by);
    }

    /// When there is something to do without being rung.
    fn next_time(&self) -> Option<Duration> {
        let mut state = self.shared.lock();
        let now = Instant::now();
        let starts = match self.template.is_awaited() {
            true => None,
            false => state.next_start(now),
        };
        let tick = state.monitor.ticks().then(|| now + TICK);
        let unsent =
            (!state.pending_batches.is_empty()).then_some(self.looked_at_unsent + BETWEEN_LOOKS);
        let starting = self.starting.values().copied();
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
        let clocks = state.has_clocks()
            || !self.starting.is_empty()
            || self.stopping.is_some()
            || self.template.until().is_some();
        let next = next.map(|at| if clocks { at.min(now + BEAT) } else { at });
        state.monitor.sleeps_until(next);
        next.map(|at| at.saturating_duration_since(now))
    }

    /// Handles a readable descriptor: the monitor was rung, a worker printed something, or a worker ended.
    fn handle(&mut self, token: u64) {
        if token == MONITOR_EVENT {
            let _ = self.shared.monitor_event().clear();
            return;
        }
        if token == TEMPLATE {
            self.hear_template();
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

    /// Does everything that may have become possible. Returns whether something changed that may make more possible at
    /// once.
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
            // A thread that submits needs a core of its own: then sleeping workers stay asleep.
            let submitted = state.records.submitted();
            state
                .scheduler
                .set_submitter_idle(submitted == self.seen_job);
            self.seen_job = submitted;
            state.drain_busy();
            state.run_timers();
            state.refill();
            // The monitor is awake.
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
                    // A lane without a job needs no memory, and would take all there is.
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

/// How long a thread did nothing although it was awake.
pub(in crate::supervisor) fn idle(passed: Duration, slept: Duration, worked: Duration) -> Duration {
    passed.saturating_sub(slept).saturating_sub(worked)
}

/// The process of this worker, while there is one.
fn process_of(workers: &[Worker], index: usize) -> Option<&Arc<Process>> {
    workers.get(index)?.process()
}
