//! Job errors as sentences.

use std::fmt;

use super::{
    Crash, Failed, FailedDependency, JobError, JobErrorKind, JobLimit, Rejection, WorkerExit,
};
use crate::supervisor::depend::limits::{MAX_OPEN_TASKS, MAX_SPAWN_DEPTH};
use crate::trace::escape::escape_text;

impl fmt::Display for JobErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A panic that was resumed with `resume_unwind`: its origin is unknown.
            Self::Panicked {
                message, location, ..
            } if location.is_empty() => {
                write!(f, "panicked: {}", escape_text(message.trim_end()))
            }
            Self::Panicked {
                message, location, ..
            } => write!(
                f,
                "panicked at {}: {}",
                escape_text(location),
                escape_text(message.trim_end())
            ),
            Self::Returned(returned) => escape_text(returned.text().trim_end()).fmt(f),
            Self::Lost(exit) => exit.fmt(f),
            Self::Limit(limit) => limit.fmt(f),
            Self::Rejected(why) => why.fmt(f),
            Self::Dependency(failed) => failed.fmt(f),
            Self::Cancelled => f.write_str("cancelled"),
            Self::ShutDown => f.write_str("the engine was shut down before it ended"),
            Self::NoWorkers(why) => write!(f, "no worker can be started any more: {why}"),
        }
    }
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => {
                let (name, hint) = (signal_name(*signal), signal_hint(*signal));
                write!(f, "its worker was ended by {name}{hint}")
            }
            Self::Code(Some(code)) => write!(f, "its worker exited with code {code}"),
            Self::Code(None) => f.write_str(
                "its worker exited with an unknown code, because something else in this program reaped it",
            ),
            Self::OutOfMemoryKill => f.write_str(
                "its worker was ended by the system's out-of-memory killer; use fewer workers, or set a memory limit",
            ),
            Self::Denied { call } => write!(f, "the sandbox denied {call}, which ended its worker"),
            Self::Escaped { count } => write!(
                f,
                "{count} array handle{} outlived the job (in a static, in the state of an actor, on a thread, or leaked); drop them before the kernel returns, or build the engine with `retain_escaped`",
                if *count == 1 { "" } else { "s" }
            ),
            Self::Protocol(what) => write!(
                f,
                "its worker broke the protocol ({}) and was replaced",
                escape_text(what)
            ),
            Self::OtherJob { job: None, cause } => write!(f, "lost with its worker: {cause}"),
            Self::OtherJob { job: Some(job), cause } => {
                write!(f, "lost with its worker, because of job {job}: {cause}")
            }
        }
    }
}

impl fmt::Display for JobLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline { limit } if limit.is_zero() => f.write_str(
                "not run: its deadline is 0, which no job can meet; set a longer one, or none",
            ),
            Self::Deadline { limit } => write!(
                f,
                "ran longer than its deadline of {limit:?}, so its worker was killed"
            ),
            Self::Memory {
                limit,
                requested,
                hint,
            } => {
                f.write_str("its worker could not allocate ")?;
                if let Some(requested) = requested {
                    write!(f, "{requested} bytes ")?;
                }
                write!(
                    f,
                    "within its memory limit of {limit} bytes; raise the limit, or do less at once"
                )?;
                hint.map_or(Ok(()), |hint| write!(f, "; {hint}"))
            }
            Self::Arena(full) | Self::ArenaShare(full) => full.fmt(f),
            Self::Spawned { depth, open } => write!(
                f,
                "it spawned jobs {depth} deep with {open} of them open at once (the limits are {MAX_SPAWN_DEPTH} and {MAX_OPEN_TASKS}): \
                 does its recursion end?"
            ),
            Self::Quarantined { deaths } => write!(
                f,
                "its attempts ended {deaths} worker{}, and it is not tried again",
                if *deaths == 1 { "" } else { "s" }
            ),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignArray => f.write_str(
                "an argument is neither in this engine's arena nor from a store; copy it in with engine.import(&array)",
            ),
            Self::ForeignJob => f.write_str(
                "an argument is a job of another engine; wait for its value, and pass that",
            ),
            Self::JobForActor => f.write_str(
                "an argument of an actor's start is a job; wait for its value, and pass that",
            ),
            Self::ForeignKernel => f.write_str(
                "the kernel is code of another library; kernels must be in the executable or shared object that \
                 contains arenite",
            ),
            Self::Lending => f.write_str(
                "an argument would be changed in place, which a strict sandbox and the start of an actor do not allow; return a fresh array instead",
            ),
            Self::Spawning => f.write_str(
                "it spawned jobs, which a strict sandbox does not allow; submit them from the program instead",
            ),
            Self::Deadlock { why } => write!(f, "deadlock: the job would wait for itself: {why}"),
            Self::ActorEnded => f.write_str("its actor has ended; start another one"),
        }
    }
}

impl fmt::Display for FailedDependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input {
                path,
                omitted,
                cause,
            } => {
                f.write_str("not run, because it takes the value of ")?;
                for (at, input) in path.iter().enumerate() {
                    if at > 0 {
                        f.write_str(", which takes that of ")?;
                    }
                    if at + 1 == path.len() && *omitted > 0 {
                        write!(
                            f,
                            "others ({omitted} left out here), the first of which is "
                        )?;
                    }
                    if let Some(job) = input.job {
                        write!(f, "job {job} ")?;
                    }
                    write!(f, "({})", input.kernel)?;
                }
                write!(f, ", which failed: {cause}")
            }
            Self::Child { job, kernel, cause } => {
                f.write_str("a job that it spawned failed: ")?;
                if let Some(job) = job {
                    write!(f, "job {job} ")?;
                }
                write!(f, "({kernel}): {cause}")
            }
            Self::Actor {
                cause,
                forgotten,
                restarted,
            } => {
                write!(f, "its actor was lost: {cause}")?;
                match forgotten {
                    0 => {}
                    1 => f.write_str("; the effect of 1 answered call is lost")?,
                    more => write!(f, "; the effect of {more} answered calls is lost")?,
                }
                if *restarted {
                    f.write_str("; it continues from its last checkpoint")?;
                }
                Ok(())
            }
        }
    }
}

/// Returns the name of a signal, such as "SIGSEGV".
pub(super) fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal).map_or_else(
        |_| format!("signal {signal}"),
        |known| known.as_str().to_owned(),
    )
}

/// Returns the probable meaning of the signal.
fn signal_hint(signal: i32) -> &'static str {
    match signal {
        libc::SIGSEGV => " (an invalid memory access, a write to an input, or a stack overflow)",
        libc::SIGBUS => " (an access beyond the end of a mapping)",
        libc::SIGABRT => " (an abort: a failed allocation, or a library's own check)",
        libc::SIGKILL => " (killed from outside)",
        libc::SIGILL => " (an illegal instruction)",
        libc::SIGFPE => " (a division by zero)",
        _ => "",
    }
}

/// Writes how a job ended: by its kind, or, if its worker crashed, by the description of the crash.
pub(super) fn write_end(
    f: &mut fmt::Formatter<'_>,
    kind: &JobErrorKind,
    crash: Option<&Crash>,
) -> fmt::Result {
    match (kind, crash) {
        (JobErrorKind::Lost(WorkerExit::Signal(_)), Some(crash)) => {
            write!(f, "its worker was ended by {crash}")
        }
        (_, Some(crash)) => write!(f, "{kind}; {crash}"),
        (_, None) => write!(f, "{kind}"),
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failed {
            kind,
            kernel,
            job,
            label,
            attempt,
            worker,
            lent,
            last_words,
            crash,
            deaths,
            lost_jobs,
            origin,
        } = &*self.0;
        match job {
            0 => write!(f, "{kernel}")?,
            job => write!(f, "job {job}")?,
        }
        if let Some(label) = label {
            // Escaped, because a label may contain any text.
            write!(f, " {label:?}")?;
        }
        if *job > 0 {
            write!(f, " ({kernel}")?;
            if let Some(worker) = worker {
                write!(f, " on worker {worker}")?;
            }
            if *attempt > 1 {
                write!(f, ", attempt {attempt}")?;
            }
            f.write_str(")")?;
        }
        f.write_str(": ")?;
        write_end(f, kind, crash.as_ref())?;
        if let (JobErrorKind::Limit(JobLimit::Quarantined { .. }), Some(last)) =
            (kind, deaths.last())
        {
            f.write_str("; the last time: ")?;
            write_end(f, &last.kind, last.crash.as_ref())?;
        }
        if !lost_jobs.jobs.is_empty() {
            let (s, were) = match lost_jobs.jobs.len() {
                1 => ("", "was"),
                _ => ("s", "were"),
            };
            let jobs = Numbers(&lost_jobs.jobs);
            match lost_jobs.are_innocent {
                true => write!(f, "; job{s} {jobs} {were} lost with it")?,
                false => write!(
                    f,
                    "; job{s} {jobs} ran on the same worker, and any of them may be at fault"
                )?,
            }
        }
        for rows in lent {
            write!(
                f,
                "; rows {}..{} of the array lent to it are unspecified",
                rows.start, rows.end
            )?;
        }
        let words = origin
            .as_ref()
            .map_or(last_words, |error| &error.0.last_words);
        write_last_words(f, words)
    }
}

pub(super) fn write_last_words(f: &mut fmt::Formatter<'_>, last_words: &[String]) -> fmt::Result {
    match telling(last_words) {
        Some(last) => write!(f, "; its worker's last words: {last}"),
        None => Ok(()),
    }
}

/// Returns the most informative line: the last line that is neither empty nor Rust's hint about backtraces. If a stack
/// was printed with the innermost frame first: that frame, or the message above the stack.
pub(super) fn telling(last_words: &[String]) -> Option<&str> {
    let find = |is_it: fn(&str) -> bool| last_words.iter().rposition(|line| is_it(line));
    // A stack printed by Python's faulthandler.
    let frame = find(|line| line.ends_with("(most recent call first):"))
        .and_then(|head| last_words.get(head + 1))
        .filter(|line| line.starts_with("  "));
    // A message of Rust or of a sanitizer.
    let message = || {
        let head = find(|line| line == "stack backtrace:")?;
        last_words.get(head.checked_sub(1)?)
    };
    let sanitizer = || {
        let at = find(|line| line.contains("ERROR: ") && line.contains("Sanitizer: "))?;
        last_words.get(at)
    };
    let last = || {
        let says_something = |line: &str| {
            !line.trim().is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE=")
        };
        let at = find(says_something).or(last_words.len().checked_sub(1))?;
        last_words.get(at)
    };
    let line = frame.or_else(message).or_else(sanitizer);
    Some(line.or_else(last)?.trim())
}

/// Displays the first numbers of a list, and the number of further ones.
struct Numbers<'a>(&'a [u64]);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (at, number) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{number}", if at > 0 { ", " } else { "" })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::telling;

    #[test]
    fn the_telling_line_is_not_the_outermost_frame() {
        let of = |text: &str| {
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            telling(&lines).map(str::to_owned)
        };
        for (text, line) in [
            ("one\ntwo", Some("two")),
            ("one\n two \n\n", Some("two")),
            (
                "thread 'x' panicked at a.rs:1:2:\nno row 7\nnote: run with `RUST_BACKTRACE=1` environment variable to \
                 display a backtrace",
                Some("no row 7"),
            ),
            ("", None),
            (
                "Fatal Python error: Aborted\nCurrent thread 0x1 (most recent call first):\n  File \"a.py\", line 5 in f\n  \
                 File \"a.py\", line 9 in <module>",
                Some("File \"a.py\", line 5 in f"),
            ),
            (
                "thread 'x' panicked at a.rs:1:2:\nno row 7\nstack backtrace:\n   0: a::row\n   1: a::main\naborting.",
                Some("no row 7"),
            ),
            ("stack backtrace:\n   0: a::row", Some("0: a::row")),
            (
                "==7==ERROR: AddressSanitizer: heap-use-after-free\nREAD of size 4\n    #0 0x1 in f a.c:2\n==7==ABORTING",
                Some("==7==ERROR: AddressSanitizer: heap-use-after-free"),
            ),
        ] {
            assert_eq!(of(text).as_deref(), line, "{text}");
        }
    }
}
