//! A worker that spoils its own half of its link: it is killed with `Protocol` for what cannot be true, or spoils
//! nothing but its own jobs; the others' go on, and so does the engine.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arenite::{Array, Backing, JobError, JobErrorKind};

use crate::harness::{Lab, step, tests, wait_until};
use crate::maps::{self, layout};

tests![
    a_state_word_that_cannot_be,
    answers_that_cannot_be,
    words_that_flip_between_two_looks,
    wants_without_end,
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
    // SAFETY: a word of the half of the link that this worker writes, which stays mapped; everybody uses it as an atomic.
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

/// The slots whose words say that their job runs: this very job's, and what was left by a worker that lied before.
fn running() -> Vec<(u64, &'static AtomicU32)> {
    let slots = (0..layout::SLOTS).map(|slot| (slot, word(layout::STATES + slot * layout::STATE)));
    let running: Vec<_> = slots
        .filter(|(_, word)| word.load(Ordering::Relaxed) & 7 == 2)
        .collect();
    assert!(!running.is_empty(), "this very job runs");
    running
}

fn wake(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE takes an address as a key.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

fn forever() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// A generator of numbers that a test can repeat.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Edges, neighbours of a true value, and anything.
    fn about(&mut self, truth: u64) -> u64 {
        match self.next() % 8 {
            0 => 0,
            1 => u64::MAX,
            2 => truth.wrapping_add(1),
            3 => truth.wrapping_sub(1),
            4 => u64::from(u32::MAX),
            5 => 1 << (self.next() % 64),
            6 => self.next() % 70_000,
            _ => self.next(),
        }
    }
}

/// The verdict on a worker that never ends its job by itself: somebody has to look at its words, as every thread does
/// that submits, waits or asks.
fn verdict(lab: &Lab, job: arenite::Job<()>) -> JobError {
    wait_until("its words are looked at", || {
        lab.stats();
        job.is_done()
    });
    let error = job.wait().unwrap_err();
    assert!(matches!(error.kind(), JobErrorKind::Protocol(_)), "{error}");
    error
}

/// Honest jobs beside a hostile one: right, or lost with the very worker that broke the rules.
fn assert_neighbours(jobs: Vec<(u32, arenite::Job<u64>)>, culprit: Option<u32>) {
    for (n, job) in jobs {
        match job.wait() {
            Ok(value) => assert_eq!(value, u64::from(n) * 3),
            Err(error) => assert_eq!(error.worker(), culprit, "{error}"),
        }
    }
}

fn triple(n: u32) -> u64 {
    u64::from(n) * 3
}

fn triples(lab: &Lab) -> Vec<(u32, arenite::Job<u64>)> {
    (0..20).map(|n| (n, lab.submit(triple, (n,)))).collect()
}

fn a_state_word_that_cannot_be() {
    /// Nothing that can follow from `Running` at this generation.
    fn spoil(seed: u64) {
        let mut seeded = Seeded(seed);
        let pick = seeded.next();
        for (_, word) in running() {
            let truth = word.load(Ordering::Relaxed);
            let lie = match pick % 6 {
                0 => 0,
                1 => u32::MAX,
                2 => truth & !7,
                3 => truth | 7,
                // Another lap.
                4 => truth ^ 1 << (8 + pick / 6 % 24),
                // "Taken back, and I am past it": nobody took it back.
                _ => truth & !7 | 6,
            };
            word.store(lie, Ordering::Relaxed);
            wake(word);
        }
        forever()
    }
    for seed in 0..140 {
        // A fresh one each time: workers that die again and again are replaced ever more slowly.
        let lab = lab();
        step(format!("seed {seed}"));
        let hostile = lab.submit(spoil, (seed,));
        let others = triples(&lab);
        let error = verdict(&lab, hostile);
        assert_neighbours(others, error.worker());
        lab.assert_in_use(0);
    }
}

fn answers_that_cannot_be() {
    /// Goes on writing its reply after the kernel has returned, or begins with those of later jobs, until the process is
    /// killed for it. Counts in a file how often it has written all replies.
    fn spoil(seed: u64, file: &str) -> Array<u8> {
        let running = running();
        let file = File::options().write(true).open(file).unwrap();
        file.write_all_at(&std::process::id().to_ne_bytes(), 8)
            .unwrap();
        std::thread::spawn(move || {
            let mut seeded = Seeded(seed);
            // A value: one array, whose four words and shape are six. In itself a true head.
            let head = 1 << 8 | 6 << 32;
            let is_open = |(_, word): &(u64, &AtomicU32)| word.load(Ordering::Relaxed) & 7 == 2;
            while running.iter().all(is_open) {
                for &(slot, _) in running.iter().filter(|_| seed.is_multiple_of(2)) {
                    let at = layout::REPLIES + slot * layout::SLOT;
                    long_word(at).store(seeded.about(head), Ordering::Relaxed);
                    long_word(at + 8).store(seeded.about(0), Ordering::Relaxed);
                    long_word(at + 16).store(seeded.about(4096), Ordering::Relaxed);
                    for word in 0..12 {
                        long_word(at + 32 + word * 8).store(seeded.about(4096), Ordering::Relaxed);
                    }
                }
            }
            // It has ended. The next jobs of this worker answer with lies as well.
            for sweep in 1u64.. {
                for slot in 0..layout::SLOTS {
                    let at = layout::REPLIES + slot * layout::SLOT;
                    for word in 0..16 {
                        long_word(at + word * 8).store(seeded.about(4096), Ordering::Relaxed);
                    }
                }
                file.write_all_at(&sweep.to_ne_bytes(), 0).unwrap();
            }
        });
        Array::zeros(3000)
    }
    fn some(n: u32) -> Array<u32> {
        Array::from_slice(&[n; 100])
    }
    let lab = lab();
    let mut lies = [0, 0];
    let is_lie = |error: &JobError| usize::from(matches!(error.kind(), JobErrorKind::Protocol(_)));
    for seed in 0..40 {
        step(format!("seed {seed}"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let hostile = lab.submit(spoil, (seed, path));
        // Whatever it answers is its own affair: the kernel could have returned it.
        let own = hostile.wait().err();
        lies[0] += own.as_ref().map_or(0, is_lie);
        let mut culprit = own.and_then(|error| error.worker());
        for round in 0..4 {
            let jobs: Vec<_> = (0..50).map(|n| lab.submit(some, (n,))).collect();
            // Nobody looks at the answers before it has spoiled them, unless somebody has found it out already.
            let word = |at| {
                let mut bytes = [0; 8];
                let _short = file.as_file().read_at(&mut bytes, at);
                u64::from_ne_bytes(bytes)
            };
            let (before, pid) = (word(0), word(8) as i32);
            wait_until(&format!("round {round}: all answers are spoiled"), || {
                word(0) > before + 2 || state_of(pid).is_none_or(|state| state == 'Z')
            });
            for job in jobs {
                let Err(error) = job.wait() else { continue };
                // Nobody but the spoiled worker answers so, and some of its lies could be true.
                lies[1] += is_lie(&error);
                assert!(culprit.is_none() || culprit == error.worker(), "{error}");
                culprit = culprit.or(error.worker());
            }
        }
        // What is left of it ends here.
        (0..2).for_each(|worker| lab.replace(worker));
        assert_neighbours(triples(&lab), None);
    }
    println!("{lies:?} lies were noticed, in its own answer and in later ones");
    assert!(lies.into_iter().all(|lies| lies > 0), "{lies:?}");
    lab.assert_in_use(0);
}

fn state_of(pid: i32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.trim().chars().next()
}

/// In a kernel: from now on the replies of this worker say that their words lie at this place of its region.
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

fn words_that_flip_between_two_looks() {
    /// A thread that changes every word of the half, as fast as it can, and every other time the one that is looked at.
    fn spoil(seed: u64) {
        let half = own_half();
        let running = running();
        let words = layout::TAKEN / 4 + 1;
        std::thread::spawn(move || {
            let mut seeded = Seeded(seed);
            loop {
                let any = half + (seeded.next() % words) as usize * 4;
                // SAFETY: as in `word`.
                let any =
                    unsafe { AtomicU32::from_ptr(std::ptr::with_exposed_provenance_mut(any)) };
                for word in running.iter().map(|(_, word)| *word).chain([any]) {
                    let truth = word.load(Ordering::Relaxed);
                    word.store(seeded.about(truth.into()) as u32, Ordering::Relaxed);
                    // Long enough for another core to see it now and then.
                    (0..seeded.next() % 512).for_each(|_| std::hint::spin_loop());
                    word.store(truth, Ordering::Relaxed);
                }
            }
        });
        forever()
    }
    let mut protocol = 0;
    for seed in 0..20 {
        let lab = lab();
        step(format!("seed {seed}"));
        let hostile = lab.submit(spoil, (seed,));
        let others = triples(&lab);
        // Some of what the word says for a moment is "done", which is this job's own affair.
        wait_until("its words are looked at", || {
            lab.stats();
            hostile.is_done()
        });
        let culprit = match hostile.wait() {
            Ok(()) => None,
            Err(error) => {
                assert!(matches!(error.kind(), JobErrorKind::Protocol(_)), "{error}");
                protocol += 1;
                error.worker()
            }
        };
        if culprit.is_none() {
            // It said that it has done its job, and goes on for ever: what lies behind it would wait as long.
            (0..2).for_each(|worker| lab.replace(worker));
        }
        for (n, job) in others {
            match job.wait() {
                Ok(value) => assert_eq!(value, u64::from(n) * 3),
                Err(error) => assert!(culprit.is_none() || error.worker() == culprit, "{error}"),
            }
        }
        lab.assert_in_use(0);
    }
    assert!(protocol > 0, "no lie was noticed");
}

static ONE: u64 = 1;

/// What this worker wakes the monitor with.
fn bells() -> Vec<i32> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let bell = |entry: std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        (target.to_str()? == "anon_inode:[eventfd]").then_some(number)
    };
    open.filter_map(bell).collect()
}

/// A worker that asks for memory again and again, for any amount, keeps nobody from being served.
fn wants_without_end() {
    fn spoil(seed: u64) {
        let bells = bells();
        assert!(!bells.is_empty(), "a worker has a bell");
        let mut seeded = Seeded(seed);
        loop {
            if seeded.next().is_multiple_of(1000) {
                for &bell in &bells {
                    // SAFETY: writes eight bytes of its own to a descriptor.
                    unsafe { libc::write(bell, (&raw const ONE).cast(), 8) };
                }
            }
            long_word(layout::WANT_BYTES).store(seeded.about(4096), Ordering::Relaxed);
            // As many were taken as were given, so that more can be.
            word(layout::TAKEN).fetch_add(1, Ordering::Relaxed);
            word(layout::WANTS).fetch_add(1, Ordering::Release);
        }
    }
    let lab = Lab::with(2, |builder| {
        builder.backing(Backing::Memfd).capacity(64 << 20)
    });
    let hostile = lab.submit(spoil, (1,));
    wait_until("it is given memory for nothing", || {
        lab.stats().arena.in_use > 8 << 20
    });
    for _ in 0..5 {
        // The other worker can die and be replaced meanwhile.
        let pids: Vec<_> = (0..2).map(|worker| lab.pid(worker)).collect();
        let others = triples(&lab);
        let culprit = (0..2).find(|&worker| lab.stats().workers[worker].open > 0);
        let other = 1 - culprit.unwrap_or(0);
        assert_ne!(pids[other], 0);
        lab.replace(other);
        drop(others);
    }
    drop(hostile);
    (0..2).for_each(|worker| lab.replace(worker));
    assert_neighbours(triples(&lab), None);
    lab.assert_in_use(0);
}
