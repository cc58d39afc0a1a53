//! Locking a worker down: step 10 of the start, and the look whether it holds.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU32;
use std::thread;

use super::fence::{self, Outcome};
use crate::sys::sandbox::{self, Keep, Kernel};

/// What the panic of the self-test says.
const PANIC: &str = "a panic of the self-test";

/// What a worker has before code of the program runs.
#[derive(Debug)]
pub(super) struct Before {
    descriptors: Vec<RawFd>,
}

impl Before {
    /// Notes it.
    pub(super) fn note() -> Result<Self, String> {
        let descriptors = sandbox::descriptors().map_err(|error| error.to_string())?;
        Ok(Self { descriptors })
    }

    /// Closes what has been opened since, and takes all rights away that a kernel does not need; then tries some of
    /// both. `bell` may be written to, and `watch` not be closed; what else is open is the handshake's.
    pub(super) fn lock_down(
        &self,
        bell: RawFd,
        watch: RawFd,
        denied: &'static AtomicU32,
    ) -> Result<(), String> {
        let text = |error: crate::sys::Error| error.to_string();
        let threads = sandbox::threads();
        if threads != 1 {
            return Err(format!(
                "on_worker_start left {} threads running, which a strict sandbox cannot bind",
                threads - 1
            ));
        }
        sandbox::close_others(&self.descriptors).map_err(text)?;
        let known = [0, 1, 2, bell, watch];
        let others = self.descriptors.iter().filter(|fd| !known.contains(fd));
        let keep = Keep {
            writable: vec![1, 2, bell],
            channel: others.copied().collect(),
            unclosable: vec![watch],
        };
        let kernel = sandbox::kernel();
        sandbox::lock_down(kernel, &keep, denied).map_err(text)?;
        self_test(kernel).map_err(|why| format!("the sandbox does not fit this program: {why}"))
    }
}

/// A kernel's life in small: memory, a panic, a thread with both, and a file that must stay shut.
fn self_test(kernel: Kernel) -> Result<(), String> {
    live(kernel)?;
    let second = thread::Builder::new()
        .spawn(move || live(kernel))
        .map_err(|error| format!("no thread can be started: {error}"))?;
    second
        .join()
        .map_err(|_| "the second thread panicked".to_owned())??;
    if kernel.seccomp || kernel.landlock > 0 {
        match File::open("/proc/self/exe") {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(format!("opening a file gave another error: {error}")),
            Ok(_) => return Err("a file can be opened".into()),
        }
    }
    Ok(())
}

/// What every thread of a kernel does.
fn live(kernel: Kernel) -> Result<(), String> {
    if kernel.seccomp {
        let mode = sandbox::mode().map_err(|error| error.to_string())?;
        if mode != 2 {
            return Err(format!("a thread is in mode {mode} of seccomp"));
        }
    }
    // Within the heap, by maps of their own, and growing from one into the other.
    let mut bytes: Vec<u8> = Vec::new();
    for len in [64, 100_000, 4 << 20, 100] {
        bytes.resize(len, 1);
        bytes.shrink_to_fit();
        let total: usize = std::hint::black_box(&bytes)
            .iter()
            .map(|&b| usize::from(b))
            .sum();
        if total != len {
            return Err(format!("memory of {len} bytes does not hold them"));
        }
    }
    match fence::run(|| std::panic::panic_any(PANIC)) {
        Outcome::Panicked(text) if fence::split(&text).0 == PANIC => Ok(()),
        _ => Err("a panic was not caught".into()),
    }
}
