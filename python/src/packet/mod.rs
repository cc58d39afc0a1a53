//! Short calls of one function that travel as one task: [`Stock`], [`Packet`], [`Journal`] and [`run_packet`].
//!
//! A packet is the arguments of its calls, one after the other. Its worker writes what each call gives into a journal:
//! memory that is lent to the task, which the program can read while the task runs, and after the death of its worker.
//!
//! # The journal
//!
//! | bytes | writer | reader | protection |
//! |---|---|---|---|
//! | 0..4, calls that have begun, and [`CLOSED`] | the worker adds one before each call; the program sets `CLOSED` | both | one atomic word, SeqCst: either the worker sees that the journal is closed, or the program sees that the call has begun |
//! | 8..16, calls that have ended, and the bytes of their records | the worker, after each record (Release: "record written", pairs with `Journal::ended`) | the program | atomic |
//! | 16.., records | the worker, beyond the bytes that it has published | the program, up to these | the word before |
//!
//! So each call begins at most once: those that the worker has not begun when the program closes the journal are the
//! program's. A worker may write anything: the program checks lengths, and calls that it counts as ended have records.

mod journal;
mod run;
mod stock;
mod values;

use pyo3::PyErr;
use pyo3::exceptions::PyValueError;

pub use journal::Journal;
pub use run::run_packet;
pub use stock::{Packet, Stock};

fn damaged() -> PyErr {
    PyValueError::new_err("a packet of calls is damaged")
}
