//! `arenite-bench`: measures the engine and other ways to do the same work, in turns.
//!
//! The cases and the systems come from this package's library ([`arenite_bench::cases`]).

#![forbid(unsafe_code)]

mod command;
mod runner;
mod units;

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use arenite_bench::cases::{self, Case, Setup};
use clap::Parser;

use runner::{figures, json, sample, svg, table};

/// Exit code for a wrong command line and for set-up that failed.
const USAGE: u8 = 2;

/// The number of worker processes or threads of every system. The goals are made for two.
const WORKERS: usize = 2;

const ENDS: &str = "\
Exit codes: 0 measured, also where goals are missed, 1 a system failed (what
this machine lacks is no failure) or the figures could not be written, 2 wrong
usage.";

/// Measure arenite beside sockets, pipes, ipc-channel, rayon and others.
///
/// Systems of one case take turns, so that noise hits all alike; a figure is the median of several samples. The
/// table goes to stdout, progress and what is missing on this machine to stderr.
#[derive(Debug, Parser)]
#[command(name = "arenite-bench", version, after_help = ENDS, max_term_width = 100)]
struct Args {
    /// Take about a minute: fewer samples, no copies of 1 GiB that are not named, and a --budget of 55s unless --runs is given
    #[arg(long)]
    quick: bool,

    /// Begin nothing more after this time, such as 30s or 2m; what is left out is named
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = units::duration)]
    budget: Option<Duration>,

    /// Run only this case, or all cases whose name starts like this (may be given several times)
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,

    /// Samples of each system, instead of each case's own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: Option<u32>,

    /// Untimed operations in front of each sample, instead of each case's own number
    #[arg(long, value_name = "N")]
    warmup: Option<u64>,

    /// List the cases with their systems and goals, and measure nothing
    #[arg(long)]
    list: bool,

    /// Print a list of objects instead of the table, of cases under --list
    #[arg(long)]
    json: bool,

    /// Also draw the figures into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    // These come first: in a worker of the engine or of a baseline they do not return.
    arenite::init();
    arenite_bench::init();

    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", reason(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<ExitCode> {
    let mut setup = Setup {
        quick: args.quick,
        workers: WORKERS,
        command: None,
    };
    let all = cases::all(&setup);
    let cases = match choose(all, &args.only, args.quick) {
        Ok(cases) => cases,
        Err(unknown) => {
            let ids: Vec<String> = cases::all(&setup).into_iter().map(|case| case.id).collect();
            eprintln!(
                "error: no case is called {unknown:?}, and none begins so; there are: {}",
                ids.join(", ")
            );
            return Ok(ExitCode::from(USAGE));
        }
    };
    if args.list {
        let mut out = io::stdout().lock();
        match args.json {
            true => json::list(&cases, &mut out)?,
            false => table::list(&cases, &mut out)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    // If the picture cannot be written, the user should know this before minutes of measuring.
    if let Some(path) = &args.svg
        && let Err(error) = may_be_written(path)
    {
        eprintln!("error: {}", cannot_write(path, &error));
        return Ok(ExitCode::from(USAGE));
    }

    if cases.iter().any(Case::needs_command) {
        setup.command = command::locate();
    }
    let amount = sample::Amount {
        runs: args.runs,
        warmup: args.warmup,
    };
    let budget = sample::Budget::new(args.budget, args.quick, amount);
    let machine = figures::Machine::this();
    let mut measured: Vec<figures::CaseFigures> = Vec::new();
    let mut out = io::stdout().lock();
    if !args.json {
        table::head(&machine, &mut out)?;
    }
    for case in cases {
        let figures = sample::measure(case, &setup, amount, budget, &mut io::stderr())?;
        measured.push(figures);
        if !args.json
            && let Some((last, before)) = measured.split_last()
        {
            table::case(last, before, &mut out)?;
        }
    }
    if args.json {
        json::write(&measured, &mut out)?;
    } else {
        table::summary(&measured, &mut out)?;
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, svg::draw(&measured, &machine))
            .map_err(|error| io::Error::new(error.kind(), cannot_write(path, &error)))?;
    }
    let failed = measured.iter().any(figures::CaseFigures::has_failures);
    Ok(ExitCode::from(u8::from(failed)))
}

/// Checks whether a file can be written, without changing it, so that an interrupted run does not lose an older
/// picture.
fn may_be_written(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // A pipe is written only once, and the target of a link is created later.
    if path.symlink_metadata().is_ok_and(|there| !there.is_file()) {
        return Ok(());
    }
    let mut options = OpenOptions::new();
    options.write(true);
    match options.clone().create_new(true).open(path) {
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path).map(drop),
        Err(error) => Err(error),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {}", path.display(), reason(error))
}

/// Returns the cases that were requested, by exact name or by the beginning of their names. In a quick run, long cases
/// are included only if they are named.
fn choose(all: Vec<Case>, only: &[String], quick: bool) -> Result<Vec<Case>, String> {
    let short = |case: &Case| case.quick || !quick;
    if only.is_empty() {
        return Ok(all.into_iter().filter(short).collect());
    }
    let wanted = |id: &str, word: &String| {
        if all.iter().any(|case| case.id == *word) {
            id == word
        } else {
            id.starts_with(word.as_str())
        }
    };
    if let Some(unknown) = only
        .iter()
        .find(|word| !all.iter().any(|case| wanted(&case.id, word)))
    {
        return Err(unknown.clone());
    }
    let keep: Vec<bool> = all
        .iter()
        .map(|case| {
            let asked = |word: &String| wanted(&case.id, word) && (short(case) || case.id == *word);
            only.iter().any(asked)
        })
        .collect();
    let chosen = all.into_iter().zip(keep);
    Ok(chosen
        .filter_map(|(case, keep)| keep.then_some(case))
        .collect())
}

/// Returns the message of Linux without the number that `io::Error` appends.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}
