//! Where items come from.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Context;
use std::thread::JoinHandle;

use super::control::{Control, lock};
use super::error::StreamError;
use super::flow::{Driver, Event, Flow};
use crate::sys::process::start_thread;

/// What a source gives: an item, or why there is none.
pub(super) type Given<T> = Result<T, String>;

fn event<T>(given: Given<T>, driver: &mut Driver<'_>) -> Option<Event<T>> {
    match given {
        Ok(value) => Some(Event::Item(driver.taken(value))),
        Err(message) => {
            let item = driver.taken(());
            let sequence = item.sequence;
            let error = StreamError::Source { sequence, message };
            driver.failed(item, error).map(Event::Failed)
        }
    }
}

/// An iterator in the driver's thread.
pub(super) struct Here<I> {
    /// `None` when it is over.
    items: Option<I>,
}

impl<I> Here<I> {
    pub(super) fn new(items: I) -> Self {
        Self { items: Some(items) }
    }
}

impl<T, I: Iterator<Item = Given<T>>> Flow<T> for Here<I> {
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
            let Some(given) = items.next() else {
                self.items = None;
                return None;
            };
            if let Some(event) = event(given, driver) {
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

/// An iterator in a thread of its own, which begins when it is first asked.
pub(super) struct Apart<I, T> {
    items: Option<I>,
    mail: Arc<Mail<T>>,
    thread: Option<JoinHandle<()>>,
    control: Arc<Control>,
    over: bool,
}

/// Between the thread and the driver.
struct Mail<T> {
    state: Mutex<State<T>>,
    /// The thread waits here until it may ask for another item.
    changed: Condvar,
}

struct State<T> {
    /// How many items may be asked for beyond those that lie here.
    allowed: usize,
    /// The thread is in the iterator.
    asking: bool,
    arrived: VecDeque<Given<T>>,
    /// The thread has ended, or is about to.
    over: bool,
    /// Nobody wants more.
    closed: bool,
    panic: Option<Box<dyn Any + Send>>,
}

impl<I, T> Apart<I, T> {
    pub(super) fn new(items: I, control: Arc<Control>) -> Self {
        let state = State {
            allowed: 0,
            asking: false,
            arrived: VecDeque::new(),
            over: false,
            closed: false,
            panic: None,
        };
        Self {
            items: Some(items),
            mail: Arc::new(Mail {
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
            thread: None,
            control,
            over: false,
        }
    }

    /// The thread asks no more. True if it is not in the iterator.
    fn close(&self) -> bool {
        let mut state = lock(&self.mail.state);
        state.closed = true;
        self.mail.changed.notify_one();
        !state.asking
    }
}

impl<T, I> Apart<I, T>
where
    T: Send + 'static,
    I: Iterator<Item = Given<T>> + Send + 'static,
{
    fn begin(&self, items: I) -> std::io::Result<JoinHandle<()>> {
        let (mail, control) = (Arc::clone(&self.mail), Arc::clone(&self.control));
        let builder = std::thread::Builder::new().name("arenite-source".to_owned());
        start_thread(builder, move || mail.fill(items, &control))
    }
}

impl<T, I> Flow<T> for Apart<I, T>
where
    T: Send + 'static,
    I: Iterator<Item = Given<T>> + Send + 'static,
{
    fn pump(&mut self, driver: &mut Driver<'_>) -> bool {
        if !driver.draining || self.over {
            return false;
        }
        // What it has put down is taken, what it waits for is not.
        self.items = None;
        self.close();
        !std::mem::replace(&mut lock(&self.mail.state).over, true)
    }

    fn take(&mut self, driver: &mut Driver<'_>) -> Option<Event<T>> {
        if let Some(items) = self.items.take() {
            match self.begin(items) {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => {
                    self.over = true;
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
            let mut state = lock(&self.mail.state);
            let arrived = !driver.failing && !state.arrived.is_empty();
            if arrived && !driver.in_slice() {
                return None;
            }
            let given = if arrived {
                state.arrived.pop_front()
            } else {
                None
            };
            if given.is_none() && state.over && state.arrived.is_empty() {
                self.over = true;
                let panic = state.panic.take();
                drop(state);
                if let Some(payload) = panic {
                    resume_unwind(payload);
                }
                return None;
            }
            // The item that is taken now is in flight in a moment.
            let room = driver.room().saturating_sub(usize::from(given.is_some()));
            let ahead = state.arrived.len() + usize::from(state.asking);
            state.allowed = room.saturating_sub(ahead);
            if state.allowed > 0 && !state.asking {
                self.mail.changed.notify_one();
            }
            drop(state);
            if let Some(event) = event(given?, driver) {
                return Some(event);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over
    }

    fn listen(&mut self, _: &mut Context<'_>) -> bool {
        // It rings by itself.
        false
    }
}

impl<I, T> Drop for Apart<I, T> {
    fn drop(&mut self) {
        let outside = self.close();
        // A thread that waits for an item ends when that comes; it cannot be interrupted.
        if let Some(thread) = self.thread.take().filter(|_| outside) {
            let _ = thread.join();
        }
    }
}

impl<T> Mail<T> {
    fn fill(&self, mut items: impl Iterator<Item = Given<T>>, control: &Control) {
        while self.may_ask() {
            let given = catch_unwind(AssertUnwindSafe(|| items.next()));
            let mut state = lock(&self.state);
            state.asking = false;
            match given {
                // What comes after the end was asked for is dropped, outside the lock.
                Ok(Some(_)) if state.closed => {
                    drop(state);
                    break;
                }
                Ok(Some(given)) => state.arrived.push_back(given),
                Ok(None) => state.over = true,
                Err(payload) => (state.over, state.panic) = (true, Some(payload)),
            }
            let over = state.over;
            drop(state);
            control.ring();
            if over {
                break;
            }
        }
    }

    fn may_ask(&self) -> bool {
        let mut state = lock(&self.state);
        while state.allowed == 0 && !state.closed {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return false;
        }
        state.allowed -= 1;
        state.asking = true;
        true
    }
}
