//! A program that serves a kernel.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use arenite::Engine;
use arenite_store::service::{Client, Service, connect};

use super::child::{Child, Role};
use super::{BenchError, work};

/// A service in a separate process, and a client of the service.
pub(super) struct ServicePeer {
    pub client: Client,
    // The child is dropped before the socket is removed.
    _child: Child,
    _socket: Socket,
}

struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // The service is killed, so it does not remove the file itself.
        let _ = std::fs::remove_file(&self.0);
        let mut lock = self.0.clone().into_os_string();
        lock.push(".lock");
        let _ = std::fs::remove_file(lock);
    }
}

impl ServicePeer {
    /// Starts the service and connects to it.
    pub(super) fn start(workers: usize) -> Result<ServicePeer, BenchError> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("arenite-bench-{}-{number}.sock", std::process::id());
        let socket = Socket(std::env::temp_dir().join(name));
        let path = socket.0.display().to_string();
        let role = Role::Service {
            workers,
            socket: path.clone(),
        };
        let mut child = Child::start("arenite", &role, None, None)?;
        loop {
            match connect(&path) {
                Ok(client) => {
                    return Ok(ServicePeer {
                        client,
                        _child: child,
                        _socket: socket,
                    });
                }
                Err(_) if !child.has_ended() => std::thread::yield_now(),
                Err(_) => return Err(child.unresponsive()),
            }
        }
    }
}

/// Serves until this process is killed.
pub(super) fn answer(workers: usize, socket: &Path) -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::Missing(error.to_string());
    let engine = Engine::builder()
        .workers(workers)
        .build()
        .map_err(|error| failed(&error))?;
    Service::new(engine)
        .kernel("noop", work::noop)
        .run(&socket.to_string_lossy())
        .map_err(|error| failed(&error))
}
