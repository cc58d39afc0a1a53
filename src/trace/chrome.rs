//! The file of events, in the JSON format of Chrome's trace viewer.
//!
//! A process of the viewer is a worker, a thread of it a lane; process 1 stands for the engine, where jobs wait. Runs are
//! complete events (`X`) on their lane, waits are asynchronous ones (`b`, `e`), since they overlap; dependencies are flows
//! (`s`, `f`), and what has no length is an instant (`i`). Times are microseconds since the engine was built.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use super::arrows::Spot;
use super::text::{Us, put};
use super::{Attempt, End, Place};

/// The process that stands for the engine.
const ENGINE: u32 = 1;
/// Bytes that are written at one time. A file system that is given more takes its pages in blocks that nobody has had for
/// long: where a hypervisor lends memory, each of those costs ten times what it costs to fill it.
const BATCH: usize = 60 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct ChromeFile {
    file: File,
    /// Where the tail begins.
    end: u64,
    /// What the tail says is missing.
    dropped: u64,
    /// What the next write brings.
    text: String,
    /// Time 0.
    start: u64,
    flows: u64,
    memory_waits: u64,
    /// What the events of each kernel have in common. Each is made once.
    kernels: HashMap<&'static str, Arc<Common>>,
    /// The kernel of the last attempt: most are followed by one of the same.
    last: Option<Arc<Common>>,
    /// Which attempt of which job, as the viewer is told.
    id: String,
    /// Lanes that have a name.
    named: BTreeSet<Place>,
}

/// What the events of a kernel have in common: a piece of text costs about as much as another, however long it is.
#[derive(Debug)]
struct Common {
    kernel: &'static str,
    /// The beginning of a wait and its end, up to the time.
    begins: String,
    ends: String,
    /// A run, up to the process.
    runs: String,
    /// What is told of a run: the kernel's whole name, up to its wait.
    about: String,
}

impl Common {
    fn of(kernel: &'static str) -> Self {
        let name = quoted(&short(kernel));
        let wait = |phase| {
            format!(",\n{{\"ph\":\"{phase}\",\"name\":{name},\"pid\":{ENGINE},\"tid\":0,\"ts\":")
        };
        Self {
            kernel,
            begins: wait('b'),
            ends: wait('e'),
            runs: format!(",\n{{\"ph\":\"X\",\"name\":{name},\"pid\":"),
            about: format!(",\"kernel\":{},\"queued_us\":", quoted(kernel)),
        }
    }
}

impl ChromeFile {
    pub(super) fn create(path: &Path, label: &str, start: u64) -> io::Result<Self> {
        // Before it is opened, which a reader would notice, and which waits where there is none.
        if fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo()) {
            return Err(no_file());
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).open(path)?;
        let mut own = Self {
            file,
            end: 0,
            dropped: 0,
            text: "{\"traceEvents\":[\n".into(),
            start,
            flows: 0,
            memory_waits: 0,
            kernels: HashMap::new(),
            last: None,
            id: String::new(),
            named: BTreeSet::new(),
        };
        // Without a comma in front: the first of all.
        let _ = write!(
            own.text,
            "{{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":{ENGINE},\"tid\":0,\"args\":{{\"name\":{}}}}}",
            quoted(&format!("{label}: waiting"))
        );
        match own.write(0, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotSeekable => Err(no_file()),
            written => written.map(|()| own),
        }
    }

    /// Whether this path leads to the same file. What is no file, such as `/dev/null`, is nobody's alone.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let both = self
            .file
            .metadata()
            .and_then(|own| Ok((own, fs::metadata(path)?)));
        both.is_ok_and(|(own, other)| {
            own.is_file() && (own.dev(), own.ino()) == (other.dev(), other.ino())
        })
    }

    /// Enough was added to be written.
    pub(super) fn has_a_batch(&self) -> bool {
        self.text.len() >= BATCH
    }

    /// Everything that was added goes into the file, which is whole then: also after an error, but without these events.
    ///
    /// `dropped`: what is missing up to here; `events`: what is missing if this fails.
    pub(super) fn write(&mut self, dropped: u64, events: u64) -> io::Result<()> {
        let len = self.text.len() as u64;
        put_tail(&mut self.text, dropped);
        // What was there before is the older tail, which is no longer than the new one.
        let written = self.file.write_all_at(self.text.as_bytes(), self.end);
        self.text.clear();
        match &written {
            Ok(()) => {
                self.end += len;
                self.dropped = dropped;
            }
            Err(_) => self.mend(dropped + events),
        }
        written
    }

    /// Half a batch may have gone over the tail: that is written again where it was. As there may be no room for
    /// anything else, over what is there now and before the rest is cut off; and if the number became too long, with the one
    /// before.
    fn mend(&mut self, dropped: u64) {
        for dropped in [dropped, self.dropped] {
            let mut tail = String::new();
            put_tail(&mut tail, dropped);
            let whole = self.end + tail.len() as u64;
            let written = self.file.write_all_at(tail.as_bytes(), self.end);
            if written.and_then(|()| self.file.set_len(whole)).is_ok() {
                return;
            }
        }
    }

    fn us(&self, at: u64) -> Us {
        Us(at.saturating_sub(self.start))
    }

    /// Begins an event: all that each of them has. The name is a string of JSON.
    fn event(&mut self, phase: &str, name: &str, place: (u32, u32), at: u64) {
        let at = self.us(at);
        let (pid, tid) = place;
        put!(
            self.text,
            ",\n{\"ph\":\"",
            phase,
            "\",\"name\":",
            name,
            ",\"pid\":",
            pid,
            ",\"tid\":",
            tid,
            ",\"ts\":",
            at
        );
    }

    /// Where a lane is in the viewer. The first time it gets its name.
    fn lane(&mut self, place: Place) -> (u32, u32) {
        let (pid, tid) = (ENGINE + 1 + place.worker, place.lane);
        if self.named.insert(place) {
            let (worker, lane) = (place.worker, place.lane);
            for (what, name) in [
                ("process_name", format!("worker {worker}")),
                ("thread_name", format!("lane {lane}")),
            ] {
                let _ = write!(
                    self.text,
                    ",\n{{\"ph\":\"M\",\"name\":\"{what}\",\"pid\":{pid},\"tid\":{tid},\"args\":{{\"name\":\"{name}\"}}}}"
                );
            }
            let _ = write!(
                self.text,
                ",\n{{\"ph\":\"M\",\"name\":\"process_sort_index\",\"pid\":{pid},\"tid\":{tid},\"args\":{{\"sort_index\":{pid}}}}}"
            );
        }
        (pid, tid)
    }

    fn common(&mut self, kernel: &'static str) -> Arc<Common> {
        // The address is enough to know it again; if it is another one, the text decides.
        match &self.last {
            Some(last) if std::ptr::eq(last.kernel, kernel) => Arc::clone(last),
            _ => {
                let common = self.kernels.entry(kernel);
                let common = common.or_insert_with(|| Arc::new(Common::of(kernel)));
                self.last = Some(Arc::clone(common));
                Arc::clone(common)
            }
        }
    }

    /// An attempt: its wait, and its run if there was one.
    pub(super) fn attempt(&mut self, attempt: &Attempt) {
        let common = self.common(attempt.kernel);
        let until = attempt.ran.map_or(attempt.over, |ran| ran.began);
        let (since, until) = (self.us(attempt.since), self.us(until));
        let (job, number) = (attempt.job, u32::from(attempt.attempt));
        self.id.clear();
        put!(self.id, ",\"cat\":\"waiting\",\"id\":\"", job, ".", number);
        put!(
            self.text,
            &common.begins,
            since,
            &self.id,
            "\",\"args\":{\"job\":",
            job,
            "}}",
            &common.ends,
            until,
            &self.id,
            "\"}",
        );
        let Some(ran) = attempt.ran else {
            return self.without_run(attempt);
        };
        let lane = self.lane(ran.place);
        let began = self.us(ran.began);
        put!(
            self.text,
            &common.runs,
            lane.0,
            ",\"tid\":",
            lane.1,
            ",\"ts\":",
            began,
            ",\"dur\":",
            Us(ran.ended - ran.began),
            ",\"cat\":\"job\",\"args\":{\"job\":",
            job,
            ",\"attempt\":",
            number,
            &common.about,
            Us(ran.placed.saturating_sub(attempt.since)),
            ",\"ahead_us\":",
            Us(ran.began.saturating_sub(ran.placed)),
            ",\"bytes_in\":",
            attempt.bytes.0,
            ",\"bytes_out\":",
            attempt.bytes.1,
        );
        if let Some(label) = &attempt.label {
            let _ = write!(self.text, ",\"label\":{}", quoted(label));
        }
        if let End::Failed { why, again } = &attempt.end {
            let _ = write!(
                self.text,
                ",\"error\":{},\"tried_again\":{again}}},\"cname\":\"terrible\"}}",
                quoted(why)
            );
            let job = attempt.job.to_string();
            let label = attempt.label.iter().map(|label| ("label", &**label));
            let about = [("job", job.as_str()), ("error", why)];
            let about: Vec<_> = about.into_iter().chain(label).collect();
            self.instant("failed", lane, ran.ended, &about);
        } else {
            self.text.push_str("}}");
        }
    }

    /// What no worker had begun, and none will.
    fn without_run(&mut self, attempt: &Attempt) {
        let name = &short(attempt.kernel);
        let why = match &attempt.end {
            End::Failed { why, .. } => why,
            End::Cancelled => "cancelled before it began",
            End::Value => return,
        };
        let job = attempt.job.to_string();
        let label = attempt.label.iter().map(|label| ("label", &**label));
        let about = [("job", job.as_str()), ("kernel", name), ("error", why)];
        let about: Vec<_> = about.into_iter().chain(label).collect();
        self.instant("not run", (ENGINE, 0), attempt.over, &about);
    }

    fn instant(&mut self, name: &str, place: (u32, u32), at: u64, args: &[(&str, &str)]) {
        self.event("i", &quoted(name), place, at);
        self.text.push_str(",\"s\":\"t\",\"args\":{");
        for (index, (key, value)) in args.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(self.text, "{comma}\"{key}\":{}", quoted(value));
        }
        self.text.push_str("}}");
    }

    /// An arrow between two runs.
    pub(super) fn arrow(&mut self, from: Spot, to: Spot) {
        self.flows += 1;
        let id = self.flows;
        for (phase, spot) in [("s", from), ("f", to)] {
            let lane = self.lane(spot.place);
            self.event(phase, "\"needs\"", lane, spot.at);
            let bind = if phase == "f" { ",\"bp\":\"e\"" } else { "" };
            let _ = write!(self.text, ",\"cat\":\"needs\",\"id\":{id}{bind}}}");
        }
    }

    pub(super) fn started(&mut self, place: Place, pid: u32, from: u64, at: u64) {
        let lane = self.lane(place);
        self.event("X", "\"start\"", lane, from);
        let took = Us(at.saturating_sub(from));
        put!(
            self.text,
            ",\"dur\":",
            took,
            ",\"cat\":\"worker\",\"args\":{\"pid\":",
            pid,
            "}}"
        );
        self.instant("ready", lane, at, &[("pid", &pid.to_string())]);
    }

    pub(super) fn gone(&mut self, place: Place, at: u64, why: Option<&str>) {
        let lane = self.lane(place);
        match why {
            Some(why) => self.instant("died", lane, at, &[("cause", why)]),
            None => self.instant("ended", lane, at, &[]),
        }
    }

    /// A lane wanted memory, and got an answer. Beside its runs, not within: a grant that was under way may have let it
    /// go on before.
    pub(super) fn granted(&mut self, place: Place, from: u64, at: u64, bytes: u64, given: bool) {
        let lane = self.lane(place);
        self.memory_waits += 1;
        let id = self.memory_waits;
        for (phase, at) in [("b", from), ("e", at)] {
            self.event(phase, "\"waits for memory\"", lane, at);
            let _ = write!(
                self.text,
                ",\"cat\":\"memory\",\"id\":\"m{id}\",\"args\":{{\"bytes\":{bytes},\"given\":{given}}}}}"
            );
        }
    }
}

#[cfg(test)]
impl ChromeFile {
    pub(super) fn spoil(&mut self) {
        let full = OpenOptions::new().write(true).open("/dev/full");
        self.file = full.expect("a file that takes nothing");
    }
}

/// The tail is written again and again, over the one before.
fn no_file() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotSeekable,
        "events need a file, in which they can be written over; a pipe or a terminal takes a report",
    )
}

/// What closes the file.
fn put_tail(text: &mut String, dropped: u64) {
    let _ = write!(
        text,
        "\n],\"displayTimeUnit\":\"ms\",\"otherData\":{{\"producer\":\"arenite {}\",\"dropped_events\":\"{dropped}\"}}}}\n",
        env!("CARGO_PKG_VERSION")
    );
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The name of a kernel without the modules that it lies in: `a::b::shrink<c::Pixel>` is `shrink<Pixel>`.
pub(super) fn short(name: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ':' && rest.peek() == Some(&':') {
            rest.next();
            // What closures and blocks are called says less than where they are.
            if matches!(rest.peek(), Some('{')) {
                word.push_str("::");
            } else {
                word.clear();
            }
        } else if c.is_alphanumeric() || "_{}#".contains(c) || word.ends_with("::") {
            word.push(c);
        } else {
            out.push_str(&std::mem::take(&mut word));
            out.push(c);
        }
    }
    out + &word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shortened_to_what_tells_them_apart() {
        for (name, expected) in [
            ("app::image::shrink", "shrink"),
            ("app::main::{{closure}}", "main::{{closure}}"),
            ("app::scale<f32>", "scale<f32>"),
            (
                "app::scale<app::Pixel, (u8, a::B)>",
                "scale<Pixel, (u8, B)>",
            ),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(short(name), expected, "{name}");
        }
    }

    #[test]
    fn any_text_is_a_string_of_json() {
        for text in ["", "a \"b\" \\", "tab\tnew\nline\u{1}\u{7f}", "ümläut 🎉"] {
            let parsed: String = serde_json::from_str(&quoted(text)).expect(text);
            assert_eq!(parsed, text);
        }
    }
}
