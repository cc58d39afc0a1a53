//! Arrays that the program writes between jobs: programs killed at each step of their memory, snapshots, forks and results, and
//! workers killed with maps of them.
//!
//! Each array is beside a `Vec` with the bytes that it should have. Jobs, forked copies of the program, and the program compare both.

use std::fs::File;
use std::io::{Read, pipe};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, OnceLock};

use arenite::points::{Point, Side};
use arenite::raw::{Buffer, Buffers, Received};
use arenite::{Array, Backoff, Engine};
use arenite_memory::{CowHeap, PrivateCopy};
use libtest_mimic::Trial;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::board::points;
use crate::harness::{Invariant, Lab, step};
use crate::passings::{Death, Saw, killed_at, without_death};
use crate::programs::COMPLAINT;

/// Steps of a worker that only arguments have that it maps from a file or privately.
pub fn owns(point: &Point) -> bool {
    matches!(point.step(), "file" | "private")
}

pub fn trials() -> Vec<Trial> {
    let mine = |point: &&Point| owns(point);
    killed_at("arrays", points(Side::Worker).filter(mine), scene)
}

/// The length of an array: two huge pages and a part of a third.
const LEN: usize = (4 << 20) + 70_000;
const PAGE: usize = 4096;

// ---- kernels ------------------------------------------------------------------------------------------------

fn sum(bytes: &[u8]) -> u64 {
    let mix = |sum: u64, byte: &u8| sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
    // Every byte of the pages that are written, and some of the others.
    bytes[..4 * PAGE]
        .iter()
        .chain(bytes.iter().step_by(61))
        .fold(0, mix)
}

/// Returns the sum of each argument, after it has written to a copy of the argument.
fn look(buffers: Buffers<'_>) -> Vec<u64> {
    static LEFT: Mutex<Vec<Arc<PrivateCopy>>> = Mutex::new(Vec::new());
    let look = |buffer| {
        let Received::Read(array) = buffer else {
            panic!("nothing is lent");
        };
        let copy = PrivateCopy::of(&array).expect("a worker without a sandbox can map it");
        // SAFETY: within the bytes, to which no one else has a pointer.
        unsafe { copy.as_ptr().write_bytes(99, 4 * PAGE) };
        // The copy of the last job is dropped, this copy outlives its job.
        *LEFT.lock().unwrap() = vec![copy];
        sum(&array)
    };
    buffers.map(look).collect()
}

fn make(len: usize, value: u8) -> Array<u8> {
    Array::from_fn(len, |_| value)
}

// ---- arrays -------------------------------------------------------------------------------------------------

fn heap() -> &'static CowHeap {
    static HEAP: OnceLock<&CowHeap> = OnceLock::new();
    HEAP.get_or_init(|| CowHeap::new("heap-killing").unwrap())
}

/// Passes arrays to a job, whose worker may be killed, and compares what the job has seen.
fn check(engine: &Engine, arrays: &[(Array<u8>, &[u8])]) {
    let buffers: Vec<_> = arrays
        .iter()
        .map(|(array, _)| Buffer::read(array.clone()))
        .collect();
    let job = engine
        .job(look, (buffers,))
        .retries(2)
        .backoff(Backoff::NONE);
    let expected: Vec<_> = arrays.iter().map(|(_, bytes)| sum(bytes)).collect();
    assert_eq!(job.submit().wait().unwrap(), expected);
}

/// A block of the heap, and the bytes that it should have.
struct Block {
    start: NonNull<u8>,
    expected: Vec<u8>,
}

impl Block {
    fn new(value: u8) -> Self {
        let start = heap().alloc(LEN, false).unwrap();
        let mut block = Self {
            start,
            expected: vec![0; LEN],
        };
        block.fill(0..LEN, value);
        block
    }

    fn fill(&mut self, range: Range<usize>, value: u8) {
        self.expected[range.clone()].fill(value);
        // SAFETY: within the block, which only this thread accesses, except for snapshots.
        unsafe {
            let start = self.start.as_ptr().add(range.start);
            start.write_bytes(value, range.len());
        }
    }

    fn snapshot(&self) -> Array<u8> {
        let snapshot = heap().snapshot(self.start.addr().get(), LEN);
        // A copy, where Linux does not tell what was written.
        snapshot.map_or_else(|| Array::from_slice(self.now()), |(array, _)| array)
    }

    fn check(&self, engine: &Engine) {
        check(engine, &[(self.snapshot(), &self.expected)]);
    }

    fn now(&self) -> &[u8] {
        // SAFETY: only this thread writes to the block, and not while the slice lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), LEN) }
    }

    fn is_right(&self) -> bool {
        self.now() == self.expected
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: no pointer to the block is left.
        assert!(unsafe { heap().free(self.start) });
    }
}

/// Writes and passes arrays in every way, and compares them. `between` runs when some are shared with others.
fn story(engine: &Engine, between: impl FnOnce(&[&Block])) {
    step("a block that is passed");
    let mut first = Block::new(1);
    first.check(engine);
    step("the same block, with a page that was written since");
    first.fill(PAGE..2 * PAGE, 2);
    first.check(engine);
    step("the same block, written while a snapshot is left");
    let kept = first.snapshot();
    let before = first.expected.clone();
    first.fill(0..LEN, 3);
    first.check(engine);
    assert!(kept[..] == before);
    check(
        engine,
        &[(kept, &before), (first.snapshot(), &first.expected)],
    );
    step("the next block, where another one was");
    drop(Block::new(4));
    heap().trim();
    let mut second = Block::new(5);
    between(&[&first, &second]);
    second.fill(0..3 * PAGE, 6);
    first.fill(0..PAGE, 7);
    check(
        engine,
        &[
            (second.snapshot(), &second.expected),
            (first.snapshot(), &first.expected),
        ],
    );
    let third = Block::new(8);
    third.check(engine);
    step("a result that the program writes to");
    let made = engine.job(make, (LEN, 9)).retries(2).backoff(Backoff::NONE);
    let made = made.submit().wait().unwrap();
    let copy = PrivateCopy::of(&made).unwrap();
    drop(made);
    let mut expected = vec![9; LEN];
    for value in [10, 11] {
        expected[..PAGE].fill(value);
        // SAFETY: within the bytes, to which no one else has a pointer.
        unsafe { copy.as_ptr().write_bytes(value, PAGE) };
        let now = copy.snapshot(0..LEN);
        let now = now.map_or_else(|| Array::from_slice(&expected), |(array, _)| array);
        check(engine, &[(now, &expected)]);
    }
    for block in [first, second, third] {
        assert!(block.is_right());
    }
}

// ---- programs that are killed -------------------------------------------------------------------------------

/// What a program does until it is killed. Copies of it look at their arrays when it has ended.
pub fn live(engine: &Engine) {
    let mut copies = Vec::new();
    story(engine, |blocks| {
        let (ended, lives) = pipe().unwrap();
        // SAFETY: the copy makes system calls, and allocates, which the C library allows after its own `fork`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                drop(lives);
                let is_right = watch(ended, blocks);
                if !is_right {
                    drop(File::create(std::env::temp_dir().with_file_name(COMPLAINT)));
                }
                // SAFETY: ends this process at once.
                unsafe { libc::_exit(i32::from(!is_right)) }
            }
            ForkResult::Parent { child } => copies.push((child, lives)),
        }
    });
    for (copy, lives) in copies {
        drop(lives);
        let exited = waitpid(copy, None);
        assert_eq!(exited, Ok(WaitStatus::Exited(copy, 0)));
    }
}

/// In a copy: waits for the end of the original, then looks at the blocks, and writes to them.
fn watch(mut ended: impl Read, blocks: &[&Block]) -> bool {
    let mut nothing = Vec::new();
    let waited = ended.read_to_end(&mut nothing);
    blocks.iter().all(|block| {
        let was_right = block.is_right();
        let mut own = Block {
            start: block.start,
            expected: block.expected.clone(),
        };
        own.fill(LEN / 2..LEN, 77);
        let is_right = own.is_right();
        std::mem::forget(own);
        was_right && is_right
    }) && waited.is_ok()
}

// ---- workers that are killed --------------------------------------------------------------------------------

/// Plays the story, during which a worker is killed at this passing. The program and later jobs notice nothing.
fn scene(point: &'static Point, passing: Option<u64>) -> Result<Saw, String> {
    let invariant = Invariant::before();
    let lab = Lab::new(1);
    let death = Death::arm(point, passing);
    story(&lab, |_| ());
    let (saw, _) = death.disarm(&lab);
    assert_eq!(heap().in_use().0, 0, "a block is not free");
    heap().trim();
    invariant.ends(lab)?;
    Ok(saw)
}

/// Runs without deaths: each step is taken. For tests that read the board.
pub fn undisturbed() {
    without_death(owns, scene);
}
