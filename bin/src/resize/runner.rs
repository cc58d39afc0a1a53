//! Work on its way: bounded, each result as soon as it is there, with a place for what fails.

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

/// A job that has ended: its number, and what became of it.
pub(crate) type Ended<B> = (usize, Result<Made<B>, Fault>);

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
    /// The bytes of a result.
    type Bytes: Deref<Target = [u8]>;

    /// How many jobs keep it busy while results are written and files are read.
    fn depth(&self) -> usize;
    /// Reads the file and starts its job, which has this number.
    fn start(&mut self, index: usize, path: &Path, task: &Task) -> Result<(), Refused>;
    /// Waits for the job that ends first; `None` where none is on its way.
    fn finish(&mut self) -> Option<Ended<Self::Bytes>>;
}

/// Runs what `feed` yields and hands each result to `done` when it is there, at most [`Pool::depth`] on their way: a picture
/// that takes long holds up none of the others. Ends when `feed` does or nothing more `may_begin`, or at once when `done`
/// breaks; what is then on its way stays in the pool.
pub(crate) fn run<'a, P: Pool>(
    pool: &mut P,
    mut feed: impl Iterator<Item = (usize, &'a Path, &'a Task)>,
    may_begin: impl Fn() -> bool,
    mut done: impl FnMut(usize, Result<Made<P::Bytes>, Fault>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let depth = pool.depth().max(1);
    let mut under_way = 0;
    let mut waiting = None;
    loop {
        while under_way < depth && may_begin() {
            let Some((index, path, task)) = waiting.take().or_else(|| feed.next()) else {
                break;
            };
            match pool.start(index, path, task) {
                Ok(()) => under_way += 1,
                Err(Refused::Full(_)) if under_way > 0 => {
                    waiting = Some((index, path, task));
                    break;
                }
                Err(Refused::Full(fault) | Refused::Failed(fault)) => done(index, Err(fault))?,
            }
        }
        let Some((index, result)) = pool.finish() else {
            return ControlFlow::Continue(());
        };
        under_way -= 1;
        done(index, result)?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::cell::Cell;
    use std::fs;
    use std::path::PathBuf;

    use arenite_image::Format;

    use super::*;
    use crate::resize::files::Stamp;

    /// Works in this process, on the latest first; the room is counted in bytes.
    struct Here {
        room: usize,
        running: Vec<(usize, Vec<u8>)>,
        most: usize,
    }

    impl Here {
        fn with_room(room: usize) -> Here {
            Here {
                room,
                running: Vec::new(),
                most: 0,
            }
        }
    }

    impl Pool for Here {
        type Bytes = Vec<u8>;

        fn depth(&self) -> usize {
            3
        }

        fn start(&mut self, index: usize, path: &Path, _task: &Task) -> Result<(), Refused> {
            let failed = |error| Refused::Failed(Fault::read(path, &error));
            let bytes = fs::read(path).map_err(failed)?;
            if bytes.len() > self.room {
                return Err(Refused::Full(Fault::new("arena-full", "no room")));
            }
            self.room -= bytes.len();
            self.running.push((index, bytes));
            self.most = self.most.max(self.running.len());
            Ok(())
        }

        fn finish(&mut self) -> Option<Ended<Vec<u8>>> {
            let (index, bytes) = self.running.pop()?;
            self.room += bytes.len();
            let made = match &bytes[..] {
                b"bad" => Err(Fault::new("returned", "bad")),
                _ => Ok(Made {
                    bytes,
                    took: Duration::ZERO,
                }),
            };
            Some((index, made))
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
                fresh: None,
            };
            (path, task)
        });
        let files = files.collect();
        (folder, files)
    }

    fn feed(files: &[(PathBuf, Task)]) -> impl Iterator<Item = (usize, &Path, &Task)> {
        let numbered = files.iter().enumerate();
        numbered.map(|(index, (path, task))| (index, path.as_path(), task))
    }

    /// What became of each, in the order in which it was known.
    fn outcome(pool: &mut Here, files: &[(PathBuf, Task)]) -> Vec<(usize, String)> {
        let mut outcome = Vec::new();
        let begin = || true;
        let flow = run(pool, feed(files), begin, |index, result| {
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
    fn each_has_its_result_and_the_first_waits_for_all_others_without_holding_them_up() {
        let (_folder, files) = files(&["a", "bad", "missing", "b", "c", "d", "e"]);
        let mut pool = Here::with_room(1000);
        let mut outcome = outcome(&mut pool, &files);
        assert_eq!(outcome.last().unwrap(), &(0, "a".to_owned()));
        outcome.sort();
        let expected = ["a", "returned", "not-found", "b", "c", "d", "e"];
        let expected = expected.iter().map(|text| text.to_string()).enumerate();
        assert_eq!(outcome, expected.collect::<Vec<_>>());
        assert_eq!(pool.most, 3, "bounded");
    }

    #[test]
    fn a_full_arena_waits_for_what_runs_and_fails_only_what_never_fits() {
        let (_folder, files) = files(&["aaaa", "bbbb", "a file that never fits", "cccc"]);
        let mut pool = Here::with_room(5);
        let causes: Vec<_> = outcome(&mut pool, &files)
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(causes, ["aaaa", "bbbb", "arena-full", "cccc"]);
        assert_eq!(pool.most, 1);
    }

    #[test]
    fn breaking_ends_it_at_once() {
        let (_folder, files) = files(&["a", "b", "c", "d", "e", "f"]);
        let mut pool = Here::with_room(1000);
        let mut seen = 0;
        let begin = || true;
        let flow = run(&mut pool, feed(&files), begin, |_, _| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert!(flow.is_break());
        assert_eq!((seen, pool.running.len()), (1, 2));
    }

    #[test]
    fn what_waits_for_room_when_nothing_more_may_begin_is_not_begun() {
        let (_folder, files) = files(&["aaaa", "bbbb", "cccc"]);
        let mut pool = Here::with_room(5);
        let (stopped, mut seen) = (Cell::new(false), Vec::new());
        let begin = || !stopped.get();
        let flow = run(&mut pool, feed(&files), begin, |index, _| {
            seen.push(index);
            // By now the second one has been refused, and waits.
            stopped.set(true);
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
        assert_eq!(seen, [0]);
    }
}
