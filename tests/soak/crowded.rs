//! A `/dev/shm` that is too small, and that another process fills and empties meanwhile. It is mounted in a namespace of a child
//! program, which needs root.

use std::time::Duration;

use crate::harness::programs::{Program, may_have_own_shm, own_shm, say};
use crate::harness::runs::crowded::crowd;
use crate::harness::runs::{Figure, Order, Seen};
use crate::harness::{Dice, Invariant, step};

/// Environment variable with the seed of the child program, and its duration in milliseconds.
const ORDER: &str = "ARENITE_SOAK_ORDER";

/// Starts a child program for the run, and returns its counts.
pub(super) fn run(order: Order) -> Result<Seen, String> {
    if !may_have_own_shm() {
        return Ok(Seen::skipped("only root can mount a /dev/shm of its own"));
    }
    let invariant = Invariant::before();
    let mib = [8, 16, 64][Dice::new(order.seed).below(3) as usize];
    step("a program with a /dev/shm of its own");
    let program = Program::with("crowd", own_shm(Some(mib)), |command| {
        let order = format!("{} {}", order.seed, order.length.as_millis());
        command.env(ORDER, order);
    });
    let ended = program.end();
    invariant.nothing_left()?;
    let counted = numbers(&ended.output);
    match (ended.status.success(), &counted[..]) {
        (true, &[faults, jobs, refused]) => Ok(Seen {
            faults,
            jobs,
            // For information: how short memory was.
            figures: vec![Figure {
                name: "without room",
                value: refused as f64,
                unit: "jobs",
            }],
            ..Seen::default()
        }),
        _ => Err(format!("{ended:?}")),
    }
}

/// The numbers at the beginning of a text.
fn numbers(text: &str) -> Vec<u64> {
    let words = text.split_whitespace();
    words.map_while(|word| word.parse().ok()).collect()
}

/// The child program.
pub(super) fn play() {
    let order = std::env::var(ORDER).unwrap_or_default();
    let [seed, millis] = numbers(&order)[..] else {
        panic!("{ORDER}={order:?}");
    };
    let order = Order {
        seed,
        length: Duration::from_millis(millis),
        strict: false,
    };
    let (seen, refused) = crowd(order, &mut Dice::new(seed), || false).unwrap();
    say(format!("{} {} {refused}", seen.faults, seen.jobs));
}
