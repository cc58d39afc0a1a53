//! Leftovers of a test in this process and in the system.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::stat::makedev;

/// How long leftovers may take to disappear. A thread that has reported its result still has to end.
const SETTLING: Duration = Duration::from_secs(20);

/// Children, descriptors, threads and shared-memory names at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    children: BTreeSet<i32>,
    /// Number and target, because a number may be reused for another file.
    descriptors: BTreeSet<(u32, String)>,
    threads: BTreeSet<(u32, String)>,
    names: BTreeMap<String, Name>,
}

/// Device and inode of a file: each mount namespace may have its own `/dev/shm`, with inodes of its own.
type File = (u64, u64);

/// What a name of `/dev/shm` refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    file: File,
    /// Whether it was locked, as by a live arena.
    locked: bool,
}

impl Traces {
    pub fn now() -> Self {
        Self {
            children: children().into_iter().collect(),
            descriptors: descriptors(),
            threads: threads(),
            names: names(),
        }
    }

    /// Checks `/dev/shm`: no name is new, and none is missing that was not ours to remove.
    pub fn compare_names(&self) -> Result<(), String> {
        let started = Instant::now();
        loop {
            // Other programs create names for a moment, too.
            let now = names();
            let new: Vec<_> = now
                .keys()
                .filter(|name| !self.names.contains_key(*name))
                .collect();
            let gone = self.names_missed(&now);
            if new.is_empty() && gone.is_empty() {
                return Ok(());
            }
            if started.elapsed() > SETTLING {
                return Err(format!("names left behind: {new:?}, and gone: {gone:?}"));
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Returns the names that are gone, or refer to another file, and should not.
    ///
    /// A live arena removes a persistent name (`.kept`) only when it ends, so such a name whose file is still locked has been
    /// removed by mistake. It removes its other names right after their creation, in any program. In a `/dev/shm` of our own, all
    /// other names count too, except those of a dead arena, which are swept.
    fn names_missed(&self, now: &BTreeMap<String, Name>) -> Vec<String> {
        let gone: Vec<_> = (self.names.iter())
            .filter(|(name, was)| now.get(*name).is_none_or(|is| is.file != was.file))
            .collect();
        if gone.is_empty() {
            return Vec::new();
        }
        let (own, locked) = (is_own_shm(), locked());
        let missed = |name: &str, was: &Name| {
            let (of_arena, is_persistent) = (name.starts_with("arenite-"), name.ends_with(".kept"));
            let is_expected = of_arena && !(is_persistent && was.locked);
            let was_taken = is_persistent && was.locked && locked.contains(&was.file);
            was_taken || own && !is_expected
        };
        gone.into_iter()
            .filter(|(name, was)| missed(name, was))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Checks that nothing is left. Children have to be gone at once: dropping an engine waits for them.
    pub fn compare(&self) -> Result<(), String> {
        let left: Vec<_> = children()
            .into_iter()
            .filter(|pid| !self.children.contains(pid))
            .collect();
        if !left.is_empty() {
            return Err(format!(
                "processes left behind: {left:?}\n{}",
                describe_children()
            ));
        }
        let started = Instant::now();
        loop {
            let descriptors = descriptors();
            let more_threads = tasks().count() > self.threads.len();
            if descriptors == self.descriptors && !more_threads {
                break;
            }
            if started.elapsed() > SETTLING {
                let new: Vec<_> = descriptors.difference(&self.descriptors).collect();
                let gone: Vec<_> = self.descriptors.difference(&descriptors).collect();
                let threads = threads();
                let threads: Vec<_> = threads.difference(&self.threads).collect();
                return Err(format!(
                    "left behind: descriptors {new:?} (gone: {gone:?}), threads {threads:?}"
                ));
            }
            // A pause between two checks.
            std::thread::park_timeout(Duration::from_millis(1));
        }
        self.compare_names()
    }
}

/// Returns the children of this process, zombies included.
pub fn children() -> Vec<i32> {
    if !Path::new("/proc/thread-self/children").exists() {
        let own = std::process::id() as i32;
        let own = stats().filter(|stat| stat.parent == own);
        return own.map(|stat| stat.pid).collect();
    }
    // Children belong to the thread that started them, and move to another when it ends. A child that moves or ends while the
    // lists are read hides itself or the next one, so they are read until two readings are equal.
    let mut before = of_threads();
    loop {
        let now = of_threads();
        if now == before {
            return now;
        }
        before = now;
    }
}

/// Returns the children of all threads, sorted.
fn of_threads() -> Vec<i32> {
    // Fails for a thread that has just ended.
    let texts = tasks().filter_map(|task| fs::read_to_string(task.join("children")).ok());
    let texts: Vec<_> = texts.collect();
    let pids = texts.iter().flat_map(|text| text.split_whitespace());
    let mut pids: Vec<i32> = pids.filter_map(|pid| pid.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// Returns the running processes of a session: a program that leads it, and its descendants.
pub fn processes_of(session: i32) -> Vec<i32> {
    stats()
        .filter(|stat| stat.session == session && stat.state != 'Z')
        .map(|stat| stat.pid)
        .collect()
}

struct Stat {
    pid: i32,
    parent: i32,
    session: i32,
    state: char,
    name: String,
}

fn stats() -> impl Iterator<Item = Stat> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let _: i32 = entry.file_name().to_str()?.parse().ok()?;
        read_stat(&entry.path().join("stat"))
    })
}

fn read_stat(path: &Path) -> Option<Stat> {
    let text = fs::read_to_string(path).ok()?;
    // The name is in parentheses and may contain anything.
    let (head, tail) = text.rsplit_once(')')?;
    let (pid, name) = head.split_once('(')?;
    let mut fields = tail.split_whitespace();
    Some(Stat {
        pid: pid.trim().parse().ok()?,
        name: name.to_owned(),
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        // After the group.
        session: fields.nth(1)?.parse().ok()?,
    })
}

fn descriptors() -> BTreeSet<(u32, String)> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    let mut found: BTreeSet<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((number, target.display().to_string()))
        })
        .collect();
    // The descriptor that reads this folder.
    found.retain(|(_, target)| !target.ends_with("/fd"));
    // A `CowHeap` is never freed, nor is what it has opened.
    let lasting = ["memfd:heap-", "/pagemap", "[userfaultfd]"];
    found.retain(|(_, target)| !lasting.iter().any(|part| target.contains(part)));
    found
}

fn threads() -> BTreeSet<(u32, String)> {
    tasks()
        .filter_map(|task| {
            let number = task.file_name()?.to_str()?.parse().ok()?;
            let name = fs::read_to_string(task.join("comm")).ok()?;
            Some((number, name.trim().to_owned()))
        })
        .collect()
}

/// Returns the `/proc` folders of the threads of this process.
fn tasks() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc/self/task").expect("/proc is mounted");
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

/// Lists `/dev/shm`: our names, or all names in a `/dev/shm` of our own.
fn names() -> BTreeMap<String, Name> {
    let Ok(entries) = fs::read_dir("/dev/shm") else {
        return BTreeMap::new();
    };
    let all = is_own_shm();
    let locked = locked();
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            // Fails if it has just been removed.
            let metadata = entry.metadata().ok()?;
            let file = (metadata.dev(), metadata.ino());
            let locked = locked.contains(&file);
            let name = entry.file_name().into_string().ok()?;
            Some((name, Name { file, locked }))
        })
        .filter(|(name, _)| all || name.starts_with("arenite"))
        .collect()
}

/// Returns all locked files, from `/proc/locks`: an attempt to lock them would be visible to other programs.
fn locked() -> BTreeSet<File> {
    // "1: FLOCK  ADVISORY  WRITE 4021 00:19:1234 0 EOF", the device in hexadecimal.
    let file = |line: &str| {
        let mut parts = line.split_whitespace().nth(5)?.split(':');
        let mut device = || u64::from_str_radix(parts.next()?, 16).ok();
        let device = makedev(device()?, device()?);
        Some((device, parts.next()?.parse().ok()?))
    };
    let text = fs::read_to_string("/proc/locks").unwrap_or_default();
    text.lines().filter_map(file).collect()
}

/// Returns whether this process has a `/dev/shm` of its own: another one than the first process of the system. `false` if unknown.
fn is_own_shm() -> bool {
    match (mounted_shm("self"), mounted_shm("1")) {
        (Some(own), Some(first)) => own != first,
        _ => false,
    }
}

/// Returns the device of a process's `/dev/shm`; an empty text if nothing is mounted there.
fn mounted_shm(process: &str) -> Option<String> {
    let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo")).ok()?;
    let mut mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?;
        (fields.nth(1)? == "/dev/shm").then(|| device.to_owned())
    });
    // The last one hides those before it.
    Some(mounts.next_back().unwrap_or_default())
}

pub fn describe_threads() -> String {
    let mut text = String::new();
    for (number, name) in threads() {
        let read = |what: &str| {
            let text = fs::read_to_string(format!("/proc/self/task/{number}/{what}"));
            text.map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
        };
        let _ = writeln!(
            text,
            "  {number} {name}: waits in {}, system call {}",
            read("wchan"),
            read("syscall")
        );
    }
    text
}

pub fn describe_children() -> String {
    let mut text = String::new();
    for pid in children() {
        if let Some(stat) = read_stat(Path::new(&format!("/proc/{pid}/stat"))) {
            let wchan = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
            let _ = writeln!(
                text,
                "  {pid} {}: state {}, waits in {wchan}",
                stat.name, stat.state
            );
        }
    }
    text
}
