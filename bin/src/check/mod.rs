//! `arenite check`: decodes all pictures, writes nothing, and lists the damaged ones.
//!
//! Inputs, workers, causes and output are the same as for `arenite resize`.

mod args;

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::thread;

use arenite_image::ResizeSpec;

pub(crate) use args::CheckArgs;

use crate::batch::inputs::Request;
use crate::batch::plan;
use crate::batch::pool::Early;
use crate::batch::printer::{Printer, Purpose};
use crate::batch::stop::Stop;
use crate::batch::{self, Outcome, Refusal};

/// Runs the command and returns its exit code.
pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    let stop = Stop::listen();
    let mut printer = Printer::new(args.run.style(Purpose::Check));
    let done = check(args, &stop, &mut printer);
    batch::conclude(done, &mut printer)
}

/// Returns the exit code, or the reason why nothing was started.
fn check(args: &CheckArgs, stop: &Stop, printer: &mut Printer) -> Result<u8, Refusal> {
    let settings = args.run.settings(Purpose::Check)?;
    let shard = args.run.shard()?;
    let shard = shard.as_ref();
    let make = args.run.make(ResizeSpec::full_size(), Vec::new());
    thread::scope(|threads| {
        let now = settings.starts_early(&args.inputs, shard);
        let early = Early::begin(&settings, &make, now, threads);
        let request = Request {
            inputs: &args.inputs,
            null: args.null,
            base: None,
            exclude: &args.run.exclude,
            raw: args.run.raw,
            out: None,
        };
        let found = batch::find(&request, shard, printer)?;
        let nothing = found.nothing_found();
        let mut items = plan::without_results(found.inputs, shard);
        if nothing.is_some() {
            batch::name_faults(&items, printer);
        }
        if let Some(why) = nothing.or_else(|| batch::in_the_way(&settings, &items)) {
            return Err(Refusal { items, why });
        }
        items.retain(|item| item.is_in_shard);
        printer.planned(items.len());
        match items.iter().any(|item| item.ready().is_some()) {
            false => batch::list(&items, printer),
            true => {
                let started = early.or_start(&items);
                let mut pool = match started {
                    Ok(pool) => pool,
                    Err(why) => return Err(Refusal { items, why }),
                };
                batch::work(&mut pool, &items, stop, printer, |_, result, _| {
                    let whole = result.map(|made| Outcome::Whole {
                        sides: made.results.first().map_or([0; 2], |picture| picture.sides),
                        took: made.took,
                        warning: made.warning,
                    });
                    let outcome = whole.unwrap_or_else(Outcome::Failed);
                    (outcome, ControlFlow::Continue(()))
                });
            }
        }
        Ok(batch::finish(stop, printer))
    })
}
