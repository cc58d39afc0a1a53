//! Packets: short calls of one function that are sent as one task. [`Stock`], [`Packet`], [`Journal`], [`run_packet`].
//!
//! A packet contains the arguments of its calls, one after the other. Its worker writes the result of each call into a
//! journal: memory that is lent to the task. The program can read the journal while the task runs, and after the
//! worker's death.
//!
//! # The journal
//!
//! | bytes | writer | reader | protection |
//! |---|---|---|---|
//! | 0..4, calls that have begun, and `CLOSED` | the worker adds one before each call; the program sets `CLOSED` | both | one atomic word, SeqCst: either the worker sees that the journal is closed, or the program sees that the call has begun |
//! | 8..16, calls that have ended, and the bytes of their records | the worker, after each record (Release: "record written", pairs with `Journal::ended`) | the program | atomic |
//! | 16.., records | the worker, beyond the bytes that it has published | the program, up to these | the word before |
//!
//! So each call begins at most once: after the program has closed the journal, it sends again only the calls that the
//! worker has not begun. The worker is not trusted: the program checks lengths, and checks that each ended call has a
//! record.

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
