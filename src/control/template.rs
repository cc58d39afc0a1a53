//! The messages between a supervisor and the template of its workers, over a pair of packet sockets.
//!
//! The supervisor sends the setup, and then a request for each worker: its [`Mark`](crate::worker) and the descriptors
//! that a process started directly would inherit. The template reports that it loads, and then that it is ready, or why
//! it cannot be copied. For each copy, the copy itself and then the template report the copy's process id, so that the
//! supervisor knows every copy even if one of these two processes ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::sys::fork::Unforked;
use crate::sys::packet::PacketSocket;
use crate::sys::{self, Segment};

/// The number of descriptors at the beginning of a request that become stdin, stdout and stderr. The worker adopts the
/// others.
pub(crate) const STANDARD: usize = 3;
/// Max number of descriptors in a packet.
pub(crate) const MAX_FDS: usize = 250;
/// Max length of a packet in bytes. Longer reasons are truncated.
const LONGEST: usize = 16 << 10;

/// A message of a template or its copy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The template has started, and loads what workers need.
    Loading,
    /// The template has loaded what workers need.
    Ready,
    /// The template cannot be copied, for this reason.
    Unfit(String),
    /// The template was copied for this request, and `pid` is the process id of the copy.
    Copied { request: u64, pid: i32 },
    /// No copy was made for this request, for this reason.
    Failed { request: u64, why: String },
}

impl Message {
    fn to_text(&self) -> String {
        match self {
            Self::Loading => "loading".into(),
            Self::Ready => "ready".into(),
            Self::Unfit(why) => format!("unfit {why}"),
            Self::Copied { request, pid } => format!("copied {request} {pid}"),
            Self::Failed { request, why } => format!("failed {request} {why}"),
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some(match kind {
            "loading" => Self::Loading,
            "ready" => Self::Ready,
            "unfit" => Self::Unfit(rest.into()),
            "copied" => {
                let (request, pid) = rest.split_once(' ')?;
                Self::Copied {
                    request: request.parse().ok()?,
                    pid: pid.parse().ok().filter(|pid| *pid > 0)?,
                }
            }
            "failed" => {
                let (request, why) = rest.split_once(' ')?;
                Self::Failed {
                    request: request.parse().ok()?,
                    why: why.into(),
                }
            }
            _ => return None,
        })
    }
}

/// The supervisor's end of the pair.
#[derive(Debug)]
pub(crate) struct TemplateSocket {
    _unforked: Unforked,
    socket: PacketSocket,
    requests: u64,
}

impl TemplateSocket {
    /// Creates a pair: the supervisor's end, and the end that the template inherits. Sending fails after `patience` if
    /// the template does not read.
    pub(crate) fn pair(patience: Duration) -> sys::Result<(Self, PacketSocket)> {
        let (socket, theirs) = PacketSocket::pair(patience)?;
        Ok((
            Self {
                _unforked: Unforked::new(socket.as_fd()),
                socket,
                requests: 0,
            },
            theirs,
        ))
    }

    /// Sends the setup that the template loads.
    pub(crate) fn send_setup(&self, setup: &[u8]) -> sys::Result<()> {
        let file = Segment::create_memfd("arenite-template", false)?;
        file.set_len(setup.len() as u64)?;
        file.write_at(setup, 0)?;
        self.socket.send(b"setup", &[file.as_fd()])
    }

    /// Requests a copy, which becomes the worker that `mark` describes. Returns the number of the request.
    pub(crate) fn ask(&mut self, mark: &str, fds: &[BorrowedFd<'_>]) -> sys::Result<u64> {
        self.requests += 1;
        let text = format!("{} {mark}", self.requests);
        self.socket.send(text.as_bytes(), fds)?;
        Ok(self.requests)
    }

    /// Waits for the next message, at most for the `patience` of the pair. Returns `None` if no more messages can come.
    pub(crate) fn receive(&self) -> sys::Result<Option<Message>> {
        loop {
            let mut bytes = [0; LONGEST];
            let packet = self.socket.receive(&mut bytes)?;
            if packet.len == 0 {
                return Ok(None);
            }
            let text = String::from_utf8_lossy(&bytes[..packet.len]);
            // Text that is no valid message is ignored.
            if let Some(message) = Message::of_text(&text) {
                return Ok(Some(message));
            }
        }
    }
}

impl AsFd for TemplateSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The template's end of the pair.
#[derive(Debug)]
pub(crate) struct SupervisorSocket(PacketSocket);

/// A request to become a worker.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) mark: String,
    /// The descriptors, with the standard ones first.
    pub(crate) fds: Vec<OwnedFd>,
}

impl SupervisorSocket {
    pub(crate) fn of(socket: PacketSocket) -> Self {
        Self(socket)
    }

    /// Receives the setup to load.
    pub(crate) fn setup(&self) -> Result<Vec<u8>, String> {
        let mut bytes = [0; LONGEST];
        let packet = self
            .0
            .receive(&mut bytes)
            .map_err(|error| error.to_string())?;
        let file = packet.fds.into_iter().next().ok_or("without a setup")?;
        let file = Segment::from_fd(file);
        let read = || {
            let len = file.stat()?.len;
            let mut setup = vec![0; usize::try_from(len).unwrap_or(0)];
            let mut done = 0;
            while done < setup.len() {
                match file.read_at(&mut setup[done..], done as i64)? {
                    0 => break,
                    more => done += more,
                }
            }
            setup.truncate(done);
            Ok(setup)
        };
        read().map_err(|error: sys::Error| error.to_string())
    }

    /// Waits for the next request. Returns `None` when the supervisor has ended.
    pub(crate) fn request(&self) -> sys::Result<Option<Request>> {
        let mut bytes = [0; LONGEST];
        let packet = self.0.receive(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes[..packet.len]);
        let Some((number, mark)) = text.split_once(' ') else {
            return Ok(None);
        };
        let number = number.parse().ok();
        let fds = packet.fds;
        Ok(number
            .filter(|_| !packet.is_cut && fds.len() > STANDARD)
            .map(|number| Request {
                number,
                mark: mark.to_owned(),
                fds,
            }))
    }

    pub(crate) fn send(&self, message: &Message) -> sys::Result<()> {
        let mut text = message.to_text();
        let cut = (0..=LONGEST / 2)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or(0).max(1).min(text.len()));
        self.0.send(text.as_bytes(), &[])
    }
}

impl AsFd for SupervisorSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (ours, theirs) = TemplateSocket::pair(Duration::from_secs(10)).unwrap();
        let theirs = SupervisorSocket(theirs);
        ours.send_setup(&[7; 100_000]).unwrap();
        assert_eq!(theirs.setup().unwrap(), [7; 100_000]);
        let long = Message::Unfit("ä".repeat(LONGEST));
        let all = [
            Message::Ready,
            Message::Unfit("2 threads, and more words".into()),
            Message::Copied {
                request: 3,
                pid: 1234,
            },
            Message::Failed {
                request: u64::MAX,
                why: "no memory".into(),
            },
        ];
        for message in all {
            theirs.send(&message).unwrap();
            assert_eq!(ours.receive().unwrap(), Some(message));
        }
        theirs.send(&long).unwrap();
        assert!(
            matches!(ours.receive().unwrap(), Some(Message::Unfit(why)) if why.starts_with("ää"))
        );
        drop(theirs);
        assert_eq!(ours.receive().unwrap(), None);
    }

    #[test]
    fn text_that_is_no_message_is_ignored() {
        for text in [
            "",
            "read",
            "copied 1",
            "copied 1 -4",
            "copied x 1",
            "failed 1",
        ] {
            assert_eq!(Message::of_text(text), None, "{text:?}");
        }
    }
}
