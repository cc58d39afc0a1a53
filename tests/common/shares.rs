//! A suite in several programs side by side. Most of its time it waits: for a death, for a deadline, for who was stopped.
//!
//! Trials of one program run one after the other, because each is checked for what it leaves behind: in its process, in
//! `/dev/shm`, where temporary files are made. So each program has these to itself, which takes the rights of root; without them
//! there is one program for all. `--test-threads` says how many there shall be.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio, exit};
use std::time::Instant;
use std::{env, fs, io, thread};

use libtest_mimic::{Arguments, Conclusion, Trial};
use tempfile::TempDir;

use super::figures_are_strict;
use super::programs::{may_have_own_shm, own_shm};

/// Which share this program has, and of how many: "1/2".
const SHARE: &str = "ARENITE_TEST_SHARE";

/// As many as there are cores, up to these: each takes memory.
const MOST: usize = 4;

/// What a test program ends with if one of its trials has failed.
const FAILED: i32 = 101;

/// To be called before anything is made for the trials. Where they can be shared out, other programs run them, and this one ends
/// with their result.
pub fn share_out() {
    let arguments = Arguments::from_args();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let count = arguments.test_threads.unwrap_or(cores.min(MOST));
    let plain = !arguments.list && arguments.format.is_none() && arguments.logfile.is_none();
    // Figures are asserted where nothing else runs.
    let alone = count < 2 || !plain || figures_are_strict();
    if alone || env::var_os(SHARE).is_some() || !may_have_own_shm() {
        return;
    }
    let began = Instant::now();
    let programs: Vec<_> = (1..=count).map(|n| Share::start(n, count)).collect();
    let all: Vec<_> = thread::scope(|threads| {
        let shown = programs
            .into_iter()
            .map(|share| threads.spawn(|| share.show()));
        let shown: Vec<_> = shown.collect();
        shown
            .into_iter()
            .map(|result| result.join().expect("it was shown"))
            .collect()
    });
    let mut trials = [0; 4];
    for ended in &all {
        print!("{}", ended.said);
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

/// Runs the trials of this program, one after the other.
pub fn run(tests: Vec<Trial>) -> Conclusion {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let tests = match env::var(SHARE) {
        Ok(share) => {
            let (n, count) = share.split_once('/').expect("one of how many");
            let [n, count]: [usize; 2] = [n, count].map(|text| text.parse().expect("a number"));
            // Neighbours take about as long as each other.
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

/// What came of a share.
struct Ended {
    is_ok: bool,
    /// How many passed, failed, were ignored, were not asked for.
    trials: [u64; 4],
    /// What there is to read about those that failed.
    said: String,
}

impl Share {
    fn start(n: usize, count: usize) -> Self {
        let temporary = tempfile::tempdir().expect("a folder can be made");
        // Some trials become another user, who makes files there, too.
        let mode = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(temporary.path(), mode).expect("it is ours");
        let mut command = Command::new(env::current_exe().expect("/proc is mounted"));
        command
            .args(env::args_os().skip(1))
            .env(SHARE, format!("{n}/{count}"))
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped());
        // It does not outlive this one.
        let bound = || {
            // SAFETY: no memory is involved.
            match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: both make system calls only.
        unsafe { command.pre_exec(own_shm(None)).pre_exec(bound) };
        let child = command.spawn().expect("this very program can be started");
        Self {
            child,
            _temporary: temporary,
        }
    }

    /// Shows what it says of each trial, and keeps what it says in the end of those that failed.
    fn show(mut self) -> Ended {
        let (mut trials, mut said) = (None, String::new());
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
                None if !said.is_empty() || text.trim_end() == "failures:" => said += &text,
                None if text.starts_with("running ") || text.trim_end().is_empty() => {}
                None => print!("{text}"),
            }
            line.clear();
        }
        let status = self.child.wait().expect("it is ours");
        match trials {
            None => {
                said += &format!(
                    "\na program with a share of the trials ended without a result: {status}\n"
                )
            }
            Some(_) if status.success() => said.clear(),
            Some(_) => {}
        }
        Ended {
            is_ok: trials.is_some() && status.success(),
            trials: trials.unwrap_or_default(),
            said,
        }
    }
}

/// Of "ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.1s".
fn counts(result: &str) -> [u64; 4] {
    ["passed", "failed", "ignored", "filtered"].map(|what| {
        let words = result.split_whitespace().collect::<Vec<_>>();
        let found = words.windows(2).find(|pair| pair[1].starts_with(what));
        let number = found.and_then(|pair| pair[0].parse().ok());
        number.unwrap_or_else(|| panic!("no number {what} in {result:?}"))
    })
}
