//! Two threads that count at the same time: `--cfg race` without a lock, `--cfg lock` with one.

use std::sync::{Barrier, Mutex};

static BARRIER: Barrier = Barrier::new(2);
static LOCK: Mutex<()> = Mutex::new(());
static mut COUNT: u64 = 0;

fn count() {
    BARRIER.wait();
    for _ in 0..1000 {
        let _guard = cfg!(lock).then(|| LOCK.lock());
        // SAFETY: with `race`, none.
        unsafe { COUNT += 1 };
    }
}

fn main() {
    std::thread::scope(|threads| {
        threads.spawn(count);
        threads.spawn(count);
    });
}
