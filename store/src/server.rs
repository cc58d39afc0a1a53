//! The server: one thread that answers each request at once.
//!
//! It never waits for a client. When the answers to a client no longer fit the socket's buffer, because the client does
//! not read them, the server disconnects the client. Linux reports a hang-up however a client ends; the hang-up ends
//! the client's leases. The server does not interpret or map the bytes of an object.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arenite::platform::default_capacity;
use rustix::io::Errno;
use serde::Serialize;

use super::acceptor::{Acceptor, check_room};
use super::closer::Closer;
use super::error::{StoreError, StoreErrorKind};
use super::kind::Kind;
use super::message::{
    Answer, Client, Failure, FailureCode, MAX_PACKET, Object, PROTOCOL, Page, Request, StoreInfo,
};
use super::objects::{Maker, Objects, check_name, page};
use super::place::{Claim, now, program_of};
use super::sealed::{self, FileProblem};
use super::upgrade::{self, Keeper};
use crate::point;
use crate::sys::event::{EventFd, Poller};
use crate::sys::packet::PacketSocket;
use crate::sys::{self, file};

/// Objects of up to this number of bytes are stored in the server's own memory, without a descriptor.
const INLINE: u64 = 64 << 10;

/// The number of descriptors that are reserved for clients, and that large objects do not use.
const SPARE_DESCRIPTORS: u64 = 16;
/// The maximum number of objects. Each takes some hundred bytes of the server's own memory.
const MAX_OBJECTS: usize = 1 << 20;

const LISTENER: u64 = 0;
const STOPPER: u64 = 1;
/// The number of the first connection.
const FIRST_CLIENT: u64 = 2;

/// A store's server: owns the names, and serves them until it is stopped.
///
/// ```
/// use arenite::Array;
/// use arenite_store::{Server, connect};
///
/// # let dir = tempfile::tempdir()?;
/// # let name = dir.path().join("example.sock");
/// # let name = name.to_str().expect("UTF-8");
/// let server = Server::bind(name)?.capacity(64 << 20);
/// let running = std::thread::spawn(move || server.run());
///
/// let store = connect(name)?;
/// store.put("prices", &Array::from_slice(&[1.5_f32, 2.5]))?;
/// assert_eq!(store.get::<f32>("prices")?[..], [1.5, 2.5]);
///
/// store.stop()?;
/// running.join().expect("no panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server {
    // Dropped in this order: a client cannot connect to this socket once another server can claim the name.
    listener: PacketSocket,
    claim: Claim,
    name: String,
    capacity: u64,
    idle_exit: Option<Duration>,
    stop: Arc<EventFd>,
    poller: Poller,
}

/// Ends a server of a store or of a service, from another thread or from a signal handler's thread.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<EventFd>);

impl Stopper {
    pub(crate) fn new(stop: &Arc<EventFd>) -> Stopper {
        Stopper(Arc::clone(stop))
    }

    /// Makes `run` return soon.
    pub fn stop(&self) {
        // Ringing fails only if the counter is full: then the server sees the event as well.
        let _ = self.0.ring();
    }
}

/// Where the bytes of an object are.
#[derive(Debug)]
pub(super) enum Content {
    /// In the server's memory: small objects.
    Inline(Box<[u8]>),
    /// In a sealed memory file.
    File(OwnedFd),
}

#[derive(Debug)]
struct Connection {
    socket: PacketSocket,
    pid: i32,
    program: String,
    /// The number of leases, by the number of the object.
    leases: HashMap<u64, u64>,
    /// The name that the client waits for.
    awaited: Option<String>,
}

/// The state of a running server.
#[derive(Debug)]
struct Serving {
    server: Server,
    started: f64,
    objects: Objects<Content>,
    connections: HashMap<u64, Connection>,
    /// The connections that wait, by the name that they wait for.
    waiting: HashMap<String, Vec<u64>>,
    last_client: u64,
    acceptor: Acceptor,
    /// Closes descriptors on a thread of its own: closing a file that a client has sent may block for as long as the
    /// client likes, and freeing a large object takes time.
    closer: Closer,
    /// Passes the objects to the service manager. `None` if no service manager keeps descriptors.
    keeper: Option<Keeper>,
    stopped: bool,
    idle_since: Instant,
}

/// The parts of an answer: the packet, and the file that goes with it.
type Packed = (Vec<u8>, Option<OwnedFd>);

impl Server {
    /// Claims the store `name` of this user, or the path of a socket, and listens. Clients can connect from now on;
    /// [`Server::run`] answers them. A socket that was passed to this process for this path (`LISTEN_FDS`, for example
    /// by a socket unit of systemd) is used, and stays open when the server ends.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::AlreadyRunning`] if a server of this name runs, [`StoreErrorKind::BadName`],
    /// [`StoreErrorKind::Denied`] if the folder of the sockets belongs to another user, [`StoreErrorKind::System`] if
    /// this process may open too few descriptors to serve a client.
    pub fn bind(name: &str) -> Result<Server, StoreError> {
        check_room()?;
        let Some(mut claim) = Claim::new(name)? else {
            let process = crate::connect(name).and_then(|store| store.info());
            let process = process.map_or(String::new(), |info| format!(" (process {})", info.pid));
            return Err(StoreError::new(
                StoreErrorKind::AlreadyRunning,
                format!(
                    "the store {name} is served already{process}; stop that server, or choose another name"
                ),
            ));
        };
        let listener = claim.listen()?;
        let stop = Arc::new(EventFd::new()?);
        let poller = Poller::new()?;
        poller.add(&listener, LISTENER)?;
        poller.add(&*stop, STOPPER)?;
        Ok(Server {
            listener,
            claim,
            name: name.to_owned(),
            capacity: default_capacity(),
            idle_exit: None,
            stop,
            poller,
        })
    }

    /// Sets the number of bytes that all objects together may have. Default: half of the memory available now.
    pub fn capacity(mut self, bytes: u64) -> Server {
        self.capacity = bytes;
        self
    }

    /// Ends the server and drops its objects after no program has been connected for this time.
    pub fn idle_exit(mut self, after: Duration) -> Server {
        self.idle_exit = Some(after);
        self
    }

    /// Returns a handle that ends [`Server::run`].
    pub fn stopper(&self) -> Stopper {
        Stopper::new(&self.stop)
    }

    /// Returns the capacity in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.capacity
    }

    /// Returns the path of the socket.
    pub fn socket_path(&self) -> &std::path::Path {
        self.claim.socket_path()
    }

    /// Answers clients until a client, a [`Stopper`] or idleness ends the server. Then its names are gone; arrays that
    /// clients have mapped remain usable.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::System`] if waiting for clients fails, which happens only when the system is out of memory.
    pub fn run(self) -> Result<(), StoreError> {
        let mut serving = Serving {
            started: now(),
            objects: Objects::new(self.capacity),
            connections: HashMap::new(),
            waiting: HashMap::new(),
            last_client: FIRST_CLIENT - 1,
            acceptor: Acceptor::new(),
            closer: Closer::start()?,
            keeper: Keeper::start()?,
            stopped: false,
            idle_since: Instant::now(),
            server: self,
        };
        serving.restore();
        while !serving.stopped {
            let Some(patience) = serving.patience() else {
                break;
            };
            for token in serving.server.poller.wait(patience)? {
                match token {
                    LISTENER => serving.accept(),
                    STOPPER => serving.stopped = true,
                    client => serving.read(client),
                }
            }
        }
        // All messages to the service manager are sent before the server ends.
        if let Some(keeper) = serving.keeper {
            keeper.finish();
        }
        Ok(())
    }
}

impl Serving {
    /// Takes over the objects that an earlier server has left with the service manager.
    fn restore(&mut self) {
        let kept = upgrade::kept();
        self.objects.continue_after(kept.last_id);
        let mut unwanted = kept.broken;
        for (object, content) in kept.objects {
            if let Some(keeper) = &self.keeper {
                keeper.has(&object, &content);
            }
            unwanted.extend(self.objects.restore(object, content));
        }
        for id in unwanted {
            self.forget(id, ());
        }
    }

    /// Returns the time limit for waiting for requests: `Some(None)` for no limit, `None` if the server was idle for
    /// too long.
    fn patience(&self) -> Option<Option<Duration>> {
        match self.server.idle_exit {
            Some(limit) if self.connections.is_empty() => limit
                .checked_sub(self.idle_since.elapsed())
                .filter(|left| !left.is_zero())
                .map(Some),
            _ => Some(None),
        }
    }

    fn accept(&mut self) {
        let refusal = || {
            let text = "the server has no descriptor left for another client; raise its limit on open files \
                        (LimitNOFILE, `ulimit -n`), or end clients";
            encode(&Answer::<()>::Failed(Failure::new(
                FailureCode::Limit,
                text,
            )))
        };
        let Some((socket, peer)) = self.acceptor.accept(&self.server.listener, refusal) else {
            return;
        };
        let id = self.last_client + 1;
        if self.server.poller.add(&socket, id).is_err() {
            return;
        }
        self.last_client = id;
        let connection = Connection {
            socket,
            pid: peer.pid,
            program: program_of(peer.pid),
            leases: HashMap::new(),
            awaited: None,
        };
        self.connections.insert(id, connection);
    }

    /// Answers one request of a client, or disconnects a client that has hung up.
    fn read(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let mut bytes = vec![0; MAX_PACKET];
        let packet = match connection.socket.receive(&mut bytes) {
            Ok(packet) => packet,
            Err(error) if error.errno() == Errno::AGAIN => return,
            Err(_) => return self.disconnect(id),
        };
        if packet.len == 0 {
            return self.disconnect(id);
        }
        point!("store.received");
        let request = match serde_json::from_slice::<Request>(&bytes[..packet.len]) {
            Ok(_) if packet.is_cut => Err(Failure::new(
                FailureCode::Limit,
                "the server could not receive the descriptor; raise its limit on open files (LimitNOFILE, `ulimit -n`)",
            )),
            Ok(request) => Ok(request),
            Err(_) if packet.is_cut => Err(Failure::new(
                FailureCode::BadRequest,
                format!("a request has at most {MAX_PACKET} bytes and one descriptor"),
            )),
            Err(error) => Err(Failure::new(
                FailureCode::BadRequest,
                format!("no request: {error}"),
            )),
        };
        if let Ok(Request::Release { id: object }) = request {
            return self.release(id, object);
        }
        if let Ok(Request::Wait { name }) = &request
            && check_name(name).is_ok()
            && self.objects.get(name).is_err()
        {
            return self.wait_for(id, name);
        }
        let mut leased = None;
        let files = packet.fds;
        let answer = request.and_then(|request| self.answer(id, request, &files, &mut leased));
        if !files.is_empty() {
            self.close(files);
        }
        let (bytes, file) =
            answer.unwrap_or_else(|failure| (encode(&Answer::<()>::Failed(failure)), None));
        point!("store.answered");
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        // Also disconnect a client whose buffer is full: it does not read.
        if connection
            .socket
            .send(&bytes, file.as_ref().map(AsFd::as_fd).as_slice())
            .is_err()
        {
            return self.disconnect(id);
        }
        if let Some(object) = leased {
            *connection.leases.entry(object).or_default() += 1;
            self.objects.lease(object);
        }
        point!("store.sent");
    }

    fn answer(
        &mut self,
        client: u64,
        request: Request,
        files: &[OwnedFd],
        leased: &mut Option<u64>,
    ) -> Result<Packed, Failure> {
        let plain = |bytes| Ok((bytes, None));
        match request {
            Request::Info => plain(done(&self.info())),
            Request::Put {
                name,
                kind,
                replace,
            } => {
                let answer = done(self.put(client, &name, kind, replace, files)?);
                self.answer_waiting(&name, &answer);
                plain(answer)
            }
            Request::Wait { name } => {
                check_name(&name)?;
                plain(done(self.objects.get(&name)?.0))
            }
            Request::Get { name } => {
                let (object, content) = self.objects.get(&name)?;
                let file = content.to_file().map_err(limit)?;
                *leased = Some(object.id);
                Ok((done(object), Some(file)))
            }
            Request::Ls { after } => plain(done(&self.objects.page(&after))),
            Request::Clients { after } => plain(done(&self.clients(after))),
            Request::Rm { name } => {
                let (object, content) = self.objects.remove(&name)?;
                self.forget(object.id, content);
                plain(done(&object))
            }
            Request::Stop => {
                self.stopped = true;
                plain(done(&self.info()))
            }
            // A release has no answer and was handled above.
            Request::Release { .. } => plain(Vec::new()),
        }
    }

    /// Answers the client once there is an object of this name.
    fn wait_for(&mut self, client: u64, name: &str) {
        self.end_wait(client);
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.awaited = Some(name.to_owned());
            self.waiting
                .entry(name.to_owned())
                .or_default()
                .push(client);
        }
    }

    /// Sends `answer` to the clients that wait for this name.
    fn answer_waiting(&mut self, name: &str, answer: &[u8]) {
        for client in self.waiting.remove(name).unwrap_or_default() {
            let Some(connection) = self.connections.get_mut(&client) else {
                continue;
            };
            connection.awaited = None;
            if connection.socket.send(answer, &[]).is_err() {
                self.disconnect(client);
            }
        }
    }

    /// Forgets what the client waits for.
    fn end_wait(&mut self, client: u64) {
        let connection = self.connections.get_mut(&client);
        let Some(name) = connection.and_then(|connection| connection.awaited.take()) else {
            return;
        };
        if let Entry::Occupied(mut waiting) = self.waiting.entry(name) {
            waiting.get_mut().retain(|&other| other != client);
            if waiting.get().is_empty() {
                waiting.remove();
            }
        }
    }

    fn put(
        &mut self,
        client: u64,
        name: &str,
        kind: Kind,
        replace: bool,
        files: &[OwnedFd],
    ) -> Result<&Object, Failure> {
        let bad = |message: String| Failure::new(FailureCode::BadObject, message);
        let [file] = files else {
            return Err(bad(
                "an object comes as one descriptor of a memory file".to_owned()
            ));
        };
        let len = sealed::length(file, &kind).map_err(|problem| match problem {
            FileProblem::Bad(message) => bad(message),
            FileProblem::Limit(error) => limit(error),
        })?;
        self.objects.check(name, len, replace)?;
        if self.objects.len() >= MAX_OBJECTS {
            let text = format!("the store has {MAX_OBJECTS} objects; remove some");
            return Err(Failure::new(FailureCode::Limit, text));
        }
        let content = Content::from_file(file, len).map_err(limit)?;
        let Some(connection) = self.connections.get(&client) else {
            return Err(bad("the client is gone".to_owned()));
        };
        let maker = Maker {
            pid: connection.pid,
            program: connection.program.clone(),
            now: now(),
        };
        point!("store.checked");
        let kept = match &self.keeper {
            Some(keeper) if keeper.is_behind() => {
                let text =
                    "the service manager does not take objects as fast as they come; try again";
                return Err(Failure::new(FailureCode::Limit, text));
            }
            Some(_) => Some(content.share().map_err(limit)?),
            None => None,
        };
        let (object, replaced) = self.objects.insert(name, kind, len, maker, content);
        if let (Some(keeper), Some(kept)) = (&self.keeper, kept) {
            keeper.keep(object, kept);
        }
        if let Some((replaced, content)) = replaced {
            if let Some(keeper) = &self.keeper {
                keeper.forget(replaced.id);
            }
            self.closer.close(content);
        }
        Ok(object)
    }

    /// Drops the content of an object that is gone, and removes it from the service manager.
    fn forget(&self, id: u64, content: impl Send + 'static) {
        if let Some(keeper) = &self.keeper {
            keeper.forget(id);
        }
        self.close(content);
    }

    /// Drops `what` on the closing thread.
    fn close(&self, what: impl Send + 'static) {
        self.closer.close(what);
    }

    fn info(&self) -> StoreInfo {
        StoreInfo {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.server.name.clone(),
            pid: std::process::id().cast_signed(),
            started: self.started,
            capacity: self.objects.capacity(),
            used: self.objects.used(),
            retained: self.objects.retained(),
            objects: self.objects.len() as u64,
            clients: self.connections.len() as u64,
        }
    }

    fn clients(&self, after: u64) -> Page<Client> {
        let mut ids: Vec<u64> = self
            .connections
            .keys()
            .copied()
            .filter(|&id| id > after)
            .collect();
        ids.sort_unstable();
        page(ids.into_iter().filter_map(|id| {
            let connection = self.connections.get(&id)?;
            Some(Client {
                id,
                pid: connection.pid,
                program: connection.program.clone(),
                leases: connection.leases.values().sum(),
                bytes: connection
                    .leases
                    .keys()
                    .map(|&object| self.objects.bytes_of(object))
                    .sum(),
            })
        }))
    }

    fn release(&mut self, client: u64, object: u64) {
        let Some(connection) = self.connections.get_mut(&client) else {
            return;
        };
        // A client cannot end a lease that it does not have.
        if let Some(count) = connection.leases.get_mut(&object) {
            *count -= 1;
            if *count == 0 {
                connection.leases.remove(&object);
            }
            self.objects.release(object, 1);
        }
    }

    fn disconnect(&mut self, client: u64) {
        self.end_wait(client);
        if let Some(connection) = self.connections.remove(&client) {
            for (&object, &count) in &connection.leases {
                self.objects.release(object, count);
            }
            // Otherwise the poller would report the hang-up until the socket is closed.
            let _ = self.server.poller.remove(&connection.socket);
            // The socket may contain packets with descriptors that were not read.
            self.close(connection);
        }
        self.idle_since = Instant::now();
    }
}

impl Content {
    fn from_file(file: &OwnedFd, len: u64) -> sys::Result<Content> {
        if len > INLINE {
            // Without these descriptors, no client could connect to remove an object.
            sys::room_for_descriptors(SPARE_DESCRIPTORS)?;
            // Opens a file description for the server alone, without the right to write.
            return file::reopen(file).map(Content::File);
        }
        let mut bytes = vec![0; len as usize];
        // The file is sealed, so it still has this number of bytes.
        file::read(file, &mut bytes)?;
        Ok(Content::Inline(bytes.into()))
    }

    /// Returns another handle to the same content.
    fn share(&self) -> sys::Result<Content> {
        match self {
            Content::Inline(bytes) => Ok(Content::Inline(bytes.clone())),
            Content::File(file) => file::reopen(file).map(Content::File),
        }
    }

    /// Returns a sealed file with the bytes. Each reader gets a file description with a position of its own.
    fn to_file(&self) -> sys::Result<OwnedFd> {
        match self {
            Content::File(file) => file::reopen(file),
            Content::Inline(bytes) => file::sealed_copy("arenite-object", bytes),
        }
    }
}

fn limit(error: sys::Error) -> Failure {
    Failure::new(FailureCode::Limit, format!("in the server: {error}"))
}

fn done<T: Serialize>(answer: &T) -> Vec<u8> {
    encode(&Answer::Done(answer))
}

fn encode<T: Serialize>(answer: &Answer<T>) -> Vec<u8> {
    // Messages consist of numbers, texts and lists of them, which JSON always has.
    serde_json::to_vec(answer).unwrap_or_default()
}
