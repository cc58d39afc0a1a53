//! Cases made from seeds, one after the other, under a watchdog and with an eye on memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A case takes milliseconds: one that takes so long hangs.
const WATCHDOG: Duration = Duration::from_secs(60);
/// Where headers are, and what a random stretch aims at in half of its cases.
const HEADER: usize = 160;

/// A seed and what to call it.
pub type Seed = (&'static str, Vec<u8>);

/// Runs the cases of one test.
pub struct Driver {
    target: fn(&[u8]),
    trace: bool,
    names: Sender<String>,
    watchdog: Option<JoinHandle<()>>,
    pub cases: u64,
}

impl Driver {
    pub fn new(target: fn(&[u8])) -> Driver {
        let (names, heard) = channel::<String>();
        let watchdog = std::thread::spawn(move || {
            let mut name = String::from("the first case");
            loop {
                match heard.recv_timeout(WATCHDOG) {
                    Ok(next) => name = next,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        eprintln!("hangs: {name}");
                        std::process::abort();
                    }
                }
            }
        });
        Driver {
            target,
            trace: std::env::var_os("ARENITE_FUZZ_TRACE").is_some(),
            names,
            watchdog: Some(watchdog),
            cases: 0,
        }
    }

    pub fn case(&mut self, name: impl Fn() -> String, data: &[u8]) {
        self.cases += 1;
        if self.trace {
            eprintln!("{}", name());
        }
        // The watchdog wants to hear of it now and then; a name is made for people.
        if self.cases % 64 == 1 {
            self.names.send(name()).unwrap();
        }
        let target = self.target;
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| target(data))) {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-failure");
            std::fs::write(&path, data).unwrap();
            eprintln!("{} fails; its bytes are in {}", name(), path.display());
            resume_unwind(payload);
        }
    }

    pub fn cut_at_every_byte(&mut self, seeds: &[Seed]) {
        for (name, seed) in seeds {
            for end in 0..=seed.len() {
                self.case(|| format!("{name} cut after {end} bytes"), &seed[..end]);
            }
        }
    }

    pub fn each_bit_flipped(&mut self, seeds: &[Seed]) {
        for (name, seed) in seeds {
            let mut spoilt = seed.clone();
            for bit in 0..seed.len().min(HEADER) * 8 {
                spoilt[bit / 8] ^= 1 << (bit % 8);
                self.case(|| format!("{name} with bit {bit} flipped"), &spoilt);
                spoilt[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    /// `mend` makes checksums right again, so that what lies behind them is reached.
    pub fn random_stretch(&mut self, seeds: &[Seed], mend: fn(&mut [u8])) {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
        let runs: u64 = number("ARENITE_FUZZ_RUNS").unwrap_or(5_000);
        let seed = number("ARENITE_FUZZ_SEED").unwrap_or(1);
        for run in 0..runs {
            let mut random = Random::of(seed, run);
            let (name, mut data) = seeds[random.below(seeds.len())].clone();
            for _ in 0..=random.below(6) {
                mutate(&mut data, seeds, &mut random);
            }
            if random.below(2) == 0 {
                mend(&mut data);
            }
            self.case(|| format!("run {run} of seed {seed}, from {name}"), &data);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.names = channel().0;
        let _ = self.watchdog.take().map(JoinHandle::join);
    }
}

/// SplitMix64: the same on every run, and another for each case.
pub struct Random(u64);

impl Random {
    fn of(seed: u64, run: u64) -> Random {
        Random(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ run.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn mutate(data: &mut Vec<u8>, seeds: &[Seed], random: &mut Random) {
    const WORDS: [u32; 10] = [
        0,
        1,
        0x7f,
        0xff,
        0x7fff,
        0xffff,
        0x10000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
    ];
    if data.is_empty() {
        data.push(random.next() as u8);
        return;
    }
    let reach = if random.below(2) == 0 {
        data.len()
    } else {
        data.len().min(HEADER)
    };
    let at = random.below(reach);
    let len = 1 + random.below(32).min(data.len() - at - 1);
    match random.below(9) {
        0 => data[at] ^= 1 << random.below(8),
        1 => data[at] = random.next() as u8,
        2 => {
            data[at] = data[at]
                .wrapping_add(1)
                .wrapping_sub(2 * random.below(2) as u8)
        }
        3 | 4 => {
            let word = WORDS[random.below(WORDS.len())];
            let word = if random.below(2) == 0 {
                word.to_le_bytes()
            } else {
                word.to_be_bytes()
            };
            let word = &word[random.below(2) * 2..];
            let room = word.len().min(data.len() - at);
            data[at..at + room].copy_from_slice(&word[..room]);
        }
        5 => drop(data.drain(at..at + len)),
        6 => {
            let part = data[at..at + len].to_vec();
            let to = random.below(data.len());
            data.splice(to..to, part);
        }
        7 => {
            let other = &seeds[random.below(seeds.len())].1;
            let from = random.below(other.len());
            let part = &other[from..(from + len).min(other.len())];
            let end = (at + part.len()).min(data.len());
            data.splice(at..end, part.iter().copied());
        }
        _ => data.truncate(at.max(1)),
    }
}

// ---- memory ------------------------------------------------------------------------------------

/// Counts what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator as it came; the counters are numbers of this thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(layout.size())));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

fn grow(size: usize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get() + size);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What `f` returns, and the most bytes that this thread held while it ran, beyond what it held before.
pub fn with_peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = f();
    (result, PEAK.get() - before)
}
