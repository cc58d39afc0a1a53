#![doc = include_str!("README.md")]

pub(super) mod events;
pub(super) mod flush;
pub(super) mod last_words;
mod log_line;
mod logger;
mod rate_cap;
mod split;
pub(super) mod streams;
mod traceback;
mod worker_output;

pub use log_line::{LogLevel, LogLine, LogSource};
pub(super) use logger::Logger;
pub(crate) use logger::Sink;
