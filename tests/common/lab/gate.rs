//! Synchronisation of a test with a kernel, without sleeping.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::sys::stat::Mode;
use tempfile::TempDir;

/// Stops a kernel until the test lets it continue: a named pipe that the kernel opens for reading and the test for writing. Each
/// open blocks until the other side opens too.
#[derive(Debug)]
pub struct Gate {
    folder: TempDir,
}

impl Gate {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for a pipe");
        nix::unistd::mkfifo(&folder.path().join("gate"), Mode::S_IRWXU).expect("a named pipe");
        Self { folder }
    }

    /// Returns the path, an argument of the kernel.
    pub fn path(&self) -> String {
        self.folder
            .path()
            .join("gate")
            .to_str()
            .expect("a plain path")
            .to_owned()
    }

    /// Waits until a kernel is at the gate. The kernel continues when the returned file is dropped.
    pub fn meet(&self) -> File {
        super::step(format!("for a kernel at {}", self.path()));
        let open = File::options().write(true).open(self.path());
        super::step("a kernel is at the gate");
        open.expect("the pipe exists")
    }

    /// Waits for a kernel and lets it through.
    pub fn open(&self) {
        drop(self.meet());
    }

    /// Lets all kernels through until `is_enough`.
    pub fn release_all(&self, is_enough: impl Fn() -> bool) {
        super::wait_until("all have come through the gate", || {
            // Opening for both does not block; closing lets all waiting kernels through.
            drop(File::options().read(true).write(true).open(self.path()));
            is_enough()
        });
    }
}

/// Starts jobs, each with the path of a gate of its own, and waits until all are at their gates. They continue when the
/// returned files are dropped.
pub fn at_gates<J>(count: usize, job: impl FnMut(&str) -> J) -> (Vec<J>, Vec<File>) {
    let gates: Vec<_> = (0..count).map(|_| Gate::new()).collect();
    let paths: Vec<_> = gates.iter().map(Gate::path).collect();
    let jobs = paths.iter().map(String::as_str).map(job).collect();
    (jobs, gates.iter().map(Gate::meet).collect())
}

/// In a kernel: waits at the gate.
pub fn pass(gate: &str) {
    let mut pipe = File::open(Path::new(gate)).expect("the pipe exists");
    let mut nothing = Vec::new();
    pipe.read_to_end(&mut nothing).expect("a pipe can be read");
}

/// A kernel that waits at the gate, if there is one.
pub fn through(gate: &str, n: u64) -> u64 {
    if !gate.is_empty() {
        pass(gate);
    }
    n
}

/// In a kernel: never ends, and uses no processor time.
pub fn hang() {
    loop {
        std::thread::park();
    }
}
