//! Attributes output of a worker to its jobs, by boundaries that it writes into the pipes.
//!
//! Linux signals this thread when something was written to the pipes ([`pipe::signal_writer`]). Only then, a boundary
//! is written into both pipes at the end of the job. For a job that prints nothing, this costs one read of a flag.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use super::frame;
use crate::sys::{self, Identity, pipe, process};

/// The pipes of stdout and stderr. They stay open even if a kernel replaces stdout or stderr.
/// A job that closes all descriptors may have given their numbers to other files.
static PIPES: OnceLock<[(OwnedFd, Identity); 2]> = OnceLock::new();

/// Starts to write boundaries. Called once, on the lane's thread.
pub(super) fn install() -> sys::Result<()> {
    pipe::print_line_by_line();
    let duplicate = |number| {
        let pipe = pipe::duplicate_standard(number)?;
        let identity = Identity::of(&pipe);
        Ok((pipe, identity))
    };
    let pipes = [duplicate(1)?, duplicate(2)?];
    pipe::watch_own_output()?;
    // Cannot fail: `install` is called once, so `PIPES` is not set yet.
    let _ = PIPES.set(pipes);
    Ok(())
}

/// Returns the descriptors to which boundaries are written.
#[cfg(feature = "sandbox")]
pub(super) fn descriptors() -> impl Iterator<Item = std::os::fd::RawFd> {
    use std::os::fd::AsRawFd;
    let pipes = PIPES.get().into_iter().flatten();
    pipes.map(|(pipe, _)| pipe.as_raw_fd())
}

/// Attributes the output since the last call of this function to `job`; 0 for no job.
#[inline]
pub(super) fn attribute_to(job: u64) {
    if pipe::output_was_written() {
        write_boundary(job);
    }
}

/// Attributes the output of `job`, which took this number of nanoseconds, to it. A line that has not ended ends with
/// the job, so the buffers of Rust's stdout and of the C library's are written first.
///
/// That takes as long as an empty job. So it is left out for a quick job in a process that has not printed yet: its
/// first text would have taken longer.
#[inline]
pub(super) fn end_job(job: u64, took: u64) {
    const QUICK: u64 = 1_000;
    if took >= QUICK || HAS_PRINTED.load(Ordering::Relaxed) {
        flush_unended();
    }
    attribute_to(job);
}

/// Whether a boundary was written.
static HAS_PRINTED: AtomicBool = AtomicBool::new(false);

/// Writes what the two buffers have, unless that could wait for another thread that has a stream locked.
#[cold]
fn flush_unended() {
    // Rust's stdout cannot be locked without waiting, so it is flushed only if there is no other thread.
    if process::is_single_threaded() {
        // A failure is ignored as in `write_frame`.
        let _ = std::io::stdout().flush();
    }
    pipe::flush_c_stdout();
}

#[cold]
fn write_boundary(job: u64) {
    // Relaxed: used by the lane's thread alone.
    HAS_PRINTED.store(true, Ordering::Relaxed);
    let boundary = frame::frame(frame::BOUNDARY, &job.to_le_bytes());
    for pipe in PIPES.get().into_iter().flatten() {
        write_frame(pipe, &boundary);
    }
    // Writing the boundaries has also set the flag.
    pipe::clear_output_written();
}

fn write_frame((pipe, identity): &(OwnedFd, Identity), frame: &[u8]) {
    if identity.is_of(pipe) {
        // This fails if no process reads the pipe: then the supervisor is dead, and this process ends soon.
        let _ = pipe::write_all(pipe.as_fd(), frame);
    }
}

/// Writes a frame of this kind into stderr's pipe.
#[cfg(feature = "tracing")]
pub(super) fn send(kind: u8, content: &[u8]) {
    if let Some([_, stderr]) = PIPES.get() {
        write_frame(stderr, &frame::frame(kind, content));
    }
}

/// Max time to wait for a stream that a kernel's thread has locked, or that no process reads.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Flushes the buffers of Rust's stdout and of the C library, which exiting does not do.
pub(super) fn flush() {
    let (done, ended) = mpsc::channel::<()>();
    // Flush on a separate thread, so that the wait can time out.
    let flush = move || {
        let _ = std::io::stdout().flush();
        pipe::flush_c_streams();
        drop(done);
    };
    if process::start_thread(thread::Builder::new(), flush).is_ok() {
        let _ = ended.recv_timeout(FLUSH_TIMEOUT);
    }
}
