//! What one worker prints: read from its pipes, cut into lines, given to the job that printed it.
//!
//! Used by the monitor alone. Bounded in every direction: bytes read in one go, the length of a line, lines
//! per second, and lines that wait to learn whose they are.

mod limit;
mod split;
mod watched;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use self::limit::Limit;
use self::split::{Piece, Splitter};
pub(super) use self::watched::{Outputs, STDERR, STDOUT};
use super::causes;
use super::log::{LogLevel, LogLine, LogSource};
use super::plain;
use super::words::{LastWords, SOME_JOB};
use crate::link::Phase;
use crate::sys::pipe::{self, Found};
use crate::worker::frame;

/// Bytes that are read at once.
pub(super) const CHUNK: usize = 64 * 1024;
/// Reads of one stream before somebody else has a turn.
const READS: usize = 4;
/// The most that is read of what a dead worker has left in a pipe: others may go on writing to it.
const REST: usize = 2 << 20;
/// Bytes of lines that may wait to learn whose they are.
const WAITING: usize = 256 * 1024;
/// Lines that are kept for the case that the worker dies, and the most of each.
const TAIL: usize = 16;
const TAIL_LINE: usize = 600;

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Stdout,
    Stderr,
}

/// The output of one worker, as long as its process lives.
#[derive(Debug)]
pub(super) struct Output {
    label: Arc<str>,
    worker: u32,
    streams: [Stream; 2],
    limit: Limit,
    /// The last lines of jobs that have not ended, for the case that one ends the worker.
    tail: VecDeque<(Which, Vec<u8>)>,
    /// Bytes of the first allocation that they say has failed.
    failed_allocation: Option<u64>,
    /// Of the last job that was ever submitted: no other can have printed anything.
    last_job: u64,
    /// The job that the lane had when it was last looked at.
    running: Option<u64>,
    /// The worker has several lanes, and there are no boundaries: nobody knows whose a line is.
    shared: bool,
}

#[derive(Debug)]
struct Stream {
    pipe: Option<OwnedFd>,
    splitter: Splitter,
    /// Lines since the last boundary: a later one says whose they are.
    waiting: Vec<LogLine>,
    bytes: usize,
}

/// What is known after a look at a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Next {
    /// Wait until the pipe is readable again.
    Wait,
    /// Look again soon: there are lines of which nobody knows yet whose they are.
    Soon,
    /// The stream is over; its pipe is closed.
    Over,
}

impl Output {
    pub(super) fn new(label: Arc<str>, worker: u32, pipes: [OwnedFd; 2], now: Instant) -> Self {
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
            limit: Limit::new(now),
            tail: VecDeque::new(),
            failed_allocation: None,
            last_job: 0,
            running: None,
            shared: false,
        }
    }

    /// The worker has several lanes.
    pub(super) fn shared(self) -> Self {
        let shared = true;
        Self { shared, ..self }
    }

    /// The pipe of a stream, while it is open.
    pub(super) fn pipe(&self, which: Which) -> Option<BorrowedFd<'_>> {
        self.streams[which as usize].pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads what there is, up to a bound, and passes on the lines of which it is known whose they are.
    ///
    /// A job that prints ends with a boundary, which is in the pipe before the recorder says that the lane is at
    /// something else. So when nothing has come since the recorder was asked, what stands behind the last boundary
    /// is of the job that it named.
    pub(super) fn read(
        &mut self,
        which: Which,
        phase: impl Fn() -> Phase,
        last_job: impl Fn() -> u64,
        buffer: &mut [u8],
        lines: &mut Vec<LogLine>,
    ) -> Next {
        for _ in 0..READS {
            let now = phase();
            self.running = now.job();
            match self.read_once(which, &last_job, buffer, lines) {
                Found::Bytes(_) => {}
                Found::Nothing => {
                    self.settle(which, now, lines);
                    return Next::Wait;
                }
                Found::End => {
                    self.settle(which, phase(), lines);
                    self.streams[which as usize].pipe = None;
                    return Next::Over;
                }
            }
        }
        match self.streams[which as usize].waiting.is_empty() {
            true => Next::Wait,
            false => Next::Soon,
        }
    }

    /// What is in a pipe, as far as the buffer takes it.
    fn read_once(
        &mut self,
        which: Which,
        last_job: impl Fn() -> u64,
        buffer: &mut [u8],
        lines: &mut Vec<LogLine>,
    ) -> Found {
        let Some(pipe) = self.pipe(which) else {
            return Found::End;
        };
        // Only a bad descriptor fails, and then there is nothing more to read.
        let found = pipe::read(pipe, buffer).unwrap_or(Found::End);
        if let Found::Bytes(bytes) = found {
            // Asked behind them: whoever printed them had been submitted.
            self.last_job = last_job();
            self.feed(which, &buffer[..bytes], lines);
        }
        found
    }

    /// What came out of a pipe.
    fn feed(&mut self, which: Which, bytes: &[u8], lines: &mut Vec<LogLine>) {
        let now = Instant::now();
        let mut splitter = std::mem::take(&mut self.streams[which as usize].splitter);
        splitter.feed(bytes, |piece| self.take(which, &piece, now, lines));
        self.streams[which as usize].splitter = splitter;
    }

    fn take(&mut self, which: Which, piece: &Piece<'_>, now: Instant, lines: &mut Vec<LogLine>) {
        match *piece {
            Piece::Line { bytes, cut } => self.line(which, bytes, cut, now, lines),
            Piece::Frame {
                kind: frame::BOUNDARY,
                content,
            } => {
                let job = content.try_into().map(u64::from_le_bytes);
                self.hand_over(which, job.ok(), lines);
                self.forget(which);
            }
            Piece::Frame {
                kind: frame::EVENT,
                content,
            } => self.event(which, content, now, lines),
            // Of no kind that there is: a worker that makes things up.
            Piece::Frame { .. } => {}
        }
    }

    fn line(
        &mut self,
        which: Which,
        bytes: &[u8],
        cut: u64,
        now: Instant,
        lines: &mut Vec<LogLine>,
    ) {
        if which == Which::Stderr && self.failed_allocation.is_none() {
            self.failed_allocation = causes::failed_allocation(bytes);
        }
        self.remember(which, bytes);
        self.report(now, false, lines);
        if !self.limit.passes(bytes.len() as u64, cut, now) {
            return;
        }
        let line = LogLine {
            label: Arc::clone(&self.label),
            worker: self.worker,
            job: None,
            source: match which {
                Which::Stdout => LogSource::Stdout,
                Which::Stderr => LogSource::Stderr,
            },
            level: None,
            target: None,
            text: plain::line(bytes, split::LONGEST, cut),
        };
        self.wait(which, line, lines);
    }

    /// An event, which knows its job.
    fn event(&mut self, which: Which, content: &[u8], now: Instant, lines: &mut Vec<LogLine>) {
        let Some((job, level, target, text)) = frame::read_event(content) else {
            return;
        };
        let Some(level) = LogLevel::of(level) else {
            return;
        };
        let bytes = text.len() + target.len();
        let text = plain::line(text, split::LONGEST, 0);
        self.remember(which, format!("{level} {text}").as_bytes());
        self.report(now, false, lines);
        if !self.limit.passes(bytes as u64, 0, now) {
            return;
        }
        let line = LogLine {
            label: Arc::clone(&self.label),
            worker: self.worker,
            job: self.known(Some(job)),
            source: LogSource::Event,
            level: Some(level),
            target: Some(plain::line(target, split::LONGEST, 0)),
            text,
        };
        self.wait(which, line, lines);
    }

    /// A job that was submitted.
    fn known(&self, job: Option<u64>) -> Option<u64> {
        job.filter(|job| (1..=self.last_job).contains(job))
    }

    /// One of the last lines, should it be one.
    fn remember(&mut self, which: Which, line: &[u8]) {
        let mut last = match self.tail.len() {
            TAIL => self.tail.pop_front().map_or_else(Vec::new, |last| last.1),
            _ => Vec::new(),
        };
        last.clear();
        last.extend(&line[..line.len().min(TAIL_LINE)]);
        self.tail.push_back((which, last));
    }

    /// A line in its place among those of its stream.
    fn wait(&mut self, which: Which, line: LogLine, lines: &mut Vec<LogLine>) {
        let stream = &mut self.streams[which as usize];
        stream.bytes += line.size();
        stream.waiting.push(line);
        if stream.bytes > WAITING {
            // Only a flood gets here, and that is most likely the running job's.
            self.hand_over(which, self.running, lines);
        }
    }

    /// The lines that wait are this job's, if there can be such a job.
    fn hand_over(&mut self, which: Which, job: Option<u64>, lines: &mut Vec<LogLine>) {
        let job = self.known(job);
        let stream = &mut self.streams[which as usize];
        stream.bytes = 0;
        lines.extend(stream.waiting.drain(..).map(|line| match line.source {
            LogSource::Event => line,
            _ => LogLine { job, ..line },
        }));
    }

    /// Nothing is left in the pipe, and the lane is at this: what waits belongs to it. A job that is being answered has left its
    /// boundary, so that is nobody's.
    fn settle(&mut self, which: Which, phase: Phase, lines: &mut Vec<LogLine>) {
        let job = match phase {
            Phase::Publishing(_) => None,
            phase => phase.job(),
        };
        self.hand_over(which, job, lines);
        if phase == Phase::Idle {
            self.forget(which);
        }
    }

    /// What was said belongs to a job that is over, which it did not end.
    fn forget(&mut self, which: Which) {
        self.tail.retain(|(of, _)| *of != which);
        if which == Which::Stderr {
            self.failed_allocation = None;
        }
    }

    /// When there is something to say about lines that were dropped.
    pub(super) fn due(&self) -> Option<Instant> {
        self.limit.due()
    }

    /// Says what was dropped, if it is time.
    pub(super) fn report(&mut self, now: Instant, last: bool, lines: &mut Vec<LogLine>) {
        if let Some(text) = self.limit.report(now, last) {
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

    /// The exit of the worker is confirmed, its lane was at `phase`: reads the rest, passes it on, and tells
    /// what it said last.
    pub(super) fn finish(
        mut self,
        phase: Phase,
        last_job: u64,
        buffer: &mut [u8],
        lines: &mut Vec<LogLine>,
    ) -> LastWords {
        self.running = phase.job();
        for which in [Which::Stdout, Which::Stderr] {
            // Whoever else holds the pipe may write for ever.
            for _ in 0..REST / CHUNK {
                let Found::Bytes(_) = self.read_once(which, || last_job, buffer, lines) else {
                    break;
                };
            }
            let mut splitter = std::mem::take(&mut self.streams[which as usize].splitter);
            splitter.finish(|piece| self.take(which, &piece, Instant::now(), lines));
            self.settle(which, phase, lines);
        }
        self.report(Instant::now(), true, lines);
        let mut words = LastWords::default();
        words.failed_allocation = self.failed_allocation;
        for (_, line) in &self.tail {
            let job = if self.shared {
                SOME_JOB
            } else {
                phase.job().unwrap_or(0)
            };
            words.push(job, line);
        }
        words
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
