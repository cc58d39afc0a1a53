//! Progress on stderr: a bar on a terminal, otherwise lines if requested.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arenite::engine::{LogLine, LogSource};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::text::{Choice, reason};

/// The bar on the screen, so that other threads can print above it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Prints a line on stderr, above the bar if there is one.
pub(crate) fn print_aside(line: &str) {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let line = format!("{line}\n");
    // A single write. If it fails, the work continues.
    let print = || drop(std::io::stderr().lock().write_all(line.as_bytes()));
    match bar {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// Prints messages on a separate thread.
#[derive(Debug)]
pub(crate) struct Messages(SyncSender<String>);

impl Messages {
    /// The maximum number of messages that wait until stderr is read. Further messages are dropped.
    const WAITING: usize = 64;

    /// Starts the thread that prints.
    ///
    /// # Errors
    ///
    /// A sentence with the reason.
    pub(crate) fn print() -> Result<Messages, String> {
        let (sender, receiver) = sync_channel::<String>(Messages::WAITING);
        let print = move || receiver.iter().for_each(|line| print_aside(&line));
        match std::thread::Builder::new()
            .name("messages".into())
            .spawn(print)
        {
            Ok(_) => Ok(Messages(sender)),
            Err(error) => Err(format!("cannot start a thread: {}", reason(&error))),
        }
    }

    /// Passes a message to the thread, or drops it if too many wait. Does not wait.
    pub(crate) fn print_or_drop(&self, line: String) {
        let _ = self.0.try_send(line);
    }
}

/// The jobs whose worker reports a failed allocation, by worker. What it prints from then on, a stack without names
/// among it, says less than the picture's error.
#[derive(Debug, Default)]
pub(crate) struct FailedAllocations(Mutex<HashMap<u32, Option<u64>>>);

impl FailedAllocations {
    /// Returns whether a line belongs to such a report.
    pub(crate) fn have(&self, line: &LogLine) -> bool {
        if line.source != LogSource::Stderr {
            return false;
        }
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if line.text.starts_with("memory allocation of ") && line.text.ends_with(" bytes failed") {
            jobs.insert(line.worker, line.job);
        }
        jobs.get(&line.worker) == Some(&line.job)
    }
}

/// Removes the bar from the screen permanently, if there is one.
pub(crate) fn clear() {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// The display of progress.
#[derive(Debug)]
pub(crate) enum Progress {
    None,
    Bar(ProgressBar),
    /// Lines, for `--progress always` if stderr is a pipe or a file.
    Lines(Lines),
}

/// Plain lines: at most one per second, and one at the end.
#[derive(Debug)]
pub(crate) struct Lines {
    done: u64,
    total: u64,
    start: Instant,
    last_line: Instant,
}

impl Progress {
    pub(crate) fn new(choice: Choice, total: u64, color: bool) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        match choice {
            Choice::Never => Progress::None,
            Choice::Auto if !terminal => Progress::None,
            Choice::Auto | Choice::Always if terminal => {
                let bar = ProgressBar::with_draw_target(
                    Some(total),
                    ProgressDrawTarget::stderr_with_hz(10),
                );
                bar.set_style(style(color));
                bar.tick();
                *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
                Progress::Bar(bar)
            }
            Choice::Auto | Choice::Always => {
                let now = Instant::now();
                Progress::Lines(Lines {
                    done: 0,
                    total,
                    start: now,
                    last_line: now,
                })
            }
        }
    }

    /// Counts one more finished picture.
    pub(crate) fn step(&mut self) {
        match self {
            Progress::None => {}
            Progress::Bar(bar) => bar.inc(1),
            Progress::Lines(lines) => lines.step(),
        }
    }

    /// Runs `f`, which prints, while the bar is hidden.
    pub(crate) fn aside<R>(&self, f: impl FnOnce() -> R) -> R {
        match self {
            Progress::Bar(bar) => bar.suspend(f),
            _ => f(),
        }
    }

    /// Removes the bar from the screen.
    pub(crate) fn end(&mut self) {
        if let Progress::Bar(_) = self {
            clear();
        }
    }
}

impl Lines {
    fn step(&mut self) {
        self.done += 1;
        let now = Instant::now();
        if self.done < self.total && now - self.last_line < Duration::from_secs(1) {
            return;
        }
        self.last_line = now;
        let elapsed = now - self.start;
        let rate = self.done as f64 / elapsed.as_secs_f64().max(1e-6);
        let left = Duration::from_secs_f64((self.total - self.done) as f64 / rate);
        let line = format!(
            "{}/{}, {}, {} left\n",
            self.done,
            self.total,
            rate_text(rate),
            clock(left)
        );
        // A single write. If it fails, the work continues.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

fn style(color: bool) -> ProgressStyle {
    let bar = if color {
        "{wide_bar:.cyan/dim}"
    } else {
        "{wide_bar}"
    };
    ProgressStyle::with_template(&format!("{bar} {{pos}}/{{len}}  {{rate}}  {{left}} left"))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━━─")
        .with_key(
            "rate",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&rate_text(state.per_sec()));
            },
        )
        .with_key(
            "left",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = match state.pos() {
                    0 => out.write_str("-:--"),
                    _ => out.write_str(&clock(state.eta())),
                };
            },
        )
}

/// Returns the number of images per second as text, with one decimal place below 10.
pub(crate) fn rate_text(rate: f64) -> String {
    let mut text = String::new();
    let digits = if rate < 10.0 { 1 } else { 0 };
    let _ = write!(text, "{rate:.digits$} images/s");
    text
}

/// Returns a time as text: `0:07`, `12:30`, `2:05:09`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_shown_compactly() {
        assert_eq!(clock(Duration::from_secs(7)), "0:07");
        assert_eq!(clock(Duration::from_secs(7509)), "2:05:09");
        assert_eq!(rate_text(3.456), "3.5 images/s");
        assert_eq!(rate_text(68.4), "68 images/s");
    }
}
