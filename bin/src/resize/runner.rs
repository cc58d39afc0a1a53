//! Runs jobs: a bounded number in flight, each result as soon as it is ready.

use std::ops::{ControlFlow, Deref};
use std::path::Path;

use super::fault::Fault;
use super::made::Made;
use super::plan::Task;

/// A job that has ended: its index, and its results or failure.
pub(crate) type Ended<B> = (usize, Result<Made<B>, Fault>);

/// Why a job was not started.
#[derive(Debug)]
pub(crate) enum Refused {
    /// No room now; there may be when a running job has finished.
    Full(Fault),
    /// This input cannot be processed.
    Failed(Fault),
}

/// What runs the jobs.
pub(crate) trait Pool {
    /// The bytes of one result.
    type Bytes: Deref<Target = [u8]>;

    /// The number of jobs that keeps it busy while results are written and files are read.
    fn depth(&self) -> usize;
    /// Reads the file and starts its job under this index.
    fn start(&mut self, index: usize, path: &Path, task: &Task) -> Result<(), Refused>;
    /// Waits for the job that ends first; `None` if none is in flight.
    fn finish(&mut self) -> Option<Ended<Self::Bytes>>;
}

/// Runs the jobs of `feed`, at most [`Pool::depth`] at a time, and passes each result to `done` as soon as it is ready:
/// a slow picture does not delay the others. Ends when `feed` ends or `may_begin` returns `false` and all jobs in
/// flight have ended; or at once when `done` breaks, which leaves the jobs in flight in the pool.
pub(crate) fn run<'a, P: Pool>(
    pool: &mut P,
    mut feed: impl Iterator<Item = (usize, &'a Path, &'a Task)>,
    may_begin: impl Fn() -> bool,
    mut done: impl FnMut(usize, Result<Made<P::Bytes>, Fault>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let depth = pool.depth().max(1);
    let mut in_flight = 0;
    let mut waiting = None;
    loop {
        while in_flight < depth && may_begin() {
            let Some((index, path, task)) = waiting.take().or_else(|| feed.next()) else {
                break;
            };
            match pool.start(index, path, task) {
                Ok(()) => in_flight += 1,
                Err(Refused::Full(_)) if in_flight > 0 => {
                    waiting = Some((index, path, task));
                    break;
                }
                Err(Refused::Full(fault) | Refused::Failed(fault)) => done(index, Err(fault))?,
            }
        }
        let Some((index, result)) = pool.finish() else {
            return ControlFlow::Continue(());
        };
        in_flight -= 1;
        done(index, result)?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::cell::Cell;
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    use arenite_image::Format;

    use super::*;
    use crate::resize::files::Stamp;
    use crate::resize::made::Encoded;

    /// Works in this process, on the latest job first; `room` is in bytes.
    struct InlinePool {
        room: usize,
        running: Vec<(usize, Vec<u8>)>,
        most: usize,
    }

    impl InlinePool {
        fn with_room(room: usize) -> InlinePool {
            InlinePool {
                room,
                running: Vec::new(),
                most: 0,
            }
        }
    }

    impl Pool for InlinePool {
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
                    results: vec![Encoded {
                        bytes,
                        sides: [1, 1],
                    }],
                    took: Duration::ZERO,
                    warning: None,
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
                several: None,
                source: Format::Jpeg,
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

    /// The outcomes, in the order in which they were reported.
    fn outcome(pool: &mut InlinePool, files: &[(PathBuf, Task)]) -> Vec<(usize, String)> {
        let mut outcome = Vec::new();
        let begin = || true;
        let flow = run(pool, feed(files), begin, |index, result| {
            outcome.push((
                index,
                match result {
                    Ok(mut made) => String::from_utf8(made.results.remove(0).bytes).unwrap(),
                    Err(fault) => fault.cause.into_owned(),
                },
            ));
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
        outcome
    }

    #[test]
    fn a_slow_first_job_does_not_delay_the_others() {
        let (_folder, files) = files(&["a", "bad", "missing", "b", "c", "d", "e"]);
        let mut pool = InlinePool::with_room(1000);
        let mut outcome = outcome(&mut pool, &files);
        assert_eq!(outcome.last().unwrap(), &(0, "a".to_owned()));
        outcome.sort();
        let expected = ["a", "returned", "not-found", "b", "c", "d", "e"];
        let expected = expected.iter().map(|text| text.to_string()).enumerate();
        assert_eq!(outcome, expected.collect::<Vec<_>>());
        assert_eq!(pool.most, 3, "bounded");
    }

    #[test]
    fn a_full_arena_fails_only_jobs_that_never_fit() {
        let (_folder, files) = files(&["aaaa", "bbbb", "a file that never fits", "cccc"]);
        let mut pool = InlinePool::with_room(5);
        let causes: Vec<_> = outcome(&mut pool, &files)
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(causes, ["aaaa", "bbbb", "arena-full", "cccc"]);
        assert_eq!(pool.most, 1);
    }

    #[test]
    fn a_break_ends_the_run_at_once() {
        let (_folder, files) = files(&["a", "b", "c", "d", "e", "f"]);
        let mut pool = InlinePool::with_room(1000);
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
    fn a_job_that_waits_for_room_does_not_start_after_a_stop() {
        let (_folder, files) = files(&["aaaa", "bbbb", "cccc"]);
        let mut pool = InlinePool::with_room(5);
        let (stopped, mut seen) = (Cell::new(false), Vec::new());
        let begin = || !stopped.get();
        let flow = run(&mut pool, feed(&files), begin, |index, _| {
            seen.push(index);
            // By now the second job has been refused and waits.
            stopped.set(true);
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
        assert_eq!(seen, [0]);
    }
}
