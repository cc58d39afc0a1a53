//! The template of workers: a process that has loaded what all workers need, and that is forked for each worker.

mod fork;
mod lease;
mod process;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use self::fork::ForkSlot;
pub(super) use self::lease::Lease;
use self::lease::State;
pub(crate) use self::lease::end_unused;
use super::exit_causes;
use super::settings::{ProgramSpec, Settings, StartMethod};
use super::worker::{KILLED, WHOLE};
use crate::control::template::{MAX_FDS, STANDARD};
use crate::sys::event::EventFd;
use crate::sys::process::{Exit, PidFd};
use crate::worker::{EXIT_CANNOT_START_NOW, Mark};

/// The number of templates that may end on their own; after that, workers are started separately. One that was killed,
/// or that lacked something, counts [`KILLED`], until a worker has been copied from another one.
const MAX_ENDS: u32 = 3;

/// Whether workers are forked from a template, and which one.
#[derive(Debug)]
pub(super) struct Templates {
    now: Now,
    /// Templates that have ended without being asked to. Linux ends their copies when their leases are dropped.
    ended: Vec<Lease>,
    /// The number of templates that have ended, and the parts of [`WHOLE`] that they count together.
    ends: u32,
    parts: u32,
    /// Whether there was a template. If so, workers are started separately while another one loads.
    had_one: bool,
    /// Whether the time for loading is limited, not only the time until it begins.
    limits_loading: bool,
    /// Whether the template is a fork of the program, for which workers wait.
    is_forked: bool,
}

#[derive(Debug)]
enum Now {
    /// There is no template. One is started before the next worker.
    Absent,
    /// The template loads. Missing workers wait for it until this time.
    Loading(Lease, Option<Instant>),
    Ready(Lease),
    /// No template is used any more: workers are started separately.
    Disabled,
}

/// Why no template is used from now on, if that was just decided.
pub(super) type WhyDisabled = Option<String>;

impl Templates {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            now: match settings.program.start.has_template() {
                true => Now::Absent,
                false => Now::Disabled,
            },
            ended: Vec::new(),
            ends: 0,
            parts: 0,
            had_one: false,
            limits_loading: settings.start_timeout.is_some(),
            is_forked: settings.program.start.is_forked(),
        }
    }

    /// Returns true if workers have to wait for the template, which is loading.
    pub(super) fn is_awaited(&self) -> bool {
        match self.now {
            Now::Loading(..) => !self.had_one || self.is_forked,
            Now::Absent => self.is_forked,
            Now::Ready(_) | Now::Disabled => false,
        }
    }

    /// Returns the time when loading the template has taken too long.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.now {
            Now::Loading(_, until) => until,
            _ => None,
        }
    }

    /// Returns true if a template has to be started before the next worker.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.now, Now::Absent)
    }

    /// Uses a template that this process has, or starts one. Called only on the monitor thread, like starts of workers.
    /// `event`: is rung when there is something for `look`.
    pub(super) fn begin(
        &mut self,
        program: &ProgramSpec,
        until: Option<Instant>,
        event: &Arc<EventFd>,
    ) -> WhyDisabled {
        let StartMethod::Template { setup, kept, .. } = &program.start else {
            return None;
        };
        match Lease::begin(program, setup, *kept, event) {
            Ok(Ok(lease)) => {
                self.now = Now::Loading(lease, until);
                None
            }
            Ok(Err(why)) => self.give_up(why),
            // It is tried again before the next worker.
            Err(error) if error.may_pass() => None,
            Err(error) => self.give_up(format!("it cannot be started: {error}")),
        }
    }

    /// Uses a template that the program has forked.
    pub(super) fn take_fork(&mut self, lease: Lease, until: Option<Instant>) {
        self.now = Now::Loading(lease, until);
    }

    /// Handles news of the template, and the end of its time for loading. `limit` is that time, for the message.
    pub(super) fn look(&mut self, now: Instant, limit: Duration) -> WhyDisabled {
        let (lease, is_loading) = match &self.now {
            Now::Loading(lease, _) => (lease, true),
            Now::Ready(lease) => (lease, false),
            Now::Absent | Now::Disabled => return None,
        };
        match lease.state() {
            State::Ready if is_loading => {
                self.had_one = true;
                if let Now::Loading(lease, _) = std::mem::replace(&mut self.now, Now::Absent) {
                    self.now = Now::Ready(lease);
                }
                None
            }
            State::Ready => None,
            State::Unfit(why) => self.give_up(why),
            State::Ended(exit, failure) => self.lose(exit, failure),
            state => {
                if let Now::Loading(_, until) = &mut self.now
                    && matches!(state, State::Loading)
                    && !self.limits_loading
                {
                    *until = None;
                }
                let is_over = self.until().is_some_and(|until| until <= now);
                is_over
                    .then(|| format!("it was not ready after {limit:?}"))
                    .and_then(|why| self.give_up(why))
            }
        }
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
        let Now::Ready(lease) = &self.now else {
            return Ok(None);
        };
        // More descriptors would need two packets, which is not supported.
        if fds.len() + STANDARD > MAX_FDS {
            return Ok(None);
        }
        let all: Vec<_> = standard.iter().chain(fds).copied().collect();
        let copy = lease.copy(&mark.to_string(), &all);
        if let Ok(Some(_)) = copy {
            self.parts -= self.parts % WHOLE;
        }
        copy
    }

    /// Ends the template if it has not answered the last request.
    pub(super) fn end_silent(&self) {
        if let Now::Ready(lease) = &self.now {
            lease.end_silent();
        }
    }

    /// Handles the end of a template that no engine has asked for.
    fn lose(&mut self, exit: Exit, failure: Option<&'static str>) -> WhyDisabled {
        let is_excused = failure.is_none()
            && (exit_causes::is_killed(&exit_causes::plain(exit))
                || exit == Exit::Code(EXIT_CANNOT_START_NOW));
        let was_ready = match std::mem::replace(&mut self.now, Now::Absent) {
            Now::Ready(lease) => {
                self.ended.push(lease);
                true
            }
            _ => false,
        };
        if !was_ready && !is_excused {
            return self.give_up(format!(
                "it has ended while it was loading ({})",
                text(exit)
            ));
        }
        self.ends += 1;
        self.parts += if is_excused { KILLED } else { WHOLE };
        if self.parts < MAX_ENDS * WHOLE || was_ready && self.is_forked {
            return None;
        }
        let why = failure.map_or_else(|| text(exit), str::to_owned);
        self.give_up(format!(
            "it has ended or failed {} times ({why})",
            self.ends
        ))
    }

    fn give_up(&mut self, why: String) -> WhyDisabled {
        self.now = Now::Disabled;
        Some(why)
    }
}

fn text(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::Unknown => "its exit code is not known".into(),
    }
}
