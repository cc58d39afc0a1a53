//! `--jobs -`: a co-process that reads jobs from stdin and answers them on stdout, one line of JSON for each.
//!
//! ```text
//! stdin ── reader ── Feed ──┬─ caller 1 ─┬── stdout
//!                           ├─ …         │   a line per job, as it ends
//!                           └─ caller N ─┘
//! ```
//!
//! A caller takes one line, has a worker make the results, writes them, prints the answer, and only then takes the next
//! line. So the number of callers bounds the jobs in flight. While stdout is full all callers wait, and stdin is not
//! read beyond one line and one buffer.
//!
//! How it ends:
//! 1. At the end of stdin, the callers finish their jobs and find no further line.
//! 2. At the first signal the feed closes: as above, but a line that no caller has taken is dropped. The reader may
//!    stay blocked in its read; it has nothing to clean up and ends with the program.
//! 3. If stdout has no reader, or at the second signal, the program ends at once: [`Stop::exit_at_once`] removes the
//!    temporary file.

mod feed;
mod job;
mod room;

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Builder};

use serde::Serialize;
use serde_json::Value;

use super::args::{self, ResizeArgs};
use super::output::{self, Bounds, Missing, Output, Writer};
use feed::{Feed, Line};
use job::{Asked, Job};
use room::Room;

use crate::batch::inputs;
use crate::batch::plan::Name;
use crate::batch::plan::{Item, Task};
use crate::batch::pool::{self, Makers, Refused};
use crate::batch::printer::{FileLine, Printer};
use crate::batch::stop::Stop;
use crate::batch::{Fault, Outcome, Written};
use crate::folder::{Entry, Identity, Stamp, identity};
use crate::text::{json_line, reason, show_path};

/// Answers jobs until stdin ends. Returns the exit code, or the reason why nothing was started.
pub(super) fn run(args: &ResizeArgs, stop: &Stop, printer: &mut Printer) -> Result<u8, String> {
    let engine = args::settings_of_jobs(args)?;
    let mut writer = Writer::new(stop);
    let bounds = match &args.out {
        Some(folder) => Some(Bounds::create(folder, Missing::IsCreated, &mut writer)?),
        None => None,
    };
    let makers = Makers::start(&engine, engine.workers, true)?;
    printer.confined(makers.confinement());
    let callers = Callers {
        room: Room::new(makers.budget()),
        makers,
        root: args.out.as_deref(),
        output: Mutex::new(Writing {
            bounds,
            writer,
            made: HashMap::new(),
        }),
        defaults: args,
        stop,
    };
    let feed = Arc::new(Feed::default());
    let (notified, first_signal) = channel();
    stop.begin_jobs(printer.is_quiet(), notified);
    // This thread ends when `end_work` drops the sender.
    spawn(&feed, move |feed| {
        first_signal.iter().for_each(|()| feed.close())
    })?;
    spawn(&feed, |feed| feed.read(io::stdin().lock()))?;
    thread::scope(|threads| {
        let answer = || {
            while let Some(line) = feed.take() {
                callers.answer(line);
            }
        };
        // If a thread cannot be started, fewer callers suffice. This thread is the last caller.
        for _ in 1..callers.makers.depth() {
            let _ = Builder::new().spawn_scoped(threads, answer);
        }
        answer();
    });
    Ok(match (stop.end_work(), feed.take_failure()) {
        (Some(code), _) => {
            printer.error("interrupted: each job that was begun is answered");
            code
        }
        (None, Some(error)) => {
            printer.error(&format!("stdin: {}", reason(&error)));
            1
        }
        (None, None) => 0,
    })
}

/// Starts a thread that is not joined, because it may be blocked in a read when the program ends.
fn spawn(feed: &Arc<Feed>, work: impl FnOnce(&Feed) + Send + 'static) -> Result<(), String> {
    let feed = Arc::clone(feed);
    let thread = Builder::new().spawn(move || work(&feed));
    let sentence = |error| format!("cannot start a thread: {}", reason(&error));
    thread.map(drop).map_err(sentence)
}

/// State that the callers share.
struct Callers<'a> {
    makers: Makers<'a>,
    room: Room,
    /// The folder below which all results must be, if any.
    root: Option<&'a Path>,
    output: Mutex<Writing>,
    defaults: &'a ResizeArgs,
    stop: &'a Stop,
}

/// Writes results, one at a time: a signal removes only one temporary file.
struct Writing {
    bounds: Option<Bounds>,
    writer: Writer,
    /// The results so far, which later results may replace. Linux reuses the inode of a removed file, so the map has no
    /// more entries than there are files.
    made: HashMap<Identity, Stamp>,
}

/// The answer to a job.
#[derive(Serialize)]
struct Answer<'a> {
    id: &'a Value,
    line: u64,
    #[serde(flatten)]
    file: FileLine<'a>,
}

impl Callers<'_> {
    /// Does the job of a line and prints its answer.
    fn answer(&self, line: Line) {
        let Job { id, input, asked } = Job::read(line.text.as_deref(), self.defaults);
        let mut item = Item {
            input,
            is_in_shard: true,
            task: Err(Fault::missing()),
        };
        let outcome = asked.and_then(|asked| {
            let task = self.plan(&item.input, &asked)?;
            let outcome = self.make(&item.input, &task, &asked);
            item.task = Ok(task);
            outcome
        });
        let outcome = outcome.unwrap_or_else(Outcome::Failed);
        self.print(&Answer {
            id: &id,
            line: line.number,
            file: FileLine::of(&item, &outcome),
        });
    }

    /// Reads the beginning of the input and names the result.
    fn plan(&self, input: &Path, asked: &Asked) -> Result<Task, Fault> {
        let output = self.output(&asked.output)?;
        let (found, stamp) = inputs::picture(input, self.defaults.run.raw)?;
        check_own(&output, &stamp)?;
        let format = asked.format.unwrap_or(found.default_output());
        let file = Path::new(input.file_name().unwrap_or_default());
        let several = asked.template.as_ref().map(|out| out.fill(file, format));
        let relative = several.as_ref().map(|name| name.path(None));
        let relative = relative.unwrap_or_else(|| asked.output.clone());
        let output = self.output(&relative)?;
        Ok(Task {
            output,
            relative,
            several: several.filter(Name::has_sides),
            source: found,
            format,
            stamp,
            fresh: None,
        })
    }

    /// Returns the path of the result for the path in a job.
    fn output(&self, relative: &Path) -> Result<PathBuf, Fault> {
        match self.root {
            None => Ok(relative.to_owned()),
            Some(root) if is_below(relative) => Ok(root.join(relative)),
            Some(root) => {
                let root = show_path(root);
                let text = format!(
                    "not written: out leads out of {root}; give a path relative to it, without '..'"
                );
                Err(Fault::new("write", text))
            }
        }
    }

    /// Makes the results and writes them.
    fn make(&self, input: &Path, task: &Task, asked: &Asked) -> Result<Outcome, Fault> {
        let (job, _share) = loop {
            let share = self.room.enter(task.stamp.len);
            match self.makers.submit(input, task.format, &asked.make) {
                Ok((job, _)) => break (job, share),
                Err(Refused::Full(fault)) => {
                    if !share.wait_for_another() {
                        return Err(fault);
                    }
                }
                Err(Refused::Failed(fault)) => return Err(fault),
            }
        };
        let made = pool::made(job.wait(), &asked.make)?;
        let mut results = Vec::new();
        for (relative, result) in task.named(made.results)? {
            let output = self.output(&relative)?;
            check_own(&output, &task.stamp)?;
            let bytes = &result.bytes;
            let wanted = Output {
                bytes,
                overwrite: asked.overwrite,
                modified: asked.preserve_times.then_some(task.stamp.modified),
            };
            let stamp = self.write(&relative, &task.stamp, wanted)?;
            results.push(Written {
                relative,
                output,
                stamp,
                sides: Some(result.sides),
            });
        }
        Ok(Outcome::Written {
            results,
            took: made.took,
            warning: made.warning,
        })
    }

    /// Writes a result of the job with this input.
    fn write(&self, relative: &Path, input: &Stamp, wanted: Output<'_>) -> Result<Stamp, Fault> {
        // For this input, the part of a template after the last `/` may be empty.
        let Some(name) = job::file_name(relative) else {
            let text = format!("not written: {} is a folder", show_path(relative));
            return Err(Fault::new("write", text));
        };
        let folder = relative.parent().unwrap_or(Path::new(""));
        // Another program may have linked the name to the input since it was checked.
        let may_replace = |existing: &Entry| match existing.identity() == input.identity() {
            true => Err(over_own_input()),
            false => Ok(()),
        };
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let Writing {
            bounds,
            writer,
            made,
        } = &mut *output;
        let opened = match bounds {
            Some(bounds) => bounds.open(folder),
            None if folder.as_os_str().is_empty() => output::create(Path::new(".")),
            None => output::create(folder),
        };
        let is_own = |existing: &Stamp| made.get(&existing.identity()) == Some(existing);
        let written =
            opened.and_then(|folder| writer.replace(&folder, name, wanted, may_replace, is_own));
        // Later results are tried even if the disk is full: there may be room again.
        let stamp = written.map_err(|failed| failed.fault)?;
        made.insert(stamp.identity(), stamp);
        Ok(stamp)
    }

    /// Prints an answer at once. If stdout has no reader, ends the program.
    fn print(&self, answer: &Answer<'_>) {
        let Ok(text) = json_line(answer) else {
            return;
        };
        let mut stdout = io::stdout().lock();
        let printed = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        match printed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self
                .stop
                .exit_at_once(1, "error: stdout: its reader has gone".to_owned()),
            Err(error) => {
                let message = format!("error: stdout: {}", reason(&error));
                self.stop.exit_at_once(1, message)
            }
        }
    }
}

/// Rejects a result that would overwrite the input with this stamp.
fn check_own(output: &Path, input: &Stamp) -> Result<(), Fault> {
    match identity(output) == Some(input.identity()) {
        true => Err(over_own_input()),
        false => Ok(()),
    }
}

fn over_own_input() -> Fault {
    let text = "not written: it would be overwritten by its own result";
    Fault::new("name-conflict", text)
}

/// Returns whether a relative path stays below its folder, according to its components.
fn is_below(path: &Path) -> bool {
    let mut parts = path.components();
    parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}
