//! Statistics of each kernel: the expected duration and memory of its jobs.

use std::any::TypeId;
use std::collections::HashMap;
use std::time::Duration;

use super::depend::spawn_reply::NamedKernel;
use super::stats;
use crate::kernel::{ErrorCheck, KernelInfo, to_offset};

/// The expected duration of a kernel that has not run yet: long enough to be worth a wake-up, and such that a lane has
/// one job ahead.
const UNKNOWN_NS: u32 = 250_000;
/// The maximum number of kernels that all processes of one worker together may report: more than a program has, and few
/// enough to retain their names. Kernels that another worker has reported do not count, so a hostile worker does not
/// affect the others.
const MAX_REPORTED: u32 = 4096;

/// The maximum number of names that a program may give to kernels of one engine. Later names are ignored: their kernels
/// count under their own names.
const MAX_NAMED: usize = 4096;

/// Statistics of one kernel, or of the jobs of one kernel that have the same name from the program.
#[derive(Debug)]
pub(super) struct KernelStats {
    pub(super) name: &'static str,
    /// Whether it may spawn jobs.
    pub(super) spawns: bool,
    /// Checks a typed error that a worker has sent for this kernel. `None` for a kernel that a worker reported.
    pub(super) check_error: Option<ErrorCheck>,
    /// The entry for plain calls. Set only for a kernel that a worker reported.
    plain: Option<u64>,
    /// The entry relative to the executable. `None` if it is not in the executable.
    pub(super) offset: Option<u64>,
    /// Moving average of the duration in nanoseconds. A duration counts as at most four seconds.
    pub(super) expected_ns: u32,
    /// Expected size of a job's result in bytes: grows at once, shrinks slowly.
    pub(super) expected_bytes: u64,
    pub(super) calls: u64,
    failures: u64,
    /// Number of calls that have ended their worker or were lost with it. They do not affect the averages.
    lost: u64,
    pub(super) total_ns: u64,
    /// Bytes of the results of all jobs.
    pub(super) total_bytes: u64,
}

impl KernelStats {
    /// Returns a kernel that has not run yet.
    fn new(name: &'static str, offset: Option<u64>) -> Self {
        Self {
            name,
            spawns: false,
            check_error: None,
            plain: None,
            offset,
            expected_ns: UNKNOWN_NS,
            expected_bytes: 0,
            calls: 0,
            failures: 0,
            lost: 0,
            total_ns: 0,
            total_bytes: 0,
        }
    }

    pub(super) fn stats(&self) -> stats::KernelStats {
        stats::KernelStats {
            name: self.name,
            calls: self.calls + self.lost,
            failures: self.failures,
            total: Duration::from_nanos(self.total_ns),
            expected: Duration::from_nanos(u64::from(self.expected_ns)),
            bytes: self.total_bytes,
            running: 0,
        }
    }

    /// Updates the statistics with a job that has ended.
    #[inline]
    pub(super) fn learn(&mut self, took_ns: u64, bytes: u64, failed: bool) {
        let took = u32::try_from(took_ns).unwrap_or(u32::MAX);
        self.expected_ns = if self.calls == 0 {
            took
        } else {
            // Moves the average by an eighth of the difference. A job that was interrupted says little about the next
            // one, so an outlier counts as four times the average.
            let old = i64::from(self.expected_ns);
            let new = i64::from(took).min(4 * old.max(100));
            (old + (new - old) / 8) as u32
        };
        self.calls += 1;
        self.total_ns = self.total_ns.saturating_add(took_ns);
        self.total_bytes = self.total_bytes.saturating_add(bytes);
        self.failures += u64::from(failed);
        self.expected_bytes = bytes_to_expect(self.expected_bytes, bytes);
    }

    /// Counts a call that has ended its worker or was lost with it.
    pub(super) fn count_lost(&mut self) {
        self.lost += 1;
        self.failures += 1;
    }
}

/// Returns the size to expect next, from the expected and the last actual size: grows at once, shrinks slowly.
#[inline]
pub(crate) fn bytes_to_expect(expected: u64, seen: u64) -> u64 {
    expected.max(seen) - expected.saturating_sub(seen) / 8
}

/// Identifies a kernel by its type, because linkers merge equal functions, and by the name that the program has given
/// it.
type Identity = (TypeId, Option<&'static str>);

/// All kernels of an engine.
#[derive(Debug, Default)]
pub(super) struct Kernels {
    table: Vec<KernelStats>,
    index: HashMap<Identity, u32>,
    /// The number of kernels with a name from the program.
    named: usize,
    /// The kernel that was looked up last.
    last: Option<(Identity, u32)>,
    /// Kernels that workers reported, by entry.
    spawned: HashMap<u64, Vec<u32>>,
    /// The number of reported kernels that each worker was the first to report.
    reported_by: HashMap<usize, u32>,
}

impl Kernels {
    #[inline]
    pub(super) fn index(&mut self, info: &KernelInfo) -> u32 {
        match self.last {
            Some(((id, given), index)) if id == info.id && is_same(given, info.given) => index,
            _ => self.index_slow(info),
        }
    }

    #[cold]
    fn index_slow(&mut self, info: &KernelInfo) -> u32 {
        let identity = (info.id, info.given);
        let index = match self.index.get(&identity) {
            Some(&index) => index,
            None if info.given.is_some() && self.named == MAX_NAMED => {
                return self.index(&info.named(None));
            }
            None => {
                self.table.push(KernelStats {
                    spawns: info.spawns,
                    check_error: Some(info.check_error),
                    ..KernelStats::new(info.given.unwrap_or(info.name), to_offset(info.entry))
                });
                self.named += usize::from(info.given.is_some());
                let index = (self.table.len() - 1) as u32;
                self.index.insert(identity, index);
                index
            }
        };
        self.last = Some((identity, index));
        index
    }

    #[inline]
    pub(super) fn get(&mut self, index: u32) -> &mut KernelStats {
        &mut self.table[index as usize]
    }

    /// Returns the index of a kernel that a worker reported, or `None` if the worker has reported too many.
    pub(super) fn spawned(&mut self, reported: &NamedKernel, worker: usize) -> Option<u32> {
        let is_it = |&&index: &&u32| {
            let kernel = &self.table[index as usize];
            let same = kernel.plain == Some(reported.plain) && kernel.name == reported.name;
            // A wrong report of one worker does not affect the others.
            same && kernel.spawns == reported.spawns
        };
        let known = self.spawned.get(&reported.entry);
        if let Some(&index) = known.and_then(|known| known.iter().find(is_it)) {
            return Some(index);
        }
        let reported_before = self.reported_by.entry(worker).or_default();
        if *reported_before == MAX_REPORTED {
            return None;
        }
        *reported_before += 1;
        // If a kernel of this name is known already, its name is reused. Otherwise the name is leaked.
        let has_name = |kernel: &&KernelStats| kernel.name == reported.name;
        let name = self.table.iter().find(has_name).map(|kernel| kernel.name);
        let name = name.unwrap_or_else(|| Box::leak(reported.name.clone().into_boxed_str()));
        self.table.push(KernelStats {
            spawns: reported.spawns,
            plain: Some(reported.plain),
            ..KernelStats::new(name, Some(reported.entry))
        });
        let index = self.table.len() as u32 - 1;
        self.spawned.entry(reported.entry).or_default().push(index);
        Some(index)
    }

    /// Returns the statistics of all kernels, by index.
    pub(super) fn stats(&self) -> Vec<stats::KernelStats> {
        self.table.iter().map(KernelStats::stats).collect()
    }

    /// Merges the statistics of the same kernel called in different ways.
    pub(super) fn merged(&self, mut stats: Vec<stats::KernelStats>) -> Vec<stats::KernelStats> {
        let mut merged = Vec::new();
        let kernels = self.table.iter().enumerate();
        for (at, kernel) in kernels {
            let same = |other: &KernelStats| {
                other.plain.is_none() && other.offset == kernel.plain && other.name == kernel.name
            };
            let into = kernel.plain.and_then(|_| self.table.iter().position(same));
            let Some(into) = into else {
                merged.push(at);
                continue;
            };
            let of = stats[at].clone();
            let sum = &mut stats[into];
            // Calls that were lost with their workers were not measured.
            if self.table[into].calls == 0 {
                sum.expected = of.expected;
            }
            sum.calls += of.calls;
            sum.failures += of.failures;
            sum.total = sum.total.saturating_add(of.total);
            sum.bytes = sum.bytes.saturating_add(of.bytes);
            sum.running += of.running;
        }
        merged.into_iter().map(|at| stats[at].clone()).collect()
    }
}

/// Compares two names by address: each name is stored once.
#[inline]
fn is_same(one: Option<&'static str>, other: Option<&'static str>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => std::ptr::eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::stored;
    use crate::supervisor::fixture::kernel;

    #[test]
    fn a_kernel_learns_under_each_name_apart() {
        let mut kernels = Kernels::default();
        let own = kernel();
        let name = |n: usize| own.named(stored(&format!("named {n}")));
        let plain = kernels.index(&own);
        let [one, two] = [0, 1].map(|n| kernels.index(&name(n)));
        assert!(plain != one && plain != two && one != two);
        kernels.get(one).learn(1_000, 8, false);
        kernels.get(two).learn(9_000, 0, false);
        assert_eq!(kernels.index(&name(0)), one);
        assert_eq!(
            (kernels.get(one).name, kernels.get(one).expected_ns),
            ("named 0", 1_000)
        );
        assert_eq!(kernels.get(two).expected_ns, 9_000);
        assert_eq!(
            (kernels.get(plain).name, kernels.get(plain).calls),
            (own.name, 0)
        );
        // Names beyond the maximum number are ignored.
        for n in 2..MAX_NAMED {
            assert_ne!(kernels.index(&name(n)), plain);
        }
        assert_eq!(kernels.index(&name(MAX_NAMED)), plain);
        assert_eq!(kernels.index(&name(1)), two);
        assert_eq!(kernels.stats().len(), 1 + MAX_NAMED);
    }

    fn named(entry: u64, spawns: bool) -> NamedKernel {
        NamedKernel {
            entry,
            plain: 2,
            spawns,
            name: "k".into(),
        }
    }

    #[test]
    fn a_report_about_a_kernel_does_not_bind_other_workers() {
        let mut kernels = Kernels::default();
        let [lie, truth] = [(0, false), (1, true)].map(|(worker, spawns)| {
            let index = kernels.spawned(&named(1, spawns), worker);
            index.expect("there is room")
        });
        assert_eq!(kernels.spawned(&named(1, true), 0), Some(truth));
        assert!(!kernels.get(lie).spawns && kernels.get(truth).spawns);
    }

    #[test]
    fn a_worker_that_reports_too_many_kernels_takes_nothing_from_others() {
        let mut kernels = Kernels::default();
        for entry in 0..u64::from(MAX_REPORTED) {
            assert!(kernels.spawned(&named(entry, true), 0).is_some());
        }
        let more = named(u64::from(MAX_REPORTED), true);
        assert_eq!(kernels.spawned(&more, 0), None);
        let index = kernels.spawned(&more, 1);
        assert!(index.is_some());
        // The kernel is known now, whichever worker reports it.
        assert_eq!(kernels.spawned(&more, 0), index);
    }

    /// A kernel whose only plain call was lost, and that ran as a task.
    #[test]
    fn lost_calls_have_no_expected_duration() {
        let mut kernels = Kernels::default();
        let own = kernels.index(&kernel());
        let task = NamedKernel {
            plain: kernels.get(own).offset.expect("code of this program"),
            name: kernels.get(own).name.into(),
            ..named(7, false)
        };
        let task = kernels.spawned(&task, 0).expect("there is room");
        kernels.get(own).lost += 1;
        kernels.get(task).learn(5_000, 0, false);
        let stats = kernels.table.iter().map(KernelStats::stats).collect();
        let merged = kernels.merged(stats);
        let [both] = &merged[..] else {
            panic!("{merged:?}")
        };
        assert_eq!((both.calls, both.expected), (2, Duration::from_micros(5)));
    }

    #[test]
    fn statistics_saturate() {
        let mut kernel = KernelStats::new("k", None);
        for _ in 0..3 {
            kernel.learn(u64::MAX, u64::MAX, true);
        }
        let stats = kernel.stats();
        assert_eq!((stats.calls, stats.failures, stats.bytes), (3, 3, u64::MAX));
    }
}
