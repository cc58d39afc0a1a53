//! A worker's output, with the worker played by hand: the pipes are real.

use std::cell::Cell;

use super::*;
use crate::sys::pipe::{OutputPipe, write_all};
use crate::worker::frame::{BOUNDARY, MAGIC, frame};
use proptest::prelude::*;

/// A worker that writes what the test says, and what the supervisor makes of it.
struct Bench {
    output: Output,
    pipes: [OwnedFd; 2],
    phase: Cell<Phase>,
    lines: Vec<LogLine>,
    buffer: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let [stdout, stderr] = [(); 2].map(|()| OutputPipe::new().unwrap());
        Self {
            output: Output::new("test".into(), 0, [stdout.read, stderr.read], Instant::now()),
            pipes: [stdout.write, stderr.write],
            phase: Cell::new(Phase::Idle),
            lines: Vec::new(),
            buffer: vec![0; CHUNK],
        }
    }

    fn write(&self, which: Which, bytes: &[u8]) {
        write_all(self.pipes[which as usize].as_fd(), bytes).unwrap();
    }

    fn boundary(&self, job: u64) {
        for which in [Which::Stdout, Which::Stderr] {
            self.write(which, &frame(BOUNDARY, &job.to_le_bytes()));
        }
    }

    fn look(&mut self, which: Which) -> Next {
        let phase = &self.phase;
        self.output.read(
            which,
            100,
            || phase.get(),
            &mut self.buffer,
            &mut self.lines,
        )
    }

    /// What has come since the last call.
    fn said(&mut self) -> Vec<(Option<u64>, String)> {
        let lines = self.lines.drain(..);
        lines.map(|line| (line.job, line.text)).collect()
    }

    fn finish(mut self) -> (Vec<(Option<u64>, String)>, LastWords) {
        let mut lines = Vec::new();
        let phase = self.phase.get();
        let words = self.output.finish(100, phase, &mut self.buffer, &mut lines);
        self.lines = lines;
        let lines = self.lines.drain(..);
        (lines.map(|line| (line.job, line.text)).collect(), words)
    }
}

fn said(lines: &[(Option<u64>, &str)]) -> Vec<(Option<u64>, String)> {
    let owned = lines.iter().map(|&(job, text)| (job, text.to_owned()));
    owned.collect()
}

#[test]
fn lines_belong_to_the_job_whose_boundary_follows() {
    let mut bench = Bench::new();
    // All of it is read at once, long after the jobs.
    bench.write(Which::Stdout, b"one\ntwo\n");
    bench.boundary(7);
    bench.write(Which::Stdout, b"three\nhal");
    bench.boundary(8);
    bench.write(Which::Stdout, b"f\n");
    bench.boundary(0);
    bench.write(Which::Stdout, b"running\nmore");
    bench.phase.set(Phase::Running(9));
    assert_eq!(bench.look(Which::Stdout), Next::Wait);
    let expected = [
        (Some(7), "one"),
        (Some(7), "two"),
        (Some(8), "three"),
        (Some(8), "hal"),
        (None, "f"),
        (Some(9), "running"),
    ];
    assert_eq!(bench.said(), said(&expected));
    bench.write(Which::Stdout, b" of it");
    let (rest, words) = bench.finish();
    assert_eq!(rest, said(&[(Some(9), "more of it")]));
    assert_eq!(words.of(9), ["running", "more of it"]);
    assert!(words.of(8).is_empty());
}

#[test]
fn a_job_that_ends_while_its_lines_are_read_is_waited_for() {
    let mut bench = Bench::new();
    bench.write(Which::Stderr, b"whose?\n");
    // Another job at each look: none of them need have printed it.
    let job = Cell::new(10);
    let changing = || {
        job.set(job.get() + 1);
        Phase::Running(job.get())
    };
    let next = bench.output.read(
        Which::Stderr,
        100,
        changing,
        &mut bench.buffer,
        &mut bench.lines,
    );
    assert_eq!(next, Next::Soon);
    assert_eq!(bench.said(), []);
    bench.boundary(11);
    bench.phase.set(Phase::Running(40));
    assert_eq!(bench.look(Which::Stderr), Next::Wait);
    assert_eq!(bench.said(), said(&[(Some(11), "whose?")]));
}

#[test]
fn a_job_that_cannot_be_is_none() {
    let mut bench = Bench::new();
    for job in [101, u64::MAX] {
        bench.write(Which::Stdout, b"x\n");
        bench.boundary(job);
    }
    bench.write(Which::Stdout, b"y\n");
    bench.write(Which::Stdout, &frame(BOUNDARY, b"short"));
    bench.write(Which::Stdout, &frame(200, b"of no kind"));
    assert_eq!(bench.look(Which::Stdout), Next::Wait);
    assert_eq!(bench.said(), said(&[(None, "x"), (None, "x"), (None, "y")]));
}

#[test]
fn what_is_said_while_idle_are_no_last_words() {
    let mut bench = Bench::new();
    bench.write(Which::Stderr, b"a thread of an old job\n");
    assert_eq!(bench.look(Which::Stderr), Next::Wait);
    bench.phase.set(Phase::Running(3));
    let (_, words) = bench.finish();
    assert!(words.all().is_empty());

    let bench = Bench::new();
    bench.phase.set(Phase::Starting(9));
    bench.write(Which::Stderr, b"cannot load it\n");
    let (lines, words) = bench.finish();
    assert_eq!(lines, said(&[(None, "cannot load it")]));
    assert_eq!(words.all(), ["cannot load it"]);
}

#[test]
fn a_flood_is_cut_counted_and_bounded() {
    let mut bench = Bench::new();
    bench.phase.set(Phase::Running(5));
    let flood = "0123456789abcde\n".repeat(2000);
    let (mut bytes, mut lines, mut most) = (0, 0, 0);
    for _ in 0..400 {
        bench.write(Which::Stdout, flood.as_bytes());
        bytes += flood.len();
        // Never empty at the same job twice: nothing is settled but by the bound.
        let job = Cell::new(0);
        let changing = || {
            job.set(job.get() + 1);
            Phase::Running(5 + job.get() % 2)
        };
        let buffer = &mut bench.buffer;
        let _: Next = bench
            .output
            .read(Which::Stdout, 100, changing, buffer, &mut bench.lines);
        most = most.max(bench.output.streams[0].bytes);
        lines += bench.lines.len();
        bench.lines.clear();
    }
    assert!(most <= WAITING + 2 * split::LONGEST, "{most} bytes wait");
    assert!(bytes > 12 << 20 && lines < 30_000, "{lines} lines passed");
    let (rest, words) = bench.finish();
    let notice = &rest.last().unwrap().1;
    assert!(
        notice.contains("lines (") && notice.contains("dropped"),
        "{notice}"
    );
    // Even so the last lines of a job that dies are known.
    assert_eq!(words.of(5).len(), TAIL);
}

#[test]
fn who_keeps_the_pipe_of_a_dead_worker_holds_nothing_up() {
    let bench = Bench::new();
    let pipe = pipe::copy(bench.pipes[0].as_fd()).unwrap();
    bench.phase.set(Phase::Running(1));
    bench.write(Which::Stdout, b"the worker\n");
    let writer = std::thread::spawn(move || {
        // Until the supervisor closes its end.
        nix::sys::signal::SigSet::from(nix::sys::signal::Signal::SIGPIPE)
            .thread_block()
            .unwrap();
        while write_all(pipe.as_fd(), &[b'\n'; 5000]).is_ok() {}
    });
    let (lines, _) = bench.finish();
    assert_eq!(lines[0], (Some(1), "the worker".to_owned()));
    writer.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Whatever a worker writes into its pipes: the lines are plain and bounded, and jobs that there cannot
    /// be are not named.
    #[test]
    fn any_bytes_are_some_lines(
        parts in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            prop::collection::vec(prop_oneof![Just(b'\n'), Just(0x1b), Just(0x1e), Just(0xf5)], 0..20),
            (any::<u8>(), any::<u16>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(kind, len, content)| {
                [&MAGIC[..], &[kind % 4], &len.to_le_bytes(), &content].concat()
            }),
            (any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(kind, content)| frame(kind % 4, &content)),
            any::<u64>().prop_map(|job| frame(BOUNDARY, &(job % 200).to_le_bytes())),
        ], 0..12),
        word: u64,
    ) {
        let mut bench = Bench::new();
        let jobs = [Phase::Idle, Phase::Running(word), Phase::Running(word % 200)];
        bench.phase.set(jobs[word as usize % 3]);
        for (at, part) in parts.iter().enumerate() {
            bench.write([Which::Stdout, Which::Stderr][at % 2], part);
            let _: Next = bench.look([Which::Stderr, Which::Stdout][at % 2]);
        }
        let mut all = bench.said();
        let (rest, words) = bench.finish();
        all.extend(rest);
        for (job, text) in &all {
            prop_assert!(job.is_none_or(|job| (1..=100).contains(&job)));
            prop_assert!(!text.contains(|each: char| each.is_control() && each != '\t'));
            prop_assert!(text.len() < split::LONGEST + 100);
        }
        prop_assert!(words.all().iter().map(String::len).sum::<usize>() <= 2048);
    }
}
