//! Objects that survive a restart of the server: the descriptor store of a service manager keeps them.
//!
//! systemd keeps descriptors for a service with `FileDescriptorStoreMax=`, and passes their maximum number in the
//! variable `FDSTORE`. Each object is sent as two descriptors: its file as `arenite-N`, then a description as
//! `arenite-N-about`, which also has the bytes of a small object. The next server gets them after its sockets
//! (`LISTEN_FDNAMES`). It takes over the objects that have both descriptors, so an object that was being added or
//! removed when the server died exists as a whole or not at all.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::error::StoreError;
use super::message::Object;
use super::sealed::{self, FileProblem};
use super::server::Content;
use crate::sys::packet::PacketSocket;
use crate::sys::{self, file, passed};

/// The time limit for a message. systemd reads its messages at once, unless it is overloaded.
const PATIENCE: Duration = Duration::from_secs(5);
/// The maximum number of objects that wait to be sent to the service manager. At this number, no object is added.
const MAX_PENDING: usize = 64;
const PREFIX: &str = "arenite-";
const ABOUT: &str = "-about";
/// The maximum size of a description in bytes: names and shapes are bounded, and small objects have 64 KiB.
const MAX_ABOUT: u64 = 128 << 10;

/// Sends objects to the service manager, in the order in which they were added, on a thread of its own.
#[derive(Debug)]
pub(super) struct Keeper {
    tasks: Sender<Task>,
    pending: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

enum Task {
    /// The service manager already keeps an object: the number of the object, and how many descriptors it has.
    Has(u64, usize),
    Keep(Box<(Object, Content)>),
    Forget(u64),
}

/// The state of the thread of a [`Keeper`].
struct Manager {
    socket: PacketSocket,
    /// The maximum number of descriptors that the service manager keeps.
    most: usize,
    /// The number of descriptors of each object that the service manager keeps, by the number of the object.
    kept: HashMap<u64, usize>,
    /// Whether the service manager failed to read a message in time.
    is_stuck: bool,
}

impl Keeper {
    /// Starts the thread if the environment names a service manager that keeps descriptors.
    pub(super) fn start() -> Result<Option<Keeper>, StoreError> {
        let most = std::env::var("FDSTORE")
            .ok()
            .and_then(|most| most.parse().ok());
        let (Some(most), Some(path)) = (most, std::env::var_os("NOTIFY_SOCKET")) else {
            return Ok(None);
        };
        let manager = Manager {
            socket: PacketSocket::notify(&path, PATIENCE)?,
            most,
            kept: HashMap::new(),
            is_stuck: false,
        };
        let (tasks, receiver) = mpsc::channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let done = Arc::clone(&pending);
        let builder = std::thread::Builder::new().name("arenite-keeper".to_owned());
        let thread = builder
            .spawn(move || manager.run(receiver, &done))
            .map_err(|error| StoreError::io("cannot start a thread", &error))?;
        Ok(Some(Keeper {
            tasks,
            pending,
            thread,
        }))
    }

    /// Returns whether the maximum number of objects waits to be sent.
    pub(super) fn is_behind(&self) -> bool {
        // Relaxed: only a count.
        self.pending.load(Ordering::Relaxed) >= MAX_PENDING
    }

    /// Records that the service manager already keeps this object.
    pub(super) fn has(&self, object: &Object, content: &Content) {
        self.post(Task::Has(object.id, descriptors(content)));
    }

    pub(super) fn keep(&self, object: &Object, content: Content) {
        self.post(Task::Keep(Box::new((object.clone(), content))));
    }

    pub(super) fn forget(&self, id: u64) {
        self.post(Task::Forget(id));
    }

    fn post(&self, task: Task) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        // The thread lives as long as the sender.
        let _ = self.tasks.send(task);
    }

    /// Waits until all messages are sent, or the service manager has failed to read one in time.
    pub(super) fn finish(self) {
        drop(self.tasks);
        // The thread does not panic.
        let _ = self.thread.join();
    }
}

impl Manager {
    fn run(mut self, tasks: Receiver<Task>, pending: &AtomicUsize) {
        for task in tasks {
            let sent = match task {
                // Sending another message would wait as long again. Messages to forget an object are skipped as well.
                _ if self.is_stuck => Ok(()),
                Task::Has(id, count) => {
                    self.kept.insert(id, count);
                    Ok(())
                }
                Task::Keep(kept) => self.keep(&kept.0, &kept.1),
                Task::Forget(id) => self.forget(id),
            };
            if let Err(error) = sent {
                self.is_stuck = true;
                eprintln!(
                    "warning: NOTIFY_SOCKET: {error}; a restart of this server loses objects from now on"
                );
            }
            pending.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn keep(&mut self, object: &Object, content: &Content) -> sys::Result<()> {
        let (small, file) = match content {
            Content::Inline(bytes) => (&bytes[..], None),
            Content::File(file) => (&[][..], Some(file.as_fd())),
        };
        let count = descriptors(content);
        if self.kept.values().sum::<usize>() + count > self.most {
            eprintln!(
                "warning: the service manager keeps {} descriptors (FileDescriptorStoreMax=); a restart of this server \
                 loses {}",
                self.most, object.name
            );
            return Ok(());
        }
        // An object consists of texts and numbers, which JSON always has.
        let mut text = serde_json::to_vec(object).unwrap_or_default();
        text.push(b'\n');
        text.extend(small);
        let about = file::sealed_copy("arenite-about", &text)?;
        let id = object.id;
        self.kept.insert(id, count);
        if let Some(file) = file {
            self.send(
                &format!("FDSTORE=1\nFDPOLL=0\nFDNAME={PREFIX}{id}"),
                &[file],
            )?;
        }
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={PREFIX}{id}{ABOUT}");
        self.send(&text, &[about.as_fd()])
    }

    fn forget(&mut self, id: u64) -> sys::Result<()> {
        self.kept.remove(&id);
        for end in [ABOUT, ""] {
            self.send(&format!("FDSTOREREMOVE=1\nFDNAME={PREFIX}{id}{end}"), &[])?;
        }
        Ok(())
    }

    fn send(&self, text: &str, files: &[BorrowedFd<'_>]) -> sys::Result<()> {
        self.socket.send(text.as_bytes(), files)
    }
}

/// Returns the number of descriptors that the service manager keeps for an object.
fn descriptors(content: &Content) -> usize {
    match content {
        Content::Inline(_) => 1,
        Content::File(_) => 2,
    }
}

/// The objects that an earlier server has left.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Objects, the oldest first. If two have the same name, the older one was being replaced.
    pub objects: Vec<(Object, Content)>,
    /// The numbers of incomplete objects.
    pub broken: Vec<u64>,
    /// The largest number of an object, complete or not.
    pub last_id: u64,
}

/// Takes over the objects that an earlier server has left.
pub(super) fn kept() -> Kept {
    let mut files: HashMap<u64, OwnedFd> = HashMap::new();
    let mut about: HashMap<u64, OwnedFd> = HashMap::new();
    let mut kept = Kept::default();
    for (name, file) in passed::take_named(|name| number_in(name).is_some()) {
        let Some((id, is_about)) = number_in(&name) else {
            continue;
        };
        kept.last_id = kept.last_id.max(id);
        if is_about { &mut about } else { &mut files }.insert(id, file);
    }
    for (id, about) in about {
        match read(id, about, files.remove(&id)) {
            Ok(Some(object)) => kept.objects.push(object),
            Ok(None) => kept.broken.push(id),
            // The object stays with the service manager.
            Err(error) => {
                eprintln!("warning: an object of the server before cannot be taken over: {error}")
            }
        }
    }
    kept.broken.extend(files.into_keys());
    kept.objects.sort_unstable_by_key(|(object, _)| object.id);
    kept
}

/// Returns the number in a descriptor's name, and whether it is the name of a description.
fn number_in(name: &str) -> Option<(u64, bool)> {
    let number = name.strip_prefix(PREFIX)?;
    Some(match number.strip_suffix(ABOUT) {
        Some(number) => (number.parse().ok()?, true),
        None => (number.parse().ok()?, false),
    })
}

fn read(id: u64, about: OwnedFd, file: Option<OwnedFd>) -> sys::Result<Option<(Object, Content)>> {
    let len = file::stat(&about)?.len;
    if len > MAX_ABOUT {
        return Ok(None);
    }
    let mut text = vec![0; len as usize];
    if file::read(&about, &mut text)? < text.len() {
        return Ok(None);
    }
    let Some(end) = text.iter().position(|&byte| byte == b'\n') else {
        return Ok(None);
    };
    let Ok(object) = serde_json::from_slice::<Object>(&text[..end]) else {
        return Ok(None);
    };
    let (content, len) = match file {
        Some(file) => match sealed::length(&file, &object.kind) {
            Ok(len) => (Content::File(file), len),
            Err(FileProblem::Bad(_)) => return Ok(None),
            Err(FileProblem::Limit(error)) => return Err(error),
        },
        None => {
            let bytes = &text[end + 1..];
            (Content::Inline(bytes.into()), bytes.len() as u64)
        }
    };
    let is_whole = object.id == id && object.bytes == len && object.kind.problem(len).is_none();
    Ok(is_whole.then_some((object, content)))
}
