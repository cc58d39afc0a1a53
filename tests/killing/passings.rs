//! At which passings of a point a process is killed, and the check that it was.

use arenite::points::{Fault, POINTS, Point};
use libtest_mimic::Trial;

use crate::board::board;
use crate::harness::{Lab, named, step};

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

/// A worker's death at one passing of a point in a scene, or none.
pub struct Death {
    point: &'static Point,
    passing: Option<u64>,
    before: u64,
}

impl Death {
    /// Counts passings from now on, and kills a worker at this one.
    pub fn arm(point: &'static Point, passing: Option<u64>) -> Self {
        let before = board().passed(point.name);
        if let Some(passing) = passing {
            board().arm(point.name, Fault::Kill, passing..passing + 1);
        }
        Self {
            point,
            passing,
            before,
        }
    }

    fn deaths(&self) -> u32 {
        self.passing.map_or(0, |_| board().done(self.point.name).0)
    }

    /// Ends the scene after its last answer, when everything that is left of a killed worker is done. Returns what
    /// happened, and the number of deaths before the last answer: a later one does not affect the jobs of the scene.
    pub fn disarm(self, lab: &Lab) -> (Saw, u32) {
        let passed = board().passed(self.point.name) - self.before;
        let hit = self.deaths();
        lab.job(|| (), ()).retries(1).submit().wait().unwrap();
        board().disarm();
        let deaths = self.deaths();
        (Saw { passed, deaths }, hit)
    }
}

/// Runs `scene` without a death, and with one at its first, second, middle and last passing of the point.
pub fn at_each(point: &Point, scene: impl Fn(Option<u64>) -> Result<Saw, String>) {
    let all = scene(None).unwrap().passed;
    let which = [Nth::First, Nth::Second, Nth::Middle, Nth::Last];
    each(point.name, all, &which, |passing, _| scene(Some(passing)));
}

/// Plays a scene in which a worker is killed at this passing of a point, or none.
type Scene = fn(&'static Point, Option<u64>) -> Result<Saw, String>;

/// Returns a trial of a scene for each point.
pub fn killed_at(
    group: &str,
    points: impl Iterator<Item = &'static Point>,
    scene: Scene,
) -> Vec<Trial> {
    let trial = |point: &'static Point| {
        let name = format!("{group}::{}", point.name);
        named(name, move || {
            at_each(point, |passing| scene(point, passing))
        })
    };
    points.map(trial).collect()
}

/// Runs a scene without deaths, in which each of its own steps is taken.
pub fn without_death(owns: fn(&Point) -> bool, scene: Scene) {
    let own = POINTS.iter().find(|point| owns(point));
    scene(own.expect("a step of its own"), None).unwrap();
}

/// Returns two trials of a scene for each point: in one its jobs are not retried, in the other they have retries.
pub fn once_and_retried(
    group: &str,
    points: impl Iterator<Item = &'static Point>,
    retries: u32,
    scene: fn(&'static Point, u32, Option<u64>) -> Result<Saw, String>,
) -> Vec<Trial> {
    let trial = |point: &'static Point| {
        [("once", 0), ("retried", retries)].map(|(how, retries)| {
            let name = format!("{group}::{how}::{}", point.name);
            let scene = move |passing| scene(point, retries, passing);
            named(name, move || at_each(point, scene))
        })
    };
    points.flat_map(trial).collect()
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
