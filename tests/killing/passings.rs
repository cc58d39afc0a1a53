//! At which passings of a point a process is killed, and the check that it was.

use crate::harness::step;

/// Maximum number of consecutive scenes without a death. Whether a doorbell is rung depends on which side is awake, so some points
/// are not passed in each scene.
pub const AGAIN: u32 = 20;

/// A passing of a scene.
#[derive(Clone, Copy, Debug)]
pub enum Nth {
    First,
    Second,
    Middle,
    Last,
}

impl Nth {
    /// Returns its number among `all` passings.
    fn of(self, all: u64) -> u64 {
        match self {
            Self::First => 1,
            Self::Second => all.min(2),
            Self::Middle => all.div_ceil(2),
            Self::Last => all,
        }
    }
}

/// What happened at a point in a scene.
#[derive(Clone, Copy, Debug)]
pub struct Saw {
    /// Number of passings.
    pub passed: u64,
    /// Number of deaths.
    pub deaths: u32,
}

/// Runs `scene` with a death at each of these passings, and again until there was one. `scene` gets the number of the passing, and
/// its name. `all` is the number of passings in a scene without a death; it varies a little, so the last scene
/// without a death counts.
pub fn each(
    point: &str,
    all: u64,
    which: &[Nth],
    mut scene: impl FnMut(u64, &str) -> Result<Saw, String>,
) {
    let mut all = all.max(1);
    let mut scenes = 0;
    for &nth in which {
        let came = (0..AGAIN).any(|_| {
            let passing = nth.of(all);
            let what = format!("{point}, passing {passing} of {all}");
            step(&*what);
            let saw = scene(passing, &what).unwrap_or_else(|why| panic!("{what}: {why}"));
            scenes += 1;
            if saw.deaths == 0 {
                all = saw.passed.max(1);
            }
            saw.deaths == 1
        });
        assert!(came, "{point}, {nth:?} passing: not passed");
    }
    let deaths = which.len();
    println!("{point}: {deaths} deaths in {scenes} scenes, passed {all} times in one");
}
