//! Figures of bounded size, whatever was run: per kernel, per lane, over time, and what went wrong.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Attempt, End, Place, Ran};

/// Failures and deaths that are kept with their texts.
const TOLD: usize = 200;
/// Bytes of a text that are kept.
const TEXT: usize = 600;
/// Runs that are kept one by one, for a picture of a short trace.
pub(super) const RUNS: usize = 3000;
/// Kernels that have a colour; the others share one more.
pub(super) const COLOURS: usize = 7;
/// Steps of time.
pub(super) const COLUMNS: usize = 1024;
/// The first width of a step, in nanoseconds.
const STEP: u64 = 1 << 12;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) kernels: Vec<Kernel>,
    index: HashMap<&'static str, usize>,
    /// The kernel of the last attempt, and its index: most are followed by one of the same.
    last: Option<(&'static str, usize)>,
    pub(super) lanes: BTreeMap<Place, Lane>,
    /// Jobs that wait, over time.
    pub(super) waiting: Columns,
    /// The width of a step.
    pub(super) step: u64,
    /// The last time that was heard of, from the start.
    pub(super) end: u64,
    pub(super) runs: Vec<Run>,
    /// There were more runs than `runs` takes.
    pub(super) crowded: bool,
    pub(super) failures: Told,
    pub(super) deaths: Told,
    pub(super) cancelled: u64,
    /// Waits of lanes for output memory, and nanoseconds of them.
    pub(super) memory_waits: (u64, u64),
    pub(super) workers_started: u64,
}

/// What is known of a kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) name: &'static str,
    pub(super) ended: u64,
    pub(super) failed: u64,
    pub(super) took: Histogram,
    pub(super) waited: Histogram,
    /// In and out.
    pub(super) bytes: (u64, u64),
}

/// What is known of a lane.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) jobs: u64,
    pub(super) busy_ns: u64,
    /// By colour.
    pub(super) busy: BTreeMap<usize, Columns>,
    /// When one of its jobs failed, or its worker died, for the marks of the picture.
    pub(super) marks: Vec<u64>,
}

/// One run of a kernel.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) job: u64,
    pub(super) kernel: usize,
    pub(super) place: Place,
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) failed: bool,
}

/// Something that went wrong, and those of its kind that are only counted.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) list: Vec<Mishap>,
    pub(super) count: u64,
}

/// See [`Told`].
#[derive(Debug)]
pub(super) struct Mishap {
    /// From the start.
    pub(super) at: u64,
    /// Of a job: its number, kernel and attempt.
    pub(super) job: Option<(u64, &'static str, u16)>,
    pub(super) label: Option<Arc<str>>,
    pub(super) place: Option<Place>,
    pub(super) why: String,
    pub(super) tried_again: bool,
}

impl Told {
    fn tell(&mut self, mut mishap: Mishap) {
        self.count += 1;
        if self.list.len() < TOLD {
            let mut end = mishap.why.len().min(TEXT);
            while !mishap.why.is_char_boundary(end) {
                end -= 1;
            }
            mishap.why.truncate(end);
            self.list.push(mishap);
        }
    }
}

impl Summary {
    /// Takes an attempt whose times count from the start.
    pub(super) fn attempt(&mut self, attempt: &Attempt) {
        let index = self.kernel(attempt.kernel);
        let kernel = &mut self.kernels[index];
        let begun = attempt.ran.map_or(attempt.over, |ran| ran.began);
        let waited = begun.saturating_sub(attempt.since);
        kernel.waited.add(waited);
        let failed = matches!(attempt.end, End::Failed { .. });
        if let Some(ran) = attempt.ran {
            kernel.ended += 1;
            kernel.took.add(ran.ended - ran.began);
            kernel.bytes.0 = kernel.bytes.0.saturating_add(attempt.bytes.0);
            kernel.bytes.1 = kernel.bytes.1.saturating_add(attempt.bytes.1);
        }
        kernel.failed += u64::from(failed);
        self.until(attempt.over);
        self.waiting.add(attempt.since, begun, self.step);
        if let Some(ran) = attempt.ran {
            self.ran(attempt.job, index, ran, failed);
        }
        match &attempt.end {
            End::Value => {}
            End::Cancelled => self.cancelled += 1,
            End::Failed { why, again } => self.failures.tell(Mishap {
                at: attempt.over,
                job: Some((attempt.job, attempt.kernel, attempt.attempt)),
                label: attempt.label.clone(),
                place: attempt.ran.map(|ran| ran.place),
                why: why.to_string(),
                tried_again: *again,
            }),
        }
    }

    fn ran(&mut self, job: u64, kernel: usize, ran: Ran, failed: bool) {
        let Ran { began, ended, .. } = ran;
        let step = self.step;
        let lane = self.lane(ran.place);
        lane.jobs += 1;
        lane.busy_ns += ended - began;
        let colour = kernel.min(COLOURS);
        lane.busy.entry(colour).or_default().add(began, ended, step);
        if failed && lane.marks.len() < TOLD {
            lane.marks.push(ended);
        }
        if self.runs.len() < RUNS {
            self.runs.push(Run {
                job,
                kernel,
                place: ran.place,
                began,
                ended,
                failed,
            });
        } else {
            self.crowded = true;
        }
    }

    pub(super) fn died(&mut self, place: Place, at: u64, why: &str) {
        self.until(at);
        let lane = self.lane(place);
        if lane.marks.len() < TOLD {
            lane.marks.push(at);
        }
        self.deaths.tell(Mishap {
            at,
            job: None,
            label: None,
            place: Some(place),
            why: why.to_owned(),
            tried_again: false,
        });
    }

    pub(super) fn lane(&mut self, place: Place) -> &mut Lane {
        self.lanes.entry(place).or_default()
    }

    fn kernel(&mut self, name: &'static str) -> usize {
        // The address is enough to know it again; if it is another one, the text decides.
        if let Some((last, index)) = self.last
            && std::ptr::eq(last, name)
        {
            return index;
        }
        let kernels = &mut self.kernels;
        let index = *self.index.entry(name).or_insert_with(|| {
            kernels.push(Kernel {
                name,
                ended: 0,
                failed: 0,
                took: Histogram::default(),
                waited: Histogram::default(),
                bytes: (0, 0),
            });
            kernels.len() - 1
        });
        self.last = Some((name, index));
        index
    }

    /// Makes steps wide enough to reach this time.
    pub(super) fn until(&mut self, at: u64) {
        self.end = self.end.max(at);
        self.step = self.step.max(STEP);
        while self.end / self.step >= COLUMNS as u64 {
            let step = self.step;
            self.waiting.fold(step);
            for columns in self
                .lanes
                .values_mut()
                .flat_map(|lane| lane.busy.values_mut())
            {
                columns.fold(step);
            }
            self.step *= 2;
        }
    }
}

/// How much of each step of time is covered by intervals. Adding one costs the same however long it is.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// Nanoseconds, without the steps that are covered whole.
    part: Vec<u64>,
    /// Change in the number of intervals that cover a step whole.
    whole: Vec<i64>,
}

impl Columns {
    pub(super) fn add(&mut self, from: u64, to: u64, step: u64) {
        if to <= from {
            return;
        }
        if self.part.is_empty() {
            self.part = vec![0; COLUMNS];
            self.whole = vec![0; COLUMNS + 1];
        }
        // All ends lie before the last step's: `Summary::until`. One that does not counts there.
        let column = |at: u64| ((at / step) as usize).min(COLUMNS - 1);
        let (first, last) = (column(from), column(to));
        if first == last {
            self.part[first] += to - from;
            return;
        }
        self.part[first] += (first as u64 + 1) * step - from;
        self.part[last] += to - last as u64 * step;
        self.whole[first + 1] += 1;
        self.whole[last] -= 1;
    }

    /// Nanoseconds of intervals in each step.
    pub(super) fn values(&self, step: u64) -> Vec<u64> {
        let mut covering = 0i64;
        let steps = self.part.iter().zip(&self.whole);
        steps
            .map(|(part, change)| {
                covering += change;
                part + covering.max(0) as u64 * step
            })
            .collect()
    }

    /// Two steps become one.
    fn fold(&mut self, step: u64) {
        if self.part.is_empty() {
            return;
        }
        let values = self.values(step);
        self.part.fill(0);
        self.whole.fill(0);
        for (index, value) in values.into_iter().enumerate() {
            self.part[index / 2] += value;
        }
    }
}

/// Steps of a histogram between two powers of two, as a power of two: figures are right to 1/32.
const FINE: u32 = 5;

/// Times, for quantiles: exact below 32 ns, within 3 % above.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    pub(super) count: u64,
    pub(super) total: u64,
    pub(super) max: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, value: u64) {
        let bucket = bucket(value);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        // Waits overlap: of a thousand jobs they come to more than the number holds in less than a year.
        self.total = self.total.saturating_add(value);
        self.max = self.max.max(value);
    }

    /// The value that this part of all values does not exceed.
    pub(super) fn quantile(&self, part: f64) -> u64 {
        let rank = (part * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest(bucket).min(self.max);
            }
        }
        self.max
    }

    pub(super) fn mean(&self) -> u64 {
        self.total / self.count.max(1)
    }
}

fn bucket(value: u64) -> usize {
    let bits = 64 - value.leading_zeros();
    let shift = bits.saturating_sub(FINE + 1);
    ((shift << FINE) as u64 + (value >> shift)) as usize
}

/// The largest value of a bucket.
fn highest(bucket: usize) -> u64 {
    let shift = (bucket >> FINE).saturating_sub(1) as u32;
    let base = (bucket as u64) - (u64::from(shift) << FINE);
    (((u128::from(base) + 1) << shift) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_values(mut values in prop::collection::vec(any::<u64>().prop_map(|v| v >> (v % 60)), 1..200)) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|&value| histogram.add(value >> 8));
            values.iter_mut().for_each(|value| *value >>= 8);
            values.sort_unstable();
            for part in [0.01, 0.5, 0.9, 0.99, 1.0] {
                let rank = ((part * values.len() as f64).ceil() as usize).max(1);
                let (exact, found) = (values[rank - 1], histogram.quantile(part));
                prop_assert!(found >= exact && found - exact <= exact / 32, "{part}: {found} for {exact}");
            }
        }

        #[test]
        fn columns_cover_what_intervals_do(ends in prop::collection::vec((0u64..50_000_000, 0u64..50_000_000), 1..40)) {
            let mut summary = Summary::default();
            let mut total = 0;
            for (a, b) in ends {
                let (from, to) = (a.min(b), a.max(b));
                summary.until(to);
                summary.waiting.add(from, to, summary.step);
                total += to - from;
                let values = summary.waiting.values(summary.step);
                prop_assert_eq!(values.iter().sum::<u64>(), total);
            }
        }
    }

    #[test]
    fn sums_of_what_overlaps_end_where_the_number_does() {
        let mut histogram = Histogram::default();
        (0..3).for_each(|_| histogram.add(u64::MAX / 2));
        let median = histogram.quantile(0.5);
        assert_eq!((histogram.total, median), (u64::MAX, u64::MAX / 2));
    }

    #[test]
    fn a_long_interval_covers_each_step_once() {
        let mut summary = Summary::default();
        summary.until(10 * STEP);
        summary.waiting.add(STEP / 2, 10 * STEP, STEP);
        let values = summary.waiting.values(STEP);
        assert_eq!(values[0], STEP / 2);
        assert!(values[1..10].iter().all(|&value| value == STEP));
        assert_eq!(values[10], 0);
    }
}
