//! The report as text: bars for memory, a mark for each finding, and a sentence if there is something to do.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use arenite::platform::SegmentName;

use super::finding::{Finding, Level, Report};
use super::machine::Room;
use crate::text::show_bytes;

/// The maximum number of cells of a bar.
const BAR: usize = 40;
/// The maximum number of characters per line, except those with paths and names.
const WIDTH: usize = 96;
/// The minimum, however narrow the terminal is.
const LEAST_WIDTH: usize = 44;
/// The number of characters in front of a bar, and behind it.
const LABEL: usize = 13;
const LONGEST_ROOM: usize = "1023.9 GiB of 1023.9 GiB free".len();

/// Returns the whole report, for a terminal of `columns`.
pub(super) fn render(
    report: &Report,
    removed: &[SegmentName],
    color: bool,
    columns: Option<usize>,
) -> String {
    let mut page = Page {
        text: String::new(),
        color,
        width: columns.unwrap_or(WIDTH).clamp(LEAST_WIDTH, WIDTH),
    };
    page.room(report);
    page.checks(&report.findings);
    page.names(&report.machine.names, removed);
    page.advice(&report.findings);
    page.text
}

struct Page {
    text: String,
    color: bool,
    /// The maximum number of characters per line.
    width: usize,
}

fn plain(color: AnsiColor) -> Style {
    Style::new().fg_color(Some(color.into()))
}

/// Returns the mark and the colour of a level.
fn mark(level: Level) -> (&'static str, Style) {
    match level {
        Level::Fine => ("✔", plain(AnsiColor::Green)),
        Level::Notice => ("!", plain(AnsiColor::Yellow).bold()),
        Level::Trouble => ("✘", plain(AnsiColor::Red).bold()),
    }
}

impl Page {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn painted(&self, style: Style, text: &str) -> String {
        if self.color {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    fn head(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let head = self.painted(Style::new().bold(), text);
        self.line(&head);
    }

    /// Writes a bar for each kind of memory: the used part, the part that an engine would use, and the rest.
    fn room(&mut self, report: &Report) {
        let machine = &report.machine;
        let wanted = machine.capacity.unwrap_or(u64::MAX);
        let level = |subject: &str| {
            report
                .findings
                .iter()
                .find(|finding| finding.subject == subject)
                .map_or(Level::Fine, |finding| finding.level)
        };
        self.head("Room");
        if let Some(memory) = machine.memory {
            self.bar("memory", memory, wanted, level("memory"));
        }
        if let Some(container) = &machine.container {
            self.bar("container", container.room, wanted, level("container"));
        }
        if let Some(shm) = machine.shm {
            self.bar("/dev/shm", shm, wanted, level("dev-shm"));
        }
        let most = machine.capacity.map_or_else(String::new, |capacity| {
            format!(", {} at most by default", show_bytes(capacity))
        });
        let legend = ["█ used", &format!("▒ an engine's arrays{most}"), "░ free"];
        let indent = " ".repeat(LABEL);
        let whole = format!("{indent}{}", legend.join("   "));
        match whole.chars().count() <= self.width {
            true => self.line(&whole),
            false => {
                for part in legend {
                    for line in wrapped(part, self.width - LABEL) {
                        self.line(&format!("{indent}{line}"));
                    }
                }
            }
        }
    }

    fn bar(&mut self, name: &str, room: Room, wanted: u64, level: Level) {
        let (_, style) = mark(level);
        let words = if room.size == u64::MAX {
            "no limit".to_owned()
        } else {
            format!(
                "{} of {} free",
                show_bytes(room.free),
                show_bytes(room.size)
            )
        };
        let length = self.width.saturating_sub(LABEL + 2 + LONGEST_ROOM).min(BAR);
        let bar = self.painted(style, &cells(room, wanted, length));
        self.line(&format!("  {name:<10} {bar}  {words}"));
    }

    /// Writes one line per finding.
    fn checks(&mut self, findings: &[Finding]) {
        self.head("Checks");
        for finding in findings {
            let (sign, style) = mark(finding.level);
            let sign = self.painted(style, sign);
            let subject = finding.subject;
            let words = if finding.level == Level::Fine {
                format!("{}; {}", finding.found, finding.means)
            } else {
                finding.found.clone()
            };
            let lines = wrapped(&words, self.width - 20);
            for (index, line) in lines.iter().enumerate() {
                if index == 0 {
                    self.line(&format!("  {sign} {subject:<15} {line}"));
                } else {
                    self.line(&format!("{:20}{line}", ""));
                }
            }
        }
    }

    fn names(&mut self, names: &[SegmentName], removed: &[SegmentName]) {
        if names.is_empty() && removed.is_empty() {
            return;
        }
        self.head("Arenas of this user with a name in /dev/shm");
        let all = names
            .iter()
            .map(|name| {
                if name.live {
                    ("in use", Level::Fine, name)
                } else {
                    ("left behind", Level::Notice, name)
                }
            })
            .chain(removed.iter().map(|name| ("removed", Level::Fine, name)));
        for (state, level, name) in all {
            let (_, style) = mark(level);
            let state = self.painted(style, &format!("{state:<12}"));
            let called = name.arena.as_deref().unwrap_or("unnamed");
            // A name may contain control characters.
            self.line(&format!(
                "  {state} {:>10}  {:>9} old  {}  ({})",
                show_bytes(name.bytes),
                age(name.age),
                name.segment.escape_debug(),
                called.escape_debug()
            ));
        }
    }

    /// Writes the findings of the levels notice and trouble with their advice, then the conclusion.
    fn advice(&mut self, findings: &[Finding]) {
        for finding in findings.iter().filter(|f| f.level != Level::Fine) {
            let (sign, style) = mark(finding.level);
            self.text.push('\n');
            let head = format!("{sign} {}: {}", finding.subject, finding.found);
            for line in wrapped(&head, self.width) {
                let line = self.painted(style, &line);
                self.line(&line);
            }
            for line in wrapped(&finding.means, self.width - 4) {
                self.line(&format!("    {line}"));
            }
            for (index, line) in wrapped(&finding.advice, self.width - 6).iter().enumerate() {
                let arrow = if index == 0 { "→" } else { " " };
                self.line(&format!("    {arrow} {line}"));
            }
        }
        let count = |level| {
            findings
                .iter()
                .filter(|finding| finding.level == level)
                .count()
        };
        let (troubles, notices) = (count(Level::Trouble), count(Level::Notice));
        let (level, mut words) = match troubles {
            0 => (Level::Fine, "No trouble found".to_owned()),
            1 => (Level::Trouble, "1 finding is trouble".to_owned()),
            _ => (Level::Trouble, format!("{troubles} findings are trouble")),
        };
        match notices {
            0 => {}
            1 => words.push_str("; 1 is a notice"),
            _ => {
                let _ = write!(words, "; {notices} are notices");
            }
        }
        words.push('.');
        let (_, style) = mark(level);
        let words = self.painted(style, &words);
        self.text.push('\n');
        self.line(&words);
    }
}

/// Returns the cells of a bar of this length: `████▒▒▒░░░`.
fn cells(room: Room, wanted: u64, length: usize) -> String {
    if room.size == 0 || room.size == u64::MAX {
        return "░".repeat(length);
    }
    let part = |bytes: u64| (bytes as f64 / room.size as f64 * length as f64).round() as usize;
    let used = part(room.size.saturating_sub(room.free)).min(length);
    let ours = part(wanted.min(room.free)).min(length - used);
    format!(
        "{}{}{}",
        "█".repeat(used),
        "▒".repeat(ours),
        "░".repeat(length - used - ours)
    )
}

/// Breaks text at blanks into lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a line from the start");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Returns an age as text: `12 s`, `5 min`, `3 h`, `40 days`.
fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_always_has_the_same_length() {
        let room = |size, free| Room { size, free };
        for (room, wanted, used, ours) in [
            (room(100, 100), 50, 0, 20),
            (room(100, 50), 25, 20, 10),
            (room(100, 0), 50, 40, 0),
            (room(100, 50), 500, 20, 20),
            (room(u64::MAX, u64::MAX), 50, 0, 0),
            (room(0, 0), 0, 0, 0),
        ] {
            let bar = cells(room, wanted, BAR);
            let count = |cell| bar.chars().filter(|found| *found == cell).count();
            assert_eq!(bar.chars().count(), BAR, "{bar}");
            assert_eq!((count('█'), count('▒')), (used, ours), "{bar}");
        }
    }

    #[test]
    fn text_wraps_at_blanks() {
        assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrapped("", 7), [""]);
        assert_eq!(wrapped("longer-than-that x", 5), ["longer-than-that", "x"]);
    }

    #[test]
    fn an_age_is_shown_in_one_unit() {
        let of = |seconds| age(Duration::from_secs(seconds));
        assert_eq!(
            [of(7), of(300), of(7300), of(864_000)],
            ["7 s", "5 min", "2 h", "10 days"]
        );
    }
}
