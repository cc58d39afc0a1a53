//! The end of the program while engines live, such as those in a `static`: the output of jobs that have ended is handed
//! over before.

use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::thread;
use std::time::Duration;

use super::shared::Supervisor;
use crate::sys::process;

/// The engines of this program.
static ENGINES: Mutex<Vec<Weak<Supervisor>>> = Mutex::new(Vec::new());

/// How often, and how long in all, [`flush_all`] tries to lock the list. Other threads hold it for microseconds. In a
/// copy made by `fork` it may be locked by a thread that does not exist there.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// From now on [`Supervisor::flush_logs`] is called when the program ends by `exit` or by the end of `main` while this
/// engine lives.
pub(super) fn flush_logs_of(engine: &Arc<Supervisor>) {
    process::call_at_exit(flush_all);
    let mut engines = ENGINES
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    engines.retain(|engine| engine.strong_count() > 0);
    engines.push(Arc::downgrade(engine));
}

fn flush_all() {
    let list = || {
        (0..TRIES).find_map(|_| match ENGINES.try_lock() {
            Ok(engines) => Some(engines.clone()),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner().clone()),
            Err(TryLockError::WouldBlock) => {
                thread::sleep(PAUSE);
                None
            }
        })
    };
    for engine in list().unwrap_or_default() {
        let Some(engine) = engine.upgrade() else {
            continue;
        };
        // Unwinding out of a handler of `exit` would abort.
        let _ = catch_unwind(std::panic::AssertUnwindSafe(|| engine.flush_logs()));
        // Not dropped: this may be the last reference if another thread drops the engine at this moment, and freeing
        // its memory is work that the end of the process makes superfluous.
        std::mem::forget(engine);
    }
}
