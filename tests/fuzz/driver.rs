//! Cases made from seeds, one after the other, under a watchdog.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::asked;
use crate::heads::heads;

/// A case takes milliseconds: one that takes so long hangs.
const WATCHDOG: Duration = Duration::from_secs(60);

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
            for (at, bit) in bits_of(&heads(seed)) {
                spoilt[at] ^= 1 << bit;
                self.case(
                    || format!("{name} with bit {bit} of byte {at} flipped"),
                    &spoilt,
                );
                spoilt[at] ^= 1 << bit;
            }
        }
    }

    /// The seeds, spoilt in many ways; in half of them where their headers are.
    ///
    /// `usual` cases are right for every day. `mend` makes checksums right again, so that what lies behind them is reached.
    pub fn random_stretch(&mut self, usual: u64, seeds: &[Seed], mend: fn(&mut [u8])) {
        let heads: Vec<_> = seeds.iter().map(|(_, seed)| heads(seed)).collect();
        let seed = asked::first_seed();
        for run in 0..asked::runs(usual) {
            let mut random = Random::of(seed, run);
            let which = random.below(seeds.len());
            let (name, mut data) = seeds[which].clone();
            for _ in 0..=random.below(6) {
                mutate(&mut data, &heads[which], seeds, &mut random);
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

/// Each bit of each byte of these places.
pub fn bits_of(places: &[Range<usize>]) -> impl Iterator<Item = (usize, u8)> {
    let bytes = places.iter().flat_map(Range::clone);
    bytes.flat_map(|at| (0..8).map(move |bit| (at, bit)))
}

/// `heads`: where they were before anything was done to the data.
fn mutate(data: &mut Vec<u8>, heads: &[Range<usize>], seeds: &[Seed], random: &mut Random) {
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
    let at = if random.below(2) == 0 {
        random.below(data.len())
    } else {
        let head = &heads[random.below(heads.len())];
        (head.start + random.below(head.len())).min(data.len() - 1)
    };
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
