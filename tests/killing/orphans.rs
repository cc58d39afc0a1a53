//! A new engine starts while a worker of a killed supervisor still computes.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use arenite::{Array, Engine};
use nix::sys::signal::Signal;

use crate::harness::{Answers, Invariant, Lab, processes_with, step, tests, wait_until};
use crate::programs::Program;
use crate::workers::end;

tests![a_new_engine_and_an_orphan];

const ROUNDS: u32 = 10;

fn double(values: &Array<u32>, n: u32) -> Array<u32> {
    Array::from_fn(values.len(), |i| values[i] * 2 + n)
}

/// It never maps, reuses or unlinks what is alive: neither what the orphan computes on, nor the arena of another engine.
fn a_new_engine_and_an_orphan() {
    for _ in 0..ROUNDS {
        let invariant = Invariant::before();
        let program = Program::new(true);
        program.board.let_orphans_live();
        let mut running = program.start("orphan");
        let orphan: i32 = running.expect("computes").parse().unwrap();
        // Another engine that lives, under a name of its own.
        let neighbour = format!("{}-neighbour", program.name().unwrap());
        let alive = Lab::with(1, |builder| builder.name(&neighbour));
        let inode = |name: &str| {
            // SAFETY: it only asks who we are.
            let uid = unsafe { libc::geteuid() };
            std::fs::metadata(format!("/dev/shm/arenite-{uid}-{name}.kept")).map(|file| file.ino())
        };
        let of_neighbour = inode(&neighbour).unwrap();
        let of_orphan = inode(program.name().unwrap()).unwrap();
        running.kill();
        running.wait();
        wait_until("the orphan is alone", || running.processes() == [orphan]);
        step("an engine under the name of the one that was killed");
        let next = Lab::with(2, |builder| builder.name(program.name().unwrap()));
        assert_ne!(inode(program.name().unwrap()).unwrap(), of_orphan);
        let segments = maps_of(orphan);
        // It computes on what only it has mapped, and what the new engine computes is right.
        for lab in [&next, &alive] {
            let values: Vec<u32> = (0..50_000).collect();
            let input = lab.from_slice(&values).unwrap();
            let answers = lab
                .map(double, (0..40u32).map(|n| (&input, n)))
                .map(|answer| answer.map(|array| array.to_vec()));
            let reference: Vec<Vec<u32>> = (0..40)
                .map(|n| values.iter().map(|x| x * 2 + n).collect())
                .collect();
            let answers = Answers::compare(answers, &reference).unwrap();
            assert_eq!(answers.finished, 40);
        }
        let engine: &Engine = &next;
        for worker in &engine.stats().workers {
            let its = maps_of(worker.pid as i32);
            let common: Vec<_> = its.intersection(&segments).collect();
            assert!(common.is_empty(), "shared with the orphan: {common:?}");
        }
        assert_eq!(inode(&neighbour).unwrap(), of_neighbour);
        assert_eq!(processes_with(running.group()), [orphan], "it computes on");
        invariant.holds(&next, 0).unwrap();
        invariant.holds(&alive, 0).unwrap();
        end(orphan, Signal::SIGKILL);
        running.await_all_gone();
        drop((next, alive, running));
        invariant.nothing_left().unwrap();
    }
}

/// Inodes of the shared memory that a worker has mapped: there is some in each. Workers are not dumpable, so only root
/// may look; others see none.
fn maps_of(pid: i32) -> BTreeSet<u64> {
    let text = match std::fs::read_to_string(format!("/proc/{pid}/maps")) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            eprintln!("only root may look into the maps of worker {pid}");
            return BTreeSet::new();
        }
        Err(error) => panic!("worker {pid} is not there: {error}"),
    };
    let inodes: BTreeSet<u64> = text
        .lines()
        .filter(|line| line.contains("/dev/shm/") || line.contains("memfd:"))
        .filter_map(|line| line.split_whitespace().nth(4)?.parse().ok())
        .collect();
    assert!(!inodes.is_empty(), "no arena in worker {pid}: {text}");
    inodes
}
