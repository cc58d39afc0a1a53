//! `arenite doctor`: examines this machine, and gives advice about problems that engines would have.

mod finding;
mod json;
mod judge;
mod machine;
#[cfg(test)]
mod tests;
mod text;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Instant;

use arenite::platform::{self, SegmentName};
use arenite::{Builder, Engine, Sandbox};
use clap::Args;

use crate::store::engines;
use crate::text::{Choice, columns, print, reason, show_name, wants_color};
use finding::{Finding, Level, Report};

const DETAILS: &str = "\
What is examined:
  Memory of the machine and of the container, the container's limit on
  processes (control groups version 1 and 2), room in /dev/shm, the folder for
  temporary files (TMPDIR), limits of this process (ulimit), features of Linux,
  names of this user's arenas in /dev/shm, in use or left behind, and whether
  engines of this user wait for workers that cannot start. Then an engine with
  one worker runs a job; and another one with a sandboxed worker, as resize
  and check have.

Marks:
  ✔ as it should be
  ! less than it could be; the engine copes with it
  ✘ trouble: engines cannot start, or jobs will fail or be killed

--json:
  One object: verdict (\"fine\", \"notice\" or \"trouble\", the gravest level of
  the findings), machine (the facts, in bytes, null if unbounded or unknown),
  findings (subject, level, found, means, advice), names (segment, arena, live,
  bytes, age_s) and removed (the same, after --clean).

Exit codes: 0 no trouble, 1 trouble, or the report could not be written,
2 wrong usage.";

/// Examine this machine: what it offers, what will cause trouble, and how to fix it
///
/// Examines memory, /dev/shm, limits and Linux, starts an engine with one worker, and says what each finding means.
/// Changes nothing without --clean.
#[derive(Args, Debug)]
#[command(after_long_help = DETAILS)]
pub(crate) struct DoctorArgs {
    /// Remove names that dead programs left in /dev/shm; names in use stay
    #[arg(long)]
    clean: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// When to use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Choice::Auto)]
    color: Choice,
}

/// Runs the command and returns its exit code.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    let removed = if args.clean { clean() } else { Vec::new() };
    let mut report = Report::examine();
    report.findings.push(engines_of_user());
    report.findings.push(trial());
    report.findings.push(sandbox_trial());
    let code = ExitCode::from(u8::from(report.worst() == Level::Trouble));
    let color = wants_color(args.color, io::stdout().is_terminal());
    let text = if args.json {
        json::render(&report, &removed)
    } else {
        text::render(&report, &removed, color, columns())
    };
    match print(text.as_bytes()) {
        Ok(()) => code,
        Err(error) => {
            eprintln!("error: stdout: {}", reason(&error));
            ExitCode::FAILURE
        }
    }
}

/// Removes the names that dead programs have left, and returns them.
fn clean() -> Vec<SegmentName> {
    let before = platform::segments();
    let gone = platform::sweep();
    before
        .into_iter()
        .filter(|name| gone.contains(&name.segment))
        .collect()
}

/// Advice if a trial fails: an earlier finding may show the cause.
const MEND: &str = "fix what is marked above, then run this command again";

fn answer(question: u64) -> u64 {
    question + 1
}

fn smallest() -> Builder {
    Engine::builder()
        .workers(1)
        .capacity(4 << 20)
        .on_log(|_| ())
        .label("doctor")
        // Examining the machine must change nothing.
        .sweep(false)
}

/// Asks the engines of this user that run now whether their workers can start.
fn engines_of_user() -> Finding {
    const SUBJECT: &str = "engines";
    let all = engines();
    let mut failing = all.iter().filter_map(|engine| {
        let why = show_name(engine.start_failure.as_ref()?);
        Some(format!(
            "{} (process {}): {why}",
            show_name(&engine.program),
            engine.pid
        ))
    });
    let Some(first) = failing.next() else {
        return Finding::fine(
            SUBJECT,
            format!("engines of this user that run now: {}", all.len()),
            "none of them waits for a worker that cannot start",
        );
    };
    let more = match failing.count() {
        0 => String::new(),
        count => format!(", and {count} more"),
    };
    let means = "its jobs wait until a worker starts; the engine tries again, unless its jobs fail with NoWorkers";
    Finding::fine(SUBJECT, format!("no worker starts in {first}{more}"), means).at(
        Level::Notice,
        "remove the cause; after NoWorkers, call Engine::revive or restart the program",
    )
}

/// Starts an engine and runs a job.
fn trial() -> Finding {
    const SUBJECT: &str = "trial";
    let start = Instant::now();
    let engine = match smallest().build() {
        Ok(engine) => engine,
        Err(error) => {
            let found = "an engine with one worker does not start";
            return Finding::fine(SUBJECT, found, error.to_string()).at(Level::Trouble, MEND);
        }
    };
    let result = engine.submit(answer, (41,)).wait();
    let millis = start.elapsed().as_secs_f64() * 1e3;
    match result {
        Ok(42) => Finding::fine(
            SUBJECT,
            format!("an engine started a worker, which ran a job: {millis:.1} ms"),
            "this is what each program does that uses the library",
        ),
        Ok(other) => Finding::fine(
            SUBJECT,
            format!("a worker returned {other} instead of 42"),
            "results cannot be trusted here",
        )
        .at(
            Level::Trouble,
            "check the memory of this machine, and report this",
        ),
        Err(error) => Finding::fine(SUBJECT, "a tiny job failed in a worker", error.to_string())
            .at(Level::Trouble, MEND),
    }
}

/// Starts an engine with a sandboxed worker and runs a job.
fn sandbox_trial() -> Finding {
    const SUBJECT: &str = "sandbox-trial";
    const WITHOUT: &str =
        "run resize and check with --sandbox off, and only on files that you trust";
    let engine = match smallest().sandbox(Sandbox::Strict).build() {
        Ok(engine) => engine,
        Err(error) => {
            let found = "an engine with a sandboxed worker does not start";
            return Finding::fine(SUBJECT, found, error.to_string()).at(Level::Trouble, WITHOUT);
        }
    };
    let result = engine.submit(answer, (41,)).wait();
    let lacks = engine
        .sandbox_report()
        .filter(|report| !report.is_complete())
        .map(|report| report.to_string());
    match (result, lacks) {
        (Ok(42), None) => Finding::fine(
            SUBJECT,
            "a sandboxed worker ran a job",
            "hostile files can be confined: no files, no network, no other processes",
        ),
        (Ok(42), Some(lacks)) => Finding::fine(
            SUBJECT,
            "a sandboxed worker ran a job, with some rights left",
            lacks,
        )
        .at(
            Level::Notice,
            "nothing: resize and check enforce what is there; a newer Linux has more, see above",
        ),
        (Ok(other), _) => {
            let found = format!("a sandboxed worker returned {other} instead of 42");
            Finding::fine(SUBJECT, found, "results cannot be trusted here").at(
                Level::Trouble,
                "check the memory of this machine, and report this",
            )
        }
        (Err(error), _) => {
            let found = "a tiny job failed in a sandboxed worker";
            Finding::fine(SUBJECT, found, error.to_string()).at(Level::Trouble, WITHOUT)
        }
    }
}
