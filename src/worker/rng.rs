//! Random numbers that depend on the job alone.

use std::cell::Cell;
use std::marker::PhantomData;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::lane;
use crate::kernel::seed_in_series;
use crate::sys::random;

thread_local! {
    /// The job that runs on this thread of the program itself.
    static HERE: Cell<Option<Here>> = const { Cell::new(None) };
    /// What runs on this thread runs because of what is kept here, and not in each run of its job.
    static ASIDE: Cell<bool> = const { Cell::new(false) };
    /// The job on this thread goes through the elements of an array.
    static EACH: Cell<Option<Each>> = const { Cell::new(None) };
    /// At which one it is.
    static AT: Cell<u64> = const { Cell::new(0) };
}

/// How many generators a job has made by itself, and how many while a value was made that stays with the worker: which job does
/// that is chance, so they do not count for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    own: u64,
    aside: u64,
}

impl Made {
    /// The stream of the next one, of which no other of this job has the number.
    pub(super) fn next_stream(&mut self) -> u64 {
        let aside = ASIDE.try_with(Cell::get).unwrap_or(false);
        let made = if aside {
            &mut self.aside
        } else {
            &mut self.own
        };
        let number = *made;
        *made += 1;
        number | u64::from(aside) << 63
    }
}

/// Runs `f`, whose random numbers do not move those of the job that it is called by.
pub(super) fn aside<T>(f: impl FnOnce() -> T) -> T {
    let _aside = Aside::set(true);
    f()
}

/// Afterwards it is as it was before.
#[derive(Debug)]
struct Aside(bool);

impl Aside {
    fn set(aside: bool) -> Self {
        Self(ASIDE.try_with(|is| is.replace(aside)).unwrap_or(false))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = ASIDE.try_with(|is| is.set(self.0));
    }
}

/// What a job's random numbers depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drawing {
    /// The seed of the run.
    pub(super) run: u64,
    /// The job's own.
    pub(super) job: u64,
    /// Which of its generators this is.
    pub(super) stream: u64,
}

/// A job that runs on this thread of the program itself.
#[derive(Clone, Copy, Debug)]
struct Here {
    run: u64,
    job: u64,
    made: Made,
}

/// Elements, each of which draws as if it were a job.
#[derive(Clone, Copy, Debug)]
struct Each {
    series: u64,
    /// The last one that drew, and what it has made.
    drew: Option<(u64, Made)>,
}

/// Runs `f`, which goes through elements of an array and writes down at which it is. What each of them draws depends on
/// the series and on that, not on how many others `f` has to do with.
pub(crate) fn each(series: u64, f: impl FnOnce(&Cell<u64>)) {
    let each = Each { series, drew: None };
    let _outer = Outer {
        each: EACH.replace(Some(each)),
        at: AT.get(),
    };
    AT.with(f);
}

/// Afterwards it is the element that was there before.
#[derive(Debug)]
struct Outer {
    each: Option<Each>,
    at: u64,
}

impl Drop for Outer {
    fn drop(&mut self) {
        EACH.set(self.each);
        AT.set(self.at);
    }
}

/// In a kernel: a generator of random numbers that belongs to this job.
///
/// Its numbers depend on the seed of the run ([`Builder::seed`](crate::engine::Builder::seed)) and on which job this is, as
/// the program sees it: not on how many workers there are, which of them runs it, at which attempt, and what else runs.
/// No two jobs of a run draw the same numbers, and neither do two generators of one job.
///
/// | job of | which job |
/// |---|---|
/// | [`Engine::submit`](crate::Engine::submit), [`Engine::job`](crate::Engine::job) | the how many-th that is submitted in these ways, so submit from one thread if you want the same numbers again |
/// | [`Engine::actor`](crate::Engine::actor) and its calls | the same |
/// | [`Graph`](crate::Graph) | the how many-th call of the engine, and which node |
/// | [`Engine::map`](crate::Engine::map) | the how many-th call of the engine, and the index of the item |
/// | [`Engine::scope`](crate::Engine::scope) | the how many-th call of the engine, and the how many-th job of the scope |
/// | one that was [spawned](crate::Spawn) | that of the job that spawned it, and the place of the call in its `Spawn` |
/// | a stage of a [`Stream`](crate::stream::Stream) | the how many-th call of the engine, which stage, and which item or window |
/// | [`Par::reduce`](crate::par::Par::reduce) | the how many-th call of the engine, and the place of the chunk or pair |
/// | [`Par::map`](crate::par::Par::map) | the how many-th call of the engine, and the index of the element |
///
/// [`Par::apply`](crate::par::Par::apply) and [`ParMut::apply`](crate::par::ParMut::apply) cut arrays by the number of workers, so what
/// their chunks draw depends on it; where that matters run a kernel over [`Array::partitions`](crate::Array::partitions).
///
/// It is a generator of the crate [`rand`], which is re-exported as [`arenite::rand`](crate::rand): draw from ranges and
/// distributions, shuffle and choose by its traits.
///
/// ```
/// use arenite::rand::RngExt;
///
/// /// Throws at a square; how often it hits the circle in it.
/// fn throw(times: u64) -> u64 {
///     let mut rng = arenite::rng();
///     let mut hits = || {
///         let (x, y): (f64, f64) = (rng.random(), rng.random());
///         x * x + y * y < 1.0
///     };
///     (0..times).filter(|_| hits()).count() as u64
/// }
///
/// let engine = arenite::Engine::builder().seed(7).inline();
/// let hits: Result<Vec<u64>, _> = engine.map(throw, (0..10).map(|_| (1000,))).collect();
/// let pi = hits?.iter().sum::<u64>() as f64 / 10_000.0 * 4.0;
/// assert!((pi - std::f64::consts::PI).abs() < 0.05, "{pi}");
/// # Ok::<(), arenite::JobError>(())
/// ```
///
/// Outside a kernel, in `on_worker_start` and on threads that a kernel starts, the generator has a seed of chance. Give a
/// thread one that the kernel has made.
pub fn rng() -> ChaCha8Rng {
    let drawing = take_each().or_else(take_here).or_else(lane::drawing);
    let Drawing { run, job, stream } = drawing.unwrap_or_else(by_chance);
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&run.to_le_bytes());
    seed[8..16].copy_from_slice(&job.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(seed);
    rng.set_stream(stream);
    rng
}

fn take_each() -> Option<Drawing> {
    let mut each = EACH.try_with(Cell::get).ok().flatten()?;
    let here = HERE.get().map(|here| here.run);
    let run = here.or_else(lane::seed_of_run)?;
    let at = AT.get();
    let mut made = match each.drew {
        Some((drew, made)) if drew == at => made,
        _ => Made::default(),
    };
    let stream = made.next_stream();
    each.drew = Some((at, made));
    EACH.set(Some(each));
    Some(Drawing {
        run,
        job: seed_in_series(each.series, at),
        stream,
    })
}

fn take_here() -> Option<Drawing> {
    let mut here = HERE.try_with(Cell::get).ok().flatten()?;
    let stream = here.made.next_stream();
    HERE.set(Some(here));
    let Here { run, job, .. } = here;
    Some(Drawing { run, job, stream })
}

fn by_chance() -> Drawing {
    Drawing {
        run: random(),
        job: random(),
        stream: 0,
    }
}

/// The job with this seed runs on this thread until the guard is dropped.
pub(crate) fn enter(run: u64, job: u64) -> Entered {
    Entered {
        before: HERE.replace(Some(Here {
            run,
            job,
            made: Made::default(),
        })),
        each: EACH.take(),
        _aside: Aside::set(false),
        thread: PhantomData,
    }
}

/// Run and job of the one that runs on this thread of the program itself.
pub(crate) fn entered() -> (u64, u64) {
    HERE.get()
        .map_or_else(|| (random(), random()), |here| (here.run, here.job))
}

/// Afterwards it is the job that was there before.
#[must_use]
#[derive(Debug)]
pub(crate) struct Entered {
    before: Option<Here>,
    each: Option<Each>,
    _aside: Aside,
    thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        HERE.set(self.before);
        EACH.set(self.each);
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    fn next() -> u64 {
        rng().next_u64()
    }

    #[test]
    fn numbers_depend_on_run_job_and_generator() {
        let drawn = |run, job| {
            let _entered = enter(run, job);
            [next(), next()]
        };
        let all = [drawn(1, 1), drawn(1, 2), drawn(2, 1), drawn(2, 2)];
        let mut distinct = all.concat();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 8);
        assert_eq!(all, [drawn(1, 1), drawn(1, 2), drawn(2, 1), drawn(2, 2)]);
    }

    #[test]
    fn the_job_outside_goes_on_where_it_was() {
        let plain = {
            let _entered = enter(1, 1);
            [next(), next()]
        };
        let _entered = enter(1, 1);
        let first = next();
        {
            let _inner = enter(1, 1);
            assert_eq!([next(), next()], plain);
        }
        assert_eq!([first, next()], plain);
    }

    #[test]
    fn what_is_made_aside_moves_nothing_and_has_numbers_of_its_own() {
        let plain = {
            let _entered = enter(1, 1);
            [next(), next()]
        };
        let _entered = enter(1, 1);
        let first = next();
        let made = aside(|| {
            let inner = {
                let _inner = enter(1, 1);
                [next(), next()]
            };
            assert_eq!(inner, plain, "a job of its own");
            [next(), aside(next), next()]
        });
        let panicked = std::panic::catch_unwind(|| aside(|| panic!("half done")));
        assert!(panicked.is_err());
        assert_eq!([first, next()], plain);
        let mut distinct = [&plain[..], &made].concat();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 5);
    }

    /// Elements as they are drawn for by a call of this series, in this order.
    fn drawn_by(series: u64, elements: &[u64]) -> Vec<[u64; 2]> {
        let mut drawn = Vec::new();
        each(series, |at| {
            drawn.extend(elements.iter().map(|&element| {
                at.set(element);
                [next(), next()]
            }));
        });
        drawn
    }

    #[test]
    fn an_element_draws_the_same_whatever_is_gone_through_before_it() {
        let _entered = enter(1, 1);
        let all = drawn_by(5, &[0, 1, 2, 3]);
        assert_eq!(drawn_by(5, &[3]), all[3..]);
        assert_eq!(drawn_by(5, &[2, 0]), [all[2], all[0]]);
        let mut distinct = [all.concat(), drawn_by(6, &[0, 1, 2, 3]).concat()].concat();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 16);
        // As a job of that series draws.
        let _inner = enter(1, seed_in_series(5, 2));
        assert_eq!([next(), next()], all[2]);
    }

    #[test]
    fn what_an_element_calls_moves_nothing() {
        let _entered = enter(1, 1);
        let plain = drawn_by(5, &[7])[0];
        each(5, |at| {
            at.set(7);
            let first = next();
            drawn_by(6, &[1, 2]);
            {
                let _inner = enter(1, 1);
                assert_ne!(next(), plain[1], "a job of its own");
                drawn_by(6, &[3]);
            }
            let panicked = std::panic::catch_unwind(|| each(8, |_| panic!("half done")));
            assert!(panicked.is_err());
            assert_eq!([first, next()], plain);
        });
        let job = {
            let _inner = enter(1, 1);
            next()
        };
        assert_eq!(next(), job, "the job itself has drawn nothing");
    }

    #[test]
    fn without_a_job_it_is_chance() {
        assert_ne!(next(), next());
    }

    /// What was drawn once is drawn for good: programs write results down.
    #[test]
    fn numbers_stay_the_same_from_version_to_version() {
        let _entered = enter(7, 1);
        let mut rng = rng();
        let drawn = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        let known = [
            16_046_041_343_225_761_205,
            995_032_270_771_533_213,
            33_059_080_797_057_170,
        ];
        assert_eq!(drawn, known);
    }
}
