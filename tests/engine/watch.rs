//! The memory watch: jobs wait while machine or container are almost out of memory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use arenite::engine::SystemLimit;
use arenite::{
    ArenaFull, Array, ArrayMut, Backoff, Engine, Job, JobErrorKind, JobLimit, RefusedBy,
};
use tempfile::TempDir;

use crate::harness::{Calls, Gate, Lab, are_all, at_gates, pass, step, tests, wait_until};

tests![
    jobs_run_one_at_a_time_while_memory_is_short,
    jobs_behind_a_long_job_return_to_the_queue,
    an_unawaited_attempt_is_watched,
    an_engine_that_ends_while_memory_is_short,
    an_idle_engine_is_not_watched,
    free_arena_memory_is_returned_where_that_helps,
    jobs_are_refused_while_memory_is_short,
    commits_beyond_the_systems_memory_fail,
];

/// A simulated system.
struct System {
    root: TempDir,
    version: u8,
}

const LIMIT: u64 = 512 << 20;

impl System {
    /// 0: a machine without containers; 1 and 2: a container of that version of control groups.
    fn new(version: u8) -> Self {
        let root = tempfile::tempdir().unwrap();
        let system = Self { root, version };
        system.write(
            "proc/self/cgroup",
            ["", "3:memory:/box\n", "0::/box\n"][usize::from(version)],
        );
        system.available(LIMIT / 2);
        system
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Atomic: a reader sees the old text or the new one.
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Sets the memory that is left.
    fn available(&self, bytes: u64) {
        let machine = if self.version == 0 { bytes } else { 64 << 30 };
        let total = if self.version == 0 { LIMIT } else { 64 << 30 };
        let kib = |bytes: u64| bytes >> 10;
        let text = format!(
            "MemTotal: {} kB\nMemAvailable: {} kB\n",
            kib(total),
            kib(machine)
        );
        self.write("proc/meminfo", &text);
        let (limit, used) = (LIMIT.to_string(), (LIMIT - bytes).to_string());
        match self.version {
            0 => {}
            1 => {
                self.write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", &limit);
                self.write("sys/fs/cgroup/memory/box/memory.usage_in_bytes", &used);
            }
            _ => {
                self.write("sys/fs/cgroup/box/memory.max", &limit);
                self.write("sys/fs/cgroup/box/memory.current", &used);
            }
        }
    }

    fn lab(&self, workers: usize) -> Lab {
        Lab::with(workers, |builder| builder.memory_root(self.root.path()))
    }
}

/// Keeps the engine busy until it has noticed.
fn until_short(engine: &Engine, short: bool) {
    step(format!("the engine to see that memory is short: {short}"));
    while engine.stats().memory_short != short {
        engine.value_of(
            || std::thread::park_timeout(std::time::Duration::from_millis(1)),
            (),
        );
    }
}

/// Fails if another job is in here at the same time.
fn alone(folder: &str) {
    let path = Path::new(folder).join("inside");
    fs::File::create_new(&path).expect("no other job is here");
    std::thread::park_timeout(std::time::Duration::from_millis(1));
    fs::remove_file(path).unwrap();
}

/// Container memory is read from other files; the consequences are the same.
fn jobs_run_one_at_a_time_while_memory_is_short() {
    let system = System::new(0);
    let lab = system.lab(4);
    until_short(&lab, false);
    system.available(LIMIT / 20);
    until_short(&lab, true);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let jobs: Vec<_> = (0..50).map(|_| lab.submit(alone, (path,))).collect();
    (0..50).for_each(|_| lab.submit(alone, (path,)).detach());
    jobs.into_iter().for_each(|job| job.wait().unwrap());
    let ordered: Result<Vec<u32>, _> = lab.map(|n: u32| n, (0..100).map(|n| (n,))).collect();
    assert_eq!(ordered.unwrap(), Vec::from_iter(0..100));
    // Slightly above the mark is not enough to continue, to avoid oscillation.
    system.available(LIMIT / 16 + (1 << 20));
    lab.value_of(pause, ());
    assert!(lab.stats().memory_short);
    system.available(LIMIT / 2);
    until_short(&lab, false);
    // All four at the same time.
    let (jobs, held) = at_gates(4, |gate| lab.submit(pass, (gate,)));
    drop(held);
    jobs.into_iter().for_each(|job| job.wait().unwrap());
    lab.assert_in_use(0);
}

/// Longer than the time between two checks.
fn pause() {
    let since = std::time::Instant::now();
    while since.elapsed().as_millis() < 300 {
        std::thread::park_timeout(std::time::Duration::from_millis(300));
    }
}

/// Fails if the gate has not been made.
fn second_time_lucky(gate: &str) {
    let first = fs::File::create_new(format!("{gate}.seen")).is_ok();
    assert!(!first, "the first attempt");
    pass(gate);
}

/// Sent by the engine itself, after a pause with no open job that is longer than the watch interval.
fn an_unawaited_attempt_is_watched() {
    let system = System::new(0);
    let lab = system.lab(1);
    until_short(&lab, false);
    let gate = Gate::new();
    let seen = format!("{}.seen", gate.path());
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
    lab.job(second_time_lucky, (&gate.path(),))
        .retries(1)
        .backoff(backoff)
        .submit()
        .detach();
    let held = gate.meet();
    system.available(LIMIT / 20);
    wait_until("the watch sees it", || lab.stats().memory_short);
    drop(held);
    fs::remove_file(seen).unwrap();
}

fn jobs_behind_a_long_job_return_to_the_queue() {
    let system = System::new(0);
    let lab = system.lab(2);
    let (long, held) = at_gates(2, |gate| lab.submit(pass, (gate,)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let behind: Vec<_> = (0..20).map(|_| lab.submit(alone, (path,))).collect();
    system.available(0);
    wait_until("memory is seen to be short", || lab.stats().memory_short);
    let stats = lab.stats();
    assert_eq!(
        (stats.open, stats.queued),
        (2, 20),
        "those that run, and those that wait"
    );
    drop(held);
    long.into_iter().for_each(|job| job.wait().unwrap());
    behind.into_iter().for_each(|job| job.wait().unwrap());
}

fn an_engine_that_ends_while_memory_is_short() {
    for drain in [true, false] {
        let system = System::new(0);
        let lab = system.lab(3);
        system.available(0);
        until_short(&lab, true);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let submit = || (0..20).map(|_| lab.submit(alone, (path,))).collect();
        if drain {
            let jobs: Vec<_> = submit();
            lab.into_inner().shutdown();
            jobs.into_iter().for_each(|job| job.wait().unwrap());
        } else {
            // No other job runs while this one does, which is until the engine is gone.
            let (long, held) = lab.hold();
            let jobs: Vec<_> = submit();
            drop(lab);
            drop(held);
            for job in std::iter::once(long).chain(jobs) {
                assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::ShutDown);
            }
        }
    }
}

/// The monitor of an idle engine sleeps until it is called.
fn an_idle_engine_is_not_watched() {
    let system = System::new(0);
    let lab = system.lab(1);
    until_short(&lab, false);
    let waits = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let monitor = tasks.filter_map(Result::ok).find(|task| {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            name.trim() == "arenite-monitor"
        });
        let status = fs::read_to_string(monitor.expect("it runs").path().join("status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.expect("Linux counts them").to_owned()
    };
    wait_until("it sleeps", || {
        let before = waits();
        // Longer than a check would take.
        pause();
        before == waits()
    });
    system.available(0);
    pause();
    assert!(!lab.stats().memory_short, "nothing is checked");
    until_short(&lab, true);
}

fn free_arena_memory_is_returned_where_that_helps() {
    const MIB: u64 = 1 << 20;
    let system = System::new(0);
    let lab = system.lab(1);
    let committed = || lab.stats().arena.committed;
    until_short(&lab, false);
    drop(lab.zeros::<u8>(100 * MIB as usize).unwrap());
    assert!(committed() > 100 * MIB);
    system.available(LIMIT / 20);
    wait_until("it is given back", || {
        lab.value_of(|| (), ());
        committed() < 50 * MIB
    });
    // Where that does not help the memory stays: it might not be available again.
    system.available(LIMIT / 2);
    until_short(&lab, false);
    drop(lab.zeros::<u8>(10 * MIB as usize).unwrap());
    let before = committed();
    assert!(before > 10 * MIB);
    system.available(0);
    until_short(&lab, true);
    lab.value_of(pause, ());
    assert_eq!(committed(), before);
}

fn jobs_are_refused_while_memory_is_short() {
    let system = System::new(0);
    let lab = system.lab(2);
    let wait = |job: Job<()>| job.wait().unwrap();
    wait(lab.job(|| (), ()).try_submit().unwrap());
    // When memory is short the arena gets none either.
    let values = lab.from_slice(&[1_u8, 2, 3]).unwrap();
    system.available(1 << 20);
    until_short(&lab, true);
    let len = |values: &Array<u8>| values.len();
    let refused = lab.job(len, (values,)).try_submit().unwrap_err();
    assert_eq!(refused.why, RefusedBy::MemoryShort, "{refused}");
    assert_eq!(refused.args.0[..], [1, 2, 3]);
    system.available(LIMIT / 2);
    until_short(&lab, false);
    wait(lab.job(|| (), ()).try_submit().unwrap());
}

/// Without the check Linux would kill some process; here the request fails with the numbers.
fn commits_beyond_the_systems_memory_fail() {
    /// What is left for a moment: less than one step of a commit, since these simulated numbers do not shrink with
    /// each.
    const LEFT: u64 = 1 << 20;
    /// Less than the arena has.
    const LARGE: usize = 180 << 20;
    fn ones(len: usize) -> Result<Array<u8>, ArenaFull> {
        let mut bytes = ArrayMut::try_uninit(len)?;
        bytes.fill(1);
        Ok(bytes.seal())
    }
    let whole = |array: &Array<u8>| array.len() == LARGE && are_all(array, 1);
    for version in [0, 1, 2] {
        let system = System::new(version);
        let limit = [
            SystemLimit::Machine,
            SystemLimit::Container,
            SystemLimit::Container,
        ][usize::from(version)];
        let is_right = |full: &ArenaFull| {
            assert_eq!(full.limit(), Some(limit), "{full}");
            assert_eq!((full.requested, full.shm_free), (LARGE as u64, LEFT));
        };
        let lab = system.lab(1);
        system.available(LEFT);
        // The last reading is valid for a moment.
        wait_until("the engine asks the system again", || {
            // What was committed meanwhile is returned first.
            lab.trim();
            lab.zeros::<u8>(LARGE).is_err()
        });
        is_right(&lab.zeros::<u8>(LARGE).unwrap_err());
        let error = lab.error_of(ones, (LARGE,));
        let JobErrorKind::Limit(JobLimit::Arena(full)) = error.kind() else {
            panic!("{error}");
        };
        is_right(full);
        system.available(LIMIT / 2);
        drop(lab.zeros::<u8>(LARGE).unwrap());
        // The worker's memory is private.
        lab.trim();
        let theirs = lab.value_of(ones, (LARGE,));
        assert!(whole(&theirs));
        drop(theirs);
        lab.assert_in_use(0);
    }
}
