//! Programs that use the processor all the time.

use std::io::{Read, Write};

use super::BenchError;
use super::child::{Child, Role};
use super::work;

/// Running hogs, two for each core. Dropping this value kills the hogs and waits for their end.
#[derive(Debug)]
pub(super) struct Hogs {
    /// Only stored: dropping the children kills them.
    _children: Vec<Child>,
}

impl Hogs {
    /// Starts hogs with this nice value. Returns when all are running.
    pub(super) fn start(nice: i32) -> Result<Self, BenchError> {
        let cores = std::thread::available_parallelism()
            .map_err(|error| BenchError::io("count the cores", error))?;
        let mut children = Vec::new();
        for _ in 0..2 * cores.get() {
            let (from, to) = std::io::pipe()
                .map_err(|error| BenchError::io("create a pipe for a hog", error))?;
            let child = Child::start("hog", &Role::Hog { nice }, None, Some(to.into()))?;
            children.push((child, from));
        }
        for (child, from) in &mut children {
            from.read_exact(&mut [0])
                .map_err(|_| child.unresponsive())?;
        }
        let children = children.into_iter().map(|(child, _)| child).collect();
        Ok(Self {
            _children: children,
        })
    }
}

/// Runs in a hog's process: writes one byte, then uses the processor until the process is killed.
pub(super) fn burn(nice: i32) -> Result<(), BenchError> {
    rustix::process::nice(nice).map_err(|error| BenchError::io("change the nice value", error))?;
    let mut out = std::io::stdout();
    out.write_all(&[1])
        .and_then(|()| out.flush())
        .map_err(|error| BenchError::io("write one byte", error))?;
    work::burn(|| false);
    Ok(())
}
