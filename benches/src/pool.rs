//! Pools of answering processes: what many people write first when threads are not safe enough.
//!
//! One message per job each way, a bounded number on the way to each process, results taken as they are needed. The
//! bound keeps both directions from filling up, which would stop both sides for good.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::ipc::IpcPeer;
use super::stream::{Header, Means, StreamPeer, task};
use super::{BenchError, work};

/// Jobs on the way to one process. More gains nothing, and some 280 small messages fill a socket.
const IN_FLIGHT: usize = 128;

/// One process of a pool for no-op jobs.
pub(super) trait NoopPeer {
    /// Sends one job.
    fn submit(&mut self, x: u64) -> Result<(), BenchError>;
    /// Takes the oldest result.
    fn collect(&mut self) -> Result<u64, BenchError>;
}

impl NoopPeer for StreamPeer {
    fn submit(&mut self, x: u64) -> Result<(), BenchError> {
        self.send(&Header::new(task::NOOP, 0, x))
    }

    fn collect(&mut self) -> Result<u64, BenchError> {
        Ok(self.receive()?.value)
    }
}

impl NoopPeer for IpcPeer {
    fn submit(&mut self, x: u64) -> Result<(), BenchError> {
        self.send_noop(x)
    }

    fn collect(&mut self) -> Result<u64, BenchError> {
        self.receive()
    }
}

/// Runs `jobs` no-op jobs on all peers and checks the sum of their results.
pub(super) fn run_noops<P: NoopPeer>(peers: &mut [P], jobs: u64) -> Result<(), BenchError> {
    let count = peers.len();
    let mut total = 0_u64;
    let mut waiting = vec![0_usize; count];
    for job in 0..jobs {
        let turn = job as usize % count;
        if waiting[turn] == IN_FLIGHT {
            // Take half of them at once: the process keeps the other half to work on meanwhile.
            for _ in 0..IN_FLIGHT / 2 {
                total = total.wrapping_add(peers[turn].collect()?);
            }
            waiting[turn] -= IN_FLIGHT / 2;
        }
        peers[turn].submit(job)?;
        waiting[turn] += 1;
    }
    for (peer, waiting) in peers.iter_mut().zip(waiting) {
        for _ in 0..waiting {
            total = total.wrapping_add(peer.collect()?);
        }
    }
    BenchError::expect(total, noop_total(jobs))
}

/// The sum of the results of that many no-op jobs with the arguments 0, 1, 2 …
pub(super) fn noop_total(jobs: u64) -> u64 {
    (0..jobs).map(work::noop).fold(0, u64::wrapping_add)
}

/// Starts `workers` processes of one kind.
pub(super) fn streams(means: Means, workers: usize) -> Result<Vec<StreamPeer>, BenchError> {
    (0..workers).map(|_| StreamPeer::start(means)).collect()
}

/// Shrinks all pictures, one thread per process feeding it, the next picture to whoever is free.
pub(super) fn shrink_all(
    peers: &mut [StreamPeer],
    pictures: &[Vec<u8>],
    small: &mut [Vec<u8>],
) -> Result<(), BenchError> {
    let next = AtomicUsize::new(0);
    let feed = |peer: &mut StreamPeer| {
        let mut done = Vec::new();
        loop {
            let turn = next.fetch_add(1, Relaxed);
            let Some(picture) = pictures.get(turn) else {
                return Ok::<_, BenchError>(done);
            };
            let mut out = vec![0; work::THUMB_BYTES];
            peer.shrink(picture, &mut out)?;
            done.push((turn, out));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = peers
            .iter_mut()
            .map(|peer| scope.spawn(|| feed(peer)))
            .collect();
        for thread in threads {
            let done = thread
                .join()
                .map_err(|_| BenchError::Missing("a feeding thread panicked".to_owned()))??;
            for (turn, out) in done {
                small[turn] = out;
            }
        }
        Ok(())
    })
}
