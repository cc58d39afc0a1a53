//! Long and short jobs mixed, and the cost of many workers.

use super::noop::{JOBS, timed};
use super::{BenchError, Case, Goal, Running, Setup, Unit, ours};
use crate::stream::{Header, StreamKind, StreamPeer, task};
use crate::{pool, work};

/// The number of jobs of 20 µs.
const SHORT: usize = 1_000;
/// The number of jobs of 20 ms.
const LONG: usize = 20;

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let mut cases = vec![
        Case::new(
            "mixed-makespan",
            "1,000 jobs of 20 µs and 20 of 20 ms in mixed order, 2 workers",
            Unit::Milliseconds,
        )
        .plan(1, if setup.quick { 3 } else { 7 }, 1)
        .goals(&[Goal::AtMost(1.15, "ideal")])
        .system("arenite", |setup| ours::mixed(setup, &jobs()))
        .system("ideal", ideal),
    ];
    for workers in [1, 2, 4, 8, 16, 32, 64] {
        let goals: &[Goal] = match workers {
            64 => &[Goal::AtMostCase(1.3, "scale-1")],
            _ => &[],
        };
        let mut case = Case::new(
            format!("scale-{workers}"),
            format!("100,000 empty jobs, {workers} workers on the same cores"),
            Unit::NanosecondsPerJob(JOBS),
        )
        .plan(1, if setup.quick { 3 } else { 7 }, 1)
        .goals(goals)
        .system("arenite", move |_| ours::scale(workers));
        case.quick = matches!(workers, 1 | 64);
        cases.push(case);
    }
    cases
}

/// Returns the lengths of all jobs, in a shuffled order that is the same for every system and in every run.
fn jobs() -> Vec<u64> {
    let turns = work::turns_per_microsecond();
    let mut jobs = vec![(turns * 20.0) as u64; SHORT];
    jobs.extend(vec![(turns * 20_000.0) as u64; LONG]);
    work::Random::new(7).shuffle(&mut jobs);
    jobs
}

/// Runs the same jobs in processes. The jobs are divided by hand, so that every process gets the same number of each
/// length.
fn ideal(setup: &Setup) -> Result<Running, BenchError> {
    let mut peers: Vec<StreamPeer> = pool::streams(StreamKind::UnixSocket, setup.workers)?;
    let mut jobs = jobs();
    jobs.sort_unstable();
    let shares: Vec<Vec<u64>> = (0..peers.len())
        .map(|first| {
            jobs.iter()
                .skip(first)
                .step_by(peers.len())
                .copied()
                .collect()
        })
        .collect();
    Ok(Box::new(move |times| {
        timed(times, |_| {
            for (peer, share) in peers.iter_mut().zip(&shares) {
                let bytes: &[u8] = bytemuck::cast_slice(share);
                peer.send_with(&Header::new(task::SPIN, bytes.len(), 0), bytes)?;
            }
            for peer in &mut peers {
                peer.receive()?;
            }
            Ok(())
        })
    }))
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_systems_are_given_the_same_jobs() {
        assert_eq!(super::jobs(), super::jobs());
    }
}
