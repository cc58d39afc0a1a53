//! The client: [`connect`] and [`Store`].

use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use arenite::array::npy::Dtype;
use arenite::array::{Array, Element, MapError, Shape};
use rustix::io::Errno;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::draft::Draft;
use super::error::{StoreError, StoreErrorKind};
use super::kind::Kind;
use super::message::{
    Answer, Client, Failure, Full, MAX_PACKET, Object, PROTOCOL, Page, Request, StoreInfo,
};
use super::place;
use crate::sys::packet::PacketSocket;
use crate::sys::{effective_user, file};

/// How long a request waits for its answer. A server answers at once, unless its process is suspended.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects to the store `name` of this user (`main` is the usual one), or to the socket at a path.
///
/// # Errors
///
/// [`StoreErrorKind::NotRunning`] if no server of this name runs, [`StoreErrorKind::Denied`] if the server is another
/// user's, [`StoreErrorKind::Protocol`] if its version is one that this client does not understand.
pub fn connect(name: &str) -> Result<Store, StoreError> {
    let socket = open(name, PATIENCE, StoreError::from)?;
    let store = Store(Arc::new(Connection {
        name: name.to_owned(),
        socket: Mutex::new(Some(socket)),
        ended: Mutex::default(),
    }));
    let info = match store.ask(&Request::Info)? {
        Server::Store(info) => info,
        Server::Other { .. } => {
            return Err(StoreError::new(
                StoreErrorKind::Protocol,
                format!(
                    "{name} is a service, and no store; see what it offers with `arenite call {name}`"
                ),
            ));
        }
    };
    if info.protocol != PROTOCOL {
        return Err(StoreError::new(
            StoreErrorKind::Protocol,
            format!(
                "the server speaks version {} of the protocol (arenite {}), and this client version {PROTOCOL}",
                info.protocol, info.version
            ),
        ));
    }
    Ok(store)
}

/// Which server runs under a name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Server {
    Store(StoreInfo),
    Other {},
}

/// Connects to the server of this name, which must belong to this user. `failed` turns the error of any other system
/// call into the error to return.
pub(crate) fn open(
    name: &str,
    patience: Duration,
    failed: impl Fn(crate::sys::Error) -> StoreError,
) -> Result<PacketSocket, StoreError> {
    let path = place::socket(name)?;
    let socket = PacketSocket::connect(&path, patience).map_err(|error| match error.errno() {
        Errno::NOENT | Errno::CONNREFUSED => not_running(name),
        _ => failed(error),
    })?;
    let owner = socket.peer()?.uid;
    if owner != effective_user() {
        return Err(StoreError::new(
            StoreErrorKind::Denied,
            format!(
                "the server at {} belongs to another user ({owner})",
                path.display()
            ),
        ));
    }
    Ok(socket)
}

/// A connection to a store. Clones share the connection, which closes when the last clone and the last array from it
/// are gone.
///
/// Do not use it in a forked copy of the process: connect again there.
#[derive(Clone)]
pub struct Store(Arc<Connection>);

struct Connection {
    name: String,
    /// Locked from a request to its answer. `None` once the connection was lost: an answer that arrives late could be
    /// taken for the answer to another request.
    socket: Mutex<Option<PacketSocket>>,
    /// The leases that have ended and were not reported to the server yet.
    ended: Mutex<Vec<u64>>,
}

impl Connection {
    /// Reports to the server the leases that have ended. If `waits` is false and the socket's buffer is full, the
    /// leases that were not reported stay in the list for the next call.
    fn release(&self, socket: &PacketSocket, waits: bool) -> crate::sys::Result<()> {
        loop {
            let id = self.ended().last().copied();
            let Some(id) = id else { return Ok(()) };
            let text = format!(r#"{{"op":"release","id":{id}}}"#);
            match waits {
                true => socket.send(text.as_bytes(), &[])?,
                false => socket.send_now(text.as_bytes())?,
            }
            // Only one: the list has an entry for each lease, and an object may have several.
            let mut ended = self.ended();
            let sent = ended.iter().rposition(|&ended| ended == id);
            sent.map(|at| ended.swap_remove(at));
        }
    }

    fn ended(&self) -> MutexGuard<'_, Vec<u64>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease on an object. Ends on drop.
struct Lease {
    connection: Arc<Connection>,
    id: u64,
}

impl Store {
    /// Returns the store's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Maps the array `name`, without a copy. The array remains usable after the object is removed and after the server
    /// has ended, and jobs of any engine take it by reference.
    ///
    /// For jobs, a descriptor stays open as long as a handle exists. The descriptor is closed at once for objects of up
    /// to 64 KiB, and if more than half of the descriptors that this process may open (`RLIMIT_NOFILE`) are open. Jobs
    /// get a copy in both cases.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::NoObject`]; [`StoreErrorKind::WrongKind`] if the object is no array of `T`, has no dimension,
    /// or has more than six: [`Store::get_bytes`] maps the elements of such an array.
    pub fn get<T: Dtype>(&self, name: &str) -> Result<Array<T>, StoreError> {
        let (object, file, lease) = self.open(name)?;
        let wrong = |wanted: String| {
            StoreError::new(
                StoreErrorKind::WrongKind,
                format!("{name} is {}, and not {wanted}", object.kind),
            )
        };
        let extents = object.kind.extents_of::<T>();
        let extents = extents.ok_or_else(|| wrong(format!("an array of {}", T::NAME)))?;
        let shape = Kind::shape_of(extents).map_err(wrong)?;
        map(name, file, shape, lease)
    }

    /// Maps the bytes of the object `name` of any kind, without a copy.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::NoObject`].
    pub fn get_bytes(&self, name: &str) -> Result<(Object, Array<u8>), StoreError> {
        let (object, file, lease) = self.open(name)?;
        let bytes = map(name, file, Shape::from(object.bytes as usize), lease)?;
        Ok((object, bytes))
    }

    /// Copies `array` into the store under a new name. To avoid the copy, fill a [`Draft`].
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Exists`], [`StoreErrorKind::Full`].
    pub fn put<T: Dtype>(&self, name: &str, array: &Array<T>) -> Result<Object, StoreError> {
        let mut draft = self.draft(Kind::array::<T>(array.shape()), size_of_val::<[T]>(array))?;
        draft.copy_from_slice(bytemuck::must_cast_slice(array));
        draft.publish(name)
    }

    /// Creates an object of `len` bytes in memory that no other process can access until the object is published.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Full`] if `len` exceeds the store's capacity, [`StoreErrorKind::System`] if there is no
    /// memory. Free room in the store is checked when the object is published.
    pub fn draft(&self, kind: Kind, len: usize) -> Result<Draft, StoreError> {
        self.check_room(len as u64)?;
        Draft::new(self.clone(), kind, len)
    }

    /// Reads `reader` to its end, and publishes the bytes as the object `name`.
    ///
    /// # Errors
    ///
    /// As [`Store::put`]; [`StoreErrorKind::System`] if `reader` fails.
    pub fn put_from(
        &self,
        name: &str,
        kind: Kind,
        reader: impl Read,
        replace: bool,
    ) -> Result<Object, StoreError> {
        let capacity = self.check_room(0)?;
        let mut file = file::create("arenite-object")?;
        // Content of more bytes than this is never published.
        let mut reader = reader.take(capacity.saturating_add(1));
        let len = io::copy(&mut reader, &mut file)
            .map_err(|error| StoreError::io("cannot read the object", &error))?;
        self.check_room(len)?;
        file::seal(&file)?;
        self.publish(name, kind, replace, file.as_fd())
    }

    /// Waits until an object has this name, at most for `timeout`, without asking again and again: the server answers
    /// when the object is published. Returns at once if there is one. Other threads can use the store meanwhile,
    /// because the wait has a connection of its own.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use arenite::Array;
    /// use arenite_store::{StoreErrorKind, connect};
    ///
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doctests/own_sockets.rs"))(false);
    /// let store = connect("main")?;
    /// let maker = std::thread::spawn(|| connect("main")?.put("later", &Array::from_slice(&[1_u8])));
    /// store.wait("later", Duration::from_secs(60))?;
    /// assert_eq!(store.get::<u8>("later")?[..], [1]);
    ///
    /// let error = store.wait("never", Duration::from_millis(10)).unwrap_err();
    /// assert_eq!(error.kind(), StoreErrorKind::NoObject);
    /// # maker.join().expect("no panic")?;
    /// # Ok::<(), arenite_store::StoreError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::NoObject`] if the time is over; [`StoreErrorKind::NotRunning`] if the server ends meanwhile.
    pub fn wait(&self, name: &str, timeout: Duration) -> Result<Object, StoreError> {
        // Linux refuses limits beyond its clock. This one is above a century.
        let limit = timeout.min(Duration::from_secs(u32::MAX.into()));
        let socket = open(self.name(), limit, StoreError::from)?;
        let connection = Store(Arc::new(Connection {
            name: self.name().to_owned(),
            socket: Mutex::new(Some(socket)),
            ended: Mutex::default(),
        }));
        let request = Request::Wait {
            name: name.to_owned(),
        };
        let late = || {
            StoreError::new(
                StoreErrorKind::NoObject,
                format!(
                    "no object {name:?} appeared in the store {} within {timeout:?}",
                    self.name()
                ),
            )
        };
        Ok(connection.exchange(&request, None, late)?.0)
    }

    /// Removes the name. Programs that have mapped the object can still use it.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::NoObject`].
    pub fn remove(&self, name: &str) -> Result<Object, StoreError> {
        self.ask(&Request::Rm {
            name: name.to_owned(),
        })
    }

    /// Returns all objects, in the order of their names. An object that appears or vanishes meanwhile may be in the
    /// list or not.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::NotRunning`] if the server has ended.
    pub fn objects(&self) -> Result<Vec<Object>, StoreError> {
        let mut all = Vec::new();
        self.visit_objects(|object| all.push(object))?;
        Ok(all)
    }

    /// Calls `visit` with each object, in the order of their names. Unlike [`Store::objects`], this stores no list of
    /// all objects.
    ///
    /// # Errors
    ///
    /// As [`Store::objects`].
    pub fn visit_objects(&self, visit: impl FnMut(Object)) -> Result<(), StoreError> {
        self.pages(
            |last: Option<&Object>| Request::Ls {
                after: last.map_or(String::new(), |object| object.name.clone()),
            },
            visit,
        )
    }

    /// Returns all programs that are connected, including this one.
    ///
    /// # Errors
    ///
    /// As [`Store::objects`].
    pub fn clients(&self) -> Result<Vec<Client>, StoreError> {
        let mut all = Vec::new();
        self.pages(
            |last: Option<&Client>| Request::Clients {
                after: last.map_or(0, |client| client.id),
            },
            |client| all.push(client),
        )?;
        Ok(all)
    }

    /// Returns the size, the contents and the version of the store.
    ///
    /// # Errors
    ///
    /// As [`Store::objects`].
    pub fn info(&self) -> Result<StoreInfo, StoreError> {
        self.ask(&Request::Info)
    }

    /// Ends the server, and waits until its name is free. Arrays from the store remain usable.
    ///
    /// # Errors
    ///
    /// As [`Store::objects`].
    pub fn stop(&self) -> Result<StoreInfo, StoreError> {
        let info = self.ask(&Request::Stop)?;
        let mut guard = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = guard.take() {
            // The server closes this connection last. This receives no answer to another request, because the lock is
            // held.
            let _ = socket.receive(&mut [0]);
        }
        Ok(info)
    }

    pub(super) fn publish(
        &self,
        name: &str,
        kind: Kind,
        replace: bool,
        file: BorrowedFd<'_>,
    ) -> Result<Object, StoreError> {
        let request = Request::Put {
            name: name.to_owned(),
            kind,
            replace,
        };
        Ok(self.exchange(&request, Some(file), || self.late())?.0)
    }

    /// Returns the store's capacity if an object of `len` bytes can fit into the empty store. Only the server knows
    /// whether the object fits now, because it may replace another.
    fn check_room(&self, len: u64) -> Result<u64, StoreError> {
        let info = self.info()?;
        if len <= info.capacity {
            return Ok(info.capacity);
        }
        Err(StoreError::from(Failure::from(Full {
            requested: len,
            free: info.capacity.saturating_sub(info.used),
            capacity: info.capacity,
            retained: info.retained,
        })))
    }

    fn open(&self, name: &str) -> Result<(Object, OwnedFd, Lease), StoreError> {
        let request = Request::Get {
            name: name.to_owned(),
        };
        let (object, file): (Object, _) = self.exchange(&request, None, || self.late())?;
        let lease = Lease {
            connection: Arc::clone(&self.0),
            id: object.id,
        };
        match file {
            Some(file) => Ok((object, file, lease)),
            None => Err(StoreError::new(
                StoreErrorKind::System,
                "the descriptor did not arrive; raise the limit on open files (RLIMIT_NOFILE, `ulimit -n`)",
            )),
        }
    }

    fn pages<T: DeserializeOwned>(
        &self,
        request: impl Fn(Option<&T>) -> Request,
        mut visit: impl FnMut(T),
    ) -> Result<(), StoreError> {
        let mut next = Some(request(None));
        while let Some(wanted) = next {
            let page: Page<T> = self.ask(&wanted)?;
            let last = page.items.last().filter(|_| page.more);
            next = last.map(|last| request(Some(last)));
            page.items.into_iter().for_each(&mut visit);
        }
        Ok(())
    }

    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, StoreError> {
        Ok(self.exchange(request, None, || self.late())?.0)
    }

    /// The error for an answer that does not arrive.
    fn late(&self) -> StoreError {
        StoreError::new(
            StoreErrorKind::Protocol,
            format!(
                "the server of the store {} has not answered for {PATIENCE:?}; is it stopped?",
                self.name()
            ),
        )
    }

    /// Sends a request. Returns its answer and the descriptor that came with the answer. `late`: the error if no answer
    /// arrives within the time limit of the socket.
    fn exchange<T: DeserializeOwned>(
        &self,
        request: &Request,
        file: Option<BorrowedFd<'_>>,
        late: impl Fn() -> StoreError,
    ) -> Result<(T, Option<OwnedFd>), StoreError> {
        let text = serde_json::to_vec(request)
            .map_err(|error| StoreError::new(StoreErrorKind::Protocol, error.to_string()))?;
        let mut bytes = vec![0; MAX_PACKET];
        let lost = |error: crate::sys::Error| match error.errno() {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => not_running(self.name()),
            Errno::AGAIN => late(),
            _ => error.into(),
        };
        let mut guard = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(socket) = guard.take() else {
            return Err(StoreError::new(
                StoreErrorKind::NotRunning,
                format!(
                    "the connection to the store {} was lost; connect again",
                    self.name()
                ),
            ));
        };
        let answered = self
            .0
            .release(&socket, true)
            .and_then(|()| socket.send(&text, file.as_slice()))
            // A server that refuses this client has sent the reason before it hung up.
            .or_else(|error| {
                if error.errno() == Errno::PIPE {
                    Ok(())
                } else {
                    Err(error)
                }
            })
            .and_then(|()| socket.receive(&mut bytes));
        let packet = answered.map_err(lost)?;
        if packet.len > 0 {
            *guard = Some(socket);
        }
        drop(guard);
        if packet.len == 0 {
            return Err(not_running(self.name()));
        }
        match serde_json::from_slice(&bytes[..packet.len]) {
            Ok(Answer::Done(answer)) => Ok((answer, packet.fds.into_iter().next())),
            Ok(Answer::Failed(failure)) => Err(failure.into()),
            Err(error) => Err(StoreError::new(
                StoreErrorKind::Protocol,
                format!(
                    "the server of the store {} answered what is no answer: {error}",
                    self.name()
                ),
            )),
        }
    }
}

pub(super) fn not_running(name: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::NotRunning,
        format!("no store {name} is served; start it with `arenite serve --name {name}`"),
    )
}

/// Maps an object's file. The lease ends when the last handle is dropped.
fn map<T: Element>(
    name: &str,
    file: OwnedFd,
    shape: Shape,
    lease: Lease,
) -> Result<Array<T>, StoreError> {
    Array::map_sealed(file, shape, lease).map_err(|error| match error {
        MapError::System(error) => error.into(),
        MapError::NotSealed => StoreError::new(
            StoreErrorKind::Protocol,
            format!("the server sent a file for {name} that can still be changed"),
        ),
        MapError::Length { expected, found } => StoreError::new(
            StoreErrorKind::Protocol,
            format!("the server sent {found} bytes for {name}, which takes {expected}"),
        ),
        error => StoreError::new(StoreErrorKind::System, error.to_string()),
    })
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.ended().push(self.id);
        // While another thread waits for an answer, the next request reports the lease.
        let guard = match self.connection.socket.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if let Some(socket) = &*guard {
            let _ = self.connection.release(socket, false);
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.0.name).finish()
    }
}
