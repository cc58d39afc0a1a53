//! A template is a process that has loaded what all workers need, and from which workers are copied.
//!
//! A template is started like a worker. After loading, it forks a copy of itself whenever the supervisor requests one.
//! A copy is a child of the supervisor, and continues like a worker that was started directly. The template has one
//! thread, and no descriptors except those of the supervisor: threads would be missing in the copies, and descriptors
//! would be shared with them. Only descriptors of files whose code is mapped may be shared with copies.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::start::{self, Mark};
use crate::control::StartFailure;
use crate::control::template::{Message, Request, STANDARD, SupervisorSocket};
use crate::sync::catch_panic;
use crate::sys::packet::PacketSocket;
use crate::sys::{copy, process};

/// The program of [`WorkerProgram::template`](crate::engine::WorkerProgram::template), as it runs in the process from
/// which workers are copied.
pub trait Template {
    /// Loads what all workers need. If this returns an error, or leaves a thread running or a file open, workers are
    /// started one by one instead, and that reason is reported.
    fn load(&self, setup: &[u8]) -> Result<(), String>;

    /// Called before each copy is made, in the template.
    fn before_copy(&self) {}

    /// Called after a copy was made, in the template.
    fn after_copy(&self) {}

    /// Called first in the copy, before it becomes a worker.
    fn in_copy(&self) {}

    /// Called when the engine has ended and no more copies are needed. May take at most half a second.
    fn at_end(&self) {}
}

/// A fork of the program that is to be the template of its engine: see [`Engine::fork`](crate::Engine::fork).
#[derive(Debug)]
pub struct ForkedTemplate {
    parent: i32,
    watch: OwnedFd,
    socket: PacketSocket,
}

impl ForkedTemplate {
    pub(crate) fn new(watch: OwnedFd, socket: PacketSocket) -> Self {
        Self {
            parent: std::process::id() as i32,
            watch,
            socket,
        }
    }

    /// Makes the calling process, the fork, the template. It has one thread. `identity`: see
    /// [`run_worker`](crate::run_worker).
    pub fn run(self, identity: &[u8], template: &dyn Template) -> ! {
        super::set_worker();
        start::run_forked(self, identity, template)
    }

    /// Makes copies until the supervisor has ended, as [`serve`] does.
    pub(super) fn serve(
        self,
        template: &dyn Template,
    ) -> Result<(Mark, Vec<OwnedFd>), StartFailure> {
        let bound = start::bind(self.parent, true)?;
        serve_at(bound, self.watch, self.socket, true, template)
    }
}

/// Loads the template, and makes copies until the supervisor has ended. Returns only in a copy, with the copy's mark
/// and descriptors.
pub(super) fn serve(
    mark: &Mark,
    template: &dyn Template,
) -> Result<(Mark, Vec<OwnedFd>), StartFailure> {
    let bound = start::bind(mark.parent, false)?;
    let inherited = process::adopt_inherited(mark.first_fd, mark.fds, true)?;
    let mut inherited = inherited.into_iter();
    let mut next = || inherited.next().ok_or("descriptors are missing");
    let (watch, socket) = (next()?, next()?);
    serve_at(bound, watch, socket.into(), false, template)
}

fn serve_at(
    bound: bool,
    watch: OwnedFd,
    socket: PacketSocket,
    is_forked: bool,
    template: &dyn Template,
) -> Result<(Mark, Vec<OwnedFd>), StartFailure> {
    process::ignore_group_signals()?;
    let watched = match bound {
        true => Some(process::kill_me_on_hangup(watch.as_fd())?),
        false => None,
    };
    drop(watch);
    process::set_name("template");
    let supervisor = SupervisorSocket::of(socket);
    crate::sync::point!("template.started");
    let setup = supervisor.setup()?;
    supervisor.send(&Message::Loading)?;
    let loaded = catch_unwind(AssertUnwindSafe(|| template.load(&setup)))
        .unwrap_or_else(|_| Err("loading has panicked".into()));
    drop(setup);
    copy::prepare_libraries_for_fork();
    crate::sync::point!("template.loaded");
    let known = [
        Some(supervisor.as_fd().as_raw_fd()),
        watched.as_ref().map(AsRawFd::as_raw_fd),
    ];
    let known: Vec<_> = known.into_iter().flatten().collect();
    let fit = loaded.and_then(|()| fitness(&known, is_forked));
    // What it has loaded may have set handlers.
    process::ignore_group_signals()?;
    let shared = match fit {
        Ok(shared) => shared,
        Err(why) => {
            supervisor.send(&Message::Unfit(why))?;
            process::exit_now(0);
        }
    };
    supervisor.send(&Message::Ready)?;
    loop {
        let Some(request) = supervisor.request()? else {
            // A panic does not matter: the process ends.
            catch_panic(|| template.at_end());
            process::exit_now(0);
        };
        crate::sync::point!("template.asked");
        let number = request.number;
        template.before_copy();
        let message = match copy::fork_sibling() {
            Ok(None) => {
                // The copy keeps no descriptor that these values own, and closes their descriptors by number.
                std::mem::forget(watched);
                return begin_copy(supervisor, request, &shared, template);
            }
            Ok(Some(pid)) => {
                crate::sync::point!("template.copied");
                Message::Copied {
                    request: number,
                    pid: pid.as_raw(),
                }
            }
            Err(error) => Message::Failed {
                request: number,
                why: error.to_string(),
            },
        };
        template.after_copy();
        supervisor.send(&message)?;
    }
}

/// Checks that this process can be copied, and otherwise returns the reason. Returns the descriptors that it may share
/// with its copies: those of files whose code is mapped. libffi, for example, keeps its own file open to map its code
/// again. Copies of the program share all files that it has open.
fn fitness(known: &[RawFd], is_forked: bool) -> Result<Vec<RawFd>, String> {
    let threads = copy::other_threads();
    if !threads.is_empty() {
        return Err(format!(
            "what it has loaded has started threads, which copies would lack: {}",
            some_of(&threads)
        ));
    }
    if is_forked {
        return Ok(copy::open_numbers(known));
    }
    let files = copy::open_files(known);
    if !files.others.is_empty() {
        return Err(format!(
            "what it has loaded has left files open, which copies would share: {}",
            some_of(&files.others)
        ));
    }
    Ok(files.code)
}

/// Returns the first names, and the number of further names, as text.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = names.iter().take(SHOWN).map(String::as_str);
    let text = shown.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => text,
        more => format!("{text}, and {more} more"),
    }
}

/// Does the first steps of a copy, which make it independent of the template.
fn begin_copy(
    supervisor: SupervisorSocket,
    request: Request,
    shared: &[RawFd],
    template: &dyn Template,
) -> Result<(Mark, Vec<OwnedFd>), StartFailure> {
    // Called before the supervisor knows this process, so that a signal to the template's group does not reach the
    // copy.
    copy::lead_group()?;
    let message = Message::Copied {
        request: request.number,
        pid: std::process::id() as i32,
    };
    supervisor.send(&message)?;
    crate::sync::point!("copied.sent");
    let mut standard = request.fds;
    let fds = standard.split_off(STANDARD);
    // `adopt_in_copy` closes the descriptor of this value by number.
    std::mem::forget(supervisor);
    copy::adopt_in_copy(&standard, &fds, shared)?;
    std::mem::forget(standard);
    let mark = request.mark.parse()?;
    template.in_copy();
    crate::sync::point!("copied.adopted");
    Ok((mark, fds))
}
