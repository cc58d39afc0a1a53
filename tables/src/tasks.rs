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
use super::kernels::{self, Format, NOWHERE, Spec, surveyed_from};
use super::plan::{Plan, failed, path_bytes};
use super::run::essential;
use arenite::Array;
use arenite::engine::Job;
use arenite::kernel::Bytes;

/// A part to be read.
pub(super) struct Task {
    pub(super) origin: Origin,
    pub(super) path: Bytes,
    pub(super) spec: Spec,
    pub(super) data: Array<u8>,
}

/// The parts of all files, in order. A file is cut when its parts are requested. After an error, the next file follows.
pub(super) struct Tasks<'e> {
    plan: Arc<Plan<'e>>,
    next_file: usize,
    current: Option<Current>,
}

/// The rest of the current file.
enum Current {
    Cuts(Cuts),
    Groups(Groups),
}

impl<'e> Tasks<'e> {
    pub(super) fn new(plan: Arc<Plan<'e>>) -> Self {
        Self {
            plan,
            next_file: 0,
            current: None,
        }
    }

    fn open(&self, index: usize) -> Result<Current, TableError> {
        let plan = &self.plan;
        let file = &plan.files[index];
        let len = plan.len(file)?;
        if plan.format == Format::Parquet {
            return Ok(Current::Groups(Groups {
                file: Arc::clone(file),
                data: plan.content(file, 0, len)?,
                rows: plan.groups[index].clone(),
                next: 0,
                first_row: 0,
            }));
        }
        Cuts::new(plan, file, len)
            .map(Current::Cuts)
            .map_err(|error| TableError::of_file(file, error))
    }

    /// Returns the next part of the current file.
    fn part(&mut self) -> Result<Option<Task>, TableError> {
        match &mut self.current {
            None => Ok(None),
            Some(Current::Cuts(cuts)) => cuts.next(&self.plan),
            Some(Current::Groups(groups)) => Ok(groups.next(&self.plan)),
        }
    }
}

impl Iterator for Tasks<'_> {
    type Item = Result<Task, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.part() {
                Ok(None) => self.current = None,
                Ok(Some(task)) => return Some(Ok(task)),
                Err(error) => {
                    self.current = None;
                    return Some(Err(error));
                }
            }
            if self.next_file == self.plan.files.len() {
                return None;
            }
            self.next_file += 1;
            match self.open(self.next_file - 1) {
                Ok(current) => self.current = Some(current),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The parts of a file of records.
struct Cuts {
    path: Arc<Path>,
    /// The file, in which the ends of lines are searched. `None` if the ends of records need a survey.
    file: Option<File>,
    /// The position at which the next part begins.
    begin: u64,
    /// The end of the header, which is in the first part.
    header_end: u64,
    len: u64,
    /// The state at the beginning of the first chunk whose survey was not used yet.
    state: State,
    /// The position at which the next chunk to survey begins.
    surveyed: u64,
    /// Chunks that are being surveyed, in order.
    ahead: VecDeque<Chunk>,
}

struct Chunk {
    start: u64,
    end: u64,
    job: Job<[u64; 6]>,
}

impl Cuts {
    fn new(plan: &Plan<'_>, path: &Arc<Path>, len: u64) -> io::Result<Self> {
        // If the file is one part, no survey is needed.
        let is_whole = len <= plan.part_bytes;
        let header_end = match plan.has_header && !is_whole {
            true => plan.header_end(path, len)?,
            false => 0,
        };
        Ok(Self {
            path: Arc::clone(path),
            file: match plan.format {
                Format::Json if !is_whole => Some(File::open(path)?),
                _ => None,
            },
            begin: 0,
            header_end,
            len,
            state: State::Outside,
            surveyed: if is_whole { len } else { 0 },
            ahead: VecDeque::new(),
        })
    }

    fn next(&mut self, plan: &Plan<'_>) -> Result<Option<Task>, TableError> {
        if self.begin == self.len {
            return Ok(None);
        }
        let end = match plan.format {
            Format::Csv => self.next_record(plan)?,
            Format::Json | Format::Parquet => self
                .next_line(plan.part_bytes)
                .map_err(|error| TableError::of_file(&self.path, error))?,
        };
        let spec = plan.spec(self.begin, end, self.len);
        self.begin = end;
        Ok(Some(Task {
            origin: self.origin(spec.start, end),
            path: path_bytes(&self.path),
            spec,
            data: plan.content(&self.path, spec.start, end)?,
        }))
    }

    fn origin(&self, start: u64, end: u64) -> Origin {
        Origin {
            file: Arc::clone(&self.path),
            place: Place::Bytes(start..end),
        }
    }

    /// Returns the end of the part that begins at `begin`, according to the surveys of workers.
    fn next_record(&mut self, plan: &Plan<'_>) -> Result<u64, TableError> {
        loop {
            while self.ahead.len() < plan.ahead && self.surveyed < self.len {
                let start = self.surveyed;
                let end = self.len.min(start + plan.part_bytes);
                let spec = plan.spec(start, end, self.len);
                let data = plan.content(&self.path, surveyed_from(&spec), end)?;
                let args = (path_bytes(&self.path), spec, data);
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
            let lost = || self.origin(self.begin, self.len);
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
            // The first record of the first chunk does not end a part.
            let is_inside = self.begin < first && self.header_end <= first && first < self.len;
            if first != NOWHERE && start > 0 && is_inside {
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
}

impl Groups {
    fn next(&mut self, plan: &Plan<'_>) -> Option<Task> {
        let rows = *self.rows.get(self.next)?;
        let group = self.next as u64;
        let begin = self.first_row;
        self.next += 1;
        self.first_row = begin.saturating_add(rows);
        Some(Task {
            origin: Origin {
                file: Arc::clone(&self.file),
                place: Place::RowGroup(group, begin..self.first_row),
            },
            path: path_bytes(&self.file),
            spec: plan.spec(group, group, group),
            data: self.data.clone(),
        })
    }
}
