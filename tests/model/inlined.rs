//! The same program on workers and without: what it computes does not depend on where it runs.

use arenite::Engine;

use crate::harness::{Lab, tests};

tests![a_map_is_the_same_in_both];

fn cubes(engine: &Engine) -> Vec<u64> {
    let items = (0..100u64).map(|n| (n,));
    let cubes: Result<_, _> = engine.map(|n: u64| n * n * n, items).collect();
    cubes.unwrap()
}

fn a_map_is_the_same_in_both() {
    let lab = Lab::new(2);
    assert_eq!(cubes(&lab), cubes(&Engine::inline()));
}
