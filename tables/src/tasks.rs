//! Dividing files into parts while they are read: [`Tasks`].

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use memchr::memchr;

use super::cut::State;
use super::error::{Origin, Place, TableError};
use super::feed::Feed;
use super::kernels::{self, Format, NOWHERE, Spec};
use super::plan::{Plan, failed, path_bytes};
use super::run::essential;
use arenite::Array;
use arenite::engine::Job;
use arenite::kernel::Bytes;

/// A part to be read.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) origin: Origin,
    pub(super) path: Bytes,
    pub(super) spec: Spec,
    pub(super) header: Bytes,
    pub(super) data: Array<u8>,
    /// The number of bytes of all files up to the end of this part.
    pub(super) read: u64,
}

/// The parts of all files, in order. A file is cut when its parts are requested. After an error, the next file follows.
pub(super) struct Tasks<'e> {
    plan: Arc<Plan<'e>>,
    next_file: usize,
    current: Current,
    /// The number of bytes of the files before the current one.
    before: u64,
}

/// The rest of the current file.
enum Current {
    Nothing,
    Fed(Arc<Path>, Feed),
    Cuts(Cuts),
    Groups(Groups),
}

impl<'e> Tasks<'e> {
    pub(super) fn new(plan: Arc<Plan<'e>>) -> Self {
        Self {
            plan,
            next_file: 0,
            current: Current::Nothing,
            before: 0,
        }
    }

    fn open(&self, index: usize) -> Result<Current, TableError> {
        let plan = &self.plan;
        let file = &plan.files[index];
        if plan.format == Format::Parquet {
            let (rows, content) = &plan.groups[index];
            let content = match content {
                Some(content) => Some(content.clone()),
                None => plan.content(file)?,
            };
            return Ok(Current::Groups(Groups {
                file: Arc::clone(file),
                data: content.unwrap_or_else(|| plan.nothing.clone()),
                rows: rows.clone(),
                next: 0,
                first_row: 0,
                bytes: plan.lens[index],
            }));
        }
        let feed = plan.open(index)?;
        match feed.plain() {
            Some(len) if !plan.is_sandboxed() => Cuts::new(plan, file, &feed, len)
                .map(Current::Cuts)
                .map_err(|error| TableError::of_file(file, error)),
            _ => Ok(Current::Fed(Arc::clone(file), feed)),
        }
    }

    /// Returns the next part of the current file.
    fn part(&mut self) -> Result<Option<Task>, TableError> {
        let plan = &self.plan;
        match &mut self.current {
            Current::Nothing => Ok(None),
            Current::Cuts(cuts) => cuts.next(plan),
            Current::Groups(groups) => Ok(groups.next(plan)),
            Current::Fed(file, feed) => {
                let mut spec = plan.spec(feed.offset(), feed.offset());
                let block = feed.block(plan.part_bytes, spec.records());
                let begin = feed.offset();
                let block = block.map_err(|error| {
                    let text = format!("reading ended behind byte {begin}: {error}");
                    TableError::of_file(file, io::Error::new(error.kind(), text))
                })?;
                let Some(block) = block else {
                    return Ok(None);
                };
                spec.start = block.start;
                spec.end = block.start + block.bytes.len() as u64;
                spec.is_passed = true;
                spec.is_last = block.is_last;
                let data = plan.engine.from_slice(&block.bytes);
                Ok(Some(Task {
                    origin: plan.origin(file, spec.start, spec.end),
                    path: path_bytes(file),
                    spec,
                    header: Bytes::from(&feed.header),
                    data: data.map_err(|full| TableError::of_file(file, full))?,
                    read: feed.read(),
                }))
            }
        }
    }
}

impl Iterator for Tasks<'_> {
    type Item = Result<Task, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.part() {
                Ok(Some(mut task)) => {
                    task.read += self.before;
                    return Some(Ok(task));
                }
                Ok(None) => {}
                Err(error) => {
                    self.current = Current::Nothing;
                    return Some(Err(error));
                }
            }
            if self.next_file == self.plan.files.len() {
                self.current = Current::Nothing;
                return None;
            }
            self.before = self.plan.lens[..self.next_file].iter().sum();
            self.next_file += 1;
            match self.open(self.next_file - 1) {
                Ok(current) => self.current = current,
                Err(error) => {
                    self.current = Current::Nothing;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// The parts of a file that workers read directly.
struct Cuts {
    path: Arc<Path>,
    /// The file, in which the ends of lines are searched. `None` if the ends of records need a survey.
    file: Option<File>,
    header: Bytes,
    /// The position at which the next part begins.
    begin: u64,
    len: u64,
    /// The state at the beginning of the first chunk whose survey was not used yet.
    state: State,
    /// The position at which the next chunk to survey begins.
    surveyed: u64,
    /// Chunks that are being surveyed, in order.
    ahead: VecDeque<Chunk>,
    /// Whether [`Tasks`] has returned a part of this file. Even a file without rows has a part, so that its header is
    /// checked.
    is_begun: bool,
    /// The position at which the first part begins.
    first: u64,
}

struct Chunk {
    start: u64,
    end: u64,
    job: Job<[u64; 6]>,
}

impl Cuts {
    fn new(plan: &Plan<'_>, path: &Arc<Path>, feed: &Feed, len: u64) -> io::Result<Self> {
        let begin = feed.header_end();
        let len = len.max(begin);
        // If the file is one part, no survey is needed.
        let is_whole = len - begin <= plan.part_bytes as u64;
        Ok(Self {
            path: Arc::clone(path),
            file: match plan.format {
                Format::Json if !is_whole => Some(File::open(path)?),
                _ => None,
            },
            header: Bytes::from(&feed.header),
            begin,
            len,
            state: State::Outside,
            surveyed: if is_whole { len } else { begin },
            ahead: VecDeque::new(),
            is_begun: false,
            first: begin,
        })
    }

    fn next(&mut self, plan: &Plan<'_>) -> Result<Option<Task>, TableError> {
        if self.begin == self.len && (self.is_begun || self.header.is_empty()) {
            return Ok(None);
        }
        let end = match plan.format {
            Format::Csv => self.next_record(plan)?,
            Format::Json | Format::Parquet => self
                .next_line(plan.part_bytes as u64)
                .map_err(|error| TableError::of_file(&self.path, error))?,
        };
        let mut spec = plan.spec(self.begin, end);
        spec.is_last = end == self.len;
        self.is_begun = true;
        self.begin = end;
        Ok(Some(Task {
            origin: plan.origin(&self.path, spec.start, end),
            path: path_bytes(&self.path),
            spec,
            header: self.header.clone(),
            data: plan.nothing.clone(),
            read: end,
        }))
    }

    /// Returns the end of the part that begins at `begin`, according to the surveys of workers.
    fn next_record(&mut self, plan: &Plan<'_>) -> Result<u64, TableError> {
        loop {
            while self.ahead.len() < plan.ahead && self.surveyed < self.len {
                let start = self.surveyed;
                let end = self.len.min(start + plan.part_bytes as u64);
                let mut spec = plan.spec(start, end);
                spec.is_first = start == self.first;
                let args = (path_bytes(&self.path), spec);
                let job = plan
                    .engine
                    .job(kernels::survey, args)
                    .options(&essential())
                    .submit();
                self.ahead.push_back(Chunk { start, end, job });
                self.surveyed = end;
            }
            let Some(Chunk { start, end, job }) = self.ahead.pop_front() else {
                return Ok(self.len);
            };
            // Without the result of this survey, the ends of later parts are unknown, so the rest of the file is lost.
            let lost = || plan.origin(&self.path, self.begin, self.len);
            let found = job.wait().map_err(|error| failed(lost(), error))?;
            let [state, first] = [0, 1].map(|at| found[2 * self.state as usize + at]);
            let is_plausible = first == NOWHERE || (start < first && first <= end);
            self.state = State::from_number(state)
                .filter(|_| is_plausible)
                .ok_or_else(|| {
                    TableError::of_file(
                        &self.path,
                        "a worker has sent a position out of range".to_owned(),
                    )
                })?;
            // The first chunk begins where the first part begins, so its first record does not end a part.
            if first != NOWHERE && start > self.first && self.begin < first && first < self.len {
                return Ok(first);
            }
        }
    }

    /// Returns the end of the part that begins at `begin`, if records are lines.
    fn next_line(&mut self, size: u64) -> io::Result<u64> {
        let Some(file) = &self.file else {
            return Ok(self.len);
        };
        let mut at = (self.begin + size).saturating_sub(1).max(self.begin);
        let mut block = vec![0; 1 << 16];
        while at < self.len {
            let read = file.read_at(&mut block, at)?;
            if read == 0 {
                break;
            }
            if let Some(end) = memchr(b'\n', &block[..read]) {
                return Ok(self.len.min(at + end as u64 + 1));
            }
            at += read as u64;
        }
        Ok(self.len)
    }
}

/// The parts of a Parquet file.
struct Groups {
    file: Arc<Path>,
    data: Array<u8>,
    rows: Vec<u64>,
    next: usize,
    first_row: u64,
    /// The length of the file in bytes.
    bytes: u64,
}

impl Groups {
    fn next(&mut self, plan: &Plan<'_>) -> Option<Task> {
        let rows = *self.rows.get(self.next)?;
        let group = self.next as u64;
        let begin = self.first_row;
        self.next += 1;
        self.first_row = begin.saturating_add(rows);
        let all: u128 = self.rows.iter().map(|rows| u128::from(*rows)).sum();
        let read = u128::from(self.bytes) * u128::from(self.first_row) / all.max(1);
        Some(Task {
            origin: Origin {
                file: Arc::clone(&self.file),
                place: Place::RowGroup(group, begin..self.first_row),
            },
            path: path_bytes(&self.file),
            spec: plan.spec(group, group),
            header: Bytes::from(&[]),
            data: self.data.clone(),
            read: u64::try_from(read).unwrap_or(self.bytes),
        })
    }
}
