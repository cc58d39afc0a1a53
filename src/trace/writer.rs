//! Turns events into lines of the events file and figures of the report.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf, absolute};
use std::process;
use std::time::Duration;

use nix::errno::Errno;

use super::arrows::{ArrowEnd, Arrows};
use super::chrome::ChromeFile;
use super::report::{self, ReportHead};
use super::summary::Summary;
use super::{Attempt, AttemptEnd, Event, LaneId, TraceConfig, Traced};
use crate::sys::clock::monotonic_ns;
use crate::sys::pipe::open_to_write;

/// The time for which events are collected before they are written.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// The kind of an event. Each kind has its own limit in the events file.
#[derive(Clone, Copy)]
enum Kind {
    Attempt,
    /// Starts and ends of workers, waits for memory, arrows.
    Other,
}

/// The destination of the report.
#[derive(Debug)]
enum Page {
    /// A file, replaced at each update. The path is absolute, so that the program may change its working directory.
    File(PathBuf),
    /// A stream such as a pipe, written once; `None` after that.
    Stream(Option<File>),
}

impl Page {
    fn create(path: &Path, events: Option<&ChromeFile>) -> io::Result<Self> {
        if events.is_some_and(|events| events.is_at(path)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the events are written there; the report needs a file of its own",
            ));
        }
        let Some(existing) = fs::metadata(path).ok().filter(|meta| !meta.is_file()) else {
            return absolute(path).map(Self::File);
        };
        match open_to_write(path) {
            Err(error) if error.errno() == Errno::ENXIO && existing.file_type().is_fifo() => {
                Err(io::Error::new(
                    io::ErrorKind::NotConnected,
                    "no process has opened this pipe for reading; start the reader first",
                ))
            }
            stream => Ok(Self::Stream(Some(stream?))),
        }
    }
}

/// Writes the files of a trace.
#[derive(Debug)]
pub(super) struct Writer {
    config: TraceConfig,
    label: String,
    start: u64,
    chrome: Option<ChromeFile>,
    page: Option<Page>,
    arrows: Arrows,
    summary: Summary,
    written: Traced,
    /// The number of events in the file other than attempts.
    others: u64,
    /// The number of attempts, and of other events, in the file up to the last batch.
    in_file: (u64, u64),
    /// The number of events that were dropped because the inbox was full.
    lost: u64,
    error: Option<io::Error>,
    /// An empty vector that is swapped with the inbox.
    spare: Vec<Event>,
}

impl Writer {
    pub(super) fn create(
        config: TraceConfig,
        label: &str,
        start: u64,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let chrome = match &config.events {
            None => None,
            Some(path) => {
                let file = ChromeFile::create(path, label, start);
                Some(file.map_err(|error| (path.clone(), error))?)
            }
        };
        let page = match &config.report {
            None => None,
            Some(path) => {
                let page = Page::create(path, chrome.as_ref());
                Some(page.map_err(|error| (path.clone(), error))?)
            }
        };
        let mut own = Self {
            chrome,
            page,
            label: label.to_owned(),
            start,
            arrows: Arrows::default(),
            summary: Summary::default(),
            written: Traced {
                attempts: 0,
                dropped: 0,
            },
            others: 0,
            in_file: (0, 0),
            lost: 0,
            error: None,
            spare: Vec::new(),
            config,
        };
        if !matches!(own.page, Some(Page::Stream(_))) {
            own.report()?;
        }
        Ok(own)
    }

    pub(super) fn spare(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.spare)
    }

    /// Writes the collected events. `dropped` is the number of events that were lost meanwhile.
    pub(super) fn write(&mut self, mut events: Vec<Event>, dropped: u64) {
        self.lost += dropped;
        self.written.dropped += dropped;
        for event in events.drain(..) {
            self.add(event);
            if self.chrome.as_ref().is_some_and(ChromeFile::has_full_batch) {
                self.write_batch();
            }
        }
        self.spare = events;
        self.write_batch();
    }

    /// Writes the text added since the last batch to the file.
    fn write_batch(&mut self) {
        let before = self.in_file;
        self.in_file = (self.written.attempts, self.others);
        let batch = self.in_file.0 - before.0 + self.in_file.1 - before.1;
        if let Some(chrome) = &mut self.chrome
            && let Err(error) = chrome.write(self.written.dropped, batch)
        {
            self.chrome = None;
            self.error = Some(error);
            self.in_file = before;
            (self.written.attempts, self.others) = before;
            self.written.dropped += batch;
        }
    }

    /// Returns the file if the limit of this kind permits one more event. Otherwise, or after an error, counts the
    /// event as dropped.
    fn file_for(&mut self, kind: Kind) -> Option<&mut ChromeFile> {
        let count = match kind {
            Kind::Attempt => &mut self.written.attempts,
            Kind::Other => &mut self.others,
        };
        match &mut self.chrome {
            Some(chrome) if *count < self.config.attempts => {
                *count += 1;
                Some(chrome)
            }
            _ => {
                self.written.dropped += u64::from(self.config.events.is_some());
                None
            }
        }
    }

    /// Updates the report.
    pub(super) fn finish(&mut self) -> Result<Traced, (PathBuf, io::Error)> {
        // Update the report even if writing the events file has failed.
        let reported = self.report();
        if let Some(error) = &self.error {
            let path = self.config.events.clone().unwrap_or_default();
            return Err((path, io::Error::new(error.kind(), error.to_string())));
        }
        reported?;
        Ok(self.written)
    }

    fn report(&mut self) -> Result<(), (PathBuf, io::Error)> {
        let (Some(path), Some(destination)) = (&self.config.report, &mut self.page) else {
            return Ok(());
        };
        let head = ReportHead {
            label: &self.label,
            lost: self.lost,
        };
        let page = report::page(&self.summary, &head);
        let written = match destination {
            Page::File(path) => replace(path, &page),
            // Closed after the page is written, so that a reader notices the end.
            Page::Stream(stream) => match stream.take() {
                Some(mut stream) => stream.write_all(page.as_bytes()),
                None => Ok(()),
            },
        };
        written.map_err(|error| (path.clone(), error))
    }

    fn add(&mut self, event: Event) {
        let start = self.start;
        let since = |at: u64| at.saturating_sub(start);
        match event {
            Event::Attempt(attempt) => self.attempt(attempt),
            Event::Depends { from, to } => {
                let is_stored = self.arrows.depends(from, to);
                self.written.dropped += u64::from(!is_stored);
            }
            Event::Started {
                worker,
                pid,
                from,
                at,
            } => {
                let lane = first_lane(worker);
                self.summary.started(lane, since(at));
                self.summary.workers_started += 1;
                if let Some(chrome) = self.file_for(Kind::Other) {
                    chrome.started(lane, pid, from, at);
                }
            }
            Event::Exited { worker, at, why } => {
                let lane = first_lane(worker);
                self.summary.exited(lane, since(at));
                if let Some(why) = &why {
                    self.summary.died(lane, since(at), why);
                }
                if let Some(chrome) = self.file_for(Kind::Other) {
                    chrome.exited(lane, at, why.as_deref());
                }
            }
            Event::MemoryWait {
                lane,
                from,
                at,
                bytes,
                is_granted,
            } => {
                self.summary.memory_waits.0 += 1;
                self.summary.memory_waits.1 += at.saturating_sub(from);
                if let Some(chrome) = self.file_for(Kind::Other) {
                    chrome.memory_wait(lane, from, at, bytes, is_granted);
                }
            }
        }
    }

    fn attempt(&mut self, mut attempt: Attempt) {
        let arrows = self.arrows_of(&attempt);
        if let Some(chrome) = self.file_for(Kind::Attempt) {
            chrome.attempt(&attempt);
            for (from, to) in arrows {
                if let Some(chrome) = self.file_for(Kind::Other) {
                    chrome.arrow(from, to);
                }
            }
        }
        // Computing the figures takes time, and only the report needs them.
        if self.page.is_none() {
            return;
        }
        // The summary counts times from the start.
        let since = |at: &mut u64| *at = at.saturating_sub(self.start);
        since(&mut attempt.since);
        since(&mut attempt.over);
        if let Some(ran) = &mut attempt.ran {
            since(&mut ran.placed);
            since(&mut ran.began);
            since(&mut ran.ended);
        }
        self.summary.attempt(&attempt);
    }

    /// Returns the arrows that lead to this attempt, and stores the start of arrows that lead from it.
    fn arrows_of(&mut self, attempt: &Attempt) -> Vec<(ArrowEnd, ArrowEnd)> {
        if matches!(
            attempt.end,
            AttemptEnd::Failed {
                is_retried: true,
                ..
            }
        ) {
            return Vec::new();
        }
        let Some(ran) = attempt.ran else {
            self.arrows.forget(attempt.job);
            return Vec::new();
        };
        let to = ArrowEnd {
            lane: ran.lane,
            at: ran.began,
        };
        let from = self.arrows.began(attempt.job);
        if matches!(attempt.end, AttemptEnd::Value) {
            // The time must be inside the run: the viewer attaches an arrow to the event that encloses its time.
            let at = ran.ended.saturating_sub(1).max(ran.began);
            let lane = ran.lane;
            self.arrows.ended(attempt.job, ArrowEnd { lane, at });
        } else {
            self.arrows.forget(attempt.job);
        }
        from.into_iter().map(|from| (from, to)).collect()
    }
}

#[cfg(test)]
impl Writer {
    /// Makes writes fail from now on, as on a full disk.
    pub(super) fn fill_disk(&mut self) {
        self.chrome.as_mut().expect("a file of events").fill_disk();
    }

    pub(super) fn written(&self) -> Traced {
        self.written
    }
}

/// Replaces the page at `path`. If that fails, the previous page remains.
fn replace(path: &Path, page: &str) -> io::Result<()> {
    let old = fs::metadata(path);
    if old.as_ref().is_ok_and(|old| !old.is_file()) {
        // It was a file when the trace was created. Opening a pipe would wait for a reader.
        return Err(io::Error::other("it was a file, and no longer is"));
    }
    // Replaces the target of a symbolic link, not the link.
    let exists = old.is_ok();
    let path = match &old {
        Ok(_) => fs::canonicalize(path)?,
        Err(_) => path.to_owned(),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}.part", process::id(), monotonic_ns()));
    let part = path.with_file_name(name);
    // Whether the file can only be overwritten: its folder is not writable, or the file is a mount point.
    let must_overwrite = |error: &io::Error| {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
        let kind = error.kind();
        exists && matches!(kind, PermissionDenied | ReadOnlyFilesystem | ResourceBusy)
    };
    let mut file = match File::create_new(&part) {
        Err(error) if must_overwrite(&error) => return fs::write(path, page),
        file => file?,
    };
    let written = file.write_all(page.as_bytes()).and_then(|()| {
        if let Ok(old) = old {
            file.set_permissions(old.permissions())?;
        }
        fs::rename(&part, &path)
    });
    if written.is_err() {
        // The first error is returned, not an error of this call.
        let _ = fs::remove_file(&part);
    }
    match written {
        Err(error) if must_overwrite(&error) => fs::write(path, page),
        written => written,
    }
}

/// The lane at which events of a whole worker are drawn.
fn first_lane(worker: u32) -> LaneId {
    LaneId { worker, lane: 0 }
}
