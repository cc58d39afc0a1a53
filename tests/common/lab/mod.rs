//! An engine under observation, whoever observes it: a soak, or the tests of the library, which use this very code.
#![allow(dead_code, unused_imports, reason = "each user uses a part")]

mod dice;
mod ends;
mod engine;
mod gate;
mod invariant;
mod proc;
mod traces;
mod watch;

pub use dice::Dice;
pub use ends::{End, judge};
pub use engine::{Lab, wait_until};
pub use gate::{Gate, pass};
pub use invariant::{Answers, Invariant, expect_idle, expect_in_use};
pub use proc::{private_bytes, state_of};
pub use traces::{children, processes_of};
pub use watch::{case, patience, step, watched};
