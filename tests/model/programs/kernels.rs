//! The kernels of random programs. `call` is the number of the call, which is unique, and whether it draws random
//! numbers.

use std::thread;

use arenite::{Array, ArrayMut, Spawn, TileMut, call};
use rand::Rng;

use crate::harness::note;

/// The number of a call, and whether its kernel draws random numbers.
pub type Call = [u64; 2];

/// Ways in which [`die`] ends its process.
pub const WAYS: u64 = 4;

/// Notes that the call has begun, unless there is no log. Returns a random number if the call draws.
pub fn begin(log: &str, [number, draws]: Call) -> u64 {
    if !log.is_empty() {
        note(log, number);
    }
    match draws {
        0 => number,
        _ => number ^ arenite::rng().next_u64(),
    }
}

fn mixed(values: &[u64], n: u64, i: usize) -> u64 {
    values[i].wrapping_mul(31).rotate_left(i as u32) ^ n
}

pub fn mix(values: &Array<u64>, log: &str, call: Call) -> Array<u64> {
    let n = begin(log, call);
    // Memory that is free again while other lanes fill theirs.
    drop(Array::from_slice(&values[..values.len() / 2]));
    Array::from_fn(values.shape(), |i| mixed(values, n, i))
}

pub fn total(values: &[u64], log: &str, call: Call) -> u64 {
    let n = begin(log, call);
    values.iter().fold(n, |sum, &x| sum.wrapping_add(x))
}

/// Returns an error if `how` is 0, panics if it is 1.
pub fn pick(log: &str, call: Call, how: u64) -> Result<u64, String> {
    let n = begin(log, call);
    match how {
        0 => Err(format!("{} is wrong", call[0])),
        1 => panic!("{} panics", call[0]),
        _ => Ok(n),
    }
}

pub fn repeat(text: &str, log: &str, call: Call) -> String {
    let n = begin(log, call);
    text.repeat((n % 100) as usize)
}

pub fn sorted(mut values: ArrayMut<u64>, log: &str, call: Call) -> ArrayMut<u64> {
    let n = begin(log, call);
    values.iter_mut().for_each(|x| *x ^= n);
    values.sort_unstable();
    values
}

pub fn fill(mut tile: TileMut<'_, u64>, values: &[u64], log: &str, call: Call) {
    let n = begin(log, call);
    for (x, i) in tile.iter_mut().zip(0..) {
        *x = mixed(values, n, i % values.len());
    }
}

/// A job that takes values of others. Fails if `how` is 0.
pub fn join(
    left: &[u64],
    right: &[u64],
    log: &str,
    call: Call,
    how: u64,
) -> Result<Array<u64>, String> {
    let n = begin(log, call);
    if how == 0 {
        return Err(format!("{} is wrong", call[0]));
    }
    let len = left.len().max(right.len());
    let value = |values: &[u64], i: usize| values.get(i).copied().unwrap_or(n);
    let add = |i| value(left, i).rotate_left(7).wrapping_add(value(right, i)) ^ n;
    Ok(Array::from_fn(len, add))
}

/// Sorts by spawning a job for each half.
pub fn sort(values: &Array<u64>, log: &str, call_of: Call) -> Spawn<Array<u64>> {
    begin(log, call_of);
    if values.len() < 100 {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        return Array::from_slice(&sorted).into();
    }
    let half = values.len() / 2;
    let [left, right] = [values.rows(..half), values.rows(half..)];
    // Without a log, because these jobs have the same number.
    let one = |half| call(sort, (half, "", call_of));
    Spawn::new(merge, (one(left), one(right), call_of))
}

fn merge(left: &[u64], right: &[u64], call: Call) -> Array<u64> {
    let n = begin("", call);
    let mut all = [left, right].concat();
    all.sort_unstable();
    // Keeps the order, and differs if any job has drawn another number.
    all[0] = all[0].min(n);
    Array::from_slice(&all)
}

/// Ends its process.
pub fn die(log: &str, call: Call, how: u64) -> u64 {
    begin(log, call);
    match how {
        0 => std::process::abort(),
        1 => std::process::exit(3),
        // SAFETY: none: a bug in a kernel, on purpose.
        2 => unsafe { std::ptr::null_mut::<u64>().write_volatile(1) },
        // SAFETY: no memory is involved.
        _ => _ = unsafe { libc::raise(libc::SIGILL) },
    }
    how
}

pub fn hang(log: &str, call: Call) -> u64 {
    begin(log, call);
    loop {
        thread::park();
    }
}

/// The state of an actor: the calls that it has seen.
pub struct List(Vec<u64>);

impl List {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns all calls so far.
    pub fn push(&mut self, log: &str, call: Call) -> Array<u64> {
        begin(log, [call[0], 0]);
        self.0.push(call[0]);
        self.save()
    }

    pub fn push_after(&mut self, log: &str, call: Call, _: &Array<u64>) -> Array<u64> {
        self.push(log, call)
    }

    pub fn save(&self) -> Array<u64> {
        Array::from_slice(&self.0)
    }

    pub fn restore(saved: &Array<u64>) -> Self {
        Self(saved.to_vec())
    }
}
