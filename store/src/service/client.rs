//! The client: [`connect`], [`Client`] and [`Call`].

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::Deserialize;

use super::convert::{FromValue, IntoValue};
use super::error::{ServiceError, ServiceErrorKind};
use super::message::{Answer, Failure, Outcome, PROTOCOL, Request, ServiceInfo};
use super::value::{MAX_FILES, Value, decode, encode, has_long_integer};
use crate::client::open;
use crate::message::MAX_PACKET;
use crate::sys;
use crate::sys::packet::{Packet, PacketSocket};
use crate::{StoreError, StoreErrorKind};

/// The time limit for sending a packet, and for the first answer of a service. A service reads packets and answers
/// questions at once, unless its process is suspended.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects to the service `name` of this user, or to the socket at a path.
///
/// # Errors
///
/// [`ServiceErrorKind::NotRunning`] if no service of this name runs, [`ServiceErrorKind::Denied`] if the service is
/// another user's, [`ServiceErrorKind::Protocol`] if the server is a store, or has a version that this client does not
/// understand.
pub fn connect(name: &str) -> Result<Client, ServiceError> {
    let socket = open(name, PATIENCE, StoreError::from).map_err(|error| match error.kind() {
        StoreErrorKind::NotRunning => not_running(name),
        _ => error.into(),
    })?;
    let info = first_answer(name, &socket)?;
    if info.protocol != PROTOCOL {
        return Err(ServiceError::new(
            ServiceErrorKind::Protocol,
            format!(
                "the service speaks version {} of the protocol (arenite {}), and this client version {PROTOCOL}",
                info.protocol, info.version
            ),
        ));
    }
    // A call may run for long, so receiving has no limit from now on.
    socket.wait_forever()?;
    let connection = Arc::new(Connection {
        name: name.to_owned(),
        max_calls: info.max_calls,
        socket,
        open: Mutex::default(),
        changed: Condvar::new(),
    });
    Ok(Client {
        connection: Arc::new(Closing(connection)),
        deadline: None,
    })
}

/// Asks the server for its [`ServiceInfo`], before any call.
fn first_answer(name: &str, socket: &PacketSocket) -> Result<ServiceInfo, ServiceError> {
    let mut bytes = vec![0; MAX_PACKET];
    let packet = socket
        .send(&request(&Request::Info)?, &[])
        // A server that refuses this client has sent the reason before it hung up.
        .or_else(|error| match error.errno() {
            Errno::PIPE => Ok(()),
            _ => Err(error),
        })
        .and_then(|()| socket.receive(&mut bytes))
        .map_err(|error| match error.errno() {
            Errno::CONNRESET => not_running(name),
            Errno::AGAIN => ServiceError::new(
                ServiceErrorKind::Protocol,
                format!("the server of {name} has not answered for {PATIENCE:?}; is it stopped?"),
            ),
            _ => error.into(),
        })?;
    let bytes = &bytes[..packet.len];
    if bytes.is_empty() {
        return Err(not_running(name));
    }
    if let Ok(failure) = serde_json::from_slice::<Failure>(bytes) {
        return Err(failure.into());
    }
    serde_json::from_slice(bytes).map_err(|_| {
        ServiceError::new(
            ServiceErrorKind::Protocol,
            format!(
                "{name} is a store, and no service; see what it has with `arenite ls --name {name}`"
            ),
        )
    })
}

/// A connection to a service. Clones share the connection, which closes when the last clone and the last [`Call`] are
/// gone.
///
/// Do not use it in a forked copy of the process: connect again there.
#[derive(Clone)]
pub struct Client {
    connection: Arc<Closing>,
    deadline: Option<Duration>,
}

/// Closes the connection on drop. The reader's thread has a reference to the connection itself.
struct Closing(Arc<Connection>);

/// A connection. A thread that waits for an answer reads the socket itself, so that a call costs no switch to another
/// thread. But a call may be polled or waited for with a limit, or [`UNREAD`] calls may be open: then the connection
/// starts a thread of its own, which reads from then on.
struct Connection {
    name: String,
    max_calls: usize,
    socket: PacketSocket,
    open: Mutex<Open>,
    /// Notified when a call or a question is answered, and when another thread has to read.
    changed: Condvar,
}

/// The number of answers that fit the socket's buffer while no thread reads.
const UNREAD: usize = 3;

/// The calls and questions that are not answered, or whose answers were not taken.
#[derive(Default)]
struct Open {
    calls: HashMap<u64, Slot>,
    last: u64,
    /// The number of calls that the service has not answered.
    running: usize,
    /// The numbers of unanswered questions. They are answered in this order.
    questions: VecDeque<u64>,
    answers: HashMap<u64, Vec<u8>>,
    /// Whether a thread reads the socket.
    has_reader: bool,
    /// Whether the thread of the connection was started.
    has_thread: bool,
    /// The number of threads that wait while another one reads.
    waiting: usize,
    is_lost: bool,
}

/// A call whose result was not taken.
#[derive(Default)]
struct Slot {
    result: Option<Result<Value, ServiceError>>,
    waker: Option<Waker>,
    /// Whether the handle was dropped. If so, no thread takes the result.
    is_dropped: bool,
}

impl Client {
    /// Returns the service's name.
    pub fn name(&self) -> &str {
        &self.connection.0.name
    }

    /// Sets a deadline for calls through this handle, on the same connection: a call that runs longer is ended and its
    /// worker killed. The service may have a shorter deadline.
    pub fn deadline(mut self, limit: Duration) -> Client {
        self.deadline = Some(limit);
        self
    }

    /// Calls a kernel. `args` is a tuple. Arrays are copied into files that the service maps; a [`Payload`] is passed
    /// without a copy. Blocks while this client has the maximum number of open calls. [`Call::wait`] returns errors.
    ///
    /// [`Payload`]: super::Payload
    pub fn call<R: FromValue>(&self, kernel: &str, args: impl IntoValue) -> Call<R> {
        let sent = args
            .into_value()
            .and_then(|args| self.connection.0.send(kernel, args, self.deadline));
        Call {
            connection: Arc::clone(&self.connection),
            state: match sent {
                Ok(id) => CallState::Sent(id),
                Err(error) => CallState::Failed(error),
            },
            result: PhantomData,
        }
    }

    /// Returns the service's version, process and kernels.
    ///
    /// # Errors
    ///
    /// [`ServiceErrorKind::NotRunning`] if the service has ended.
    pub fn info(&self) -> Result<ServiceInfo, ServiceError> {
        self.ask(&Request::Info)
    }

    /// Returns the present state of the service as JSON: workers, calls by kernel, clients, failures.
    /// docs/service-protocol.md describes the members.
    ///
    /// # Errors
    ///
    /// As [`Client::info`].
    pub fn status(&self) -> Result<serde_json::Value, ServiceError> {
        self.ask(&Request::Status)
    }

    fn ask<T: for<'de> Deserialize<'de>>(&self, question: &Request) -> Result<T, ServiceError> {
        let connection = &*self.connection.0;
        let text = request(question)?;
        let mut open = connection.open();
        open.last += 1;
        let id = open.last;
        open.questions.push_back(id);
        // Sent under the lock, so that the order of `questions` is the order of the answers.
        if let Err(error) = connection.socket.send(&text, &[]) {
            // The lock was not released, so the last question is the one that failed.
            open.questions.pop_back();
            return Err(match error.errno() {
                Errno::PIPE | Errno::CONNRESET => lost(&connection.name),
                _ => error.into(),
            });
        }
        let bytes = loop {
            if let Some(bytes) = open.answers.remove(&id) {
                break bytes;
            }
            if open.is_lost {
                return Err(lost(&connection.name));
            }
            open = connection.wait(open, None);
        };
        drop(open);
        serde_json::from_slice(&bytes).map_err(|error| {
            serde_json::from_slice::<Failure>(&bytes).map_or_else(
                |_| {
                    let text = format!("{} answered what is no answer: {error}", connection.name);
                    ServiceError::new(ServiceErrorKind::Protocol, text)
                },
                ServiceError::from,
            )
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.name()).finish()
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        // Wakes the thread that reads, which then ends.
        self.0.socket.close_both_ways();
    }
}

impl Connection {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until an answer may have arrived: reads, or waits for the thread that reads.
    fn wait<'a>(
        &'a self,
        mut open: MutexGuard<'a, Open>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, Open> {
        // Reading has no time limit, so a wait with a limit leaves it to another thread.
        if open.has_reader || limit.is_some() {
            open.waiting += 1;
            let mut open = match limit {
                None => self
                    .changed
                    .wait(open)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(limit) => {
                    let waited = self.changed.wait_timeout(open, limit);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            open.waiting -= 1;
            return open;
        }
        open.has_reader = true;
        drop(open);
        let is_open = self.read_one(&mut vec![0; MAX_PACKET]);
        open = self.open();
        open.has_reader = false;
        // One of the waiting threads may have to read from now on.
        self.notify(&open);
        if !is_open {
            open = self.lose(open);
        }
        open
    }

    fn notify(&self, open: &Open) {
        if open.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// Starts the connection's thread, which reads from now on. Does nothing if it was started.
    fn start_reader(self: &Arc<Self>, open: &mut Open) -> Result<(), ServiceError> {
        if open.has_thread || open.is_lost {
            return Ok(());
        }
        let connection = Arc::clone(self);
        let builder = std::thread::Builder::new().name("arenite-client".to_owned());
        builder
            .spawn(move || connection.read())
            .map_err(|error| ServiceError::io("cannot start a thread", &error))?;
        open.has_thread = true;
        Ok(())
    }

    fn send(
        self: &Arc<Self>,
        kernel: &str,
        args: Value,
        deadline: Option<Duration>,
    ) -> Result<u64, ServiceError> {
        let args = match args {
            Value::List(args) => args,
            Value::Nothing => Vec::new(),
            one => vec![one],
        };
        let mut files = Vec::new();
        let args = args
            .into_iter()
            .map(|value| encode(value, &mut files))
            .collect::<sys::Result<Vec<_>>>()?;
        let too_large = |what: &str| {
            let text = format!("the arguments of {kernel} {what}");
            Err(ServiceError::new(ServiceErrorKind::BadArgument, text))
        };
        if files.len() > MAX_FILES {
            return too_large(&format!(
                "have {} arrays; pass at most {MAX_FILES}",
                files.len()
            ));
        }
        let mut open = self.open();
        while open.running >= self.max_calls && !open.is_lost {
            open = self.wait(open, None);
        }
        if open.running >= UNREAD {
            self.start_reader(&mut open)?;
        }
        if open.is_lost {
            return Err(lost(&self.name));
        }
        open.last += 1;
        let id = open.last;
        let text = request(&Request::Call {
            id,
            kernel: kernel.to_owned(),
            args,
            deadline: deadline.map(|limit| limit.as_secs_f64()),
        })?;
        if text.len() > MAX_PACKET {
            return too_large("do not fit a packet of 64 KiB; pass lists of numbers as arrays");
        }
        open.running += 1;
        open.calls.insert(id, Slot::default());
        drop(open);
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        if let Err(error) = self.socket.send(&text, &files) {
            let mut open = self.open();
            open.calls.remove(&id);
            open.running -= 1;
            return Err(match error.errno() {
                Errno::PIPE | Errno::CONNRESET => lost(&self.name),
                _ => error.into(),
            });
        }
        Ok(id)
    }

    /// Receives answers until the connection ends.
    fn read(&self) {
        let mut bytes = vec![0; MAX_PACKET];
        let mut open = self.open();
        while open.has_reader {
            open.waiting += 1;
            open = self
                .changed
                .wait(open)
                .unwrap_or_else(PoisonError::into_inner);
            open.waiting -= 1;
        }
        open.has_reader = true;
        drop(open);
        while self.read_one(&mut bytes) {}
        drop(self.lose(self.open()));
    }

    /// Receives an answer. Returns false if the connection has ended.
    fn read_one(&self, bytes: &mut [u8]) -> bool {
        match self.socket.receive(bytes) {
            Ok(packet) if packet.len > 0 => {
                let len = packet.len;
                self.received(&bytes[..len], packet).is_some()
            }
            _ => false,
        }
    }

    /// Fails all calls: the connection is lost.
    fn lose<'a>(&'a self, mut open: MutexGuard<'a, Open>) -> MutexGuard<'a, Open> {
        open.is_lost = true;
        // The service ends calls whose client hangs up.
        self.socket.close_both_ways();
        let mut wakers = Vec::new();
        open.calls.retain(|_, slot| {
            if slot.result.is_none() {
                slot.result = Some(Err(lost(&self.name)));
            }
            wakers.extend(slot.waker.take());
            !slot.is_dropped
        });
        drop(open);
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
        self.open()
    }

    /// Handles a packet. Returns `None` if it is no answer.
    fn received(&self, bytes: &[u8], packet: Packet) -> Option<()> {
        let protocol = |why| ServiceError::new(ServiceErrorKind::Protocol, why);
        let (id, outcome) = match (serde_json::from_slice(bytes), id_of(bytes)) {
            (Ok(Answer { id, outcome }), _) => (id, outcome),
            // Fails its call only.
            (Err(error), Some(id)) => {
                let why = format!("the value cannot be read: {error}");
                return self.settle(id, Err(protocol(why)));
            }
            (Err(_), None) => {
                let mut open = self.open();
                let question = open.questions.pop_front()?;
                open.answers.insert(question, bytes.to_vec());
                self.notify(&open);
                return Some(());
            }
        };
        let result = match outcome {
            Outcome::Failed(failure) => Err(failure.into()),
            Outcome::Done { .. } if has_long_integer(bytes) => Err(protocol(
                "an integer of the value has more than 64 bits".to_owned(),
            )),
            Outcome::Done { .. } if packet.is_cut => Err(ServiceError::new(
                ServiceErrorKind::System,
                "the descriptors did not arrive; raise the limit on open files (RLIMIT_NOFILE, `ulimit -n`)",
            )),
            Outcome::Done { value } => {
                let mut files = packet.fds.into_iter();
                decode(value, &mut files)
                    .and_then(Value::with_texts)
                    .map_err(protocol)
            }
        };
        self.settle(id, result)
    }

    /// Ends a call with its result. Returns `None` if it is no open call.
    fn settle(&self, id: u64, result: Result<Value, ServiceError>) -> Option<()> {
        let mut open = self.open();
        let slot = open.calls.get_mut(&id)?;
        if slot.result.is_some() {
            return None;
        }
        let waker = slot.waker.take();
        match slot.is_dropped {
            true => drop(open.calls.remove(&id)),
            false => slot.result = Some(result),
        }
        open.running -= 1;
        self.notify(&open);
        drop(open);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(())
    }

    /// Asks the service to cancel a call.
    fn cancel(&self, id: u64) {
        if let Ok(text) = request(&Request::Cancel { id }) {
            // If the service does not read, the connection fails, and the call ends with it.
            let _ = self.socket.send(&text, &[]);
        }
    }
}

/// A call that was sent and returns a value of type `R`. It is also a [`Future`], for any executor. Dropping it cancels
/// the call.
#[must_use = "dropping a call cancels it; `wait` for it"]
pub struct Call<R> {
    connection: Arc<Closing>,
    state: CallState,
    result: PhantomData<fn() -> R>,
}

enum CallState {
    Sent(u64),
    Failed(ServiceError),
    Taken,
}

impl<R: FromValue> Call<R> {
    /// Waits for the value.
    ///
    /// # Errors
    ///
    /// The cause, as a [`ServiceErrorKind`], if the call gave no value.
    ///
    /// # Panics
    ///
    /// If the value was already taken.
    pub fn wait(mut self) -> Result<R, ServiceError> {
        self.take(None)
            .unwrap_or_else(|| Err(lost(&self.connection.0.name)))
    }

    /// Waits for the value for at most `limit`. Returns `None` if the call has not ended; the call continues.
    ///
    /// # Errors
    ///
    /// Like [`wait`](Call::wait).
    ///
    /// # Panics
    ///
    /// If the value was already taken.
    pub fn wait_timeout(&mut self, limit: Duration) -> Option<Result<R, ServiceError>> {
        // A limit beyond the range of the clock counts as no limit.
        self.take(Instant::now().checked_add(limit))
    }

    /// Asks the service to cancel the call: a call that waits never begins, and the worker of a call that runs is
    /// killed. The call fails with [`ServiceErrorKind::Cancelled`], unless it has a value by then.
    pub fn cancel(&self) {
        if let CallState::Sent(id) = self.state {
            self.connection.0.cancel(id);
        }
    }

    /// Returns true if the call has ended.
    pub fn is_done(&self) -> bool {
        match self.state {
            CallState::Sent(id) => {
                let mut open = self.connection.0.open();
                // The thread reads the answer even if the program only polls this method. If it cannot be started,
                // `wait` returns the error.
                let _ = self.connection.0.start_reader(&mut open);
                open.calls.get(&id).is_none_or(|slot| slot.result.is_some())
            }
            CallState::Failed(_) | CallState::Taken => true,
        }
    }

    fn take(&mut self, until: Option<Instant>) -> Option<Result<R, ServiceError>> {
        let connection = Arc::clone(&self.connection.0);
        let id = match std::mem::replace(&mut self.state, CallState::Taken) {
            CallState::Sent(id) => id,
            CallState::Failed(error) => return Some(Err(error)),
            CallState::Taken => panic!("the value of this call was taken before"),
        };
        let mut open = connection.open();
        loop {
            if let Some(result) = open.calls.get_mut(&id).and_then(|slot| slot.result.take()) {
                open.calls.remove(&id);
                drop(open);
                return Some(result.and_then(R::from_value));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.state = CallState::Sent(id);
                return None;
            }
            if left.is_some()
                && let Err(error) = connection.start_reader(&mut open)
            {
                self.state = CallState::Sent(id);
                return Some(Err(error));
            }
            open = connection.wait(open, left);
        }
    }
}

impl<R: FromValue> Future for Call<R> {
    type Output = Result<R, ServiceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let CallState::Sent(id) = self.state {
            // A waker is foreign code: it is cloned and dropped outside the lock.
            let mut waker = Some(context.waker().clone());
            let mut open = self.connection.0.open();
            let mut is_pending = false;
            if let Some(slot) = open.calls.get_mut(&id)
                && slot.result.is_none()
            {
                std::mem::swap(&mut slot.waker, &mut waker);
                is_pending = true;
            }
            let started = match is_pending {
                true => self.connection.0.start_reader(&mut open),
                false => Ok(()),
            };
            drop(open);
            drop(waker);
            if is_pending {
                return started.map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending);
            }
        }
        Poll::Ready(
            self.take(None)
                .unwrap_or_else(|| Err(lost(&self.connection.0.name))),
        )
    }
}

impl<R> Unpin for Call<R> {}

impl<R> Drop for Call<R> {
    fn drop(&mut self) {
        let CallState::Sent(id) = self.state else {
            return;
        };
        let connection = &*self.connection.0;
        let mut open = connection.open();
        match open.calls.get_mut(&id) {
            Some(slot) if slot.result.is_none() => {
                slot.is_dropped = true;
                let waker = slot.waker.take();
                drop(open);
                drop(waker);
                connection.cancel(id);
            }
            _ => drop(open.calls.remove(&id)),
        }
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            CallState::Sent(_) => "sent",
            CallState::Failed(_) => "failed",
            CallState::Taken => "taken",
        };
        f.debug_tuple("Call").field(&state).finish()
    }
}

fn request(request: &Request) -> Result<Vec<u8>, ServiceError> {
    serde_json::to_vec(request)
        .map_err(|error| ServiceError::new(ServiceErrorKind::Protocol, error.to_string()))
}

fn not_running(name: &str) -> ServiceError {
    ServiceError::new(
        ServiceErrorKind::NotRunning,
        format!("no service {name} runs; start the program that serves it"),
    )
}

fn lost(name: &str) -> ServiceError {
    ServiceError::new(
        ServiceErrorKind::NotRunning,
        format!(
            "the connection to the service {name} was lost; if the service runs again, connect again"
        ),
    )
}

/// Returns the number of the call that a packet answers, without reading the packet.
fn id_of(bytes: &[u8]) -> Option<u64> {
    let rest = bytes.strip_prefix(b"{\"id\":")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}
