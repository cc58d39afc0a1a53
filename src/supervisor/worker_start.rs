//! Starts the process of a worker, and runs its handshake.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::settings::StartError;
use super::shared::Supervisor;
use super::state::EngineState;
use super::template::Templates;
use super::worker::{Process, Refusal, Status};
use crate::control::{HandshakeError, LaneStart, Server, Welcome};
use crate::sync::FIRST_COUNT;
use crate::sys::code_maps;
use crate::sys::event::EventFd;
use crate::sys::pipe::{self, OutputPipe};
use crate::sys::process::{self, PidFd, WatchPipe};
use crate::worker::Mark;

/// The first grant of a worker, on small pages, so that Linux does not collapse it into huge pages before the first
/// result.
const FIRST_GRANT: u64 = 64 * 1024;

/// Returns true if a sandboxed worker gets this variable of the environment: only variables that the loader, the C
/// library and Rust's standard library read, or that set the number of threads of linear algebra libraries; no variable
/// in which a program stores secrets. `RUST_BACKTRACE` is left out: the worker cannot look up the names, and trying
/// would hide why memory was short.
fn is_plain(name: &[u8]) -> bool {
    const NAMES: [&str; 7] = [
        "PATH",
        "LANG",
        "LANGUAGE",
        "TZ",
        "LD_LIBRARY_PATH",
        "RUST_MIN_STACK",
        "GLIBC_TUNABLES",
    ];
    const BEGINNINGS: [&str; 3] = ["LC_", "MALLOC_", "ARENITE_"];
    NAMES.iter().any(|known| name == known.as_bytes())
        || name.ends_with(b"_NUM_THREADS")
        || BEGINNINGS
            .iter()
            .any(|known| name.starts_with(known.as_bytes()))
}

/// Returns the environment of workers: the environment of this process; in a sandbox, only variables that its kernels
/// need.
///
/// Called on the thread that builds the engine. If another thread called this, code of the program could change the
/// environment at the same time: C's `setenv` does not take the lock of Rust's standard library.
pub(crate) fn environment(sandboxed: bool) -> Vec<CString> {
    process::environment(|name| !sandboxed || is_plain(name))
}

/// A worker that was started, and its handshake.
#[derive(Debug)]
pub(super) struct Started {
    worker: usize,
    generation: u32,
    server: Server,
    welcome: Welcome,
}

impl Supervisor {
    /// Starts the process of a worker, as a fork of the template if there is one. Called only on the monitor thread:
    /// Linux ends a worker when the *thread* that started it ends. Also returns the pipes of the worker's stdout and
    /// stderr.
    pub(super) fn spawn_worker(
        &self,
        index: usize,
        watch: &WatchPipe,
        template: &mut Templates,
    ) -> Result<(Started, [OwnedFd; 2]), StartError> {
        let system = StartError::System;
        // The program may have closed its standard streams since the engine was built.
        let program = &self.settings.program.program;
        let null = program.null();
        pipe::open_closed_standard(null).map_err(system)?;
        let server = Server::new().map_err(StartError::Worker)?;
        crate::sync::point!("spawn.served");
        let event = EventFd::new().map_err(system)?;
        let welcome = {
            let state = self.lock();
            let lanes = state.lanes.of_worker(index).map(|link| {
                let producer = &state.lanes[link].producer;
                LaneStart {
                    link: link as u32,
                    position: producer.tail(),
                    grants: producer.granted(),
                }
            });
            Welcome {
                worker: index as u32,
                generation: state.workers[index].generation().wrapping_sub(FIRST_COUNT),
                region: state.lanes[index].region(),
                lanes: lanes.collect(),
                guard: self.settings.guard,
                memory_limit: self.settings.memory_limit,
                keep_freed: self.keep_freed(),
                sandboxed: self.settings.sandboxed,
                #[cfg(feature = "sandbox")]
                kernel: self.settings.kernel,
                on_start: self.settings.on_start.clone(),
                retain: self.settings.retain,
                events: super::output::events::wanted(),
                label: self.settings.label.clone(),
                reservation: self.arena.reservation(),
                seed: self.settings.seed,
                cores: u32::try_from(self.cores()).unwrap_or(u32::MAX),
            }
        };
        let (stdout, stderr) = (
            OutputPipe::new().map_err(system)?,
            OutputPipe::new().map_err(system)?,
        );
        let standard = [null.as_fd(), stdout.write.as_fd(), stderr.write.as_fd()];
        let mut fds = vec![watch.read.as_fd(), event.as_fd(), server.socket()];
        fds.extend(self.arena.descriptors());
        let mark = Mark {
            is_forked: self.settings.program.start.is_forked(),
            ..Mark::new(program, &fds, &standard)
        };
        let copy = template.copy(&mark, standard, &fds).map_err(system)?;
        let pid = match &copy {
            Some(copy) => copy.pid(),
            None => mark.spawn(program, &fds, standard).map_err(system)?,
        };
        // Closes descriptors that only the worker needs before its pidfd is opened, so that a number is free for the
        // pidfd.
        let (stdout, stderr) = (stdout.into_read(), stderr.into_read());
        // Without a pidfd the worker cannot be watched.
        crate::sync::point!("spawn.started");
        let pidfd = match copy.map_or_else(|| PidFd::open(pid), Ok) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                process::end_unwatched(pid);
                return Err(system(error));
            }
        };
        // With several lanes, output cannot be attributed to a job.
        let announced = [&stdout, &stderr]
            .into_iter()
            .filter(|_| self.settings.lanes == 1);
        for pipe in announced {
            // If this fails, lines are attributed to jobs less exactly.
            let _ = pipe::signal_writer(pipe.as_fd(), pid);
        }
        crate::sync::point!("spawn.watched");
        let mut state = self.lock();
        let generation = state.next_generation(index);
        state.set_status(index, Status::Starting);
        state.workers[index].set_process(Process {
            pidfd,
            event,
            handshake: server.handshake_socket(),
        });
        if let Some(trace) = state.trace.get() {
            trace.spawned(index);
        }
        let started = Started {
            worker: index,
            generation,
            server,
            welcome,
        };
        Ok((started, [stdout, stderr]))
    }

    /// Runs the handshake with a started worker on a thread of its own, and grants it memory meanwhile. The returned
    /// receiver is disconnected when the handshake is over, with or without success.
    pub(super) fn greet(self: &Arc<Self>, started: Started) -> Receiver<()> {
        let Started {
            worker,
            generation,
            server,
            welcome,
        } = started;
        crate::sync::point!("spawn.recorded");
        let shared = Arc::clone(self);
        let (hold, over) = channel();
        let answer = move || {
            // The socket would take an interrupted system call for the end of the worker.
            process::block_sent_signals();
            match server.answer(&shared.settings.program.id, welcome) {
                Ok(greeted) => {
                    shared.welcome(worker, generation, &greeted.code);
                    drop(greeted);
                }
                Err(why) => shared.refused(Refusal {
                    worker,
                    generation,
                    why,
                }),
            }
            drop(hold);
        };
        let thread = thread::Builder::new()
            .name("arenite-hello".into())
            .stack_size(256 * 1024);
        if let Err(error) = process::start_thread(thread, answer) {
            let errno = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN));
            let error = crate::sys::Error::new("clone", errno, "a thread for a worker's start");
            let why = HandshakeError::Channel(error.into());
            self.refused(Refusal {
                worker,
                generation,
                why,
            });
        }
        // The first lane gets this grant, because it is used first. The others request memory.
        let region = self.lock().lanes[worker].region();
        if let Ok(block) = self.arena.grant(region, FIRST_GRANT, false) {
            let mut state = self.lock();
            let lane = &mut state.lanes[worker];
            if lane.generation() == generation {
                // A link without grants has room for one.
                drop(lane.grant(block));
            }
        }
        over
    }

    /// Records that the worker is ready. It gets jobs unless it is a spare.
    fn welcome(&self, index: usize, generation: u32, code: &[u8]) {
        crate::sync::point!("spawn.greeted");
        let code = self.settings.sandboxed.then(|| code_maps::parse(code));
        let mut state = self.lock();
        let worker = &mut state.workers[index];
        // Ignores a process that has ended or was asked to end.
        if worker.generation() != generation || worker.status() != Status::Starting {
            return;
        }
        worker.forget_failed_starts();
        worker.set_code(code.map(Arc::from));
        state.set_status(index, Status::Spare);
        let pid = state.workers[index].pid();
        if let Some(trace) = state.trace.get() {
            trace.ready(index, pid);
        }
        // From now on, a failed start is only one of many attempts. An engine that starts in the foreground has started
        // when all workers that may be active are ready at the same time.
        if self.settings.in_background || state.lanes.ready() == self.active_lanes() {
            state.lifecycle.set_started();
        }
        state.waiters.notify_start();
        let EngineState {
            lanes,
            queue,
            config,
            ..
        } = &mut *state;
        lanes.update_flags(queue, config);
        state.refill();
        // The monitor counts this worker when it waits for the last job or moves jobs. It also calls the wakers of
        // ended jobs, which are foreign code and may need more stack than this thread has.
        drop(state);
        self.ring();
        crate::sync::point!("spawn.welcomed");
    }
}
