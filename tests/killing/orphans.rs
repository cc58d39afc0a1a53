//! A new engine starts while a worker of a killed supervisor still runs.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;

use arenite::{Array, Engine};
use nix::sys::signal::Signal;

use crate::harness::{Answers, Invariant, Lab, processes_of, send_signal, step, tests, wait_until};
use crate::programs::{Home, own_maps};

tests![a_new_engine_and_an_orphan];

const ROUNDS: u32 = 10;

fn double(values: &Array<u32>, n: u32) -> Array<u32> {
    Array::from_fn(values.len(), |i| values[i] * 2 + n)
}

/// It never maps, reuses or unlinks live memory: neither that of the orphan, nor the arena of another engine.
fn a_new_engine_and_an_orphan() {
    for _ in 0..ROUNDS {
        let invariant = Invariant::before();
        let home = Home::new(true);
        home.board.let_orphans_live();
        let mut running = home.start("orphan");
        let said = running.line_after("computes");
        let mut numbers = said.split(' ').map(|number| number.parse::<u64>().unwrap());
        let orphan = numbers.next().unwrap() as i32;
        let segments: BTreeSet<u64> = numbers.collect();
        assert!(!segments.is_empty(), "no arena in the orphan: {said}");
        // Another live engine, with a name of its own.
        let neighbour = format!("{}-neighbour", home.name().unwrap());
        let alive = Lab::with(1, |builder| builder.name(&neighbour));
        let inode = |name: &str| {
            // SAFETY: it only returns a user id.
            let uid = unsafe { libc::geteuid() };
            std::fs::metadata(format!("/dev/shm/arenite-{uid}-{name}.kept")).map(|file| file.ino())
        };
        let of_neighbour = inode(&neighbour).unwrap();
        let of_orphan = inode(home.name().unwrap()).unwrap();
        running.kill();
        running.wait().assert_killed();
        wait_until("the orphan is alone", || running.processes() == [orphan]);
        step("an engine under the name of the one that was killed");
        let next = Lab::with(2, |builder| builder.name(home.name().unwrap()));
        assert_ne!(inode(home.name().unwrap()).unwrap(), of_orphan);
        // The orphan writes to memory that only it has mapped, and the results of the new engine are right.
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
        for (worker, its) in maps_of_workers(&next) {
            assert!(!its.is_empty(), "no arena in worker {worker}");
            let common: Vec<_> = its.intersection(&segments).collect();
            assert!(common.is_empty(), "shared with the orphan: {common:?}");
        }
        assert_eq!(inode(&neighbour).unwrap(), of_neighbour);
        assert_eq!(processes_of(running.pid()), [orphan], "it computes on");
        invariant.holds(&next, 0).unwrap();
        invariant.holds(&alive, 0).unwrap();
        send_signal(orphan, Signal::SIGKILL);
        running.await_all_gone();
        drop((next, alive, running));
        invariant.nothing_left().unwrap();
    }
}

/// Returns the shared memory that each worker has mapped, by process id. The workers read it, because another process needs root.
fn maps_of_workers(engine: &Engine) -> BTreeMap<u64, BTreeSet<u64>> {
    fn look(_: u32) -> Array<u64> {
        let mut mapped = vec![u64::from(std::process::id())];
        mapped.extend(own_maps());
        Array::from_slice(&mapped)
    }
    let pids: BTreeSet<u64> = (engine.stats().workers.iter())
        .map(|worker| u64::from(worker.pid))
        .collect();
    let mut seen = BTreeMap::new();
    step("every worker to tell its maps");
    // The engine chooses the worker of a job: submit jobs until each has had one.
    while !pids.iter().all(|pid| seen.contains_key(pid)) {
        for mapped in engine.map(look, (0..20u32).map(|n| (n,))) {
            let mapped = mapped.unwrap();
            seen.insert(mapped[0], mapped[1..].iter().copied().collect());
        }
    }
    seen
}
