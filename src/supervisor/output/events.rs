//! Forwards events of kernels to the `tracing` subscriber of this program.

use super::log_line::LogLine;

/// Returns the most verbose level of events that workers send: the level of this program's subscriber, or `INFO`
/// without a subscriber.
#[cfg(feature = "tracing")]
pub(in crate::supervisor) fn wanted() -> u8 {
    use tracing::level_filters::LevelFilter;
    match LevelFilter::current() {
        LevelFilter::ERROR => 1,
        LevelFilter::WARN => 2,
        LevelFilter::DEBUG => 4,
        LevelFilter::TRACE => 5,
        _ => 3,
    }
}

#[cfg(not(feature = "tracing"))]
pub(in crate::supervisor) fn wanted() -> u8 {
    0
}

/// Emits an event of a worker as an event of this program. Returns false if no subscriber takes it.
#[cfg(feature = "tracing")]
pub(in crate::supervisor) fn emit(line: &LogLine) -> bool {
    use super::log_line::{LogLevel, LogSource};
    use tracing::Level;
    use tracing::subscriber::NoSubscriber;

    if line.source != LogSource::Event
        || tracing::dispatcher::get_default(|to| to.is::<NoSubscriber>())
    {
        return false;
    }
    macro_rules! emit {
        ($level:ident) => {
            tracing::event!(
                target: "arenite::worker",
                Level::$level,
                worker = line.worker,
                job = line.job,
                origin = line.target.as_deref(),
                "{}",
                line.text
            )
        };
    }
    match line.level {
        Some(LogLevel::Error) => emit!(ERROR),
        Some(LogLevel::Warn) => emit!(WARN),
        Some(LogLevel::Debug) => emit!(DEBUG),
        Some(LogLevel::Trace) => emit!(TRACE),
        Some(LogLevel::Info) | None => emit!(INFO),
    }
    true
}

#[cfg(not(feature = "tracing"))]
pub(in crate::supervisor) fn emit(_: &LogLine) -> bool {
    false
}
