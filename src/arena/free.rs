//! The free ranges of a region. Size bins are searched for the best fit; free neighbours are merged at once.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use super::layout::QUANTUM;

/// Bins per power of two; sizes within a bin differ by at most 3 %.
const STEPS: u64 = 32;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Upper bound of the length of a range: longer than any region.
const LONGEST: u64 = 1 << 48;
/// Enough bins for lengths up to `LONGEST` in quanta of 64 bytes.
const BINS: usize = ((LONGEST.trailing_zeros() - 6 - STEP_BITS) as usize + 2) * STEPS as usize;
const WORDS: usize = BINS.div_ceil(64);
/// Number of ranges of a bin that are scanned for the best fit.
const MAX_SCANNED: usize = 12;
const NONE: u32 = u32::MAX;

/// Hashes offsets. All keys come from this module and are multiples of 64, so one multiplication spreads them well
/// enough.
#[derive(Default)]
struct OffsetHasher(u64);

impl Hasher for OffsetHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

type Table = HashMap<u64, u32, BuildHasherDefault<OffsetHasher>>;

#[derive(Clone, Copy, Debug)]
struct Node {
    start: u64,
    len: u64,
    previous: u32,
    next: u32,
}

/// The free ranges of a region of `limit` bytes.
///
/// Everything from `top` on is free and in no bin. Below `top`, free ranges are maximal: no two of them touch each
/// other or `top`, unless [`give_within`](FreeRanges::give_within) bounded the merging. Lengths and starts are
/// multiples of [`QUANTUM`].
#[derive(Debug)]
pub(crate) struct FreeRanges {
    nodes: Vec<Node>,
    unused: Vec<u32>,
    by_start: Table,
    by_end: Table,
    heads: Box<[u32; BINS]>,
    occupied: [u64; WORDS],
    holes: u64,
    top: u64,
    limit: u64,
}

/// The index of the bin for ranges of `len` bytes. It never falls as `len` grows.
fn bin(len: u64) -> usize {
    let units = len / QUANTUM;
    if units < STEPS {
        return units as usize;
    }
    let power = units.ilog2();
    let step = (units >> (power - STEP_BITS)) & (STEPS - 1);
    (u64::from(power - STEP_BITS + 1) * STEPS + step) as usize
}

impl FreeRanges {
    /// Creates the ranges of a region of `limit` bytes, all of which are free.
    pub(super) fn new(limit: u64) -> FreeRanges {
        FreeRanges {
            nodes: Vec::new(),
            unused: Vec::new(),
            by_start: Table::default(),
            by_end: Table::default(),
            heads: Box::new([NONE; BINS]),
            occupied: [0; WORDS],
            holes: 0,
            top: 0,
            limit,
        }
    }

    /// Creates the ranges of a region of the maximum size, all of which is taken.
    /// [`give_within`](FreeRanges::give_within) frees parts.
    pub(crate) fn all_taken() -> FreeRanges {
        let mut ranges = FreeRanges::new(LONGEST);
        ranges.top = LONGEST;
        ranges
    }

    /// The number of free bytes below the top.
    pub(crate) fn holes(&self) -> u64 {
        self.holes
    }

    /// The length of the longest free range below the top.
    pub(super) fn largest_hole(&self) -> u64 {
        let Some(bin) = self.last_bin() else {
            return 0;
        };
        self.list(bin).map(|(_, node)| node.len).max().unwrap_or(0)
    }

    /// The length of the longest free range, including the range above the top.
    pub(super) fn largest(&self) -> u64 {
        self.largest_hole().max(self.limit - self.top)
    }

    /// Whether the byte at `at` is at the top or above, and therefore free.
    pub(super) fn is_beyond(&self, at: u64) -> bool {
        at >= self.top
    }

    /// Every free range below the top, as start and length, unordered.
    pub(super) fn ranges(&self) -> Vec<(u64, u64)> {
        self.by_start
            .values()
            .map(|&index| {
                let node = self.nodes[index as usize];
                (node.start, node.len)
            })
            .collect()
    }

    /// Takes `len` bytes at a multiple of `align`. Returns their start.
    pub(super) fn take(&mut self, len: u64, align: u64) -> Option<u64> {
        let index = self.find(len, align, MAX_SCANNED).or_else(|| {
            let start = self.top.checked_next_multiple_of(align)?;
            // If there is no room above the top, scan every range that could fit, however many there are.
            (start.checked_add(len)? > self.limit).then(|| self.find(len, align, usize::MAX))?
        });
        match index {
            Some(index) => Some(self.carve(index, len, align)),
            None => self.take_top(len, align),
        }
    }

    /// Takes `len` bytes at a multiple of `align` from a free range below the top, if one is found quickly.
    pub(crate) fn take_hole(&mut self, len: u64, align: u64) -> Option<u64> {
        let index = self.find(len, align, MAX_SCANNED)?;
        Some(self.carve(index, len, align))
    }

    /// Takes `len` bytes from the range at `index`, which is known to fit. Returns their start.
    fn carve(&mut self, index: u32, len: u64, align: u64) -> u64 {
        let Node {
            start, len: had, ..
        } = self.nodes[index as usize];
        self.remove(index);
        let at = start.next_multiple_of(align);
        if at > start {
            self.insert(start, at - start);
        }
        if start + had > at + len {
            self.insert(at + len, start + had - (at + len));
        }
        at
    }

    fn take_top(&mut self, len: u64, align: u64) -> Option<u64> {
        let at = self.top.checked_next_multiple_of(align)?;
        let end = at.checked_add(len)?;
        if end > self.limit {
            return None;
        }
        if at > self.top {
            self.insert(self.top, at - self.top);
        }
        self.top = end;
        Some(at)
    }

    /// Takes the free range of exactly `len` bytes at `start`. Returns whether it exists.
    pub(super) fn take_exact(&mut self, start: u64, len: u64) -> bool {
        match self.by_start.get(&start) {
            Some(&index) if self.nodes[index as usize].len == len => {
                self.remove(index);
                true
            }
            _ => false,
        }
    }

    /// Takes the free range that ends at `end`. Returns its start.
    pub(crate) fn take_before(&mut self, end: u64) -> Option<u64> {
        let index = *self.by_end.get(&end)?;
        let start = self.nodes[index as usize].start;
        self.remove(index);
        Some(start)
    }

    /// Takes all free ranges below the top.
    pub(crate) fn clear(&mut self) {
        while self.holes > 0
            && let Some(bin) = self.last_bin()
        {
            self.remove(self.heads[bin]);
        }
    }

    /// Takes everything from the top up to `to`. Returns the start and the length.
    pub(super) fn take_up_to(&mut self, to: u64) -> Option<(u64, u64)> {
        if to <= self.top || to > self.limit {
            return None;
        }
        let start = std::mem::replace(&mut self.top, to);
        Some((start, to - start))
    }

    /// Frees `len` bytes at `start` and merges them with their free neighbours.
    ///
    /// # Panics
    ///
    /// If part of the range is already free, which shows that the accounting is wrong. Only the ends of the range are
    /// checked.
    pub(super) fn give(&mut self, start: u64, len: u64) {
        self.give_within(start, len, 0..self.limit);
    }

    /// Like [`give`](Self::give), but merges nothing outside `bounds`.
    ///
    /// # Panics
    ///
    /// As [`give`](Self::give).
    pub(crate) fn give_within(&mut self, start: u64, len: u64, bounds: Range<u64>) {
        let (mut start, mut end) = (start, start + len);
        assert!(
            end <= self.top
                && !self.by_start.contains_key(&start)
                && !self.by_end.contains_key(&end),
            "bytes {start} to {end} of a region were freed twice"
        );
        if start > bounds.start
            && let Some(&before) = self.by_end.get(&start)
        {
            start = self.nodes[before as usize].start;
            self.remove(before);
        }
        if end < bounds.end
            && let Some(&after) = self.by_start.get(&end)
        {
            end += self.nodes[after as usize].len;
            self.remove(after);
        }
        if end == self.top {
            self.top = start;
        } else {
            self.insert(start, end - start);
        }
    }

    /// Scans the first `look` ranges of each bin in which a range could fit, smaller bins first. Returns the smallest
    /// range that fits from the first bin that has one.
    fn find(&self, len: u64, align: u64, look: usize) -> Option<u32> {
        let mut from = bin(len);
        while let Some(bin) = self.next_bin(from) {
            let best = self
                .list(bin)
                .take(look)
                .filter(|(_, node)| {
                    let at = node.start.next_multiple_of(align);
                    at + len <= node.start + node.len
                })
                .min_by_key(|(_, node)| node.len);
            if let Some((index, _)) = best {
                return Some(index);
            }
            from = bin + 1;
        }
        None
    }

    fn list(&self, bin: usize) -> impl Iterator<Item = (u32, Node)> + '_ {
        let mut index = self.heads[bin];
        std::iter::from_fn(move || {
            let node = *self.nodes.get(index as usize)?;
            Some((std::mem::replace(&mut index, node.next), node))
        })
    }

    fn next_bin(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.occupied.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.occupied.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    fn last_bin(&self) -> Option<usize> {
        let (word, bits) = self
            .occupied
            .iter()
            .enumerate()
            .rev()
            .find(|&(_, &bits)| bits != 0)?;
        Some(word * 64 + bits.ilog2() as usize)
    }

    fn insert(&mut self, start: u64, len: u64) {
        let bin = bin(len);
        let head = self.heads[bin];
        let node = Node {
            start,
            len,
            previous: NONE,
            next: head,
        };
        let index = match self.unused.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1)
                    .ok()
                    .filter(|&index| index != NONE)
                    .expect("free ranges are bookkeeping of 24 bytes each: 4 billion never fit")
            }
        };
        if let Some(head) = self.nodes.get_mut(head as usize) {
            head.previous = index;
        }
        self.heads[bin] = index;
        self.occupied[bin / 64] |= 1 << (bin % 64);
        self.by_start.insert(start, index);
        self.by_end.insert(start + len, index);
        self.holes += len;
    }

    fn remove(&mut self, index: u32) {
        let node = self.nodes[index as usize];
        let bin = bin(node.len);
        match self.nodes.get_mut(node.previous as usize) {
            Some(previous) => previous.next = node.next,
            None => {
                self.heads[bin] = node.next;
                if node.next == NONE {
                    self.occupied[bin / 64] &= !(1 << (bin % 64));
                }
            }
        }
        if let Some(next) = self.nodes.get_mut(node.next as usize) {
            next.previous = node.previous;
        }
        self.by_start.remove(&node.start);
        self.by_end.remove(&(node.start + node.len));
        self.unused.push(index);
        self.holes -= node.len;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The simplest correct allocator, as the model.
    #[derive(Default)]
    struct Model {
        /// Start and length of held blocks.
        held: BTreeMap<u64, u64>,
    }

    impl Model {
        /// Maximal free runs of a region of `limit` bytes.
        fn free(&self, limit: u64) -> Vec<(u64, u64)> {
            let mut free = Vec::new();
            let mut at = 0;
            for (&start, &len) in &self.held {
                if start > at {
                    free.push((at, start - at));
                }
                assert!(start >= at, "blocks overlap at {start}");
                at = start + len;
            }
            if limit > at {
                free.push((at, limit - at));
            }
            free
        }

        fn fits(&self, limit: u64, len: u64, align: u64) -> bool {
            self.free(limit)
                .iter()
                .any(|&(start, has)| start.next_multiple_of(align) + len <= start + has)
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take {
            len: u64,
            align: u64,
        },
        /// Frees part of a held block; `from` and `to` are in eighths of the block.
        Give {
            which: usize,
            from: u64,
            to: u64,
        },
        GiveAll {
            which: usize,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let small = (1_u64..40).prop_map(|units| (units * QUANTUM, QUANTUM));
        let large = (1_u64..40).prop_map(|pages| (pages * 4096, 4096));
        let step = prop_oneof![
            3 => small.prop_map(|(len, align)| Step::Take { len, align }),
            2 => large.prop_map(|(len, align)| Step::Take { len, align }),
            2 => (any::<usize>(), 0_u64..8, 0_u64..9)
                .prop_map(|(which, from, to)| Step::Give { which, from, to }),
            3 => any::<usize>().prop_map(|which| Step::GiveAll { which }),
        ];
        proptest::collection::vec(step, 1..300)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(crate::sys::asked::cases(10_000))
        })]

        #[test]
        fn behaves_like_the_model(steps in steps()) {
            const LIMIT: u64 = 1 << 20;
            let mut ranges = FreeRanges::new(LIMIT);
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Take { len, align } => match ranges.take(len, align) {
                        Some(at) => {
                            prop_assert!(at.is_multiple_of(align) && at + len <= LIMIT);
                            model.held.insert(at, len);
                        }
                        None => prop_assert!(!model.fits(LIMIT, len, align)),
                    },
                    Step::Give { which, from, to } => {
                        let Some((&start, &len)) =
                            model.held.iter().nth(which % model.held.len().max(1))
                        else {
                            continue;
                        };
                        let units = len / QUANTUM;
                        let from = units * from / 8 * QUANTUM;
                        let to = (units * to).div_ceil(8).min(units) * QUANTUM;
                        if from < to {
                            model.held.remove(&start);
                            if from > 0 {
                                model.held.insert(start, from);
                            }
                            if to < len {
                                model.held.insert(start + to, len - to);
                            }
                            ranges.give(start + from, to - from);
                        }
                    }
                    Step::GiveAll { which } => {
                        let Some((&start, &len)) =
                            model.held.iter().nth(which % model.held.len().max(1))
                        else {
                            continue;
                        };
                        model.held.remove(&start);
                        ranges.give(start, len);
                    }
                }
                let mut free = ranges.ranges();
                free.sort_unstable();
                free.push((ranges.top, LIMIT - ranges.top));
                free.retain(|&(_, len)| len > 0);
                prop_assert_eq!(&free, &model.free(LIMIT));
                let below: u64 = ranges.ranges().iter().map(|&(_, len)| len).sum();
                prop_assert_eq!(ranges.holes(), below);
                let largest = free.iter().map(|&(_, len)| len).max().unwrap_or(0);
                prop_assert_eq!(ranges.largest(), largest);
            }
        }
    }

    #[test]
    fn bins_grow_with_size_and_hold_all_sizes() {
        let mut last = 0;
        for units in (1..5_000).chain((13..=42).flat_map(|power| {
            let power = 1_u64 << power;
            [power - 1, power, power + 1]
        })) {
            let bin = bin(units * QUANTUM);
            if units < 5_000 {
                assert!(bin >= last && bin <= last + 1, "{units} quanta");
                last = bin;
            }
            assert!(bin < BINS, "{units} quanta");
        }
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn a_double_free_panics() {
        let mut ranges = FreeRanges::new(1 << 20);
        let first = ranges.take(64, 64).unwrap();
        let _second = ranges.take(64, 64).unwrap();
        ranges.give(first, 64);
        ranges.give(first, 64);
    }

    #[test]
    fn a_fit_behind_many_misfits_is_found_when_the_top_is_full() {
        let mut ranges = FreeRanges::new(1 << 20);
        // 30 holes of one page that start 64 bytes after a page boundary, and one that starts at a boundary.
        let mut holes = Vec::new();
        for index in 0..31_u64 {
            let pad = ranges.take(if index == 0 { 4096 } else { 64 }, 64).unwrap();
            let hole = ranges.take(4096, 64).unwrap();
            let wall = if index == 0 { 4096 } else { 4096 - 64 };
            let _ = ranges.take(wall, 64).unwrap();
            assert!(pad < hole);
            holes.push(hole);
        }
        let rest = ranges.largest();
        let _ = ranges.take(rest, 64).unwrap();
        for &hole in &holes {
            ranges.give(hole, 4096);
        }
        let fit = holes.iter().copied().find(|hole| hole.is_multiple_of(4096));
        assert_eq!(fit, Some(4096));
        assert_eq!(ranges.take(4096, 4096), fit);
        assert_eq!(ranges.take(4096, 4096), None);
    }
}
