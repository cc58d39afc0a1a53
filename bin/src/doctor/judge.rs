//! Decides what the facts mean for an engine. All rules are here; none makes a system call.

use arenite::platform::descriptors_for;

use super::finding::{Finding, Level};
use super::machine::{Feature, Machine, Need};
use crate::text::{show_bytes, show_path};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The oldest supported Linux.
const OLDEST: (u32, u32) = (5, 10);
/// The number of descriptors that a program needs besides those of its engine: its own, and those of the files that it
/// processes.
const FILES: u64 = 32;
/// The number of threads of a program with an engine.
const TASKS: u64 = 8;
/// The number of threads of each worker.
const TASKS_PER_WORKER: u64 = 2;
/// Free memory below this is trouble.
const MIN_MEMORY: u64 = 128 * MIB;
/// Capacity below this is not usable.
const MIN_CAPACITY: u64 = 16 * MIB;
/// Free memory below this is worth a notice.
const LITTLE_MEMORY: u64 = GIB;
/// A named arena needs this much of `/dev/shm` for its control segment, whatever its regions are made of.
const MIN_SHM: u64 = MIB;
/// The private memory that `arenite resize` allows a worker, and that a large picture needs.
const PRIVATE_MEMORY: u64 = GIB;
/// The minimum number of mappings: each published block may split a mapping.
const MIN_MAPPINGS: u64 = 16_384;

impl Machine {
    /// Returns the findings about all facts, in reading order.
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
        findings.push(self.jpeg());
        findings.push(self.heic());
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
                        "boot a Linux kernel with pages of 4096 bytes; this one has {}",
                        self.page
                    ),
                );
        }
        match version(&self.kernel) {
            None => fine("its version could not be read").at(
                Level::Notice,
                "see below which features it has; they decide",
            ),
            Some(version) if version < OLDEST => {
                fine("older than 5.10: not supported and not tested")
                    .at(Level::Trouble, "run Linux 5.10 or newer")
            }
            Some(_) => fine("new enough: 5.10 is needed"),
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

    fn jpeg(&self) -> Finding {
        const SUBJECT: &str = "jpeg";
        if self.jpeg_assembly {
            return Finding::fine(
                SUBJECT,
                "built with assembly",
                "resize and check decode JPEG at full speed",
            );
        }
        let means = "resize and check take up to twice as long for JPEG";
        Finding::fine(SUBJECT, "built without assembly", means).at(
            Level::Notice,
            "install nasm and build this command again, or take the published one",
        )
    }

    fn heic(&self) -> Finding {
        match &self.heic {
            Some(version) => Finding::fine(
                "heic",
                format!("libde265 {version}"),
                "resize and check read HEIC, the format of phones, with it",
            ),
            None if cfg!(target_feature = "crt-static") => Finding::fine(
                "heic",
                "this command is linked statically",
                "resize and check cannot read HEIC, the format of phones, without libde265; the command for glibc loads it",
            ),
            None => Finding::fine(
                "heic",
                "libde265 is not installed",
                "resize and check cannot read HEIC, the format of phones; to change that, install libde265-0 (Debian, Ubuntu) \
                 or libde265 (Fedora, Arch)",
            ),
        }
    }

    fn memory(&self) -> Finding {
        let found = self.memory.map_or_else(
            || "unknown: /proc/meminfo does not say".into(),
            |room| {
                format!(
                    "{} of {} available",
                    show_bytes(room.free),
                    show_bytes(room.size)
                )
            },
        );
        let finding = Finding::fine(
            "memory",
            found,
            match self.capacity {
                Some(capacity) => format!(
                    "an engine takes at most {} of it for arrays by default, and only as arrays are made",
                    show_bytes(capacity)
                ),
                None => {
                    "an engine takes what its arrays need, unless it is given a capacity".into()
                }
            },
        );
        let advice = "stop what uses it, add memory, or give the engine a smaller capacity";
        match self.memory.map(|room| room.free) {
            Some(free) if free < MIN_MEMORY => finding.at(Level::Trouble, advice),
            Some(free) if free < LITTLE_MEMORY => finding.at(Level::Notice, advice),
            _ => finding,
        }
    }

    fn container(&self) -> Finding {
        let Some(container) = &self.container else {
            return Finding::fine(
                "container",
                "no memory limit",
                "only the machine bounds what this process uses",
            );
        };
        let room = container.room;
        let finding = Finding::fine(
            "container",
            format!(
                "{} of {} left (control groups version {}, {})",
                show_bytes(room.free),
                show_bytes(room.size),
                container.version,
                show_path(&container.group)
            ),
            "beyond that limit Linux kills a process of the container, not necessarily the one that grew; engines \
             count the limit",
        );
        let advice =
            "raise the limit (docker run --memory=…), or use fewer workers and a smaller capacity";
        if room.free < MIN_MEMORY || room.free < room.size / 20 {
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
                "/dev/shm does not exist",
                "arenas are memory files and do not need it; Backing::Named and named arenas do not work",
            )
            .at(Level::Notice, "mount it: mount -t tmpfs tmpfs /dev/shm");
        };
        let bound = if room.size == u64::MAX {
            "/dev/shm has no limit of its own".to_owned()
        } else {
            format!(
                "{} of {} free in /dev/shm",
                show_bytes(room.free),
                show_bytes(room.size)
            )
        };
        let finding = |means: String| Finding::fine("dev-shm", bound.clone(), means);
        if self.shm_read_only {
            return finding(
                "it is mounted read-only: arenas are memory files and do not need it, but cannot have names".into(),
            )
            .at(Level::Notice, "mount -o remount,rw /dev/shm, as it usually is");
        }
        if !self.shm_writable {
            return finding(
                "this user may not write there: arenas are memory files and do not need it, but cannot have names"
                    .into(),
            )
            .at(Level::Notice, "chmod 1777 /dev/shm, as it usually is");
        }
        let larger = "remove what fills it (ls -l /dev/shm), or make it larger: \
             mount -o remount,size=…, docker run --shm-size=…";
        if room.free < MIN_SHM {
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
                "less than the {} of an engine's default capacity: it bounds Backing::Named; other arenas are memory \
                 files, which it does not bound",
                show_bytes(capacity)
            ))
            .at(Level::Notice, format!("nothing, or {larger}"));
        }
        finding("only arenas with Backing::Named are there, and their names are removed before workers start".into())
    }

    fn temporary(&self) -> Finding {
        let folder = show_path(&self.temporary);
        let finding = |found| {
            let means = "workers connect to their program through a socket there when they start";
            Finding::fine("temporary", found, means)
        };
        match &self.temporary_fault {
            None => finding(format!("files can be made in {folder}")),
            Some(why) => finding(why.clone()).at(
                Level::Trouble,
                "set TMPDIR to a folder where files can be made",
            ),
        }
    }

    fn files(&self) -> Finding {
        let workers = self.cores as u64;
        let needed = |workers| descriptors_for(workers).saturating_add(FILES);
        let means = format!(
            "an engine with {workers} workers needs {}, {} per worker",
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

    /// Returns the finding about the container's limit on processes and threads. The limit counts those of all users,
    /// and applies to root too.
    fn container_tasks(&self) -> Finding {
        const SUBJECT: &str = "container-tasks";
        let Some(tasks) = &self.container_tasks else {
            return Finding::fine(
                SUBJECT,
                "processes of the container: no limit",
                "only the limits of this process bound the number of workers",
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
                show_path(&tasks.group)
            ),
            format!(
                "beyond that limit no process or thread of the container can start, and an engine with {workers} \
                 workers adds {needed}"
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

    /// Returns whether the default capacity of an engine is larger than `bytes`.
    fn wants_more_than(&self, bytes: u64) -> bool {
        self.capacity.is_none_or(|capacity| bytes < capacity)
    }

    fn address_space(&self) -> Finding {
        let regions = self.cores as u64 + 1;
        let means = "reservations count, and each process maps all regions";
        let limit = self.bounds.address_space;
        bound("address-space", "addresses", limit, means, |limit| {
            // The part of the limit that the arena reserves for each region.
            let each = limit / 4 / regions;
            self.wants_more_than(each)
                .then(|| lift_or_shrink("ulimit -v unlimited", each))
        })
    }

    fn file_size(&self) -> Finding {
        let means = "shared memory counts as a file, and no file grows beyond the limit";
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
            "bounds the private memory of the program and of each worker, arrays not counted";
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
        let means = "Linux kills a process that has used this much CPU time, the program as well as a worker";
        let finding = bound(
            "cpu-time",
            "seconds of CPU time",
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
        let means = "each array that becomes read-only may split a mapping of its worker in two";
        bound(
            "mappings",
            "mappings",
            self.bounds.mappings,
            means,
            |limit| {
                (limit < MIN_MAPPINGS)
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
                1 => "1 live arena has a name".to_owned(),
                _ => format!("{live} live arenas have names"),
            };
            return Finding::fine("stale-names", found, "no program that died left one behind");
        }
        let bytes: u64 = stale.iter().map(|name| name.bytes).sum();
        Finding::fine(
            "stale-names",
            format!(
                "{} left behind by programs that died, {} in all",
                stale.len(),
                show_bytes(bytes)
            ),
            "they hold that memory; the next engine removes them",
        )
        .at(Level::Notice, "arenite doctor --clean")
    }
}

/// Returns advice about a limit that leaves an engine `room` bytes of capacity. `lift` is the command that lifts the
/// limit.
fn lift_or_shrink(lift: &str, room: u64) -> String {
    if room < MIN_CAPACITY {
        return format!("lift it ({lift}): what it leaves is too little for arrays");
    }
    let room = show_bytes(room);
    format!("lift it ({lift}): until then an engine has a capacity of {room} at most")
}

/// Returns the finding about a limit of this process. `advice_for` returns advice if the limit is too low.
fn bound(
    subject: &'static str,
    what: &str,
    limit: Option<u64>,
    means: impl Into<String>,
    advice_for: impl FnOnce(u64) -> Option<String>,
) -> Finding {
    let counted = matches!(
        subject,
        "open-files" | "processes" | "mappings" | "cpu-time"
    );
    let shown = |limit| {
        if counted {
            format!("{what}: {limit} at most")
        } else {
            format!("{what}: {} at most", show_bytes(limit))
        }
    };
    let found = limit.map_or_else(|| format!("{what}: no limit"), shown);
    let finding = Finding::fine(subject, found, means);
    match limit.and_then(advice_for) {
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
            Need::Speed => format!("engines work without it, more slowly: {}", feature.purpose),
            Need::Sealed => format!(
                "arenas have to fit in /dev/shm, and cannot be sealed: {}",
                feature.purpose
            ),
            Need::Sandbox => format!(
                "sandboxed workers start without it, with less protection: {}",
                feature.purpose
            ),
        },
    );
    let advice = format!(
        "it came with Linux {}: use that or a newer release, and a container that does not forbid it",
        feature.since
    );
    match feature.need {
        Need::Always => finding.at(Level::Trouble, advice),
        Need::Speed if feature.name == "MADV_COLLAPSE" => finding.at(
            Level::Notice,
            "nothing: fragmented memory recovers, and the engine tries again; or use Linux 6.1 or newer",
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

/// Returns the first two numbers of a release of Linux.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}
