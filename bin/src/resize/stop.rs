//! SIGINT, SIGTERM and SIGHUP.
//!
//! | phase | first | second |
//! |---|---|---|
//! | before work begins, while nothing has been written | ends the program at once | |
//! | at work | what is under way is finished, the rest is not begun | ends the program at once |
//!
//! A SIGHUP behind another one is the same: a shell and the kernel each send it when a terminal closes.
//!
//! Whatever it was that ended the run, the program ends *by* that signal, when it has cleaned up: a shell's loop around it ends with
//! it, and shows 128 and the signal's number.
//!
//! A thread of its own takes them, so that the main thread may wait for whatever it likes. What the first one does is told
//! by yet another thread: where nobody reads stderr that one waits, and a second signal still ends the program. Ending at
//! once leaves no worker (they end with the program), no name, and no file under a temporary name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::progress::{clear, print_aside};

/// What is told when the first signal comes.
const NOTE: &str = "stopping: what is under way is finished; a second signal ends at once";

/// What is told when the second one does.
const LAST: &str = "error: ended at once; run the same command with --resume to go on";
/// How long that may take.
const PATIENCE: Duration = Duration::from_millis(200);

/// Whether somebody asked for an end, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// There is work under way that is worth finishing.
    working: AtomicBool,
    /// The exit code that the first signal stands for; 0 before it.
    code: AtomicU8,
    /// The file under a temporary name, if there is one just now.
    temporary: Mutex<Option<PathBuf>>,
    note: Mutex<Note>,
}

/// Whether the first signal is told to the user.
#[derive(Debug, Default)]
struct Note {
    /// There is work for it to stop, and somebody wants to know.
    wanted: bool,
    /// Whoever tells it.
    teller: Option<JoinHandle<()>>,
}

impl Stop {
    /// Listens from now on. A signal that this program was started without (`nohup`, a shell's background job) stays
    /// ignored, and where listening fails signals keep their usual effect.
    pub(crate) fn listen() -> Stop {
        let stop = Stop::default();
        let ignored = ignored();
        let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter();
        let wanted: Vec<i32> = wanted
            .filter(|signal| ignored & 1 << (signal - 1) == 0)
            .collect();
        let shared = Arc::clone(&stop.shared);
        let (listening, begins) = sync_channel(0);
        // The handlers are installed by the thread that serves them: where there is none, there are none.
        let thread = Builder::new().spawn(move || {
            let signals = Signals::new(wanted);
            let _ = listening.send(());
            if let Ok(mut signals) = signals {
                signals.forever().for_each(|signal| shared.take(signal));
            }
        });
        if thread.is_ok() {
            let _ = begins.recv();
        }
        stop
    }

    /// From now on the first signal lets finish what is under way, and that is told.
    pub(crate) fn begin_work(&self, quiet: bool) {
        self.shared.note().wanted = !quiet;
        // Release: "nothing written before this", pairs with `take`.
        self.shared.working.store(true, Ordering::Release);
    }

    /// The exit code that the first signal stands for, once one has come.
    pub(crate) fn code(&self) -> Option<u8> {
        // Relaxed: the number carries no other data with it.
        match self.shared.code.load(Ordering::Relaxed) {
            0 => None,
            code => Some(code),
        }
    }

    /// The same when all is done, after whatever was to be told of it; from now on nothing is.
    pub(crate) fn end_work(&self) -> Option<u8> {
        let teller = {
            let mut note = self.shared.note();
            note.wanted = false;
            note.teller.take()
        };
        if let Some(teller) = teller {
            let _ = teller.join();
        }
        self.code()
    }

    /// Has `make` make the file `path`, and then `write` fill it and take it away again. An end at once does not leave it behind: it
    /// waits while the file is made, and finds it, or came before, and none is made any more.
    pub(crate) fn guarding<F, T>(
        &self,
        path: &Path,
        make: impl FnOnce() -> io::Result<F>,
        write: impl FnOnce(F) -> T,
    ) -> io::Result<T> {
        let made = {
            let mut temporary = self.shared.temporary();
            let made = make()?;
            *temporary = Some(path.to_owned());
            made
        };
        let result = write(made);
        *self.shared.temporary() = None;
        Ok(result)
    }
}

impl Shared {
    fn note(&self) -> MutexGuard<'_, Note> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn temporary(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.temporary
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, signal: i32) {
        let code = code_of(signal);
        // Acquire: pairs with `begin_work`. Relaxed: see `Stop::code`; this is the only thread that writes it.
        let before = self.code.load(Ordering::Relaxed);
        let first = before == 0;
        if signal == SIGHUP && before == code {
            return;
        }
        if first && self.working.load(Ordering::Acquire) {
            // Held meanwhile: who sees the code at the end of its work finds the teller too.
            let mut note = self.note();
            self.code.store(code, Ordering::Relaxed);
            if note.wanted {
                note.teller = Builder::new().spawn(|| print_aside(NOTE)).ok();
            }
            return;
        }
        // The lock is held to the end, so that no other file is begun.
        let temporary = self.temporary();
        if let Some(path) = &*temporary {
            // Under its real name already.
            let _ = std::fs::remove_file(path);
        }
        let last = self.note().wanted.then_some(LAST);
        // As the first is told: where nobody reads stderr the end does not wait for it.
        let (told, heard) = sync_channel(1);
        let tell = move || {
            clear();
            last.inspect(|last| print_aside(last));
            told.send(())
        };
        if Builder::new().spawn(tell).is_ok() {
            let _ = heard.recv_timeout(PATIENCE);
        }
        // Workers may be about to start.
        let _nameless = arenite::nameless(PATIENCE);
        end_by(signal);
    }
}

/// What a shell shows of a program that this signal has ended.
fn code_of(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(130)
}

/// Ends the program by the signal that [`Stop::code`] stands for, if this is one of those codes.
pub(crate) fn end_by_code(code: u8) {
    if let Some(signal) = [SIGINT, SIGTERM, SIGHUP]
        .into_iter()
        .find(|&signal| code_of(signal) == code)
    {
        end_by(signal);
    }
}

fn end_by(signal: i32) -> ! {
    // Ends it, or fails.
    let _ = low_level::emulate_default_handler(signal);
    low_level::exit(code_of(signal).into());
}

/// The signals that this process ignores, as bits. One that it ignores it was told to ignore by whoever started it.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn an_end_finds_the_temporary_file_or_none_is_made() {
        let stop = Stop::default();
        let path = Path::new("picture.tmp");
        let noted = || {
            stop.shared
                .temporary
                .try_lock()
                .ok()
                .map(|path| path.clone())
        };
        let make = || {
            assert_eq!(noted(), None, "an end would have to wait");
            Ok(())
        };
        let write = |()| assert_eq!(noted(), Some(Some(path.to_owned())));
        stop.guarding(path, make, write).unwrap();
        assert_eq!(noted(), Some(None));
        let full = || Err::<(), _>(io::ErrorKind::StorageFull.into());
        stop.guarding(path, full, |()| ()).unwrap_err();
        assert_eq!(noted(), Some(None));
    }
}
