//! What ends a stream, and what cannot be built.

use std::fmt;

use crate::supervisor::JobError;
use crate::sys::debug_as_text;

/// Why a stream ended before its source did.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamError {
    /// The job of an item gave no value, or there was no room to hand it what a window holds; and the stream [stops](super::Stream::on_failure) at failures or its engine has ended.
    Job {
        /// Which stage: the first is 1.
        stage: usize,
        /// Which item of the source, or which window: the first is 0.
        sequence: u64,
        /// Why.
        error: JobError,
    },
    /// The source gave an error instead of an item: see [`Stream::fallible`](super::Stream::fallible). Or it was to have a
    /// [thread of its own](super::Stream::spawn), and there is none to be had.
    Source {
        /// Which item of the source: the first is 0.
        sequence: u64,
        /// What it said.
        message: String,
    },
    /// Open windows hold more than they may: see [`Windowed::max_items`](super::Windowed::max_items).
    WindowsFull {
        /// What they may hold: items, or windows of a fold.
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

/// Windows that cannot be made.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WindowError {
    /// A window in time over items without one.
    NoEventTime,
    /// A window in time that nothing would ever close.
    NoWatermark,
    /// A window that has no length, or a session without a gap.
    Empty,
    /// Steps of nothing, or longer than the window, so that items would fall between two.
    BadStep,
}

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEventTime => {
                "windows in time need to know when each item happened: call event_time before"
            }
            Self::NoWatermark => {
                "nothing would ever close a window in time: call watermark, or watermark_by, after event_time"
            }
            Self::Empty => "a window must have a length, and a session a gap",
            Self::BadStep => "windows must step by more than nothing, and not by more than their length",
        })
    }
}

impl std::error::Error for WindowError {}

debug_as_text!(StreamError, WindowError);
