//! The same program gives the same values with and without workers.

use arenite::Engine;

use crate::harness::{Lab, tests};

tests![a_map_gives_the_same_with_and_without_workers];

fn cubes(engine: &Engine) -> Vec<u64> {
    let items = (0..100u64).map(|n| (n,));
    let cubes: Result<_, _> = engine.map(|n: u64| n * n * n, items).collect();
    cubes.unwrap()
}

fn a_map_gives_the_same_with_and_without_workers() {
    let lab = Lab::new(2);
    assert_eq!(cubes(&lab), cubes(&Engine::inline()));
}
