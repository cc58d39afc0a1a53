//! The template of workers: a process that has loaded what all of them need, and is copied for each.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::settings::ProgramSpec;
use crate::control::template::{MAX_FDS, STANDARD, Said, TemplateSocket};
use crate::sys::pipe;
use crate::sys::process::{self, Exit, PidFd, WatchPipe};
use crate::worker::{MARK, Mark};

/// How long the monitor waits for a copy. Linux makes one in milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a template may take to end by itself when the engine has ended.
const GRACE: Duration = Duration::from_millis(500);
/// After this many templates have ended without being asked to, there is no other.
const MAX_ENDS: u32 = 3;

/// Whether workers are copied from a template, and what it does.
#[derive(Debug)]
pub(super) struct Templates {
    setup: Option<Arc<[u8]>>,
    now: Now,
    /// Templates that have ended without being asked to.
    ends: u32,
    /// There was a template. While another one loads, workers are started by themselves.
    had_one: bool,
}

#[derive(Debug)]
enum Now {
    /// There is none, and there will be one for the next worker.
    Absent,
    /// Workers that are missing wait until this time.
    Loading(Template, Option<Instant>),
    Ready(Template),
    /// Workers are started one by one.
    GivenUp,
}

/// Why there will be no template from now on, if so.
pub(super) type GivenUp = Option<String>;

impl Templates {
    pub(super) fn new(program: &ProgramSpec) -> Self {
        let setup = program.template.clone();
        Self {
            now: match setup {
                Some(_) => Now::Absent,
                None => Now::GivenUp,
            },
            setup,
            ends: 0,
            had_one: false,
        }
    }

    /// Whether workers have to wait for the template, which is loading.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.now, Now::Loading(..)) && !self.had_one
    }

    /// When loading takes too long.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.now {
            Now::Loading(_, until) => until,
            _ => None,
        }
    }

    /// The descriptors to poll: one readable when the template says something, one when it has ended.
    pub(super) fn descriptors(&self) -> Option<[BorrowedFd<'_>; 2]> {
        match &self.now {
            Now::Loading(template, _) | Now::Ready(template) => {
                Some([template.socket.as_fd(), template.process.as_fd()])
            }
            Now::Absent | Now::GivenUp => None,
        }
    }

    /// Whether a template has to be started before the next worker.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.now, Now::Absent)
    }

    /// Starts the template. Only on the monitor thread, as workers.
    pub(super) fn begin(
        &mut self,
        program: &ProgramSpec,
        watch: &WatchPipe,
        until: Option<Instant>,
    ) -> GivenUp {
        let Some(setup) = &self.setup else {
            return None;
        };
        match Template::start(program, watch, setup) {
            Ok(template) => {
                self.now = Now::Loading(template, until);
                None
            }
            Err(error) => self.give_up(format!("it cannot be started: {error}")),
        }
    }

    /// Hears what the template says, or notices its end. The caller no longer polls its descriptors if it is another one
    /// or none afterwards.
    pub(super) fn hear(&mut self) -> GivenUp {
        match std::mem::replace(&mut self.now, Now::GivenUp) {
            Now::Loading(template, until) => match template.socket.hear() {
                Ok(Some(Said::Ready)) => {
                    self.had_one = true;
                    self.now = Now::Ready(template);
                    None
                }
                Ok(Some(Said::Unfit(why))) => {
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
            Now::Ready(mut template) => match template.hear_late() {
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

    /// Gives up a template that is still loading at this time.
    pub(super) fn look(&mut self, now: Instant, limit: Duration) -> GivenUp {
        if self.until().is_none_or(|until| now < until) {
            return None;
        }
        if let Now::Loading(template, _) = std::mem::replace(&mut self.now, Now::GivenUp) {
            template.end();
        }
        self.give_up(format!("it was not ready after {limit:?}"))
    }

    /// Whatever ends by some time may take this much longer.
    pub(super) fn postpone(&mut self, by: Duration) {
        if let Now::Loading(_, Some(until)) = &mut self.now {
            *until = crate::sys::clock::postponed(*until, by);
        }
    }

    /// Makes a copy that becomes the worker of this mark, a child of this process. `None`: it has to be started by itself.
    pub(super) fn copy(
        &mut self,
        mark: &Mark,
        standard: [BorrowedFd<'_>; STANDARD],
        fds: &[BorrowedFd<'_>],
    ) -> Option<PidFd> {
        let Now::Ready(template) = &mut self.now else {
            return None;
        };
        // Otherwise two packets would be needed, which no one has asked for yet.
        if fds.len() + STANDARD > MAX_FDS {
            return None;
        }
        let all: Vec<_> = standard.iter().chain(fds).copied().collect();
        template.copy(&mark.to_string(), &all)
    }

    /// Whether the last copy was not made because the template does not answer, so that it is to be ended.
    pub(super) fn end_silent(&mut self) -> GivenUp {
        match std::mem::replace(&mut self.now, Now::GivenUp) {
            Now::Ready(template) if template.failure.is_some() => self.lose(template),
            other => {
                self.now = other;
                None
            }
        }
    }

    fn lose(&mut self, template: Template) -> GivenUp {
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

    fn give_up(&mut self, why: String) -> GivenUp {
        self.now = Now::GivenUp;
        Some(why)
    }
}

impl Drop for Templates {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.now, Now::GivenUp) {
            Now::Loading(template, _) => drop(template.end()),
            Now::Ready(template) => template.end_by_itself(),
            Now::Absent | Now::GivenUp => {}
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

/// A process that workers are copied from.
#[derive(Debug)]
struct Template {
    process: PidFd,
    socket: TemplateSocket,
    /// Requests without an answer, which there may be copies for.
    unanswered: Vec<u64>,
    /// Why it is not asked again.
    failure: Option<&'static str>,
}

impl Template {
    fn start(program: &ProgramSpec, watch: &WatchPipe, setup: &[u8]) -> crate::sys::Result<Self> {
        pipe::open_closed_standard()?;
        let (socket, theirs) = TemplateSocket::pair(PATIENCE)?;
        // In the buffer of the socket, and a file: this thread does not wait.
        socket.send_setup(setup)?;
        let nothing = pipe::open_null()?;
        // What is loaded may print. Nothing but results goes to stdout.
        let stderr = pipe::duplicate_standard(2)?;
        let standard = [nothing.as_fd(), stderr.as_fd(), stderr.as_fd()];
        let fds = [watch.read.as_fd(), theirs.as_fd()];
        let all: Vec<_> = fds.iter().chain(&standard).copied().collect();
        let first_fd = process::first_target_fd(&all);
        let mark = Mark {
            parent: std::process::id() as i32,
            first_fd,
            fds: fds.len(),
            is_template: true,
        };
        let variables = [(MARK, mark.to_string())];
        let pid = process::spawn(&program.program, &variables, &fds, first_fd, Some(standard))?;
        drop((nothing, stderr, theirs));
        match PidFd::open(pid) {
            Ok(process) => Ok(Self {
                process,
                socket,
                unanswered: Vec::new(),
                failure: None,
            }),
            Err(error) => {
                // It ends when its socket has no peer.
                drop(socket);
                process::reap(pid);
                Err(error)
            }
        }
    }

    fn copy(&mut self, mark: &str, fds: &[BorrowedFd<'_>]) -> Option<PidFd> {
        let Ok(asked) = self.socket.ask(mark, fds) else {
            self.failure = Some("it takes no request");
            return None;
        };
        loop {
            match self.socket.hear() {
                Ok(Some(Said::Copied { request, pid })) if request == asked => {
                    let copy = PidFd::open(Pid::from_raw(pid)).ok();
                    // One that names another process would have that one killed.
                    let copy = copy.filter(PidFd::is_unreaped);
                    if copy.is_none() {
                        self.failure = Some("it has named a process that is not its copy");
                    }
                    return copy;
                }
                Ok(Some(Said::Failed { request, .. })) if request == asked => return None,
                // Of a copy whose number this process knew from its template, or the other way round.
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    self.unanswered.push(asked);
                    self.failure = Some("it did not answer in time");
                    return None;
                }
            }
        }
    }

    /// Hears words for which no one waits. Returns whether the template goes on.
    fn hear_late(&mut self) -> bool {
        match self.socket.hear() {
            Ok(Some(said)) => {
                self.discard_copy(&said);
                true
            }
            // Its end may be what the monitor has noticed: then the socket says so as soon as no copy holds it.
            Ok(None) | Err(_) => false,
        }
    }

    /// Lets the template end by itself.
    fn end_by_itself(self) {
        let Self {
            process, socket, ..
        } = self;
        drop(socket);
        let _ = crate::sys::event::Poller::new().and_then(|poller| {
            poller.add(process.as_fd(), 0)?;
            poller.wait(Some(GRACE))
        });
        // Also what it has left behind. It has not been reaped, so its number is no other process's.
        let _ = process.kill_group(Signal::SIGKILL);
        let _ = process.wait_exit();
    }

    /// Ends the template, and copies that it has made for a request which this process no longer waits for.
    fn end(mut self) -> Exit {
        // Fails if it has ended already.
        let _ = self.process.kill_group(Signal::SIGKILL);
        let exit = self.process.wait_exit().unwrap_or(Exit::Unknown);
        if !self.unanswered.is_empty() {
            // Until no copy holds the other end, or one of them hangs.
            while let Ok(Some(said)) = self.socket.hear() {
                self.discard_copy(&said);
            }
        }
        exit
    }

    fn discard_copy(&mut self, said: &Said) {
        let Said::Copied { request, pid } = said else {
            return;
        };
        let Some(at) = self.unanswered.iter().position(|number| number == request) else {
            return;
        };
        self.unanswered.swap_remove(at);
        // A child of this process that no one else knows of.
        if let Ok(copy) = PidFd::open(Pid::from_raw(*pid))
            && copy.is_unreaped()
        {
            let _ = copy.kill_group(Signal::SIGKILL);
            let _ = copy.wait_exit();
        }
    }
}
