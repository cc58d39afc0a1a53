//! The template of workers: a process that has loaded what all workers need, and that is forked for each worker.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::settings::{ProgramSpec, Settings};
use crate::control::template::{MAX_FDS, Message, STANDARD, TemplateSocket};
use crate::sys::pipe;
use crate::sys::process::{self, Exit, PidFd, Program, WatchPipe};
use crate::worker::{MARK, Mark};

/// How long the monitor waits for a fork of the template. Linux makes one in milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a template may take to end on its own when the engine has ended.
const GRACE: Duration = Duration::from_millis(500);
/// The number of templates that may end on their own; after that, workers are started separately.
const MAX_ENDS: u32 = 3;

/// Whether workers are forked from a template, and the state of the template.
#[derive(Debug)]
pub(super) struct Templates {
    setup: Option<Arc<[u8]>>,
    now: Now,
    /// Number of templates that have ended without being asked to.
    ends: u32,
    /// Whether there was a template. If so, workers are started separately while another one loads.
    had_one: bool,
    /// Whether the time for loading is limited, not only the time until it begins.
    limits_loading: bool,
}

#[derive(Debug)]
enum Now {
    /// There is no template. One is started before the next worker.
    Absent,
    /// The template loads. Missing workers wait for it until this time.
    Loading(Template, Option<Instant>),
    Ready(Template),
    /// No template is used any more: workers are started separately.
    Disabled,
}

/// Why no template is used from now on, if that was just decided.
pub(super) type WhyDisabled = Option<String>;

impl Templates {
    pub(super) fn new(settings: &Settings) -> Self {
        let setup = settings.program.template.clone();
        Self {
            now: match setup {
                Some(_) => Now::Absent,
                None => Now::Disabled,
            },
            setup,
            ends: 0,
            had_one: false,
            limits_loading: settings.start_timeout.is_some(),
        }
    }

    /// Returns true if workers have to wait for the template, which is loading.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.now, Now::Loading(..)) && !self.had_one
    }

    /// Returns the time when loading the template has taken too long.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.now {
            Now::Loading(_, until) => until,
            _ => None,
        }
    }

    /// Returns the descriptors to poll: one is readable when the template has sent a message, the other when it has
    /// ended.
    pub(super) fn descriptors(&self) -> Option<[BorrowedFd<'_>; 2]> {
        match &self.now {
            Now::Loading(template, _) | Now::Ready(template) => {
                Some([template.socket.as_fd(), template.process.as_fd()])
            }
            Now::Absent | Now::Disabled => None,
        }
    }

    /// Returns true if a template has to be started before the next worker.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.now, Now::Absent)
    }

    /// Starts the template process. Called only on the monitor thread, like starts of workers.
    pub(super) fn begin(
        &mut self,
        program: &ProgramSpec,
        watch: &WatchPipe,
        until: Option<Instant>,
    ) -> WhyDisabled {
        let Some(setup) = &self.setup else {
            return None;
        };
        match Template::start(&program.program, watch, setup) {
            Ok(template) => {
                self.now = Now::Loading(template, until);
                None
            }
            // It is tried again before the next worker.
            Err(error) if error.may_pass() => None,
            Err(error) => self.give_up(format!("it cannot be started: {error}")),
        }
    }

    /// Handles a message of the template, or its end. If there is another template or none afterwards, the caller stops
    /// polling the descriptors of this one.
    pub(super) fn receive(&mut self) -> WhyDisabled {
        match std::mem::replace(&mut self.now, Now::Disabled) {
            Now::Loading(template, until) => match template.socket.receive() {
                Ok(Some(Message::Ready)) => {
                    self.had_one = true;
                    self.now = Now::Ready(template);
                    None
                }
                Ok(Some(Message::Loading)) => {
                    let until = until.filter(|_| self.limits_loading);
                    self.now = Now::Loading(template, until);
                    None
                }
                Ok(Some(Message::Unfit(why))) => {
                    template.end();
                    self.give_up(why)
                }
                Ok(Some(_)) => {
                    self.now = Now::Loading(template, until);
                    None
                }
                Ok(None) | Err(_) => {
                    let exit = template.end();
                    self.give_up(format!(
                        "it has ended while it was loading ({})",
                        text(exit)
                    ))
                }
            },
            Now::Ready(mut template) => match template.receive_late() {
                true => {
                    self.now = Now::Ready(template);
                    None
                }
                false => self.lose(template),
            },
            other => {
                self.now = other;
                None
            }
        }
    }

    /// Ends and disables the template if it is still loading when its time is over. `limit` is that time, for the
    /// message.
    pub(super) fn look(&mut self, now: Instant, limit: Duration) -> WhyDisabled {
        if self.until().is_none_or(|until| now < until) {
            return None;
        }
        if let Now::Loading(template, _) = std::mem::replace(&mut self.now, Now::Disabled) {
            template.end();
        }
        self.give_up(format!("it was not ready after {limit:?}"))
    }

    /// Postpones all time limits.
    pub(super) fn postpone(&mut self, by: Duration) {
        if let Now::Loading(_, Some(until)) = &mut self.now {
            *until = crate::sys::clock::postponed(*until, by);
        }
    }

    /// Forks the template into the worker with this mark; the fork is a child of this process. Returns `None` if the
    /// worker has to be started separately, and an error if no worker can be watched now.
    pub(super) fn copy(
        &mut self,
        mark: &Mark,
        standard: [BorrowedFd<'_>; STANDARD],
        fds: &[BorrowedFd<'_>],
    ) -> crate::sys::Result<Option<PidFd>> {
        let Now::Ready(template) = &mut self.now else {
            return Ok(None);
        };
        // More descriptors would need two packets, which is not supported.
        if fds.len() + STANDARD > MAX_FDS {
            return Ok(None);
        }
        let all: Vec<_> = standard.iter().chain(fds).copied().collect();
        template.copy(&mark.to_string(), &all)
    }

    /// Ends the template if it has not answered the last request.
    pub(super) fn end_silent(&mut self) -> WhyDisabled {
        match std::mem::replace(&mut self.now, Now::Disabled) {
            Now::Ready(template) if template.failure.is_some() => self.lose(template),
            other => {
                self.now = other;
                None
            }
        }
    }

    fn lose(&mut self, template: Template) -> WhyDisabled {
        let failure = template.failure;
        let exit = template.end();
        self.ends += 1;
        if self.ends >= MAX_ENDS {
            let why = failure.map_or_else(|| text(exit), str::to_owned);
            return self.give_up(format!(
                "it has ended or failed {} times ({why})",
                self.ends
            ));
        }
        self.now = Now::Absent;
        None
    }

    fn give_up(&mut self, why: String) -> WhyDisabled {
        self.now = Now::Disabled;
        Some(why)
    }
}

impl Drop for Templates {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.now, Now::Disabled) {
            Now::Loading(template, _) => drop(template.end()),
            Now::Ready(template) => template.end_by_itself(),
            Now::Absent | Now::Disabled => {}
        }
    }
}

fn text(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::Unknown => "its exit code is not known".into(),
    }
}

/// A process that workers are forked from.
#[derive(Debug)]
struct Template {
    process: PidFd,
    socket: TemplateSocket,
    /// Unanswered requests. The template may have forked for them.
    unanswered: Vec<u64>,
    /// Why the template is not used again.
    failure: Option<&'static str>,
}

impl Template {
    fn start(program: &Program, watch: &WatchPipe, setup: &[u8]) -> crate::sys::Result<Self> {
        pipe::open_closed_standard(program.null())?;
        let (socket, theirs) = TemplateSocket::pair(PATIENCE)?;
        // The setup fits the buffer of the socket, or is in a file, so this thread does not wait.
        socket.send_setup(setup)?;
        // Code that is loaded may print. Only results go to stdout.
        let stderr = pipe::duplicate_standard(2)?;
        let standard = [program.null().as_fd(), stderr.as_fd(), stderr.as_fd()];
        let fds = [watch.read.as_fd(), theirs.as_fd()];
        let all: Vec<_> = fds.iter().chain(&standard).copied().collect();
        let first_fd = process::first_target_fd(program, &all);
        let mark = Mark {
            parent: std::process::id() as i32,
            first_fd,
            fds: fds.len(),
            is_template: true,
        };
        let variables = [(MARK, mark.to_string())];
        let pid = process::spawn(program, &variables, &fds, first_fd, Some(standard))?;
        drop((stderr, theirs));
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

    fn copy(&mut self, mark: &str, fds: &[BorrowedFd<'_>]) -> crate::sys::Result<Option<PidFd>> {
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

    /// Handles messages that no thread waits for. Returns true if the template is still usable.
    fn receive_late(&mut self) -> bool {
        match self.socket.receive() {
            Ok(Some(message)) => {
                self.discard_copy(&message);
                true
            }
            // The template may have ended. The socket reports this only once no fork has the other end open.
            Ok(None) | Err(_) => false,
        }
    }

    /// Lets the template end on its own.
    fn end_by_itself(self) {
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
    fn end(mut self) -> Exit {
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
