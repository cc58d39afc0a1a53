//! The `arenite` command line.
fn main() {}
