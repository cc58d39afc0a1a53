//! An engine under observation, whoever observes it: tests, or a soak.

mod engine;
mod gate;
mod invariant;
mod traces;
mod watch;

pub use engine::{Lab, wait_until};
pub use gate::{Gate, pass};
pub use invariant::{Answers, Invariant, expect_idle, expect_in_use};
pub use traces::{children, processes_with};
pub use watch::{patience, step, watched};
