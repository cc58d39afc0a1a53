//! The names, the leases and the capacity of a store.
//!
//! Pure state: the server calls it for each request, and does all sending and receiving itself.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::kind::Kind;
use super::message::{Failure, FailureCode, Full, Object, Page};

/// The number of objects in a page of a list. With the longest names and 64 dimensions, a page fits a packet.
pub(super) const PAGE: usize = 24;
/// Maximum length of a name in bytes.
const MAX_NAME: usize = 255;

/// Objects by name, and removed objects that still have leases. `F` is the type that gives access to the bytes.
#[derive(Debug)]
pub(super) struct Objects<F> {
    named: BTreeMap<Arc<str>, Entry<F>>,
    /// The names, by the number of the object.
    names: HashMap<u64, Arc<str>>,
    /// Bytes and leases of objects without a name, by number.
    retained: HashMap<u64, Retained>,
    retained_bytes: u64,
    used: u64,
    capacity: u64,
    last_id: u64,
}

#[derive(Debug)]
struct Entry<F> {
    object: Object,
    file: F,
}

#[derive(Debug)]
struct Retained {
    bytes: u64,
    leases: u64,
}

impl Failure {
    pub(super) fn new(error: FailureCode, message: impl Into<String>) -> Failure {
        Failure {
            error,
            message: message.into(),
            full: None,
        }
    }
}

impl<F> Objects<F> {
    /// Creates an empty store for up to `capacity` bytes.
    pub(super) fn new(capacity: u64) -> Objects<F> {
        Objects {
            named: BTreeMap::new(),
            names: HashMap::new(),
            retained: HashMap::new(),
            retained_bytes: 0,
            used: 0,
            capacity,
            last_id: 0,
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Returns the number of bytes of all objects, including retained objects.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Returns the number of bytes of objects without a name.
    pub(super) fn retained(&self) -> u64 {
        self.retained_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.named.len()
    }

    /// Checks whether an object of this name and size may be added. Called before its file is examined.
    pub(super) fn check(&self, name: &str, bytes: u64, replace: bool) -> Result<(), Failure> {
        check_name(name)?;
        let old = self.named.get(name);
        if let Some(old) = old
            && !replace
        {
            return Err(Failure::new(
                FailureCode::Exists,
                format!(
                    "{name} exists already: {} from process {}; replace or remove it",
                    old.object.kind, old.object.pid
                ),
            ));
        }
        // A replaced object without leases makes room.
        let returned = match old {
            Some(old) if old.object.leases == 0 => old.object.bytes,
            _ => 0,
        };
        let free = self.capacity.saturating_sub(self.used - returned);
        if bytes <= free {
            return Ok(());
        }
        Err(Failure::from(Full {
            requested: bytes,
            free,
            capacity: self.capacity,
            retained: self.retained_bytes,
        }))
    }

    /// Adds an object that was [checked](Objects::check), or replaces the object that has its name. Returns the new
    /// object, and the replaced one.
    pub(super) fn insert(
        &mut self,
        name: &str,
        kind: Kind,
        bytes: u64,
        maker: Maker,
        file: F,
    ) -> (&Object, Option<(Object, F)>) {
        // Remove first, so that the two objects never count at the same time.
        let replaced = self.remove(name).ok();
        self.last_id += 1;
        self.used += bytes;
        let name: Arc<str> = name.into();
        self.names.insert(self.last_id, Arc::clone(&name));
        let object = Object {
            id: self.last_id,
            name: name.to_string(),
            kind,
            bytes,
            created: maker.now,
            leases: 0,
            pid: maker.pid,
            program: maker.program,
        };
        let entry = self.named.entry(name).or_insert(Entry { object, file });
        (&entry.object, replaced)
    }

    /// Makes new objects get larger numbers than `id`.
    pub(super) fn continue_after(&mut self, id: u64) {
        self.last_id = self.last_id.max(id);
    }

    /// Adds an object with the number that it had in an earlier server. Returns the number of the object that had its
    /// name.
    pub(super) fn restore(&mut self, object: Object, file: F) -> Option<u64> {
        let older = self.remove(&object.name).ok().map(|(older, _)| older.id);
        self.used += object.bytes;
        let name: Arc<str> = object.name.as_str().into();
        self.names.insert(object.id, Arc::clone(&name));
        let object = Object {
            leases: 0,
            ..object
        };
        self.named.insert(name, Entry { object, file });
        older
    }

    /// Returns the object of this name and its file.
    pub(super) fn get(&self, name: &str) -> Result<(&Object, &F), Failure> {
        match self.named.get(name) {
            Some(entry) => Ok((&entry.object, &entry.file)),
            None => Err(no_object(name)),
        }
    }

    /// Removes a name. Returns the object that had it. The object's bytes count until its last lease ends.
    pub(super) fn remove(&mut self, name: &str) -> Result<(Object, F), Failure> {
        let Some(Entry { object, file }) = self.named.remove(name) else {
            return Err(no_object(name));
        };
        self.names.remove(&object.id);
        if object.leases == 0 {
            self.used -= object.bytes;
        } else {
            self.retained_bytes += object.bytes;
            let retained = Retained {
                bytes: object.bytes,
                leases: object.leases,
            };
            self.retained.insert(object.id, retained);
        }
        Ok((object, file))
    }

    /// Begins a lease on the object `id`.
    pub(super) fn lease(&mut self, id: u64) {
        if let Some(leases) = self.leases(id) {
            *leases += 1;
        }
    }

    /// Ends `count` leases on the object `id`.
    pub(super) fn release(&mut self, id: u64, count: u64) {
        let Some(leases) = self.leases(id) else {
            return;
        };
        *leases = leases.saturating_sub(count);
        if *leases == 0
            && let Some(gone) = self.retained.remove(&id)
        {
            self.used -= gone.bytes;
            self.retained_bytes -= gone.bytes;
        }
    }

    /// Returns the size of an object that has a name or leases, in bytes.
    pub(super) fn bytes_of(&self, id: u64) -> u64 {
        match self.names.get(&id).and_then(|name| self.named.get(name)) {
            Some(entry) => entry.object.bytes,
            None => self.retained.get(&id).map_or(0, |retained| retained.bytes),
        }
    }

    fn leases(&mut self, id: u64) -> Option<&mut u64> {
        match self.names.get(&id) {
            Some(name) => self
                .named
                .get_mut(name)
                .map(|entry| &mut entry.object.leases),
            None => self
                .retained
                .get_mut(&id)
                .map(|retained| &mut retained.leases),
        }
    }

    /// Returns a page of objects whose names come after `after`, sorted.
    pub(super) fn page(&self, after: &str) -> Page<Object> {
        let rest = self
            .named
            .range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        page(rest.map(|(_, entry)| entry.object.clone()))
    }
}

/// Returns a page with the first of `items`.
pub(super) fn page<T>(items: impl Iterator<Item = T>) -> Page<T> {
    let mut items: Vec<T> = items.take(PAGE + 1).collect();
    let more = items.len() > PAGE;
    items.truncate(PAGE);
    Page { items, more }
}

/// The process that adds an object, and the time.
#[derive(Debug)]
pub(super) struct Maker {
    pub pid: i32,
    pub program: String,
    /// In seconds since 1970.
    pub now: f64,
}

fn no_object(name: &str) -> Failure {
    Failure::new(
        FailureCode::NoObject,
        format!("there is no object {name:?}; list them with `arenite ls`"),
    )
}

pub(super) fn check_name(name: &str) -> Result<(), Failure> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_NAME {
        "it is longer than 255 bytes"
    } else if name.chars().any(char::is_control) {
        "it contains control characters"
    } else {
        return Ok(());
    };
    let start: String = name.chars().take(32).collect();
    Err(Failure::new(
        FailureCode::BadObject,
        format!("{start:?} is no name for an object: {problem}"),
    ))
}
