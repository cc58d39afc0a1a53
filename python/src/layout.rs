//! The bytes that an array has in memory: [`Layout`].

/// The bytes of an array: runs of equal length, at sums of multiples of strides.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The address of the first byte.
    start: usize,
    /// The length of a run in bytes.
    run: usize,
    /// The stride in bytes and the number of steps of each dimension that does not continue another one.
    dims: Vec<(usize, usize)>,
}

/// Max number of steps of a search for a common byte. Arrays that need more (of many dimensions with unrelated strides)
/// count as overlapping.
const MAX_STEPS: usize = 100_000;

impl Layout {
    /// Returns the layout of an array whose first element is at `address`. The array has elements.
    pub fn new(address: usize, itemsize: usize, shape: &[usize], strides: &[isize]) -> Self {
        let (mut start, mut run) = (address, itemsize);
        let mut sorted = Vec::with_capacity(shape.len());
        for (&count, &stride) in shape.iter().zip(strides) {
            if stride < 0 {
                start -= stride.unsigned_abs() * (count - 1);
            }
            if count > 1 && stride != 0 {
                sorted.push((stride.unsigned_abs(), count));
            }
        }
        sorted.sort_unstable();
        let mut dims: Vec<(usize, usize)> = Vec::with_capacity(sorted.len());
        for (stride, count) in sorted {
            match dims.last_mut() {
                None if stride == run => run *= count,
                Some((inner, steps)) if stride == *inner * *steps => *steps *= count,
                _ => dims.push((stride, count)),
            }
        }
        Self { start, run, dims }
    }

    fn end(&self) -> usize {
        let last = |(stride, count): &(usize, usize)| stride * (count - 1);
        self.start + self.dims.iter().map(last).sum::<usize>() + self.run
    }

    /// Whether the arrays have a byte in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.start >= other.end() || other.start >= self.end() {
            return false;
        }
        // A byte of an array is at its start, plus multiples of its strides, plus a position in a run. So a byte of
        // both arrays solves an equation, in which factors of the other array are negative.
        let mut terms: Vec<Term> = Vec::with_capacity(self.dims.len() + other.dims.len() + 1);
        let mut add = |stride: usize, own: usize, others: usize| {
            let (stride, own, others) = (
                stride.cast_signed(),
                own.cast_signed(),
                others.cast_signed(),
            );
            match terms.iter_mut().find(|term| term.stride == stride) {
                Some(term) => (term.low, term.high) = (term.low - others, term.high + own),
                None => terms.push(Term {
                    stride,
                    low: -others,
                    high: own,
                }),
            }
        };
        for &(stride, count) in &self.dims {
            add(stride, count - 1, 0);
        }
        for &(stride, count) in &other.dims {
            add(stride, 0, count - 1);
        }
        add(1, self.run - 1, other.run - 1);
        terms.sort_unstable_by_key(|term| std::cmp::Reverse(term.stride));
        let difference = other.start.cast_signed() - self.start.cast_signed();
        is_solvable(&terms, difference, &mut 0)
    }
}

/// A stride, and the range of its factors.
struct Term {
    stride: isize,
    low: isize,
    high: isize,
}

/// Whether factors exist with which the terms add up to this sum. The last of the terms has the stride 1.
fn is_solvable(terms: &[Term], sum: isize, steps: &mut usize) -> bool {
    let Some((first, rest)) = terms.split_first() else {
        return sum == 0;
    };
    *steps += 1;
    if *steps > MAX_STEPS {
        return true;
    }
    let floor = |value: isize, by: isize| value.div_euclid(by);
    let ceil = |value: isize, by: isize| -(-value).div_euclid(by);
    // All terms but the last are multiples of their divisor.
    if let [larger @ .., unit] = terms {
        let divisor = larger.iter().fold(0, |found, term| gcd(found, term.stride));
        if divisor > 0 && ceil(sum - unit.high, divisor) > floor(sum - unit.low, divisor) {
            return false;
        }
    }
    let low: isize = rest.iter().map(|term| term.stride * term.low).sum();
    let high: isize = rest.iter().map(|term| term.stride * term.high).sum();
    let from = first.low.max(ceil(sum - high, first.stride));
    let to = first.high.min(floor(sum - low, first.stride));
    (from..=to).any(|factor| is_solvable(rest, sum - factor * first.stride, steps))
}

fn gcd(a: isize, b: isize) -> isize {
    if b == 0 { a } else { gcd(b, a % b) }
}
