//! Errors of streams and windows.

use std::fmt;

use crate::supervisor::JobError;
use crate::sys::debug_as_text;

/// Why a stream ended before its source did.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamError {
    /// The job of an item failed, or there was no room for the items of a window. The stream
    /// [stops](super::Stream::on_failure) at failures, or its engine has ended.
    Job {
        /// The stage, from 1 on.
        stage: usize,
        /// The index of the item in the source, or of the window, from 0 on.
        sequence: u64,
        /// The error of the job.
        error: JobError,
    },
    /// The source returned an error instead of an item ([`Stream::fallible`](super::Stream::fallible)), or its
    /// [thread](super::Stream::spawn) could not be started.
    Source {
        /// The index of the item, from 0 on.
        sequence: u64,
        /// The text of the error.
        message: String,
    },
    /// There are more open windows than allowed: see [`Windowed::max_items`](super::Windowed::max_items).
    WindowsFull {
        /// The limit: a number of items, or of windows for a fold.
        limit: usize,
    },
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job {
                stage,
                sequence,
                error,
            } => write!(f, "stage {stage}, item {sequence}: {error}"),
            Self::Source { sequence, message } => {
                write!(f, "the source, at item {sequence}: {message}")
            }
            Self::WindowsFull { limit } => write!(
                f,
                "open windows hold more than {limit} items: the watermark does not advance, the windows are too long, \
                 or Windowed::max_items is too low"
            ),
        }
    }
}

impl std::error::Error for StreamError {}

/// Why windows cannot be built.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WindowError {
    /// A window in time was requested for items without event time.
    NoEventTime,
    /// A window in time was requested without a watermark, so it would never close.
    NoWatermark,
    /// The length of the window, or the gap of the session, is 0.
    Empty,
    /// The step is 0, or longer than the window, so that some items would be in no window.
    BadStep,
}

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEventTime => {
                "windows in time need event times: call event_time before window"
            }
            Self::NoWatermark => {
                "windows in time would never close: call watermark, or watermark_by, after event_time"
            }
            Self::Empty => "a window must have a length, and a session a gap",
            Self::BadStep => "the step of windows must be more than 0 and at most their length",
        })
    }
}

impl std::error::Error for WindowError {}

debug_as_text!(StreamError, WindowError);
