//! Ctrl-C: the first one lets finish what runs, the second one ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether somebody asked for an end, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// Listens for SIGINT and SIGTERM. Where that fails they keep their usual effect.
    pub(crate) fn listen() -> Stop {
        let stop = Stop::default();
        let again = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let code = 128 + signal;
            // In this order: the first signal finds `again` unset and sets it.
            let _ = flag::register_conditional_shutdown(signal, code, Arc::clone(&again));
            let _ = flag::register(signal, Arc::clone(&again));
            let _ = flag::register_usize(signal, Arc::clone(&stop.signal), code as usize);
        }
        stop
    }

    /// The exit code that the signal stands for, once one has come.
    pub(crate) fn code(&self) -> Option<u8> {
        // Relaxed: the number carries no other data with it.
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            code => Some(u8::try_from(code).unwrap_or(130)),
        }
    }
}
