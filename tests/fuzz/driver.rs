//! Cases made from seeds, one after the other, under a watchdog.

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::asked;
use crate::dice::Dice;
use crate::heads::heads;

/// Number of watchdog checks after which a case hangs; a case takes milliseconds. Checks are counted instead of time,
/// because a load that delays the watchdog delays the case too.
const LOOKS: u32 = 60;
const BEAT: Duration = Duration::from_secs(1);

/// A seed and its name.
pub type Seed = (&'static str, Vec<u8>);

/// The change that was made to a seed. Formatted only when a name is needed.
#[derive(Clone, Copy, Debug)]
pub enum Case {
    Whole(&'static str),
    /// Truncated to this number of bytes.
    Cut(&'static str, usize),
    /// The byte and the bit.
    Flipped(&'static str, usize, u8),
    /// The same, with correct checksums.
    Mended(&'static str, usize, u8),
    Run {
        run: u64,
        seed: u64,
        from: &'static str,
    },
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(name) => f.write_str(name),
            Self::Cut(name, end) => write!(f, "{name} cut after {end} bytes"),
            Self::Flipped(name, at, bit) => write!(f, "{name} with bit {bit} of byte {at} flipped"),
            Self::Mended(name, at, bit) => {
                write!(f, "{name} with bit {bit} of byte {at} flipped and mended")
            }
            Self::Run { run, seed, from } => write!(f, "run {run} of seed {seed}, from {from}"),
        }
    }
}

/// Number of cases begun, and the last of them.
type Begun = Arc<Mutex<(u64, Case)>>;

/// Runs the cases of one test.
pub struct Driver {
    target: fn(&[u8]),
    trace: bool,
    begun: Begun,
    /// Closed at the end.
    ending: Option<Sender<()>>,
    watchdog: Option<JoinHandle<()>>,
}

impl Driver {
    pub fn new(target: fn(&[u8])) -> Driver {
        let begun: Begun = Arc::new(Mutex::new((0, Case::Whole("the first case"))));
        let seen = Arc::clone(&begun);
        let (ending, end) = channel();
        let watchdog = std::thread::spawn(move || {
            let (mut last, mut looks) = (0, 0);
            while end.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                let (count, case) = *seen.lock().unwrap();
                looks = if count == last { looks + 1 } else { 0 };
                last = count;
                if looks >= LOOKS {
                    eprintln!("hangs: {case}");
                    std::process::abort();
                }
            }
        });
        Driver {
            target,
            trace: std::env::var_os("ARENITE_FUZZ_TRACE").is_some(),
            begun,
            ending: Some(ending),
            watchdog: Some(watchdog),
        }
    }

    pub fn case(&mut self, case: Case, data: &[u8]) {
        if self.trace {
            eprintln!("{case}");
        }
        {
            let mut begun = self.begun.lock().unwrap();
            *begun = (begun.0 + 1, case);
        }
        let target = self.target;
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| target(data))) {
            // One file per test: they fail in parallel.
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("a test").replace("::", "-");
            let file = format!("fuzz-failure-{test}");
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
            std::fs::write(&path, data).unwrap();
            eprintln!("{case} fails; its bytes are in {}", path.display());
            resume_unwind(payload);
        }
    }

    pub fn cut_at_every_byte(&mut self, seeds: &[Seed]) {
        for (name, seed) in seeds {
            for end in 0..=seed.len() {
                self.case(Case::Cut(name, end), &seed[..end]);
            }
        }
    }

    pub fn bits_flipped(&mut self, seeds: &[Seed]) {
        for (name, seed) in seeds {
            let mut spoilt = seed.clone();
            for (at, bit) in bits_of(&heads(seed)) {
                spoilt[at] ^= 1 << bit;
                self.case(Case::Flipped(name, at, bit), &spoilt);
                spoilt[at] ^= 1 << bit;
            }
        }
    }

    /// The seeds with random changes; in half of the cases in their headers.
    ///
    /// `usual` is the default number of cases. `mend` corrects checksums, so that code after them is reached.
    pub fn random_stretch(&mut self, usual: u64, seeds: &[Seed], mend: fn(&mut [u8])) {
        let heads: Vec<_> = seeds.iter().map(|(_, seed)| heads(seed)).collect();
        let seed = asked::first_seed();
        for run in 0..asked::runs(usual) {
            let mut random = dice(seed, run);
            let which = index(&mut random, seeds.len());
            let (name, mut data) = seeds[which].clone();
            for _ in 0..=random.below(6) {
                mutate(&mut data, &heads[which], seeds, &mut random);
            }
            if random.below(2) == 0 {
                mend(&mut data);
            }
            let from = name;
            self.case(Case::Run { run, seed, from }, &data);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.ending.take());
        let _ = self.watchdog.take().map(JoinHandle::join);
    }
}

/// The same on every run, and different for each case.
fn dice(seed: u64, run: u64) -> Dice {
    Dice::new(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ run.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A random index below this number.
fn index(random: &mut Dice, end: usize) -> usize {
    random.below(end as u64) as usize
}

/// The bits of these ranges: a quarter of them, drawn by the seed of the run, or all if `ARENITE_FUZZ_RUNS` is set.
pub fn bits_of(places: &[Range<usize>]) -> impl Iterator<Item = (usize, u8)> {
    let step = if asked::runs(0) == 0 { 4 } else { 1 };
    let first = asked::seed() as usize % step;
    let bytes = places.iter().flat_map(Range::clone);
    let bits = bytes.flat_map(|at| (0..8).map(move |bit| (at, bit)));
    bits.filter(move |(at, bit)| (at + usize::from(*bit)) % step == first)
}

/// `heads`: the ranges before the data was changed.
fn mutate(data: &mut Vec<u8>, heads: &[Range<usize>], seeds: &[Seed], random: &mut Dice) {
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
        data.push(random.any() as u8);
        return;
    }
    let at = if random.below(2) == 0 {
        index(random, data.len())
    } else {
        let head = &heads[index(random, heads.len())];
        (head.start + index(random, head.len())).min(data.len() - 1)
    };
    let len = 1 + index(random, 32).min(data.len() - at - 1);
    match random.below(9) {
        0 => data[at] ^= 1 << random.below(8),
        1 => data[at] = random.any() as u8,
        2 => {
            data[at] = data[at]
                .wrapping_add(1)
                .wrapping_sub(2 * random.below(2) as u8)
        }
        3 | 4 => {
            let word = WORDS[index(random, WORDS.len())];
            let word = if random.below(2) == 0 {
                word.to_le_bytes()
            } else {
                word.to_be_bytes()
            };
            let word = &word[index(random, 2) * 2..];
            let room = word.len().min(data.len() - at);
            data[at..at + room].copy_from_slice(&word[..room]);
        }
        5 => drop(data.drain(at..at + len)),
        6 => {
            let part = data[at..at + len].to_vec();
            let to = index(random, data.len());
            data.splice(to..to, part);
        }
        7 => {
            let other = &seeds[index(random, seeds.len())].1;
            let from = index(random, other.len());
            let part = &other[from..(from + len).min(other.len())];
            let end = (at + part.len()).min(data.len());
            data.splice(at..end, part.iter().copied());
        }
        _ => data.truncate(at.max(1)),
    }
}
