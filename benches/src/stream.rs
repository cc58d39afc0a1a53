//! Processes that answer over a Unix socket or a pair of pipes, written by hand for speed.
//!
//! A message is a header of 64 bytes, then its payload. A header is one `write`. The answering side reads all bytes
//! that have arrived into a buffer, and payloads directly into memory that is reused.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use bytemuck::{Pod, Zeroable};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{setsockopt, sockopt};

use super::child::{Child, Role};
use super::{BenchError, work};

/// Capacity of the pipes, and requested buffer size of the socket.
const KERNEL_BUFFER: usize = 1 << 20;

/// What to do with the payload of a message.
pub(super) mod task {
    /// Answer `argument + 1`.
    pub(crate) const NOOP: u64 = 0;
    /// Read a cache line per page of the payload.
    pub(crate) const TOUCH: u64 = 1;
    /// Read all of the payload.
    pub(crate) const SUM: u64 = 2;
    /// Shrink the picture in the payload, and return the small picture as payload.
    pub(crate) const SHRINK: u64 = 3;
    /// For each word of the payload, spin for this number of turns.
    pub(crate) const SPIN: u64 = 4;
}

/// The 64 bytes before every payload, in both directions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Header {
    /// A constant of [`task`].
    pub(super) task: u64,
    /// The number of bytes of payload that follow.
    pub(super) len: u64,
    /// Argument or result of the task.
    pub(super) value: u64,
    /// Pads the header to the size of a small job's arguments.
    rest: [u64; 5],
}

impl Header {
    pub(super) fn new(task: u64, len: usize, value: u64) -> Self {
        Self {
            task,
            len: len as u64,
            value,
            rest: [0; 5],
        }
    }
}

/// The kind of stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamKind {
    /// A pair of connected stream sockets.
    UnixSocket,
    /// Two pipes of 1 MiB.
    Pipe,
}

impl StreamKind {
    /// Returns the id of the system.
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::UnixSocket => "unix-socket",
            Self::Pipe => "pipe",
        }
    }
}

/// The asking side of one answering process.
#[derive(Debug)]
pub(super) struct StreamPeer {
    child: Child,
    from: BufReader<File>,
    to: File,
}

impl StreamPeer {
    /// Starts the answering process and makes a first round trip.
    pub(super) fn start(kind: StreamKind) -> Result<Self, BenchError> {
        let failed = |error| BenchError::io(format!("create a {}", kind.id()), error);
        let (from, to, input, output): (OwnedFd, OwnedFd, OwnedFd, OwnedFd) = match kind {
            StreamKind::UnixSocket => {
                let (ours, theirs) = UnixStream::pair().map_err(failed)?;
                for end in [&ours, &theirs] {
                    setsockopt(end, sockopt::SndBuf, &KERNEL_BUFFER)
                        .map_err(|errno| failed(errno.into()))?;
                }
                (
                    ours.try_clone().map_err(failed)?.into(),
                    ours.into(),
                    theirs.try_clone().map_err(failed)?.into(),
                    theirs.into(),
                )
            }
            StreamKind::Pipe => {
                let (input, to) = std::io::pipe().map_err(failed)?;
                let (from, output) = std::io::pipe().map_err(failed)?;
                for end in [to.as_fd(), output.as_fd()] {
                    // This fails if the user's limit of pipe memory is reached. Pipes of 64 KiB work too.
                    let _ = fcntl(end, FcntlArg::F_SETPIPE_SZ(KERNEL_BUFFER as i32));
                }
                (from.into(), to.into(), input.into(), output.into())
            }
        };
        let child = Child::start(kind.id(), &Role::Stream, Some(input), Some(output))?;
        let mut peer = Self {
            child,
            from: BufReader::with_capacity(1 << 16, from.into()),
            to: to.into(),
        };
        peer.noop(1)?;
        Ok(peer)
    }

    /// Sends one header without waiting for the answer.
    pub(super) fn send(&mut self, header: &Header) -> Result<(), BenchError> {
        self.to
            .write_all(bytemuck::bytes_of(header))
            .map_err(|_| self.child.unresponsive())
    }

    /// Sends a header and its payload without waiting for the answer.
    pub(super) fn send_with(&mut self, header: &Header, payload: &[u8]) -> Result<(), BenchError> {
        self.send(header)?;
        self.to
            .write_all(payload)
            .map_err(|_| self.child.unresponsive())
    }

    /// Receives the header of the next answer.
    pub(super) fn receive(&mut self) -> Result<Header, BenchError> {
        let mut header = Header::zeroed();
        self.from
            .read_exact(bytemuck::bytes_of_mut(&mut header))
            .map_err(|_| self.child.unresponsive())?;
        Ok(header)
    }

    /// Makes one round trip of 64 bytes each way.
    pub(super) fn noop(&mut self, x: u64) -> Result<(), BenchError> {
        self.send(&Header::new(task::NOOP, 0, x))?;
        BenchError::expect(self.receive()?.value, work::noop(x))
    }

    /// Sends `payload` and waits for the result.
    pub(super) fn hand_over(&mut self, task: u64, payload: &[u8]) -> Result<u64, BenchError> {
        self.send_with(&Header::new(task, payload.len(), 0), payload)?;
        Ok(self.receive()?.value)
    }

    /// Sends a picture and receives the small picture.
    pub(super) fn shrink(&mut self, pixels: &[u8], small: &mut [u8]) -> Result<(), BenchError> {
        self.send_with(&Header::new(task::SHRINK, pixels.len(), 0), pixels)?;
        let header = self.receive()?;
        BenchError::expect(header.len, small.len() as u64)?;
        self.from
            .read_exact(small)
            .map_err(|_| self.child.unresponsive())
    }
}

/// Runs the answering side until the asking side closes its end.
pub(super) fn answer() -> Result<(), BenchError> {
    let take = |fd: std::io::Result<OwnedFd>| {
        fd.map_err(|error| BenchError::io("duplicate the inherited descriptors", error))
    };
    let from = take(std::io::stdin().as_fd().try_clone_to_owned())?;
    let mut to = File::from(take(std::io::stdout().as_fd().try_clone_to_owned())?);
    let mut from = BufReader::with_capacity(1 << 16, File::from(from));
    let mut payload = Vec::new();
    let mut small = vec![0; work::THUMB_BYTES];
    loop {
        let mut header = Header::zeroed();
        if from
            .read_exact(bytemuck::bytes_of_mut(&mut header))
            .is_err()
        {
            return Ok(());
        }
        let len = header.len as usize;
        if payload.len() < len {
            payload.resize(len, 0);
        }
        let bytes = &mut payload[..len];
        if from.read_exact(bytes).is_err() {
            return Ok(());
        }
        let mut reply: &[u8] = &[];
        let value = match header.task {
            task::TOUCH => work::touch(bytes),
            task::SUM => work::sum(bytes),
            task::SHRINK => {
                work::shrink(bytes, &mut small);
                reply = &small;
                0
            }
            task::SPIN => bytemuck::pod_collect_to_vec::<u8, u64>(bytes)
                .into_iter()
                .map(work::spin)
                .fold(0, u64::wrapping_add),
            _ => work::noop(header.value),
        };
        let answer = Header::new(header.task, reply.len(), value);
        let sent = to
            .write_all(bytemuck::bytes_of(&answer))
            .and_then(|()| to.write_all(reply));
        if sent.is_err() {
            return Ok(());
        }
    }
}
