//! Figures of bounded size: per kernel and label, per lane, over time, the slowest runs, and failures.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Attempt, AttemptEnd, Describe, KernelRun, LaneId};

/// Max number of failures that are stored with their texts, and, counted separately, of deaths of workers.
const MAX_INCIDENTS: usize = 200;
/// Max length of the text of a failure or death in bytes.
const MAX_TEXT: usize = 600;
/// Max number of runs that are stored one by one, for the timeline of a short trace.
pub(super) const MAX_RUNS: usize = 3000;
/// Max number of the slowest runs.
const MAX_SLOWEST: usize = 20;
/// Max number of kernels and labels whose figures are separate. Beyond it, the labels of a kernel share figures.
const MAX_KERNELS: usize = 500;
/// The label of these figures.
const OTHER_LABELS: &str = "(other labels)";
/// The number of kernels with a colour of their own. The others share one more colour.
pub(super) const COLOURS: usize = 7;
/// The number of time steps.
pub(super) const COLUMNS: usize = 1024;
/// The initial width of a step, in nanoseconds.
const STEP: u64 = 1 << 12;

/// All figures of a trace.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) kernels: Vec<KernelFigures>,
    index: HashMap<KernelKey, usize>,
    /// The kernel of the last attempt and its index. The next attempt usually has the same kernel.
    last: Option<(KernelKey, usize)>,
    pub(super) lanes: BTreeMap<LaneId, LaneFigures>,
    workers: BTreeMap<u32, UpTime>,
    /// The slowest runs, the slowest first.
    pub(super) slowest: Vec<Run>,
    /// The number of waiting jobs over time.
    pub(super) waiting: Columns,
    /// The width of a time step in nanoseconds.
    pub(super) step: u64,
    /// The latest time, counted from the start.
    pub(super) end: u64,
    pub(super) runs: Vec<Run>,
    /// Whether there were more runs than `runs` may contain.
    pub(super) has_more_runs: bool,
    pub(super) failures: Incidents,
    pub(super) deaths: Incidents,
    pub(super) cancelled: u64,
    /// The number of waits for output memory, and their total nanoseconds.
    pub(super) memory_waits: (u64, u64),
    pub(super) workers_started: u64,
}

/// A kernel and a label of its jobs.
type KernelKey = (&'static str, Option<Arc<str>>);

/// The time in which a worker was ready, in nanoseconds.
#[derive(Debug, Default)]
struct UpTime {
    /// That of its earlier processes.
    before: u64,
    /// When its process became ready, unless the process has exited.
    since: Option<u64>,
}

/// The figures of a kernel, or of its jobs with one label.
#[derive(Debug)]
pub(super) struct KernelFigures {
    pub(super) name: &'static str,
    pub(super) label: Option<Arc<str>>,
    pub(super) ended: u64,
    pub(super) failed: u64,
    pub(super) took: Histogram,
    pub(super) waited: Histogram,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// The figures of a lane.
#[derive(Debug, Default)]
pub(super) struct LaneFigures {
    pub(super) jobs: u64,
    pub(super) busy_ns: u64,
    /// The busy time in each step, by colour.
    pub(super) busy: BTreeMap<usize, Columns>,
    /// The times of failures, and of deaths of the lane's worker, for the marks in the timeline.
    pub(super) marks: Vec<u64>,
}

/// One run of a kernel.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) job: u64,
    pub(super) kernel: usize,
    pub(super) lane: LaneId,
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) failed: bool,
}

/// Failures, or deaths: the first of them with details, and the number of all.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    pub(super) list: Vec<Incident>,
    pub(super) count: u64,
}

/// A failed attempt, or a worker that died.
#[derive(Debug)]
pub(super) struct Incident {
    /// The time in nanoseconds from the start.
    pub(super) at: u64,
    /// For a failure: number, kernel and attempt of the job.
    pub(super) job: Option<(u64, &'static str, u16)>,
    pub(super) label: Option<Arc<str>>,
    pub(super) lane: Option<LaneId>,
    pub(super) why: String,
    pub(super) crash: Option<Arc<dyn Describe>>,
    pub(super) is_retried: bool,
}

impl Run {
    pub(super) fn took(&self) -> u64 {
        self.ended - self.began
    }
}

impl Incidents {
    fn push(&mut self, mut incident: Incident) {
        self.count += 1;
        if self.list.len() < MAX_INCIDENTS {
            let mut end = incident.why.len().min(MAX_TEXT);
            while !incident.why.is_char_boundary(end) {
                end -= 1;
            }
            incident.why.truncate(end);
            self.list.push(incident);
        }
    }
}

impl Summary {
    /// Adds an attempt. Its times count from the start.
    pub(super) fn attempt(&mut self, attempt: &Attempt) {
        let index = self.kernel(attempt.kernel, &attempt.label);
        let kernel = &mut self.kernels[index];
        let begun = attempt.ran.map_or(attempt.over, |ran| ran.began);
        let waited = begun.saturating_sub(attempt.since);
        kernel.waited.add(waited);
        let failed = matches!(attempt.end, AttemptEnd::Failed { .. });
        if let Some(ran) = attempt.ran {
            kernel.ended += 1;
            kernel.took.add(ran.ended - ran.began);
            kernel.bytes_in = kernel.bytes_in.saturating_add(attempt.bytes_in);
            kernel.bytes_out = kernel.bytes_out.saturating_add(attempt.bytes_out);
        }
        kernel.failed += u64::from(failed);
        self.extend_to(attempt.over);
        self.waiting.add(attempt.since, begun, self.step);
        if let Some(ran) = attempt.ran {
            self.run(attempt.job, index, ran, failed);
        }
        match &attempt.end {
            AttemptEnd::Value => {}
            AttemptEnd::Cancelled => self.cancelled += 1,
            AttemptEnd::Failed {
                why,
                crash,
                is_retried,
            } => self.failures.push(Incident {
                at: attempt.over,
                job: Some((attempt.job, attempt.kernel, attempt.attempt)),
                label: attempt.label.clone(),
                lane: attempt.ran.map(|ran| ran.lane),
                why: why.to_string(),
                crash: crash.clone(),
                is_retried: *is_retried,
            }),
        }
    }

    fn run(&mut self, job: u64, kernel: usize, ran: KernelRun, failed: bool) {
        let KernelRun { began, ended, .. } = ran;
        let step = self.step;
        let lane = self.lane(ran.lane);
        lane.jobs += 1;
        lane.busy_ns += ended - began;
        let colour = kernel.min(COLOURS);
        lane.busy.entry(colour).or_default().add(began, ended, step);
        if failed && lane.marks.len() < MAX_INCIDENTS {
            lane.marks.push(ended);
        }
        let run = Run {
            job,
            kernel,
            lane: ran.lane,
            began,
            ended,
            failed,
        };
        let at = self
            .slowest
            .partition_point(|slow| slow.took() >= run.took());
        if at < MAX_SLOWEST {
            self.slowest.truncate(MAX_SLOWEST - 1);
            self.slowest.insert(at, run.clone());
        }
        if self.runs.len() < MAX_RUNS {
            self.runs.push(run);
        } else {
            self.has_more_runs = true;
        }
    }

    /// Adds the start of a worker's process, which is ready.
    pub(super) fn started(&mut self, id: LaneId, at: u64) {
        self.extend_to(at);
        self.lane(id);
        self.workers.entry(id.worker).or_default().since = Some(at);
    }

    /// Adds the exit of a worker's process.
    pub(super) fn exited(&mut self, id: LaneId, at: u64) {
        self.extend_to(at);
        let up = self.workers.entry(id.worker).or_default();
        up.before += up.since.take().map_or(0, |since| at.saturating_sub(since));
    }

    /// Returns the time in which a lane's worker was ready, and the lane ran no kernel.
    pub(super) fn idle(&self, id: LaneId) -> u64 {
        let up = self.workers.get(&id.worker).map_or(0, |up| {
            up.before + up.since.map_or(0, |since| self.end.saturating_sub(since))
        });
        let busy = self.lanes.get(&id).map_or(0, |lane| lane.busy_ns);
        up.saturating_sub(busy)
    }

    pub(super) fn died(&mut self, id: LaneId, at: u64, why: &str) {
        self.extend_to(at);
        let lane = self.lane(id);
        if lane.marks.len() < MAX_INCIDENTS {
            lane.marks.push(at);
        }
        self.deaths.push(Incident {
            at,
            job: None,
            label: None,
            lane: Some(id),
            why: why.to_owned(),
            crash: None,
            is_retried: false,
        });
    }

    pub(super) fn lane(&mut self, id: LaneId) -> &mut LaneFigures {
        self.lanes.entry(id).or_default()
    }

    fn kernel(&mut self, name: &'static str, label: &Option<Arc<str>>) -> usize {
        let is_same = |last: &Option<Arc<str>>| match (last, label) {
            (Some(last), Some(label)) => Arc::ptr_eq(last, label),
            (last, label) => last.is_none() && label.is_none(),
        };
        // Compares the addresses first, which is fast. Names at different addresses may be equal too.
        if let Some(((last, last_label), index)) = &self.last
            && std::ptr::eq(*last, name)
            && is_same(last_label)
        {
            return *index;
        }
        let mut key = (name, label.clone());
        if label.is_some() && self.kernels.len() >= MAX_KERNELS && !self.index.contains_key(&key) {
            key.1 = Some(OTHER_LABELS.into());
        }
        let kernels = &mut self.kernels;
        let index = *self.index.entry(key.clone()).or_insert_with(|| {
            kernels.push(KernelFigures {
                name,
                label: key.1,
                ended: 0,
                failed: 0,
                took: Histogram::default(),
                waited: Histogram::default(),
                bytes_in: 0,
                bytes_out: 0,
            });
            kernels.len() - 1
        });
        self.last = Some(((name, label.clone()), index));
        index
    }

    /// Doubles the width of the steps until they include the time `at`.
    pub(super) fn extend_to(&mut self, at: u64) {
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

/// The time that intervals cover in each step. Adding an interval takes constant time, whatever its length is.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// For each step, nanoseconds of the intervals that cover it in part.
    part: Vec<u64>,
    /// For each step, the change in the number of intervals that cover it completely.
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
        // All times are before the end of the last step (`Summary::extend_to`). A later time would count in the last
        // step.
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

    /// The covered nanoseconds of each step.
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

    /// Merges each pair of steps into one step of double width.
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

/// Log2 of the number of buckets for each power of two: values are accurate to 1/32.
const PRECISION: u32 = 5;

/// Counts of durations, for quantiles: exact below 32 ns, within 3 % above.
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
        // Waits overlap: the waits of a thousand jobs overflow 64 bits within a year.
        self.total = self.total.saturating_add(value);
        self.max = self.max.max(value);
    }

    /// The smallest value that at least this fraction of all values does not exceed.
    pub(super) fn quantile(&self, part: f64) -> u64 {
        let rank = (part * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return bucket_max(bucket).min(self.max);
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
    let shift = bits.saturating_sub(PRECISION + 1);
    ((shift << PRECISION) as u64 + (value >> shift)) as usize
}

/// The largest value in a bucket.
fn bucket_max(bucket: usize) -> u64 {
    let shift = (bucket >> PRECISION).saturating_sub(1) as u32;
    let base = (bucket as u64) - (u64::from(shift) << PRECISION);
    (((u128::from(base) + 1) << shift) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
        #[test]
        fn quantiles_match_the_sorted_values(mut values in prop::collection::vec(any::<u64>().prop_map(|v| v >> (v % 60)), 1..200)) {
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
        fn columns_cover_as_much_as_their_intervals(ends in prop::collection::vec((0u64..50_000_000, 0u64..50_000_000), 1..40)) {
            let mut summary = Summary::default();
            let mut total = 0;
            for (a, b) in ends {
                let (from, to) = (a.min(b), a.max(b));
                summary.extend_to(to);
                summary.waiting.add(from, to, summary.step);
                total += to - from;
                let values = summary.waiting.values(summary.step);
                prop_assert_eq!(values.iter().sum::<u64>(), total);
            }
        }
    }

    #[test]
    fn the_sum_of_a_histogram_saturates() {
        let mut histogram = Histogram::default();
        (0..3).for_each(|_| histogram.add(u64::MAX / 2));
        let median = histogram.quantile(0.5);
        assert_eq!((histogram.total, median), (u64::MAX, u64::MAX / 2));
    }

    #[test]
    fn a_long_interval_covers_each_step_once() {
        let mut summary = Summary::default();
        summary.extend_to(10 * STEP);
        summary.waiting.add(STEP / 2, 10 * STEP, STEP);
        let values = summary.waiting.values(STEP);
        assert_eq!(values[0], STEP / 2);
        assert!(values[1..10].iter().all(|&value| value == STEP));
        assert_eq!(values[10], 0);
    }
}
