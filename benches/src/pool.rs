//! Pools of answering processes: the usual solution if threads are not safe enough.
//!
//! Each job is one message in each direction. The number of messages in flight to each process is bounded: otherwise
//! both directions could fill up, which would be a deadlock.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::ipc::IpcPeer;
use super::stream::{Header, StreamKind, StreamPeer, task};
use super::{BenchError, work};

/// The number of jobs in flight to one process. More jobs would not be faster, and about 280 small messages fill a
/// socket.
const IN_FLIGHT: usize = 128;

/// One process of a pool for no-op jobs.
pub(super) trait NoopPeer {
    /// Sends one job.
    fn submit(&mut self, x: u64) -> Result<(), BenchError>;
    /// Receives the oldest result.
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
            // Receive half of the results together: meanwhile the process works on the other half.
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

/// Returns the sum of the results of no-op jobs with the arguments 0 to `jobs - 1`.
pub(super) fn noop_total(jobs: u64) -> u64 {
    (0..jobs).map(work::noop).fold(0, u64::wrapping_add)
}

/// Starts `workers` processes of one kind.
pub(super) fn streams(kind: StreamKind, workers: usize) -> Result<Vec<StreamPeer>, BenchError> {
    (0..workers).map(|_| StreamPeer::start(kind)).collect()
}

/// Shrinks all pictures. For each process, one thread sends the next picture when the process is free.
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
            let done = thread.join().map_err(|_| {
                BenchError::Missing("a thread that feeds a process panicked".to_owned())
            })??;
            for (turn, out) in done {
                small[turn] = out;
            }
        }
        Ok(())
    })
}
