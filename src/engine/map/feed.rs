//! Runs all maps: pulls items, submits jobs, takes results.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::OnFailure;
use crate::engine::JobError;
use crate::engine::job::permit;
use crate::engine::seeds::Series;
use crate::kernel::wire::Lease;
use crate::kernel::{CallWriter, KernelInfo};
use crate::supervisor::{
    Flight, JobOptions, LineTicket, Outlook, Owner, PendingBatch, PendingCalls, Read, ResultKey,
    Supervisor, bytes_to_expect, exclusive_bytes, park_until,
};

/// The approximate time in nanoseconds to wake a sleeping thread of this process. Waking a worker takes a little
/// longer.
const WAKE_NS: u32 = 20_000;
/// The maximum number of calls that are submitted, or results that are taken, while the lock is held once.
const BATCH: usize = 64;
/// The number of items after which the clock is read. Reading it for each item would cost half as much as a tiny job.
const ITEMS_PER_CLOCK: usize = 32;
/// If the iterator takes longer for [`ITEMS_PER_CLOCK`] items, it counts as blocking: then each item is submitted
/// before the next one is pulled.
const BLOCKS: Duration = Duration::from_micros(100);
/// The number of items that must arrive without blocking before the map submits batches again.
const PROMPT_AFTER_STALL: u32 = 64;
/// The number of items that must arrive without blocking at the start, before the iterator has ever blocked.
const PROMPT_AT_START: u32 = 16;
/// The longest sleep until a job other than the first has ended: limits how long a job that takes longer than expected
/// delays other results.
const SLEEP_FOR_MANY: Duration = Duration::from_millis(1);
/// The maximum number of results that a stream returns, or of jobs that it polls, before it lets other tasks run.
pub(in crate::engine) const IN_A_ROW: u32 = 128;

/// Converts items into calls, and replies into values.
pub(in crate::engine) struct Calls<T, R> {
    pub(in crate::engine) kernel: KernelInfo,
    pub(in crate::engine) send: fn(T, &mut CallWriter),
    /// Runs the kernel on the caller's thread.
    pub(in crate::engine) run: fn(T) -> Result<R, JobError>,
    pub(in crate::engine) read: Read<R>,
}

/// How the items of a map are run.
pub(super) struct MapPlan<T, R> {
    pub(super) calls: Calls<T, R>,
    pub(super) options: JobOptions,
    pub(super) on_failure: OnFailure,
    /// The series of the random numbers that the jobs draw.
    pub(super) series: Series,
    /// How many copies of each item are kept until its result is returned.
    pub(super) copies: usize,
}

/// The jobs in flight. Abandoned on drop.
struct Flying<K, R> {
    shared: Option<Arc<Supervisor>>,
    flight: Flight<K, R>,
    /// The ticket of a stream in the line for admission.
    line: LineTicket,
    /// Calls whose arguments are written, and which are not submitted yet.
    unsent: Arc<PendingBatch>,
}

impl<K: ResultKey, R> Flying<K, R> {
    /// Adds the jobs that the monitor has submitted to the jobs in flight.
    fn take_over(&mut self, written: &mut PendingCalls) {
        for id in written.sent() {
            self.flight.open.push_back((K::of(self.flight.sent), id));
            self.flight.sent += 1;
        }
    }
}

impl<K, R> Flying<K, R> {
    fn give_up(&mut self) {
        if self.shared.as_ref().is_some_and(|shared| shared.is_copy()) {
            // This process is a forked child: the monitor may have held the lock of the calls during the fork, and
            // never releases it in the child.
            return;
        }
        let mut written = self.unsent.lock();
        written.forget();
        if let Some(shared) = &self.shared {
            let open = self.flight.open.drain(..).map(|(_, id)| id);
            open.chain(written.sent()).for_each(|id| shared.abandon(id));
            shared.leave_admission_line(&mut self.line);
            shared.leave_admission_line(written.end());
        }
        drop(written);
        self.flight.done.clear();
    }
}

impl<K, R> Drop for Flying<K, R> {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// The state of a map that runs.
pub(super) struct Feed<I: Iterator, R, K> {
    pub(super) items: I,
    pub(super) plan: MapPlan<I::Item, R>,
    /// Whether the map has stopped pulling items: the iterator has ended, or a failure stopped the map.
    exhausted: bool,
    flying: Flying<K, R>,
    /// Number of items pulled so far.
    pulled: usize,
    /// Bytes of arguments to which a call refers, as expected from earlier calls.
    referenced: u64,
    /// Bytes of arguments that are freed when a call ends because no other handle refers to them, as expected from
    /// earlier calls.
    owned: u64,
    /// Number of results that a stream has returned since it last yielded to the executor.
    in_a_row: u32,
    /// Number of items that have arrived since the iterator last blocked, up to `prompt_enough`.
    prompt: u32,
    /// The value of `prompt` at which batches are submitted: [`PROMPT_AFTER_STALL`], doubled each time that the monitor
    /// had to submit calls because the iterator blocked.
    prompt_enough: u32,
}

impl<I: Iterator, R, K: ResultKey> Feed<I, R, K> {
    pub(super) fn new(
        items: I,
        plan: MapPlan<I::Item, R>,
        shared: Option<Arc<Supervisor>>,
    ) -> Self {
        Self {
            items,
            plan,
            exhausted: false,
            flying: Flying {
                shared,
                flight: Flight::default(),
                line: LineTicket::default(),
                unsent: Arc::default(),
            },
            pulled: 0,
            referenced: 0,
            owned: 0,
            in_a_row: 0,
            prompt: PROMPT_AFTER_STALL - PROMPT_AT_START,
            prompt_enough: PROMPT_AFTER_STALL,
        }
    }

    /// Returns the items, the plan, and the engine's shared state. `what`: the method that was called, for the text of
    /// the panic.
    ///
    /// # Panics
    /// If items have been pulled.
    pub(super) fn into_parts(
        mut self,
        what: &str,
    ) -> (I, MapPlan<I::Item, R>, Option<Arc<Supervisor>>) {
        assert!(
            self.pulled == 0 && !self.exhausted,
            "`{what}` comes before the first result of a map is asked for"
        );
        (self.items, self.plan, self.flying.shared.take())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flying.flight.open.len()
    }

    pub(super) fn size_hint(&self) -> (usize, Option<usize>) {
        let flight = &self.flying.flight;
        let ahead = flight.open.len() + flight.done.len() + self.flying.unsent.lock().uncounted();
        let (low, high) = match self.exhausted {
            true => (0, Some(0)),
            false => self.items.size_hint(),
        };
        let low = match self.plan.on_failure {
            OnFailure::GoOn => low.saturating_add(ahead),
            // The next result may be a failure, which is then the last result.
            OnFailure::Stop => low.max(ahead).min(1),
        };
        (low, high.and_then(|high| high.checked_add(ahead)))
    }

    fn next_item(&mut self) -> Option<I::Item> {
        if self.exhausted {
            return None;
        }
        let item = self.items.next();
        self.exhausted = item.is_none();
        self.pulled += usize::from(item.is_some());
        item
    }

    /// Runs the next item on the caller's thread.
    fn run_next(&mut self) -> Option<(K, Result<R, JobError>)> {
        let item = self.next_item()?;
        let index = self.pulled - 1;
        let plan = &self.plan;
        let result = permit(&plan.options.limit, plan.calls.kernel.name).and_then(|_permit| {
            let _job = plan.series.begin_inline(index as u64);
            (plan.calls.run)(item)
        });
        let result = result.map_err(|error| error.named_by(&plan.options));
        Some((K::of(index), result))
    }

    /// Stops the map if this result is a failure and the map stops at failures.
    fn stop_at_failure(&mut self, answer: (K, Result<R, JobError>)) -> (K, Result<R, JobError>) {
        if answer.1.is_err() && self.plan.on_failure == OnFailure::Stop {
            self.stop();
        }
        answer
    }

    /// Pulls no more items, and abandons the jobs in flight.
    fn stop(&mut self) {
        self.exhausted = true;
        self.flying.give_up();
    }

    /// Pulls items until enough jobs are in flight, and takes results. `wait`: whether this may block until calls are
    /// admitted.
    fn pump(&mut self, shared: &Supervisor, wait: bool) {
        if self.may_wait() && !self.flying.flight.open.is_empty() {
            // Takes results that exist, because the iterator may block again.
            self.exchange(shared, false);
            if !self.flying.flight.done.is_empty() {
                return;
            }
        }
        let outlook = shared.outlook(&self.plan.calls.kernel);
        loop {
            let goes_on = self.pull(shared, outlook);
            let stayed = self.exchange(shared, wait);
            // The next call of `pump` first submits calls that were not admitted.
            if !goes_on || stayed > 0 || !self.flying.flight.done.is_empty() {
                return;
            }
        }
    }

    /// Returns the number of calls that are written and not submitted.
    fn written(&self) -> usize {
        self.flying.unsent.lock().len()
    }

    /// Returns true if the iterator is expected to block.
    fn may_wait(&self) -> bool {
        self.prompt < self.prompt_enough
    }

    /// Pulls items and writes their calls: a batch, or one item if the iterator may block. Returns false if no more
    /// calls may be in flight, or no item follows.
    fn pull(&mut self, shared: &Supervisor, outlook: Outlook) -> bool {
        let unsent = Arc::clone(&self.flying.unsent);
        let mut written = unsent.lock();
        written.begin(&self.plan.options);
        let all_admitted = written.len() == 0;
        let batch = if self.may_wait() { 1 } else { BATCH };
        let mut pulled = 0;
        let mut last_read: Option<Instant> = None;
        loop {
            let full = pulled == batch || !self.has_room(shared, outlook, &written, all_admitted);
            if full && pulled == 0 {
                return false;
            }
            if full || pulled.is_multiple_of(ITEMS_PER_CLOCK) {
                let now = Instant::now();
                let last = last_read.replace(now);
                if last.is_some_and(|last| now.duration_since(last) > BLOCKS) {
                    self.prompt = 0;
                    return true;
                }
            }
            if full {
                return pulled == batch;
            }
            let plan = &self.plan;
            shared.watch_pending(&unsent, &mut written, &plan.calls.kernel, &plan.options);
            drop(written);
            let item = self.next_item();
            written = unsent.lock();
            let waited = written.has_sent();
            if waited {
                // The iterator may have waited for the results of these calls, so more items must arrive without
                // blocking before batches are submitted again.
                self.prompt = 0;
                self.prompt_enough = self.prompt_enough.saturating_mul(2);
            }
            let Some(item) = item else {
                return false;
            };
            self.write(&mut written, item);
            if waited {
                return true;
            }
            pulled += 1;
            self.prompt = self.prompt_enough.min(self.prompt + 1);
        }
    }

    /// Writes the call of an item.
    fn write(&mut self, written: &mut PendingCalls, item: I::Item) {
        let shared = self.flying.shared.as_ref();
        let arena = || shared.map_or(0, |shared| shared.arena.id());
        written.add(arena, |call| {
            (self.plan.calls.send)(item, call);
            call.0.seed = self.plan.series.seed(self.pulled as u64 - 1);
            call.0.kept = self.plan.copies;
            let referenced = call.0.leases.iter().map(Lease::bytes).sum();
            self.referenced = bytes_to_expect(self.referenced, referenced);
            self.owned = bytes_to_expect(self.owned, exclusive_bytes(&call.0));
        });
    }

    /// Submits those written calls that are admitted, and takes results. Returns the number of calls that were not
    /// admitted.
    fn exchange(&mut self, shared: &Supervisor, wait: bool) -> usize {
        let unsent = Arc::clone(&self.flying.unsent);
        let mut written = unsent.lock();
        shared.leave_admission_line(written.end());
        self.flying.take_over(&mut written);
        let sent = shared.exchange(
            &self.plan.calls.kernel,
            self.plan.options.if_set(),
            written.all(),
            &mut self.flying.flight,
            self.plan.calls.read,
            wait,
        );
        written.remove_sent(sent);
        written.len()
    }

    /// Returns true if one more job may be in flight. `all_admitted`: whether no written call waits for admission.
    fn has_room(
        &self,
        shared: &Supervisor,
        outlook: Outlook,
        written: &PendingCalls,
        all_admitted: bool,
    ) -> bool {
        // Results that were not taken count as well, so a slow consumer limits how far the workers run ahead.
        let flight = &self.flying.flight;
        let ahead = flight.open.len() + flight.done.len() + written.len();
        if self.plan.options.limit.is_some() {
            // The jobs wait in the limiter's queue, which one caller should not fill.
            return ahead < outlook.window.min(2 * shared.active_lanes());
        }
        if ahead < outlook.window {
            let each = self.owned.saturating_add(outlook.bytes.unwrap_or(0));
            return ahead < shared.window_in_memory(each);
        }
        let Some(made) = outlook.bytes.filter(|_| K::ORDERED && all_admitted) else {
            return false;
        };
        ahead < shared.window_in_order(outlook.expected_ns, self.referenced.saturating_add(made))
    }

    /// Returns the number of jobs that together take about as long as one wake-up. A sleep lasts until about this
    /// number of jobs has ended.
    fn jobs_per_wakeup(&self, shared: &Supervisor) -> usize {
        let outlook = shared.outlook(&self.plan.calls.kernel);
        (WAKE_NS / outlook.expected_ns.max(1)) as usize
    }

    /// Sleeps until some jobs in flight have ended, for at most `limit`. Returns `None` if no job is in flight or waits
    /// for admission.
    fn sleep(&mut self, shared: &Supervisor, limit: Option<Duration>) -> Option<()> {
        let Some(last) = self.flying.flight.open.len().checked_sub(1) else {
            return (self.written() > 0).then(|| self.enter_within(shared, limit));
        };
        let open = &self.flying.flight.open;
        let many = self.jobs_per_wakeup(shared).min(last / 2);
        // If the job `many` has ended already, it is the first job that delays the results.
        if many > 0 && !shared.is_done(open[many].1) {
            let limit = limit.map_or(SLEEP_FOR_MANY, |limit| limit.min(SLEEP_FOR_MANY));
            shared.wait_until_done(open[many].1, Some(limit));
            return Some(());
        }
        if K::ORDERED {
            shared.wait_until_done(open[0].1, limit);
        } else {
            shared.wait_any(open.iter().map(|&(_, id)| id), limit);
        }
        Some(())
    }

    /// Waits for at most `limit` until the first written call is admitted, and submits it.
    fn enter_within(&mut self, shared: &Supervisor, limit: Option<Duration>) {
        shared.assert_may_wait();
        let entered = park_until(limit, |waker, _| {
            let context = &mut Context::from_waker(waker);
            self.poll_first_call(shared, context)
                .is_ready()
                .then_some(())
        });
        if entered.is_none() {
            // Other callers wait behind this ticket, so it leaves the line while it is not polled.
            shared.leave_admission_line(&mut self.flying.line);
        }
    }

    /// Returns the next result, for an iterator.
    pub(super) fn next(&mut self) -> Option<(K, Result<R, JobError>)> {
        self.next_until(None)
    }

    /// Like [`next`](Self::next), but waits at most `limit`.
    pub(super) fn next_timeout(&mut self, limit: Duration) -> Option<(K, Result<R, JobError>)> {
        // A limit beyond the range of the clock counts as no limit.
        self.next_until(Instant::now().checked_add(limit))
    }

    /// Returns true if all results were returned, as far as is known from the items pulled.
    pub(super) fn is_over(&self) -> bool {
        self.exhausted && self.written() == 0 && self.flying.flight.is_over()
    }

    fn next_until(&mut self, until: Option<Instant>) -> Option<(K, Result<R, JobError>)> {
        if let Some(done) = self.flying.flight.done.pop_front() {
            return Some(self.stop_at_failure(done));
        }
        let Some(shared) = self.flying.shared.clone() else {
            let done = self.run_next()?;
            return Some(self.stop_at_failure(done));
        };
        loop {
            self.pump(&shared, until.is_none());
            if let Some(done) = self.flying.flight.done.pop_front() {
                return Some(self.stop_at_failure(done));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            self.sleep(&shared, left)?;
        }
    }

    /// Returns the next result, for a stream.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<(K, Result<R, JobError>)>> {
        if self.in_a_row == IN_A_ROW {
            // A task that takes ready results one after the other would never yield, and no other task would run.
            self.in_a_row = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.poll_answer(context);
        match &next {
            Poll::Ready(Some(_)) => self.in_a_row += 1,
            Poll::Ready(None) | Poll::Pending => self.in_a_row = 0,
        }
        next.map(|next| next.map(|done| self.stop_at_failure(done)))
    }

    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Option<(K, Result<R, JobError>)>> {
        if let Some(done) = self.flying.flight.done.pop_front() {
            return Poll::Ready(Some(done));
        }
        let Some(shared) = self.flying.shared.clone() else {
            return Poll::Ready(self.run_next());
        };
        loop {
            self.pump(&shared, false);
            if let Some(done) = self.flying.flight.done.pop_front() {
                return Poll::Ready(Some(done));
            }
            if self.flying.flight.open.is_empty() {
                if self.written() == 0 {
                    return Poll::Ready(None);
                }
                if self.poll_first_call(&shared, context).is_pending() {
                    return Poll::Pending;
                }
            } else if self.poll_end(&shared, context.waker()).is_none() {
                return Poll::Pending;
            }
        }
    }

    /// Submits the first written call once it is admitted.
    fn poll_first_call(&mut self, shared: &Supervisor, context: &mut Context<'_>) -> Poll<()> {
        let unsent = Arc::clone(&self.flying.unsent);
        let mut written = unsent.lock();
        let (kernel, call) = (&self.plan.calls.kernel, &mut written.all()[0].0);
        let options = self.plan.options.if_set();
        let line = &mut self.flying.line;
        let target = Owner::Handle.into();
        let polled = shared.poll_submit(kernel, call, target, options, line, context);
        let id = std::task::ready!(polled);
        let flight = &mut self.flying.flight;
        flight.open.push_back((K::of(flight.sent), id));
        flight.sent += 1;
        written.remove_sent(1);
        Poll::Ready(())
    }

    /// Returns the index of a job that has ended and whose result may be returned. If there is none, the waker is
    /// called when a job ends.
    fn poll_end(&self, shared: &Supervisor, waker: &Waker) -> Option<usize> {
        let open = &self.flying.flight.open;
        let polled = if K::ORDERED { 1 } else { open.len() };
        shared.poll_any(open.iter().take(polled).map(|&(_, id)| id), waker)
    }
}
