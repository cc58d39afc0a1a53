//! An engine under test, and the checks after each fault. Shared by the soak, the suites with real engines and the tests of the
//! command.
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
pub use engine::{Calls, Lab, builder, refused, send_signal, wait_until};
pub use gate::{Gate, at_gates, hang, pass, through};
pub use invariant::{Answers, Invariant, expect_idle, expect_in_use};
pub use proc::{field_of, private_bytes, state_of, status_of};
pub use traces::{children, processes_of};
pub use watch::{case, patience, step, watched};
