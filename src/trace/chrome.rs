//! The file of events, in the JSON format of Chrome's trace viewer.
//!
//! A process in the viewer is a worker, and its threads are lanes; process 1 is the engine, where jobs wait. Runs are
//! complete events (`X`) on their lane. Waits are asynchronous events (`b`, `e`), since they overlap; dependencies are
//! flows (`s`, `f`), and events without a length are instants (`i`). Times are microseconds since the engine was built.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use super::arrows::ArrowEnd;
use super::text::{Us, put};
use super::{Attempt, AttemptEnd, LaneId};

/// The process of the viewer that stands for the engine.
const ENGINE: u32 = 1;
/// The number of bytes that are written at a time. More would be slower per byte on virtual machines: see
/// `docs/design/trace.md`.
const BATCH: usize = 60 << 10;

/// Max number of stack frames of a crash.
const MAX_FRAMES: usize = 32;

/// The file of events.
#[derive(Debug)]
pub(super) struct ChromeFile {
    file: File,
    /// Offset in the file at which the tail begins.
    end: u64,
    /// The number of dropped events in the tail of the file.
    dropped: u64,
    /// The text of the next batch.
    text: String,
    /// The time that is 0 in the file.
    start: u64,
    flows: u64,
    memory_waits: u64,
    /// The texts that all events of a kernel share, by the kernel's name.
    kernels: HashMap<&'static str, Arc<KernelText>>,
    /// The texts for the kernel of the last attempt. The next attempt usually has the same kernel.
    last: Option<Arc<KernelText>>,
    /// Buffer for the id of an attempt.
    id: String,
    /// Lanes whose name is in the file.
    named: BTreeSet<LaneId>,
}

/// The texts that all events of a kernel share. They are few and long, because appending a text costs about the same
/// for any length.
#[derive(Debug)]
struct KernelText {
    kernel: &'static str,
    /// The event that begins a wait, up to the value of its time.
    wait_begin: String,
    /// The event that ends a wait, up to the value of its time.
    wait_end: String,
    /// The event of a run, up to the value of its process.
    run: String,
    /// The arguments of a run, from the kernel's full name up to the value of `queued_us`.
    args: String,
}

impl KernelText {
    fn of(kernel: &'static str) -> Self {
        let name = quoted(&short(kernel));
        let wait = |phase| {
            format!(",\n{{\"ph\":\"{phase}\",\"name\":{name},\"pid\":{ENGINE},\"tid\":0,\"ts\":")
        };
        Self {
            kernel,
            wait_begin: wait('b'),
            wait_end: wait('e'),
            run: format!(",\n{{\"ph\":\"X\",\"name\":{name},\"pid\":"),
            args: format!(",\"kernel\":{},\"queued_us\":", quoted(kernel)),
        }
    }
}

impl ChromeFile {
    pub(super) fn create(path: &Path, label: &str, start: u64) -> io::Result<Self> {
        // Check this before opening: opening a pipe would wait for a reader, and the reader would notice.
        if fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo()) {
            return Err(not_a_file());
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
        // The first event has no comma before it.
        let _ = write!(
            own.text,
            "{{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":{ENGINE},\"tid\":0,\"args\":{{\"name\":{}}}}}",
            quoted(&format!("{label}: waiting"))
        );
        match own.write(0, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotSeekable => Err(not_a_file()),
            written => written.map(|()| own),
        }
    }

    /// Whether `path` refers to this file. False for devices such as `/dev/null`, which may be shared.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let both = self
            .file
            .metadata()
            .and_then(|own| Ok((own, fs::metadata(path)?)));
        both.is_ok_and(|(own, other)| {
            own.is_file() && (own.dev(), own.ino()) == (other.dev(), other.ino())
        })
    }

    /// Whether the text is long enough to be written.
    pub(super) fn has_full_batch(&self) -> bool {
        self.text.len() >= BATCH
    }

    /// Writes the text into the file, which is complete and valid afterwards. After an error the file is valid, without
    /// these events.
    ///
    /// `dropped`: the number of events missing so far; `events`: the number of events in the text.
    pub(super) fn write(&mut self, dropped: u64, events: u64) -> io::Result<()> {
        let len = self.text.len() as u64;
        put_tail(&mut self.text, dropped);
        // Overwrites the previous tail, which is not longer than the new one.
        let written = self.file.write_all_at(self.text.as_bytes(), self.end);
        self.text.clear();
        match &written {
            Ok(()) => {
                self.end += len;
                self.dropped = dropped;
            }
            Err(_) => self.repair(dropped + events),
        }
        written
    }

    /// Writes the tail again after a part of a batch has overwritten it. The disk may be full, so this overwrites
    /// existing bytes before it truncates the file. If the new number has more digits than fit, the tail keeps the
    /// previous number.
    fn repair(&mut self, dropped: u64) {
        for dropped in [dropped, self.dropped] {
            let mut tail = String::new();
            put_tail(&mut tail, dropped);
            let len = self.end + tail.len() as u64;
            let written = self.file.write_all_at(tail.as_bytes(), self.end);
            if written.and_then(|()| self.file.set_len(len)).is_ok() {
                return;
            }
        }
    }

    fn us(&self, at: u64) -> Us {
        Us(at.saturating_sub(self.start))
    }

    /// Begins an event, with the fields that all events have. `name` is a JSON string.
    fn event(&mut self, phase: &str, name: &str, (pid, tid): (u32, u32), at: u64) {
        let at = self.us(at);
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

    /// Returns process and thread of a lane in the viewer. Writes the name of the lane the first time.
    fn lane(&mut self, id: LaneId) -> (u32, u32) {
        let (pid, tid) = (ENGINE + 1 + id.worker, id.lane);
        if self.named.insert(id) {
            let (worker, lane) = (id.worker, id.lane);
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

    fn kernel_text(&mut self, kernel: &'static str) -> Arc<KernelText> {
        // Compares the addresses first, which is fast. Names at different addresses may be equal too.
        match &self.last {
            Some(last) if std::ptr::eq(last.kernel, kernel) => Arc::clone(last),
            _ => {
                let text = self.kernels.entry(kernel);
                let text = text.or_insert_with(|| Arc::new(KernelText::of(kernel)));
                self.last = Some(Arc::clone(text));
                Arc::clone(text)
            }
        }
    }

    /// Writes the wait of an attempt, and its run if there was one.
    pub(super) fn attempt(&mut self, attempt: &Attempt) {
        let text = self.kernel_text(attempt.kernel);
        let until = attempt.ran.map_or(attempt.over, |ran| ran.began);
        let (since, until) = (self.us(attempt.since), self.us(until));
        let (job, number) = (attempt.job, u32::from(attempt.attempt));
        self.id.clear();
        put!(self.id, ",\"cat\":\"waiting\",\"id\":\"", job, ".", number);
        put!(
            self.text,
            &text.wait_begin,
            since,
            &self.id,
            "\",\"args\":{\"job\":",
            job,
            "}}",
            &text.wait_end,
            until,
            &self.id,
            "\"}",
        );
        let Some(ran) = attempt.ran else {
            return self.without_run(attempt);
        };
        let lane = self.lane(ran.lane);
        let began = self.us(ran.began);
        put!(
            self.text,
            &text.run,
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
            &text.args,
            Us(ran.placed.saturating_sub(attempt.since)),
            ",\"ahead_us\":",
            Us(ran.began.saturating_sub(ran.placed)),
            ",\"bytes_in\":",
            attempt.bytes_in,
            ",\"bytes_out\":",
            attempt.bytes_out,
        );
        if let Some(label) = &attempt.label {
            let _ = write!(self.text, ",\"label\":{}", quoted(label));
        }
        if let AttemptEnd::Failed {
            why,
            crash,
            is_retried,
        } = &attempt.end
        {
            let _ = write!(self.text, ",\"error\":{}", quoted(why));
            let crash = crash.as_ref().map(|crash| {
                let what = crash.what();
                let frames = crash.frames();
                let _ = write!(self.text, ",\"crash\":{},\"stack\":[", quoted(&what));
                for (at, frame) in frames.iter().take(MAX_FRAMES).enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    let _ = write!(self.text, "{comma}{}", quoted(frame));
                }
                self.text.push(']');
                what
            });
            let _ = write!(
                self.text,
                ",\"tried_again\":{is_retried}}},\"cname\":\"terrible\"}}"
            );
            let job = attempt.job.to_string();
            let label = attempt.label.iter().map(|label| ("label", &**label));
            let crash = crash.iter().map(|crash| ("crash", &**crash));
            let args = [("job", job.as_str()), ("error", why)];
            let args: Vec<_> = args.into_iter().chain(crash).chain(label).collect();
            self.instant("failed", lane, ran.ended, &args);
        } else {
            self.text.push_str("}}");
        }
    }

    /// Writes an attempt that no worker began.
    fn without_run(&mut self, attempt: &Attempt) {
        let name = &short(attempt.kernel);
        let why = match &attempt.end {
            AttemptEnd::Failed { why, .. } => why,
            AttemptEnd::Cancelled => "cancelled before it began",
            AttemptEnd::Value => return,
        };
        let job = attempt.job.to_string();
        let label = attempt.label.iter().map(|label| ("label", &**label));
        let args = [("job", job.as_str()), ("kernel", name), ("error", why)];
        let args: Vec<_> = args.into_iter().chain(label).collect();
        self.instant("not run", (ENGINE, 0), attempt.over, &args);
    }

    fn instant(&mut self, name: &str, lane: (u32, u32), at: u64, args: &[(&str, &str)]) {
        self.event("i", &quoted(name), lane, at);
        self.text.push_str(",\"s\":\"t\",\"args\":{");
        for (index, (key, value)) in args.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(self.text, "{comma}\"{key}\":{}", quoted(value));
        }
        self.text.push_str("}}");
    }

    /// Writes an arrow between two runs.
    pub(super) fn arrow(&mut self, from: ArrowEnd, to: ArrowEnd) {
        self.flows += 1;
        let id = self.flows;
        for (phase, end) in [("s", from), ("f", to)] {
            let lane = self.lane(end.lane);
            self.event(phase, "\"needs\"", lane, end.at);
            let bind = if phase == "f" { ",\"bp\":\"e\"" } else { "" };
            let _ = write!(self.text, ",\"cat\":\"needs\",\"id\":{id}{bind}}}");
        }
    }

    pub(super) fn started(&mut self, lane: LaneId, pid: u32, from: u64, at: u64) {
        let lane = self.lane(lane);
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

    pub(super) fn exited(&mut self, lane: LaneId, at: u64, why: Option<&str>) {
        let lane = self.lane(lane);
        match why {
            Some(why) => self.instant("died", lane, at, &[("cause", why)]),
            None => self.instant("ended", lane, at, &[]),
        }
    }

    /// Writes the wait of a lane for memory, as an asynchronous event: it may end after the lane's run, if a grant in
    /// advance lets the lane continue before its request is answered.
    pub(super) fn memory_wait(
        &mut self,
        lane: LaneId,
        from: u64,
        at: u64,
        bytes: u64,
        is_granted: bool,
    ) {
        let lane = self.lane(lane);
        self.memory_waits += 1;
        let id = self.memory_waits;
        for (phase, at) in [("b", from), ("e", at)] {
            self.event(phase, "\"waits for memory\"", lane, at);
            let _ = write!(
                self.text,
                ",\"cat\":\"memory\",\"id\":\"m{id}\",\"args\":{{\"bytes\":{bytes},\"given\":{is_granted}}}}}"
            );
        }
    }
}

#[cfg(test)]
impl ChromeFile {
    /// Makes writes fail from now on, as on a full disk.
    pub(super) fn fill_disk(&mut self) {
        let full = OpenOptions::new().write(true).open("/dev/full");
        self.file = full.expect("/dev/full can be opened");
    }
}

/// The error for a path that is not a regular file: the tail could not be overwritten there.
fn not_a_file() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotSeekable,
        "events need a file that can be overwritten; only a report can go to a pipe or a terminal",
    )
}

/// Appends the tail, which ends the JSON text.
fn put_tail(text: &mut String, dropped: u64) {
    let _ = write!(
        text,
        "\n],\"displayTimeUnit\":\"ms\",\"otherData\":{{\"producer\":\"arenite {}\",\"dropped_events\":\"{dropped}\"}}}}\n",
        env!("CARGO_PKG_VERSION")
    );
}

/// The text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
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

/// The name of a kernel without its modules: `a::b::shrink<c::Pixel>` becomes `shrink<Pixel>`.
pub(crate) fn short(name: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ':' && rest.peek() == Some(&':') {
            rest.next();
            // Names of closures and blocks mean little without the function that contains them.
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
    fn names_are_shortened() {
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
    fn any_text_becomes_a_json_string() {
        for text in ["", "a \"b\" \\", "tab\tnew\nline\u{1}\u{7f}", "ümläut 🎉"] {
            let parsed: String = serde_json::from_str(&quoted(text)).expect(text);
            assert_eq!(parsed, text);
        }
    }
}
