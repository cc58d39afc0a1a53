//! Arrays in the state of an actor.

use super::*;
use crate::harness::assert_kind;

tests![
    arrays_of_the_initial_kernel_stay_in_the_state,
    the_checkpoint_of_a_restored_state_stays_readable,
    arrays_retained_beyond_a_call_are_detected,
    hidden_arrays_are_detected_at_the_end_of_an_actor,
    arrays_shared_with_other_jobs_are_copied,
];

struct Model {
    weights: Array<u64>,
}

impl Model {
    fn load(weights: &Array<u64>) -> Self {
        Self {
            weights: weights.clone(),
        }
    }

    fn total(&self) -> u64 {
        self.weights.iter().sum()
    }

    fn weights(&self) -> Array<u64> {
        self.weights.clone()
    }
}

fn arrays_of_the_initial_kernel_stay_in_the_state() {
    let lab = Lab::new(2);
    // More than one grant.
    let weights = lab.from_fn(2_000_000, |i| i as u64).unwrap();
    let total: u64 = weights.iter().sum();
    let before = lab.stats().arena.in_use;
    let models = [(); 2].map(|()| lab.actor(Model::load, (&weights,)).start());
    drop(weights);
    for model in &models {
        assert_eq!(model.call(Model::total, ()).wait().unwrap(), total);
    }
    assert_eq!(lab.stats().arena.in_use, before, "no array was copied");
    // A returned array is the same memory.
    let back = models[0].call(Model::weights, ()).wait().unwrap();
    assert_eq!(back.iter().sum::<u64>(), total);
    assert_eq!(lab.stats().arena.in_use, before);
    // It is freed when the last state has ended, or died with its worker.
    drop(back);
    let [ends, dies] = models;
    drop(ends);
    assert_eq!(dies.call(Model::total, ()).wait().unwrap(), total);
    let worker = dies.status().worker.unwrap() as usize;
    lab.replace(worker);
    assert_kind!(
        dies.call(Model::total, ()).wait().unwrap_err(),
        JobErrorKind::Dependency(FailedDependency::Actor { .. })
    );
    // Although a handle of the ended actor remains.
    lab.assert_in_use(0);
    drop(dies);
}

fn the_checkpoint_of_a_restored_state_stays_readable() {
    const LEN: usize = 100_000;
    /// Counts in an array of its own, and retains the one that it was restored from.
    #[derive(Default)]
    struct Counts {
        base: Option<Array<u64>>,
        count: u64,
    }
    impl Counts {
        fn restore(saved: &Array<u64>) -> Self {
            Self {
                base: Some(saved.clone()),
                count: saved[0],
            }
        }
        fn save(&self) -> Array<u64> {
            Array::from_fn(LEN, |_| self.count)
        }
        /// The count, and the current first element of the array that it was restored from.
        fn add(&mut self) -> (u64, u64) {
            self.count += 1;
            let base = self.base.as_deref().unwrap_or(&[0]);
            (base[0], base.iter().fold(0, |sum, x| sum.wrapping_add(*x)))
        }
        fn base(&self) -> Option<Array<u64>> {
            self.base.clone()
        }
        fn die(&mut self) {
            std::process::abort();
        }
    }
    let lab = Lab::new(1);
    let counts = lab
        .actor(Counts::default, ())
        .checkpoint(1, Counts::save, Counts::restore)
        .start();
    counts.call(Counts::add, ()).wait().unwrap();
    lab.failure_of(counts.call(Counts::die, ()));
    // Each call makes a newer checkpoint; other arrays reuse the memory of freed ones.
    let mut others = Vec::new();
    for _ in 0..10 {
        let (first, sum) = counts.call(Counts::add, ()).wait().unwrap();
        assert_eq!((first, sum), (1, LEN as u64));
        let other = lab.submit(|len: usize| Array::from_fn(len, |_| u64::MAX), (LEN,));
        others.push(other.wait().unwrap());
    }
    let base = counts.call(Counts::base, ()).wait().unwrap().unwrap();
    assert!(base.iter().all(|&x| x == 1));
    assert_eq!(counts.status().restarts, 1);
    drop((base, others, counts));
    lab.assert_in_use(0);
}

fn arrays_retained_beyond_a_call_are_detected() {
    struct Thief {
        kept: Vec<Array<u8>>,
    }
    fn keep(thief: &mut Thief, array: &Array<u8>) {
        thief.kept.push(array.clone());
    }
    fn make(thief: &mut Thief, _: &Array<u8>) {
        thief.kept.push(ArrayMut::zeros(100).seal());
    }
    fn look(thief: &mut Thief, _: &Array<u8>) {
        assert!(!thief.kept.is_empty());
    }
    let lab = Lab::new(1);
    let array = lab.from_slice(&[1u8; 100]).unwrap();
    let innocent = || Thief { kept: Vec::new() };
    let born = || Thief {
        kept: vec![Array::from_slice(&[1])],
    };
    let escaped = JobErrorKind::Lost(WorkerExit::Escaped { count: 1 });
    let is_detected = |job: Job<()>| assert_eq!(lost(job), (escaped.clone(), 0, false));
    is_detected(lab.actor(innocent, ()).start().call(keep, (&array,)));
    is_detected(lab.actor(innocent, ()).start().call(make, (&array,)));
    is_detected(lab.actor(born, ()).start().call(look, (&array,)));
    drop(array);
    lab.assert_in_use(0);
}

fn hidden_arrays_are_detected_at_the_end_of_an_actor() {
    static HIDDEN: Mutex<Vec<Array<u8>>> = Mutex::new(Vec::new());
    fn hide(array: &Array<u8>) -> u64 {
        HIDDEN.lock().unwrap().push(array.clone());
        0
    }
    fn hide_and_fail(array: &Array<u8>) -> Result<u64, &'static str> {
        hide(array);
        Err("no")
    }
    let lab = Lab::new(1);
    let array = lab.from_slice(&[1u8; 100]).unwrap();
    let thief = lab.actor(hide, (&array,)).start();
    assert_eq!(
        thief.call(|x: &u64| *x, ()).wait().unwrap(),
        0,
        "it may have it while it lives"
    );
    thief.stop();
    lab.await_restart(0, 1);
    let thief: Actor<u64> = lab.actor(hide_and_fail, (&array,)).start();
    let (why, ..) = lost(thief.call(|x: &u64| *x, ()));
    assert_eq!(why, JobErrorKind::Lost(WorkerExit::Escaped { count: 1 }));
    lab.await_restart(0, 2);
    drop(array);
    lab.assert_in_use(0);
}

/// Sharing is allowed while the actor lives, but its arrays belong to no other job.
fn arrays_shared_with_other_jobs_are_copied() {
    static SHOWN: Mutex<Vec<Array<u8>>> = Mutex::new(Vec::new());
    struct Shows(Array<u8>);
    impl Shows {
        fn new(array: &Array<u8>) -> Self {
            SHOWN.lock().unwrap().push(array.clone());
            Self(array.clone())
        }
        fn own(&self) -> Array<u8> {
            self.0.clone()
        }
        fn forget(&mut self) {
            SHOWN.lock().unwrap().clear();
        }
    }
    fn look() -> Array<u8> {
        SHOWN.lock().unwrap()[0].clone()
    }
    let lab = Lab::new(1);
    for len in [100, 100_000] {
        let array = lab.from_fn(len, |i| i as u8).unwrap();
        let shows = lab.actor(Shows::new, (&array,)).start();
        let other = lab.actor(|| 0_u64, ()).start();
        let before = shows.call(Shows::own, ()).wait().unwrap();
        let looked = [
            lab.submit(look, ()).wait().unwrap(),
            other.call(|_: &u64| look(), ()).wait().unwrap(),
        ];
        assert!(looked.iter().all(|looked| looked[..] == array[..]));
        assert_eq!(before[..], array[..]);
        shows.call(Shows::forget, ()).wait().unwrap();
        shows.stop();
    }
    assert_eq!(lab.stats().restarts(), 0);
    lab.assert_in_use(0);
}
