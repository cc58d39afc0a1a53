//! The sources of streams: iterators on the driver's thread, or on a thread of their own.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Context;
use std::thread::JoinHandle;

use super::control::Control;
use super::error::StreamError;
use super::flow::{Driver, Event, Flow};
use crate::sync::lock;
use crate::sys::process::start_thread;

/// An item of a source, or the text of its error.
pub(super) type SourceItem<T> = Result<T, String>;

fn event<T>(item: SourceItem<T>, driver: &mut Driver<'_>) -> Option<Event<T>> {
    match item {
        Ok(value) => Some(Event::Item(driver.taken(value))),
        Err(message) => {
            let item = driver.taken(());
            let sequence = item.sequence;
            let error = StreamError::Source { sequence, message };
            driver.failed(item, error).map(Event::Failed)
        }
    }
}

/// An iterator on the driver's thread.
pub(super) struct InlineSource<I> {
    /// `None` after the iterator has ended.
    items: Option<I>,
}

impl<I> InlineSource<I> {
    pub(super) fn new(items: I) -> Self {
        Self { items: Some(items) }
    }
}

impl<T, I: Iterator<Item = SourceItem<T>>> Flow<T> for InlineSource<I> {
    fn pump(&mut self, driver: &mut Driver<'_>) -> bool {
        driver.draining && self.items.take().is_some()
    }

    fn take(&mut self, driver: &mut Driver<'_>) -> Option<Event<T>> {
        while driver.room() > 0 {
            let items = self.items.as_mut()?;
            if !driver.in_slice() {
                return None;
            }
            driver.leave_admission_line();
            let Some(item) = items.next() else {
                self.items = None;
                return None;
            };
            if let Some(event) = event(item, driver) {
                return Some(event);
            }
        }
        None
    }

    fn is_over(&self) -> bool {
        self.items.is_none()
    }

    fn listen(&mut self, _: &mut Context<'_>) -> bool {
        false
    }
}

/// An iterator on a thread of its own. The first `take` starts the thread.
pub(super) struct ThreadSource<I, T> {
    items: Option<I>,
    mailbox: Arc<Mailbox<T>>,
    thread: Option<JoinHandle<()>>,
    control: Arc<Control>,
    is_over: bool,
}

/// The items of a source on their way from its thread to the driver.
struct Mailbox<T> {
    state: Mutex<State<T>>,
    /// The thread waits on this until it may pull another item.
    changed: Condvar,
}

struct State<T> {
    /// The number of further items that the thread may pull.
    allowed: usize,
    /// Whether the thread is inside the iterator.
    is_pulling: bool,
    arrived: VecDeque<SourceItem<T>>,
    /// Whether the thread has ended, or is about to.
    is_over: bool,
    /// Whether the driver has closed the mailbox, because it wants no more items.
    is_closed: bool,
    panic: Option<Box<dyn Any + Send>>,
}

impl<I, T> ThreadSource<I, T> {
    pub(super) fn new(items: I, control: Arc<Control>) -> Self {
        let state = State {
            allowed: 0,
            is_pulling: false,
            arrived: VecDeque::new(),
            is_over: false,
            is_closed: false,
            panic: None,
        };
        Self {
            items: Some(items),
            mailbox: Arc::new(Mailbox {
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
            thread: None,
            control,
            is_over: false,
        }
    }

    /// Makes the thread pull no more items. Returns true if the thread is not inside the iterator.
    fn close(&self) -> bool {
        let mut state = lock(&self.mailbox.state);
        state.is_closed = true;
        self.mailbox.changed.notify_one();
        !state.is_pulling
    }
}

impl<T, I> ThreadSource<I, T>
where
    T: Send + 'static,
    I: Iterator<Item = SourceItem<T>> + Send + 'static,
{
    fn begin(&self, items: I) -> std::io::Result<JoinHandle<()>> {
        let (mailbox, control) = (Arc::clone(&self.mailbox), Arc::clone(&self.control));
        let builder = std::thread::Builder::new().name("arenite-source".to_owned());
        start_thread(builder, move || mailbox.fill(items, &control))
    }
}

impl<T, I> Flow<T> for ThreadSource<I, T>
where
    T: Send + 'static,
    I: Iterator<Item = SourceItem<T>> + Send + 'static,
{
    fn pump(&mut self, driver: &mut Driver<'_>) -> bool {
        if !driver.draining || self.is_over {
            return false;
        }
        // Items that have arrived are still taken, but not the item for which the iterator waits.
        self.items = None;
        self.close();
        !std::mem::replace(&mut lock(&self.mailbox.state).is_over, true)
    }

    fn take(&mut self, driver: &mut Driver<'_>) -> Option<Event<T>> {
        if let Some(items) = self.items.take() {
            match self.begin(items) {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => {
                    self.is_over = true;
                    let sequence = driver.stats.taken;
                    let message = format!(
                        "its thread cannot be started: {error}; raise the limit on processes (RLIMIT_NPROC, `ulimit -u`, \
                         or the container's), or on memory"
                    );
                    let error = StreamError::Source { sequence, message };
                    return Some(Event::Failed(driver.ended(error)));
                }
            }
        }
        loop {
            let mut state = lock(&self.mailbox.state);
            let arrived = !driver.failing && !state.arrived.is_empty();
            if arrived && !driver.in_slice() {
                return None;
            }
            let item = if arrived {
                state.arrived.pop_front()
            } else {
                None
            };
            if item.is_none() && state.is_over && state.arrived.is_empty() {
                self.is_over = true;
                let panic = state.panic.take();
                drop(state);
                if let Some(payload) = panic {
                    resume_unwind(payload);
                }
                return None;
            }
            // The item that was just taken will count as in flight.
            let room = driver.room().saturating_sub(usize::from(item.is_some()));
            let ahead = state.arrived.len() + usize::from(state.is_pulling);
            state.allowed = room.saturating_sub(ahead);
            if state.allowed > 0 && !state.is_pulling {
                self.mailbox.changed.notify_one();
            }
            drop(state);
            if let Some(event) = event(item?, driver) {
                return Some(event);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn listen(&mut self, _: &mut Context<'_>) -> bool {
        // The source's thread wakes the driver itself.
        false
    }
}

impl<I, T> Drop for ThreadSource<I, T> {
    fn drop(&mut self) {
        let is_outside = self.close();
        // A thread inside the iterator cannot be interrupted; it ends when the iterator returns.
        if let Some(thread) = self.thread.take().filter(|_| is_outside) {
            let _ = thread.join();
        }
    }
}

impl<T> Mailbox<T> {
    fn fill(&self, mut items: impl Iterator<Item = SourceItem<T>>, control: &Control) {
        while self.may_pull() {
            let item = catch_unwind(AssertUnwindSafe(|| items.next()));
            let mut state = lock(&self.state);
            state.is_pulling = false;
            match item {
                // An item that arrives after the mailbox was closed is dropped, outside the lock.
                Ok(Some(_)) if state.is_closed => {
                    drop(state);
                    break;
                }
                Ok(Some(item)) => state.arrived.push_back(item),
                Ok(None) => state.is_over = true,
                Err(payload) => (state.is_over, state.panic) = (true, Some(payload)),
            }
            let is_over = state.is_over;
            drop(state);
            control.notify();
            if is_over {
                break;
            }
        }
    }

    /// Waits until the thread may pull another item. Returns false if the mailbox is closed.
    fn may_pull(&self) -> bool {
        let must_wait = |state: &mut State<T>| state.allowed == 0 && !state.is_closed;
        let waited = self.changed.wait_while(lock(&self.state), must_wait);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_closed {
            return false;
        }
        state.allowed -= 1;
        state.is_pulling = true;
        true
    }
}
