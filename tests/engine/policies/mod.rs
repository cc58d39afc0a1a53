//! What a caller may demand for a job: a deadline, another try, a place in the queue, an early end.

mod cancel;
mod deadlines;
mod priorities;
mod retries;

use std::thread;

pub fn tests() -> Vec<libtest_mimic::Trial> {
    [
        cancel::tests(),
        deadlines::tests(),
        priorities::tests(),
        retries::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// In a kernel: never ends, and needs no processor for it.
fn hang() {
    loop {
        thread::park();
    }
}
