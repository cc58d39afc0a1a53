//! Endless data: a source, stages that are kernels, windows, and results as an iterator.
//!
//! ```
//! use std::time::Duration;
//! use arenite::{Array, Engine, stream::{Stream, Windows}};
//!
//! // A kernel: what is done with each frame, by the workers.
//! fn brightness(frame: &Array<u8>, gain: f32) -> f32 {
//!     gain * frame.iter().map(|&pixel| f32::from(pixel)).sum::<f32>() / frame.len() as f32
//! }
//!
//! let engine = Engine::inline();
//! let frames = (0..).map(|n| (n, engine.from_slice(&[n as u8; 64]).unwrap()));
//! let means = Stream::new(frames)
//!     .in_flight(8)
//!     // 10 frames a second; those that come up to half a second late are waited for.
//!     .event_time(|&(n, _)| Duration::from_millis(100) * n)
//!     .watermark(Duration::from_millis(500))
//!     .map(|(_, frame)| frame)
//!     .stage(brightness, (0.5,))
//!     .window(Windows::tumbling(Duration::from_secs(1)))?
//!     .fold(|| (0.0, 0), |(sum, count), mean| {
//!         *sum += mean;
//!         *count += 1;
//!     });
//! let seconds: Vec<f32> = means
//!     .run(&engine)
//!     .take(3)
//!     .map(|second| second.map(|second| second.value.0 / second.value.1 as f32))
//!     .collect::<Result<_, _>>()?;
//! assert_eq!(seconds, [2.25, 7.25, 12.25]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![doc = include_str!("README.md")]

mod after_stage;
mod control;
mod error;
mod flow;
mod run;
mod source;
mod stage;
#[cfg(test)]
mod tests;
mod window;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use after_stage::AfterStage;
use control::Control;
pub use control::{Handle, StreamStats};
pub use error::{StreamError, WindowError};
use flow::{BoxFlow, Driver, Each, FlatMap, Item, Marks};
pub use run::Run;
use source::{InlineSource, SourceItem, ThreadSource};
use stage::{CallFn, Stage, StageOptions, Started};
pub use window::{Window, Windowed, Windows};

use super::{Engine, OnFailure};
use crate::kernel::{Arg, Args, Bind, Kernel, Reply, SplitArgs, SplitFirst, captures_nothing};
use crate::supervisor::JobOptions;

/// A source, and the steps that each of its items passes through.
///
/// A stream is a plan, in the order of its steps; nothing runs before [`run`](Stream::run) is iterated over. Settings
/// of a stage ([`jobs`](Stream::jobs), [`options`](Stream::options) and so on) directly follow the stage.
///
/// The steps form one line, from one source to one consumer: no step splits or joins streams. To join several sources,
/// send their items into one channel and pass the channel to [`spawn`](Stream::spawn).
#[must_use = "a stream is a plan: nothing happens before it is run"]
pub struct Stream<'a, T, S = ()> {
    flow: BoxFlow<'a, T>,
    plan: StreamPlan,
    control: Arc<Control>,
    /// The settings of the last step, if it is a stage.
    last: S,
}

/// Settings of the whole stream.
#[derive(Clone, Copy)]
struct StreamPlan {
    in_flight: Option<usize>,
    bytes: Option<u64>,
    ordered: bool,
    on_failure: OnFailure,
    timed: bool,
    marked: bool,
    stages: usize,
}

impl<'a, T: 'a> Stream<'a, T> {
    fn from_flow(flow: BoxFlow<'a, T>, control: Arc<Control>) -> Self {
        let plan = StreamPlan {
            in_flight: None,
            bytes: None,
            ordered: true,
            // Differs from the default of the enum, because a stream that continues drops failed items.
            on_failure: OnFailure::Stop,
            timed: false,
            marked: false,
            stages: 0,
        };
        Self {
            flow,
            plan,
            control,
            last: (),
        }
    }

    /// Creates a stream of the items of an iterator, which may be endless.
    ///
    /// The iterator runs on the thread that iterates over the results, and only while no result is ready. An iterator
    /// that blocks delays results: give it a thread of its own with [`spawn`](Stream::spawn).
    pub fn new<I>(source: I) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: 'a,
    {
        let items = source.into_iter().map(SourceItem::Ok);
        Self::from_flow(Box::new(InlineSource::new(items)), Control::new())
    }

    /// Like [`new`](Stream::new), for a source that can fail: each error counts as a failed item, at which the stream
    /// stops or continues ([`on_failure`](Stream::on_failure)).
    ///
    /// ```
    /// use arenite::{Engine, OnFailure, stream::Stream};
    ///
    /// let lines = ["3", "three", "4"].into_iter().map(str::parse::<u64>);
    /// let squares = Stream::fallible(lines).on_failure(OnFailure::GoOn).stage(|n: u64| n * n, ());
    /// let squares: Result<Vec<_>, _> = squares.run(&Engine::inline()).collect();
    /// assert_eq!(squares?, [9, 16]);
    /// # Ok::<(), arenite::stream::StreamError>(())
    /// ```
    pub fn fallible<I, E>(source: I) -> Self
    where
        I: IntoIterator<Item = Result<T, E>>,
        I::IntoIter: 'a,
        E: fmt::Display,
    {
        let items = source.into_iter();
        let items = items.map(|item| item.map_err(|error| error.to_string()));
        Self::from_flow(Box::new(InlineSource::new(items)), Control::new())
    }

    /// Like [`new`](Stream::new), with the iterator on a thread of its own: for sources that block, such as cameras and
    /// sockets.
    ///
    /// The thread pulls at most as many items ahead as may be in flight. It starts with the first call of `next` on the
    /// results; if no thread can be started, the stream ends with [`StreamError::Source`]. The thread ends with the
    /// source. If the stream ends first, the thread ends when the iterator returns its next item, which is dropped.
    ///
    /// ```
    /// use arenite::{Engine, stream::Stream};
    ///
    /// let (send, receive) = std::sync::mpsc::channel();
    /// let stream = Stream::spawn(receive).stage(|n: u64| n * n, ());
    /// send.send(3)?;
    /// let engine = Engine::inline();
    /// let mut squares = stream.run(&engine);
    /// // It does not wait for another item.
    /// assert_eq!(squares.next().unwrap()?, 9);
    /// drop(send);
    /// assert!(squares.next().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn<I>(source: I) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: Send + 'static,
        T: Send + 'static,
    {
        Self::on_own_thread(source.into_iter().map(SourceItem::Ok))
    }

    /// Like [`spawn`](Stream::spawn), for a source that can fail as in [`fallible`](Stream::fallible): a camera that is
    /// unplugged, or a connection that breaks. Only the text of an error is passed on, so the error type need not be
    /// `Send`.
    ///
    /// ```
    /// use std::io::{BufRead, BufReader};
    /// use arenite::{Engine, stream::{Stream, StreamError}};
    ///
    /// let (read, write) = std::io::pipe()?;
    /// let stream = Stream::spawn_fallible(BufReader::new(read).lines()).stage(|line: &str| line.len() as u64, ());
    /// std::io::Write::write_all(&mut &write, b"three\n\xff\n")?;
    /// let engine = Engine::inline();
    /// let mut lengths = stream.run(&engine);
    /// // It does not wait for another line.
    /// assert_eq!(lengths.next().unwrap()?, 5);
    /// let error = lengths.next().unwrap().unwrap_err();
    /// assert!(matches!(error, StreamError::Source { sequence: 1, .. }), "{error}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn_fallible<I, E>(source: I) -> Self
    where
        I: IntoIterator<Item = Result<T, E>>,
        I::IntoIter: Send + 'static,
        T: Send + 'static,
        E: fmt::Display,
    {
        let items = source.into_iter();
        Self::on_own_thread(items.map(|item| item.map_err(|error| error.to_string())))
    }

    fn on_own_thread(items: impl Iterator<Item = SourceItem<T>> + Send + 'static) -> Self
    where
        T: Send + 'static,
    {
        let control = Control::new();
        Self::from_flow(
            Box::new(ThreadSource::new(items, Arc::clone(&control))),
            control,
        )
    }
}

impl<'a, T: 'a, S> Stream<'a, T, S> {
    /// Sets the maximum number of items in flight: taken from the source, and not yet delivered, dropped or in a
    /// window. At the maximum no more items are pulled, so memory use is bounded. Default: 16, or four for each worker
    /// if that is more.
    ///
    /// # Panics
    /// If `items` is 0.
    #[track_caller]
    pub fn in_flight(mut self, items: usize) -> Self {
        assert!(items > 0, "a stream with no item in flight does nothing");
        self.plan.in_flight = Some(items);
        self
    }

    /// Sets the maximum number of bytes in flight; `size` returns the bytes of an item at this step. At the maximum no
    /// more items are pulled, so it may be exceeded by one item. Call it again after a stage that changes the size. The
    /// limit applies to the whole stream: the smallest limit counts.
    ///
    /// ```
    /// use arenite::{Array, Engine, stream::Stream};
    ///
    /// let engine = Engine::inline();
    /// let blocks = (0..20).map(|_| engine.from_slice(&[0u8; 1000]).unwrap());
    /// let lengths = Stream::new(blocks)
    ///     .bytes_in_flight(3000, |block| block.len() as u64)
    ///     .stage(|block: &[u8]| block.len() as u64, ());
    /// let handle = lengths.handle();
    /// assert_eq!(lengths.run(&engine).count(), 20);
    /// assert_eq!(handle.stats().most_in_flight, 3);
    /// # Ok::<(), arenite::ArenaFull>(())
    /// ```
    ///
    /// # Panics
    /// If `limit` is 0.
    #[track_caller]
    pub fn bytes_in_flight(
        mut self,
        limit: u64,
        mut size: impl FnMut(&T) -> u64 + 'a,
    ) -> Stream<'a, T> {
        assert!(limit > 0, "a stream with no byte in flight does nothing");
        self.plan.bytes = Some(self.plan.bytes.map_or(limit, |known| known.min(limit)));
        self.each(move |mut item, driver| {
            let bytes = size(&item.value);
            driver.resize(&mut item, bytes);
            Some(item)
        })
    }

    /// Delivers results as soon as they are ready, not in the order of their items. A watermark still waits for the
    /// items ahead of it.
    pub fn unordered(mut self) -> Self {
        self.plan.ordered = false;
        self
    }

    /// Sets whether the stream stops at a failure (the default) or continues without the item. (Maps
    /// continue by default.)
    ///
    /// A stream that stops delivers the error after all earlier results. A stream that continues counts the item
    /// ([`StreamStats::failed`]) and drops it; [`dead_letters`](Stream::dead_letters) receives it if its job failed.
    /// The end of the engine always stops the stream.
    ///
    /// ```
    /// use arenite::{Engine, OnFailure, stream::Stream};
    ///
    /// fn inverse(n: u64) -> Result<u64, String> {
    ///     100u64.checked_div(n).ok_or("nothing divides by 0".to_owned())
    /// }
    ///
    /// let mut letters = Vec::new();
    /// let inverses = Stream::new([10, 0, 5])
    ///     .on_failure(OnFailure::GoOn)
    ///     .stage(inverse, ())
    ///     .dead_letters(|letter| letters.push(letter));
    /// let inverses: Result<Vec<_>, _> = inverses.run(&Engine::inline()).collect();
    /// assert_eq!(inverses?, [10, 20]);
    /// let [letter] = &letters[..] else { panic!("{letters:?}") };
    /// assert_eq!((letter.args, letter.stage, letter.index), (0, Some(1), 1));
    /// assert!(letter.to_string().contains("nothing divides by 0"), "{letter}");
    /// # Ok::<(), arenite::stream::StreamError>(())
    /// ```
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.plan.on_failure = on_failure;
        self
    }

    /// Maps each item with `f` on the iterating thread: for cheap functions.
    pub fn map<U: 'a>(self, mut f: impl FnMut(T) -> U + 'a) -> Stream<'a, U> {
        self.each(move |item, _| Some(item.with(&mut f)))
    }

    /// Drops items for which `keep` returns false, on the iterating thread.
    pub fn filter(self, mut keep: impl FnMut(&T) -> bool + 'a) -> Stream<'a, T> {
        self.each(move |item, driver| {
            if keep(&item.value) {
                return Some(item);
            }
            drop(driver.leave(item));
            None
        })
    }

    /// Turns each item into any number of items, on the iterating thread. They inherit the event time; their bytes do
    /// not count unless they are [measured](Stream::bytes_in_flight) again.
    ///
    /// ```
    /// use arenite::{Engine, stream::Stream};
    ///
    /// let text = ["to be", "or not", "to be"];
    /// let lengths = Stream::new(text)
    ///     .flat_map(|line| line.split(' ').map(String::from))
    ///     .filter(|word| word != "or")
    ///     .stage(|word: &str| word.len() as u64, ());
    /// let lengths: Result<Vec<_>, _> = lengths.run(&Engine::inline()).collect();
    /// assert_eq!(lengths?, [2, 2, 3, 2, 2]);
    /// # Ok::<(), arenite::stream::StreamError>(())
    /// ```
    pub fn flat_map<U>(self, spread: impl FnMut(T) -> U + 'a) -> Stream<'a, U::Item>
    where
        U: IntoIterator + 'a,
        U::Item: 'a,
    {
        self.then(|before| {
            Box::new(FlatMap {
                before,
                spread: Box::new(spread),
                current: None,
                made: 0,
            })
        })
    }

    /// Runs a kernel on each item, in the workers. Its first parameter is the item; `args` are its other parameters.
    /// All jobs read the arrays in `args` in place.
    #[doc(alias = "ParDo")]
    #[allow(clippy::type_complexity, reason = "the marker of the stage that it is")]
    pub fn stage<F, A, Q, R>(
        self,
        kernel: F,
        args: A,
    ) -> Stream<'a, R::Out, AfterStage<'a, T, SplitArgs<T, F::Args>>>
    where
        F: Bind<A>,
        F::Kernel: Kernel<Q, R>,
        Q: SplitFirst + 'a,
        T: Arg<'static, Q::First>,
        F::Args: Args<'static, Q::Rest> + Clone + 'a,
        R: Reply + 'a,
    {
        const { captures_nothing::<F::Kernel>() };
        let (kernel, args) = kernel.bind(args);
        let call: CallFn<'a, T, (), R::Out> = Box::new(move |engine, item, settings| {
            let job = engine.job(kernel, SplitArgs(item, args.clone()));
            ((), Started::new(job, settings))
        });
        self.add_stage(call, |(), value| value)
    }

    /// Runs a kernel on part of each item. `split` returns a value that stays in this process, and the tuple of the
    /// kernel's arguments. The stage returns the value together with the result.
    ///
    /// ```
    /// use arenite::{Engine, stream::Stream};
    ///
    /// // The name stays in this process.
    /// let items = [("three", 3u32, 2u32), ("two", 2, 5)];
    /// let powers = Stream::new(items)
    ///     .stage_with(|n: u32, to: u32| n.pow(to), |(name, n, to)| (name, (n, to)));
    /// let powers: Result<Vec<_>, _> = powers.run(&Engine::inline()).collect();
    /// assert_eq!(powers?, [("three", 9), ("two", 32)]);
    /// # Ok::<(), arenite::stream::StreamError>(())
    /// ```
    #[allow(clippy::type_complexity, reason = "the marker of the stage that it is")]
    pub fn stage_with<F, K, A, Q, R>(
        self,
        kernel: F,
        mut split: impl FnMut(T) -> (K, A) + 'a,
    ) -> Stream<'a, (K, R::Out), AfterStage<'a, T, F::Args>>
    where
        F: Bind<A> + Clone + 'a,
        F::Kernel: Kernel<Q, R>,
        F::Args: Args<'static, Q>,
        Q: crate::kernel::Params + 'a,
        K: 'a,
        R: Reply + 'a,
    {
        const { captures_nothing::<F::Kernel>() };
        let call: CallFn<'a, T, K, R::Out> = Box::new(move |engine, item, settings| {
            let (kept, args) = split(item);
            let (kernel, args) = kernel.clone().bind(args);
            (kept, Started::new(engine.job(kernel, args), settings))
        });
        self.add_stage(call, |kept, value| (kept, value))
    }

    /// Sets the event time of each item: the time since an origin that is the same for all items. Required for windows
    /// in time. The event time does not depend on a clock of this process.
    pub fn event_time(mut self, mut when: impl FnMut(&T) -> Duration + 'a) -> Stream<'a, T> {
        (self.plan.timed, self.plan.marked) = (true, false);
        self.each(move |mut item, _| {
            item.time = Some(when(&item.value));
            Some(item)
        })
    }

    /// Sets how late items may be: the watermark is the greatest [event time](Stream::event_time) so far, minus
    /// `lateness`. A window in time closes when the watermark reaches its end; items whose windows have closed are
    /// late.
    pub fn watermark(self, lateness: Duration) -> Stream<'a, T> {
        self.marks(move |item| item.time?.checked_sub(lateness))
    }

    /// Lets the program set the watermark: after this item, no item has an earlier time. The watermark never goes back;
    /// `None` leaves it unchanged.
    ///
    /// ```
    /// use std::time::Duration;
    /// use arenite::{Engine, stream::{Stream, Windows}};
    ///
    /// // The source marks when all items up to a time have arrived.
    /// let second = Duration::from_secs(1);
    /// let items = [(4, false), (1, false), (9, true), (12, false)];
    /// let windows = Stream::new(items)
    ///     .event_time(|&(at, _)| second * at)
    ///     .watermark_by(|&(at, all)| all.then(|| second * at))
    ///     .window(Windows::tumbling(second * 5))?
    ///     .items();
    /// let sizes: Vec<_> = windows.run(&Engine::inline()).map(|w| w.unwrap().value.len()).collect();
    /// assert_eq!(sizes, [2, 1, 1]);
    /// # Ok::<(), arenite::stream::WindowError>(())
    /// ```
    pub fn watermark_by(self, mut mark: impl FnMut(&T) -> Option<Duration> + 'a) -> Stream<'a, T> {
        self.marks(move |item| mark(&item.value))
    }

    /// Groups items into windows. Then [`items`](Windowed::items) or `fold` turns each
    /// window into a result.
    ///
    /// ```
    /// use std::time::Duration;
    /// use arenite::{Engine, stream::{Stream, Windows}};
    ///
    /// // Each window has two neighbours.
    /// let pairs = Stream::new([1u64, 2, 3]).window(Windows::count_sliding(2, 1))?.items();
    /// let pairs: Vec<_> = pairs.run(&Engine::inline()).map(|pair| pair.unwrap().value).collect();
    /// assert_eq!(pairs, [vec![1, 2], vec![2, 3], vec![3]]);
    ///
    /// // Without a watermark these would never close.
    /// let error = Stream::new([1u32, 2, 3])
    ///     .event_time(|&at| Duration::from_secs(1) * at)
    ///     .window(Windows::tumbling(Duration::from_secs(2)))
    ///     .unwrap_err();
    /// assert!(error.to_string().contains("watermark"), "{error}");
    /// # Ok::<(), arenite::stream::WindowError>(())
    /// ```
    ///
    /// Windows are closed by items and by the end of the source, not by a clock of this process: while the source is
    /// idle, open windows stay open. To close windows in time nevertheless, let the source send its time regularly, and
    /// drop these time items after the watermark:
    ///
    /// ```
    /// use std::time::Duration;
    /// use arenite::{Engine, stream::{Stream, Windows}};
    ///
    /// let (send, source) = std::sync::mpsc::channel::<(u32, Option<u32>)>();
    /// let second = Duration::from_secs(1);
    /// // A time, and a reading, if any.
    /// let sums = Stream::spawn(source)
    ///     .event_time(|&(at, _)| second * at)
    ///     .watermark_by(|&(at, reading)| reading.is_none().then(|| second * at))
    ///     .flat_map(|(_, reading)| reading)
    ///     .window(Windows::tumbling(5 * second))?
    ///     .fold(|| 0, |sum, reading| *sum += reading);
    /// for item in [(1, Some(20)), (3, Some(22)), (6, None)] {
    ///     send.send(item)?;
    /// }
    /// let engine = Engine::inline();
    /// let mut run = sums.run(&engine);
    /// // Neither another reading nor the end has arrived.
    /// assert_eq!(run.next().unwrap()?.value, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WindowError`]: windows in time without [event times](Stream::event_time) or a [watermark](Stream::watermark),
    /// or windows without length.
    #[doc(alias = "WindowInto")]
    pub fn window<const MERGES: bool>(
        self,
        windows: Windows<MERGES>,
    ) -> Result<Windowed<'a, (), T, MERGES>, WindowError> {
        windows.rule.check(self.plan.timed, self.plan.marked)?;
        Ok(Windowed::new(self.then(|before| before), windows))
    }

    /// Returns a handle to end or inspect the stream from other threads.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.control))
    }

    /// Runs the stream. Returns the results as an iterator.
    ///
    /// Iterating blocks the thread. A stream cannot move to another thread, because its steps are closures of the
    /// program. In `async` code, build and run the whole stream where blocking is allowed.
    ///
    /// ```
    /// # fn main() -> Result<(), arenite::stream::StreamError> {
    /// use std::sync::Arc;
    /// use arenite::{Engine, stream::Stream};
    ///
    /// let engine = Arc::new(Engine::inline());
    /// smol::block_on(async {
    ///     // Or `spawn_blocking` of tokio.
    ///     let sum = smol::unblock(move || {
    ///         let squares = Stream::new(0..10u64).stage(|n: u64| n * n, ());
    ///         squares.run(&engine).sum::<Result<u64, _>>()
    ///     });
    ///     assert_eq!(sum.await?, 285);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn run(self, engine: &'a Engine) -> Run<'a, T> {
        let driver = Driver::new(engine, self.plan, Arc::clone(&self.control).into());
        Run::new(self.flow, driver, self.control)
    }

    /// Runs the stream to its end, and passes each result to `sink`. Returns the statistics. Blocks the calling thread,
    /// like [`run`](Stream::run).
    ///
    /// ```
    /// use arenite::{Engine, stream::Stream};
    ///
    /// let mut sum = 0;
    /// let stats = Stream::new(0..10u64)
    ///     .stage(|n: u64| n * n, ())
    ///     .for_each(&Engine::inline(), |square| sum += square)?;
    /// assert_eq!((sum, stats.delivered), (285, 10));
    /// # Ok::<(), arenite::stream::StreamError>(())
    /// ```
    ///
    /// # Errors
    /// The error that ended the stream before its source ended.
    pub fn for_each(
        self,
        engine: &'a Engine,
        mut sink: impl FnMut(T),
    ) -> Result<StreamStats, StreamError> {
        let mut run = self.run(engine);
        for value in &mut run {
            sink(value?);
        }
        Ok(run.stats())
    }

    fn then<U>(self, step: impl FnOnce(BoxFlow<'a, T>) -> BoxFlow<'a, U>) -> Stream<'a, U> {
        Stream {
            flow: step(self.flow),
            plan: self.plan,
            control: self.control,
            last: (),
        }
    }

    fn each<U: 'a>(
        self,
        each: impl FnMut(Item<T>, &mut Driver<'_>) -> Option<Item<U>> + 'a,
    ) -> Stream<'a, U> {
        self.then(|before| {
            Box::new(Each {
                before,
                each: Box::new(each),
            })
        })
    }

    fn marks(mut self, mark: impl FnMut(&Item<T>) -> Option<Duration> + 'a) -> Stream<'a, T> {
        self.plan.marked = true;
        self.then(|before| {
            Box::new(Marks {
                before,
                mark: Box::new(mark),
                last: None,
                next: None,
            })
        })
    }

    fn add_stage<K: 'a, R: Send + 'static, U: 'a, A>(
        mut self,
        call: CallFn<'a, T, K, R>,
        mut join: impl FnMut(K, R) -> U + 'a,
    ) -> Stream<'a, U, AfterStage<'a, T, A>> {
        self.plan.stages += 1;
        let options = Rc::new(RefCell::new(StageOptions {
            number: self.plan.stages,
            jobs: usize::MAX,
            results: usize::MAX,
            options: JobOptions::default(),
            letters: None,
        }));
        let stage = self.then(|before| {
            Box::new(Stage {
                before,
                call,
                options: Rc::clone(&options),
                slots: VecDeque::new(),
                running: 0,
                ready: 0,
            })
        });
        let joined = stage.map(move |(kept, value)| join(kept, value));
        Stream {
            flow: joined.flow,
            plan: joined.plan,
            control: joined.control,
            last: AfterStage {
                options,
                args: PhantomData,
            },
        }
    }
}

impl<T, S> fmt::Debug for Stream<'_, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("stages", &self.plan.stages)
            .field("in_flight", &self.plan.in_flight)
            .finish_non_exhaustive()
    }
}
