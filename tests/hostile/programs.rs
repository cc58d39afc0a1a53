//! Programs of their own: this one, told what to do, in surroundings that the test has prepared.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::harness::{Invariant, processes_of, step, wait_until};

/// What the program shall do.
const SCENARIO: &str = "ARENITE_HOSTILE";

/// The user who may do nothing.
pub const NOBODY: u32 = 65534;

/// Whether this process may do what only root may: become somebody else, mount, make namespaces.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A program in a process group of its own, which ends with the thread that started it.
#[derive(Debug)]
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub output: String,
    pub errors: String,
}

impl Program {
    /// Starts this program for a scenario. `prepare` runs in the new process before anything else does, and may only
    /// make system calls.
    pub fn start(
        scenario: &str,
        prepare: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::with(scenario, prepare, |_| ())
    }

    pub fn with(
        scenario: &str,
        prepare: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env(SCENARIO, scenario)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        change(&mut command);
        // SAFETY: `prepare` makes system calls only.
        unsafe { command.pre_exec(prepare) };
        let mut child = command.spawn().expect("this very program can be started");
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits until it says a line, and returns that.
    pub fn line(&mut self) -> String {
        step("a line of the program");
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("its output can be read");
        line.trim_end().to_owned()
    }

    /// Waits until it says this line.
    pub fn expect(&mut self, word: &str) {
        let line = self.line();
        if line != word {
            let ended = self.finish();
            panic!("{line:?} instead of {word:?}; {ended:?}");
        }
    }

    /// Lets it go on after [`pause`].
    pub fn go_on(&mut self) {
        let input = self.input.as_mut().expect("its input is open");
        // Whether it is still there to read this is seen when it ends.
        let _ = input.write_all(b"\n").and_then(|()| input.flush());
    }

    fn finish(&mut self) -> Ended {
        step("the program to end");
        drop(self.input.take());
        let (mut output, mut errors) = (String::new(), Vec::new());
        let mut stderr = self.child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            stderr.read_to_end(&mut errors).unwrap();
            errors
        });
        let _ = self.output.read_to_string(&mut output);
        let status = self.child.wait().unwrap();
        let errors = String::from_utf8_lossy(&reader.join().unwrap()).into_owned();
        Ended {
            code: status.code(),
            signal: status.signal(),
            output,
            errors,
        }
    }

    /// Waits for its end, and for that of all that it had started.
    pub fn end(mut self) -> Ended {
        let ended = self.finish();
        let group = self.pid();
        wait_until("its workers are gone", || processes_of(group).is_empty());
        ended
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Whatever a failed test leaves; usually nobody is there any more.
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Ended {
    /// It went through to its end.
    #[track_caller]
    pub fn assert_done(&self) {
        assert_eq!(
            (self.code, self.output.as_str()),
            (Some(0), "done\n"),
            "{self:?}"
        );
    }
}

/// Becomes the user who may do nothing, if this is root.
pub fn become_nobody() -> std::io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    // SAFETY: numbers only; the groups are none.
    let answer = unsafe {
        libc::setgroups(0, std::ptr::null())
            | libc::setresgid(NOBODY, NOBODY, NOBODY)
            | libc::setresuid(NOBODY, NOBODY, NOBODY)
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// In a program: says a line.
pub fn say(line: impl std::fmt::Display) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// In a program: waits until it may go on.
pub fn pause() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

/// Plays the scenario that the environment names, if any.
pub fn play(scenarios: &[(&str, fn())]) {
    let Ok(name) = std::env::var(SCENARIO) else {
        return;
    };
    let scenario = scenarios.iter().find(|(known, _)| *known == name);
    let (_, scenario) = scenario.unwrap_or_else(|| panic!("no scenario {name}"));
    let before = Invariant::before();
    scenario();
    if let Err(what) = before.nothing_left() {
        eprintln!("{what}");
        std::process::exit(3);
    }
    say("done");
    std::process::exit(0);
}
