//! The output of one worker, which the test simulates. The pipes are real.

use std::cell::Cell;

use super::*;
use crate::link::steps;
use crate::sys::pipe::{OutputPipe, write_all};
use crate::worker::frame::{BOUNDARY, MAGIC, frame};
use proptest::prelude::*;

/// A simulated worker, and the supervisor's view of its output.
struct Bench {
    output: WorkerOutput,
    pipes: [OwnedFd; 2],
    phase: Cell<Phase>,
    lines: Vec<LogLine>,
    buffer: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let [stdout, stderr] = [(); 2].map(|()| OutputPipe::new().unwrap());
        Self {
            output: WorkerOutput::new(
                "test".into(),
                0,
                [stdout.read, stderr.read],
                false,
                Instant::now(),
            ),
            pipes: [stdout.write, stderr.write],
            phase: Cell::new(Phase::Idle),
            lines: Vec::new(),
            buffer: vec![0; CHUNK],
        }
    }

    fn write(&self, which: StreamKind, bytes: &[u8]) {
        write_all(self.pipes[which as usize].as_fd(), bytes).unwrap();
    }

    fn boundary(&self, job: u64) {
        end(&self.pipes, job);
    }

    fn look(&mut self, which: StreamKind) -> ReadResult {
        let phase = self.phase.clone();
        self.look_while(which, |_, _| phase.get())
    }

    /// Reads once. `lane` returns the phase whenever it is called, with the number of the call from 0, and may write to
    /// the pipes.
    fn look_while(
        &mut self,
        which: StreamKind,
        lane: impl Fn(&[OwnedFd; 2], u64) -> Phase,
    ) -> ReadResult {
        let asked = Cell::new(0);
        let phase = || lane(&self.pipes, asked.replace(asked.get() + 1));
        let (buffer, lines) = (&mut self.buffer, &mut self.lines);
        self.output.read(which, phase, || 100, buffer, lines)
    }

    /// The lines that were attributed since the last call.
    fn attributed(&mut self) -> Vec<(Option<u64>, String)> {
        let lines = self.lines.drain(..);
        lines.map(|line| (line.job, line.text)).collect()
    }

    fn finish(mut self) -> (Vec<(Option<u64>, String)>, LastWords) {
        let mut lines = Vec::new();
        let phase = self.phase.get();
        let words = self.output.finish(phase, 100, &mut self.buffer, &mut lines);
        self.lines = lines;
        let lines = self.lines.drain(..);
        (lines.map(|line| (line.job, line.text)).collect(), words)
    }
}

/// Writes the boundary that ends a job.
fn end(pipes: &[OwnedFd; 2], job: u64) {
    for pipe in pipes {
        write_all(pipe.as_fd(), &frame(BOUNDARY, &job.to_le_bytes())).unwrap();
    }
}

fn jobs_and_texts(lines: &[(Option<u64>, &str)]) -> Vec<(Option<u64>, String)> {
    let owned = lines.iter().map(|&(job, text)| (job, text.to_owned()));
    owned.collect()
}

#[test]
fn lines_belong_to_the_job_whose_boundary_follows() {
    let mut bench = Bench::new();
    // All is read at once, long after the jobs have ended.
    bench.write(StreamKind::Stdout, b"one\ntwo\n");
    bench.boundary(7);
    bench.write(StreamKind::Stdout, b"three\nhal");
    bench.boundary(8);
    bench.write(StreamKind::Stdout, b"f\n");
    bench.boundary(0);
    bench.write(StreamKind::Stdout, b"running\nmore");
    bench.phase.set(Phase::Running(9));
    assert_eq!(bench.look(StreamKind::Stdout), ReadResult::Wait);
    let expected = [
        (Some(7), "one"),
        (Some(7), "two"),
        (Some(8), "three"),
        (Some(8), "hal"),
        (None, "f"),
        (Some(9), "running"),
    ];
    assert_eq!(bench.attributed(), jobs_and_texts(&expected));
    bench.write(StreamKind::Stdout, b" of it");
    let (rest, words) = bench.finish();
    assert_eq!(rest, jobs_and_texts(&[(Some(9), "more of it")]));
    assert_eq!(words.of(9), ["running", "more of it"]);
    assert!(words.of(8).is_empty());
}

#[test]
fn a_boundary_that_arrives_while_reading_counts() {
    let mut bench = Bench::new();
    bench.write(StreamKind::Stderr, b"whose?\n");
    let next = bench.look_while(StreamKind::Stderr, |pipes, asked| {
        if asked == 1 {
            end(pipes, 11);
        }
        Phase::Running(11 + asked)
    });
    assert_eq!(next, ReadResult::Wait);
    assert_eq!(bench.attributed(), jobs_and_texts(&[(Some(11), "whose?")]));
}

/// A thread may print after the answer is known and before the lane's phase changes.
#[test]
fn lines_printed_while_a_job_is_answered_have_no_job() {
    let mut bench = Bench::new();
    bench.write(StreamKind::Stdout, b"of the job\n");
    bench.boundary(13);
    bench.phase.set(Phase::Publishing(13));
    bench.write(StreamKind::Stdout, b"of a thread\n");
    assert_eq!(bench.look(StreamKind::Stdout), ReadResult::Wait);
    let expected = [(Some(13), "of the job"), (None, "of a thread")];
    assert_eq!(bench.attributed(), jobs_and_texts(&expected));
}

#[test]
fn a_job_between_two_looks_gets_its_lines() {
    let mut bench = Bench::new();
    let next = bench.look_while(StreamKind::Stdout, |pipes, asked| {
        match asked {
            0 => write_all(pipes[0].as_fd(), b"quick\n").unwrap(),
            1 => end(pipes, 12),
            _ => {}
        }
        Phase::Idle
    });
    assert_eq!(next, ReadResult::Wait);
    assert_eq!(bench.attributed(), jobs_and_texts(&[(Some(12), "quick")]));
}

#[test]
fn a_job_submitted_while_reading_counts() {
    let mut bench = Bench::new();
    let submitted = Cell::new(1);
    for job in [1, 2] {
        bench.write(StreamKind::Stdout, b"x\n");
        bench.boundary(job);
    }
    let phase = || {
        // Job 2 is submitted after the read has begun.
        submitted.set(2);
        Phase::Idle
    };
    let (buffer, lines) = (&mut bench.buffer, &mut bench.lines);
    let output = &mut bench.output;
    let next = output.read(StreamKind::Stdout, phase, || submitted.get(), buffer, lines);
    assert_eq!(next, ReadResult::Wait);
    assert_eq!(
        bench.attributed(),
        jobs_and_texts(&[(Some(1), "x"), (Some(2), "x")])
    );
}

#[test]
fn a_job_that_keeps_printing_is_read_again_soon() {
    let mut bench = Bench::new();
    let next = bench.look_while(StreamKind::Stdout, |pipes, _| {
        write_all(pipes[0].as_fd(), b"and on\n").unwrap();
        Phase::Running(5)
    });
    assert_eq!(next, ReadResult::Soon);
    assert_eq!(bench.attributed(), []);
    bench.phase.set(Phase::Running(5));
    assert_eq!(bench.look(StreamKind::Stdout), ReadResult::Wait);
    assert_eq!(
        bench.attributed(),
        jobs_and_texts(&[(Some(5), "and on"); READS])
    );
}

#[test]
fn an_impossible_job_number_is_ignored() {
    let mut bench = Bench::new();
    for job in [101, u64::MAX] {
        bench.write(StreamKind::Stdout, b"x\n");
        bench.boundary(job);
    }
    bench.write(StreamKind::Stdout, b"y\n");
    bench.write(StreamKind::Stdout, &frame(BOUNDARY, b"short"));
    bench.write(StreamKind::Stdout, &frame(200, b"of no kind"));
    assert_eq!(bench.look(StreamKind::Stdout), ReadResult::Wait);
    assert_eq!(
        bench.attributed(),
        jobs_and_texts(&[(None, "x"), (None, "x"), (None, "y")])
    );
}

#[test]
fn idle_output_is_not_last_words() {
    let mut bench = Bench::new();
    bench.write(StreamKind::Stderr, b"a thread of an old job\n");
    assert_eq!(bench.look(StreamKind::Stderr), ReadResult::Wait);
    bench.phase.set(Phase::Running(3));
    let (_, words) = bench.finish();
    assert!(words.all().is_empty());

    let bench = Bench::new();
    bench.phase.set(Phase::Starting(steps::ON_START));
    bench.write(StreamKind::Stderr, b"cannot load it\n");
    let (lines, words) = bench.finish();
    assert_eq!(lines, jobs_and_texts(&[(None, "cannot load it")]));
    assert_eq!(words.all(), ["cannot load it"]);
}

#[test]
fn a_traceback_of_python_is_among_the_last_words_from_its_beginning() {
    const SEGFAULT: &str = include_str!("tracebacks/segfault.txt");
    let mut bench = Bench::new();
    bench.phase.set(Phase::Running(3));
    // Lines that an earlier job printed are dropped, including a traceback.
    bench.write(StreamKind::Stderr, SEGFAULT.as_bytes());
    bench.write(StreamKind::Stdout, b"old\n");
    bench.boundary(2);
    bench.write(StreamKind::Stdout, b"new\n");
    let line = |n: usize| format!("before {n}\n");
    bench.write(
        StreamKind::Stderr,
        (0..30).map(line).collect::<String>().as_bytes(),
    );
    bench.write(StreamKind::Stderr, SEGFAULT.as_bytes());
    bench.write(StreamKind::Stderr, b"after\n");
    let _: ReadResult = bench.look(StreamKind::Stdout);
    let (lines, words) = bench.finish();
    // All lines are logged.
    assert_eq!(
        lines
            .iter()
            .filter(|(_, text)| text.contains("in predict"))
            .count(),
        42
    );
    let of = words.of(3);
    let fatal = of
        .iter()
        .position(|line| line.starts_with("Fatal Python error"));
    assert_eq!(fatal, Some(15), "{of:#?}");
    assert_eq!(of[14], "segment 17 is read");
    assert!(of[16].starts_with("Current thread 0x"), "{of:#?}");
    assert!(
        of[17].ends_with("in string_at") && of[32].ends_with("in predict"),
        "{of:#?}"
    );
    assert_eq!(of[33..], ["  … (7 more frames)", "after"]);
    assert_eq!(words.all(), of);
}

#[test]
fn a_stack_of_rust_is_among_the_last_words_with_its_message() {
    const PANIC: &str = include_str!("tracebacks/panic.txt");
    let mut bench = Bench::new();
    bench.phase.set(Phase::Running(3));
    bench.write(StreamKind::Stderr, PANIC.as_bytes());
    bench.write(StreamKind::Stderr, "after\n".repeat(20).as_bytes());
    let _: ReadResult = bench.look(StreamKind::Stderr);
    let (_, words) = bench.finish();
    let of = words.of(3);
    let at = of
        .iter()
        .position(|line| line.contains("panicked at panicking.rs"));
    assert_eq!(at, Some(0), "{of:#?}");
    assert_eq!(
        of[1],
        "index out of bounds: the len is 3 but the index is 7"
    );
    assert!(of.iter().any(|line| line.contains("panicking::row")));
    assert!(of[..of.len() - 16].last().unwrap().contains("more frames"));
    assert!(of[of.len() - 16..].iter().all(|line| line == "after"));
}

#[test]
fn a_flood_is_dropped_counted_and_bounded() {
    let mut bench = Bench::new();
    bench.phase.set(Phase::Running(5));
    let flood = "0123456789abcde\n".repeat(2000);
    let (mut bytes, mut lines, mut most) = (0, 0, 0);
    let began = Instant::now();
    for _ in 0..400 {
        bench.write(StreamKind::Stdout, flood.as_bytes());
        bytes += flood.len();
        // There is always more to read: lines are attributed only because of the limit.
        let _: ReadResult = bench.look_while(StreamKind::Stdout, |pipes, _| {
            write_all(pipes[0].as_fd(), b"x\n").unwrap();
            Phase::Running(5)
        });
        most = most.max(bench.output.streams[0].bytes);
        lines += bench.lines.len();
        bench.lines.clear();
    }
    assert!(most <= WAITING + 2 * split::LONGEST, "{most} bytes wait");
    // A mebibyte per second, and another at the beginning; a line costs 64 bytes in addition to its length.
    let allowed = (1 << 20) + (began.elapsed().as_secs_f64() * f64::from(1 << 20)) as usize;
    let passed = lines * (16 + 64);
    assert!(passed < allowed + allowed / 8, "{lines} lines passed");
    assert!(bytes > 12 << 20);
    let (rest, words) = bench.finish();
    let notice = &rest.last().unwrap().1;
    assert!(
        notice.contains("lines (") && notice.contains("dropped"),
        "{notice}"
    );
    // The last lines of a job that dies are retained nevertheless.
    assert_eq!(words.of(5).len(), TAIL);
}

#[test]
fn targets_of_waiting_events_are_bounded() {
    let mut bench = Bench::new();
    bench.phase.set(Phase::Running(5));
    // Each byte takes four bytes when escaped.
    let mut content = 5u64.to_le_bytes().to_vec();
    content.extend([3, 255]);
    content.extend([0xff; 255]);
    let event = frame(frame::EVENT, &content);
    let lines = 200;
    let batch = event.repeat(lines);
    let mut most = 0;
    for _ in 0..10 {
        bench.write(StreamKind::Stderr, &batch);
        // There is always more to read: lines are attributed only because of the limit.
        let _: ReadResult = bench.look_while(StreamKind::Stderr, |pipes, _| {
            write_all(pipes[1].as_fd(), b"x\n").unwrap();
            Phase::Running(5)
        });
        let waiting = bench.output.streams[1].waiting.iter();
        let bytes: usize = waiting
            .map(|line| line.target.as_ref().map_or(0, String::len))
            .sum();
        most = most.max(bytes);
    }
    assert!(most <= WAITING, "{most} bytes wait");
    assert!(bench.attributed().len() > lines, "they came through");
}

#[test]
fn a_held_pipe_of_a_dead_worker_blocks_nothing() {
    let bench = Bench::new();
    let pipe = pipe::duplicate(bench.pipes[0].as_fd()).unwrap();
    bench.phase.set(Phase::Running(1));
    bench.write(StreamKind::Stdout, b"the worker\n");
    let writer = std::thread::spawn(move || {
        // The thread writes until the supervisor closes its end of the pipe.
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
    #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]

    /// For any bytes in the pipes, the lines are escaped and bounded, and name no job that was not submitted.
    #[test]
    fn any_bytes_give_bounded_lines(
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
            bench.write([StreamKind::Stdout, StreamKind::Stderr][at % 2], part);
            let _: ReadResult = bench.look([StreamKind::Stderr, StreamKind::Stdout][at % 2]);
        }
        let mut all = bench.attributed();
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
