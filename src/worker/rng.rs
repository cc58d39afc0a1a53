//! Random numbers that depend only on the job: [`rng`].

use std::cell::Cell;
use std::convert::Infallible;
use std::marker::PhantomData;

use rand::rngs::ChaCha8Rng;
use rand::{SeedableRng, TryRng};

use super::lane;
use crate::kernel::seed_in_series;
use crate::sys::random;

thread_local! {
    /// The job that runs inline, on this thread of the program.
    static INLINE_JOB: Cell<Option<InlineJob>> = const { Cell::new(None) };
    /// Whether the creation or the drop of a scratch value runs on this thread.
    static IN_SCRATCH: Cell<bool> = const { Cell::new(false) };
    /// `Some` while the job on this thread iterates over the elements of an array.
    static ELEMENTS: Cell<Option<Elements>> = const { Cell::new(None) };
    /// The index of the current element.
    static ELEMENT: Cell<u64> = const { Cell::new(0) };
}

/// The number of generators that a job has made. Generators for scratch values are counted separately, because
/// scheduling decides which job makes such a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GeneratorCount {
    own: u64,
    in_scratch: u64,
}

impl GeneratorCount {
    /// Counts a generator and returns the number of its stream, which is unique in the job.
    pub(super) fn next_stream(&mut self) -> u64 {
        let in_scratch = IN_SCRATCH.try_with(Cell::get).unwrap_or(false);
        let count = if in_scratch {
            &mut self.in_scratch
        } else {
            &mut self.own
        };
        let number = *count;
        *count += 1;
        number | u64::from(in_scratch) << 63
    }
}

/// Runs `f`, which creates or drops a scratch value. Generators that `f` makes do not change the generators of the
/// calling job.
pub(super) fn in_scratch<T>(f: impl FnOnce() -> T) -> T {
    let _guard = InScratch::set(true);
    f()
}

/// Restores the previous value of `IN_SCRATCH` when dropped.
#[derive(Debug)]
struct InScratch(bool);

impl InScratch {
    fn set(in_scratch: bool) -> Self {
        let previous = IN_SCRATCH.try_with(|flag| flag.replace(in_scratch));
        Self(previous.unwrap_or(false))
    }
}

impl Drop for InScratch {
    fn drop(&mut self) {
        let _ = IN_SCRATCH.try_with(|flag| flag.set(self.0));
    }
}

/// The seed of a generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RngSeed {
    /// The seed of the run.
    pub(super) run: u64,
    /// The seed of the job.
    pub(super) job: u64,
    /// The number of the generator in its job.
    pub(super) stream: u64,
}

/// A job that runs inline.
#[derive(Clone, Copy, Debug)]
struct InlineJob {
    run: u64,
    job: u64,
    generators: GeneratorCount,
}

/// An iteration over an array in which each element draws random numbers as if it were a job.
#[derive(Clone, Copy, Debug)]
struct Elements {
    series: u64,
    /// The index of the last element for which generators were made, and the number of these generators.
    last: Option<(u64, GeneratorCount)>,
}

/// In a kernel: runs `f`, which does the work of several jobs, such as the elements of an array, and stores the index
/// of each in the cell before it begins. The [random numbers](rng) that are drawn for one depend only on the number of
/// its [series](crate::raw::Series) and on its index.
pub fn for_each_element(series: u64, f: impl FnOnce(&Cell<u64>)) {
    let elements = Elements { series, last: None };
    let _restore = RestoreElements {
        elements: ELEMENTS.replace(Some(elements)),
        element: ELEMENT.get(),
    };
    ELEMENT.with(f);
}

/// Restores the previous `ELEMENTS` when dropped.
#[derive(Debug)]
struct RestoreElements {
    elements: Option<Elements>,
    element: u64,
}

impl Drop for RestoreElements {
    fn drop(&mut self) {
        ELEMENTS.set(self.elements);
        ELEMENT.set(self.element);
    }
}

/// A generator of random numbers for one job: see [`rng`](crate::rng).
///
/// It implements `Rng` of the crate `rand` 0.10. Its numbers for a seed may change between versions of this crate.
#[derive(Debug)]
pub struct JobRng(ChaCha8Rng);

impl TryRng for JobRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(to)
    }
}

/// In a kernel: returns a random number generator that belongs to the running job.
///
/// Its numbers depend only on the seed of the run ([`Builder::seed`](crate::engine::Builder::seed)) and on the identity
/// of the job. They do not depend on the number of workers, the worker that runs the job, the attempt, or other jobs.
/// No two jobs of a run draw the same numbers, and neither do two generators of one job.
///
/// | job of | identity |
/// |---|---|
/// | [`Engine::submit`](crate::Engine::submit), [`Engine::job`](crate::Engine::job) | its number among the jobs submitted in these ways; to draw the same numbers in every run, submit from one thread |
/// | [`Engine::actor`](crate::Engine::actor) and its calls | the same |
/// | [`Engine::map`](crate::Engine::map) | the number of the call on the engine, and the index of the item |
/// | [`Engine::scope`](crate::Engine::scope) | the number of the call on the engine, and the number of the job in the scope |
/// | one that was [spawned](crate::Spawn) | the identity of the job that spawned it, and the position of the call in its `Spawn` |
/// | a stage of a [`Stream`](crate::stream::Stream) | the number of the call on the engine, the stage, and the item or window |
/// | [`Par::reduce`](crate::par::Par::reduce) | the number of the call on the engine, and the position of the chunk or pair |
/// | [`Par::map`](crate::par::Par::map) | the number of the call on the engine, and the index of the element |
///
/// [`Par::apply`](crate::par::Par::apply) and [`ParMut::apply`](crate::par::ParMut::apply) divide arrays by the number
/// of workers, so the random numbers in their chunks depend on it. If that matters, run a kernel over
/// [`Array::partitions`](crate::Array::partitions).
///
/// The generator implements the traits of the crate `rand` 0.10, which draw from ranges and distributions, shuffle and
/// choose.
///
/// ```
/// use rand::RngExt;
///
/// /// Counts random points of a square that are inside its circle.
/// fn count_hits(times: u64) -> u64 {
///     let mut rng = arenite::rng();
///     let mut hits = || {
///         let (x, y): (f64, f64) = (rng.random(), rng.random());
///         x * x + y * y < 1.0
///     };
///     (0..times).filter(|_| hits()).count() as u64
/// }
///
/// let engine = arenite::Engine::builder().seed(7).inline();
/// let hits: Result<Vec<u64>, _> = engine.map(count_hits, (0..10).map(|_| (1000,))).collect();
/// let pi = hits?.iter().sum::<u64>() as f64 / 10_000.0 * 4.0;
/// assert!((pi - std::f64::consts::PI).abs() < 0.05, "{pi}");
/// # Ok::<(), arenite::JobError>(())
/// ```
///
/// Outside a kernel, in `on_worker_start` and on threads that a kernel starts, the generator has a random seed. To draw
/// on a thread, pass it a generator that the kernel has made.
pub fn rng() -> JobRng {
    let seed = element_seed()
        .or_else(inline_job_seed)
        .or_else(lane::next_rng_seed);
    let RngSeed { run, job, stream } = seed.unwrap_or_else(random_seed);
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&run.to_le_bytes());
    seed[8..16].copy_from_slice(&job.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(seed);
    rng.set_stream(stream);
    JobRng(rng)
}

fn element_seed() -> Option<RngSeed> {
    let mut elements = ELEMENTS.try_with(Cell::get).ok().flatten()?;
    let inline = INLINE_JOB.get().map(|job| job.run);
    let run = inline.or_else(lane::seed_of_run)?;
    let element = ELEMENT.get();
    let mut generators = match elements.last {
        Some((last, generators)) if last == element => generators,
        _ => GeneratorCount::default(),
    };
    let stream = generators.next_stream();
    elements.last = Some((element, generators));
    ELEMENTS.set(Some(elements));
    Some(RngSeed {
        run,
        job: seed_in_series(elements.series, element),
        stream,
    })
}

fn inline_job_seed() -> Option<RngSeed> {
    let mut inline = INLINE_JOB.try_with(Cell::get).ok().flatten()?;
    let stream = inline.generators.next_stream();
    INLINE_JOB.set(Some(inline));
    let InlineJob { run, job, .. } = inline;
    Some(RngSeed { run, job, stream })
}

fn random_seed() -> RngSeed {
    RngSeed {
        run: random(),
        job: random(),
        stream: 0,
    }
}

/// Makes the job with these seeds the inline job of this thread, until the guard is dropped.
pub(crate) fn enter_inline_job(run: u64, job: u64) -> InlineJobGuard {
    InlineJobGuard {
        outer: INLINE_JOB.replace(Some(InlineJob {
            run,
            job,
            generators: GeneratorCount::default(),
        })),
        elements: ELEMENTS.take(),
        _in_scratch: InScratch::set(false),
        thread: PhantomData,
    }
}

/// Returns the seeds of the run and of the job that runs inline on this thread, or random seeds if no job runs.
pub(crate) fn inline_job_seeds() -> (u64, u64) {
    INLINE_JOB
        .get()
        .map_or_else(|| (random(), random()), |inline| (inline.run, inline.job))
}

/// Restores the previous inline job when dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct InlineJobGuard {
    outer: Option<InlineJob>,
    elements: Option<Elements>,
    _in_scratch: InScratch,
    thread: PhantomData<*const ()>,
}

impl Drop for InlineJobGuard {
    fn drop(&mut self) {
        INLINE_JOB.set(self.outer);
        ELEMENTS.set(self.elements);
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
            let _job = enter_inline_job(run, job);
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
    fn an_outer_job_continues_after_an_inner_one() {
        let plain = {
            let _job = enter_inline_job(1, 1);
            [next(), next()]
        };
        let _job = enter_inline_job(1, 1);
        let first = next();
        {
            let _inner = enter_inline_job(1, 1);
            assert_eq!([next(), next()], plain);
        }
        assert_eq!([first, next()], plain);
    }

    #[test]
    fn generators_for_scratch_values_do_not_change_those_of_the_job() {
        let plain = {
            let _job = enter_inline_job(1, 1);
            [next(), next()]
        };
        let _job = enter_inline_job(1, 1);
        let first = next();
        let made = in_scratch(|| {
            let inner = {
                let _inner = enter_inline_job(1, 1);
                [next(), next()]
            };
            assert_eq!(inner, plain, "a job of its own");
            [next(), in_scratch(next), next()]
        });
        let panicked = std::panic::catch_unwind(|| in_scratch(|| panic!("half done")));
        assert!(panicked.is_err());
        assert_eq!([first, next()], plain);
        let mut distinct = [&plain[..], &made].concat();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 5);
    }

    /// Returns the numbers that these elements draw, in this order, in a call of this series.
    fn drawn_by(series: u64, elements: &[u64]) -> Vec<[u64; 2]> {
        let mut drawn = Vec::new();
        for_each_element(series, |at| {
            drawn.extend(elements.iter().map(|&element| {
                at.set(element);
                [next(), next()]
            }));
        });
        drawn
    }

    #[test]
    fn an_element_draws_the_same_whatever_the_elements_before_it() {
        let _job = enter_inline_job(1, 1);
        let all = drawn_by(5, &[0, 1, 2, 3]);
        assert_eq!(drawn_by(5, &[3]), all[3..]);
        assert_eq!(drawn_by(5, &[2, 0]), [all[2], all[0]]);
        let mut distinct = [all.concat(), drawn_by(6, &[0, 1, 2, 3]).concat()].concat();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 16);
        // The same numbers as a job of that series.
        let _inner = enter_inline_job(1, seed_in_series(5, 2));
        assert_eq!([next(), next()], all[2]);
    }

    #[test]
    fn calls_in_an_element_do_not_change_its_numbers() {
        let _job = enter_inline_job(1, 1);
        let plain = drawn_by(5, &[7])[0];
        for_each_element(5, |at| {
            at.set(7);
            let first = next();
            drawn_by(6, &[1, 2]);
            {
                let _inner = enter_inline_job(1, 1);
                assert_ne!(next(), plain[1], "a job of its own");
                drawn_by(6, &[3]);
            }
            let panicked =
                std::panic::catch_unwind(|| for_each_element(8, |_| panic!("half done")));
            assert!(panicked.is_err());
            assert_eq!([first, next()], plain);
        });
        let job = {
            let _inner = enter_inline_job(1, 1);
            next()
        };
        assert_eq!(next(), job, "the job itself has drawn nothing");
    }

    #[test]
    fn without_a_job_the_seed_is_random() {
        assert_ne!(next(), next());
    }

    /// Programs publish results, so the numbers are part of the interface.
    #[test]
    fn numbers_do_not_change_between_versions() {
        let _job = enter_inline_job(7, 1);
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
