//! The outputs of all workers, as the monitor watches them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CHUNK, Next, Output, Which};
use crate::supervisor::Shared;
use crate::supervisor::words::LastWords;
use crate::sys::event::Poller;

/// What the monitor is told when a stream is readable, beside the number of the lane.
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
        shared: &Shared,
        poller: &Poller,
        lane: usize,
        pipes: [OwnedFd; 2],
    ) -> crate::sys::Result<()> {
        let label: Arc<str> = shared.settings.label.as_str().into();
        let output = Output::new(label, lane as u32, pipes, Instant::now());
        for (which, token) in STREAMS {
            if let Some(pipe) = output.pipe(which) {
                poller.add(pipe, lane as u64 | token)?;
            }
        }
        self.of.insert(lane, output);
        Ok(())
    }

    /// A stream is readable.
    pub(in crate::supervisor) fn heard(&mut self, shared: &Shared, lane: usize, token: u64) {
        for (which, bit) in STREAMS {
            if token & bit != 0 {
                self.look(shared, lane, which);
            }
        }
    }

    fn look(&mut self, shared: &Shared, lane: usize, which: Which) {
        let Some(output) = self.of.get_mut(&lane) else {
            return;
        };
        self.buffer.resize(CHUNK, 0);
        let last_job = shared.lock().next_job;
        let phase = || shared.cells[lane].phase();
        let mut lines = Vec::new();
        match output.read(which, last_job, phase, &mut self.buffer, &mut lines) {
            Next::Wait | Next::Over => {}
            Next::Soon => self.soon = true,
        }
        shared.log.push(lines);
    }

    /// What is due although nothing is readable.
    pub(in crate::supervisor) fn tick(&mut self, shared: &Shared) {
        if std::mem::take(&mut self.soon) {
            let lanes: Vec<usize> = self.of.keys().copied().collect();
            for lane in lanes {
                self.look(shared, lane, Which::Stdout);
                self.look(shared, lane, Which::Stderr);
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
    pub(in crate::supervisor) fn finish(&mut self, shared: &Shared, lane: usize) -> LastWords {
        let cells = &shared.cells[lane];
        let mut words = match self.of.remove(&lane) {
            None => LastWords::default(),
            Some(output) => {
                self.buffer.resize(CHUNK, 0);
                let last_job = shared.lock().next_job;
                let mut lines = Vec::new();
                let words = output.finish(last_job, cells.phase(), &mut self.buffer, &mut lines);
                shared.log.push(lines);
                words
            }
        };
        for (job, note) in cells.notes() {
            words.push(job, note.as_bytes());
        }
        words
    }
}
