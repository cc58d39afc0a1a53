//! The outputs of all workers, as the monitor watches them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CHUNK, Next, Output, Which};
use crate::link::Phase;
use crate::supervisor::lanes::lanes_of;
use crate::supervisor::shared::Supervisor;
use crate::supervisor::words::LastWords;
use crate::sys::event::Poller;

/// What the monitor is told when a stream is readable, beside the number of the worker.
pub(in crate::supervisor) const STDOUT: u64 = 1 << 33;
pub(in crate::supervisor) const STDERR: u64 = 1 << 34;

const STREAMS: [(Which, u64); 2] = [(Which::Stdout, STDOUT), (Which::Stderr, STDERR)];

/// After so long a stream is looked at again of which it is not known whose lines wait there.
const SOON: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Outputs {
    of: HashMap<usize, Output>,
    buffer: Vec<u8>,
    /// Lines wait in some stream to learn whose they are.
    soon: bool,
}

impl Outputs {
    /// Watches the pipes of a worker that has just been started.
    pub(in crate::supervisor) fn add(
        &mut self,
        shared: &Supervisor,
        poller: &Poller,
        worker: usize,
        pipes: [OwnedFd; 2],
    ) -> crate::sys::Result<()> {
        let label: Arc<str> = shared.settings.label.as_str().into();
        let mut output = Output::new(label, worker as u32, pipes, Instant::now());
        if shared.settings.lanes > 1 {
            output = output.shared();
        }
        for (which, token) in STREAMS {
            if let Some(pipe) = output.pipe(which) {
                poller.add(pipe, worker as u64 | token)?;
            }
        }
        self.of.insert(worker, output);
        Ok(())
    }

    /// A stream is readable.
    pub(in crate::supervisor) fn heard(&mut self, shared: &Supervisor, worker: usize, token: u64) {
        for (which, bit) in STREAMS {
            if token & bit != 0 {
                self.look(shared, worker, which);
            }
        }
    }

    fn look(&mut self, shared: &Supervisor, worker: usize, which: Which) {
        let Some(output) = self.of.get_mut(&worker) else {
            return;
        };
        self.buffer.resize(CHUNK, 0);
        let phase = || phase_of(shared, worker);
        let last_job = || shared.lock().records.submitted();
        let mut lines = Vec::new();
        match output.read(which, phase, last_job, &mut self.buffer, &mut lines) {
            Next::Wait | Next::Over => {}
            Next::Soon => self.soon = true,
        }
        shared.log.push(lines);
    }

    /// What is due although nothing is readable.
    pub(in crate::supervisor) fn tick(&mut self, shared: &Supervisor) {
        if std::mem::take(&mut self.soon) {
            let workers: Vec<usize> = self.of.keys().copied().collect();
            for worker in workers {
                self.look(shared, worker, Which::Stdout);
                self.look(shared, worker, Which::Stderr);
            }
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

    /// When [`tick`](Outputs::tick) has something to do.
    pub(in crate::supervisor) fn due(&self) -> Option<Instant> {
        let soon = self.soon.then(|| Instant::now() + SOON);
        self.of.values().filter_map(Output::due).chain(soon).min()
    }

    /// The exit of a worker is confirmed: what it has left behind.
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
                words.push(job, note.as_bytes());
            }
        }
        words
    }
}

/// What a worker is at. Of several lanes only that none has a job can be said in one word.
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
