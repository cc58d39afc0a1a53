//! Job options: deadlines, retries, priorities, cancellation.

mod cancel;
mod deadlines;
mod priorities;
mod retries;

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
