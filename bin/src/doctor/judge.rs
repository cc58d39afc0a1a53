//! What the facts mean: every rule in one place, and no system call.

use arenite::platform::descriptors_for;

use super::finding::{Finding, Level};
use super::machine::{Feature, Machine, Need};
use crate::units::show_bytes as size;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The oldest kernel that engines are built for.
const OLDEST: (u32, u32) = (6, 1);
/// Descriptors that a program has open by itself, and files that it works on.
const FILES: u64 = 32;
/// Threads of an engine, and of each worker.
const TASKS: u64 = 8;
const TASKS_PER_WORKER: u64 = 2;
/// Less memory than this is not enough to work with.
const LEAST_MEMORY: u64 = 128 * MIB;
/// Less capacity than this is of no use.
const LEAST_CAPACITY: u64 = 16 * MIB;
/// Less memory than this is soon used up.
const LITTLE_MEMORY: u64 = GIB;
/// A named arena needs some room for its names, whatever its memory is made of.
const LEAST_SHM: u64 = MIB;
/// What `arenite resize` allows a worker, and what a large picture takes.
const PRIVATE_MEMORY: u64 = GIB;
/// Each published block may split a mapping.
const LEAST_MAPPINGS: u64 = 16_384;

impl Machine {
    /// What these facts mean, in the order in which one would read them. Pure: nothing is looked at.
    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut findings = vec![self.kernel(), self.proc(), self.memory()];
        findings.push(self.container());
        findings.push(self.shm());
        findings.extend([
            self.temporary(),
            self.files(),
            self.processes(),
            self.container_tasks(),
            self.address_space(),
            self.file_size(),
            self.data(),
            self.cpu_time(),
            self.mappings(),
        ]);
        findings.extend(self.features.iter().map(feature));
        findings.push(self.names());
        findings
    }

    fn kernel(&self) -> Finding {
        let found = format!("Linux {} on {}", self.kernel, self.arch);
        let fine = |means: &str| Finding::fine("kernel", found.clone(), means);
        if self.page != 4096 {
            return fine("shared memory is laid out in pages of 4096 bytes: no engine can start")
                .at(
                    Level::Trouble,
                    format!(
                        "boot a kernel with pages of 4096 bytes; this one has {}",
                        self.page
                    ),
                );
        }
        match version(&self.kernel) {
            None => fine("its version could not be read").at(
                Level::Notice,
                "see below which features it has: they are what counts",
            ),
            Some(version) if version < OLDEST => {
                fine("older than 6.1: engines are neither built for it nor tested on it")
                    .at(Level::Trouble, "run Linux 6.1 or newer")
            }
            Some(_) => fine("new enough: 6.1 is needed"),
        }
    }

    fn proc(&self) -> Finding {
        if self.proc {
            Finding::fine("proc", "/proc is there", "workers are started from it")
        } else {
            Finding::fine(
                "proc",
                "/proc does not show this process",
                "workers are started from /proc/self/exe and open their memory through /proc/self/fd: \
                 no engine can start",
            )
            .at(Level::Trouble, "mount it: mount -t proc proc /proc")
        }
    }

    fn memory(&self) -> Finding {
        let found = self.memory.map_or_else(
            || "how much there is, /proc/meminfo does not say".into(),
            |room| format!("{} of {} available", size(room.free), size(room.size)),
        );
        let finding = Finding::fine(
            "memory",
            found,
            match self.capacity {
                Some(capacity) => format!(
                    "an engine takes at most {} of it for arrays, unless it is told otherwise, and only as they come",
                    size(capacity)
                ),
                None => {
                    "an engine takes what its arrays need, unless it is told how much that may be"
                        .into()
                }
            },
        );
        let advice = "stop what uses it, add memory, or give the engine a smaller capacity";
        match self.memory.map(|room| room.free) {
            Some(free) if free < LEAST_MEMORY => finding.at(Level::Trouble, advice),
            Some(free) if free < LITTLE_MEMORY => finding.at(Level::Notice, advice),
            _ => finding,
        }
    }

    fn container(&self) -> Finding {
        let Some(container) = &self.container else {
            return Finding::fine(
                "container",
                "no memory limit",
                "nothing but the machine bounds what this process uses",
            );
        };
        let room = container.room;
        let finding = Finding::fine(
            "container",
            format!(
                "{} of {} left (control groups version {}, {})",
                size(room.free),
                size(room.size),
                container.version,
                container.group.display()
            ),
            "beyond that limit the kernel ends a process of the container, whichever it likes; engines count it",
        );
        let advice =
            "raise the limit (docker run --memory=…), or use fewer workers and a smaller capacity";
        if room.free < LEAST_MEMORY || room.free < room.size / 20 {
            finding.at(Level::Trouble, advice)
        } else if room.free < room.size / 4 {
            finding.at(Level::Notice, advice)
        } else {
            finding
        }
    }

    fn shm(&self) -> Finding {
        let Some(room) = self.shm else {
            return Finding::fine(
                "dev-shm",
                "/dev/shm is not there",
                "arenas are memory files and do not need it; Backing::Named and names for other programs do not work",
            )
            .at(Level::Notice, "mount it: mount -t tmpfs tmpfs /dev/shm");
        };
        let bound = if room.size == u64::MAX {
            "/dev/shm has no limit of its own".to_owned()
        } else {
            format!(
                "{} of {} free in /dev/shm",
                size(room.free),
                size(room.size)
            )
        };
        let finding = |means: String| Finding::fine("dev-shm", bound.clone(), means);
        if self.shm_read_only {
            return finding(
                "it is mounted to be read only: arenas are memory files and do not need it, but cannot have names".into(),
            )
            .at(Level::Notice, "mount -o remount,rw /dev/shm, as it usually is");
        }
        if !self.shm_writable {
            return finding(
                "this user may not write there: arenas are memory files and do not need to, but cannot have names".into(),
            )
            .at(Level::Notice, "chmod 1777 /dev/shm, as it usually is");
        }
        let larger = "remove what fills it (ls -l /dev/shm), or make it larger: \
             mount -o remount,size=…, docker run --shm-size=…";
        if room.free < LEAST_SHM {
            return finding(
                "it is full: engines with a name or with Backing::Named cannot start; others do not need it"
                    .into(),
            )
            .at(Level::Notice, larger);
        }
        if let Some(capacity) = self.capacity
            && room.free < capacity
        {
            return finding(format!(
                "less than the {} of an engine's default capacity: Backing::Named is bound by it, other arenas are \
                 memory files and are not",
                size(capacity)
            ))
            .at(Level::Notice, format!("nothing, or {larger}"));
        }
        finding("arenas lie there only with Backing::Named, and their names are gone before workers start".into())
    }

    fn temporary(&self) -> Finding {
        let folder = self.temporary.display();
        let finding = |found| {
            let means = "workers meet their program at a socket there when they start";
            Finding::fine("temporary", found, means)
        };
        match &self.temporary_fault {
            None => finding(format!("files can be made in {folder}")),
            Some(why) => finding(format!("no socket can be made in {folder}: {why}")).at(
                Level::Trouble,
                "set TMPDIR to a folder where files can be made",
            ),
        }
    }

    fn files(&self) -> Finding {
        let workers = self.cores as u64;
        let needed = |workers| descriptors_for(workers).saturating_add(FILES);
        let means = format!(
            "an engine with {workers} workers needs {} of them, {} for each worker",
            needed(workers),
            needed(1) - needed(0)
        );
        bound(
            "open-files",
            "open files",
            self.bounds.files,
            means,
            |limit| {
                (limit < needed(workers)).then(|| {
                    let fits = limit.saturating_sub(needed(0)) / (needed(1) - needed(0));
                    format!(
                        "raise it (ulimit -n 4096), or use fewer workers, {} at most",
                        fits.max(1)
                    )
                })
            },
        )
    }

    fn processes(&self) -> Finding {
        let workers = self.cores as u64;
        let needed = TASKS.saturating_add(TASKS_PER_WORKER.saturating_mul(workers));
        let now = self.bounds.processes_now;
        let means = format!(
            "this user runs at least {now} processes and threads, and an engine with {workers} workers adds {needed}"
        );
        bound(
            "processes",
            "processes",
            self.bounds.processes,
            means,
            |limit| {
                (!self.root && limit.saturating_sub(now) < needed)
                    .then(|| "raise it (ulimit -u), or end some of them".to_owned())
            },
        )
    }

    /// Beside the limit of the user: of all that the container runs, whoever runs it, and root is bound by it too.
    fn container_tasks(&self) -> Finding {
        const SUBJECT: &str = "container-tasks";
        let Some(tasks) = &self.container_tasks else {
            return Finding::fine(
                SUBJECT,
                "processes of the container: no limit",
                "nothing but the limits of this process bounds how many workers there can be",
            );
        };
        let workers = self.cores as u64;
        let needed = TASKS.saturating_add(TASKS_PER_WORKER.saturating_mul(workers));
        let left = tasks.limit.saturating_sub(tasks.used);
        let finding = Finding::fine(
            SUBJECT,
            format!(
                "{left} of {} processes and threads left (control groups version {}, {})",
                tasks.limit,
                tasks.version,
                tasks.group.display()
            ),
            format!(
                "beyond that limit nothing in the container starts any more, and an engine with {workers} workers adds \
                 {needed}"
            ),
        );
        if left >= needed {
            return finding;
        }
        let raise = "raise it (docker run --pids-limit=…, TasksMax=… of a service)";
        let advice = match left.saturating_sub(TASKS) / TASKS_PER_WORKER {
            0 => format!("{raise}, or end some of them"),
            fits => format!("{raise}, end some of them, or use fewer workers, {fits} at most"),
        };
        finding.at(Level::Trouble, advice)
    }

    /// Whether an engine would like a larger capacity, if it is not told which.
    fn wants_more_than(&self, bytes: u64) -> bool {
        self.capacity.is_none_or(|capacity| bytes < capacity)
    }

    fn address_space(&self) -> Finding {
        let regions = self.cores as u64 + 1;
        let means = "reservations count, and every process maps every region";
        let limit = self.bounds.address_space;
        bound("address-space", "addresses", limit, means, |limit| {
            // What `Spec::plan` grants each region.
            let each = limit / 4 / regions;
            self.wants_more_than(each)
                .then(|| lift_or_shrink("ulimit -v unlimited", each))
        })
    }

    fn file_size(&self) -> Finding {
        let means = "shared memory counts as a file, and none grows beyond the limit";
        bound(
            "file-size",
            "size of a file",
            self.bounds.file_size,
            means,
            |limit| {
                self.wants_more_than(limit)
                    .then(|| lift_or_shrink("ulimit -f unlimited", limit))
            },
        )
    }

    fn data(&self) -> Finding {
        let means =
            "this bounds the private memory of the program and of every worker, arrays not counted";
        bound(
            "private-memory",
            "private memory",
            self.bounds.data,
            means,
            |limit| {
                (limit < PRIVATE_MEMORY).then(|| {
                    "lift it (ulimit -d unlimited): a large picture takes several 100 MiB"
                        .to_owned()
                })
            },
        )
    }

    fn cpu_time(&self) -> Finding {
        let means =
            "a process that has computed for so long is ended, the program as well as a worker";
        let finding = bound(
            "cpu-time",
            "seconds of computing",
            self.bounds.cpu_seconds,
            means,
            |_| None,
        );
        match self.bounds.cpu_seconds {
            None => finding,
            Some(_) => finding.at(Level::Notice, "lift it for long work (ulimit -t unlimited)"),
        }
    }

    fn mappings(&self) -> Finding {
        let means = "each array that is made read-only may split a mapping of its worker in two";
        bound(
            "mappings",
            "mappings",
            self.bounds.mappings,
            means,
            |limit| {
                (limit < LEAST_MAPPINGS)
                    .then(|| "sysctl vm.max_map_count=65530, as it usually is".to_owned())
            },
        )
    }

    fn names(&self) -> Finding {
        let stale: Vec<_> = self.stale().collect();
        let live = self.names.len() - stale.len();
        if stale.is_empty() {
            let found = match live {
                0 => "no names in /dev/shm".to_owned(),
                1 => "1 living arena has a name".to_owned(),
                _ => format!("{live} living arenas have names"),
            };
            return Finding::fine(
                "stale-names",
                found,
                "nothing was left behind by programs that died",
            );
        }
        let bytes: u64 = stale.iter().map(|name| name.bytes).sum();
        Finding::fine(
            "stale-names",
            format!(
                "{} left behind by programs that died, {} in all",
                stale.len(),
                size(bytes)
            ),
            "they hold that memory; the next engine removes them by itself",
        )
        .at(Level::Notice, "arenite doctor --clean")
    }
}

/// What to do about a limit that leaves an engine so many bytes of capacity.
fn lift_or_shrink(lift: &str, room: u64) -> String {
    if room < LEAST_CAPACITY {
        return format!("lift it ({lift}): what it leaves is too little for arrays");
    }
    let room = size(room);
    format!("lift it ({lift}): until then an engine has a capacity of {room} at most")
}

/// A limit of this process; `hurts` says what to do if it is too low.
fn bound(
    subject: &'static str,
    what: &str,
    limit: Option<u64>,
    means: impl Into<String>,
    hurts: impl FnOnce(u64) -> Option<String>,
) -> Finding {
    let counted = matches!(
        subject,
        "open-files" | "processes" | "mappings" | "cpu-time"
    );
    let shown = |limit| {
        if counted {
            format!("{what}: {limit} at most")
        } else {
            format!("{what}: {} at most", size(limit))
        }
    };
    let found = limit.map_or_else(|| format!("{what}: no limit"), shown);
    let finding = Finding::fine(subject, found, means);
    match limit.and_then(hurts) {
        Some(advice) => finding.at(Level::Trouble, advice),
        None => finding,
    }
}

fn feature(feature: &Feature) -> Finding {
    let subject = subject(feature.name);
    let why = match &feature.state {
        Ok(detail) if detail.is_empty() => {
            return Finding::fine(subject, format!("{} works", feature.name), feature.purpose);
        }
        Ok(detail) => {
            let found = format!("{} works ({detail})", feature.name);
            return Finding::fine(subject, found, feature.purpose);
        }
        Err(why) => why,
    };
    let finding = Finding::fine(
        subject,
        format!("{} does not work: {why}", feature.name),
        match feature.need {
            Need::Always => format!("no engine can start without it: {}", feature.purpose),
            Need::Speed => format!(
                "engines do without, and are slower at it: {}",
                feature.purpose
            ),
            Need::Sealed => format!(
                "arenas have to fit in /dev/shm, and cannot be sealed: {}",
                feature.purpose
            ),
            Need::Sandbox => format!("sandboxed workers do without: {}", feature.purpose),
        },
    );
    let advice = format!(
        "it came with Linux {}: use that or a newer one, and a container that does not forbid it",
        feature.since
    );
    match feature.need {
        Need::Always => finding.at(Level::Trouble, advice),
        Need::Speed if feature.name == "MADV_COLLAPSE" => finding.at(
            Level::Notice,
            "nothing: memory in pieces mends itself, and the engine tries again; or use Linux 6.1 or newer",
        ),
        Need::Speed | Need::Sealed | Need::Sandbox => finding.at(Level::Notice, advice),
    }
}

fn subject(name: &str) -> &'static str {
    match name {
        "pidfd" => "pidfd",
        "close_range" => "close-range",
        "memfd" => "memfd",
        "MADV_COLLAPSE" => "huge-pages",
        "futex_waitv" => "futex-waitv",
        "seccomp" => "seccomp",
        "Landlock" => "landlock",
        "mseal" => "mseal",
        _ => "feature",
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}
