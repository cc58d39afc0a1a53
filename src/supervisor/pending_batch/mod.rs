//! Calls that a map has written and not sent.
//!
//! A map that gets its items at once writes many calls before it sends them under one lock, which is much less work.
//! But its iterator is code of the program: it may take any time over the next item, and may even wait for the results
//! of these calls. So while the iterator runs, the monitor can reach the calls. It looks a hundred times a second; if
//! none was added since the last look, it sends them.
//!
//! With a ceiling for jobs in flight, calls over the limit queue like any other. When the iterator returns, the map
//! takes over, even if it is not polled again for a while.
//!
//! The map holds the batch's lock while it asks for items (`is_asking`), and releases it only while the iterator runs.
//! Then the monitor may take it; the map finds in `sent` the jobs made of the first calls. Lock order: batch, state.

mod calls;
mod send;

use std::time::Duration;

pub(super) use calls::PendingBatches;
pub(crate) use calls::{PendingBatch, PendingCalls};

/// How often the monitor looks at pending batches.
pub(super) const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
