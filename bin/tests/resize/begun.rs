//! Observes runs in progress.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read, pipe};
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::fcntl::{FcntlArg, fcntl};

use crate::world::{Run, World, jpeg, own_session, signal_group, wait};

/// Enough that work is left when the first result appears.
pub const PICTURES: usize = 300;

/// A world with [`PICTURES`] pictures in the folder `p`.
pub fn many_pictures() -> World {
    let world = World::new();
    world.file("p/000.jpg", &jpeg(640, 480));
    for index in 1..PICTURES {
        // Long names: their list does not fit into a small pipe.
        let name = format!("p/{index:03}-{}.jpg", "of-many-pictures".repeat(3));
        fs::hard_link(world.path("p/000.jpg"), world.path(&name)).unwrap();
    }
    world
}

/// Starts a command as the leader of a new session.
pub fn start(command: Command) -> Child {
    start_to(command, Stdio::piped())
}

fn start_to(mut command: Command, stdout: Stdio) -> Child {
    own_session(&mut command)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A run in progress and its output so far. Dropping it kills the run and its workers.
pub struct Begun {
    /// `None` once it is waited for.
    child: Option<Child>,
    stdout: BufReader<PipeReader>,
    text: String,
}

impl Begun {
    /// The process number, which is also that of its group.
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn stderr(&mut self) -> ChildStderr {
        self.child.as_mut().unwrap().stderr.take().unwrap()
    }

    /// Waits for the end of the run.
    pub fn ended(mut self) -> Run {
        self.stdout.read_to_string(&mut self.text).unwrap();
        let mut run = wait(self.child.take().unwrap());
        run.stdout = std::mem::take(&mut self.text);
        run
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal_group(child.id(), libc::SIGKILL);
            let _ = child.wait();
        }
    }
}

/// Starts a run and waits for its first result. With [`many_pictures`] it cannot end before its output is read.
pub fn begun(command: Command) -> Begun {
    // Before the run writes: a pipe that holds more cannot shrink.
    let (stdout, writer) = pipe().unwrap();
    fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let child = start_to(command, writer.into());
    let mut begun = Begun {
        stdout: BufReader::with_capacity(512, stdout),
        child: Some(child),
        text: String::new(),
    };
    begun.stdout.read_line(&mut begun.text).unwrap();
    assert!(!begun.text.is_empty());
    begun
}
