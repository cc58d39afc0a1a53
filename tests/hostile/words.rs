//! A worker that corrupts its own half of its link: it is killed with `Protocol` for impossible values, or spoils only
//! its own jobs; the others' jobs continue, and so does the engine.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arenite::{Array, Backing, JobError, JobErrorKind, WorkerExit};

use crate::harness::{Dice, Lab, case, seeds, state_of, tests, wait_until};
use crate::maps::{self, layout};

tests![
    impossible_answers,
    words_that_change_between_two_reads,
    endless_allocation_requests,
];

fn lab() -> Lab {
    Lab::with(2, |builder| builder.backing(Backing::Memfd))
}

/// The first word of the half that this worker writes.
fn own_half() -> usize {
    static PLACE: OnceLock<usize> = OnceLock::new();
    *PLACE.get_or_init(|| {
        let pieces = maps::pieces("control");
        let own = pieces.iter().find(|piece| piece.writable);
        let addresses = &own.expect("one half of one link is writable").addresses;
        assert_eq!(
            addresses.len() as u64,
            layout::REPLY,
            "the layout has changed"
        );
        addresses.start
    })
}

fn word(at: u64) -> &'static AtomicU32 {
    // SAFETY: a word of the half of the link that this worker writes, which stays mapped; every process uses it as an
    // atomic.
    unsafe {
        AtomicU32::from_ptr(std::ptr::with_exposed_provenance_mut(
            own_half() + at as usize,
        ))
    }
}

fn long_word(at: u64) -> &'static AtomicU64 {
    // SAFETY: as above.
    unsafe {
        AtomicU64::from_ptr(std::ptr::with_exposed_provenance_mut(
            own_half() + at as usize,
        ))
    }
}

/// The slots whose words say that their job runs: this very job's, and those left by a worker that lied before.
fn running() -> Vec<(u64, &'static AtomicU32)> {
    let slots = (0..layout::SLOTS).map(|slot| (slot, word(layout::STATES + slot * layout::STATE)));
    let running: Vec<_> = slots
        .filter(|(_, word)| word.load(Ordering::Relaxed) & 7 == 2)
        .collect();
    assert!(!running.is_empty(), "this very job runs");
    running
}

fn forever() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Boundary values, neighbours of a true value, and random ones.
fn about(dice: &mut Dice, truth: u64) -> u64 {
    match dice.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => truth.wrapping_add(1),
        3 => truth.wrapping_sub(1),
        4 => u64::from(u32::MAX),
        5 => 1 << dice.below(64),
        6 => dice.below(70_000),
        _ => dice.any(),
    }
}

fn triple(n: u32) -> u64 {
    u64::from(n) * 3
}

fn triples(lab: &Lab) -> Vec<(u32, arenite::Job<u64>)> {
    (0..20).map(|n| (n, lab.submit(triple, (n,)))).collect()
}

/// In a kernel: tells the test which process this is.
fn sign(file: &str) -> File {
    let file = File::options().write(true).open(file).unwrap();
    file.write_all_at(&std::process::id().to_ne_bytes(), 8)
        .unwrap();
    file
}

fn some(n: u32) -> Array<u32> {
    Array::from_slice(&[n; 100])
}

/// Two workers, one of which runs a malicious job and [signs](sign).
struct Pair {
    lab: Lab,
    pids: [i32; 2],
    file: tempfile::NamedTempFile,
}

impl Pair {
    fn new() -> Self {
        Self::of(lab())
    }

    fn of(lab: Lab) -> Self {
        Self {
            pids: [0, 1].map(|worker| lab.pid(worker)),
            lab,
            file: tempfile::NamedTempFile::new().unwrap(),
        }
    }

    fn path(&self) -> &str {
        self.file.path().to_str().unwrap()
    }

    /// What the hostile worker has written there.
    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        let _short = self.file.as_file().read_at(&mut bytes, at);
        u64::from_ne_bytes(bytes)
    }

    /// Which of the two it is, once it has signed.
    fn worker(&self) -> usize {
        let signed = self.word(8) as i32;
        let worker = self.pids.iter().position(|&pid| pid == signed);
        worker.expect("the hostile job runs in one of the two")
    }

    fn is_gone(&self) -> bool {
        state_of(self.pids[self.worker()]).is_none_or(|state| state == 'Z')
    }

    /// Honest jobs, whose values show from whose memory they are.
    fn jobs(&self) -> Vec<(u32, arenite::Job<Array<u32>>)> {
        (0..50).map(|n| (n, self.lab.submit(some, (n,)))).collect()
    }

    /// The permitted outcomes of an honest job next to the hostile one: its value, whatever the hostile worker made of
    /// it, or that worker's error.
    fn judge(&self, n: u32, answer: Result<Array<u32>, JobError>) -> Result<(), JobError> {
        let liar = self.worker();
        match answer {
            Ok(value) if value[..] == [n; 100] => Ok(()),
            Ok(value) => {
                let made_up = || {
                    let first = value.as_ptr().addr();
                    let region = maps::pieces(&format!("region-{}", liar + 1));
                    region.iter().any(|piece| piece.addresses.contains(&first))
                };
                assert!(value.is_empty() || made_up(), "{n} became {value:?}");
                value.iter().for_each(|n| _ = std::hint::black_box(n));
                Ok(())
            }
            Err(error) => {
                assert_eq!(error.worker(), Some(liar as u32), "{error}");
                Err(error)
            }
        }
    }

    /// The error blames the hostile worker for a lie.
    fn assert_verdict(&self, error: &JobError) {
        assert_eq!(error.worker(), Some(self.worker() as u32), "{error}");
        assert!(is_verdict(error.kind()), "{error}");
    }

    /// The hostile worker is gone, and with it everything that was wrong.
    fn ends_well(self) {
        wait_until("the hostile worker is gone", || self.is_gone());
        for (n, job) in self.jobs() {
            assert_eq!(job.wait().unwrap()[..], [n; 100]);
        }
        self.lab.assert_in_use(0);
    }
}

/// The error of a lying worker, and the jobs lost with it. A worker may also report that arrays have escaped, which
/// ends it.
fn is_verdict(kind: &JobErrorKind) -> bool {
    match kind {
        JobErrorKind::Lost(WorkerExit::Protocol(_))
        | JobErrorKind::Lost(WorkerExit::Escaped { .. }) => true,
        JobErrorKind::Lost(WorkerExit::OtherJob { cause: culprit, .. }) => is_verdict(culprit),
        _ => false,
    }
}

/// Whether the test itself ended the worker.
fn is_kill(kind: &JobErrorKind) -> bool {
    match kind {
        JobErrorKind::Lost(WorkerExit::Signal(libc::SIGKILL)) => true,
        JobErrorKind::Lost(WorkerExit::OtherJob { cause: culprit, .. }) => is_kill(culprit),
        _ => false,
    }
}

fn impossible_answers() {
    /// Keeps writing its reply after the kernel has returned, or writes those of later jobs, until the process is
    /// killed for it. Counts in a file how often it has written all replies.
    fn spoil(seed: u64, file: &str) -> Array<u8> {
        let running = running();
        let file = sign(file);
        std::thread::spawn(move || {
            let mut dice = Dice::new(seed);
            // A value: one array, whose four words and shape are six. A valid head in itself.
            let head = 1 << 8 | 6 << 32;
            let is_open = |(_, word): &(u64, &AtomicU32)| word.load(Ordering::Relaxed) & 7 == 2;
            while running.iter().all(is_open) {
                for &(slot, _) in running.iter().filter(|_| seed.is_multiple_of(2)) {
                    let at = layout::REPLIES + slot * layout::SLOT;
                    long_word(at).store(about(&mut dice, head), Ordering::Relaxed);
                    long_word(at + 8).store(about(&mut dice, 0), Ordering::Relaxed);
                    long_word(at + 16).store(about(&mut dice, 4096), Ordering::Relaxed);
                    for word in 0..12 {
                        long_word(at + 32 + word * 8)
                            .store(about(&mut dice, 4096), Ordering::Relaxed);
                    }
                }
            }
            // It has ended. The next jobs of this worker answer with lies as well.
            for sweep in 1u64.. {
                for slot in 0..layout::SLOTS {
                    let at = layout::REPLIES + slot * layout::SLOT;
                    for word in 0..16 {
                        long_word(at + word * 8).store(about(&mut dice, 4096), Ordering::Relaxed);
                    }
                }
                file.write_all_at(&sweep.to_ne_bytes(), 0).unwrap();
            }
        });
        Array::zeros(3000)
    }
    let mut noticed = [0, 0];
    let seeds = seeds(40);
    let enough =
        |seed, noticed: [u32; 2]| seed >= seeds.end && noticed.iter().all(|&runs| runs > 0);
    // Which of them it is, is chance: repeated until both have occurred.
    for seed in seeds.start.. {
        if enough(seed, noticed) {
            break;
        }
        case(format!("seed {seed}, {noticed:?} so far"));
        let pair = Pair::new();
        let hostile = pair.lab.submit(spoil, (seed, pair.path()));
        let mut found_out = match hostile.wait() {
            // Any answer that its kernel could have returned is its own affair.
            Ok(bytes) => {
                bytes.iter().for_each(|byte| _ = std::hint::black_box(byte));
                false
            }
            Err(error) => {
                pair.assert_verdict(&error);
                true
            }
        };
        noticed[usize::from(!found_out)] += 1;
        // One of its next answers is impossible.
        while !found_out {
            let jobs = pair.jobs();
            // The answers are not read before they are spoiled, unless the lie is detected already.
            let sweeps = pair.word(0);
            wait_until("all answers are spoiled", || {
                pair.word(0) > sweeps + 2 || pair.is_gone()
            });
            for (n, job) in jobs {
                if let Err(error) = pair.judge(n, job.wait()) {
                    pair.assert_verdict(&error);
                    found_out = true;
                }
            }
        }
        pair.ends_well();
    }
    println!("{noticed:?} were found out by their own answer, and by later ones");
}

/// In a kernel: from now on the replies of this worker claim that their words are at this location of its region.
pub fn answer_with_words_at(at: u64) {
    std::thread::spawn(move || {
        // One array, many words, elsewhere.
        let head = 1 << 8 | 1 << 16 | 512 << 32;
        loop {
            for region in [1u64, 2] {
                for slot in 0..layout::SLOTS {
                    let reply = layout::REPLIES + slot * layout::SLOT;
                    long_word(reply).store(head, Ordering::Relaxed);
                    long_word(reply + 32).store(region << 48 | at, Ordering::Relaxed);
                    long_word(reply + 40).store(512 * 8, Ordering::Relaxed);
                }
            }
        }
    });
}

fn words_that_change_between_two_reads() {
    /// A thread that changes every word of the half as fast as it can, and every other time the word under test.
    fn spoil(seed: u64, file: &str) {
        let half = own_half();
        let running = running();
        sign(file);
        let words = layout::TAKEN / 4 + 1;
        std::thread::spawn(move || {
            let mut dice = Dice::new(seed);
            loop {
                let any = half + (dice.below(words)) as usize * 4;
                // SAFETY: as in `word`.
                let any =
                    unsafe { AtomicU32::from_ptr(std::ptr::with_exposed_provenance_mut(any)) };
                for word in running.iter().map(|(_, word)| *word).chain([any]) {
                    let truth = word.load(Ordering::Relaxed);
                    word.store(about(&mut dice, truth.into()) as u32, Ordering::Relaxed);
                    // Long enough for another core to see it now and then.
                    (0..dice.below(512)).for_each(|_| std::hint::spin_loop());
                    word.store(truth, Ordering::Relaxed);
                }
            }
        });
        forever()
    }
    let mut noticed = 0;
    for seed in seeds(20) {
        case(format!("seed {seed}"));
        let pair = Pair::new();
        let hostile = pair.lab.submit(spoil, (seed, pair.path()));
        let others = pair.jobs();
        wait_until("its words are looked at", || {
            pair.lab.stats();
            hostile.is_done()
        });
        // For a moment the word may have said "done", which is this job's own affair.
        let found_out = match hostile.wait() {
            Ok(()) => false,
            Err(error) => {
                pair.assert_verdict(&error);
                true
            }
        };
        noticed += usize::from(found_out);
        if !found_out {
            // It never ends: jobs behind it would wait as long.
            pair.lab.replace(pair.worker());
        }
        for (n, job) in others {
            match pair.judge(n, job.wait()) {
                Ok(()) => {}
                Err(error) if is_kill(error.kind()) => assert!(!found_out, "{error}"),
                Err(error) => pair.assert_verdict(&error),
            }
        }
        pair.ends_well();
    }
    println!("{noticed} of 20 were found out");
    assert!(noticed > 0, "no lie was noticed");
}

static ONE: u64 = 1;

/// The descriptor by which this worker wakes the monitor.
fn bells() -> Vec<i32> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let bell = |entry: std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        (target.to_str()? == "anon_inode:[eventfd]").then_some(number)
    };
    open.filter_map(bell).collect()
}

/// A worker that requests memory repeatedly, of any size, delays no other request. Requests are legal: it ends when it
/// is killed, not before.
fn endless_allocation_requests() {
    fn spoil(seed: u64, file: &str) {
        let bells = bells();
        assert!(!bells.is_empty(), "a worker has a bell");
        sign(file);
        let mut dice = Dice::new(seed);
        loop {
            if dice.below(1000) == 0 {
                for &bell in &bells {
                    // SAFETY: writes eight bytes of its own to a descriptor.
                    unsafe { libc::write(bell, (&raw const ONE).cast(), 8) };
                }
            }
            // Not zero, for which the worker is killed at once.
            long_word(layout::WANT_BYTES).store(about(&mut dice, 4096).max(1), Ordering::Relaxed);
            // Now and then frees what was granted, so that more can be granted.
            word(layout::TAKEN).store(dice.below(1024) as u32, Ordering::Relaxed);
            word(layout::WANTS).fetch_add(1, Ordering::Release);
        }
    }
    for seed in seeds(1) {
        case(format!("seed {seed}"));
        let pair = Pair::of(Lab::with(2, |builder| {
            builder.backing(Backing::Memfd).capacity(64 << 20)
        }));
        let hostile = pair.lab.submit(spoil, (seed, pair.path()));
        // Not what is in use: what its link has no room for is freed at once.
        wait_until("memory is made for nothing", || {
            pair.lab.stats().arena.high_water > 8 << 20
        });
        let other = 1 - pair.worker();
        for _ in 0..5 {
            for (n, job) in triples(&pair.lab) {
                assert_eq!(job.wait().unwrap(), u64::from(n) * 3);
            }
            // The other worker can die and be replaced meanwhile.
            pair.lab.replace(other);
        }
        assert!(!hostile.is_done(), "it goes on for ever");
        pair.lab.replace(pair.worker());
        let error = hostile.wait().unwrap_err();
        assert!(is_kill(error.kind()), "{error}");
        assert_eq!(error.worker(), Some(pair.worker() as u32));
        pair.ends_well();
    }
}
