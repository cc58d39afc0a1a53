//! The clients of a service and their calls.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arenite::engine::Killer;

use super::message::{ClientStatus, ErrorCode, Failure, FailureStatus, KernelCounts};
use super::turns::Turns;
use super::value::Value;
use crate::place::now;
use crate::sys::packet::PacketSocket;

/// The maximum number of failures in the status.
const FAILURES: usize = 16;
/// The maximum number of characters of a failure's message in the status, and of its last words.
const FAILURE_TEXT: usize = 600;
/// The maximum number of clients in the status.
const CLIENTS: usize = 64;

/// A call that waits to begin.
#[derive(Debug)]
pub(super) struct Waiting {
    pub id: u64,
    /// The index of the kernel.
    pub kernel: usize,
    pub args: Vec<Value>,
    pub deadline: Option<Duration>,
}

/// A call that has begun and is not answered.
#[derive(Debug)]
struct Begun {
    is_cancelled: bool,
    /// Kills the job. `None` until the job is submitted.
    killer: Option<Killer>,
}

#[derive(Debug)]
struct Connected {
    socket: Arc<PacketSocket>,
    pid: i32,
    program: String,
    begun: HashMap<u64, Begun>,
    done: u64,
}

/// What is left of a client that has gone: its socket, the killers of its running calls, and its waiting calls.
pub(super) type Gone = (Arc<PacketSocket>, Vec<Killer>, VecDeque<Waiting>);

/// Clients, their calls, and statistics. Changed under the server's lock.
#[derive(Debug)]
pub(super) struct State {
    clients: HashMap<u64, Connected>,
    last_client: u64,
    turns: Turns<Waiting>,
    kernels: Vec<KernelCounts>,
    failures: VecDeque<FailureStatus>,
}

impl State {
    pub(super) fn new(kernels: usize, first_client: u64) -> State {
        State {
            clients: HashMap::new(),
            last_client: first_client - 1,
            turns: Turns::new(),
            kernels: vec![KernelCounts::default(); kernels],
            failures: VecDeque::new(),
        }
    }

    /// Returns the number that the next client gets.
    pub(super) fn next_client(&self) -> u64 {
        self.last_client + 1
    }

    pub(super) fn connect(&mut self, socket: PacketSocket, pid: i32, program: String) {
        self.last_client += 1;
        let connected = Connected {
            socket: Arc::new(socket),
            pid,
            program,
            begun: HashMap::new(),
            done: 0,
        };
        self.clients.insert(self.last_client, connected);
    }

    pub(super) fn socket(&self, client: u64) -> Option<Arc<PacketSocket>> {
        Some(Arc::clone(&self.clients.get(&client)?.socket))
    }

    /// Returns the number of unanswered calls of a client.
    fn open(&self, client: u64) -> usize {
        let begun = self
            .clients
            .get(&client)
            .map_or(0, |client| client.begun.len());
        begun + self.turns.waiting(client)
    }

    /// Adds a call after the other calls of its client.
    pub(super) fn push(
        &mut self,
        client: u64,
        call: Waiting,
        max_calls: usize,
    ) -> Result<(), Box<(Waiting, Failure)>> {
        if !self.clients.contains_key(&client) {
            // The client is gone.
            let failure = Failure::new(ErrorCode::Cancelled, "the client is gone");
            return Err(Box::new((call, failure)));
        }
        let is_open = self
            .clients
            .get(&client)
            .is_some_and(|client| client.begun.contains_key(&call.id))
            || self.turns.has(client, |waiting| waiting.id == call.id);
        if is_open {
            let text = format!(
                "call {} is open already; give each call a number of its own",
                call.id
            );
            return Err(Box::new((call, Failure::new(ErrorCode::BadRequest, text))));
        }
        if self.open(client) >= max_calls {
            let text = format!("{max_calls} calls are open; wait for one of them");
            return Err(Box::new((call, Failure::new(ErrorCode::Busy, text))));
        }
        self.kernels[call.kernel].queued += 1;
        self.turns.push(client, call);
        Ok(())
    }

    /// Returns whether a call waits for its turn.
    pub(super) fn has_waiting(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Begins the next call. Returns the number of its client, and the call.
    pub(super) fn begin(&mut self) -> Option<(u64, Waiting)> {
        let (client, call) = self.turns.next()?;
        let counts = &mut self.kernels[call.kernel];
        counts.queued -= 1;
        counts.running += 1;
        let begun = Begun {
            is_cancelled: false,
            killer: None,
        };
        // Calls of a client that has gone were removed from the queue.
        if let Some(connected) = self.clients.get_mut(&client) {
            connected.begun.insert(call.id, begun);
        }
        Some((client, call))
    }

    /// Records the killer of a submitted call. Returns the killer if the call has been cancelled in the meantime.
    #[must_use]
    pub(super) fn submitted(
        &mut self,
        client: u64,
        id: u64,
        killer: Option<Killer>,
    ) -> Option<Killer> {
        match self
            .clients
            .get_mut(&client)
            .and_then(|client| client.begun.get_mut(&id))
        {
            Some(begun) if !begun.is_cancelled => {
                begun.killer = killer;
                None
            }
            _ => killer,
        }
    }

    /// Removes a call that has ended. Returns the socket for its answer.
    pub(super) fn end(
        &mut self,
        client: u64,
        id: u64,
        (kernel, name): (usize, &str),
        ran: Duration,
        failure: Option<&Failure>,
    ) -> Option<Arc<PacketSocket>> {
        let counts = &mut self.kernels[kernel];
        counts.running -= 1;
        counts.seconds += ran.as_secs_f64();
        match failure {
            None => counts.done += 1,
            Some(_) => counts.failed += 1,
        }
        if let Some(failure) = failure {
            self.failures.truncate(FAILURES - 1);
            self.failures.push_front(FailureStatus {
                at: now(),
                kernel: name.to_owned(),
                client,
                cause: failure.error,
                message: start_of(&failure.message),
                last_words: start_of(&failure.last_words.join("\n")),
            });
        }
        let connected = self.clients.get_mut(&client)?;
        connected.begun.remove(&id);
        connected.done += 1;
        Some(Arc::clone(&connected.socket))
    }

    /// Cancels a call. If the call has not begun, returns the call, which the caller answers. If the call runs, returns
    /// its killer, which the caller uses.
    pub(super) fn cancel(&mut self, client: u64, id: u64) -> (Option<Waiting>, Option<Killer>) {
        if let Some(call) = self.turns.remove(client, |call| call.id == id) {
            self.kernels[call.kernel].queued -= 1;
            return (Some(call), None);
        }
        let begun = self
            .clients
            .get_mut(&client)
            .and_then(|client| client.begun.get_mut(&id));
        let killer = begun.and_then(|begun| {
            begun.is_cancelled = true;
            begun.killer.take()
        });
        (None, killer)
    }

    /// Removes a client. Returns its socket, the killers of its running calls, and its waiting calls.
    pub(super) fn disconnect(&mut self, client: u64) -> Option<Gone> {
        let connected = self.clients.remove(&client)?;
        let waiting = self.turns.remove_all(client);
        for call in &waiting {
            self.kernels[call.kernel].queued -= 1;
        }
        let killers = connected
            .begun
            .into_values()
            .filter_map(|begun| begun.killer)
            .collect();
        Some((connected.socket, killers, waiting))
    }

    pub(super) fn clients(&self) -> Vec<u64> {
        self.clients.keys().copied().collect()
    }

    /// Returns the number of calls by state, for each kernel.
    pub(super) fn counts(&self) -> &[KernelCounts] {
        &self.kernels
    }

    /// Returns the [`CLIENTS`] clients with the lowest numbers, in this order.
    pub(super) fn client_status(&self) -> Vec<ClientStatus<'_>> {
        let mut ids = self.clients();
        ids.sort_unstable();
        ids.truncate(CLIENTS);
        ids.into_iter()
            .filter_map(|id| {
                let connected = self.clients.get(&id)?;
                Some(ClientStatus {
                    id,
                    pid: connected.pid,
                    program: &connected.program,
                    queued: self.turns.waiting(id),
                    running: connected.begun.len(),
                    done: connected.done,
                })
            })
            .collect()
    }

    /// Returns the last failures, newest first.
    pub(super) fn failures(&self) -> Vec<&FailureStatus> {
        self.failures.iter().collect()
    }
}

fn start_of(text: &str) -> String {
    text.chars().take(FAILURE_TEXT).collect()
}
