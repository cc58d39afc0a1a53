//! Handling of SIGINT, SIGTERM and SIGHUP.
//!
//! | phase | first signal | second signal |
//! |---|---|---|
//! | before work, while nothing has been written | ends the program at once | |
//! | during work | pictures in flight finish, the rest is not begun | ends the program at once |
//!
//! A second SIGHUP is ignored: a shell and Linux each send one when a terminal closes.
//!
//! After cleaning up, the program ends *by* the signal: a shell loop that contains it ends too, and the shell shows 128
//! plus the signal's number.
//!
//! Signals are handled on a separate thread, so that the main thread may block anywhere. Another thread prints the
//! message about the first signal: the print blocks if stderr is not read, and a second signal must still end the
//! program. When the program ends at once, it leaves no worker (workers end with the program), no name in `/dev/shm`,
//! and no temporary file.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Sender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::progress::{clear, print_aside};
use crate::folder::Temporary;

/// The message about the first signal.
const FIRST_MESSAGE: &str = "stopping: pictures under way finish; a second signal ends at once";

/// The message about the second signal.
const SECOND_MESSAGE: &str = "error: ended at once; run the same command with --resume to continue";

/// The message about the second signal, if the work cannot be continued later.
const PLAIN_SECOND_MESSAGE: &str = "error: ended at once";

/// The time limit for printing the last message.
const PRINT_LIMIT: Duration = Duration::from_millis(200);

/// Whether a signal has requested the end of the run, and which signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether pictures in flight may finish after the first signal.
    working: AtomicBool,
    /// The exit code for the first signal; 0 before a signal.
    code: AtomicU8,
    /// The temporary file that exists at the moment, if any.
    temporary: Mutex<Option<Temporary>>,
    message: Mutex<Message>,
}

/// The message about the first signal.
#[derive(Debug, Default)]
struct Message {
    /// Whether to print the message: during work, and without `--quiet`.
    is_wanted: bool,
    /// Whether `--resume` can continue the work.
    can_resume: bool,
    /// The thread that prints the message.
    printer: Option<JoinHandle<()>>,
    /// Notified about the first signal.
    notified: Option<Sender<()>>,
}

impl Stop {
    /// Starts to handle signals. If that fails, signals keep their default effect.
    pub(crate) fn listen() -> Stop {
        let stop = Stop::default();
        let shared = Arc::clone(&stop.shared);
        let (listening, begins) = sync_channel(0);
        // The thread installs the handlers: if it cannot start, none are installed.
        let thread = Builder::new().spawn(move || {
            let signals = end_signals();
            let _ = listening.send(());
            if let Ok(mut signals) = signals {
                signals.forever().for_each(|signal| shared.handle(signal));
            }
        });
        if thread.is_ok() {
            let _ = begins.recv();
        }
        stop
    }

    /// Lets pictures in flight finish after the first signal from now on. Unless `quiet`, that signal prints a message
    /// that says so.
    pub(crate) fn begin_work(&self, quiet: bool, can_resume: bool) {
        {
            let mut message = self.shared.message();
            message.is_wanted = !quiet;
            message.can_resume = can_resume;
        }
        // Release: "nothing written before this", pairs with the load in `Shared::handle`.
        self.shared.working.store(true, Ordering::Release);
    }

    /// Like [`begin_work`](Self::begin_work), for work that waits for further input: `notified` is sent a message at
    /// the first signal. [`end_work`](Self::end_work) drops `notified`.
    pub(crate) fn begin_jobs(&self, quiet: bool, notified: Sender<()>) {
        self.shared.message().notified = Some(notified);
        self.begin_work(quiet, false);
    }

    /// Ends the program at once with this exit code. Leaves no worker, no name and no temporary file.
    pub(crate) fn exit_at_once(&self, code: u8, message: String) -> ! {
        self.shared.end_at_once(Some(message), code)
    }

    /// Returns the exit code for the first signal. `None` before a signal.
    pub(crate) fn code(&self) -> Option<u8> {
        // Relaxed: the number guards no other memory.
        match self.shared.code.load(Ordering::Relaxed) {
            0 => None,
            code => Some(code),
        }
    }

    /// Ends the phase of work: waits until the message in progress is printed, and prints no other. Returns
    /// [`code`](Self::code).
    pub(crate) fn end_work(&self) -> Option<u8> {
        let printer = {
            let mut message = self.shared.message();
            message.is_wanted = false;
            message.notified = None;
            message.printer.take()
        };
        if let Some(printer) = printer {
            let _ = printer.join();
        }
        self.code()
    }

    /// Runs `make`, which creates a temporary file, `write`, which fills it, and `place`, which renames or removes it.
    /// After an error, removes the file. If the program ends at once, the file is removed too: files are created and
    /// renamed under a lock that the ending thread keeps, so either that thread finds the file, or the file is never
    /// created.
    pub(crate) fn guarding<W, T, E: From<io::Error>>(
        &self,
        make: impl FnOnce() -> io::Result<(Temporary, File)>,
        write: impl FnOnce(File) -> Result<W, E>,
        place: impl FnOnce(&Temporary, W) -> Result<T, E>,
    ) -> Result<T, E> {
        let (temporary, file) = {
            let mut current = self.shared.temporary();
            let made = make()?;
            *current = Some(made.0.clone());
            made
        };
        let written = write(file);
        let mut current = self.shared.temporary();
        let placed = written.and_then(|written| place(&temporary, written));
        if placed.is_err() {
            temporary.remove();
        }
        *current = None;
        placed
    }
}

impl Shared {
    fn message(&self) -> MutexGuard<'_, Message> {
        self.message.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn temporary(&self) -> MutexGuard<'_, Option<Temporary>> {
        self.temporary
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, signal: i32) {
        let code = code_of(signal);
        // Relaxed: see `Stop::code`; only this thread writes it.
        let before = self.code.load(Ordering::Relaxed);
        let first = before == 0;
        if signal == SIGHUP && before == code {
            return;
        }
        // Acquire: "nothing written before this", pairs with the store in `begin_work`.
        if first && self.working.load(Ordering::Acquire) {
            // The lock is held across the store: when `end_work` finds the code, it also finds the printer.
            let mut message = self.message();
            self.code.store(code, Ordering::Relaxed);
            if let Some(notified) = &message.notified {
                let _ = notified.send(());
            }
            if message.is_wanted {
                message.printer = Builder::new().spawn(|| print_aside(FIRST_MESSAGE)).ok();
            }
            return;
        }
        let last = {
            let message = self.message();
            let second = match message.can_resume {
                true => SECOND_MESSAGE,
                false => PLAIN_SECOND_MESSAGE,
            };
            message.is_wanted.then(|| second.to_owned())
        };
        self.end_at_once(last, code)
    }

    /// Cleans up, prints `last`, and ends the program with this exit code, or by the signal that the code stands for.
    fn end_at_once(&self, last: Option<String>, code: u8) -> ! {
        // The lock is held to the end, so that no other file is created.
        let temporary = self.temporary();
        if let Some(temporary) = &*temporary {
            temporary.remove();
        }
        // Print on another thread: writing blocks if stderr is not read.
        let (printed, wait) = sync_channel(1);
        let print = move || {
            clear();
            last.iter().for_each(|last| print_aside(last));
            printed.send(())
        };
        if Builder::new().spawn(print).is_ok() {
            let _ = wait.recv_timeout(PRINT_LIMIT);
        }
        // Workers that are starting must leave no name.
        let _names = arenite::lock_socket_names(PRINT_LIMIT);
        end_by_code(code);
        low_level::exit(code.into())
    }
}

/// Returns the exit code that a shell shows for a program that this signal has ended.
fn code_of(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(130)
}

/// If the exit code stands for a signal, ends the program by that signal.
pub(crate) fn end_by_code(code: u8) {
    if let Some(signal) = [SIGINT, SIGTERM, SIGHUP]
        .into_iter()
        .find(|&signal| code_of(signal) == code)
    {
        end_by(signal);
    }
}

fn end_by(signal: i32) -> ! {
    // `emulate_default_handler` returns only if it fails.
    let _ = low_level::emulate_default_handler(signal);
    low_level::exit(code_of(signal).into());
}

/// Handles SIGINT, SIGTERM and SIGHUP from now on. A signal that was ignored when the program started (`nohup`, a
/// background job of a shell) stays ignored.
pub(crate) fn end_signals() -> io::Result<Signals> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter();
    Signals::new(wanted.filter(|signal| ignored & 1 << (signal - 1) == 0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use nix::fcntl::OFlag;

    use super::*;
    use crate::folder::Folder;

    #[test]
    fn an_end_at_once_finds_the_temporary_file_or_prevents_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(place.path()).unwrap());
        let stop = Stop::default();
        let is_noted = || {
            let noted = stop.shared.temporary.try_lock().ok();
            noted.map(|temporary| temporary.is_some())
        };
        let make = || {
            assert_eq!(is_noted(), None, "an end at once would have to wait");
            Temporary::create(&folder, "picture.tmp", OFlag::O_WRONLY)
        };
        let write = |_| {
            assert_eq!(is_noted(), Some(true));
            io::Result::Ok(())
        };
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let rename = |temporary: &Temporary, ()| {
            assert_eq!(is_noted(), None, "an end at once would have to wait");
            temporary.place("picture".as_ref(), |_| Ok(()))
        };
        stop.guarding(make, write, rename).unwrap();
        assert_eq!(is_noted(), Some(false));
        let none = || Err(full());
        stop.guarding(none, write, |_, ()| io::Result::Ok(()))
            .unwrap_err();
        assert_eq!(is_noted(), Some(false));
        let failed = |_| Err(full());
        stop.guarding(make, failed, |_, ()| io::Result::Ok(()))
            .unwrap_err();
        assert_eq!(is_noted(), Some(false));
        let names = std::fs::read_dir(place.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["picture"]);
    }
}
