//! The output of one worker: reads its pipes, splits the bytes into lines, and attributes the lines to jobs.
//!
//! Used only by the monitor. All amounts are bounded: bytes per read, bytes per line, lines per second, and lines that
//! wait until their job is known.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use super::last_words::{LastWords, UNKNOWN_JOB};
use super::log_line::{LogLevel, LogLine, LogSource};
use super::rate_cap::RateCap;
use super::split::{self, Piece, Splitter};
use super::traceback::{HEAD, Traceback};
use crate::link::Phase;
use crate::supervisor::exit_causes;
use crate::sys::pipe::{self, Found};
use crate::trace::escape;
use crate::worker::frame;

/// Bytes per read.
pub(in crate::supervisor) const CHUNK: usize = 64 * 1024;
/// Number of consecutive reads of one stream, after which other streams are read.
const READS: usize = 4;
/// Maximum number of bytes that are read from a pipe of a dead worker: other processes may still write to it.
const REST: usize = 2 << 20;
/// Maximum number of bytes of lines that wait until their job is known.
const WAITING: usize = 256 * 1024;
/// Maximum number of lines that are retained in case the worker dies.
const TAIL: usize = 16;
/// Maximum number of bytes of each line that is retained in case the worker dies.
const TAIL_LINE: usize = 600;

/// One of the two streams of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum StreamKind {
    Stdout,
    Stderr,
}

/// The output of one worker while its process lives.
#[derive(Debug)]
pub(in crate::supervisor) struct WorkerOutput {
    label: Arc<str>,
    worker: u32,
    streams: [Stream; 2],
    rate_cap: RateCap,
    /// The last lines of jobs that have not ended, in case one of these jobs ends the worker.
    tail: VecDeque<(StreamKind, Vec<u8>)>,
    /// A traceback of these jobs. Stored separately, because its beginning is more informative than its end.
    traceback: Traceback,
    /// The number of lines of `tail` that were printed before the traceback.
    before_traceback: usize,
    /// The size of the first failed allocation that these jobs printed, in bytes.
    failed_allocation: Option<u64>,
    /// Whether OpenBLAS printed for these jobs that it got no memory, after which it ends the process.
    blas_gave_up: bool,
    /// The number of the last submitted job. A later job cannot have printed anything.
    last_job: u64,
    /// The job of the lane at the last read.
    running: Option<u64>,
    /// Whether the worker has several lanes: then there are no boundaries, and lines are not attributed to jobs.
    has_several_lanes: bool,
}

#[derive(Debug)]
struct Stream {
    pipe: Option<OwnedFd>,
    splitter: Splitter,
    /// Lines since the last boundary. The next boundary names their job.
    waiting: Vec<LogLine>,
    bytes: usize,
}

/// Result of reading a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(in crate::supervisor) enum ReadResult {
    /// The stream has to be read when the pipe is readable again.
    Wait,
    /// The stream has to be read again soon: lines wait until their job is known.
    Soon,
    /// The stream has ended; its pipe is closed.
    Over,
}

impl WorkerOutput {
    pub(in crate::supervisor) fn new(
        label: Arc<str>,
        worker: u32,
        pipes: [OwnedFd; 2],
        has_several_lanes: bool,
        now: Instant,
    ) -> Self {
        let stream = |pipe| Stream {
            pipe: Some(pipe),
            splitter: Splitter::default(),
            waiting: Vec::new(),
            bytes: 0,
        };
        Self {
            label,
            worker,
            streams: pipes.map(stream),
            rate_cap: RateCap::new(now),
            tail: VecDeque::new(),
            traceback: Traceback::default(),
            before_traceback: 0,
            failed_allocation: None,
            blas_gave_up: false,
            last_job: 0,
            running: None,
            has_several_lanes,
        }
    }

    /// Returns the pipe of a stream, if it is open.
    pub(in crate::supervisor) fn pipe(&self, which: StreamKind) -> Option<BorrowedFd<'_>> {
        self.streams[which as usize].pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads a stream up to a limit. Appends the lines whose job is known to `lines`.
    ///
    /// A job that prints ends with a boundary, which is in the pipe before the recorder reports another phase. So if
    /// nothing has arrived since the recorder was read, then the lines after the last boundary belong to the job that
    /// the recorder has named.
    pub(in crate::supervisor) fn read(
        &mut self,
        which: StreamKind,
        phase: impl Fn() -> Phase,
        last_job: impl Fn() -> u64,
        buffer: &mut [u8],
        lines: &mut Vec<LogLine>,
    ) -> ReadResult {
        for _ in 0..READS {
            let now = phase();
            self.running = now.job();
            match self.read_once(which, &last_job, buffer, lines) {
                Found::Bytes(_) => {}
                Found::Nothing => {
                    self.attribute_rest(which, now, lines);
                    return ReadResult::Wait;
                }
                Found::End => {
                    self.attribute_rest(which, phase(), lines);
                    self.streams[which as usize].pipe = None;
                    return ReadResult::Over;
                }
            }
        }
        match self.streams[which as usize].waiting.is_empty() {
            true => ReadResult::Wait,
            false => ReadResult::Soon,
        }
    }

    /// Reads once into `buffer`.
    fn read_once(
        &mut self,
        which: StreamKind,
        last_job: impl Fn() -> u64,
        buffer: &mut [u8],
        lines: &mut Vec<LogLine>,
    ) -> Found {
        let Some(pipe) = self.pipe(which) else {
            return Found::End;
        };
        // Reading fails only for a bad descriptor, and then there is nothing more to read.
        let found = pipe::read(pipe, buffer).unwrap_or(Found::End);
        if let Found::Bytes(bytes) = found {
            // Read after the bytes: the job that printed them was submitted earlier.
            self.last_job = last_job();
            self.feed(which, &buffer[..bytes], lines);
        }
        found
    }

    /// Splits bytes of a pipe.
    fn feed(&mut self, which: StreamKind, bytes: &[u8], lines: &mut Vec<LogLine>) {
        let now = Instant::now();
        let mut splitter = std::mem::take(&mut self.streams[which as usize].splitter);
        splitter.feed(bytes, |piece| self.take(which, &piece, now, lines));
        self.streams[which as usize].splitter = splitter;
    }

    fn take(
        &mut self,
        which: StreamKind,
        piece: &Piece<'_>,
        now: Instant,
        lines: &mut Vec<LogLine>,
    ) {
        match *piece {
            Piece::Line { bytes, cut } => self.line(which, bytes, cut, now, lines),
            Piece::Frame {
                kind: frame::BOUNDARY,
                content,
            } => {
                let job = content.try_into().map(u64::from_le_bytes);
                self.attribute(which, job.ok(), lines);
                self.forget(which);
            }
            Piece::Frame {
                kind: frame::EVENT,
                content,
            } => self.event(which, content, now, lines),
            // A frame of an unknown kind breaks the protocol, and is dropped.
            Piece::Frame { .. } => {}
        }
    }

    fn line(
        &mut self,
        which: StreamKind,
        bytes: &[u8],
        cut: u64,
        now: Instant,
        lines: &mut Vec<LogLine>,
    ) {
        if which == StreamKind::Stderr {
            if self.failed_allocation.is_none() {
                self.failed_allocation = exit_causes::failed_allocation(bytes);
            }
            self.blas_gave_up |= exit_causes::blas_gave_up(bytes);
        }
        self.remember(which, bytes);
        self.report(now, false, lines);
        if !self.rate_cap.passes(bytes.len() as u64, cut, now) {
            return;
        }
        let line = LogLine {
            label: Arc::clone(&self.label),
            worker: self.worker,
            job: None,
            source: match which {
                StreamKind::Stdout => LogSource::Stdout,
                StreamKind::Stderr => LogSource::Stderr,
            },
            level: None,
            target: None,
            text: escape::escape_line(bytes, split::LONGEST, cut),
        };
        self.add_waiting(which, line, lines);
    }

    /// Handles an event, which names its job.
    fn event(&mut self, which: StreamKind, content: &[u8], now: Instant, lines: &mut Vec<LogLine>) {
        let Some((job, level, target, text)) = frame::read_event(content) else {
            return;
        };
        let Some(level) = LogLevel::of(level) else {
            return;
        };
        let bytes = text.len() + target.len();
        let text = escape::escape_line(text, split::LONGEST, 0);
        self.remember(which, format!("{level} {text}").as_bytes());
        self.report(now, false, lines);
        if !self.rate_cap.passes(bytes as u64, 0, now) {
            return;
        }
        let line = LogLine {
            label: Arc::clone(&self.label),
            worker: self.worker,
            job: self.submitted(Some(job)),
            source: LogSource::Event,
            level: Some(level),
            target: Some(escape::escape_line(target, split::LONGEST, 0)),
            text,
        };
        self.add_waiting(which, line, lines);
    }

    /// Returns `job` if that job was submitted.
    fn submitted(&self, job: Option<u64>) -> Option<u64> {
        job.filter(|job| (1..=self.last_job).contains(job))
    }

    /// Stores a line in case the worker dies soon.
    fn remember(&mut self, which: StreamKind, line: &[u8]) {
        let line = &line[..line.len().min(TAIL_LINE)];
        let is_error = which == StreamKind::Stderr;
        if is_error && self.traceback.begins_stack(line) {
            let mut head = self.tail.len();
            let is_of_it = |at: usize| self.tail[at].0 == which && self.tail.len() - at <= HEAD;
            while head > 0 && is_of_it(head - 1) {
                head -= 1;
            }
            let head = self.tail.split_off(head).into_iter();
            self.traceback.begin_stack(head.map(|(_, line)| line));
        }
        if is_error && self.traceback.feed(line) {
            self.before_traceback = self.tail.len();
            return;
        }
        let mut last = match self.tail.len() {
            TAIL => {
                self.before_traceback = self.before_traceback.saturating_sub(1);
                self.tail.pop_front().map_or_else(Vec::new, |last| last.1)
            }
            _ => Vec::new(),
        };
        last.clear();
        last.extend(line);
        self.tail.push_back((which, last));
    }

    /// Adds a line to the waiting lines of its stream.
    fn add_waiting(&mut self, which: StreamKind, line: LogLine, lines: &mut Vec<LogLine>) {
        let stream = &mut self.streams[which as usize];
        stream.bytes += line.size();
        stream.waiting.push(line);
        if stream.bytes > WAITING {
            // Only a flood reaches the limit, most likely of the running job.
            self.attribute(which, self.running, lines);
        }
    }

    /// Attributes all waiting lines to the running job, because no boundary has arrived that names their job.
    pub(in crate::supervisor) fn attribute_waiting(&mut self, lines: &mut Vec<LogLine>) {
        for which in [StreamKind::Stdout, StreamKind::Stderr] {
            self.attribute(which, self.running, lines);
        }
    }

    /// Attributes the waiting lines to this job, if it was submitted.
    fn attribute(&mut self, which: StreamKind, job: Option<u64>, lines: &mut Vec<LogLine>) {
        let job = self.submitted(job);
        let stream = &mut self.streams[which as usize];
        stream.bytes = 0;
        lines.extend(stream.waiting.drain(..).map(|line| match line.source {
            LogSource::Event => line,
            _ => LogLine { job, ..line },
        }));
    }

    /// Attributes the waiting lines to the lane's job. Called when the pipe is empty. A job that is being answered has
    /// written its boundary, so later lines belong to no job.
    fn attribute_rest(&mut self, which: StreamKind, phase: Phase, lines: &mut Vec<LogLine>) {
        let job = match phase {
            Phase::Publishing(_) => None,
            phase => phase.job(),
        };
        self.attribute(which, job, lines);
        if phase == Phase::Idle {
            self.forget(which);
        }
    }

    /// Drops the last lines: their job has ended without ending the worker.
    fn forget(&mut self, which: StreamKind) {
        let before = self.tail.iter().take(self.before_traceback);
        self.before_traceback = before.filter(|(of, _)| *of != which).count();
        self.tail.retain(|(of, _)| *of != which);
        if which == StreamKind::Stderr {
            self.traceback = Traceback::default();
            self.failed_allocation = None;
            self.blas_gave_up = false;
        }
    }

    /// Returns the time when dropped lines have to be reported.
    pub(in crate::supervisor) fn due(&self) -> Option<Instant> {
        self.rate_cap.due()
    }

    /// Reports dropped lines, if that is due.
    pub(in crate::supervisor) fn report(
        &mut self,
        now: Instant,
        last: bool,
        lines: &mut Vec<LogLine>,
    ) {
        if let Some(text) = self.rate_cap.report(now, last) {
            lines.push(LogLine {
                label: Arc::clone(&self.label),
                worker: self.worker,
                job: None,
                source: LogSource::Notice,
                level: Some(LogLevel::Warn),
                target: None,
                text,
            });
        }
    }

    /// Reads the rest of the output after the exit of the worker is confirmed. `phase` is the last phase of its lane.
    /// Returns the last lines.
    pub(in crate::supervisor) fn finish(
        mut self,
        phase: Phase,
        last_job: u64,
        buffer: &mut [u8],
        lines: &mut Vec<LogLine>,
    ) -> LastWords {
        self.running = phase.job();
        for which in [StreamKind::Stdout, StreamKind::Stderr] {
            // Another process with the pipe may write endlessly.
            for _ in 0..REST / CHUNK {
                let Found::Bytes(_) = self.read_once(which, || last_job, buffer, lines) else {
                    break;
                };
            }
            let mut splitter = std::mem::take(&mut self.streams[which as usize].splitter);
            splitter.finish(|piece| self.take(which, &piece, Instant::now(), lines));
            self.attribute_rest(which, phase, lines);
        }
        self.report(Instant::now(), true, lines);
        let mut words = LastWords::default();
        words.failed_allocation = self.failed_allocation;
        words.blas_gave_up = self.blas_gave_up;
        let job = if self.has_several_lanes {
            UNKNOWN_JOB
        } else {
            phase.job().unwrap_or(0)
        };
        let lines: Vec<_> = self.tail.iter().map(|(_, line)| line).collect();
        let (before, after) = lines.split_at(self.before_traceback);
        before.iter().for_each(|line| words.push(job, line, false));
        self.traceback
            .lines()
            .for_each(|line| words.push(job, &line, true));
        after.iter().for_each(|line| words.push(job, line, false));
        words
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "tests.rs"]
mod tests;
