//! `arenite doctor`: what this machine offers, what will hurt, and what to do about it.

mod finding;
mod json;
mod judge;
mod machine;
mod picture;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use arenite::platform::{self, SegmentName};
use arenite::{Builder, Engine, Sandbox};
use clap::Args;

use crate::choice::{Choice, wants_color};
use crate::cli::Generate;
use crate::resize::reason;
use finding::{Finding, Level, Report};

const DETAILS: &str = "\
What is looked at:
  Memory of the machine and of the container, and how many processes that
  may have (control groups version 1 and 2), room in /dev/shm, the folder for
  temporary files (TMPDIR), limits of this process (ulimit), features of the
  kernel, names in /dev/shm that arenas of this user have or have left there.
  In the end an engine with one worker is started, and does a job; and once
  more with a worker that is locked down (see resize --sandbox).

Marks:
  ✔ as it should be   ! less than it could be, the engine lives with it
  ✘ will hurt

--json:
  One object: verdict (\"fine\", \"notice\" or \"trouble\", the gravest level of
  the findings), machine (the facts, in bytes, null where nothing bounds them
  or nobody can tell), findings (subject, level, found, means, advice), names
  (segment, arena, live, bytes, age_s) and removed (the same, after --clean).

Exit codes: 0 nothing will hurt, 1 something will, or the report could not be
written, 2 wrong usage.";

/// Look at this machine: what it offers, what will hurt, and what to do about it
///
/// Looks at memory, /dev/shm, limits and the kernel, starts an engine with one worker, and says what each finding
/// means. Nothing is changed without --clean.
#[derive(Args, Debug)]
#[command(after_long_help = DETAILS)]
pub(crate) struct DoctorArgs {
    /// Remove names that dead programs left in /dev/shm; those of living ones stay
    #[arg(long)]
    clean: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Colours; auto heeds NO_COLOR and the terminal
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Choice::Auto)]
    color: Choice,

    #[command(flatten)]
    pub generate: Generate,
}

/// Runs the command and says how it ended.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    let removed = if args.clean { clean() } else { Vec::new() };
    let mut report = Report::examine();
    report.findings.push(trial());
    report.findings.push(sandbox_trial());
    let code = ExitCode::from(u8::from(report.worst() == Level::Trouble));
    let color = wants_color(args.color, io::stdout().is_terminal());
    let text = if args.json {
        json::text(&report, &removed)
    } else {
        picture::text(&report, &removed, color)
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // A reader that stops early, such as `head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("error: stdout: {}", reason(&error));
            ExitCode::FAILURE
        }
        _ => code,
    }
}

/// Removes what dead programs left; what it was.
fn clean() -> Vec<SegmentName> {
    let seen = platform::segments();
    let gone = platform::sweep();
    seen.into_iter()
        .filter(|name| gone.contains(&name.segment))
        .collect()
}

/// What to do when a trial fails: its cause has been looked at above, if anybody knows it.
const MEND: &str = "mend what is marked above, then look again";

fn answer(question: u64) -> u64 {
    question + 1
}

fn smallest() -> Builder {
    Engine::builder()
        .workers(1)
        .capacity(4 << 20)
        .on_log(|_| ())
        .label("doctor")
        // Whoever looks changes nothing.
        .sweep(false)
}

/// Whether an engine starts here and does what it is told.
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
            format!("an engine started a worker, which did a job: {millis:.1} ms"),
            "this is what a program does that uses the library",
        ),
        Ok(other) => Finding::fine(
            SUBJECT,
            format!("a worker answered {other} instead of 42"),
            "results cannot be trusted here",
        )
        .at(Level::Trouble, "look for faulty memory, and report this"),
        Err(error) => Finding::fine(SUBJECT, "a worker failed at a tiny job", error.to_string())
            .at(Level::Trouble, MEND),
    }
}

/// The same with a worker that is locked down. Nobody has to use one: what is missing is no trouble.
fn sandbox_trial() -> Finding {
    const SUBJECT: &str = "sandbox-trial";
    const WITHOUT: &str = "nothing, unless you mean to use --sandbox; it wants seccomp, Landlock and mseal, see above";
    let engine = match smallest().sandbox(Sandbox::Strict).build() {
        Ok(engine) => engine,
        Err(error) => {
            let found = "an engine with a locked-down worker does not start";
            return Finding::fine(SUBJECT, found, error.to_string()).at(Level::Notice, WITHOUT);
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
            "a worker without rights did a job",
            "hostile files can be kept in: no files, no network, no other processes",
        ),
        (Ok(42), Some(lacks)) => {
            Finding::fine(SUBJECT, "a worker did a job, but kept some rights", lacks)
                .at(Level::Notice, WITHOUT)
        }
        (Ok(other), _) => {
            let found = format!("a locked-down worker answered {other} instead of 42");
            Finding::fine(SUBJECT, found, "results cannot be trusted here")
                .at(Level::Trouble, "look for faulty memory, and report this")
        }
        (Err(error), _) => {
            let found = "a locked-down worker failed at a tiny job";
            Finding::fine(SUBJECT, found, error.to_string()).at(Level::Notice, WITHOUT)
        }
    }
}
