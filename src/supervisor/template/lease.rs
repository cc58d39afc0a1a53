//! Templates that the engines of this process share: a thread for each, and a lease for each engine that uses one.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::process::Template;
use crate::control::template::Message;
use crate::supervisor::settings::ProgramSpec;
use crate::sys::event::{EventFd, Poller};
use crate::sys::fork;
use crate::sys::process::{self, Exit, PidFd, WatchPipe};
use crate::worker::ForkedTemplate;

/// The number of templates that could not be used and are remembered.
const MOST_UNFIT: usize = 16;

const EVENT: u64 = 0;
const SOCKET: u64 = 1;
const PROCESS: u64 = 2;

/// The templates of this process that engines share.
static ALL: Mutex<All> = Mutex::new(All {
    templates: Vec::new(),
    unfit: Vec::new(),
});

struct All {
    templates: Vec<Arc<Shared>>,
    /// Templates that cannot be copied, and the reasons: they are not loaded again.
    unfit: Vec<(Key, String)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a template has done so far.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// The process has started.
    Started,
    /// The template loads what workers need.
    Loading,
    Ready,
    /// The template cannot be copied, for this reason.
    Unfit(String),
    /// The process has ended, or was ended because it did not answer.
    Ended(Exit, Option<&'static str>),
}

impl State {
    fn is_loading(&self) -> bool {
        matches!(self, Self::Started | Self::Loading)
    }

    fn is_usable(&self) -> bool {
        self.is_loading() || matches!(self, Self::Ready)
    }
}

/// What engines must have in common to use the same template.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    setup: Arc<[u8]>,
    /// How long the template is kept without users. Zero: it is not shared.
    kept: Duration,
    /// What the process gets from this process. `None` if it cannot be read: no other template is equal.
    inheritance: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Shared {
    key: Key,
    /// Wakes the thread.
    event: EventFd,
    held: Mutex<Held>,
    /// The thread that has started the template. Linux ends the template and its copies when this thread ends.
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Held {
    template: Option<Template>,
    state: State,
    /// The events of the engines that use the template. They are rung when the state changes.
    users: Vec<Arc<EventFd>>,
    /// Whether the template ends as soon as it has no users.
    is_ending: bool,
}

impl Held {
    fn set(&mut self, state: State) {
        self.state = state;
        for user in &self.users {
            // A full counter has woken the engine already.
            let _ = user.ring();
        }
    }

    /// Kills the template.
    fn end(&mut self) {
        if let Some(template) = self.template.take() {
            let failure = template.failure;
            let exit = template.end();
            self.set(State::Ended(exit, failure));
        }
    }

    /// Handles the next message of a template that loads, or its end.
    fn receive(&mut self) {
        let Some(template) = &self.template else {
            return;
        };
        match template.socket.receive() {
            Ok(Some(Message::Ready)) => self.set(State::Ready),
            Ok(Some(Message::Loading)) => self.set(State::Loading),
            Ok(Some(Message::Unfit(why))) => {
                self.end();
                self.set(State::Unfit(why));
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => self.end(),
        }
    }
}

/// An engine's right to copy a template.
#[derive(Debug)]
pub(in crate::supervisor) struct Lease {
    shared: Arc<Shared>,
    event: Arc<EventFd>,
}

impl Lease {
    /// Returns a lease of the template that this engine can share, or of a new one. `event` is rung when its state
    /// changes. Returns the reason if an equal template could not be copied.
    pub(super) fn begin(
        program: &ProgramSpec,
        setup: &Arc<[u8]>,
        kept: Duration,
        event: &Arc<EventFd>,
    ) -> crate::sys::Result<Result<Self, String>> {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| fork::run_around_forks(before_fork));
        let key = Key {
            setup: Arc::clone(setup),
            kept,
            inheritance: program.program.inheritance().ok(),
        };
        let is_shared = !kept.is_zero() && key.inheritance.is_some();
        let mut all = lock(&ALL);
        if let Some((_, why)) = all
            .unfit
            .iter()
            .find(|(unfit, _)| is_shared && *unfit == key)
        {
            return Ok(Err(why.clone()));
        }
        let found = all.templates.iter().find(|shared| {
            let held = lock(&shared.held);
            is_shared && held.state.is_usable() && !held.is_ending && shared.key == key
        });
        let shared = match found {
            Some(shared) => {
                lock(&shared.held).users.push(Arc::clone(event));
                Arc::clone(shared)
            }
            None => {
                let (program, setup) = (program.program.clone(), Arc::clone(setup));
                let start = move |watch: &WatchPipe| Template::start(&program, watch, &setup);
                let shared = Shared::start(key, event, WatchPipe::new()?, start)?;
                if is_shared {
                    all.templates.push(Arc::clone(&shared));
                }
                shared
            }
        };
        Ok(Ok(Self {
            shared,
            event: Arc::clone(event),
        }))
    }

    /// Returns a lease of a template that `fork` makes as a copy of this process.
    pub(in crate::supervisor) fn fork(
        setup: &Arc<[u8]>,
        event: &Arc<EventFd>,
        fork: impl FnOnce(ForkedTemplate) -> crate::sys::Result<Pid>,
    ) -> crate::sys::Result<Self> {
        let watch = WatchPipe::new()?;
        let template = Template::fork(&watch, setup, fork)?;
        let key = Key {
            setup: Arc::clone(setup),
            kept: Duration::ZERO,
            inheritance: None,
        };
        let shared = Shared::start(key, event, watch, |_| Ok(template))?;
        Ok(Self {
            shared,
            event: Arc::clone(event),
        })
    }

    pub(super) fn state(&self) -> State {
        lock(&self.shared.held).state.clone()
    }

    /// Makes a copy, if the template is ready: see [`Template::copy`].
    pub(super) fn copy(
        &self,
        mark: &str,
        fds: &[BorrowedFd<'_>],
    ) -> crate::sys::Result<Option<PidFd>> {
        let mut held = lock(&self.shared.held);
        if !matches!(held.state, State::Ready) {
            return Ok(None);
        }
        let template = held.template.as_mut();
        template.map_or(Ok(None), |template| template.copy(mark, fds))
    }

    /// Ends the template if it has not answered the last request.
    pub(super) fn end_silent(&self) {
        let mut held = lock(&self.shared.held);
        if held
            .template
            .as_ref()
            .is_some_and(|one| one.failure.is_some())
        {
            held.end();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut held = lock(&self.shared.held);
        if let Some(at) = held
            .users
            .iter()
            .position(|one| Arc::ptr_eq(one, &self.event))
        {
            held.users.swap_remove(at);
        }
        let is_over = held.users.is_empty() && self.shared.key.kept.is_zero();
        drop(held);
        self.shared.wake();
        if is_over {
            self.shared.join();
        }
    }
}

impl Shared {
    /// Starts the thread of a template for an engine with this event. `start`: starts the template, on that thread, or
    /// returns one that was forked.
    fn start(
        key: Key,
        user: &Arc<EventFd>,
        watch: WatchPipe,
        start: impl FnOnce(&WatchPipe) -> crate::sys::Result<Template> + Send + 'static,
    ) -> crate::sys::Result<Arc<Self>> {
        let poller = Poller::new()?;
        let shared = Arc::new(Self {
            key,
            event: EventFd::new()?,
            held: Mutex::new(Held {
                template: None,
                state: State::Started,
                users: vec![Arc::clone(user)],
                is_ending: false,
            }),
            thread: Mutex::new(None),
        });
        poller.add(shared.event.as_fd(), EVENT)?;
        let (started, outcome) = channel();
        let own = Arc::clone(&shared);
        let run = move || {
            process::block_sent_signals();
            let watched = start(&watch).and_then(|template| {
                let added = poller
                    .add(template.socket.as_fd(), SOCKET)
                    .and_then(|()| poller.add(template.process.as_fd(), PROCESS));
                match added {
                    Ok(()) => Ok(template),
                    Err(error) => {
                        template.end();
                        Err(error)
                    }
                }
            });
            let is_started = watched.map(|template| lock(&own.held).template = Some(template));
            let is_over = is_started.is_err();
            // Fails if the thread that waits has ended.
            let _ = started.send(is_started);
            if !is_over {
                own.keep(&poller);
            }
            drop(watch);
        };
        let builder = std::thread::Builder::new()
            .name("arenite-template".into())
            .stack_size(256 * 1024);
        let thread = process::start_thread(builder, run).map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN));
            crate::sys::Error::new("clone", errno, "a thread for a template")
        })?;
        *lock(&shared.thread) = Some(thread);
        match outcome.recv() {
            Ok(Ok(())) => Ok(shared),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(crate::sys::Error::new("clone", Errno::EIO, "a template")),
        }
    }

    fn wake(&self) {
        // A full counter has woken the thread already.
        let _ = self.event.ring();
        if let Some(thread) = &*lock(&self.thread) {
            thread.thread().unpark();
        }
    }

    fn join(&self) {
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // A panic has ended the template with its thread.
            let _ = thread.join();
        }
    }

    /// Watches the template until it is not used any more.
    fn keep(&self, poller: &Poller) {
        let mut idle = None;
        while let Some(timeout) = self.next_look(&mut idle) {
            match poller.wait(timeout) {
                Ok(tokens) => self.look(&tokens, poller),
                Err(_) => {
                    lock(&self.held).end();
                    std::thread::park();
                }
            }
        }
        let mut held = lock(&self.held);
        if matches!(held.state, State::Ready)
            && let Some(template) = held.template.take()
        {
            held.state = State::Ended(Exit::Unknown, None);
            template.end_by_itself();
        }
        held.end();
    }

    /// Returns the time until which the thread waits for news. `None`: the template has no users any more, and its time
    /// without users is over.
    fn next_look(&self, idle: &mut Option<Instant>) -> Option<Option<Duration>> {
        // Locked until this template is removed, so that no engine begins to use it meanwhile.
        let mut all = lock(&ALL);
        let held = lock(&self.held);
        if let State::Unfit(why) = &held.state
            && !self.key.kept.is_zero()
            && all.unfit.iter().all(|(key, _)| *key != self.key)
        {
            if all.unfit.len() >= MOST_UNFIT {
                all.unfit.remove(0);
            }
            all.unfit.push((self.key.clone(), why.clone()));
        }
        if !held.users.is_empty() {
            *idle = None;
            return Some(None);
        }
        let since = idle.get_or_insert_with(Instant::now).elapsed();
        let left = self.key.kept.saturating_sub(since);
        if matches!(held.state, State::Ready) && !held.is_ending && !left.is_zero() {
            return Some(Some(left));
        }
        all.templates.retain(|one| !std::ptr::eq(&**one, self));
        None
    }

    /// Handles what has happened to the template.
    fn look(&self, tokens: &[u64], poller: &Poller) {
        // Fails if the descriptor is not readable.
        let _ = self.event.clear();
        let mut held = lock(&self.held);
        if held.state.is_loading() && tokens.contains(&SOCKET) {
            held.receive();
            if let (false, Some(template)) = (held.state.is_loading(), &held.template) {
                // From now on it answers requests, each twice. The next request reads the second answer.
                let _ = poller.remove(template.socket.as_fd());
            }
        }
        if tokens.contains(&PROCESS) {
            // Its last messages say why it has ended.
            while held.state.is_loading() && held.template.is_some() {
                held.receive();
            }
            held.end();
        }
    }
}

/// Keeps the list as it is until a fork is done. The copy has none of these templates.
fn before_fork() -> fork::AfterFork {
    let mut all = lock(&ALL);
    Box::new(move |is_copy| {
        if is_copy {
            std::mem::take(&mut all.templates)
                .into_iter()
                .for_each(std::mem::forget);
        }
    })
}

/// Ends the templates that no engine uses, and waits until they have ended.
pub(crate) fn end_unused() {
    let unused: Vec<_> = lock(&ALL)
        .templates
        .iter()
        .filter(|one| {
            let mut held = lock(&one.held);
            held.is_ending = held.users.is_empty();
            held.is_ending
        })
        .map(Arc::clone)
        .collect();
    for one in unused {
        one.wake();
        one.join();
    }
}
