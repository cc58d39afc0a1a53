//! How much input a test draws, and which: the environment asks for more of it, and for other input. And whether all tests have to
//! be tried. One place for the unit tests, the suites with real engines, those of the command, the driver of the fuzz targets and
//! what is held against other decoders.
#![allow(dead_code, reason = "each of them uses a part")]

/// `ARENITE_CASES`: how many cases a unit test tries, of which `usual` ones are right for every day.
pub fn cases(usual: u32) -> u32 {
    number("ARENITE_CASES").unwrap_or(usual)
}

/// `ARENITE_FUZZ_RUNS`: the cases of a fuzz target's random stretch.
pub fn runs(usual: u64) -> u64 {
    number("ARENITE_FUZZ_RUNS").unwrap_or(usual)
}

/// `ARENITE_FUZZ_SEED`: where the seeds of all tests begin that draw their input from seeds.
pub fn first_seed() -> u64 {
    number("ARENITE_FUZZ_SEED").unwrap_or(1)
}

/// `ARENITE_TIMES`: how often each trial with real engines runs, for who looks for what happens once in a thousand times.
pub fn times() -> u64 {
    number("ARENITE_TIMES").unwrap_or(1)
}

/// Says what cannot be tried here, for want of a right or of a part of the kernel. Where all has to be tried, which
/// `ARENITE_MUST_TRY` asks for, that is a failure.
#[track_caller]
pub fn not_tried(what: &str) {
    let all = std::env::var_os("ARENITE_MUST_TRY").is_some();
    assert!(!all, "not tried, and ARENITE_MUST_TRY is set: {what}");
    eprintln!("not tried: {what}");
}

/// `ARENITE_PHOTOS`: how many of the bench's photos are held against a full decode.
pub fn photos(usual: u64) -> u64 {
    number("ARENITE_PHOTOS").unwrap_or(usual)
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let number = text.parse().ok();
    Some(number.unwrap_or_else(|| panic!("{name} is {text:?}, and not a number that fits")))
}
