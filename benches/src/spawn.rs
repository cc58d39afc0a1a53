//! Starts processes: bare processes of this program, and the pool of `procspawn`.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::child::{Child, Role};
use super::{BenchError, work};

/// Starts `workers` bare processes. Returns the time until each has written one byte.
pub(super) fn bare(workers: usize) -> Result<Duration, BenchError> {
    let start = Instant::now();
    let mut children = Vec::with_capacity(workers);
    for _ in 0..workers {
        let (from, to) = std::io::pipe()
            .map_err(|error| BenchError::io("create a pipe for bare-spawn", error))?;
        let child = Child::start("bare-spawn", &Role::OneByte, None, Some(to.into()))?;
        children.push((child, from));
    }
    for (child, from) in &mut children {
        let mut byte = [0];
        from.read_exact(&mut byte)
            .map_err(|_| child.unresponsive())?;
    }
    Ok(start.elapsed())
}

/// Runs in a bare process: writes one byte and ends.
pub(super) fn answer_one_byte() -> Result<(), BenchError> {
    let mut out = std::io::stdout();
    out.write_all(&[1])
        .and_then(|()| out.flush())
        .map_err(|error| BenchError::io("write one byte", error))
}

/// Starts a pool of `procspawn` and runs a function in the pool. Returns the time until the function's result.
pub(super) fn procspawn_pool(workers: usize) -> Result<Duration, BenchError> {
    let failed = |error: procspawn::SpawnError| BenchError::Peer {
        system: "procspawn".to_owned(),
        what: format!("failed: {error}"),
    };
    let start = Instant::now();
    let pool = procspawn::Pool::builder(workers).build().map_err(failed)?;
    let answer = pool.spawn(41_u64, work::noop).join().map_err(failed)?;
    let taken = start.elapsed();
    BenchError::expect(answer, 42)?;
    pool.shutdown();
    Ok(taken)
}
