//! Meeting a kernel at a point that the test chooses, without sleeping.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::sys::stat::Mode;
use tempfile::TempDir;

/// A place where a kernel stops until the test lets it go on: a named pipe, which one side opens for reading and the
/// other for writing. Both block until the other has come.
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

    /// What the kernel is told.
    pub fn path(&self) -> String {
        self.folder
            .path()
            .join("gate")
            .to_str()
            .expect("a plain path")
            .to_owned()
    }

    /// Waits until a kernel is at the gate. It goes on when the returned value is dropped.
    pub fn meet(&self) -> File {
        super::step(format!("for a kernel to come to {}", self.path()));
        let open = File::options().write(true).open(self.path());
        super::step("a kernel is at the gate");
        open.expect("the pipe exists")
    }

    /// Lets a kernel through, as soon as it comes.
    pub fn open(&self) {
        drop(self.meet());
    }

    /// Lets everybody through who comes, until that is enough.
    pub fn release_all(&self, is_enough: impl Fn() -> bool) {
        super::wait_until("all have come through the gate", || {
            // Open for both, which waits for nobody; closed at once, which is when those who have come go on.
            drop(File::options().read(true).write(true).open(self.path()));
            is_enough()
        });
    }
}

/// In a kernel: waits at the gate.
pub fn pass(gate: &str) {
    let mut pipe = File::open(Path::new(gate)).expect("the gate stands");
    let mut nothing = Vec::new();
    pipe.read_to_end(&mut nothing).expect("a pipe can be read");
}
