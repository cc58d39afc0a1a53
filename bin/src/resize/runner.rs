//! Work on its way: bounded, in order, with a place for what fails.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Deref};
use std::path::Path;
use std::time::Duration;

use super::fault::Fault;
use super::plan::Task;

/// A result: the encoded picture and the time it took.
#[derive(Debug)]
pub(crate) struct Made<B> {
    pub bytes: B,
    pub took: Duration,
}

/// Why a job was not taken in.
#[derive(Debug)]
pub(crate) enum Refused {
    /// No room now; there is some when a job that runs has finished.
    Full(Fault),
    /// This input cannot be done.
    Failed(Fault),
}

/// Whoever does the work.
pub(crate) trait Pool {
    /// A job on its way.
    type Ticket;
    /// The bytes of a result.
    type Bytes: Deref<Target = [u8]>;

    /// How many jobs keep it busy while results are written and files are read.
    fn depth(&self) -> usize;
    /// Reads the file and starts its job.
    fn start(&self, path: &Path, task: &Task) -> Result<Self::Ticket, Refused>;
    /// Waits for one job.
    fn finish(&self, ticket: Self::Ticket) -> Result<Made<Self::Bytes>, Fault>;
}

/// Runs what `feed` yields and hands each result to `done`, in the order of `feed`, at most [`Pool::depth`] on their
/// way. Ends when `feed` does, or at once when `done` breaks; what is then on its way is dropped.
pub(crate) fn run<'a, P: Pool>(
    pool: &P,
    mut feed: impl Iterator<Item = (usize, &'a Path, &'a Task)>,
    mut done: impl FnMut(usize, Result<Made<P::Bytes>, Fault>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let depth = pool.depth().max(1);
    let mut window: VecDeque<(usize, Result<P::Ticket, Fault>)> = VecDeque::with_capacity(depth);
    let mut waiting = None;
    loop {
        while window.len() < depth {
            let Some((index, path, task)) = waiting.take().or_else(|| feed.next()) else {
                break;
            };
            match pool.start(path, task) {
                Ok(ticket) => window.push_back((index, Ok(ticket))),
                Err(Refused::Full(_)) if window.iter().any(|(_, job)| job.is_ok()) => {
                    waiting = Some((index, path, task));
                    break;
                }
                Err(Refused::Full(fault) | Refused::Failed(fault)) => {
                    window.push_back((index, Err(fault)))
                }
            }
        }
        let Some((index, job)) = window.pop_front() else {
            return ControlFlow::Continue(());
        };
        done(index, job.and_then(|ticket| pool.finish(ticket)))?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::cell::Cell;
    use std::fs;
    use std::path::PathBuf;

    use arenite::image::Format;

    use super::*;
    use crate::resize::inputs::Stamp;

    /// Works in this process; the room is counted in bytes.
    struct Here {
        room: Cell<usize>,
        most: Cell<usize>,
        running: Cell<usize>,
    }

    impl Here {
        fn with_room(room: usize) -> Here {
            Here {
                room: Cell::new(room),
                most: Cell::new(0),
                running: Cell::new(0),
            }
        }
    }

    impl Pool for Here {
        type Ticket = Vec<u8>;
        type Bytes = Vec<u8>;

        fn depth(&self) -> usize {
            3
        }

        fn start(&self, path: &Path, _task: &Task) -> Result<Vec<u8>, Refused> {
            let bytes = fs::read(path).map_err(|error| Refused::Failed(Fault::read(&error)))?;
            if bytes.len() > self.room.get() {
                return Err(Refused::Full(Fault::new("arena-full", "no room")));
            }
            self.room.set(self.room.get() - bytes.len());
            self.running.set(self.running.get() + 1);
            self.most.set(self.most.get().max(self.running.get()));
            Ok(bytes)
        }

        fn finish(&self, bytes: Vec<u8>) -> Result<Made<Vec<u8>>, Fault> {
            self.room.set(self.room.get() + bytes.len());
            self.running.set(self.running.get() - 1);
            if bytes == b"bad" {
                return Err(Fault::new("returned", "bad"));
            }
            Ok(Made {
                bytes,
                took: Duration::ZERO,
            })
        }
    }

    fn files(contents: &[&str]) -> (tempfile::TempDir, Vec<(PathBuf, Task)>) {
        let folder = tempfile::tempdir().unwrap();
        let files = contents.iter().enumerate().map(|(index, content)| {
            let path = folder.path().join(format!("{index}"));
            if *content != "missing" {
                fs::write(&path, content).unwrap();
            }
            let task = Task {
                relative: path.clone(),
                output: path.clone(),
                format: Format::Jpeg,
                stamp: Stamp::default(),
                fresh: false,
            };
            (path, task)
        });
        let files = files.collect();
        (folder, files)
    }

    fn outcome(pool: &Here, files: &[(PathBuf, Task)]) -> Vec<(usize, String)> {
        let feed = files
            .iter()
            .enumerate()
            .map(|(index, (path, task))| (index, path.as_path(), task));
        let mut outcome = Vec::new();
        let flow = run(pool, feed, |index, result| {
            outcome.push((
                index,
                match result {
                    Ok(made) => String::from_utf8(made.bytes).unwrap(),
                    Err(fault) => fault.cause.into_owned(),
                },
            ));
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
        outcome
    }

    #[test]
    fn results_come_in_order_and_failures_in_their_place() {
        let (_folder, files) = files(&["a", "bad", "missing", "b", "c", "d", "e"]);
        let pool = Here::with_room(1000);
        let expected = ["a", "returned", "not-found", "b", "c", "d", "e"];
        let expected: Vec<_> = expected
            .iter()
            .map(|text| text.to_string())
            .enumerate()
            .collect();
        assert_eq!(outcome(&pool, &files), expected);
        assert_eq!(pool.most.get(), 3, "bounded");
    }

    #[test]
    fn a_full_arena_waits_for_what_runs_and_fails_only_what_never_fits() {
        let (_folder, files) = files(&["aaaa", "bbbb", "a file that never fits", "cccc"]);
        let pool = Here::with_room(5);
        let causes: Vec<_> = outcome(&pool, &files)
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(causes, ["aaaa", "bbbb", "arena-full", "cccc"]);
        assert_eq!(pool.most.get(), 1);
    }

    #[test]
    fn breaking_ends_it_at_once() {
        let (_folder, files) = files(&["a", "b", "c", "d", "e", "f"]);
        let feed = files
            .iter()
            .enumerate()
            .map(|(index, (path, task))| (index, path.as_path(), task));
        let mut seen = 0;
        let flow = run(&Here::with_room(1000), feed, |_, _| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert!(flow.is_break());
        assert_eq!(seen, 1);
    }
}
