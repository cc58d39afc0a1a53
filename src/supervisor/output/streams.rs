//! The output streams of all workers, for the monitor.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::last_words::LastWords;
use super::worker_output::{CHUNK, ReadResult, StreamKind, WorkerOutput};
use crate::link::Phase;
use crate::supervisor::lanes::lanes_of;
use crate::supervisor::shared::Supervisor;
use crate::sys::event::Poller;

/// The bit of a poll token for stdout. The low bits are the worker's number.
pub(in crate::supervisor) const STDOUT: u64 = 1 << 33;
/// The bit of a poll token for stderr.
pub(in crate::supervisor) const STDERR: u64 = 1 << 34;

const STREAMS: [(StreamKind, u64); 2] =
    [(StreamKind::Stdout, STDOUT), (StreamKind::Stderr, STDERR)];

/// When a stream is read again if the job of waiting lines is not known yet.
const SOON: Duration = Duration::from_millis(1);

/// The output streams of all workers.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct OutputStreams {
    of: HashMap<usize, WorkerOutput>,
    buffer: Vec<u8>,
    /// Whether lines of a stream wait until their job is known.
    soon: bool,
}

impl OutputStreams {
    /// Watches the pipes of a worker that was just started.
    pub(in crate::supervisor) fn add(
        &mut self,
        shared: &Supervisor,
        poller: &Poller,
        worker: usize,
        pipes: [OwnedFd; 2],
    ) -> crate::sys::Result<()> {
        let label: Arc<str> = shared.settings.label.as_str().into();
        let several = shared.settings.lanes > 1;
        let output = WorkerOutput::new(label, worker as u32, pipes, several, Instant::now());
        for (which, token) in STREAMS {
            if let Some(pipe) = output.pipe(which) {
                poller.add(pipe, worker as u64 | token)?;
            }
        }
        self.of.insert(worker, output);
        Ok(())
    }

    /// Reads the streams that a poll token names.
    pub(in crate::supervisor) fn read_ready(
        &mut self,
        shared: &Supervisor,
        worker: usize,
        token: u64,
    ) {
        for (which, bit) in STREAMS {
            if token & bit != 0 {
                self.look(shared, worker, which);
            }
        }
    }

    fn look(&mut self, shared: &Supervisor, worker: usize, which: StreamKind) {
        let Some(output) = self.of.get_mut(&worker) else {
            return;
        };
        self.buffer.resize(CHUNK, 0);
        let phase = || phase_of(shared, worker);
        let last_job = || shared.lock().records.submitted();
        let mut lines = Vec::new();
        match output.read(which, phase, last_job, &mut self.buffer, &mut lines) {
            ReadResult::Wait | ReadResult::Over => {}
            ReadResult::Soon => self.soon = true,
        }
        shared.log.push(lines);
    }

    /// Reads streams again and reports dropped lines, where that is due.
    pub(in crate::supervisor) fn tick(&mut self, shared: &Supervisor) {
        if std::mem::take(&mut self.soon) {
            self.look_at_all(shared);
        }
        if self.of.values().all(|output| output.due().is_none()) {
            return;
        }
        let now = Instant::now();
        let mut lines = Vec::new();
        for output in self.of.values_mut() {
            output.report(now, false, &mut lines);
        }
        shared.log.push(lines);
    }

    /// Reads all that is in the pipes of all workers now, and queues it for the sink.
    pub(in crate::supervisor) fn flush(&mut self, shared: &Supervisor) {
        // Each pass reads at least as much as a pipe can contain.
        self.look_at_all(shared);
        if !self.soon {
            return;
        }
        // More was printed in the meantime, and earlier lines wait with the new ones.
        let mut lines = Vec::new();
        for output in self.of.values_mut() {
            output.attribute_waiting(&mut lines);
        }
        shared.log.push(lines);
    }

    fn look_at_all(&mut self, shared: &Supervisor) {
        let workers: Vec<usize> = self.of.keys().copied().collect();
        for worker in workers {
            self.look(shared, worker, StreamKind::Stdout);
            self.look(shared, worker, StreamKind::Stderr);
        }
    }

    /// Returns the time when [`tick`](OutputStreams::tick) is due.
    pub(in crate::supervisor) fn due(&self) -> Option<Instant> {
        let soon = self.soon.then(|| Instant::now() + SOON);
        self.of
            .values()
            .filter_map(WorkerOutput::due)
            .chain(soon)
            .min()
    }

    /// Reads the rest of a worker's output after its exit is confirmed.
    pub(in crate::supervisor) fn finish(
        &mut self,
        shared: &Supervisor,
        worker: usize,
    ) -> LastWords {
        let phase = phase_of(shared, worker);
        let mut words = match self.of.remove(&worker) {
            None => LastWords::default(),
            Some(output) => {
                self.buffer.resize(CHUNK, 0);
                let last_job = shared.lock().records.submitted();
                let mut lines = Vec::new();
                let words = output.finish(phase, last_job, &mut self.buffer, &mut lines);
                shared.log.push(lines);
                words
            }
        };
        for link in lanes_of(worker, shared.workers(), shared.cells.len()) {
            for (job, note) in shared.cells[link].notes() {
                words.push(job, note.as_bytes(), false);
            }
        }
        words
    }
}

/// Returns the phase of a worker. With several lanes, it is known only whether any lane has a job.
fn phase_of(shared: &Supervisor, worker: usize) -> Phase {
    if shared.settings.lanes == 1 {
        return shared.cells[worker].phase();
    }
    let mut lanes = lanes_of(worker, shared.workers(), shared.cells.len());
    match lanes.all(|lane| shared.cells[lane].phase().job().is_none()) {
        true => Phase::Idle,
        false => Phase::Unknown,
    }
}
