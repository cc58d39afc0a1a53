//! What becomes of events: lines of the file, figures of the report.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf, absolute};
use std::process;
use std::time::Duration;

use nix::errno::Errno;

use super::arrows::{Arrows, Spot};
use super::chrome::ChromeFile;
use super::report::{self, About};
use super::summary::Summary;
use super::{Attempt, End, Event, Place, Plan, Traced};
use crate::sys::clock::monotonic_ns;
use crate::sys::pipe::open_to_write;

/// How long events are collected before they are written.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// What an event counts as.
#[derive(Clone, Copy)]
enum Kind {
    Attempt,
    /// Starts and ends of workers, waits for memory, arrows.
    Other,
}

/// Where the page goes.
#[derive(Debug)]
enum Page {
    /// Into the file at this place, whenever it is brought up to date: wherever the program has gone by then.
    File(PathBuf),
    /// Into what takes it as it comes, such as a pipe: once, and `None` afterwards.
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
        let Some(there) = fs::metadata(path).ok().filter(|there| !there.is_file()) else {
            return absolute(path).map(Self::File);
        };
        match open_to_write(path) {
            Err(error) if error.errno() == Errno::ENXIO && there.file_type().is_fifo() => {
                Err(io::Error::new(
                    io::ErrorKind::NotConnected,
                    "nobody has opened this pipe for reading; start what reads it first",
                ))
            }
            stream => Ok(Self::Stream(Some(stream?))),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    plan: Plan,
    label: String,
    start: u64,
    chrome: Option<ChromeFile>,
    page: Option<Page>,
    arrows: Arrows,
    summary: Summary,
    written: Traced,
    /// Events in the file that are no attempts.
    others: u64,
    /// Attempts, and other events, up to the last batch.
    in_file: (u64, u64),
    /// Events that nobody took.
    lost: u64,
    error: Option<io::Error>,
    /// An empty vector, to be filled next.
    spare: Vec<Event>,
}

impl Writer {
    pub(super) fn create(
        plan: Plan,
        label: &str,
        start: u64,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let chrome = match &plan.events {
            None => None,
            Some(path) => {
                let file = ChromeFile::create(path, label, start);
                Some(file.map_err(|error| (path.clone(), error))?)
            }
        };
        let page = match &plan.report {
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
            plan,
        };
        if !matches!(own.page, Some(Page::Stream(_))) {
            own.report()?;
        }
        Ok(own)
    }

    pub(super) fn spare(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.spare)
    }

    /// Takes what was collected, and how many events were dropped beside it.
    pub(super) fn write(&mut self, mut events: Vec<Event>, dropped: u64) {
        self.lost += dropped;
        self.written.dropped += dropped;
        for event in events.drain(..) {
            self.take(event);
            if self.chrome.as_ref().is_some_and(ChromeFile::has_a_batch) {
                self.put_batch();
            }
        }
        self.spare = events;
        self.put_batch();
    }

    /// Events that were taken since the last batch go into the file.
    fn put_batch(&mut self) {
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

    /// The file, if it takes one more: as many attempts as it was given, and as many other events. What it does not take,
    /// also after an error, is counted.
    fn room(&mut self, kind: Kind) -> Option<&mut ChromeFile> {
        let had = match kind {
            Kind::Attempt => &mut self.written.attempts,
            Kind::Other => &mut self.others,
        };
        match &mut self.chrome {
            Some(chrome) if *had < self.plan.attempts => {
                *had += 1;
                Some(chrome)
            }
            _ => {
                self.written.dropped += u64::from(self.plan.events.is_some());
                None
            }
        }
    }

    /// Brings the report up to date.
    pub(super) fn finish(&mut self) -> Result<Traced, (PathBuf, io::Error)> {
        // Whatever became of the other file.
        let reported = self.report();
        if let Some(error) = &self.error {
            let path = self.plan.events.clone().unwrap_or_default();
            return Err((path, io::Error::new(error.kind(), error.to_string())));
        }
        reported?;
        Ok(self.written)
    }

    fn report(&mut self) -> Result<(), (PathBuf, io::Error)> {
        let (Some(path), Some(place)) = (&self.plan.report, &mut self.page) else {
            return Ok(());
        };
        let about = About {
            label: &self.label,
            lost: self.lost,
        };
        let page = report::page(&self.summary, &about);
        let written = match place {
            Page::File(place) => replace(place, &page),
            // Closed behind the page, so that a reader has its end.
            Page::Stream(stream) => match stream.take() {
                Some(mut stream) => stream.write_all(page.as_bytes()),
                None => Ok(()),
            },
        };
        written.map_err(|error| (path.clone(), error))
    }

    fn take(&mut self, event: Event) {
        let start = self.start;
        let since = |at: u64| at.saturating_sub(start);
        match event {
            Event::Attempt(attempt) => self.attempt(attempt),
            Event::Depends { from, to } => {
                let known = self.arrows.depends(from, to);
                self.written.dropped += u64::from(!known);
            }
            Event::Started {
                worker,
                pid,
                from,
                at,
            } => {
                let place = first(worker);
                self.summary.until(since(at));
                self.summary.lane(place);
                self.summary.workers_started += 1;
                if let Some(chrome) = self.room(Kind::Other) {
                    chrome.started(place, pid, from, at);
                }
            }
            Event::Gone { worker, at, why } => {
                let place = first(worker);
                if let Some(why) = &why {
                    self.summary.died(place, since(at), why);
                }
                if let Some(chrome) = self.room(Kind::Other) {
                    chrome.gone(place, at, why.as_deref());
                }
            }
            Event::Granted {
                place,
                from,
                at,
                bytes,
                given,
            } => {
                self.summary.memory_waits.0 += 1;
                self.summary.memory_waits.1 += at.saturating_sub(from);
                if let Some(chrome) = self.room(Kind::Other) {
                    chrome.granted(place, from, at, bytes, given);
                }
            }
        }
    }

    fn attempt(&mut self, mut attempt: Attempt) {
        let arrows = self.arrows_of(&attempt);
        if let Some(chrome) = self.room(Kind::Attempt) {
            chrome.attempt(&attempt);
            for (from, to) in arrows {
                if let Some(chrome) = self.room(Kind::Other) {
                    chrome.arrow(from, to);
                }
            }
        }
        // Figures are for the report, and each of them costs time that jobs could have.
        if self.page.is_none() {
            return;
        }
        // It counts from the start.
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

    /// The arrows that lead to this attempt; and those that lead from it have their beginning.
    fn arrows_of(&mut self, attempt: &Attempt) -> Vec<(Spot, Spot)> {
        let last = !matches!(attempt.end, End::Failed { again: true, .. });
        if !last {
            return Vec::new();
        }
        let Some(ran) = attempt.ran else {
            self.arrows.gone(attempt.job);
            return Vec::new();
        };
        let to = Spot {
            place: ran.place,
            at: ran.began,
        };
        let from = self.arrows.began(attempt.job);
        if matches!(attempt.end, End::Value) {
            // Within the run: an arrow begins at what encloses its time.
            let at = ran.ended.saturating_sub(1).max(ran.began);
            let place = ran.place;
            self.arrows.ended(attempt.job, Spot { place, at });
        } else {
            self.arrows.gone(attempt.job);
        }
        from.into_iter().map(|from| (from, to)).collect()
    }
}

#[cfg(test)]
impl Writer {
    /// From here on the disk is full.
    pub(super) fn spoil(&mut self) {
        self.chrome.as_mut().expect("a file of events").spoil();
    }

    pub(super) fn written(&self) -> Traced {
        self.written
    }
}

/// Puts a page in place of the one before, which stays as it is if that fails.
fn replace(path: &Path, page: &str) -> io::Result<()> {
    let old = fs::metadata(path);
    if old.as_ref().is_ok_and(|old| !old.is_file()) {
        // It was not so when it was made, and opening a pipe would wait for a reader.
        return Err(io::Error::other("it was a file, and is none any more"));
    }
    // What a link leads to, and not the link.
    let is_there = old.is_ok();
    let path = match &old {
        Ok(_) => fs::canonicalize(path)?,
        Err(_) => path.to_owned(),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}.part", process::id(), monotonic_ns()));
    let part = path.with_file_name(name);
    // A page that may be written in a folder that may not, or whose place is fixed: one that is mounted by itself.
    let fixed = |error: &io::Error| {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
        let kind = error.kind();
        is_there && matches!(kind, PermissionDenied | ReadOnlyFilesystem | ResourceBusy)
    };
    let mut file = match File::create_new(&part) {
        Err(error) if fixed(&error) => return fs::write(path, page),
        file => file?,
    };
    let written = file.write_all(page.as_bytes()).and_then(|()| {
        if let Ok(old) = old {
            file.set_permissions(old.permissions())?;
        }
        fs::rename(&part, &path)
    });
    if written.is_err() {
        // The first error is the one that counts.
        let _ = fs::remove_file(&part);
    }
    match written {
        Err(error) if fixed(&error) => fs::write(path, page),
        written => written,
    }
}

/// Where what concerns a whole worker is shown.
fn first(worker: u32) -> Place {
    Place { worker, lane: 0 }
}
