//! Child programs: this program, started again for a scenario, in an environment that the test has prepared.

use std::ffi::{CStr, CString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Instant;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::{Invariant, processes_of, step, wait_until};

/// Environment variable with the name of the scenario.
pub const SCENARIO: &str = "ARENITE_TEST_SCENARIO";

/// What a child program does, with its name.
pub type Scenario = (&'static str, fn());

/// A child program in a session of its own. It ends with the thread that started it, which has to live as long.
#[derive(Debug)]
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Whether its output has ended.
    has_ended: bool,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Time of its end; its children may end later.
    pub at: Instant,
    pub status: ExitStatus,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub output: String,
    pub errors: String,
}

impl Program {
    /// Starts this program for a scenario. `prepare` runs first in the new process, and may only make system calls.
    pub fn start(
        scenario: &str,
        prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::with(scenario, prepare, |_| ())
    }

    pub fn with(
        scenario: &str,
        prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(SCENARIO, scenario);
        change(&mut command);
        Self::spawn(command, prepare)
    }

    /// Starts any program.
    pub fn spawn(
        mut command: Command,
        prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        own_session(&mut command);
        // After `prepare`: Linux clears this signal when the process becomes another user.
        // SAFETY: both make system calls only. They are called in this order.
        unsafe { command.pre_exec(prepare).pre_exec(end_with_parent) };
        let mut child = command.spawn().expect("the program can be started");
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            has_ended: false,
            child,
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for a line of its output.
    pub fn line(&mut self) -> String {
        step("a line of the program");
        let mut line = String::new();
        let bytes = self.output.read_line(&mut line);
        self.has_ended = bytes.expect("its output can be read") == 0;
        line.trim_end().to_owned()
    }

    /// Waits for this line of its output.
    pub fn expect(&mut self, word: &str) {
        let line = self.line();
        if line != word {
            self.fail_with(&line, word);
        }
    }

    /// Waits for a line that begins with this word, and returns the rest of it.
    pub fn line_after(&mut self, word: &str) -> String {
        let line = self.line();
        match line.strip_prefix(word) {
            Some(rest) => rest.trim_start().to_owned(),
            None => self.fail_with(&line, word),
        }
    }

    fn fail_with(&mut self, line: &str, word: &str) -> ! {
        // Otherwise it might never end.
        if !self.has_ended {
            self.kill_all();
        }
        let ended = self.wait();
        panic!("{line:?} instead of {word:?}; {ended:?}");
    }

    /// Lets it continue after [`pause`].
    pub fn go_on(&mut self) {
        let input = self.input.as_mut().expect("its input is open");
        // Fails if it has ended, which its exit code shows.
        let _ = input.write_all(b"\n").and_then(|()| input.flush());
    }

    /// Kills the program, but not its children.
    pub fn kill(&self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGKILL).expect("the program runs");
    }

    fn kill_all(&self) {
        // Usually no process is left.
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
    }

    /// Returns the running processes of its session.
    pub fn processes(&self) -> Vec<i32> {
        processes_of(self.pid())
    }

    /// Closes its input and waits for its end. Call it once. Its children may still run.
    pub fn wait(&mut self) -> Ended {
        step("the program to end");
        drop(self.input.take());
        let mut stderr = self.child.stderr.take().expect("it is waited for once");
        let (child, output) = (&mut self.child, &mut self.output);
        let (status, at, output, errors) = std::thread::scope(|threads| {
            // Both at the same time: it blocks while one of its pipes is full.
            let output = threads.spawn(|| read(output));
            let errors = threads.spawn(|| read(&mut stderr));
            let status = child.wait().unwrap();
            let at = Instant::now();
            (status, at, output.join().unwrap(), errors.join().unwrap())
        });
        Ended {
            at,
            status,
            code: status.code(),
            signal: status.signal(),
            output,
            errors,
        }
    }

    /// Waits until none of its processes is left.
    pub fn await_all_gone(&self) {
        wait_until("its workers are gone with it", || {
            self.processes().is_empty()
        });
    }

    /// Waits for its end and for that of its children.
    pub fn end(mut self) -> Ended {
        let ended = self.wait();
        self.await_all_gone();
        ended
    }
}

/// In a new process, before it runs its program: lets Linux kill it when the thread that started it ends.
pub fn end_with_parent() -> io::Result<()> {
    // SAFETY: no memory is involved.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets the program that this starts lead a session, so that its workers, each of which leads a group, can be found.
pub fn own_session(command: &mut Command) -> &mut Command {
    let lead = || nix::unistd::setsid().map(drop).map_err(io::Error::from);
    // SAFETY: it makes a system call only.
    unsafe { command.pre_exec(lead) }
}

/// Gives this process mounts of its own. Makes system calls only. Needs root.
pub fn own_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&CStr>;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    Ok(mount(none, c"/", none, private, none)?)
}

/// Returns a `pre_exec` function that mounts a private `/dev/shm` of `mib` MiB, or of the default size. Needs root.
pub fn own_shm(mib: Option<u32>) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    let size = mib.map_or_else(String::new, |mib| format!("size={mib}m,"));
    let data = CString::new(format!("{size}mode=1777")).expect("it contains no zero byte");
    move || {
        own_mounts()?;
        let tmpfs = Some(c"tmpfs");
        let shm = c"/dev/shm";
        Ok(mount(tmpfs, shm, tmpfs, MsFlags::empty(), Some(&*data))?)
    }
}

/// Returns whether [`own_shm`] is permitted.
pub fn may_have_own_shm() -> bool {
    is_permitted(own_shm(None))
}

/// Returns whether a new process may do this, which makes system calls only.
pub fn is_permitted(prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> bool {
    let mut command = Command::new("true");
    // SAFETY: the function makes system calls only.
    unsafe { command.pre_exec(prepare) };
    command.status().is_ok_and(|status| status.success())
}

/// Reads a pipe to its end. Output counts as progress for the watchdog.
fn read(pipe: &mut impl Read) -> String {
    let (mut bytes, mut some) = (Vec::new(), [0; 4096]);
    loop {
        match pipe.read(&mut some).expect("a pipe can be read") {
            0 => return String::from_utf8_lossy(&bytes).into_owned(),
            count => bytes.extend_from_slice(&some[..count]),
        }
        let tail = &bytes[bytes.len().saturating_sub(200)..];
        let tail = String::from_utf8_lossy(tail);
        step(format!("the program to end; its last output was {tail:?}"));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // For failed tests.
        self.kill_all();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Asserts that it has completed its scenario.
    #[track_caller]
    pub fn assert_done(&self) {
        assert_eq!(
            (self.code, self.output.as_str()),
            (Some(0), "done\n"),
            "{self:?}"
        );
    }

    /// Asserts that it was killed.
    #[track_caller]
    pub fn assert_killed(&self) {
        assert_eq!(self.signal, Some(Signal::SIGKILL as i32), "{self:?}");
    }
}

/// In a child program: prints a line.
pub fn say(line: impl std::fmt::Display) {
    println!("{line}");
    io::stdout().flush().unwrap();
}

/// In a child program: waits for [`Program::go_on`].
pub fn pause() {
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
}

/// In a child program: waits until its parent closes the pipe or kills it.
pub fn stay() {
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Returns the name of the scenario, if a test has started this program.
pub fn scenario_name() -> Option<String> {
    std::env::var(SCENARIO).ok()
}

/// Runs the scenario that the environment names, if any, then prints `done` and exits.
pub fn play(scenarios: &[Scenario]) {
    let Some(name) = scenario_name() else {
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
