//! Workers killed in each job of the built-in sums, whose callers do not notice.

use arenite::points::{Fault, Point, Side};
use arenite::{Array, Engine};
use libtest_mimic::Trial;

use crate::board::{board, points};
use crate::harness::{Invariant, Lab, named, step};

/// Before a job starts, before and after it writes to its lent tile, and when its value is computed but not published.
const STEPS: [&str; 7] = [
    "claim.taken",
    "lend.opened",
    "lend.closed",
    "run.entered",
    "run.returned",
    "allocate.placed",
    "publish.filled",
];

pub fn trials() -> Vec<Trial> {
    let mine = |point: &&Point| STEPS.contains(&point.name);
    let trial = |point: &'static Point| named(format!("sums::{}", point.name), move || at(point));
    points(Side::Worker).filter(mine).map(trial).collect()
}

/// Elements of four chunks, the last of which is shorter.
const LEN: usize = 60_000;
const CHUNKS: u64 = 4;

/// Values whose sum differs in its bits for each order of addition.
fn noise(engine: &Engine) -> Array<f32> {
    let one = |i: usize| (i as u32).wrapping_mul(0x85eb_ca6b) as f32 / (1 << (i % 23)) as f32;
    engine.from_fn(LEN, one).unwrap()
}

#[derive(Debug, PartialEq)]
struct Figures {
    running: Vec<u32>,
    counts: Vec<u64>,
    sum: u32,
    largest: Option<usize>,
}

fn figures(engine: &Engine, a: &Array<f32>) -> Figures {
    let running = engine.par(a).cumsum().unwrap();
    Figures {
        running: running.iter().map(|x| x.to_bits()).collect(),
        counts: engine.par(a).histogram(100, (0.0, 1e9)).unwrap().counts,
        sum: engine.par(a).sum().unwrap().to_bits(),
        largest: engine.par(a).argmax().unwrap(),
    }
}

fn at(point: &'static Point) {
    let invariant = Invariant::before();
    let lab = Lab::new(1);
    let a = noise(&lab);
    let inline = Engine::inline();
    let expected = figures(&inline, &noise(&inline));
    let mut deaths = 0;
    // At the first passing, at the second, and so on, until there is no such passing.
    for passing in 1.. {
        step(format!("{}, passing {passing}", point.name));
        board().arm(point.name, Fault::Kill, passing..passing + 1);
        let figures = figures(&lab, &a);
        board().disarm();
        assert!(figures == expected, "{}, passing {passing}", point.name);
        if board().done(point.name).0 == 0 {
            break;
        }
        deaths += 1;
    }
    // At least each chunk of the result that is written in place.
    assert!(deaths >= CHUNKS, "{}: {deaths} deaths", point.name);
    println!("{}: {deaths} deaths", point.name);
    drop(a);
    invariant.ends(lab).unwrap();
}
