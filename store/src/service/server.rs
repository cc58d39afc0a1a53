//! The server: [`Service`].
//!
//! All its threads run the same loop. One thread at a time, the *leader*, waits for packets and answers questions; each
//! of the other threads runs a call or is idle. A leader that has received a short call runs it on its own thread,
//! which saves a switch between threads; during a longer call, an idle thread becomes the leader. The number of threads
//! is one more than the number of calls that may run, so that cancellations and hang-ups are always noticed.

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arenite::Engine;
use arenite::kernel::{Kernel, Reply};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::IntoValue;
use super::error::{ServiceError, ServiceErrorKind};
use super::kernel::{Handler, ServiceParams, Submission, Typed};
use super::message::{
    Answer, ErrorCode, Failure, KernelInfo, KernelStatus, MemoryStatus, Outcome, PROTOCOL, Request,
    ServiceInfo, Status, WorkerStatus,
};
use super::state::{State, Waiting};
use super::value::{MAX_FILES, Value, decode, encode};
use crate::acceptor::{Acceptor, check_room};
use crate::closer::Closer;
use crate::message::MAX_PACKET;
use crate::place::{Claim, now, program_of};
use crate::sys;
use crate::sys::event::{EventFd, Poller};
use crate::sys::packet::{Packet, PacketSocket};
use crate::{Stopper, point};

/// The default number of calls that a client may have open.
const MAX_CALLS: usize = 64;
/// Maximum length of a kernel's name in bytes.
const MAX_NAME: usize = 64;
/// The time after which a leader that waits for a call lets another thread lead.
const SHORT: Duration = Duration::from_micros(60);

const LISTENER: u64 = 0;
const STOPPER: u64 = 1;
const FIRST_CLIENT: u64 = 2;

/// Kernels that other programs of this user can call under names.
///
/// ```standalone_crate
/// use arenite::{Array, Engine};
/// use arenite_store::service::{Service, connect};
///
/// fn mean(values: &[f64]) -> Result<f64, String> {
///     if values.is_empty() {
///         return Err("no values".to_owned());
///     }
///     Ok(values.iter().sum::<f64>() / values.len() as f64)
/// }
///
/// arenite::init();
/// # let dir = tempfile::tempdir()?;
/// # let name = dir.path().join("example.sock");
/// # let name = name.to_str().expect("UTF-8");
/// let engine = Engine::builder().workers(1).build()?;
/// let serving = Service::new(engine).kernel("mean", mean).bind(name)?;
/// let stopper = serving.stopper();
/// let running = std::thread::spawn(move || serving.run());
///
/// let service = connect(name)?;
/// assert_eq!(service.info()?.kernels[0].signature, "(array f8) -> f64");
/// let values = Array::from_slice(&[1.0, 2.0, 6.0]);
/// assert_eq!(service.call::<f64>("mean", (&values,)).wait()?, 3.0);
///
/// stopper.stop();
/// running.join().expect("no panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a service does nothing until it is run"]
pub struct Service {
    engine: Engine,
    kernels: Vec<Offered>,
    deadline: Option<Duration>,
    max_calls: usize,
}

struct Offered {
    name: String,
    signature: String,
    arity: usize,
    handler: Box<dyn Handler>,
}

impl Service {
    /// Creates a service that runs its kernels in this engine. It has no kernels yet.
    pub fn new(engine: Engine) -> Service {
        Service {
            engine,
            kernels: Vec::new(),
            deadline: None,
            max_calls: MAX_CALLS,
        }
    }

    /// Offers a kernel under a name of at most 64 bytes.
    pub fn kernel<F, P, R>(mut self, name: &str, kernel: F) -> Service
    where
        F: Kernel<P, R> + Sync,
        P: ServiceParams + 'static,
        R: Reply + 'static,
        R::Out: IntoValue,
    {
        let handler = Typed::new(kernel);
        self.kernels.push(Offered {
            name: name.to_owned(),
            signature: handler.signature(),
            arity: handler.arity(),
            handler: Box::new(handler),
        });
        self
    }

    /// Limits how long each call may run. A client can set a shorter limit.
    pub fn deadline(mut self, limit: Duration) -> Service {
        self.deadline = Some(limit);
        self
    }

    /// Limits how many calls a client may have open: 64 by default, at least 1.
    pub fn max_calls(mut self, calls: usize) -> Service {
        self.max_calls = calls.max(1);
        self
    }

    /// Claims the name for this user, or the path of a socket, and listens. Clients can connect from now on;
    /// [`Serving::run`] answers them. A socket that was passed to this process for this path (`LISTEN_FDS`) is used.
    ///
    /// # Errors
    ///
    /// [`ServiceErrorKind::AlreadyRunning`] if a service or a store of this name runs, [`ServiceErrorKind::BadName`] if
    /// the name is not allowed or two kernels have the same name, [`ServiceErrorKind::Denied`] if the folder of the
    /// sockets belongs to another user.
    pub fn bind(self, name: &str) -> Result<Serving, ServiceError> {
        let mut names = HashSet::new();
        for kernel in &self.kernels {
            let problem = match kernel.name.len() {
                0 => "is empty",
                len if len > MAX_NAME => "is longer than 64 bytes",
                _ if kernel.name.chars().any(char::is_control) => "contains control characters",
                _ if !names.insert(&kernel.name) => "is given to two kernels",
                _ => continue,
            };
            let text = format!("the name {:?} {problem}", kernel.name);
            return Err(ServiceError::new(ServiceErrorKind::BadName, text));
        }
        check_room()?;
        let Some(mut claim) = Claim::new(name)? else {
            return Err(ServiceError::new(
                ServiceErrorKind::AlreadyRunning,
                format!("{name} is served already; stop that server, or choose another name"),
            ));
        };
        let listener = claim.listen()?;
        let stop = Arc::new(EventFd::new()?);
        let poller = Poller::new()?;
        poller.add(&listener, LISTENER)?;
        poller.add(&*stop, STOPPER)?;
        let kernels = self
            .kernels
            .iter()
            .map(|kernel| KernelInfo::new(&kernel.name, kernel.signature.clone()))
            .collect();
        let info = encode_json(&ServiceInfo::new(name, now(), self.max_calls, kernels));
        if info.len() > MAX_PACKET {
            return Err(ServiceError::new(
                ServiceErrorKind::BadName,
                format!(
                    "{} kernels are more than a packet can list",
                    self.kernels.len()
                ),
            ));
        }
        // Two calls for each lane: one waits there while the other one runs.
        let lanes = self.engine.max_running();
        Ok(Serving {
            listener,
            claim,
            stop,
            server: Server {
                name: name.to_owned(),
                started: now(),
                info,
                state: Mutex::new(State::new(self.kernels.len(), FIRST_CLIENT)),
                service: self,
                poller,
                max_running: 2 * lanes.max(1),
                is_inline: lanes == 0,
                closer: Closer::start()?,
                crew: Mutex::new(Crew {
                    tools: Some(LeaderTools {
                        acceptor: Acceptor::new(),
                        bytes: vec![0; MAX_PACKET],
                    }),
                    ..Crew::default()
                }),
                changed: Condvar::new(),
            },
        })
    }

    /// [Binds](Service::bind) the name, and serves it until the program ends.
    ///
    /// # Errors
    ///
    /// As [`Service::bind`]; [`ServiceErrorKind::System`] if no thread can be started.
    pub fn run(self, name: &str) -> Result<(), ServiceError> {
        self.bind(name)?.run()
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernels = self.kernels.iter();
        f.debug_map()
            .entries(kernels.map(|kernel| (&kernel.name, &kernel.signature)))
            .finish()
    }
}

/// A service that listens under its name.
#[derive(Debug)]
pub struct Serving {
    // Dropped in this order: a client cannot connect to this socket once another server can claim the name.
    listener: PacketSocket,
    claim: Claim,
    stop: Arc<EventFd>,
    server: Server,
}

#[derive(Debug)]
struct Server {
    service: Service,
    name: String,
    started: f64,
    /// The encoded answer to [`Request::Info`].
    info: Vec<u8>,
    poller: Poller,
    state: Mutex<State>,
    /// The number of calls that may run at the same time.
    max_running: usize,
    /// Whether the engine runs calls on the threads of this server.
    is_inline: bool,
    closer: Closer,
    crew: Mutex<Crew>,
    /// Notified when there may be work for an idle thread.
    changed: Condvar,
}

/// The state of the threads. Changed under its lock.
#[derive(Debug, Default)]
struct Crew {
    /// The leader's tools. `None` while a thread leads: that thread has them.
    tools: Option<LeaderTools>,
    running: usize,
    idle: usize,
    is_stopped: bool,
    /// The error that ended waiting for packets.
    error: Option<sys::Error>,
}

#[derive(Debug)]
struct LeaderTools {
    acceptor: Acceptor,
    /// The buffer for received packets.
    bytes: Vec<u8>,
}

impl Serving {
    /// Returns a handle that ends [`Serving::run`].
    pub fn stopper(&self) -> Stopper {
        Stopper::new(&self.stop)
    }

    /// Returns the path of the socket.
    pub fn socket_path(&self) -> &Path {
        self.claim.socket_path()
    }

    /// Answers clients until a [`Stopper`] ends it. Then running calls are killed, and the engine is dropped.
    ///
    /// # Errors
    ///
    /// [`ServiceErrorKind::System`] if no thread can be started, or waiting for clients fails.
    pub fn run(self) -> Result<(), ServiceError> {
        let server = &self.server;
        let listener = &self.listener;
        let started: std::io::Result<()> = std::thread::scope(|scope| {
            for _ in 0..server.max_running {
                let builder = std::thread::Builder::new().name("arenite-service".to_owned());
                if let Err(error) = builder.spawn_scoped(scope, || server.work(listener)) {
                    server.stop();
                    return Err(error);
                }
            }
            server.work(listener);
            Ok(())
        });
        started.map_err(|error| ServiceError::io("cannot start a thread", &error))?;
        let error = server.crew().error.take();
        error.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl Server {
    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the loop of a thread: it runs the next call if there is one, otherwise leads if no thread leads, otherwise
    /// waits.
    fn work(&self, listener: &PacketSocket) {
        let mut crew = self.crew();
        loop {
            if crew.is_stopped {
                return;
            }
            let next = match crew.running < self.max_running {
                true => self.state().begin(),
                false => None,
            };
            if let Some((client, call)) = next {
                crew.running += 1;
                // More calls wait than this thread can run.
                if self.state().has_waiting() {
                    self.wake(&crew);
                }
                drop(crew);
                self.run(client, call);
                crew = self.crew();
                crew.running -= 1;
            } else if let Some(mut tools) = crew.tools.take() {
                drop(crew);
                let led = self.lead(listener, &mut tools);
                crew = self.crew();
                crew.tools = Some(tools);
                if let Err(error) = led {
                    crew.error = Some(error);
                    self.end(&mut crew);
                }
            } else {
                crew.idle += 1;
                crew = self
                    .changed
                    .wait(crew)
                    .unwrap_or_else(PoisonError::into_inner);
                crew.idle -= 1;
            }
        }
    }

    /// Wakes an idle thread, which leads or runs the next call.
    fn wake(&self, crew: &Crew) {
        if crew.idle > 0 {
            self.changed.notify_one();
        }
    }

    fn stop(&self) {
        self.end(&mut self.crew());
    }

    /// Makes all threads end. Running calls are killed first.
    fn end(&self, crew: &mut Crew) {
        crew.is_stopped = true;
        let clients = self.state().clients();
        clients
            .into_iter()
            .for_each(|client| self.disconnect(client));
        self.changed.notify_all();
    }

    /// Waits for packets and answers requests. Adds calls to the queue of waiting calls.
    fn lead(&self, listener: &PacketSocket, tools: &mut LeaderTools) -> sys::Result<()> {
        for token in self.poller.wait(None)? {
            match token {
                LISTENER => self.accept(listener, &mut tools.acceptor),
                STOPPER => self.stop(),
                client => self.read(client, &mut tools.bytes),
            }
        }
        Ok(())
    }

    fn accept(&self, listener: &PacketSocket, acceptor: &mut Acceptor) {
        let refusal = || {
            let text = "the service has no descriptor left for another client; raise its limit on open files \
                        (LimitNOFILE, `ulimit -n`), or end clients";
            encode_json(&Failure::new(ErrorCode::Limit, text))
        };
        let Some((socket, peer)) = acceptor.accept(listener, refusal) else {
            return;
        };
        let program = program_of(peer.pid);
        let mut state = self.state();
        if self.poller.add(&socket, state.next_client()).is_ok() {
            state.connect(socket, peer.pid, program);
        }
    }

    /// Answers one request of a client, or disconnects a client that has hung up.
    fn read(&self, client: u64, bytes: &mut [u8]) {
        let Some(socket) = self.state().socket(client) else {
            return;
        };
        let packet = match socket.receive(bytes) {
            Ok(packet) if packet.len > 0 => packet,
            Err(error) if error.errno() == Errno::AGAIN => return,
            Ok(_) | Err(_) => return self.disconnect(client),
        };
        point!("service.received");
        let answer = match serde_json::from_slice(&bytes[..packet.len]) {
            Ok(Request::Call {
                id,
                kernel,
                args,
                deadline,
            }) => match self.call(client, id, &kernel, args, deadline, packet) {
                Ok(()) => {
                    point!("service.queued");
                    return;
                }
                // An answer with the call's number would be taken for the answer to the open call of that number.
                Err(failure) if failure.error == ErrorCode::BadRequest => encode_json(&failure),
                Err(failure) => failed(id, failure),
            },
            Ok(_) if packet.is_cut || !packet.fds.is_empty() => {
                self.closer.close(packet.fds);
                encode_json(&Failure::new(
                    ErrorCode::BadRequest,
                    "descriptors come with calls only",
                ))
            }
            Ok(Request::Info) => self.info.clone(),
            Ok(Request::Status) => self.status(),
            Ok(Request::Cancel { id }) => {
                let (removed, killer) = self.state().cancel(client, id);
                if let Some(killer) = killer {
                    killer.kill();
                }
                let Some(removed) = removed else {
                    return;
                };
                self.closer.close(removed);
                let text = "the call was cancelled before it began";
                failed(id, Failure::new(ErrorCode::Cancelled, text))
            }
            Err(error) => {
                let text = match packet.is_cut {
                    true => format!(
                        "a request has at most {MAX_PACKET} bytes and {MAX_FILES} descriptors"
                    ),
                    false => format!("no request: {error:.200}"),
                };
                self.closer.close(packet.fds);
                // The answer has the call's number, if the packet contains one, so that the client can find the call.
                match serde_json::from_slice(&bytes[..packet.len]) {
                    Ok(Numbered { op, id }) if op == "call" => {
                        failed(id, Failure::new(ErrorCode::BadArgument, text))
                    }
                    _ => encode_json(&Failure::new(ErrorCode::BadRequest, text)),
                }
            }
        };
        // Also disconnect a client whose buffer is full: it does not read.
        if socket.send(&answer, &[]).is_err() {
            self.disconnect(client);
        }
    }

    /// Adds a call to the queue of waiting calls.
    fn call(
        &self,
        client: u64,
        id: u64,
        name: &str,
        args: Vec<serde_json::Value>,
        deadline: Option<f64>,
        packet: Packet,
    ) -> Result<(), Failure> {
        // The closer closes these files: closing may block for as long as the client likes.
        let mut files = Files {
            files: packet.fds.into_iter(),
            closer: &self.closer,
        };
        if packet.is_cut {
            return Err(Failure::new(
                ErrorCode::Limit,
                "the service could not receive the descriptors; raise its limit on open files (LimitNOFILE, \
                 `ulimit -n`), or pass fewer",
            ));
        }
        let kernels = &self.service.kernels;
        let Some(kernel) = kernels.iter().position(|kernel| kernel.name == name) else {
            let names: Vec<&str> = kernels.iter().map(|kernel| &*kernel.name).collect();
            let start: String = name.chars().take(32).collect();
            return Err(Failure::new(
                ErrorCode::NoKernel,
                format!(
                    "{} has no kernel {start:?}; it has {}",
                    self.name,
                    names.join(", ")
                ),
            ));
        };
        let bad = |text: String| Failure::new(ErrorCode::BadArgument, text);
        let deadline = match deadline {
            Some(seconds) => Some(
                Duration::try_from_secs_f64(seconds)
                    .map_err(|error| bad(format!("the deadline {seconds}: {error}")))?,
            ),
            None => None,
        };
        let deadline = match (deadline, self.service.deadline) {
            (Some(asked), Some(limit)) => Some(asked.min(limit)),
            (asked, limit) => asked.or(limit),
        };
        if args.len() != kernels[kernel].arity {
            return Err(wrong_count(&kernels[kernel], args.len()));
        }
        let count = files.files.len();
        if count > 0 {
            sys::room_for_descriptors(SPARE_DESCRIPTORS).map_err(|error| {
                Failure::new(ErrorCode::Limit, format!("in the service: {error}"))
            })?;
        }
        let args = args
            .into_iter()
            .enumerate()
            .map(|(at, json)| {
                decode(json, &mut files).map_err(|why| bad(format!("argument {}: {why}", at + 1)))
            })
            .collect::<Result<Vec<Value>, Failure>>()?;
        if files.files.len() > 0 {
            return Err(bad(format!(
                "{count} descriptors, and fewer arrays and bytes"
            )));
        }
        let call = Waiting {
            id,
            kernel,
            args,
            deadline,
        };
        self.state()
            .push(client, call, self.service.max_calls)
            .map_err(|refused| {
                let (call, failure) = *refused;
                self.closer.close(call);
                failure
            })
    }

    /// Runs a call, and sends its answer.
    fn run(&self, client: u64, call: Waiting) {
        let Waiting {
            id,
            kernel,
            args,
            deadline,
        } = call;
        let begun = Instant::now();
        let offered = &self.service.kernels[kernel];
        // Another thread leads while the call is submitted, so that a cancellation or a hang-up is noticed.
        if self.is_inline || args.iter().any(Value::has_files) {
            self.hand_over();
        }
        let submission = Submission {
            name: &offered.name,
            deadline,
            engine: &self.service.engine,
            before_waiting: &|| self.hand_over(),
        };
        let outcome = offered
            .handler
            .start(args, &submission)
            .and_then(|mut job| {
                point!("service.submitted");
                let killer = self.state().submitted(client, id, job.killer());
                if let Some(killer) = killer {
                    killer.kill();
                }
                if let Some(outcome) = job.wait(Some(SHORT)) {
                    return outcome;
                }
                self.hand_over();
                job.wait(None).unwrap_or_else(|| {
                    Err(Failure::new(ErrorCode::Other, "the call has no answer"))
                })
            });
        let mut files = Vec::new();
        let encoded = outcome.and_then(|value| {
            let value = encode(value, &mut files).map_err(|error| {
                Failure::new(ErrorCode::Limit, format!("in the service: {error}"))
            })?;
            let text = encode_json(&Answer {
                id,
                outcome: Outcome::Done { value },
            });
            match (text.len() > MAX_PACKET, files.len() > MAX_FILES) {
                (true, _) => {
                    Err("the result does not fit a packet of 64 KiB; return an array".to_owned())
                }
                (_, true) => Err(format!(
                    "the result has {} arrays; return at most {MAX_FILES}",
                    files.len()
                )),
                _ => Ok(text),
            }
            .map_err(|why| Failure::new(ErrorCode::Limit, why))
        });
        let failure = encoded.as_ref().err();
        // Ends the call before the answer is sent: a client that has the answer may use the number again.
        let socket = self.state().end(
            client,
            id,
            (kernel, &offered.name),
            begun.elapsed(),
            failure,
        );
        let Some(socket) = socket else { return };
        point!("service.ended");
        let (text, files) = match encoded {
            Ok(text) => (text, &files[..]),
            Err(failure) => (failed(id, failure), &[][..]),
        };
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        let sent = socket
            .send(&text, &files)
            .or_else(|error| match error.errno() {
                // Also disconnect a client whose buffer is full: it does not read.
                Errno::AGAIN | Errno::PIPE | Errno::CONNRESET => Err(error),
                // For example, Linux limits the number of descriptors in packets that were not received.
                _ => {
                    let failure =
                        Failure::new(ErrorCode::Limit, format!("in the service: {error}"));
                    socket.send(&failed(id, failure), &[])
                }
            });
        if sent.is_err() {
            self.disconnect(client);
        }
        point!("service.sent");
    }

    /// Lets another thread lead, unless a thread leads.
    fn hand_over(&self) {
        let crew = self.crew();
        if crew.tools.is_some() {
            self.wake(&crew);
        }
    }

    fn disconnect(&self, client: u64) {
        let gone = self.state().disconnect(client);
        if let Some((socket, killers, waiting)) = gone {
            // Another thread may still send on the socket: without this, the poller would report the hang-up until
            // then.
            let _ = self.poller.remove(&*socket);
            killers.iter().for_each(|killer| killer.kill());
            // The socket may contain packets with descriptors that were not read.
            self.closer.close((socket, waiting));
        }
    }

    fn status(&self) -> Vec<u8> {
        let stats = self.service.engine.stats();
        let state = self.state();
        let kernels = self.service.kernels.iter().zip(state.counts());
        let status = Status {
            service: true,
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION"),
            name: &self.name,
            pid: std::process::id(),
            started: self.started,
            max_calls: self.service.max_calls,
            program: program_of(std::process::id().cast_signed()),
            workers: stats
                .workers
                .iter()
                .take(MAX_WORKERS)
                .map(|worker| WorkerStatus {
                    pid: worker.pid,
                    state: match (worker.pid, worker.ready, worker.open) {
                        (0, _, _) => "dead",
                        (_, false, _) => "starting",
                        (_, _, 0) => "idle",
                        _ => "busy",
                    },
                    jobs: worker.jobs,
                    restarts: worker.restarts,
                })
                .collect(),
            kernels: kernels
                .map(|(kernel, &counts)| KernelStatus {
                    name: &kernel.name,
                    signature: &kernel.signature,
                    counts,
                })
                .collect(),
            clients: state.client_status(),
            memory: MemoryStatus {
                capacity: stats.arena.capacity,
                in_use: stats.arena.in_use,
            },
            failures: state.failures(),
        };
        let mut status = status;
        loop {
            let text = encode_json(&status);
            let is_shorter = text.len() > MAX_PACKET
                && (status.failures.pop().is_some()
                    || status.clients.pop().is_some()
                    || status.workers.pop().is_some()
                    || status.kernels.pop().is_some());
            if !is_shorter {
                return text;
            }
        }
    }
}

/// The number of descriptors that are reserved for clients, workers and results, and that calls do not use.
const SPARE_DESCRIPTORS: u64 = 64;

/// The number of the call in a packet that is no valid request.
#[derive(Deserialize)]
struct Numbered {
    op: String,
    id: u64,
}

/// The descriptors of a packet. The remaining descriptors are closed on the closer's thread.
struct Files<'a> {
    files: std::vec::IntoIter<OwnedFd>,
    closer: &'a Closer,
}

impl Iterator for Files<'_> {
    type Item = OwnedFd;

    fn next(&mut self) -> Option<OwnedFd> {
        self.files.next()
    }
}

impl Drop for Files<'_> {
    fn drop(&mut self) {
        if self.files.len() > 0 {
            self.closer.close(std::mem::take(&mut self.files));
        }
    }
}

fn wrong_count(kernel: &Offered, count: usize) -> Failure {
    Failure::new(
        ErrorCode::BadArgument,
        format!(
            "{count} arguments; the kernel is {}{}",
            kernel.name, kernel.signature
        ),
    )
}

/// The maximum number of workers in the status.
const MAX_WORKERS: usize = 128;

fn failed(id: u64, failure: Failure) -> Vec<u8> {
    let mut answer = Answer {
        id,
        outcome: Outcome::Failed(failure),
    };
    loop {
        let text = encode_json(&answer);
        match &mut answer.outcome {
            Outcome::Failed(failure) if text.len() > MAX_PACKET => {
                // If the packet is too long, drop the oldest of the last words first, then shorten the message.
                if failure.last_words.is_empty() {
                    failure.message = failure.message.chars().take(MAX_PACKET / 16).collect();
                } else {
                    failure.last_words.remove(0);
                }
            }
            _ => return text,
        }
    }
}

fn encode_json<T: Serialize>(message: &T) -> Vec<u8> {
    // Messages consist of numbers, texts and lists of them, which JSON always has.
    serde_json::to_vec(message).unwrap_or_default()
}
