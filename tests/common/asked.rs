//! What the environment sets for tests: how many cases, which seeds, and whether a test may be skipped. Shared by unit tests, the
//! suites with real engines, those of the command, and the driver of the fuzz targets.
#![allow(dead_code, reason = "each of them uses a part")]

/// Returns how many cases a unit test tries: `ARENITE_CASES`, or `usual`.
pub fn cases(usual: u32) -> u32 {
    number("ARENITE_CASES").unwrap_or(usual)
}

/// Returns the number of random cases of a fuzz target: `ARENITE_FUZZ_RUNS`, or `usual`.
pub fn runs(usual: u64) -> u64 {
    number("ARENITE_FUZZ_RUNS").unwrap_or(usual)
}

/// Returns the first seed of tests with random input: `ARENITE_FUZZ_SEED`, or 1.
pub fn first_seed() -> u64 {
    number("ARENITE_FUZZ_SEED").unwrap_or(1)
}

/// Environment variable with the seed of a run, for what is drawn anew in each run.
pub const SEED: &str = "ARENITE_SEED";

/// Returns the seed of this run: `ARENITE_SEED`, or one of the clock.
pub fn seed() -> u64 {
    static SEED_OF_RUN: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *SEED_OF_RUN.get_or_init(|| {
        number(SEED).unwrap_or_else(|| {
            let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
            now.as_micros() as u64 % 1_000_000
        })
    })
}

/// Returns how often each trial with real engines runs: `ARENITE_TIMES`, or once.
pub fn times() -> u64 {
    number("ARENITE_TIMES").unwrap_or(1)
}

/// Reports that a test is skipped, for want of a right or of a part of Linux. Fails if `ARENITE_MUST_TRY` is set.
#[track_caller]
pub fn not_tried(what: &str) {
    let must_try = std::env::var_os("ARENITE_MUST_TRY").is_some();
    assert!(!must_try, "not tried, and ARENITE_MUST_TRY is set: {what}");
    eprintln!("not tried: {what}");
}

/// Returns how many photos of the benchmarks are compared with a full decode: `ARENITE_PHOTOS`, or `usual`.
pub fn photos(usual: u64) -> u64 {
    number("ARENITE_PHOTOS").unwrap_or(usual)
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let number = text.parse().ok();
    Some(number.unwrap_or_else(|| panic!("{name}={text:?} is not a number in range")))
}
