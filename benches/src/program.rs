//! Whole programs over folders of photos: how long, how much memory, how many bytes written.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::BenchError;
use super::cases::Reading;
use super::child::{Child, MARKER, Role};
use super::photos::{Folder, files};
use super::work;
use arenite_image::{ResizeSpec, resize_encoded};

/// One command line: the program, then its arguments.
pub(super) type CommandLine = Vec<OsString>;

/// Whether a program of this name can be started.
pub(super) fn is_installed(name: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else {
        return false;
    };
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Runs the command lines side by side; each started by a process of ours that then becomes the program, so that it
/// does not outlive this process. `out` has to hold `expected` pictures afterwards, of which the longer side is [`work::THUMB_EDGE`].
///
/// What they hold is looked at meanwhile if `watched`, which takes them time, and more from a program of several processes; otherwise
/// it is 0.
pub(super) fn run(
    system: &'static str,
    role: &Role,
    lines: &[CommandLine],
    out: &Folder,
    expected: u64,
    watched: bool,
) -> Result<Reading, BenchError> {
    let start = Instant::now();
    let mut children = lines
        .iter()
        .map(|line| Child::start_with(system, role, line))
        .collect::<Result<Vec<_>, _>>()?;
    let roots: Vec<u32> = children.iter().map(Child::id).collect();
    // Often enough to see a photo being decoded, seldom enough not to disturb it; and about as many looks at a short run
    // as at a long one, or its peak would be the likelier one to be missed.
    let pause = Duration::from_millis(if expected < 100 { 1 } else { 10 });
    let mut wait = || {
        children.iter_mut().try_for_each(Child::wait_for_success)?;
        Ok::<_, BenchError>(start.elapsed())
    };
    let (total, peak) = match watched {
        true => peak_while(&roots, pause, wait),
        false => (wait(), 0),
    };
    let total = total?;
    let failed = |file: &Path, error: &dyn std::fmt::Display| {
        let error = std::io::Error::other(error.to_string());
        BenchError::io(format!("look at {}", file.display()), error)
    };
    let mut written = 0;
    let outputs = files(out.path())?;
    for file in &outputs {
        let size = fs::metadata(file)
            .map_err(|error| BenchError::io(format!("look at {}", file.display()), error))?;
        written += size.len();
        let (width, height) =
            image::image_dimensions(file).map_err(|error| failed(file, &error))?;
        BenchError::expect(width.max(height).into(), work::THUMB_EDGE.into())?;
    }
    BenchError::expect(outputs.len() as u64, expected)?;
    Ok(Reading::Files {
        total,
        written,
        peak,
    })
}

/// What `work` comes to, and the most memory that was seen meanwhile, with a pause between two looks.
pub(super) fn peak_while<R>(roots: &[u32], pause: Duration, work: impl FnOnce() -> R) -> (R, u64) {
    /// Ends the looking, also after a panic.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Done(&done);
        let watch = scope.spawn(|| peak_memory(roots, pause, &done));
        let result = work();
        drop(ends);
        (result, watch.join().unwrap_or(0))
    })
}

/// Looks at [`memory_of`] `roots` until `done`, with a pause between two looks; the most that was seen.
fn peak_memory(roots: &[u32], pause: Duration, done: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !done.load(Relaxed) {
        peak = peak.max(memory_of(roots));
        std::thread::sleep(pause);
    }
    peak
}

/// Bytes that processes and all their descendants hold now.
///
/// Counted are anonymous pages of each process, and each shared-memory object that any of them holds open once, with
/// what it really occupies. Pages of the programs' own files are left out.
pub(super) fn memory_of(roots: &[u32]) -> u64 {
    let mut pids = roots.to_vec();
    let mut next = 0;
    let mut anonymous = 0;
    let mut seen = HashSet::new();
    let mut shared = 0;
    while let Some(&pid) = pids.get(next) {
        next += 1;
        pids.extend(children_of(pid));
        anonymous += anonymous_bytes(pid);
        for (object, bytes) in shared_objects(pid) {
            if seen.insert(object) {
                shared += bytes;
            }
        }
    }
    anonymous + shared
}

fn children_of(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn anonymous_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// Device and inode of each memory file this process holds open, and the bytes it occupies.
fn shared_objects(pid: u32) -> Vec<((u64, u64), u64)> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    descriptors
        .flatten()
        .filter(|entry| {
            fs::read_link(entry.path()).is_ok_and(|target| {
                let target = target.as_os_str().as_encoded_bytes();
                target.starts_with(b"/memfd:") || target.starts_with(b"/dev/shm/")
            })
        })
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .map(|file| ((file.dev(), file.ino()), file.blocks() * 512))
        .collect()
}

/// What the rayon twin's process does: `threads from to`, a loop around the same codecs as the engine's workers use.
pub(super) fn resize_in_threads() -> Result<(), BenchError> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let bad = || BenchError::Missing("the process of rayon got no folders".to_owned());
    let [threads, size, from, to] = words.as_slice() else {
        return Err(bad());
    };
    let threads = threads
        .to_str()
        .and_then(|n| n.parse().ok())
        .ok_or_else(bad)?;
    let size = size
        .to_str()
        .and_then(|size| size.parse().ok())
        .ok_or_else(bad)?;
    let (from, to) = (Path::new(from), Path::new(to));
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| BenchError::io("start a rayon pool", std::io::Error::other(error)))?;
    let spec = ResizeSpec::new(size);
    let photos = files(from)?;
    pool.install(|| {
        photos.par_iter().try_for_each(|photo| {
            let failed = |error| BenchError::io(format!("resize {}", photo.display()), error);
            let bytes = fs::read(photo).map_err(failed)?;
            let small = resize_encoded(&bytes, &spec)
                .map_err(|error| failed(std::io::Error::other(error)))?;
            let name = photo.file_name().unwrap_or_default();
            fs::write(to.join(name), small.bytes).map_err(failed)
        })
    })
}

/// What a process does that becomes another program: its arguments are that program's command line.
pub(super) fn become_program() -> Result<(), BenchError> {
    let mut words = std::env::args_os().skip(1);
    let program = words
        .next()
        .ok_or_else(|| BenchError::Missing("no program was named".to_owned()))?;
    // The signal at the parent's death outlives `exec`; the marker must not.
    let error = Command::new(&program).args(words).env_remove(MARKER).exec();
    Err(BenchError::io(
        format!("start {}", program.display()),
        error,
    ))
}
