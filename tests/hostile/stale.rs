//! Handles used where they do not belong: of this engine, of another, of a dropped one, of no engine; sub-arrays and
//! clones of one array; jobs whose engine ends. Against a model: a typed error or the right value, never a wrong one.

use std::time::Duration;

use arenite::{Array, ArrayMut, Backing, Engine, Job, JobError, JobErrorKind, Rejection, TileMut};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::harness::{Lab, case, rejected, seeds, step, tests};

tests![handles_against_a_model];

/// Steps of one run, during which engines are built and dropped.
const STEPS: usize = 120;

#[derive(Clone, Debug)]
enum Step {
    /// A new array: 0 is private, 1 and 2 belong to the engines, 3 and 4 are made by their workers.
    Make(u8, usize),
    Clone(Index),
    Part(Index, Index, Index),
    Drop(Index),
    Read(Index),
    /// A job of an engine (2 is the inline one) with one array, with two, with one that moves in, with one that is
    /// lent.
    Sum(usize, Index),
    Join(usize, Index, Index),
    Move(usize, Index),
    Lend(usize, Index),
    /// A job without a waiter so far.
    Pend(usize, Index),
    Settle(Index),
    IntoMut(Index),
    Seal(Index),
    /// An engine ends, by `shutdown` or with its last handle; another takes its place.
    End(usize, bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let engine = || 0usize..3;
    let len = prop_oneof![Just(0usize), Just(1), 2usize..40, Just(2048), Just(20_000)];
    prop_oneof![
        12 => (0u8..5, len).prop_map(|(place, len)| Step::Make(place, len)),
        8 => index().prop_map(Step::Clone),
        8 => (index(), index(), index()).prop_map(|(of, a, b)| Step::Part(of, a, b)),
        12 => index().prop_map(Step::Drop),
        8 => index().prop_map(Step::Read),
        12 => (engine(), index()).prop_map(|(on, of)| Step::Sum(on, of)),
        8 => (engine(), index(), index()).prop_map(|(on, a, b)| Step::Join(on, a, b)),
        8 => (engine(), index()).prop_map(|(on, of)| Step::Move(on, of)),
        8 => (engine(), index()).prop_map(|(on, of)| Step::Lend(on, of)),
        8 => (0usize..2, index()).prop_map(|(on, of)| Step::Pend(on, of)),
        4 => index().prop_map(Step::Settle),
        10 => index().prop_map(Step::IntoMut),
        5 => index().prop_map(Step::Seal),
        1 => (0usize..2, any::<bool>()).prop_map(|(on, drain)| Step::End(on, drain)),
    ]
}

fn sum(values: &[u32]) -> u64 {
    values.iter().map(|&x| u64::from(x)).sum()
}

fn joined(a: &Array<u32>, b: &[u32]) -> u64 {
    sum(a).wrapping_mul(3).wrapping_add(sum(b))
}

fn doubled(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    values.iter_mut().for_each(|x| *x = x.wrapping_mul(2));
    values
}

fn add_one(mut tile: TileMut<'_, u32>) {
    tile.iter_mut().for_each(|x| *x = x.wrapping_add(1));
}

fn forever() -> u64 {
    loop {
        std::hint::spin_loop();
    }
}

fn count_from(first: u32, len: u64) -> Array<u32> {
    Array::from_fn(len as usize, |i| first.wrapping_add(i as u32))
}

/// What the model knows of an array: 0 for private memory, otherwise the number of its engine.
#[derive(Clone, Debug)]
struct Known {
    home: u64,
    /// Handles with the same number share memory.
    memory: u64,
    values: Vec<u32>,
}

struct Pending {
    job: Job<u64>,
    home: u64,
    memory: u64,
    expected: u64,
    /// Its engine was dropped meanwhile.
    dropped: bool,
    /// It never ends on its own, or is queued behind one that does not.
    endless: bool,
}

/// How often each kind of step had each outcome.
#[derive(Debug, Default)]
struct Tally {
    values: usize,
    foreign: usize,
    alone: usize,
    shared: usize,
    shut_down: usize,
}

struct Play {
    tally: Tally,
    engines: Vec<(u64, Lab)>,
    inline: Engine,
    next: u64,
    shared: Vec<(Array<u32>, Known)>,
    own: Vec<(ArrayMut<u32>, Known)>,
    pending: Vec<Pending>,
}

fn start() -> Lab {
    Lab::with(1, |builder| {
        builder.backing(Backing::Memfd).capacity(64 << 20)
    })
}

fn pick<T>(of: &mut Vec<T>, index: Index) -> Option<T> {
    (!of.is_empty()).then(|| of.swap_remove(index.index(of.len())))
}

impl Play {
    fn new() -> Self {
        Self {
            tally: Tally::default(),
            engines: vec![(1, start()), (2, start())],
            inline: Engine::inline(),
            next: 3,
            shared: Vec::new(),
            own: Vec::new(),
            pending: Vec::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The engine, and whether it takes arrays of this origin.
    fn on(&self, engine: usize) -> (&Engine, impl Fn(&Known) -> bool + use<>) {
        let (engine, home) = match self.engines.get(engine) {
            Some((home, lab)) => (&**lab, Some(*home)),
            None => (&self.inline, None),
        };
        (engine, move |known: &Known| {
            home.is_none_or(|home| home == known.home)
        })
    }

    fn any(&self, index: Index) -> Option<&(Array<u32>, Known)> {
        (!self.shared.is_empty()).then(|| index.get(&self.shared))
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Make(place, len) => self.make(*place, *len),
            Step::Clone(of) => {
                let copy = self.any(*of).cloned();
                self.shared.extend(copy);
            }
            Step::Part(of, a, b) => {
                let Some((array, known)) = self.any(*of) else {
                    return;
                };
                let (a, b) = (a.index(array.len() + 1), b.index(array.len() + 1));
                let rows = a.min(b)..a.max(b);
                let part = Known {
                    values: known.values[rows.clone()].to_vec(),
                    ..*known
                };
                let array = array.rows(rows);
                self.shared.push((array, part));
            }
            Step::Drop(of) => drop(pick(&mut self.shared, *of)),
            Step::Read(of) => {
                if let Some((array, known)) = self.any(*of) {
                    assert_eq!(array[..], known.values[..]);
                }
            }
            Step::Sum(on, of) => {
                let (engine, takes) = self.on(*on);
                if let Some((array, known)) = self.any(*of) {
                    let answer = engine.submit(sum, (array,)).wait();
                    let fits = takes(known);
                    assert_answer(answer, fits, &sum(&known.values));
                    self.tally.count(fits);
                }
            }
            Step::Join(on, a, b) => {
                let (engine, takes) = self.on(*on);
                if let (Some((a, known)), Some((b, other))) = (self.any(*a), self.any(*b)) {
                    let answer = engine.submit(joined, (a, b.clone())).wait();
                    let expected = sum(&known.values).wrapping_mul(3) + sum(&other.values);
                    let fits = takes(known) && takes(other);
                    assert_answer(answer, fits, &expected);
                    self.tally.count(fits);
                }
            }
            Step::Move(on, of) => {
                let Some((array, mut known)) = pick(&mut self.own, *of) else {
                    return;
                };
                let (engine, takes) = self.on(*on);
                let answer = engine.submit(doubled, (array,)).wait();
                known.values.iter_mut().for_each(|x| *x = x.wrapping_mul(2));
                let answer = answer.map(|array| (array.to_vec(), array));
                let (values, array) = match answer {
                    Ok((values, array)) => (Ok(values), Some(array)),
                    Err(error) => (Err(error), None),
                };
                let fits = takes(&known);
                assert_answer(values, fits, &known.values);
                self.tally.count(fits);
                self.own.extend(array.map(|array| (array, known)));
            }
            Step::Lend(on, of) => {
                let Some((mut array, mut known)) = pick(&mut self.own, *of) else {
                    return;
                };
                let (engine, takes) = self.on(*on);
                let fits = takes(&known);
                let answer = engine.scope(|scope| scope.submit(add_one, (&mut array,)).wait());
                match answer {
                    Ok(done) => assert!(fits && done.is_ok(), "{done:?}"),
                    Err(error) => {
                        assert!(!fits, "{error}");
                        assert_eq!(*error.kind(), rejected(Rejection::ForeignArray));
                    }
                }
                if fits {
                    known.values.iter_mut().for_each(|x| *x = x.wrapping_add(1));
                }
                assert_eq!(array[..], known.values[..]);
                self.own.push((array, known));
                self.tally.count(fits);
            }
            Step::Pend(on, of) => {
                let (home, lab) = &self.engines[*on];
                let Some((array, known)) = self.any(*of) else {
                    return;
                };
                if known.home == *home {
                    let pending = Pending {
                        job: lab.submit(sum, (array,)),
                        home: *home,
                        memory: known.memory,
                        expected: sum(&known.values),
                        dropped: false,
                        endless: false,
                    };
                    self.pending.push(pending);
                }
            }
            Step::Settle(of) => {
                if let Some(pending) = pick(&mut self.pending, *of) {
                    self.tally.shut_down += pending.settle();
                }
            }
            Step::IntoMut(of) => self.unseal(*of),
            Step::Seal(of) => {
                if let Some((array, known)) = pick(&mut self.own, *of) {
                    self.shared.push((array.seal(), known));
                }
            }
            Step::End(on, drain) => self.end(*on, *drain),
        }
    }

    fn make(&mut self, place: u8, len: usize) {
        let memory = self.number();
        let first = memory as u32;
        let values: Vec<_> = (0..len).map(|i| first.wrapping_add(i as u32)).collect();
        let (home, array) = match place {
            0 => (0, Array::from_slice(&values)),
            1 | 2 => {
                let (home, lab) = &self.engines[usize::from(place) - 1];
                (*home, lab.from_slice(&values).unwrap())
            }
            _ => {
                let (home, lab) = &self.engines[usize::from(place) - 3];
                let made = lab.submit(count_from, (first, len as u64)).wait();
                (*home, made.unwrap())
            }
        };
        let known = Known {
            home,
            memory,
            values,
        };
        self.shared.push((array, known));
    }

    fn unseal(&mut self, of: Index) {
        let Some((array, known)) = pick(&mut self.shared, of) else {
            return;
        };
        // An unanswered job holds it as well, an answered one does not.
        let (those, others) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|pending| pending.memory == known.memory);
        self.pending = others;
        let those: Vec<_> = those;
        self.tally.shut_down += those.into_iter().map(Pending::settle).sum::<usize>();
        let alone = self
            .shared
            .iter()
            .all(|(_, other)| other.memory != known.memory);
        match array.try_into_mut() {
            Ok(array) => {
                assert!(alone, "another handle is alive");
                self.tally.alone += 1;
                assert_eq!(array[..], known.values[..]);
                self.own.push((array, known));
            }
            Err(array) => {
                assert!(!alone, "it is the only handle");
                self.tally.shared += 1;
                assert_eq!(array[..], known.values[..]);
                self.shared.push((array, known));
            }
        }
    }

    /// An endless job, and behind it one for each array of the engine.
    fn hang(&mut self, home: u64, lab: &Lab) {
        let job = |job, memory| Pending {
            job,
            home,
            memory,
            expected: 0,
            dropped: false,
            endless: true,
        };
        self.pending.push(job(lab.submit(forever, ()), 0));
        for (array, known) in self.shared.iter().filter(|(_, known)| known.home == home) {
            self.pending
                .push(job(lab.submit(sum, (array,)), known.memory));
        }
    }

    fn end(&mut self, on: usize, drain: bool) {
        let number = self.number();
        let (home, lab) = std::mem::replace(&mut self.engines[on], (number, start()));
        if !drain {
            self.hang(home, &lab);
        }
        let engine = lab.into_inner();
        match drain {
            true => engine.shutdown(),
            false => drop(engine),
        }
        let of_it = self.pending.iter_mut();
        of_it
            .filter(|pending| pending.home == home)
            .for_each(|pending| {
                pending.dropped = !drain;
                assert!(pending.job.is_done(), "the engine is gone");
            });
    }

    fn finish(mut self) -> Tally {
        for (array, known) in &self.shared {
            assert_eq!(array[..], known.values[..]);
        }
        self.tally.shut_down += self.pending.drain(..).map(Pending::settle).sum::<usize>();
        self.shared.clear();
        self.own.clear();
        for (_, lab) in &self.engines {
            lab.assert_in_use(0);
        }
        self.tally
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.values += other.values;
        self.foreign += other.foreign;
        self.alone += other.alone;
        self.shared += other.shared;
        self.shut_down += other.shut_down;
    }

    fn count(&mut self, fits: bool) {
        match fits {
            true => self.values += 1,
            false => self.foreign += 1,
        }
    }
}

impl Pending {
    /// 1 if the end of its engine was the end of the job.
    fn settle(mut self) -> usize {
        let answer = self.job.wait_timeout(Duration::MAX).unwrap();
        match answer {
            Ok(value) => {
                assert!(!self.endless, "nothing came to an end before it");
                assert_eq!(value, self.expected);
                0
            }
            Err(error) => {
                assert!(self.dropped, "{error}");
                assert_eq!(*error.kind(), JobErrorKind::ShutDown);
                1
            }
        }
    }
}

fn assert_answer<T: PartialEq + std::fmt::Debug>(
    answer: Result<T, JobError>,
    fits: bool,
    expected: &T,
) {
    match answer {
        Ok(value) => {
            assert!(fits && value == *expected, "{value:?} for {expected:?}");
        }
        Err(error) => {
            assert!(!fits, "{error}");
            assert_eq!(*error.kind(), rejected(Rejection::ForeignArray));
        }
    }
}

fn handles_against_a_model() {
    const ALL: usize = 12_000;
    let config = ProptestConfig {
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::with_cases((ALL / STEPS) as u32)
    };
    let seed = seeds(1).start;
    case(format!("seed {seed}"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let all = std::cell::RefCell::new(Tally::default());
    let mut runner = TestRunner::new_with_rng(config, random);
    let run = runner.run(&prop::collection::vec(any_step(), STEPS), |steps| {
        let mut play = Play::new();
        for it in &steps {
            step(format!("{it:?}"));
            play.step(it);
        }
        let tally = play.finish();
        all.borrow_mut().add(&tally);
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
    let all = all.into_inner();
    println!("{all:?}");
    assert!(all.values.min(all.foreign) > ALL / 20);
    assert!(all.alone.min(all.shared) > ALL / 100);
    assert!(all.shut_down > ALL / 1000);
}
