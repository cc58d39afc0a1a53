//! Handles to arrays in several processes: each shows what a plain `Vec` in its place would, whatever safe code does
//! with the others.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use arenite::{Actor, Array, ArrayMut, Spawn, call, raw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::harness::{Dice, Lab, case, filled, seeds, step, tests, wait_until};

tests![random_programs_show_plain_values];

/// Small and large chunks, and chunks of the arena.
const SIZES: [usize; 12] = [
    0,
    1,
    63,
    64,
    4095,
    4097,
    65_535,
    65_536,
    65_537,
    (2 << 20) - 1,
    2 << 20,
    (2 << 20) + 1,
];

/// Values by number, each sealed or exclusive.
#[derive(Clone)]
struct Shelf<S, O> {
    sealed: BTreeMap<u32, S>,
    own: BTreeMap<u32, O>,
}

/// The state of an actor.
type Arrays = Shelf<Array<u8>, ArrayMut<u8>>;
/// What it shows.
type Values = Shelf<Vec<u8>, Vec<u8>>;

impl<S, O> Shelf<S, O> {
    fn new() -> Self {
        Shelf {
            sealed: BTreeMap::new(),
            own: BTreeMap::new(),
        }
    }

    fn put(&mut self, number: u32, sealed: S) {
        self.forget(number);
        self.sealed.insert(number, sealed);
    }

    fn put_own(&mut self, number: u32, own: O) {
        self.forget(number);
        self.own.insert(number, own);
    }

    fn forget(&mut self, number: u32) {
        self.sealed.remove(&number);
        self.own.remove(&number);
    }
}

impl Arrays {
    fn restore(saved: &Array<u8>) -> Self {
        let mut shelf = Self::new();
        shelf.put(0, saved.clone());
        shelf
    }
    fn save(&self) -> Array<u8> {
        let first = self.sealed.values().next();
        first.cloned().unwrap_or_else(|| Array::from_slice(&[]))
    }
    fn crash(&mut self) {
        std::process::abort();
    }
    fn make(&mut self, number: u32, len: usize, value: u8) {
        self.put_own(number, filled(len, value));
    }
    fn seal(&mut self, number: u32) {
        let own = self.own.remove(&number).unwrap();
        self.put(number, own.seal());
    }
    fn unseal(&mut self, number: u32) -> bool {
        match self.sealed.remove(&number).unwrap().try_into_mut() {
            Ok(own) => {
                self.put_own(number, own);
                true
            }
            Err(shared) => {
                self.put(number, shared);
                false
            }
        }
    }
    fn write(&mut self, number: u32, value: u8) {
        self.own.get_mut(&number).unwrap().fill(value);
    }
    /// Makes another handle to a part.
    fn part(&mut self, number: u32, start: usize, end: usize, to: u32) {
        let part = self.sealed[&number].rows(start..end);
        self.put(to, part);
    }
    fn drop_one(&mut self, number: u32) {
        self.forget(number);
    }
    fn give(&mut self, number: u32, start: usize, end: usize) -> Array<u8> {
        self.sealed[&number].rows(start..end)
    }
    fn give_up(&mut self, number: u32) -> Array<u8> {
        self.sealed.remove(&number).unwrap()
    }
    fn give_own(&mut self, number: u32) -> ArrayMut<u8> {
        self.own.remove(&number).unwrap()
    }
    fn keep(&mut self, number: u32, array: &Array<u8>) {
        self.put(number, array.clone());
    }
    fn keep_own(&mut self, number: u32, array: ArrayMut<u8>) {
        self.put_own(number, array);
    }
    fn keep_and_return(&mut self, number: u32, array: ArrayMut<u8>) -> Array<u8> {
        let array = array.seal();
        self.put(number, array.clone());
        array
    }
    fn shows(&mut self, number: u32, values: &[u8]) -> bool {
        let shown: &[u8] = match self.own.get(&number) {
            Some(own) => own,
            None => &self.sealed[&number],
        };
        shown == values
    }
}

/// A handle of the program.
enum Handle {
    Sealed(Array<u8>),
    Own(ArrayMut<u8>),
}

impl Handle {
    fn shows(&self) -> &[u8] {
        match self {
            Handle::Sealed(array) => array,
            Handle::Own(array) => array,
        }
    }
}

/// What jobs have left in this process, with the values.
static LEFT: Mutex<Vec<(Array<u8>, Vec<u8>)>> = Mutex::new(Vec::new());

fn leave(array: &Array<u8>) {
    let mut left = LEFT.lock().unwrap();
    if left.len() == 6 {
        left.remove(0);
    }
    left.push((array.clone(), array.to_vec()));
}

/// Writes to what jobs have left in this process, where that is possible.
fn write_to_left(value: u8) {
    let mut left = LEFT.lock().unwrap();
    for (array, mut values) in std::mem::take(&mut *left) {
        assert!(array[..] == values[..], "what a job has left has changed");
        let array = match array.try_into_mut() {
            Ok(mut array) => {
                array.fill(value);
                values.fill(value);
                array.seal()
            }
            Err(shared) => shared,
        };
        left.push((array, values));
    }
}

/// Spawns jobs with a half and the whole of an array that it leaves behind. Their values are the second half of each.
fn spawn_left(len: usize, value: u8) -> Spawn<(Array<u8>, Array<u8>)> {
    fn half(array: &Array<u8>) -> Array<u8> {
        leave(array);
        write_to_left(91);
        array.rows(array.len() / 2..)
    }
    fn both(left: &Array<u8>, right: &Array<u8>) -> (Array<u8>, Array<u8>) {
        write_to_left(92);
        (left.clone(), right.clone())
    }
    let array = filled(len, value).seal();
    leave(&array);
    let calls = (call(half, (array.rows(..len / 2),)), call(half, (array,)));
    Spawn::new(both, calls)
}

/// A sealed memory file of these bytes, as objects of a store are.
fn stored(values: &[u8]) -> Array<u8> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create("stored", flags).unwrap());
    file.write_all(values).unwrap();
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    raw::map_sealed(OwnedFd::from(file)).unwrap()
}

/// Steps of the program, of two actors with checkpoints, and of jobs that spawn others, on arrays that they share.
fn random_programs_show_plain_values() {
    for seed in seeds(2) {
        case(format!("seed {seed}"));
        let lab = Lab::with(2, |builder| builder.retain_escaped(|| {}));
        let mut run = Run::new(&lab, seed);
        for at in 0..1500 {
            if at % 50 == 0 {
                step(format!("seed {seed}, step {at}"));
            }
            run.step();
            run.check(&format!("seed {seed}, step {at}"));
        }
        let unsealed = run.unsealed;
        drop(run);
        println!("seed {seed}: made exclusive again: {unsealed:?} in program and workers");
        assert!(unsealed.iter().all(|&times| times > 3), "{unsealed:?}");
        wait_until("both workers have dropped all", || {
            let jobs = [(); 4].map(|()| lab.submit(|| LEFT.lock().unwrap().clear(), ()));
            jobs.into_iter().for_each(|job| job.wait().unwrap());
            lab.stats().retained() == 0
        });
        lab.assert_in_use(0);
    }
}

/// Calls between two checkpoints.
const EVERY: u64 = 4;
/// Handles of the program, and numbers on a shelf.
const HANDLES: usize = 12;

/// An actor and what it shows.
struct Actors {
    actor: Actor<Arrays>,
    values: Values,
    calls: u64,
    /// What the last checkpoint shows.
    saved: Option<Vec<u8>>,
}

impl Actors {
    /// A call has ended, and `values` shows its effect.
    fn called(&mut self) {
        self.calls += 1;
        if self.calls == EVERY {
            self.calls = 0;
            self.saved = Some(
                self.values
                    .sealed
                    .values()
                    .next()
                    .cloned()
                    .unwrap_or_default(),
            );
        }
    }

    /// Its worker has died.
    fn restarted(&mut self) {
        self.calls = 0;
        self.values = Values::new();
        if let Some(saved) = self.saved.clone() {
            self.values.put(0, saved);
        }
    }
}

struct Run<'a> {
    lab: &'a Lab,
    dice: Dice,
    actors: [Actors; 2],
    handles: Vec<(Handle, Vec<u8>)>,
    /// How often a sealed array became exclusive, in the program and in workers.
    unsealed: [u64; 2],
}

impl<'a> Run<'a> {
    fn new(lab: &'a Lab, seed: u64) -> Self {
        let actors = [(); 2].map(|()| Actors {
            actor: lab
                .actor(Arrays::new, ())
                .checkpoint(EVERY, Arrays::save, Arrays::restore)
                .start(),
            values: Values::new(),
            calls: 0,
            saved: None,
        });
        Self {
            lab,
            dice: Dice::new(seed),
            actors,
            handles: Vec::new(),
            unsealed: [0; 2],
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.dice.below(end as u64) as usize
    }

    fn len(&mut self) -> usize {
        // Most are small.
        let most = if self.below(4) == 0 { SIZES.len() } else { 8 };
        SIZES[self.below(most)]
    }

    fn range(&mut self, len: usize) -> (usize, usize) {
        if self.below(2) == 0 {
            return (0, len);
        }
        let start = self.below(len + 1);
        (start, start + self.below(len - start + 1))
    }

    fn push(&mut self, handle: Handle, values: Vec<u8>) {
        if self.handles.len() >= HANDLES {
            let at = self.below(HANDLES);
            self.handles.swap_remove(at);
        }
        self.handles.push((handle, values));
    }

    fn take_handle(&mut self) -> Option<(Handle, Vec<u8>)> {
        if self.handles.is_empty() {
            return None;
        }
        let at = self.below(self.handles.len());
        Some(self.handles.swap_remove(at))
    }

    fn step(&mut self) {
        let (len, value) = (self.len(), self.dice.any() as u8);
        match self.below(16) {
            0..3 => self.program_makes(len, value),
            3..6 => self.program_changes(value),
            6 => {
                let (left, right) = self.lab.submit(spawn_left, (len, value)).wait().unwrap();
                let first = len / 2;
                self.push(Handle::Sealed(left), vec![value; first - first / 2]);
                self.push(Handle::Sealed(right), vec![value; len - len / 2]);
            }
            7 => self.lab.submit(write_to_left, (value,)).wait().unwrap(),
            8 if self.below(6) == 0 => self.crash(),
            _ => self.actor_acts(len, value),
        }
    }

    fn program_makes(&mut self, len: usize, value: u8) {
        let values = vec![value; len];
        let handle = match self.below(3) {
            0 => {
                let mut own = self.lab.zeros(len).unwrap();
                own.fill(value);
                Handle::Own(own)
            }
            1 => Handle::Sealed(self.lab.from_slice(&values).unwrap()),
            _ => Handle::Sealed(stored(&values)),
        };
        self.push(handle, values);
    }

    fn program_changes(&mut self, value: u8) {
        let Some((handle, mut values)) = self.take_handle() else {
            return;
        };
        let handle = match handle {
            Handle::Own(mut own) if self.below(2) == 0 => {
                own.fill(value);
                values.fill(value);
                Handle::Own(own)
            }
            Handle::Own(own) => Handle::Sealed(own.seal()),
            Handle::Sealed(array) => match self.below(4) {
                0 => return,
                1 => {
                    let (start, end) = self.range(array.len());
                    let part = array.rows(start..end);
                    self.push(Handle::Sealed(part), values[start..end].to_vec());
                    Handle::Sealed(array)
                }
                _ => match array.try_into_mut() {
                    Ok(mut own) => {
                        self.unsealed[0] += 1;
                        own.fill(value);
                        values.fill(value);
                        Handle::Own(own)
                    }
                    Err(shared) => Handle::Sealed(shared),
                },
            },
        };
        self.push(handle, values);
    }

    fn crash(&mut self) {
        let at = self.below(2);
        let host = |of: &Actors| of.actor.status().worker;
        let both =
            host(&self.actors[0]).is_some() && host(&self.actors[0]) == host(&self.actors[1]);
        self.lab
            .failure_of(self.actors[at].actor.call(Arrays::crash, ()));
        self.actors[at].restarted();
        if both {
            self.actors[1 - at].restarted();
        }
    }

    /// Another handle, sealed or exclusive, of those that an actor has.
    fn number(
        &mut self,
        of: impl Fn(&Values) -> &BTreeMap<u32, Vec<u8>>,
        at: usize,
    ) -> Option<u32> {
        let len = of(&self.actors[at].values).len();
        let index = self.below(len);
        of(&self.actors[at].values).keys().nth(index).copied()
    }

    fn actor_acts(&mut self, len: usize, value: u8) {
        let at = self.below(2);
        let free = self.below(HANDLES) as u32;
        let what = self.below(20);
        let sealed = self.number(|values| &values.sealed, at);
        let own = self.number(|values| &values.own, at);
        let whole = sealed.map_or(0, |number| self.actors[at].values.sealed[&number].len());
        let (start, end) = self.range(whole);
        let handle = if what < 5 { self.take_handle() } else { None };
        let Actors { actor, values, .. } = &mut self.actors[at];
        let mut given = None;
        match (what, handle, sealed, own) {
            (0..4, Some((Handle::Sealed(array), shown)), ..) => {
                actor.call(Arrays::keep, (free, &array)).wait().unwrap();
                values.put(free, shown.clone());
                given = Some((Handle::Sealed(array), shown));
            }
            (0..2, Some((Handle::Own(array), shown)), ..) => {
                actor.call(Arrays::keep_own, (free, array)).wait().unwrap();
                values.put_own(free, shown);
            }
            (2..4, Some((Handle::Own(array), shown)), ..) => {
                let array = actor
                    .call(Arrays::keep_and_return, (free, array))
                    .wait()
                    .unwrap();
                values.put(free, shown.clone());
                given = Some((Handle::Sealed(array), shown));
            }
            (4, handle, ..) => {
                given = handle;
                actor.call(Arrays::drop_one, (free,)).wait().unwrap();
                values.forget(free);
            }
            (5, _, Some(number), _) => {
                actor
                    .call(Arrays::part, (number, start, end, free))
                    .wait()
                    .unwrap();
                let part = values.sealed[&number][start..end].to_vec();
                values.put(free, part);
            }
            (6..8, _, Some(number), _) => {
                let array = actor
                    .call(Arrays::give, (number, start, end))
                    .wait()
                    .unwrap();
                let shown = values.sealed[&number][start..end].to_vec();
                given = Some((Handle::Sealed(array), shown));
            }
            (8, _, Some(number), _) => {
                let array = actor.call(Arrays::give_up, (number,)).wait().unwrap();
                let shown = values.sealed.remove(&number).unwrap();
                given = Some((Handle::Sealed(array), shown));
            }
            (9, _, _, Some(number)) => {
                let array = actor.call(Arrays::give_own, (number,)).wait().unwrap();
                given = Some((Handle::Own(array), values.own.remove(&number).unwrap()));
            }
            (10..14, _, Some(number), _) => {
                if actor.call(Arrays::unseal, (number,)).wait().unwrap() {
                    let shown = values.sealed.remove(&number).unwrap();
                    values.put_own(number, shown);
                    self.unsealed[1] += 1;
                }
            }
            (14..16, _, _, Some(number)) => {
                actor.call(Arrays::seal, (number,)).wait().unwrap();
                let shown = values.own.remove(&number).unwrap();
                values.put(number, shown);
            }
            (16..18, _, _, Some(number)) => {
                actor.call(Arrays::write, (number, value)).wait().unwrap();
                values.own.get_mut(&number).unwrap().fill(value);
            }
            _ => {
                actor.call(Arrays::make, (free, len, value)).wait().unwrap();
                values.put_own(free, vec![value; len]);
            }
        }
        self.actors[at].called();
        if let Some((handle, shown)) = given {
            self.push(handle, shown);
        }
    }

    /// All handles of the program, and one of each actor.
    fn check(&mut self, step: &str) {
        for (handle, values) in &self.handles {
            assert!(
                handle.shows() == &values[..],
                "{step}: a handle of {} bytes",
                values.len()
            );
        }
        for at in 0..2 {
            let all = &self.actors[at].values;
            let count = all.sealed.len() + all.own.len();
            let index = self.below(count);
            let Actors { actor, values, .. } = &self.actors[at];
            let Some((number, values)) = values.sealed.iter().chain(&values.own).nth(index) else {
                continue;
            };
            let expected = self.lab.from_slice(values).unwrap();
            let shows = actor
                .call(Arrays::shows, (*number, expected))
                .wait()
                .unwrap();
            assert!(
                shows,
                "{step}: array {number} of actor {at}, {} bytes",
                values.len()
            );
            self.actors[at].called();
        }
    }
}
