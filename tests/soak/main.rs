//! Faults at random moments for as long as one likes: `cargo test --release --test soak -- run --minutes 10`.
//!
//! Without `run` it is a test suite: short soaks, and how a soak ends.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../../benches/src/command.rs"]
mod command;
mod crowded;
#[path = "../common/mod.rs"]
mod harness;
#[path = "../common/lacking.rs"]
mod kernels;
mod pictures;
#[path = "../model/programs/mod.rs"]
#[allow(dead_code, reason = "a suite runs its trials")]
mod programs;
mod signals;
mod supervisor;
mod trials;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arenite::engine::Builder;
use arenite::{Engine, Sandbox};
use clap::{Args, Parser};

use harness::runs::storm::Fault;
use harness::runs::{Figure, Order, Seen, bombs, crashes, deadlines, scale, stops, storm};

/// What stands behind `soak`, where that is not run as a test suite.
#[derive(Debug, Parser)]
#[command(name = "soak")]
enum Cli {
    /// Inject faults into engines for a while, and check that every promise holds
    Run(SoakArgs),
}

#[derive(Debug, Args)]
struct SoakArgs {
    /// How long to run, in minutes; each row runs at least once
    #[arg(long, value_name = "N", default_value = "10", value_parser = length)]
    minutes: Duration,
    /// First seed; a new one each time by default
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run only rows whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Report figures without failing on them, for a busy machine
    #[arg(long)]
    lenient: bool,
}

fn length(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if minutes.is_nan() || minutes <= 0.0 {
        return Err("not more than 0".into());
    }
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| "too long".into())
}

/// Returns a new seed each time. The process id alone would not do: in a container it is often the same.
fn other_seed(process: u32, clock: Duration) -> u64 {
    clock.as_nanos() as u64 ^ u64::from(process) << 40
}

/// Exit code for a wrong command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // First of all: in a worker it does not return.
    arenite::init();
    harness::programs::play(supervisor::SCENARIOS);
    if std::env::args_os().nth(1).is_some_and(|word| word == "run") {
        let Cli::Run(args) = Cli::parse();
        return run(&args);
    }
    harness::run(trials::tests()).exit_code()
}

/// A row of the table: a kind of fault, and its run.
type Row = (&'static str, fn(Order) -> Result<Seen, String>);

const ROWS: [Row; 18] = [
    ("programs", programs::soak),
    ("storm-of-kills", |order| storm::run(order, Fault::Kill)),
    ("storm-of-stops", |order| storm::run(order, Fault::Stop)),
    ("storm-of-locked", storm_of_locked),
    ("stops-at-deadlines", stops::at_deadlines),
    ("deadline-race", deadlines::race),
    ("hung-jobs", deadlines::hung),
    ("poison", crashes::poison_among_others),
    ("crash-loop", crashes::flood),
    ("crash-loop-at-start", crashes::at_start),
    ("memory-bomb", bombs::run),
    ("tiny-jobs", |order| scale::tiny_jobs(order, 2, 1_000_000)),
    ("many-workers", |order| scale::tiny_jobs(order, 64, 100_000)),
    ("start-stop", scale::cycles),
    ("broken-pictures", pictures::run),
    ("full-shm", crowded::run),
    ("supervisor-killed", supervisor::killed),
    ("signals-to-resize", signals::run),
];

fn storm_of_locked(order: Order) -> Result<Seen, String> {
    // A partial sandbox would not show what the row is about.
    let lacks = |engine: &Engine| {
        let report = engine.sandbox_report();
        let report = report.filter(|report| !report.is_complete());
        report.map(|report| report.to_string())
    };
    let strict = |builder: Builder| builder.sandbox(Sandbox::Strict);
    storm::run_with(order, Fault::Kill, strict, lacks)
}

/// Rows without faults.
const WITHOUT_FAULTS: [&str; 3] = ["tiny-jobs", "many-workers", "start-stop"];

/// Fails for a run without jobs or without faults: it has shown nothing.
fn something_happened(row: &str, seen: &Seen) -> Result<(), String> {
    match seen {
        Seen {
            skipped: Some(_), ..
        } => Ok(()),
        Seen { jobs: 0, .. } => Err("no job has ended".into()),
        Seen { faults: 0, .. } if !WITHOUT_FAULTS.contains(&row) => {
            Err("no fault was injected".into())
        }
        _ => Ok(()),
    }
}

/// Maximum duration of a run.
const LONGEST: Duration = Duration::from_secs(30);
/// Minimum duration of a run.
const SHORTEST: Duration = Duration::from_millis(500);
/// Time beyond its duration after which a run counts as a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the rows in turns until the time is up; ends at the first broken promise.
fn run(args: &SoakArgs) -> ExitCode {
    let is_asked = |(name, _): &&Row| args.only.as_ref().is_none_or(|only| name.contains(only));
    let rows: Vec<&Row> = ROWS.iter().filter(is_asked).collect();
    if rows.is_empty() {
        let names = ROWS.map(|(name, _)| name).join(", ");
        eprintln!("error: no row contains that in its name; there are: {names}");
        return ExitCode::from(USAGE);
    }
    let seed = args.seed.unwrap_or_else(|| {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        other_seed(std::process::id(), clock.unwrap_or_default())
    });
    let time = args.minutes;
    let each = (time / rows.len() as u32).clamp(SHORTEST, LONGEST);
    eprintln!("seed {seed}, {} rows for {time:.0?}", rows.len());
    let began = Instant::now();
    let mut table: Vec<(u64, Seen)> = vec![Default::default(); rows.len()];
    for turn in 0u64.. {
        for (&&(name, run), (runs, all)) in rows.iter().zip(&mut table) {
            // Every row runs once, however short the time is.
            if turn > 0 && began.elapsed() >= time {
                return print_table(&rows, &table, began.elapsed());
            }
            let order = Order {
                seed: seed.wrapping_add(turn),
                length: each,
                strict: !args.lenient,
            };
            let seen = std::sync::Arc::new(std::sync::Mutex::new(Seen::default()));
            let result = harness::watched(each + PATIENCE, {
                let seen = std::sync::Arc::clone(&seen);
                move || {
                    let saw = run(order)?;
                    something_happened(name, &saw)?;
                    *seen.lock().map_err(|_| "a run that panicked")? = saw;
                    Ok(())
                }
            });
            *runs += 1;
            if let Err(why) = result {
                eprintln!("{name}: broken with seed {}: {why}", order.seed);
                let _ = print_table(&rows, &table, began.elapsed());
                return ExitCode::from(1);
            }
            if let Ok(seen) = seen.lock() {
                all.add(seen.clone());
            }
        }
    }
    unreachable!("turns do not run out before the time does")
}

/// Writes the table to stdout.
fn print_table(rows: &[&Row], table: &[(u64, Seen)], took: Duration) -> ExitCode {
    let mut text = format!(
        "{:<20} {:>6} {:>10} {:>12}  figures (the worst)\n",
        "row", "runs", "faults", "jobs"
    );
    for ((name, _), (runs, seen)) in rows.iter().zip(table) {
        let figure =
            |figure: &Figure| format!("{} {:.2} {}", figure.name, figure.value, figure.unit);
        let skipped = seen.skipped.iter().map(|why| format!("skipped: {why}"));
        let figures: Vec<_> = skipped.chain(seen.figures.iter().map(figure)).collect();
        text += &format!(
            "{name:<20} {runs:>6} {:>10} {:>12}  {}\n",
            seen.faults,
            seen.jobs,
            figures.join(", ")
        );
    }
    text += &format!("{:.0} s\n", took.as_secs_f64());
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
        _ => ExitCode::SUCCESS,
    }
}
