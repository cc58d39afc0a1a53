//! Sends events of the `tracing` crate from kernels to the supervisor, as frames.

use std::fmt::{self, Debug, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::frame::{EVENT, MAX_CONTENT, event};
use super::{lane, output};
use crate::link::LinkCells;

/// A subscriber that sends events up to a level, and ignores spans.
struct EventSender {
    level: LevelFilter,
    /// The link of the first lane.
    cells: Arc<LinkCells>,
    has_one_lane: bool,
}

/// Sends events up to this level from now on (1: errors, to 5: everything; 0: none). Does not replace a subscriber that
/// the program has set in this worker.
pub(super) fn install(level: u8, cells: Arc<LinkCells>, has_one_lane: bool) {
    let level = match level {
        0 => return,
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let _ = tracing::subscriber::set_global_default(EventSender {
        level,
        cells,
        has_one_lane,
    });
}

impl Subscriber for EventSender {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // No span is enabled, so the id does not matter. It may not be zero.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, what: &Event<'_>) {
        let level = match *what.metadata().level() {
            Level::ERROR => 1,
            Level::WARN => 2,
            Level::INFO => 3,
            Level::DEBUG => 4,
            Level::TRACE => 5,
        };
        let mut text = Text::default();
        what.record(&mut text);
        let fields = std::mem::take(&mut text.fields);
        // Text that is too long is truncated.
        let _ = text.message.write_str(&fields.0);
        let job = lane::current_job(&self.cells, self.has_one_lane);
        let content = event(job, level, what.metadata().target(), &text.message.0);
        output::send(EVENT, &content);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The text of an event: the message, then ` name=value` for each other field.
#[derive(Default)]
struct Text {
    message: Bounded,
    fields: Bounded,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // The only possible error is that the text is full.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// A text, truncated to the maximum content of a frame.
#[derive(Default)]
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut end = text.len().min(MAX_CONTENT - self.0.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.0.push_str(&text[..end]);
        if end < text.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}
