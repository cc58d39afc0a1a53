//! Entering the sandbox: step 10 of the start, and a test that the sandbox is effective.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::RawFd;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread;

use super::start::OwnFds;
use super::{output, panics, stacks};
use crate::arena::View;
use crate::control::StartFailure;
use crate::link::LinkCells;
use crate::sys::sandbox::{self, Keep, SandboxFeatures};
use crate::sys::{code_maps, process};

/// The state of a worker before code of the program runs.
#[derive(Debug)]
pub(super) struct PreSandbox {
    /// The descriptors that are open in this state.
    descriptors: Vec<RawFd>,
    own: OwnFds,
    /// The link in which the number of a denied call is stored.
    cells: &'static Arc<LinkCells>,
    has_memory_limit: bool,
}

impl PreSandbox {
    /// Records the state.
    pub(super) fn record(
        own: OwnFds,
        cells: &Arc<LinkCells>,
        has_memory_limit: bool,
    ) -> Result<Self, StartFailure> {
        Ok(Self {
            descriptors: sandbox::descriptors()?,
            own,
            cells: Box::leak(Box::new(Arc::clone(cells))),
            has_memory_limit,
        })
    }

    /// Closes the descriptors that were opened after [`record`](Self::record), drops all rights that a kernel does not
    /// need, and tests the result. Returns the lines of `/proc/self/maps` for code of files, which cannot change
    /// afterwards.
    ///
    /// Fails unless every feature in `kernel` works, because the supervisor reports these features as enforced.
    pub(super) fn enter(
        &self,
        view: &View,
        kernel: SandboxFeatures,
    ) -> Result<Vec<u8>, StartFailure> {
        panics::send_addresses();
        let code = code_maps::of_this_process();
        if kernel.mseal {
            view.seal()?;
        }
        let threads = sandbox::threads()?;
        if threads != 1 {
            return Err(format!(
                "on_worker_start left {} threads running, which a strict sandbox cannot bind. Libraries of linear \
                 algebra start none if OPENBLAS_NUM_THREADS, OMP_NUM_THREADS and MKL_NUM_THREADS are 1 in the \
                 environment of the worker",
                threads - 1
            )
            .into());
        }
        sandbox::close_others(&self.descriptors)?;
        let OwnFds {
            monitor_event,
            watch,
        } = self.own;
        let writable: Vec<RawFd> = [1, 2, monitor_event]
            .into_iter()
            .chain(output::descriptors())
            .collect();
        let known = |fd: &RawFd| *fd == 0 || *fd == watch || writable.contains(fd);
        let others = self.descriptors.iter().filter(|fd| !known(fd));
        let keep = Keep {
            // The descriptors that are left belong to the handshake channel.
            channel: others.copied().collect(),
            writable,
            unclosable: vec![watch],
            writable_memory: self.has_memory_limit,
        };
        sandbox::lock_down(kernel, &keep, &self.cells.reply().denied)?;
        self_test(kernel).map_err(|why| why.context("the sandbox does not fit this program"))?;
        Ok(code)
    }
}

/// Tests, on two threads, that kernels can use memory and panic, and that they cannot open a file.
fn self_test(kernel: SandboxFeatures) -> Result<(), StartFailure> {
    test_thread(kernel)?;
    let second = process::start_thread(thread::Builder::new(), move || test_thread(kernel))
        .map_err(|error| StartFailure::from(error).context("no thread can be started"))?;
    second.join().map_err(|_| "the second thread panicked")??;
    if kernel.seccomp || kernel.landlock > 0 {
        match File::open("/proc/self/exe") {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => {
                return Err(
                    format!("opening a file failed with an unexpected error: {error}").into(),
                );
            }
            Ok(_) => return Err("a file can be opened".into()),
        }
    }
    Ok(())
}

/// Tests what every thread of a kernel must be able to do.
fn test_thread(kernel: SandboxFeatures) -> Result<(), String> {
    if kernel.seccomp {
        let mode = sandbox::mode().map_err(|error| error.to_string())?;
        if mode != 2 {
            return Err(format!("a thread has seccomp mode {mode}"));
        }
    }
    // Allocates from the heap and as separate maps, and grows an allocation from the heap to a separate map.
    for len in [64, 100_000, 1 << 20] {
        let mut bytes = vec![0_u8; len];
        bytes[len - 1] = 1;
        bytes.reserve_exact(2 * len);
        bytes.shrink_to_fit();
        if std::hint::black_box(&bytes).last() != Some(&1) {
            return Err(format!("{len} bytes of memory lost their content"));
        }
    }
    // Unwinds like a panic, without the panic hook.
    let unwound = catch_unwind(|| resume_unwind(Box::new(stacks::capture())));
    let stack = unwound
        .err()
        .and_then(|payload| payload.downcast::<String>().ok());
    match stack {
        Some(stack) if stack.len() > 1 => Ok(()),
        _ => Err("a panic was not caught".into()),
    }
}
