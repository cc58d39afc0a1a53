//! `arenite resize`: finds the inputs, names all results, then makes them.

mod args;
mod jobs;
pub(crate) mod output;
mod record;

use std::collections::HashSet;
use std::ops::{ControlFlow, Deref};
use std::path::{Path, absolute};
use std::process::ExitCode;
use std::thread;

use args::Options;
pub(crate) use args::ResizeArgs;
use output::{OutFolder, Output, WriteFault};
use record::{Fingerprint, Recorder, Records};

use crate::batch::inputs::Request;
use crate::batch::plan::{self, Item, Naming};
use crate::batch::pool::{Early, EnginePool, Settings};
use crate::batch::printer::{Printer, Purpose};
use crate::batch::stop::Stop;
use crate::batch::{self, Fault, Made, Outcome, Refusal, Written, is_broken_link};
use crate::folder::{Folder, Identity, identity};
use crate::text::{reason, show_path};

/// The maximum number of conflicts that are printed. Further ones are only counted.
const CONFLICTS_SHOWN: usize = 10;

/// Runs the command and returns its exit code.
pub(crate) fn run(args: &ResizeArgs) -> ExitCode {
    let stop = Stop::listen();
    let mut printer = Printer::new(args.run.style(Purpose::Resize));
    let done = if args.jobs.is_some() {
        jobs::run(args, &stop, &mut printer).map_err(Refusal::from)
    } else {
        let options = Options::from_args(args).map_err(Refusal::from);
        options.and_then(|options| resize(&options, &stop, &mut printer))
    };
    batch::conclude(done, &mut printer)
}

/// Returns the exit code, or the reason why nothing was started.
fn resize(options: &Options<'_>, stop: &Stop, printer: &mut Printer) -> Result<u8, Refusal> {
    thread::scope(|threads| {
        let early = Early::begin(
            &options.engine,
            &options.make,
            options.starts_early(),
            threads,
        );
        let (mut items, protected) = prepare(options, printer)?;
        if options.args.resume {
            mark_fresh(&mut items, options.out, &options.fingerprint);
        }
        if options.args.dry_run {
            for item in &items {
                let outcome = item.unworked(Outcome::Planned);
                printer.decided(item, &outcome);
                printer.list(item, &outcome);
            }
            printer.end("dry-run");
            return Ok(printer.code());
        }
        let start = || early.or_start(&items);
        let done = work(options, start, &items, protected, stop, printer);
        done.map_err(|why| Refusal { items, why })
    })
}

/// The inputs, which no result may replace, by device and inode.
type Protected = HashSet<Identity>;

/// Finds all inputs and names all results. After this only the work itself can fail. Returns the items of this run, and
/// the inputs of all shards.
fn prepare(
    options: &Options<'_>,
    printer: &mut Printer,
) -> Result<(Vec<Item>, Protected), Refusal> {
    let out = options.out;
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
    let request = Request {
        inputs: &options.args.inputs,
        null: options.args.null,
        base: options.args.base.as_deref(),
        exclude: &options.args.run.exclude,
        raw: options.args.run.raw,
        out: Some(out),
    };
    let found = batch::find(&request, options.shard.as_ref(), printer)?;
    let nothing = found.nothing_found();
    let naming = Naming {
        out,
        format: options.format,
        template: &options.name,
    };
    let planned = plan::plan(found.inputs, naming, options.shard.as_ref());
    let mut items = planned.map_err(|clash| {
        for conflict in clash.conflicts.iter().take(CONFLICTS_SHOWN) {
            printer.error(&conflict.to_string());
        }
        let why = match clash.conflicts.len() {
            0..=CONFLICTS_SHOWN => "nothing was done; use another --out".to_owned(),
            count => format!("nothing was done: {count} conflicts; use another --out"),
        };
        let items = clash.items;
        Refusal { items, why }
    })?;
    if nothing.is_some() {
        batch::name_faults(&items, printer);
    }
    let in_the_way = || {
        let through = through_link(&options.engine, out);
        through.or_else(|| batch::in_the_way(&options.engine, &items))
    };
    if let Some(why) = nothing.or_else(in_the_way) {
        return Err(Refusal { items, why });
    }
    let of_input = |item: &Item| match &item.task {
        Ok(task) => Some(task.stamp.identity()),
        Err(_) => identity(&item.input),
    };
    let protected = items.iter().filter_map(of_input).collect();
    items.retain(|item| item.is_in_shard);
    printer.planned(items.len());
    Ok((items, protected))
}

/// Returns an error if a file of `--trace` or `--report` would be written through a link below the output folder, where
/// results do not follow links either.
fn through_link(settings: &Settings, out: &Path) -> Option<String> {
    let out = absolute(out).ok()?;
    settings.extra_files().find_map(|(flag, file)| {
        let path = absolute(file).ok()?;
        let below = |part: &&Path| part.starts_with(&out) && *part != out;
        let link = path
            .ancestors()
            .take_while(below)
            .find(|part| part.is_symlink())?;
        let (file, link) = (show_path(file), show_path(link));
        let why = "which is a link in the output folder; remove it, or give another file";
        Some(format!(
            "{file}: {flag} would be written through {link}, {why}"
        ))
    })
}

fn mark_fresh(items: &mut [Item], out: &Path, options: &str) {
    // In a folder that does not exist, nothing is up to date.
    let Ok(out) = Folder::open(out) else { return };
    let records = Records::read(&out);
    let options = Fingerprint::of(options);
    for task in items.iter_mut().filter_map(|item| item.task.as_mut().ok()) {
        task.fresh = records.fresh(task, &out, options);
    }
}

fn work<'a>(
    options: &Options<'_>,
    start: impl FnOnce() -> Result<EnginePool<'a>, String>,
    items: &[Item],
    protected: Protected,
    stop: &Stop,
    printer: &mut Printer,
) -> Result<u8, String> {
    let out = options.out;
    // Without work nothing is written, so the folder need not exist or be writable.
    if items.iter().any(|item| item.ready().is_some()) {
        let mut folder = OutFolder::create(out, stop)?;
        let tasks = || items.iter().filter_map(|item| item.task.as_ref().ok());
        let kept = tasks().filter_map(|task| task.fresh.as_deref()).flatten();
        folder.keep(kept.map(|result| (result.relative.as_path(), &result.stamp)));
        let mut recorder = Some(Recorder::new(
            folder.root(),
            options.shard.as_ref(),
            options.fingerprint.clone(),
            stop,
        ));
        let mut pool = start().inspect_err(|_| folder.unmake())?;
        folder.protect(protected);
        let extra = options.engine.extra_files();
        folder.protect(extra.filter_map(|(_, file)| identity(file)));
        batch::work(&mut pool, items, stop, printer, |index, result, printer| {
            let (made, flow) = settle(&items[index], result, &mut folder, options);
            if let (Some(notes), Ok(task), Ok(Outcome::Written { results, .. })) =
                (&mut recorder, &items[index].task, &made)
                && let Err(error) = notes.note(task, results)
            {
                let name = show_path(&notes.path());
                printer.note(&format!(
                    "warning: {name}: {}; later runs will not know the results of this one",
                    reason(&error)
                ));
                recorder = None;
            }
            (made.unwrap_or_else(Outcome::Failed), flow)
        });
    } else {
        if let Ok(out) = Folder::open(out) {
            out.remove_leftovers();
        }
        batch::list(items, printer);
    }
    Ok(batch::finish(stop, printer))
}

/// Writes the results of a picture. Returns them, or the failure, and whether to continue.
fn settle<B: Deref<Target = [u8]>>(
    item: &Item,
    result: Result<Made<B>, Fault>,
    folder: &mut OutFolder,
    options: &Options<'_>,
) -> (Result<Outcome, Fault>, ControlFlow<()>) {
    let go_on = ControlFlow::Continue(());
    let (made, task) = match (result, &item.task) {
        (Ok(made), Ok(task)) => (made, task),
        (Err(fault), _) => return (Err(fault), go_on),
        (_, Err(fault)) => return (Err(fault.clone()), go_on),
    };
    let named = match task.named(made.results) {
        Ok(named) => named,
        Err(fault) => return (Err(fault), go_on),
    };
    let mut results = Vec::with_capacity(named.len());
    for (relative, result) in named {
        let output = Output {
            bytes: &result.bytes,
            overwrite: options.args.overwrite,
            modified: options.args.preserve_times.then_some(task.stamp.modified),
        };
        match folder.write(&relative, output) {
            Ok(stamp) => results.push(Written {
                output: folder.root().path().join(&relative),
                relative,
                stamp,
                sides: Some(result.sides),
            }),
            Err(WriteFault { fault, fatal: true }) => return (Err(fault), ControlFlow::Break(())),
            Err(WriteFault { fault, .. }) => return (Err(fault), go_on),
        }
    }
    let outcome = Outcome::Written {
        results,
        took: made.took,
        warning: made.warning,
    };
    (Ok(outcome), go_on)
}
