//! Determines why a worker ended, beyond its exit status.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::{Crash, JobErrorKind, JobLimit, WorkerExit};
use super::output::last_words::LastWords;
use super::settings::WorkerEntry;
use crate::link::{Phase, steps};
use crate::sys::abort::Aborted;
use crate::sys::oom::OomCounter;
use crate::sys::process::Exit;
use crate::worker::{EXIT_CANNOT_START, EXIT_CANNOT_START_NOW};

/// Memory that an allocator takes in addition to a request. So an allocation may fail because of the ceiling although
/// it is smaller than the free memory, if the difference is less than this.
const ROUNDING: u64 = 2 << 20;

/// The evidence of a worker's end.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) exit: Exit,
    /// The ceiling on the worker's private memory in bytes, 0 for none.
    pub(super) limit: u64,
    /// The worker's note about its abort.
    pub(super) aborted: Option<Aborted>,
    /// The size of the failed allocation that the worker printed, in bytes.
    pub(super) failed_allocation: Option<u64>,
    /// Whether OpenBLAS has printed that it got no memory, after which it ends the process.
    pub(super) blas_gave_up: bool,
    /// Whether Linux's out-of-memory killer has killed a process that no other worker's death accounts for.
    pub(super) out_of_memory: bool,
}

/// Returns the cause as far as it is certain; otherwise the bare signal or code.
pub(super) fn cause(evidence: &Evidence) -> JobErrorKind {
    match evidence.exit {
        Exit::Signal(libc::SIGKILL) if evidence.out_of_memory => {
            JobErrorKind::Lost(WorkerExit::OutOfMemoryKill)
        }
        Exit::Signal(libc::SIGABRT) if evidence.limit > 0 => limit_reached(evidence),
        Exit::Code(1) if evidence.limit > 0 && evidence.blas_gave_up => {
            JobErrorKind::Limit(JobLimit::Memory {
                limit: evidence.limit,
                requested: None,
                hint: Some(BLAS_HINT),
            })
        }
        exit => plain(exit),
    }
}

/// Returns the cause if the sandbox killed a worker because of the system call in its note.
#[cfg(feature = "sandbox")]
pub(super) fn denied(exit: Exit, note: u32) -> Option<JobErrorKind> {
    use crate::sys::sandbox;
    if exit != Exit::Signal(libc::SIGSYS) {
        return None;
    }
    let call = match sandbox::call(note) {
        Some(number) => sandbox::name(number),
        // The process was killed before a handler could run: by the filter, or because SIGSYS was blocked. The C
        // library blocks signals where it starts a process.
        None => "clone (starting a process), or another system call that was made while signals were blocked or is one of \
                 another architecture"
            .into(),
    };
    Some(JobErrorKind::Lost(WorkerExit::Denied { call }))
}

/// Returns the exit status as a cause.
pub(super) fn plain(exit: Exit) -> JobErrorKind {
    match exit {
        Exit::Code(code) => JobErrorKind::Lost(WorkerExit::Code(Some(code))),
        Exit::Signal(signal) => JobErrorKind::Lost(WorkerExit::Signal(signal)),
        Exit::Unknown => JobErrorKind::Lost(WorkerExit::Code(None)),
    }
}

/// Decides whether the ceiling caused an abort. It did if the standard library has printed the size of a failed
/// allocation and that size did not fit; or if nothing was printed, and an allocation of the aborting thread had
/// failed. The memory in use is no evidence: one block larger than the ceiling fails in an empty process. So an abort
/// for another reason cannot be distinguished if it follows a failed allocation that was handled.
fn limit_reached(evidence: &Evidence) -> JobErrorKind {
    let Evidence { exit, limit, .. } = *evidence;
    let Some(aborted) = evidence.aborted else {
        // The signal was sent from outside, or the worker handles it.
        return plain(exit);
    };
    let requested = evidence.failed_allocation;
    let left = limit.saturating_sub(aborted.data.unwrap_or(limit));
    let reached = match requested {
        Some(bytes) => bytes.saturating_add(ROUNDING) > left,
        None => aborted.no_memory,
    };
    if !reached {
        return plain(exit);
    }
    JobErrorKind::Limit(JobLimit::Memory {
        limit,
        requested,
        hint: None,
    })
}

/// What to do if OpenBLAS got no memory.
const BLAS_HINT: &str = "OpenBLAS takes some 40 MB of it for each of its threads: set OPENBLAS_NUM_THREADS in the \
    environment of the workers";

/// Returns true if OpenBLAS prints this line before it ends its process with exit code 1.
pub(super) fn blas_gave_up(line: &[u8]) -> bool {
    line.starts_with(b"OpenBLAS error: Memory allocation still failed")
}

/// Parses the size in bytes from the line that the standard library prints when an allocation fails.
pub(super) fn failed_allocation(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"memory allocation of ")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let bytes = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    rest[digits..]
        .starts_with(b" bytes failed")
        .then_some(bytes)
}

/// Returns the message for a worker that ended before it was ready: the phase, the exit, the probable reason, and the
/// last lines that it printed.
pub(super) fn before_ready(
    entry: WorkerEntry,
    phase: Phase,
    cause: &JobErrorKind,
    crash: Option<&Crash>,
    words: &[String],
) -> String {
    let mut text = format!("before it was ready ({phase}): ");
    match crash {
        Some(crash) => text.push_str(&format!("its worker was ended by {crash}")),
        None => text.push_str(&cause.to_string()),
    }
    if let Some(hint) = hint(entry, phase, cause) {
        text.push_str("; ");
        text.push_str(hint);
    }
    if !words.is_empty() {
        text.push_str("; its last words:\n");
        text.push_str(&words.join("\n"));
    }
    text
}

/// Returns true if another start may succeed after a worker has ended in this way before it was ready: it lacked
/// something that is short now. What the program's own code does at the start is never excused.
pub(super) fn may_pass(phase: Phase, cause: &JobErrorKind, words: &LastWords, limit: u64) -> bool {
    if phase == Phase::Starting(steps::ON_START) {
        return false;
    }
    match cause {
        JobErrorKind::Lost(WorkerExit::OutOfMemoryKill) => true,
        JobErrorKind::Lost(WorkerExit::Signal(libc::SIGABRT)) => {
            limit == 0 && words.failed_allocation.is_some()
        }
        JobErrorKind::Lost(WorkerExit::Code(Some(EXIT_CANNOT_START_NOW))) => true,
        JobErrorKind::Lost(WorkerExit::Code(Some(CANNOT_LOAD))) => words
            .all()
            .iter()
            .any(|line| LOADER_IS_SHORT.iter().any(|reason| line.contains(reason))),
        _ => false,
    }
}

/// Returns true if only a call of `kill` or `raise` ends a process in this way. That says nothing about the process:
/// usually another one has killed it. Linux itself uses other signals, except for `WorkerExit::OutOfMemoryKill`.
pub(super) fn is_killed(cause: &JobErrorKind) -> bool {
    use libc::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM};
    let JobErrorKind::Lost(WorkerExit::Signal(signal)) = cause else {
        return false;
    };
    matches!(*signal, SIGHUP | SIGINT | SIGKILL | SIGQUIT | SIGTERM)
}

/// The exit code of a dynamic loader that cannot load a program.
const CANNOT_LOAD: i32 = 127;
/// What glibc's loader prints, which knows few names of errors, if descriptors or memory are short.
const LOADER_IS_SHORT: [&str; 3] = [": Error 23", ": Error 24", "annot allocate memory"];

/// Returns the probable reason of a worker's death before it was ready.
fn hint(entry: WorkerEntry, phase: Phase, cause: &JobErrorKind) -> Option<&'static str> {
    if *cause == JobErrorKind::Lost(WorkerExit::Signal(libc::SIGSYS)) {
        return Some(
            "a seccomp filter, the container's or the program's own, denies a system call that workers need",
        );
    }
    match (phase, cause) {
        (Phase::Starting(steps::ON_START), cause) if is_killed(cause) => {
            Some("or on_worker_start did it")
        }
        (Phase::Starting(steps::ON_START), _) => Some("on_worker_start did it"),
        // A program that does not fit may have been started and have detected that itself.
        (
            Phase::Starting(steps::LANES),
            JobErrorKind::Limit(JobLimit::Memory { .. })
            | JobErrorKind::Lost(WorkerExit::Signal(libc::SIGABRT)),
        ) => Some("its lanes cannot be started, probably: each takes private memory for its stack"),
        (Phase::Unknown, JobErrorKind::Lost(WorkerExit::Code(Some(CANNOT_LOAD)))) => Some(
            "a shared library of the program that workers run is missing or does not fit: `ldd` names it, and workers \
             search with the environment that this program had when it built the engine",
        ),
        (
            Phase::Unknown,
            JobErrorKind::Lost(WorkerExit::Code(Some(EXIT_CANNOT_START | EXIT_CANNOT_START_NOW))),
        ) => Some("it said why on stderr"),
        (Phase::Unknown, JobErrorKind::Lost(WorkerExit::Code(_))) => Some(match entry {
            WorkerEntry::Init => {
                "the program ended without having become a worker: arenite::init() must be the first thing in main, \
                 before arguments are looked at (a worker has none)"
            }
            WorkerEntry::RunWorker => {
                "the worker program ended without having called arenite::run_worker()"
            }
        }),
        (Phase::Unknown, JobErrorKind::Lost(WorkerExit::Signal(libc::SIGABRT))) => {
            Some(match entry {
                WorkerEntry::Init => {
                    "the program went on without having become a worker: arenite::init() must be the first thing in main"
                }
                WorkerEntry::RunWorker => {
                    "the worker program did not call arenite::run_worker(): what it runs before that aborts, or builds \
                     an engine"
                }
            })
        }
        (
            Phase::Unknown,
            JobErrorKind::Lost(WorkerExit::Signal(libc::SIGSEGV | libc::SIGBUS | libc::SIGILL)),
        ) => Some(match entry {
            WorkerEntry::Init => {
                "what runs before arenite::init() crashes in a copy of the program: a constructor of a library, perhaps"
            }
            WorkerEntry::RunWorker => {
                "what the worker program runs before arenite::run_worker() crashes"
            }
        }),
        _ => None,
    }
}

/// Returns the message for a worker that was not ready in time.
pub(super) fn not_ready(entry: WorkerEntry, phase: Phase, limit: Duration) -> String {
    let what = match phase {
        Phase::Starting(steps::ON_START) => {
            "on_worker_start has not returned; raise start_timeout if it needs longer"
        }
        Phase::Unknown => match entry {
            WorkerEntry::Init => {
                "it has not become a worker: arenite::init() must be the first thing in main, and nothing before it may \
                 wait"
            }
            WorkerEntry::RunWorker => {
                "it has not become a worker: the worker program has not called arenite::run_worker(); raise \
                 start_timeout if it needs longer"
            }
        },
        _ => "the machine is overloaded, or the process is stopped; raise start_timeout",
    };
    format!("not ready within {limit:?} ({phase}): {what}")
}

/// Linux reports the end of a process that it kills within this time: much memory has to be freed first.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

/// Counts the kills of Linux's out-of-memory killer, and assigns them to workers.
#[derive(Debug)]
pub(super) struct OomKills {
    root: PathBuf,
    /// Opened after the first workers have been started.
    counter: OnceCell<Option<OomCounter>>,
    /// For each worker, the counter at its start, or later: see [`look`](Self::look).
    since: Vec<u64>,
    /// The time and value of the last reading.
    seen: Option<(Instant, u64)>,
    /// The value up to which kills were assigned to workers.
    accounted: u64,
}

impl OomKills {
    /// Creates the counter for this number of workers. Reads files below `root`, which is `/` except in tests.
    pub(super) fn new(root: &Path, workers: usize) -> Self {
        Self {
            root: root.to_owned(),
            counter: OnceCell::new(),
            since: vec![0; workers],
            seen: None,
            accounted: 0,
        }
    }

    fn read(&self) -> Option<u64> {
        let counter = self.counter.get_or_init(|| OomCounter::find(&self.root));
        counter.as_ref()?.read()
    }

    /// Records the counter for workers that have just been started.
    pub(super) fn started(&mut self, workers: &[usize]) {
        if workers.is_empty() {
            return;
        }
        let Some(now) = self.read() else { return };
        for &worker in workers {
            self.since[worker] = now;
        }
    }

    /// Reads the counter. Called whenever memory is checked. Kills that were counted long ago are not assigned to a
    /// worker that dies now: they were of other processes, because the counter is that of a whole container, or of the
    /// machine.
    pub(super) fn look(&mut self, now: Instant) {
        let due = |(at, _)| now.saturating_duration_since(at) >= NOTICED_WITHIN;
        if !self.seen.is_none_or(due) {
            return;
        }
        let Some(count) = self.read() else { return };
        let before = self
            .seen
            .replace((now, count))
            .map_or(0, |(_, count)| count);
        for since in &mut self.since {
            *since = (*since).max(before);
        }
    }

    /// Returns true if the out-of-memory killer killed this worker, which died of a SIGKILL that the engine did not
    /// send. Each kill is assigned to one worker.
    pub(super) fn explain(&mut self, worker: usize) -> bool {
        let Some(now) = self.read() else { return false };
        let accounted = self.accounted.max(self.since[worker]);
        if now <= accounted {
            return false;
        }
        self.accounted = accounted + 1;
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const ABORT: Exit = Exit::Signal(libc::SIGABRT);

    fn aborted(no_memory: bool, data: u64) -> Option<Aborted> {
        Some(Aborted {
            no_memory,
            data: (data > 0).then_some(data),
        })
    }

    fn of(limit: u64, aborted: Option<Aborted>, failed_allocation: Option<u64>) -> JobErrorKind {
        cause(&Evidence {
            exit: ABORT,
            limit,
            aborted,
            failed_allocation,
            blas_gave_up: false,
            out_of_memory: true,
        })
    }

    #[test]
    fn an_abort_is_a_memory_limit_only_if_that_is_certain() {
        let limit = 64 * MIB;
        let reached = |requested| {
            JobErrorKind::Limit(JobLimit::Memory {
                limit,
                requested,
                hint: None,
            })
        };
        let bare = JobErrorKind::Lost(WorkerExit::Signal(libc::SIGABRT));
        let large = Some(100 * MIB);
        assert_eq!(of(limit, aborted(true, MIB), None), reached(None));
        assert_eq!(of(limit, aborted(true, MIB), large), reached(large));
        let unread = of(limit, aborted(false, 0), large);
        assert_eq!(unread, reached(large), "the line alone is enough");
        assert_eq!(of(0, aborted(true, MIB), large), bare, "no ceiling");
        assert_eq!(of(limit, None, large), bare, "the signal came from outside");
        assert_eq!(of(limit, aborted(false, MIB), None), bare, "an assertion");
        let small = of(limit, aborted(true, MIB), Some(4096));
        assert_eq!(small, bare, "it would have fitted");
        let reached_limit = of(limit, aborted(true, limit - MIB), Some(4096));
        assert_eq!(reached_limit, reached(Some(4096)));
    }

    #[test]
    fn other_lines_are_not_read_as_allocation_sizes() {
        let line = b"memory allocation of 12 bytes failed";
        assert_eq!(failed_allocation(line), Some(12));
        for line in [
            "a memory allocation of 12 bytes failed",
            "memory allocation of many bytes failed",
            "memory allocation of 12 pages failed",
            "memory allocation of 12",
            "memory allocation of 99999999999999999999999 bytes failed",
            "",
        ] {
            assert_eq!(failed_allocation(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn openblas_exits_when_it_gets_no_memory() {
        // As printed by the OpenBLAS in numpy 2.4.
        let line = b"OpenBLAS error: Memory allocation still failed after 10 retries, giving up.";
        assert!(blas_gave_up(line));
        assert!(!blas_gave_up(b"OpenBLAS error: Memory allocation failed"));
        let with = |exit, limit, blas_gave_up| {
            cause(&Evidence {
                exit,
                limit,
                aborted: None,
                failed_allocation: None,
                blas_gave_up,
                out_of_memory: false,
            })
        };
        let JobErrorKind::Limit(limit) = with(Exit::Code(1), MIB, true) else {
            panic!("it is a limit");
        };
        let JobLimit::Memory {
            limit: MIB,
            requested: None,
            ..
        } = limit
        else {
            panic!("{limit}");
        };
        assert!(
            limit.to_string().contains("OPENBLAS_NUM_THREADS"),
            "{limit}"
        );
        let exited = |code| JobErrorKind::Lost(WorkerExit::Code(Some(code)));
        assert_eq!(with(Exit::Code(1), 0, true), exited(1), "no ceiling");
        assert_eq!(with(Exit::Code(1), MIB, false), exited(1));
        assert_eq!(with(Exit::Code(2), MIB, true), exited(2));
    }

    #[test]
    fn a_kill_is_an_oom_kill_only_if_linux_counted_one() {
        let with = |exit, out_of_memory| {
            cause(&Evidence {
                exit,
                limit: 1,
                aborted: aborted(true, 1),
                failed_allocation: None,
                blas_gave_up: false,
                out_of_memory,
            })
        };
        let kill = Exit::Signal(libc::SIGKILL);
        assert_eq!(
            with(kill, true),
            JobErrorKind::Lost(WorkerExit::OutOfMemoryKill)
        );
        assert_eq!(with(kill, false), JobErrorKind::Lost(WorkerExit::Signal(9)));
        assert_eq!(
            with(Exit::Signal(15), true),
            JobErrorKind::Lost(WorkerExit::Signal(15))
        );
        assert_eq!(
            with(Exit::Code(3), true),
            JobErrorKind::Lost(WorkerExit::Code(Some(3)))
        );
        assert_eq!(
            with(Exit::Unknown, true),
            JobErrorKind::Lost(WorkerExit::Code(None))
        );
    }

    #[test]
    fn a_death_before_ready_names_its_likely_reason() {
        let of =
            |phase, cause: JobErrorKind| before_ready(WorkerEntry::Init, phase, &cause, None, &[]);
        let exited = |code| JobErrorKind::Lost(WorkerExit::Code(Some(code)));
        for (phase, cause, expected) in [
            (Phase::Unknown, exited(127), "shared library"),
            (Phase::Unknown, exited(0), "arenite::init()"),
            (Phase::Unknown, exited(2), "arenite::init()"),
            (Phase::Unknown, exited(70), "stderr"),
            (
                Phase::Unknown,
                JobErrorKind::Lost(WorkerExit::Signal(6)),
                "arenite::init()",
            ),
            (
                Phase::Unknown,
                JobErrorKind::Lost(WorkerExit::Signal(11)),
                "constructor",
            ),
            (
                Phase::Unknown,
                JobErrorKind::Lost(WorkerExit::Signal(31)),
                "seccomp",
            ),
            (
                Phase::Starting(steps::ON_START),
                JobErrorKind::Lost(WorkerExit::Signal(31)),
                "seccomp",
            ),
            (
                Phase::Starting(steps::ON_START),
                exited(127),
                "on_worker_start",
            ),
            (
                Phase::Starting(steps::LANES),
                JobErrorKind::Limit(JobLimit::Memory {
                    limit: MIB,
                    requested: None,
                    hint: None,
                }),
                "lanes cannot be started",
            ),
            (
                Phase::Starting(steps::ON_START),
                JobErrorKind::Lost(WorkerExit::OutOfMemoryKill),
                "out-of-memory",
            ),
        ] {
            let text = of(phase, cause.clone());
            assert!(text.contains(expected), "{phase:?} {cause}: {text}");
            assert!(text.contains(&cause.to_string()), "{text}");
        }
        let text = of(
            Phase::Starting(steps::MAP),
            JobErrorKind::Lost(WorkerExit::Signal(9)),
        );
        assert!(
            text.ends_with(&JobErrorKind::Lost(WorkerExit::Signal(9)).to_string()),
            "no guess: {text}"
        );
        for code in [exited(0), JobErrorKind::Lost(WorkerExit::Signal(6))] {
            let text = before_ready(WorkerEntry::RunWorker, Phase::Unknown, &code, None, &[]);
            assert!(
                text.contains("arenite::run_worker()") && !text.contains("init()"),
                "{text}"
            );
        }
        let words = ["one".to_owned(), "two".to_owned()];
        let text = before_ready(WorkerEntry::Init, Phase::Unknown, &exited(1), None, &words);
        assert!(text.ends_with("its last words:\none\ntwo"), "{text}");
    }

    #[test]
    fn each_kill_accounts_for_one_worker() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        let counted = |kills: u64| {
            let text = format!("pgfault 1\noom_kill {kills}\n");
            std::fs::write(root.path().join("proc/vmstat"), text).unwrap();
        };
        counted(5);
        let mut kills = OomKills::new(root.path(), 3);
        kills.started(&[0, 1, 2]);
        assert!(!kills.explain(0), "what was before the start is not ours");
        counted(7);
        assert!(kills.explain(0));
        assert!(kills.explain(2));
        assert!(!kills.explain(1), "two kills, two workers");
        counted(8);
        kills.started(&[0]);
        assert!(!kills.explain(0), "killed before it was started");
        assert!(kills.explain(1));
        counted(9);
        assert!(kills.explain(0));
        counted(10);
        let (start, later) = (Instant::now(), |times| NOTICED_WITHIN * times);
        kills.look(start);
        kills.look(start + later(1) / 2);
        counted(11);
        assert!(kills.explain(0), "a moment ago");
        kills.look(start + later(1));
        assert!(kills.explain(1), "not long ago");
        counted(12);
        kills.look(start + later(2));
        counted(13);
        kills.look(start + later(3));
        assert!(kills.explain(2));
        assert!(!kills.explain(0), "the other one was long ago");
        std::fs::remove_file(root.path().join("proc/vmstat")).unwrap();
        assert!(!kills.explain(0), "nothing to read, nothing claimed");
        let blind = tempfile::tempdir().unwrap();
        assert!(!OomKills::new(blind.path(), 1).explain(0));
    }
}
