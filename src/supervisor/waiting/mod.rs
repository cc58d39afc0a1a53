//! Sleeping: every reason for which a thread of the program waits for the engine, and what wakes the thread.
//!
//! | file | a thread that waits for | sleeps on | woken by |
//! |---|---|---|---|
//! | `job` | one job that lies in a slot | the slot's state word | the worker |
//! | `job` | one job that lies in no slot, the start of the engine, admission | a [`parking`] word | the thread that changes the state |
//! | `any` | the first of several jobs | its own word and up to 127 state words | a worker, or a waker |
//! | `thread_waker` | a limiter's permit, a stream | its own word | a waker |
//!
//! The monitor sleeps in `epoll` on its eventfd, which is not described here. No wake-up is lost: a sleeper reads the
//! value of its word under the engine's lock, or before it checks its condition; and the condition is changed before
//! the word is.

pub(super) mod any;
pub(super) mod job;
pub(super) mod parking;
pub(super) mod thread_waker;
pub(super) mod waiters;
pub(super) mod wakers;

use std::time::Duration;

/// After this time, a sleeper checks its condition even if nothing has woken it. The limit applies to sleeps on words
/// that a worker may write, and while admission delays a job.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);
