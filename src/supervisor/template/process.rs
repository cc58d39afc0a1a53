//! The process of a template.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::control::template::{Message, TemplateSocket};
use crate::sys::packet::PacketSocket;
use crate::sys::pipe;
use crate::sys::process::{self, Exit, PidFd, Program, WatchPipe};
use crate::worker::{ForkedTemplate, Mark};

/// How long the monitor waits for a fork of the template. Linux makes one in milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a template may take to end on its own.
const GRACE: Duration = Duration::from_millis(500);

/// A process that workers are forked from.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) process: PidFd,
    pub(super) socket: TemplateSocket,
    /// Unanswered requests. The template may have forked for them.
    unanswered: Vec<u64>,
    /// Why the template is not used again.
    pub(super) failure: Option<&'static str>,
}

impl Template {
    pub(super) fn start(
        program: &Program,
        watch: &WatchPipe,
        setup: &[u8],
    ) -> crate::sys::Result<Self> {
        pipe::open_closed_standard(program.null())?;
        let (socket, theirs) = connect(setup)?;
        // Code that is loaded may print. Only results go to stdout.
        let stderr = pipe::duplicate_standard(2)?;
        let standard = [program.null().as_fd(), stderr.as_fd(), stderr.as_fd()];
        let fds = [watch.read.as_fd(), theirs.as_fd()];
        let mark = Mark {
            is_template: true,
            ..Mark::new(program, &fds, &standard)
        };
        let pid = mark.spawn(program, &fds, standard)?;
        drop((stderr, theirs));
        Self::of(pid, socket)
    }

    /// Makes a template of a process that `fork` makes as a copy of this one.
    pub(super) fn fork(
        watch: &WatchPipe,
        setup: &[u8],
        fork: impl FnOnce(ForkedTemplate) -> crate::sys::Result<Pid>,
    ) -> crate::sys::Result<Self> {
        let (socket, theirs) = connect(setup)?;
        let watch = pipe::duplicate(watch.read.as_fd())?;
        Self::of(fork(ForkedTemplate::new(watch, theirs))?, socket)
    }

    fn of(pid: Pid, socket: TemplateSocket) -> crate::sys::Result<Self> {
        match PidFd::open(pid) {
            Ok(process) => Ok(Self {
                process,
                socket,
                unanswered: Vec::new(),
                failure: None,
            }),
            Err(error) => {
                process::end_unwatched(pid);
                Err(error)
            }
        }
    }

    pub(super) fn copy(
        &mut self,
        mark: &str,
        fds: &[BorrowedFd<'_>],
    ) -> crate::sys::Result<Option<PidFd>> {
        let Ok(asked) = self.socket.ask(mark, fds) else {
            self.failure = Some("it takes no request");
            return Ok(None);
        };
        loop {
            match self.socket.receive() {
                Ok(Some(Message::Copied { request, pid })) if request == asked => {
                    let pid = Pid::from_raw(pid);
                    let copy = match PidFd::open(pid) {
                        Err(error) if error.may_pass() => {
                            process::end_unwatched(pid);
                            return Err(error);
                        }
                        // If the number belongs to another process, that process must not be killed.
                        copy => copy.ok().filter(PidFd::is_unreaped),
                    };
                    if copy.is_none() {
                        self.failure = Some("it has named a process that is not its copy");
                    }
                    return Ok(copy);
                }
                Ok(Some(Message::Failed { request, .. })) if request == asked => return Ok(None),
                // The answer to an earlier request.
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    self.unanswered.push(asked);
                    self.failure = Some("it did not answer in time");
                    return Ok(None);
                }
            }
        }
    }

    /// Lets the template end on its own.
    pub(super) fn end_by_itself(self) {
        let Self {
            process, socket, ..
        } = self;
        drop(socket);
        let _ = crate::sys::event::Poller::new().and_then(|poller| {
            poller.add(process.as_fd(), 0)?;
            poller.wait(Some(GRACE))
        });
        // This also kills processes that the template has started. The template was not reaped, so its number belongs
        // to no other process.
        let _ = process.kill_group(Signal::SIGKILL);
        let _ = process.wait_exit();
    }

    /// Kills the template, and forks that it has made for unanswered requests.
    pub(super) fn end(mut self) -> Exit {
        // Fails if the process has ended already.
        let _ = self.process.kill_group(Signal::SIGKILL);
        let exit = self.process.wait_exit().unwrap_or(Exit::Unknown);
        if !self.unanswered.is_empty() {
            // Reads until no fork has the other end open, or, if a fork hangs, until the socket's time limit.
            while let Ok(Some(message)) = self.socket.receive() {
                self.discard_copy(&message);
            }
        }
        exit
    }

    fn discard_copy(&mut self, message: &Message) {
        let Message::Copied { request, pid } = message else {
            return;
        };
        let Some(at) = self.unanswered.iter().position(|number| number == request) else {
            return;
        };
        self.unanswered.swap_remove(at);
        // The fork is a child of this process that no other code knows of.
        if let Ok(copy) = PidFd::open(Pid::from_raw(*pid))
            && copy.is_unreaped()
        {
            let _ = copy.kill_group(Signal::SIGKILL);
            let _ = copy.wait_exit();
        }
    }
}

/// Makes the connection to a template, and sends the setup.
fn connect(setup: &[u8]) -> crate::sys::Result<(TemplateSocket, PacketSocket)> {
    let (socket, theirs) = TemplateSocket::pair(PATIENCE)?;
    // The setup fits the buffer of the socket, or is in a file, so this thread does not wait.
    socket.send_setup(setup)?;
    Ok((socket, theirs))
}
