//! `arenite resize`: finds the inputs, names all results, then makes them.

mod args;
mod fault;
mod files;
mod inputs;
mod jobs;
mod kind;
mod leftovers;
mod options;
mod output;
mod pattern;
mod plan;
mod pool;
mod printer;
mod progress;
mod record;
mod runner;
mod shard;
mod stop;

use std::collections::HashMap;
use std::io;
use std::ops::{ControlFlow, Deref};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

pub(crate) use args::ResizeArgs;
use fault::{Fault, is_broken_link};
use files::{Stamp, identity, location};
use inputs::Request;
use options::Options;
use output::{OutFolder, WriteFault};
use plan::{Item, Task};
use pool::{Early, EnginePool};
use printer::{Outcome, Printer};
use record::{Fingerprint, Recorder, Records};
use runner::Made;
use stop::Stop;

use crate::exit::USAGE;
use crate::text::{reason, show_path};

/// Conflicts that are printed; further ones are only counted.
const CONFLICTS_SHOWN: usize = 10;

/// Runs the command and returns its exit code.
pub(crate) fn run(args: &ResizeArgs) -> ExitCode {
    let stop = Stop::listen();
    let mut printer = Printer::new(options::style(args));
    let done = if args.jobs.is_some() {
        jobs::run(args, &stop, &mut printer).map_err(Refusal::from)
    } else {
        let options = Options::from_args(args).map_err(Refusal::from);
        options.and_then(|options| resize(&options, &stop, &mut printer))
    };
    match done {
        Ok(code) => {
            // Everything is printed, and the engine is gone.
            stop::end_by_code(code);
            ExitCode::from(code)
        }
        Err(refusal) => {
            printer.refuse(&refusal.items, &refusal.why);
            ExitCode::from(USAGE)
        }
    }
}

/// The run ended before any work.
#[derive(Debug)]
struct Refusal {
    /// The inputs found by then.
    items: Vec<Item>,
    /// The reason, a sentence.
    why: String,
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        let items = Vec::new();
        Refusal { items, why }
    }
}

/// Returns the exit code, or why nothing was started.
fn resize(options: &Options, stop: &Stop, printer: &mut Printer) -> Result<u8, Refusal> {
    thread::scope(|threads| {
        let early = Early::begin(
            &options.engine,
            &options.make,
            options.starts_early(),
            threads,
        );
        let mut items = prepare(options, printer)?;
        if options.resume {
            mark_fresh(&mut items, &options.out, &options.fingerprint);
        }
        if options.dry_run {
            for item in &items {
                let outcome = Outcome::unworked(item, Outcome::Planned);
                printer.decided(item, &outcome);
                printer.list(item, &outcome);
            }
            printer.end("dry-run");
            return Ok(printer.code());
        }
        let start = |pictures| early.or_start(pictures);
        let done = work(options, start, &items, stop, printer);
        done.map_err(|why| Refusal { items, why })
    })
}

/// Finds all inputs and names all results; afterwards only the work itself can fail.
fn prepare(options: &Options, printer: &mut Printer) -> Result<Vec<Item>, Refusal> {
    let out = options.out.as_path();
    if out.exists() && !out.is_dir() {
        return Err(format!(
            "{}: the output folder is a file; give another --out",
            show_path(out)
        )
        .into());
    }
    let leads_nowhere = |folder: &&Path| {
        folder
            .metadata()
            .is_err_and(|error| is_broken_link(folder, &error))
    };
    if let Some(link) = out.ancestors().find(leads_nowhere) {
        let (out, link) = (show_path(out), show_path(link));
        let why = "the output folder cannot be used";
        return Err(format!("{out}: {why}: {link} is a link whose target is missing").into());
    }
    if let Some(shard) = &options.shard {
        printer.shard(shard);
    }
    let request = Request {
        inputs: &options.inputs,
        null: options.null,
        out,
    };
    let found =
        inputs::find(&request, &mut io::stdin().lock()).map_err(|error| error.to_string())?;
    printer.begin(&found);
    if let Some(folder) = &found.left_out {
        printer.note(&format!(
            "{}: skipped: it is the output folder",
            show_path(folder)
        ));
    }
    let nothing = found.nothing_found();
    let shard = options.shard.as_ref();
    let mut items = plan::plan(found.inputs, out, options.format, shard).map_err(|clash| {
        for conflict in clash.conflicts.iter().take(CONFLICTS_SHOWN) {
            printer.error(&conflict.to_string());
        }
        let advice = clash.advice(options.format);
        let why = match clash.conflicts.len() {
            0..=CONFLICTS_SHOWN => format!("nothing was done; {advice}"),
            count => format!("nothing was done: {count} conflicts; {advice}"),
        };
        let items = clash.items;
        Refusal { items, why }
    })?;
    if nothing.is_some() {
        for item in &items {
            if let Err(fault) = &item.task {
                printer.error(&format!("{}: {fault}", show_path(&item.input)));
            }
        }
    }
    if let Some(why) = nothing.or_else(|| in_the_way(options, &items)) {
        return Err(Refusal { items, why });
    }
    items.retain(|item| item.is_in_shard);
    printer.planned(items.len());
    Ok(items)
}

/// Returns an error if an extra file would overwrite an input or a result, or a result the extra file. An existing file
/// is compared by device and inode, because it is overwritten in place, under all of its names.
fn in_the_way(options: &Options, items: &[Item]) -> Option<String> {
    let tasks = || items.iter().filter_map(|item| item.task.as_ref().ok());
    options.extra_files().find_map(|(flag, file)| {
        let existing = identity(file);
        let is_file = |path: &Path| existing.is_some() && identity(path) == existing;
        let location_of_file = location(file);
        let what = if items.iter().any(|item| is_file(&item.input)) {
            "would overwrite an input"
        } else if tasks().any(|task| location(&task.output) == location_of_file) {
            "would be overwritten by a result"
        } else if tasks().any(|task| is_file(&task.output)) {
            "would overwrite a result"
        } else {
            return None;
        };
        Some(format!("{}: {flag} {what}", show_path(file)))
    })
}

fn mark_fresh(items: &mut [Item], out: &Path, options: &str) {
    let records = Records::read(out);
    let options = Fingerprint::of(options);
    for task in items.iter_mut().filter_map(|item| item.task.as_mut().ok()) {
        task.fresh = std::fs::symlink_metadata(&task.output)
            .ok()
            .filter(|meta| meta.is_file())
            .map(|meta| Stamp::of(&meta))
            .filter(|there| records.is_fresh(&task.relative, there, &task.stamp, options));
    }
}

fn is_ready(item: &Item) -> Option<&Task> {
    item.task.as_ref().ok().filter(|task| task.fresh.is_none())
}

fn work<'a>(
    options: &Options,
    start: impl FnOnce(usize) -> Result<EnginePool<'a>, String>,
    items: &[Item],
    stop: &Stop,
    printer: &mut Printer,
) -> Result<u8, String> {
    let out = options.out.as_path();
    let ready = items.iter().filter(|item| is_ready(item).is_some()).count();
    let mut listing = InOrder {
        items,
        next: 0,
        ended: HashMap::new(),
    };
    // Without work nothing is written, and the folder need neither exist nor be writable.
    if ready > 0 {
        let mut folder = OutFolder::create(out, stop)?;
        let tasks = items.iter().filter_map(|item| item.task.as_ref().ok());
        folder.keep(tasks.filter_map(|task| Some((task.relative.as_path(), task.fresh.as_ref()?))));
        let mut recorder = Some(Recorder::new(
            out,
            options.shard.as_ref(),
            options.fingerprint.clone(),
            stop,
        ));
        let mut pool = start(ready).inspect_err(|_| folder.unmake())?;
        // Also under --quiet: protection that was asked for is missing.
        for part in pool.missing_protection() {
            printer.warn(&format!("not enforced by this Linux: {part}"));
        }
        stop.begin_work(printer.is_quiet());
        printer.work(ready as u64);
        let feed = items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| Some((index, item.input.as_path(), is_ready(item)?)));
        let may_begin = || stop.code().is_none();
        // A break ends the run: the rest stays pending.
        let _ = runner::run(&mut pool, feed, may_begin, |index, result| {
            let (made, flow) = settle(&items[index], result, &mut folder);
            if let (Some(notes), Ok(task), Ok((stamp, _))) =
                (&mut recorder, &items[index].task, &made)
                && let Err(error) = notes.note(&task.relative, stamp, &task.stamp)
            {
                let name = show_path(notes.path());
                printer.note(&format!(
                    "warning: {name}: {}; --resume will not skip the results of this run",
                    reason(&error)
                ));
                recorder = None;
            }
            let outcome = made.map_or_else(Outcome::Failed, |(_, written)| written);
            listing.ended(index, outcome, printer);
            flow
        });
        if let Err(text) = pool.write_trace() {
            printer.list_is_incomplete(&text);
        }
        listing.rest(printer);
        // Only results stay where nothing is left to resume.
        if let Some(notes) =
            recorder.filter(|_| !options.resume && printer.code() == 0 && printer.pending() == 0)
        {
            notes.discard();
        }
    } else {
        leftovers::remove(out);
        listing.rest(printer);
    }
    Ok(finish(stop, printer))
}

/// Writes a result. Returns it, or the failure, and whether to continue.
fn settle<B: Deref<Target = [u8]>>(
    item: &Item,
    result: Result<Made<B>, Fault>,
    folder: &mut OutFolder,
) -> (Result<(Stamp, Outcome), Fault>, ControlFlow<()>) {
    let go_on = ControlFlow::Continue(());
    let (made, task) = match (result, &item.task) {
        (Ok(made), Ok(task)) => (made, task),
        (Err(fault), _) => return (Err(fault), go_on),
        (_, Err(fault)) => return (Err(fault.clone()), go_on),
    };
    match folder.write(&task.relative, &made.bytes) {
        Ok(stamp) => {
            let outcome = Outcome::Written {
                bytes: stamp.len,
                sides: made.sides,
                took: made.took,
                warning: made.warning,
            };
            (Ok((stamp, outcome)), go_on)
        }
        Err(WriteFault { fault, fatal: true }) => (Err(fault), ControlFlow::Break(())),
        Err(WriteFault {
            fault,
            fatal: false,
        }) => (Err(fault), go_on),
    }
}

/// Lists outcomes in the order of the inputs, in whichever order they end.
struct InOrder<'a> {
    items: &'a [Item],
    /// Index of the first item not yet listed.
    next: usize,
    /// Outcomes of later items that have ended.
    ended: HashMap<usize, Outcome>,
}

impl InOrder<'_> {
    fn ended(&mut self, index: usize, outcome: Outcome, printer: &mut Printer) {
        printer.decided(&self.items[index], &outcome);
        self.ended.insert(index, outcome);
        while let Some(item) = self.items.get(self.next)
            && (self.ended.contains_key(&self.next) || is_ready(item).is_none())
        {
            self.list(item, printer);
        }
    }

    /// Lists all remaining items; those without an outcome were not begun.
    fn rest(&mut self, printer: &mut Printer) {
        while let Some(item) = self.items.get(self.next) {
            self.list(item, printer);
        }
    }

    fn list(&mut self, item: &Item, printer: &mut Printer) {
        let outcome = self.ended.remove(&self.next).unwrap_or_else(|| {
            let outcome = Outcome::unworked(item, Outcome::Pending);
            printer.decided(item, &outcome);
            outcome
        });
        printer.list(item, &outcome);
        self.next += 1;
    }
}

/// Prints the summary and advice about an early end; returns the exit code.
fn finish(stop: &Stop, printer: &mut Printer) -> u8 {
    let signal = stop.end_work();
    let pending = printer.pending();
    printer.end(match (signal, pending) {
        (Some(_), _) => "interrupted",
        (None, 0) => "done",
        (None, _) => "stopped",
    });
    match (signal, pending) {
        (Some(code), 0) => {
            printer.error("interrupted after the last image was begun: nothing is left to do");
            code
        }
        (Some(code), _) => {
            printer.error(&format!(
                "interrupted: {pending} not begun; run the same command with --resume to continue"
            ));
            code
        }
        (None, 0) => printer.code(),
        (None, _) => {
            printer.error(&format!(
                "stopped: {pending} not begun; run the same command with --resume when that is fixed"
            ));
            1
        }
    }
}
