//! Words that a hostile worker writes into its link, played from files. Long stretches of seeded words, and words that
//! change between two reads, are unit tests of the supervisor.

use std::path::Path;

use crate::driver::{Case, Driver, Seed};
use crate::targets::link_words;

fn seeds() -> Vec<Seed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/link_words");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (&*name.leak(), std::fs::read(entry.path()).unwrap())
    });
    let mut seeds: Vec<Seed> = files.collect();
    // A folder has no order, and a case has to be the same everywhere.
    seeds.sort();
    assert!(
        seeds.len() >= 8,
        "{} has {} files",
        folder.display(),
        seeds.len()
    );
    seeds
}

#[test]
fn the_corpus() {
    let mut driver = Driver::new(link_words);
    for (name, seed) in seeds() {
        driver.case(Case::Whole(name), &seed);
    }
}

#[test]
fn words_in_a_random_stretch() {
    Driver::new(link_words).random_stretch(1_000, &seeds(), |_| {});
}
