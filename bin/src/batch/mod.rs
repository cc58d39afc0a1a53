//! The common part of `resize` and `check`: finds pictures, processes the list of them on an engine, and lists their
//! outcomes in the order of the inputs.

pub(crate) mod inputs;
mod outcome;
pub(crate) mod pattern;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod printer;
mod progress;
pub(crate) mod run_args;
pub(crate) mod shard;
pub(crate) mod stop;

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use arenite::Array;

use inputs::{Found, Request};
use plan::Item;
use pool::{EnginePool, Settings};
use printer::Printer;
use shard::Shard;
use stop::Stop;

pub(crate) use outcome::{Fault, Made, Outcome, Written, is_broken_link};

use crate::folder::{identity, location};
use crate::text::{USAGE, show_path};

/// The error of a run that ended before any work.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The inputs found so far.
    pub items: Vec<Item>,
    /// The reason, as a sentence.
    pub why: String,
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        let items = Vec::new();
        Refusal { items, why }
    }
}

/// Ends a command. Returns the exit code of a run, or prints why nothing was started.
pub(crate) fn conclude(done: Result<u8, Refusal>, printer: &mut Printer) -> ExitCode {
    match done {
        Ok(code) => {
            // Everything is printed and the engine has ended, so the program may end by a signal.
            stop::end_by_code(code);
            ExitCode::from(code)
        }
        Err(refusal) => {
            printer.refuse(&refusal.items, &refusal.why);
            ExitCode::from(USAGE)
        }
    }
}

/// Finds the inputs, and prints what the search left out.
pub(crate) fn find(
    request: &Request<'_>,
    shard: Option<&Shard>,
    printer: &mut Printer,
) -> Result<Found, Refusal> {
    if let Some(shard) = shard {
        printer.shard(shard);
    }
    let found =
        inputs::find(request, &mut io::stdin().lock()).map_err(|error| error.to_string())?;
    printer.begin(&found);
    if let Some(folder) = &found.left_out {
        let folder = show_path(folder);
        printer.note(&format!("{folder}: skipped: it is the output folder"));
    }
    if let Some(note) = found.raw_note() {
        printer.note(&note);
    }
    Ok(found)
}

/// Prints why no input can be used.
pub(crate) fn name_faults(items: &[Item], printer: &mut Printer) {
    for item in items {
        if let Err(fault) = &item.task {
            printer.error(&format!("{}: {fault}", show_path(&item.input)));
        }
    }
}

/// Returns an error if an extra file would overwrite an input or a result, or a result would overwrite the extra file.
/// An existing file is compared by device and inode, because it is overwritten in place, under all its names.
pub(crate) fn in_the_way(settings: &Settings, items: &[Item]) -> Option<String> {
    let tasks = || items.iter().filter_map(|item| item.task.as_ref().ok());
    settings.extra_files().find_map(|(flag, file)| {
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

/// Processes the items that need work, and lists all items. `settle` takes the index of an item and its result, and
/// returns the item's outcome and whether to continue.
pub(crate) fn work(
    pool: &mut EnginePool<'_>,
    items: &[Item],
    stop: &Stop,
    printer: &mut Printer,
    mut settle: impl FnMut(
        usize,
        Result<Made<Array<u8>>, Fault>,
        &Printer,
    ) -> (Outcome, ControlFlow<()>),
) {
    printer.confined(pool.confinement());
    stop.begin_work(printer.is_quiet(), printer.can_resume());
    printer.work(items.iter().filter_map(Item::ready).count() as u64);
    let mut listing = InOrder::new(items);
    let feed = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Some((index, item.input.as_path(), item.ready()?)));
    let may_begin = || stop.code().is_none();
    // If `settle` ends `run` early, the remaining items stay pending.
    let _ = pool.run(feed, may_begin, |index, result| {
        let (outcome, flow) = settle(index, result, printer);
        listing.ended(index, outcome, printer);
        flow
    });
    if let Err(text) = pool.write_trace() {
        printer.list_is_incomplete(&text);
    }
    listing.rest(printer);
}

/// Lists items if none of them needs work.
pub(crate) fn list(items: &[Item], printer: &mut Printer) {
    InOrder::new(items).rest(printer);
}

/// Lists outcomes in the order of the inputs, whatever the order is in which they end.
struct InOrder<'a> {
    items: &'a [Item],
    /// Index of the next item to list.
    next: usize,
    /// The outcomes of later items that have ended already.
    ended: HashMap<usize, Outcome>,
}

impl<'a> InOrder<'a> {
    fn new(items: &'a [Item]) -> InOrder<'a> {
        InOrder {
            items,
            next: 0,
            ended: HashMap::new(),
        }
    }

    fn ended(&mut self, index: usize, outcome: Outcome, printer: &mut Printer) {
        printer.decided(&self.items[index], &outcome);
        self.ended.insert(index, outcome);
        while let Some(item) = self.items.get(self.next)
            && (self.ended.contains_key(&self.next) || item.ready().is_none())
        {
            self.list(item, printer);
        }
    }

    /// Lists all remaining items. Items without an outcome were not begun.
    fn rest(&mut self, printer: &mut Printer) {
        while let Some(item) = self.items.get(self.next) {
            self.list(item, printer);
        }
    }

    fn list(&mut self, item: &Item, printer: &mut Printer) {
        let outcome = self.ended.remove(&self.next).unwrap_or_else(|| {
            let outcome = item.unworked(Outcome::Pending);
            printer.decided(item, &outcome);
            outcome
        });
        printer.list(item, &outcome);
        self.next += 1;
    }
}

/// Prints the summary, and advice after an early end. Returns the exit code.
pub(crate) fn finish(stop: &Stop, printer: &mut Printer) -> u8 {
    let signal = stop.end_work();
    let pending = printer.pending();
    let advice = match printer.can_resume() {
        true => "; run the same command with --resume to continue",
        false => "",
    };
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
            printer.error(&format!("interrupted: {pending} not begun{advice}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_reads_as_words() {
        let error = io::Error::from_raw_os_error(13);
        assert_eq!(
            Fault::read(Path::new("a"), &error).text,
            "cannot be read: permission denied"
        );
    }
}
