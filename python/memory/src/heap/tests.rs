use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::*;

const MIB: usize = 1 << 20;

/// A fork changes the heaps of all tests.
static FORKS: RwLock<()> = RwLock::new(());

/// Returns a heap, and a guard that prevents forks meanwhile.
fn heap() -> (&'static CowHeap, RwLockReadGuard<'static, ()>) {
    let guard = FORKS.read().unwrap_or_else(PoisonError::into_inner);
    (CowHeap::new("test").unwrap(), guard)
}

/// A block that the allocator of another language has allocated.
struct Owned {
    heap: &'static CowHeap,
    at: NonNull<u8>,
    len: usize,
}

impl Owned {
    fn new(heap: &'static CowHeap, len: usize, zeroed: bool) -> Owned {
        let at = heap.alloc(len, zeroed).unwrap();
        Owned { heap, at, len }
    }

    fn write(&self, at: usize, value: u8) {
        assert!(at < self.len);
        // SAFETY: within the block, which this thread alone has.
        unsafe { self.at.add(at).write_volatile(value) };
    }

    fn read(&self, at: usize) -> u8 {
        assert!(at < self.len);
        // SAFETY: as above.
        unsafe { self.at.add(at).read_volatile() }
    }

    fn snapshot(&self, range: Range<usize>) -> Option<Array<u8>> {
        self.counted(range).map(|(snapshot, _)| snapshot)
    }

    /// Returns a snapshot and the number of bytes that were copied.
    fn counted(&self, range: Range<usize>) -> Option<(Array<u8>, usize)> {
        self.heap
            .snapshot(self.at.addr().get() + range.start, range.len())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: not used afterwards.
        unsafe { self.heap.free(self.at) };
    }
}

/// Whether Linux reports which pages were written since the last query (from 6.7 on, where that is allowed).
fn finds_writes() -> bool {
    let segment = Segment::create_memfd("finds", true).unwrap();
    segment.set_len(HUGE as u64).unwrap();
    let map = Pages::new(&segment, HUGE).unwrap();
    map.set_shared(0..HUGE, &segment, false).unwrap();
    let begin = map.base().addr().get();
    Written::open().unwrap().track(begin..begin + HUGE)
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let (heap, _guard) = heap();
    let block = Owned::new(heap, 5 * MIB, true);
    block.write(4 * MIB, 1);
    let first = block.snapshot(MIB..5 * MIB).unwrap();
    let again = block.snapshot(0..5 * MIB).unwrap();
    block.write(4 * MIB, 2);
    assert_eq!(
        (first[3 * MIB], again[4 * MIB], block.read(4 * MIB)),
        (1, 1, 2)
    );
    assert_eq!(first.len(), 4 * MIB);
    // The rest of the block is in the file as it was.
    assert_eq!(block.snapshot(0..MIB).unwrap()[0], 0);
    if finds_writes() {
        assert_eq!(block.snapshot(0..5 * MIB).unwrap()[4 * MIB], 2);
    } else {
        assert!(block.snapshot(0..5 * MIB).is_none());
    }
    assert!(
        block.snapshot(MIB..5 * MIB + 1).is_none(),
        "beyond the block"
    );
    drop(block);
    assert_eq!((first[3 * MIB], again[4 * MIB]), (1, 1));
    // The memory is not reused while there are snapshots.
    let other = Owned::new(heap, 5 * MIB, false);
    (0..5 * MIB).step_by(4096).for_each(|at| other.write(at, 9));
    assert_eq!((first[3 * MIB], again[0]), (1, 0));
}

#[test]
fn what_was_written_is_copied_once() {
    let (heap, _guard) = heap();
    let block = Owned::new(heap, 8 * MIB, true);
    let snapshot = || block.snapshot(0..8 * MIB);
    let first = snapshot().unwrap();
    let place = first.as_ptr();
    drop(first);
    block.write(5 * MIB, 1);
    if !finds_writes() {
        assert!(snapshot().is_none());
        return;
    }
    let (second, copied) = block.counted(0..8 * MIB).unwrap();
    assert_eq!(copied, 4096);
    assert_eq!(
        (second.as_ptr(), second[5 * MIB]),
        (place, 1),
        "nobody reads the first"
    );
    assert_eq!(snapshot().unwrap().as_ptr(), place, "not written since");
    block.write(5 * MIB, 2);
    block.write(7 * MIB, 2);
    assert!(
        block.snapshot(5 * MIB..6 * MIB).is_none(),
        "not worth a copy of 8 MiB"
    );
    let third = snapshot().unwrap();
    let other = third.as_ptr();
    assert_ne!(other, place);
    assert_eq!((second[5 * MIB], second[7 * MIB]), (1, 0));
    assert_eq!((third[5 * MIB], third[7 * MIB], third[0]), (2, 2, 0));
    assert_eq!(snapshot().unwrap().as_ptr(), other);
    assert_eq!(heap.in_use().0, 16 * MIB);
    drop((second, third));
    block.write(0, 3);
    let fourth = block.snapshot(0..MIB).unwrap();
    assert_eq!((fourth.as_ptr(), fourth[0]), (other, 3));
    drop(block);
    assert_eq!(heap.in_use().0, 8 * MIB);
    assert_eq!(fourth[0], 3);
    drop(fourth);
    assert_eq!(heap.in_use().0, 0);
}

/// Large zeros are memory of this process alone until the first snapshot, which copies them.
#[test]
fn large_zeros_are_copied_by_the_first_snapshot() {
    let (heap, _guard) = heap();
    let is_own = finds_writes() && !faults_are_huge();
    let block = Owned::new(heap, 20 * MIB, true);
    let first = block.at;
    block.write(19 * MIB, 1);
    let (snapshot, copied) = block.counted(0..20 * MIB).unwrap();
    // The used page, small or huge.
    assert_eq!(copied > 0, is_own);
    assert!(copied <= HUGE);
    assert_eq!((snapshot[0], snapshot[19 * MIB]), (0, 1));
    let (again, copied) = block.counted(0..20 * MIB).unwrap();
    assert_eq!((again.as_ptr(), copied), (snapshot.as_ptr(), 0));
    block.write(0, 2);
    assert_eq!(
        (snapshot[0], block.read(0), block.read(19 * MIB)),
        (0, 2, 1)
    );
    assert_eq!(heap.in_use(), (if is_own { 40 * MIB } else { 20 * MIB }, 0));
    if is_own {
        // SAFETY: the block is used by this thread alone.
        assert!(!unsafe { heap.resize(block.at, 22 * MIB) });
    }
    drop(block);
    assert_eq!(heap.in_use(), (20 * MIB, 0), "the snapshot has the image");
    let zeros = Owned::new(heap, 20 * MIB, true);
    assert!((0..20 * MIB).step_by(64).all(|at| zeros.read(at) == 0));
    assert_eq!(zeros.at == first, is_own, "its chunks are used again");
    drop((snapshot, again));
    assert_eq!(heap.in_use(), (20 * MIB, 20 * MIB));
}

/// What was written beyond the present end of a block stays out of its image, which ends earlier.
#[test]
fn the_image_of_shortened_zeros_leaves_its_neighbour_alone() {
    let (heap, _guard) = heap();
    let block = Owned::new(heap, 40 * MIB, true);
    let place = Owned::new(heap, 26 * MIB, false);
    let neighbour = Owned::new(heap, 20 * MIB, false);
    let pages = || (0..20 * MIB).step_by(4096);
    pages().for_each(|at| neighbour.write(at, 7));
    // The image takes this place.
    drop(place);
    block.write(25 * MIB, 1);
    block.write(30 * MIB, 2);
    // SAFETY: the block is used by this thread alone, and not beyond the new end.
    assert!(unsafe { heap.resize(block.at, 26 * MIB) });
    let snapshot = block.snapshot(0..26 * MIB).unwrap();
    assert_eq!((snapshot[0], snapshot[25 * MIB]), (0, 1));
    assert!(pages().all(|at| neighbour.read(at) == 7));
}

/// A block that is written again before each snapshot is mostly left to the caller to copy.
#[test]
fn a_block_that_is_rewritten_each_time_is_refused() {
    let (heap, _guard) = heap();
    let block = Owned::new(heap, 2 * MIB, true);
    let mut refused = 0;
    for round in 0..200 {
        (0..2 * MIB)
            .step_by(4096)
            .for_each(|at| block.write(at, round));
        match block.snapshot(0..2 * MIB) {
            Some(snapshot) => assert_eq!(snapshot[MIB], round),
            None => refused += 1,
        }
    }
    assert!(refused > 180, "{refused}");
    // From here on, several snapshots follow each write.
    for round in 0..100 {
        block.write(0, round);
        let snapshots: Vec<_> = (0..4).map(|_| block.snapshot(0..2 * MIB)).collect();
        assert!(
            snapshots
                .iter()
                .flatten()
                .all(|snapshot| snapshot[0] == round)
        );
        refused = snapshots
            .iter()
            .filter(|snapshot| snapshot.is_none())
            .count();
    }
    assert_eq!(refused, if finds_writes() { 0 } else { 4 });
}

#[test]
fn memory_is_reused_and_returned() {
    let (heap, _guard) = heap();
    let block = Owned::new(heap, 3 * MIB, false);
    let first = block.at;
    block.write(0, 1);
    let snapshot = block.snapshot(0..1).unwrap();
    drop(block);
    assert_eq!(heap.in_use(), (3 * MIB, 0), "the snapshot has it");
    drop(snapshot);
    assert_eq!(heap.in_use(), (0, 4 * MIB));
    let block = Owned::new(heap, 4 * MIB, false);
    assert_eq!(block.at, first);
    block.write(0, 2);
    assert_eq!(block.snapshot(0..1).unwrap()[..], [2], "shared again");
    drop(block);
    let zeros = Owned::new(heap, 4 * MIB, true);
    assert!((0..4 * MIB).all(|at| zeros.read(at) == 0));
    drop(zeros);
    heap.trim();
    assert_eq!(heap.in_use(), (0, 0));
    let zeros = Owned::new(heap, 4 * MIB, true);
    assert!((0..4 * MIB).step_by(64).all(|at| zeros.read(at) == 0));
}

#[test]
fn a_block_is_resized_in_place() {
    let (heap, _guard) = heap();
    let block = heap.alloc(3 * MIB, false).unwrap();
    let next = Owned::new(heap, MIB, false);
    let address = block.addr().get();
    // SAFETY: the block is used by this thread alone, until it is freed.
    unsafe {
        assert!(heap.resize(block, 4 * MIB));
        assert_eq!(heap.len_of(address), Some(4 * MIB));
        assert!(
            !heap.resize(block, 4 * MIB + 1),
            "the next chunk has a block"
        );
        assert!(!heap.resize(block, MIB), "too much would be left");
        drop(next);
        heap.trim();
        block.write(7);
        let (snapshot, _) = heap.snapshot(address, 4 * MIB).unwrap();
        assert!(heap.resize(block, 9 * MIB), "into chunks without memory");
        block.add(9 * MIB - 1).write(8);
        assert_eq!((snapshot[0], snapshot.len()), (7, 4 * MIB));
        let snapshot = heap.snapshot(address, 9 * MIB);
        assert_eq!(snapshot.is_some(), finds_writes());
        assert!(
            snapshot.is_none_or(|(snapshot, _)| (snapshot[0], snapshot[9 * MIB - 1]) == (7, 8))
        );
        assert_eq!(heap.len_of(address + 1), None);
        heap.free(block);
    }
    assert_eq!(heap.len_of(address), None);
}

/// Compares random blocks, writes and snapshots in four threads with plain maps of the written bytes.
#[test]
fn random_programs_equal_plain_memory() {
    let (heap, _guard) = heap();
    let steps = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            let steps = &steps;
            scope.spawn(move || {
                let mut random = Random(seed * 0x9e37_79b9);
                let mut blocks: Vec<(Owned, BTreeMap<usize, u8>)> = Vec::new();
                let mut snapshots: Vec<(Array<u8>, BTreeMap<usize, u8>)> = Vec::new();
                while steps.fetch_add(1, Ordering::Relaxed) < 20_000 {
                    match random.below(16) {
                        0 if blocks.len() < 8 => {
                            let is_large = random.below(4) == 0;
                            let len = 1 + random.below(6 * MIB) + usize::from(is_large) * CLEARED;
                            // Zeroed, because the test also reads bytes that it has not written.
                            blocks.push((Owned::new(heap, len, true), BTreeMap::new()));
                        }
                        1 if !blocks.is_empty() => {
                            blocks.swap_remove(random.below(blocks.len()));
                        }
                        2 if !snapshots.is_empty() => {
                            snapshots.swap_remove(random.below(snapshots.len()));
                        }
                        3..=5 if !blocks.is_empty() && snapshots.len() < 20 => {
                            let (block, content) = &blocks[random.below(blocks.len())];
                            let start = random.below(2) * random.below(block.len);
                            let range = start
                                ..block.len - random.below(2) * random.below(block.len - start);
                            if let Some(array) = block.snapshot(range.clone()) {
                                let content = content.range(range);
                                let content = content.map(|(at, value)| (at - start, *value));
                                snapshots.push((array, content.collect()));
                            }
                        }
                        6..=11 if !blocks.is_empty() => {
                            let at = random.below(blocks.len());
                            let (block, content) = &mut blocks[at];
                            let place = random.below(block.len);
                            let value = random.below(256) as u8;
                            block.write(place, value);
                            content.insert(place, value);
                        }
                        12 if random.below(50) == 0 => heap.trim(),
                        _ => {}
                    }
                    let looked = random.below(64);
                    if let Some((block, content)) = blocks.get(looked) {
                        assert!(content.iter().all(|(at, value)| block.read(*at) == *value));
                        let place = random.below(block.len);
                        assert_eq!(block.read(place), content.get(&place).copied().unwrap_or(0));
                    }
                    if let Some((array, content)) = snapshots.get(looked) {
                        assert!(content.iter().all(|(at, value)| array[*at] == *value));
                        let place = random.below(array.len());
                        assert_eq!(array[place], content.get(&place).copied().unwrap_or(0));
                    }
                }
            });
        }
    });
    heap.trim();
    assert_eq!(heap.in_use(), (0, 0));
}

/// After a fork, neither process sees what the other writes, and snapshots stay.
#[test]
fn a_forked_copy_has_its_own_memory() {
    let _guard = FORKS.write().unwrap_or_else(PoisonError::into_inner);
    let heap = CowHeap::new("test").unwrap();
    let block = Owned::new(heap, 4 * MIB, true);
    block.write(0, 1);
    let snapshot = block.snapshot(0..4 * MIB).unwrap();
    let other = Owned::new(heap, 2 * MIB, true);
    other.write(0, 1);
    let third = Owned::new(heap, 2 * MIB, true);
    third.write(0, 1);
    assert_eq!(third.snapshot(0..2 * MIB).unwrap()[0], 1);
    let (mut here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
    let exchange = |stream: &mut std::os::unix::net::UnixStream, word: u8| {
        use std::io::{Read, Write};
        stream.write_all(&[word]).unwrap();
        let mut got = [0];
        stream.read_exact(&mut got).unwrap();
        got[0]
    };
    // SAFETY: the copy only uses memory and a socket, and ends without running anything of the test harness.
    let copy = unsafe { libc::fork() };
    assert!(copy >= 0);
    if copy == 0 {
        // Each process has one end, so the other reads no more when it ends.
        drop(here);
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            other.write(0, 2);
            block.write(1, 2);
            exchange(&mut there, 0);
            assert_eq!((other.read(0), other.read(1)), (2, 0));
            assert_eq!((block.read(0), block.read(1), snapshot[0]), (1, 2, 1));
            assert_eq!((third.read(0), third.read(MIB)), (1, 0));
            third.write(2 * MIB - 1, 6);
            let changed = third.snapshot(0..2 * MIB);
            assert_eq!(changed.is_some(), finds_writes());
            assert!(changed.is_none_or(|changed| (changed[0], changed[2 * MIB - 1]) == (1, 6)));
            // Allocated in memory of the forked process alone.
            let new = Owned::new(heap, 2 * MIB, true);
            new.write(0, 3);
            assert_eq!(new.snapshot(0..1).unwrap()[..], [3]);
            assert_eq!(other.snapshot(4096..4097).unwrap()[..], [0]);
            drop(new);
            exchange(&mut there, 0);
        }));
        // SAFETY: ends the copy at once.
        unsafe { libc::_exit(i32::from(passed.is_err())) };
    }
    drop(there);
    other.write(1, 4);
    third.write(MIB, 5);
    let changed = third.snapshot(0..2 * MIB);
    assert_eq!(changed.is_some(), finds_writes());
    assert!(changed.is_none_or(|changed| (changed[0], changed[MIB]) == (1, 5)));
    exchange(&mut here, 0);
    drop(third);
    assert_eq!((other.read(0), other.read(1), block.read(1)), (1, 4, 0));
    // Free a block here while the forked process reads it.
    drop(other);
    let new = Owned::new(heap, 2 * MIB, false);
    (0..2 * MIB).step_by(4096).for_each(|at| new.write(at, 7));
    exchange(&mut here, 0);
    let mut status = 0;
    // SAFETY: waits for the copy made above.
    assert_eq!(unsafe { libc::waitpid(copy, &raw mut status, 0) }, copy);
    assert_eq!(status, 0);
    drop(block);
    assert_eq!(snapshot[0], 1);
    // No process reads the file any more: what was freed in it is zero, and is used again.
    drop((snapshot, new));
    let blocks: Vec<_> = (0..4).map(|_| Owned::new(heap, 2 * MIB, true)).collect();
    assert!(
        blocks
            .iter()
            .all(|block| (0..2 * MIB).all(|at| block.read(at) == 0))
    );
    assert_eq!(
        lock(&heap.state)
            .regions
            .iter()
            .filter(|region| region.is_retired)
            .count(),
        0
    );
}
