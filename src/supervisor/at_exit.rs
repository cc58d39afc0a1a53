//! Flushes the output of ended jobs when the program ends while engines exist, for example in a `static`.

use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::thread;
use std::time::Duration;

use super::shared::Supervisor;
use crate::sync::{catch_panic, lock};
use crate::sys::process;

/// The engines of this program.
static ENGINES: Mutex<Vec<Weak<Supervisor>>> = Mutex::new(Vec::new());

/// The number of attempts of [`flush_all`] to lock the list. Other threads hold the lock for microseconds only, but in
/// a process made by `fork` a thread that does not exist there may hold it.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// Makes the program call [`Supervisor::flush_logs`] when it ends by `exit` or by the end of `main`, if this engine
/// exists then.
pub(super) fn flush_logs_of(engine: &Arc<Supervisor>) {
    process::call_at_exit(flush_all);
    let mut engines = lock(&ENGINES);
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
        catch_panic(|| engine.flush_logs());
        // The engine is not dropped: this may be the last reference if another thread drops its own at this moment. The
        // end of the process frees the memory faster.
        std::mem::forget(engine);
    }
}
