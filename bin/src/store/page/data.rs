//! The data of the page: a snapshot of the store and of the services, as JSON.
//!
//! The page connects to its store like any client, but only while a snapshot is made: an open connection would keep
//! `--idle-exit` from ending the server.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arenite_store::{
    Client, Object, StoreError, StoreErrorKind, StoreInfo, connect, service_status, services,
    socket_path,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::store::client::now;

/// The maximum number of objects, and of clients, in a snapshot.
const MAX_LISTED: usize = 1000;
/// The maximum number of services in a snapshot. Querying each takes a thread.
const MAX_SERVICES: usize = 32;
/// The time limit for the answer of a service.
const SERVICE_PATIENCE: Duration = Duration::from_millis(300);

/// The minimum time for which a snapshot is reused.
const MIN_AGE: Duration = Duration::from_millis(400);
/// The minimum time for which a snapshot is reused, as a multiple of the time that it took: a store with very many
/// objects then has time for its clients.
const REST: u32 = 4;

/// Makes snapshots.
#[derive(Debug)]
pub(super) struct Source {
    store: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last snapshot, and the time until which it is reused.
    latest: Option<(Instant, Arc<[u8]>)>,
    /// Sockets of other stores, with their inodes. They are queried only once: each query is a connection, which would
    /// keep the store from ending when it is idle.
    stores: HashMap<String, u64>,
}

#[derive(Serialize)]
struct Snapshot {
    /// Seconds since 1970.
    now: f64,
    store: StoreInfo,
    /// The largest objects.
    objects: Vec<Object>,
    objects_total: u64,
    clients: Vec<Client>,
    clients_total: usize,
    /// The report of each service, or its name and an error.
    services: Vec<Value>,
}

impl Source {
    pub(super) fn new(store: &str) -> Source {
        Source {
            store: store.to_owned(),
            state: Mutex::default(),
        }
    }

    /// Returns the last snapshot if it may be reused, otherwise a new one.
    pub(super) fn json(&self) -> Result<Arc<[u8]>, StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = Instant::now();
        if let Some((until, json)) = &state.latest
            && begin < *until
        {
            return Ok(Arc::clone(json));
        }
        let snapshot = self.snapshot(&mut state.stores)?;
        // Cannot fail: a snapshot consists of numbers, texts and lists of them.
        let json: Arc<[u8]> = serde_json::to_vec(&snapshot).unwrap_or_default().into();
        let rest = MIN_AGE.max(begin.elapsed() * REST);
        state.latest = Some((Instant::now() + rest, Arc::clone(&json)));
        Ok(json)
    }

    fn snapshot(&self, stores: &mut HashMap<String, u64>) -> Result<Snapshot, StoreError> {
        let store = connect(&self.store)?;
        let mut objects = Largest::default();
        store.visit_objects(|object| objects.add(object))?;
        let mut info = store.info()?;
        let mut clients = store.clients()?;
        drop(store);
        // Leave out the connection of this page.
        let own = std::process::id().cast_signed();
        let connected = clients.len();
        clients.retain(|client| client.pid != own);
        info.clients = info
            .clients
            .saturating_sub((connected - clients.len()) as u64);
        let clients_total = clients.len();
        clients.truncate(MAX_LISTED);
        Ok(Snapshot {
            now: now(),
            objects_total: info.objects,
            store: info,
            objects: objects.sorted(),
            clients,
            clients_total,
            services: self.services(stores),
        })
    }

    /// Queries all services at the same time, so that several services that do not answer take no longer than one.
    fn services(&self, stores: &mut HashMap<String, u64>) -> Vec<Value> {
        let found = match services() {
            Ok(found) => found,
            Err(error) => return vec![json!({ "name": "?", "error": error.to_string() })],
        };
        let mut asked: Vec<(String, u64)> = found
            .into_iter()
            .filter(|name| *name != self.store)
            .filter_map(|name| {
                let file = std::fs::symlink_metadata(socket_path(&name).ok()?).ok()?;
                Some((name, file.ino()))
            })
            .collect();
        stores.retain(|name, inode| {
            asked
                .iter()
                .any(|(asked, now)| (asked, now) == (name, inode))
        });
        asked.retain(|(name, _)| !stores.contains_key(name));
        asked.truncate(MAX_SERVICES);
        let answers = std::thread::scope(|scope| {
            let asking: Vec<_> = asked
                .iter()
                .map(|(name, _)| {
                    std::thread::Builder::new()
                        .name("arenite-status".to_owned())
                        .spawn_scoped(scope, || service_status(name, SERVICE_PATIENCE))
                })
                .collect();
            asking
                .into_iter()
                .filter_map(|thread| thread.ok()?.join().ok())
                .collect::<Vec<_>>()
        });
        let mut reports = Vec::new();
        for ((name, inode), answer) in asked.into_iter().zip(answers) {
            let answer = answer.map(|status| status.map(|text| serde_json::from_str(&text)));
            match answer {
                Ok(Some(Ok(status))) => reports.push(status),
                Ok(Some(Err(_))) => {}
                Ok(None) => {
                    stores.insert(name, inode);
                }
                Err(error) if error.kind() == StoreErrorKind::NotRunning => {}
                Err(error) => reports.push(json!({ "name": name, "error": error.to_string() })),
            }
        }
        reports
    }
}

/// Keeps the [`MAX_LISTED`] largest of the objects that were added, without storing all of them.
#[derive(Default)]
struct Largest(Vec<Object>);

impl Largest {
    fn add(&mut self, object: Object) {
        self.0.push(object);
        if self.0.len() >= 2 * MAX_LISTED {
            self.sort();
        }
    }

    fn sort(&mut self) {
        let by_size =
            |a: &Object, b: &Object| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name));
        self.0.sort_by(by_size);
        self.0.truncate(MAX_LISTED);
    }

    fn sorted(mut self) -> Vec<Object> {
        self.sort();
        self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_largest_objects_are_retained() {
        let object = |bytes: u64| {
            let json = json!({
                "id": bytes, "name": format!("{bytes}"), "kind": "bytes", "bytes": bytes, "created": 0.0, "leases": 0,
                "pid": 1, "program": "",
            });
            serde_json::from_value::<Object>(json).unwrap()
        };
        let mut largest = Largest::default();
        for at in 0..5000_u64 {
            // Adds each number once, in no order.
            largest.add(object(at * 2741 % 5000));
        }
        let kept: Vec<u64> = largest.sorted().iter().map(|object| object.bytes).collect();
        assert_eq!(kept, (4000..5000).rev().collect::<Vec<u64>>());
    }
}
