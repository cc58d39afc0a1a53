//! Processes that answer over `ipc-channel`, used as in its documentation: typed messages, byte channels, and
//! [`IpcSharedMemory`] for bytes that are already in shared memory.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use ipc_channel::ipc::{
    self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender,
    IpcSharedMemory,
};
use serde::{Deserialize, Serialize};

use super::child::{Child, Role};
use super::{BenchError, work};

/// A request to the answering side.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// Answer `x + 1`. The request is as long as the arguments of a small job.
    Noop { x: u64, rest: [u64; 6] },
    /// Read the next message of the byte channel.
    Bytes { sum: bool },
    /// Read this shared memory.
    Shared { memory: IpcSharedMemory, sum: bool },
}

/// The first message of an answering process: the channels for requests, bytes and answers.
type Hello = (IpcSender<Request>, IpcBytesSender, IpcReceiver<u64>);

/// The asking side of one answering process.
#[derive(Debug)]
pub(super) struct IpcPeer {
    child: Child,
    requests: IpcSender<Request>,
    bytes: IpcBytesSender,
    answers: IpcReceiver<u64>,
}

impl IpcPeer {
    /// Starts the answering process and makes a first request.
    pub(super) fn start(system: &'static str) -> Result<Self, BenchError> {
        let failed = |error| BenchError::io("make an ipc-channel server", error);
        let (server, name) = IpcOneShotServer::<Hello>::new().map_err(failed)?;
        let mut child = Child::start(system, &Role::Ipc { server: name }, None, None)?;
        // `accept` has no time limit. If the child ends before it connects, the benchmark must not hang.
        let (arrived, arrival) = mpsc::channel();
        std::thread::spawn(move || {
            // This fails if the other side has stopped waiting.
            let _ = arrived.send(server.accept());
        });
        let hello = loop {
            match arrival.recv_timeout(Duration::from_millis(20)) {
                Ok(hello) => break hello,
                Err(RecvTimeoutError::Timeout) if !child.has_ended() => {}
                Err(_) => return Err(child.unresponsive()),
            }
        };
        let (_, (requests, bytes, answers)) = hello.map_err(|_| child.unresponsive())?;
        let mut peer = Self {
            child,
            requests,
            bytes,
            answers,
        };
        peer.noop(1)?;
        Ok(peer)
    }

    /// Sends one request without waiting for the answer.
    pub(super) fn send_noop(&mut self, x: u64) -> Result<(), BenchError> {
        self.send(Request::Noop { x, rest: [0; 6] })
    }

    /// Receives the next answer.
    pub(super) fn receive(&mut self) -> Result<u64, BenchError> {
        self.answers.recv().map_err(|_| self.child.unresponsive())
    }

    /// Makes one round trip.
    pub(super) fn noop(&mut self, x: u64) -> Result<(), BenchError> {
        self.send_noop(x)?;
        BenchError::expect(self.receive()?, work::noop(x))
    }

    /// Sends `bytes` through the byte channel. Returns the result that the other side has computed from the bytes.
    pub(super) fn hand_over_bytes(&mut self, bytes: &[u8], sum: bool) -> Result<u64, BenchError> {
        self.send(Request::Bytes { sum })?;
        self.bytes
            .send(bytes)
            .map_err(|_| self.child.unresponsive())?;
        self.receive()
    }

    /// Sends a handle of `memory`. Returns the result that the other side has computed from the memory.
    pub(super) fn hand_over_shared(
        &mut self,
        memory: &IpcSharedMemory,
        sum: bool,
    ) -> Result<u64, BenchError> {
        self.send(Request::Shared {
            memory: memory.clone(),
            sum,
        })?;
        self.receive()
    }

    fn send(&mut self, request: Request) -> Result<(), BenchError> {
        self.requests
            .send(request)
            .map_err(|_| self.child.unresponsive())
    }
}

/// Runs the answering side until the asking side has ended.
pub(super) fn answer(server: &str) -> Result<(), BenchError> {
    let failed = |error| BenchError::io("reach the ipc-channel server", error);
    let hello = IpcSender::<Hello>::connect(server.to_owned()).map_err(failed)?;
    let (requests, incoming) = ipc::channel::<Request>().map_err(failed)?;
    let (bytes, incoming_bytes): (IpcBytesSender, IpcBytesReceiver) =
        ipc::bytes_channel().map_err(failed)?;
    let (answers, outgoing) = ipc::channel::<u64>().map_err(failed)?;
    if hello.send((requests, bytes, outgoing)).is_err() {
        return Ok(());
    }
    let read = |bytes: &[u8], sum| {
        if sum {
            work::sum(bytes)
        } else {
            work::touch(bytes)
        }
    };
    while let Ok(request) = incoming.recv() {
        let answer = match request {
            Request::Noop { x, .. } => work::noop(x),
            Request::Bytes { sum } => match incoming_bytes.recv() {
                Ok(bytes) => read(&bytes, sum),
                Err(_) => return Ok(()),
            },
            Request::Shared { memory, sum } => read(&memory, sum),
        };
        if answers.send(answer).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
