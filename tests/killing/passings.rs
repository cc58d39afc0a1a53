//! At which passings of a point somebody is killed, and that somebody really is.

use crate::harness::step;

/// How often each of them.
pub const ROUNDS: u32 = 3;
/// Whether a bell has to be rung depends on who is awake, so there may be a scene in which nobody comes by; but not so many
/// one after the other.
pub const AGAIN: u32 = 20;

/// One of the passings of a scene.
#[derive(Clone, Copy, Debug)]
pub enum Nth {
    First,
    Second,
    Middle,
    Last,
}

impl Nth {
    /// Its number among so many.
    fn of(self, all: u64) -> u64 {
        match self {
            Self::First => 1,
            Self::Second => all.min(2),
            Self::Middle => all.div_ceil(2),
            Self::Last => all,
        }
    }
}

/// What a scene saw of a point.
#[derive(Clone, Copy, Debug)]
pub struct Saw {
    /// How often somebody came by.
    pub passed: u64,
    /// How often somebody died there.
    pub deaths: u32,
}

/// Has `scene` played with a death at each of these passings, three times each, and again until there was one. It is told the
/// number of the passing, and what to call that. `all` is how often they come by in a scene without a death; it changes
/// a little from scene to scene, so the last one in which nobody died counts.
pub fn each(
    point: &str,
    all: u64,
    which: &[Nth],
    mut scene: impl FnMut(u64, &str) -> Result<Saw, String>,
) {
    let mut all = all.max(1);
    let mut scenes = 0;
    for round in 0..ROUNDS {
        for &nth in which {
            let came = (0..AGAIN).any(|_| {
                let passing = nth.of(all);
                let what = format!("{point}, passing {passing} of {all}, round {round}");
                step(&*what);
                let saw = scene(passing, &what).unwrap_or_else(|why| panic!("{what}: {why}"));
                scenes += 1;
                if saw.deaths == 0 {
                    all = saw.passed.max(1);
                }
                saw.deaths == 1
            });
            assert!(
                came,
                "{point}, {nth:?} passing, round {round}: nobody came by"
            );
        }
    }
    let deaths = ROUNDS * which.len() as u32;
    println!("{point}: {deaths} deaths in {scenes} scenes, passed {all} times in one");
}
