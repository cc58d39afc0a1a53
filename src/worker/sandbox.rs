//! Locking a worker down: step 10 of the start, and the look whether it holds.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::RawFd;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread;

use super::start::Own;
use super::{fence, output, stacks};
use crate::arena::View;
use crate::link::LinkCells;
use crate::sys::process;
use crate::sys::sandbox::{self, Keep, SandboxFeatures};

/// What a worker has before code of the program runs.
#[derive(Debug)]
pub(super) struct Before {
    descriptors: Vec<RawFd>,
    own: Own,
    /// Where a denied call is noted.
    cells: &'static Arc<LinkCells>,
}

impl Before {
    /// Notes it.
    pub(super) fn note(own: Own, cells: &Arc<LinkCells>) -> Result<Self, String> {
        Ok(Self {
            descriptors: sandbox::descriptors().map_err(|error| error.to_string())?,
            own,
            cells: Box::leak(Box::new(Arc::clone(cells))),
        })
    }

    /// Closes what has been opened since, takes all rights away that a kernel does not need, and tries some of both.
    ///
    /// Whatever `kernel` has must work: nothing is left out that the supervisor says is enforced.
    pub(super) fn lock_down(&self, view: &View, kernel: SandboxFeatures) -> Result<(), String> {
        let text = |error: crate::sys::Error| error.to_string();
        fence::send_addresses();
        if kernel.mseal {
            view.seal().map_err(text)?;
        }
        let threads = sandbox::threads().map_err(text)?;
        if threads != 1 {
            return Err(format!(
                "on_worker_start left {} threads running, which a strict sandbox cannot bind",
                threads - 1
            ));
        }
        sandbox::close_others(&self.descriptors).map_err(text)?;
        let Own { bell, watch } = self.own;
        let writable: Vec<RawFd> = [1, 2, bell]
            .into_iter()
            .chain(output::descriptors())
            .collect();
        let known = |fd: &RawFd| *fd == 0 || *fd == watch || writable.contains(fd);
        let others = self.descriptors.iter().filter(|fd| !known(fd));
        let keep = Keep {
            // What is left is the handshake's.
            channel: others.copied().collect(),
            writable,
            unclosable: vec![watch],
        };
        sandbox::lock_down(kernel, &keep, &self.cells.reply().denied).map_err(text)?;
        self_test(kernel).map_err(|why| format!("the sandbox does not fit this program: {why}"))
    }
}

/// A kernel's life in small: memory, a panic, a thread with both, and a file that must stay shut.
fn self_test(kernel: SandboxFeatures) -> Result<(), String> {
    live(kernel)?;
    let second = process::start_thread(thread::Builder::new(), move || live(kernel))
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
fn live(kernel: SandboxFeatures) -> Result<(), String> {
    if kernel.seccomp {
        let mode = sandbox::mode().map_err(|error| error.to_string())?;
        if mode != 2 {
            return Err(format!("a thread is in mode {mode} of seccomp"));
        }
    }
    // Within the heap, by maps of their own, and growing from one into the other.
    for len in [64, 100_000, 1 << 20] {
        let mut bytes = vec![0_u8; len];
        bytes[len - 1] = 1;
        bytes.reserve_exact(2 * len);
        bytes.shrink_to_fit();
        if std::hint::black_box(&bytes).last() != Some(&1) {
            return Err(format!("memory of {len} bytes does not hold them"));
        }
    }
    // What a panic does, without the hook that would tell of it.
    let unwound = catch_unwind(|| resume_unwind(Box::new(stacks::capture())));
    let stack = unwound
        .err()
        .and_then(|payload| payload.downcast::<String>().ok());
    match stack {
        Some(stack) if stack.len() > 1 => Ok(()),
        _ => Err("a panic was not caught".into()),
    }
}
