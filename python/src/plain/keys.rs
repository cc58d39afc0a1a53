//! Computes the cost of filling a dictionary or a set: [`Keys`].

/// The probe sequence of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Probing {
    Dict,
    Set,
}

/// The number of keys up to which no cost is computed.
const FEW: usize = 32;
/// The average number of probes per key that is allowed. Random keys need about one; a set of multiples of a power of
/// two may need 130.
const STEPS: u64 = 256;
/// The number of adjacent places that a set probes before it continues elsewhere.
const SIDE_BY_SIDE: usize = 9;

/// A simulation of how CPython (3.11 to 3.14) finds the place of each key in a table.
///
/// The hashes of numbers, and of tuples of numbers, can be predicted. So an attacker can choose keys whose probe
/// sequences all coincide: then each insertion takes as many probes as the table has keys.
#[derive(Debug)]
pub struct Keys {
    probing: Probing,
    /// The hashes of the keys in the order of insertion.
    hashes: Vec<u64>,
    /// The places of the table; empty while the number of keys is at most [`FEW`].
    table: Vec<Option<u64>>,
    steps: u64,
    /// The number of elements of the longest key.
    longest: u64,
}

impl Keys {
    pub fn new(probing: Probing) -> Self {
        Self {
            probing,
            hashes: Vec::new(),
            table: Vec::new(),
            steps: 0,
            longest: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Probes for a key. Returns the number of keys with the same hash, with which Python would compare the key; `None`
    /// if the keys of this table take too many probes.
    pub fn look(&mut self, hash: isize) -> Option<u64> {
        let hash = hash.cast_unsigned() as u64;
        let equal = |place: &&u64| **place == hash;
        if self.table.is_empty() {
            return Some(self.hashes.iter().filter(equal).count() as u64);
        }
        let (mut steps, mut equals) = (0, 0);
        let most = STEPS * (self.hashes.len() as u64 + 16) - self.steps;
        place(&self.table, self.probing, hash, |other| {
            steps += 1;
            equals += u64::from(other == hash);
            steps <= most
        });
        self.steps += steps;
        (steps <= most).then_some(equals)
    }

    pub fn longest(&self) -> u64 {
        self.longest
    }

    /// Adds a key with this hash and this number of elements.
    pub fn add(&mut self, hash: isize, elements: u64) {
        self.longest = self.longest.max(elements);
        let hash = hash.cast_unsigned() as u64;
        self.hashes.push(hash);
        if self.hashes.len() <= FEW {
            return;
        }
        if self.table.is_empty() {
            self.table = vec![None; 8];
            for count in 0..self.hashes.len() {
                self.enter(count);
            }
        } else {
            self.enter(self.hashes.len() - 1);
        }
    }

    /// Inserts the key at this index of `hashes` into the table, and enlarges the table as CPython does.
    fn enter(&mut self, number: usize) {
        let (hash, len) = (self.hashes[number], self.table.len());
        match self.probing {
            // A dictionary grows at two thirds, and inserts its keys in their order.
            Probing::Dict => {
                if number >= len * 2 / 3 {
                    self.table = vec![None; (number * 3).next_power_of_two().max(8)];
                    for &before in &self.hashes[..number] {
                        put(&mut self.table, Probing::Dict, before);
                    }
                }
                put(&mut self.table, Probing::Dict, hash);
            }
            // A set grows at three fifths, and inserts its keys in the order of the table.
            Probing::Set => {
                put(&mut self.table, Probing::Set, hash);
                let count = number + 1;
                if count * 5 >= (len - 1) * 3 {
                    let least = if count > 50_000 { count * 2 } else { count * 4 };
                    let larger = vec![None; (least + 1).next_power_of_two().max(8)];
                    for before in std::mem::replace(&mut self.table, larger)
                        .into_iter()
                        .flatten()
                    {
                        put(&mut self.table, Probing::Set, before);
                    }
                }
            }
        }
    }
}

fn put(table: &mut [Option<u64>], probing: Probing, hash: u64) {
    if let Some(free) = place(table, probing, hash, |_| true) {
        table[free] = Some(hash);
    }
}

/// Finds a free place. Calls `met` with the hash at each occupied place, until `met` returns false.
fn place(
    table: &[Option<u64>],
    probing: Probing,
    hash: u64,
    mut met: impl FnMut(u64) -> bool,
) -> Option<usize> {
    let mask = table.len() - 1;
    let mut rest = hash;
    let mut at = hash as usize & mask;
    loop {
        let more = match probing {
            Probing::Set if at + SIDE_BY_SIDE <= mask => SIDE_BY_SIDE,
            _ => 0,
        };
        for (near, found) in table[at..=at + more].iter().enumerate() {
            match *found {
                None => return Some(at + near),
                Some(other) if !met(other) => return None,
                Some(_) => {}
            }
        }
        rest >>= 5;
        at = (at
            .wrapping_mul(5)
            .wrapping_add(1)
            .wrapping_add(rest as usize))
            & mask;
    }
}
