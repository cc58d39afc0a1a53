//! Objects that survive a restart of the server: kept by the descriptor store of a service manager.
//!
//! systemd keeps descriptors for a service with `FileDescriptorStoreMax=`, and says so with the variable `FDSTORE`. Each
//! object is sent as two of them: its file as `arenite-N`, then a description as `arenite-N-about`, which also has the
//! bytes of a small object. The next server finds them behind its sockets (`LISTEN_FDNAMES`). It takes those that have
//! both, so an object that was being added or removed when the server died is there as a whole or not at all.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::message::Object;
use super::{place, sealed};
use crate::sys::packet::PacketSocket;
use crate::sys::{self, Segment};

/// systemd reads its messages at once, unless it is overloaded.
const PATIENCE: Duration = Duration::from_secs(5);
const PREFIX: &str = "arenite-";
const ABOUT: &str = "-about";
/// What a description is at most: names and shapes are bounded, and small objects have 64 KiB.
const MAX_ABOUT: u64 = 128 << 10;

/// The descriptor store of the service manager.
#[derive(Debug)]
pub(super) struct Upgrade {
    socket: PacketSocket,
}

/// An object of the server that ran before.
#[derive(Debug)]
pub(super) struct Kept {
    pub object: Object,
    pub content: KeptContent,
}

/// Its bytes.
#[derive(Debug)]
pub(super) enum KeptContent {
    Bytes(Vec<u8>),
    File(Segment),
}

impl Upgrade {
    /// The descriptor store that the environment names, if there is one.
    pub(super) fn find() -> Option<Upgrade> {
        std::env::var_os("FDSTORE")?;
        let path = std::env::var_os("NOTIFY_SOCKET")?;
        let socket = PacketSocket::notify(&path, PATIENCE).ok()?;
        Some(Upgrade { socket })
    }

    /// Keeps an object.
    pub(super) fn keep(
        &self,
        object: &Object,
        small: Option<&[u8]>,
        file: Option<BorrowedFd<'_>>,
    ) -> sys::Result<()> {
        let about = Segment::create_memfd("arenite-about", false)?;
        // It consists of texts and numbers.
        let mut text = serde_json::to_vec(object).unwrap_or_default();
        text.push(b'\n');
        text.extend(small.unwrap_or_default());
        about.set_len(text.len() as u64)?;
        about.write_at(&text, 0)?;
        let id = object.id;
        if let Some(file) = file {
            self.send(
                &format!("FDSTORE=1\nFDPOLL=0\nFDNAME={PREFIX}{id}"),
                &[file],
            )?;
        }
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={PREFIX}{id}{ABOUT}");
        self.send(&text, &[about.as_fd()])
    }

    /// Lets go of an object.
    pub(super) fn drop_object(&self, id: u64) -> sys::Result<()> {
        for end in [ABOUT, ""] {
            self.send(&format!("FDSTOREREMOVE=1\nFDNAME={PREFIX}{id}{end}"), &[])?;
        }
        Ok(())
    }

    fn send(&self, text: &str, files: &[BorrowedFd<'_>]) -> sys::Result<()> {
        self.socket.send(text.as_bytes(), files)
    }
}

/// The objects that a server before this one has left, by their numbers; and the numbers of those that are not whole.
pub(super) fn kept() -> (Vec<Kept>, Vec<u64>) {
    let mut files: HashMap<u64, OwnedFd> = HashMap::new();
    let mut about: HashMap<u64, OwnedFd> = HashMap::new();
    for (name, file) in place::passed_by_name() {
        let Some(number) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let (number, which) = match number.strip_suffix(ABOUT) {
            Some(number) => (number, &mut about),
            None => (number, &mut files),
        };
        if let Ok(number) = number.parse() {
            which.insert(number, file);
        }
    }
    let mut found = Vec::new();
    let mut broken: Vec<u64> = files
        .keys()
        .copied()
        .filter(|id| !about.contains_key(id))
        .collect();
    for (id, about) in about {
        match read(id, about, files.remove(&id)) {
            Some(kept) => found.push(kept),
            None => broken.push(id),
        }
    }
    // Of two with one name, the older one was being replaced.
    found.sort_unstable_by_key(|kept| kept.object.id);
    (found, broken)
}

fn read(id: u64, about: OwnedFd, file: Option<OwnedFd>) -> Option<Kept> {
    let about = Segment::from_fd(about);
    let len = about.stat().ok()?.len;
    if len > MAX_ABOUT {
        return None;
    }
    let mut text = vec![0; usize::try_from(len).ok()?];
    let mut done = 0;
    while done < text.len() {
        match about.read_at(&mut text[done..], done as i64).ok()? {
            0 => return None,
            count => done += count,
        }
    }
    let end = text.iter().position(|&byte| byte == b'\n')?;
    let object: Object = serde_json::from_slice(&text[..end]).ok()?;
    let content = match file {
        Some(file) => {
            let file = Segment::from_fd(file);
            sealed::length(&file, &object.kind).ok()?;
            KeptContent::File(file)
        }
        None => KeptContent::Bytes(text[end + 1..].to_vec()),
    };
    let len = match &content {
        KeptContent::Bytes(bytes) => bytes.len() as u64,
        KeptContent::File(file) => file.stat().ok()?.len,
    };
    let is_whole = object.id == id && object.bytes == len && object.kind.problem(len).is_none();
    is_whole.then_some(Kept { object, content })
}
