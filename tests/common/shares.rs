//! Runs a suite as several programs at the same time, because it waits for most of its time: for deaths, deadlines, stopped
//! processes.
//!
//! Trials of one program run one after the other, because each is checked for leftovers in its process, in `/dev/shm` and in the
//! folder for temporary files. So each program has its own, which needs root; otherwise there is one program. `--test-threads`
//! sets the number of programs.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio, exit};
use std::time::Instant;
use std::{env, fs, thread};

use libtest_mimic::{Arguments, Conclusion, Trial};
use tempfile::TempDir;

use super::programs::{end_with_parent, may_have_own_shm, own_shm};
use super::{asked, figures_are_strict};

/// Environment variable with the share of this program: "1/2".
const SHARE: &str = "ARENITE_TEST_SHARE";

/// Number of programs for each core: most of them wait at any time.
const PER_CORE: usize = 3;
/// Maximum number of programs: each takes memory.
const MAX: usize = 12;

/// Exit code of a test program with a failed trial.
const FAILED: i32 = 101;

/// Divides the trials among several programs if possible, and then exits with their result. Call it before the trials are set up.
pub fn share_out() {
    let arguments = Arguments::from_args();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let count = arguments
        .test_threads
        .unwrap_or((cores * PER_CORE).min(MAX));
    let plain = !arguments.list && arguments.format.is_none() && arguments.logfile.is_none();
    // Strict figures need an idle machine.
    let alone = count < 2 || !plain || figures_are_strict();
    if alone || env::var_os(SHARE).is_some() || !may_have_own_shm() {
        return;
    }
    let began = Instant::now();
    println!("{}={}", asked::SEED, asked::seed());
    let programs: Vec<_> = (1..=count).map(|n| Share::start(n, count)).collect();
    let all: Vec<_> = thread::scope(|threads| {
        let shown = programs
            .into_iter()
            .map(|share| threads.spawn(|| share.show()));
        let shown: Vec<_> = shown.collect();
        shown
            .into_iter()
            .map(|result| result.join().expect("the thread has not panicked"))
            .collect()
    });
    let mut trials = [0; 4];
    for ended in &all {
        print!("{}", ended.failures);
        (trials.iter_mut().zip(ended.trials)).for_each(|(sum, of_one)| *sum += of_one);
    }
    let is_ok = all.iter().all(|ended| ended.is_ok);
    let word = if is_ok { "ok" } else { "FAILED" };
    let [passed, failed, ignored, filtered] = trials;
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {filtered} filtered out; \
         finished in {:.2}s, in {count} programs\n",
        began.elapsed().as_secs_f64()
    );
    exit(if is_ok { 0 } else { FAILED });
}

/// Runs the trials of this program's share, one after the other.
pub fn run(tests: Vec<Trial>) -> Conclusion {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let tests = match env::var(SHARE) {
        Ok(share) => {
            let (n, count) = share.split_once('/').expect("one of how many");
            let [n, count]: [usize; 2] = [n, count].map(|text| text.parse().expect("a number"));
            // Interleaved, because neighbours take about the same time.
            let own = tests.into_iter().skip(n - 1).step_by(count);
            own.collect()
        }
        Err(_) => tests,
    };
    libtest_mimic::run(&arguments, tests)
}

/// A program with its share of the trials.
struct Share {
    child: Child,
    // Removed when the program has ended.
    _temporary: TempDir,
}

/// The result of a share.
struct Ended {
    is_ok: bool,
    /// Numbers of passed, failed, ignored and filtered trials.
    trials: [u64; 4],
    /// Output about failed trials.
    failures: String,
}

impl Share {
    fn start(n: usize, count: usize) -> Self {
        let temporary = tempfile::tempdir().expect("a folder can be made");
        // Trials that become another user create files there, too.
        let mode = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(temporary.path(), mode).expect("the folder belongs to this process");
        let mut command = Command::new(env::current_exe().expect("/proc is mounted"));
        command
            .args(env::args_os().skip(1))
            .env(SHARE, format!("{n}/{count}"))
            // They draw the same trials.
            .env(asked::SEED, asked::seed().to_string())
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped());
        // SAFETY: both make system calls only.
        unsafe { command.pre_exec(own_shm(None)).pre_exec(end_with_parent) };
        let child = command.spawn().expect("this very program can be started");
        Self {
            child,
            _temporary: temporary,
        }
    }

    /// Prints its output about each trial; returns the output about failed ones.
    fn show(mut self) -> Ended {
        let (mut trials, mut failures) = (None, String::new());
        let mut lines = BufReader::new(self.child.stdout.take().expect("it has a pipe"));
        let mut line = Vec::new();
        while lines
            .read_until(b'\n', &mut line)
            .expect("a pipe can be read")
            > 0
        {
            let text = String::from_utf8_lossy(&line);
            match text.strip_prefix("test result: ") {
                Some(result) => trials = Some(counts(result)),
                None if !failures.is_empty() || text.trim_end() == "failures:" => failures += &text,
                None if text.starts_with("running ") || text.trim_end().is_empty() => {}
                None => print!("{text}"),
            }
            line.clear();
        }
        let status = self
            .child
            .wait()
            .expect("the folder belongs to this process");
        match trials {
            None => {
                failures += &format!(
                    "\na program with a share of the trials ended without a result: {status}\n"
                )
            }
            Some(_) if status.success() => failures.clear(),
            Some(_) => {}
        }
        Ended {
            is_ok: trials.is_some() && status.success(),
            trials: trials.unwrap_or_default(),
            failures,
        }
    }
}

/// Parses "ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.1s".
fn counts(result: &str) -> [u64; 4] {
    ["passed", "failed", "ignored", "filtered"].map(|what| {
        let words = result.split_whitespace().collect::<Vec<_>>();
        let found = words.windows(2).find(|pair| pair[1].starts_with(what));
        let number = found.and_then(|pair| pair[0].parse().ok());
        number.unwrap_or_else(|| panic!("no number {what} in {result:?}"))
    })
}
