//! What a kernel prints, and whose it is.
//!
//! The kernel tells this thread, by a signal, that something was written to its pipes
//! ([`pipe::signal_writer`]). Only then a boundary is written into both at the end of the job; a job that
//! prints nothing pays for one look at a flag.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use super::frame;
use crate::sys::{self, pipe, process};

/// The pipes behind stdout and stderr, whatever a kernel puts in the place of those.
static PIPES: OnceLock<[OwnedFd; 2]> = OnceLock::new();

/// From now on boundaries are written. Once, on the lane's thread.
pub(super) fn begin() -> sys::Result<()> {
    pipe::print_line_by_line();
    let pipes = [pipe::duplicate_standard(1)?, pipe::duplicate_standard(2)?];
    pipe::watch_own_output()?;
    // Set once: by the caller's promise.
    let _ = PIPES.set(pipes);
    Ok(())
}

/// Numbers of the descriptors that boundaries are written to.
#[cfg(feature = "sandbox")]
pub(super) fn descriptors() -> impl Iterator<Item = std::os::fd::RawFd> {
    use std::os::fd::AsRawFd;
    PIPES.get().into_iter().flatten().map(AsRawFd::as_raw_fd)
}

/// If anything was written since the last call, it belongs to this job; 0: to none.
#[inline]
pub(super) fn belongs_to(job: u64) {
    if pipe::output_was_written() {
        write_boundary(job);
    }
}

#[cold]
fn write_boundary(job: u64) {
    let boundary = frame::frame(frame::BOUNDARY, &job.to_le_bytes());
    for pipe in PIPES.get().into_iter().flatten() {
        // Nobody reads any more: then the supervisor is gone, and so is this process soon.
        let _ = pipe::write_all(pipe.as_fd(), &boundary);
    }
    // The boundaries have announced themselves.
    pipe::clear_output_written();
}

/// Sends a frame of this kind, in one go.
#[cfg(feature = "tracing")]
pub(super) fn send(kind: u8, content: &[u8]) {
    if let Some([_, stderr]) = PIPES.get() {
        // As above.
        let _ = pipe::write_all(stderr.as_fd(), &frame::frame(kind, content));
    }
}

/// How long a stream is waited for that a thread of some kernel holds, or that nobody reads.
const PATIENCE: Duration = Duration::from_millis(500);

/// Passes on what Rust's stdout and the C library still keep, before the process ends without doing so.
pub(super) fn flush() {
    let (done, ended) = mpsc::channel::<()>();
    // In a thread of its own, which this process need not wait for.
    let flush = move || {
        let _ = std::io::stdout().flush();
        pipe::flush_c_streams();
        drop(done);
    };
    if process::start_thread(thread::Builder::new(), flush).is_ok() {
        let _ = ended.recv_timeout(PATIENCE);
    }
}
