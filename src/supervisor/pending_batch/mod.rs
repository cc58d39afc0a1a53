//! Calls that a map has written and not submitted.
//!
//! A map that gets its items at once writes many calls and submits them together under one lock, which is much less
//! work. But its iterator is code of the program: the next item may take any time, and the iterator may even wait for
//! the results of these calls. So while the iterator runs, the monitor can access the calls. It checks them a hundred
//! times a second; if no call was added since the last check, it submits them.
//!
//! With a ceiling on bytes in flight, calls beyond the ceiling wait in the line like any other. When the iterator
//! returns, the map takes over, even if it is not polled again for a while.
//!
//! The map holds the batch's lock while it asks for items (`is_asking`), and releases it only while the iterator runs.
//! Then the monitor may lock the batch; the map finds in `sent` the jobs that were submitted from the first calls. Lock
//! order: batch, state.

mod calls;
mod send;

use std::time::Duration;

pub(super) use calls::PendingBatches;
pub(crate) use calls::{PendingBatch, PendingCalls};

/// The interval at which the monitor checks pending batches.
pub(super) const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
