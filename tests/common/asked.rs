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
