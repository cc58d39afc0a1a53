//! Runs whole programs over folders of photos, and measures their time, their memory, and the bytes written.

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
use arenite_image::{Output, ResizeSpec, resize_encoded};

/// One command line: the program, then its arguments.
pub(super) type CommandLine = Vec<OsString>;

/// Returns whether a program of this name is in `PATH`.
pub(super) fn is_installed(name: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else {
        return false;
    };
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Runs the command lines at the same time, each in a child of this process that ends when this process ends.
/// Afterwards `out` must contain `expected` pictures whose longer side is [`work::THUMB_EDGE`].
///
/// If `watched`, samples the memory of the programs; otherwise reports 0. Sampling slows the programs down, most of all
/// if they are several processes.
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
    // Sample often enough to see the decoding of a photo, and rarely enough not to disturb it. A short run gets about
    // the same number of samples as a long run; otherwise its peak would be missed more often.
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
        BenchError::io(format!("read {}", file.display()), error)
    };
    let mut written = 0;
    let outputs = files(out.path())?;
    for file in &outputs {
        let thumbnail = fs::read(file).map_err(|error| failed(file, &error))?;
        written += thumbnail.len() as u64;
        let thumbnail = arenite_image::decode(&thumbnail).map_err(|error| failed(file, &error))?;
        let side = thumbnail.width.max(thumbnail.height);
        BenchError::expect(side.into(), work::THUMB_EDGE.into())?;
    }
    BenchError::expect(outputs.len() as u64, expected)?;
    Ok(Reading::Files {
        total,
        written,
        peak,
    })
}

/// Runs `work` and samples the memory of `roots` meanwhile. Returns the result of `work` and the peak.
pub(super) fn peak_while<R>(roots: &[u32], pause: Duration, work: impl FnOnce() -> R) -> (R, u64) {
    /// Ends the sampling, also after a panic.
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

/// Samples [`memory_of`] `roots` until `done`. Returns the peak.
fn peak_memory(roots: &[u32], pause: Duration, done: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !done.load(Relaxed) {
        peak = peak.max(memory_of(roots));
        std::thread::sleep(pause);
    }
    peak
}

/// Returns the number of bytes of memory that processes and all their descendants use.
///
/// Counts the anonymous pages of each process, and the pages of each shared-memory object that any of the processes has
/// open, once. Pages of program files do not count.
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

/// Returns device and inode of each memory file that process `pid` has open, and the number of bytes that the file
/// occupies.
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

/// Runs in the process of the rayon baseline, whose arguments are threads, size, input and output folder: a parallel
/// loop over the function that the engine's workers call.
pub(super) fn resize_in_threads() -> Result<(), BenchError> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let bad = || BenchError::Missing("the process of rayon has wrong arguments".to_owned());
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
    let spec = ResizeSpec {
        output: Output::Jpeg,
        ..ResizeSpec::new(size)
    };
    let photos = files(from)?;
    pool.install(|| {
        photos.par_iter().try_for_each(|photo| {
            let failed = |error| BenchError::io(format!("resize {}", photo.display()), error);
            let bytes = fs::read(photo).map_err(failed)?;
            let small = resize_encoded(&bytes, &spec)
                .map_err(|error| failed(std::io::Error::other(error)))?;
            let name = photo.file_stem().unwrap_or_default();
            fs::write(to.join(name).with_extension("jpg"), small.bytes).map_err(failed)
        })
    })
}

/// Executes another program, whose command line is in this program's arguments.
pub(super) fn become_program() -> Result<(), BenchError> {
    let mut words = std::env::args_os().skip(1);
    let program = words
        .next()
        .ok_or_else(|| BenchError::Missing("no program is named".to_owned()))?;
    // The parent-death signal survives `exec`. The marker must not be passed on.
    let error = Command::new(&program).args(words).env_remove(MARKER).exec();
    Err(BenchError::io(
        format!("start {}", program.display()),
        error,
    ))
}
