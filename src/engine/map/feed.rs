//! What all maps have in common: items in, jobs under way, answers out.

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
    Flight, JobOptions, LineTicket, Outlook, PendingBatch, PendingCalls, Read, ResultKey,
    Supervisor, bytes_to_expect, exclusive_bytes, park_until,
};

/// About what it takes to wake a sleeping thread of this process: a little less than to wake a worker.
const WAKE_NS: u32 = 20_000;
/// Calls sent and answers taken under one lock, at most.
const BATCH: usize = 64;
/// Items pulled between two looks at the clock, which costs half of what a tiny job does.
const LOOK: usize = 32;
/// An iterator that takes longer for so many waits for them: then each is sent before the next is asked for.
const WAITS: Duration = Duration::from_micros(100);
/// So many items in a row have come at once before they are sent in numbers again; so many where none has kept anybody waiting
/// yet.
const AT_ONCE: u32 = 64;
const AT_FIRST: u32 = 16;
/// How long somebody sleeps for a job behind the first one. A job that takes longer than was expected holds up no answer
/// longer than this.
const SLEEP_FOR_MANY: Duration = Duration::from_millis(1);
/// Answers that a stream gives, or looks for, in a row before it lets the executor run something else.
pub(in crate::engine) const IN_A_ROW: u32 = 128;

/// What the jobs of a map run: how items become calls, and replies values.
pub(in crate::engine) struct Calls<T, R> {
    pub(in crate::engine) kernel: KernelInfo,
    pub(in crate::engine) send: fn(T, &mut CallWriter),
    /// In this thread.
    pub(in crate::engine) run: fn(T) -> Result<R, JobError>,
    pub(in crate::engine) read: Read<R>,
}

/// Items, and what they become.
pub(super) struct Plan<I: Iterator, R> {
    pub(super) items: I,
    pub(super) calls: Calls<I::Item, R>,
    pub(super) options: JobOptions,
    pub(super) on_failure: OnFailure,
    /// Which random numbers they draw.
    pub(super) series: Series,
    /// Copies of each item that are kept until its result is given.
    pub(super) copies: usize,
}

impl<I: Iterator, R> Plan<I, R> {
    /// The same with other items of the same type.
    pub(super) fn with<J>(self, change: impl FnOnce(I) -> J) -> Plan<J, R>
    where
        J: Iterator<Item = I::Item>,
    {
        Plan {
            items: change(self.items),
            calls: self.calls,
            options: self.options,
            on_failure: self.on_failure,
            series: self.series,
            copies: self.copies,
        }
    }
}

/// Jobs that are given up when nobody asks for them any more.
struct Flying<K, R> {
    shared: Option<Arc<Supervisor>>,
    flight: Flight<K, R>,
    /// The place in the line for admission, as a stream.
    line: LineTicket,
    /// Calls that are written and not sent.
    unsent: Arc<PendingBatch>,
}

impl<K: ResultKey, R> Flying<K, R> {
    /// Counts the jobs that the monitor has made of calls.
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
            // The monitor may have had the calls when the process was copied, and never gives them back here.
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

/// A plan under way.
pub(super) struct Feed<I: Iterator, R, K> {
    pub(super) plan: Plan<I, R>,
    /// The items have come to their end, or nobody wants more.
    exhausted: bool,
    flying: Flying<K, R>,
    /// Items that were pulled.
    pulled: usize,
    /// Bytes that a call holds, alone or with others, as far as seen.
    held: u64,
    /// Bytes that would be free without it.
    alone: u64,
    /// Answers that a stream has given since the executor had its turn.
    in_a_row: u32,
    /// Items that have come at once since the iterator was last seen waiting, up to what is enough to send them in numbers.
    at_once: u32,
    /// [`AT_ONCE`], and twice as many each time that the monitor had to send what the iterator kept.
    enough: u32,
}

impl<I: Iterator, R, K: ResultKey> Feed<I, R, K> {
    pub(super) fn new(plan: Plan<I, R>, shared: Option<Arc<Supervisor>>) -> Self {
        Self {
            plan,
            exhausted: false,
            flying: Flying {
                shared,
                flight: Flight::default(),
                line: LineTicket::default(),
                unsent: Arc::default(),
            },
            pulled: 0,
            held: 0,
            alone: 0,
            in_a_row: 0,
            at_once: AT_ONCE - AT_FIRST,
            enough: AT_ONCE,
        }
    }

    /// The plan and where it is to run.
    ///
    /// # Panics
    /// If items have been pulled.
    pub(super) fn into_parts(mut self, what: &str) -> (Plan<I, R>, Option<Arc<Supervisor>>) {
        assert!(
            self.pulled == 0 && !self.exhausted,
            "`{what}` comes before the first result of a map is asked for"
        );
        (self.plan, self.flying.shared.take())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flying.flight.open.len()
    }

    pub(super) fn size_hint(&self) -> (usize, Option<usize>) {
        let flight = &self.flying.flight;
        let ahead = flight.open.len() + flight.done.len() + self.flying.unsent.lock().uncounted();
        let (low, high) = match self.exhausted {
            true => (0, Some(0)),
            false => self.plan.items.size_hint(),
        };
        let low = match self.plan.on_failure {
            OnFailure::GoOn => low.saturating_add(ahead),
            // The next one may be the last.
            OnFailure::Stop => low.max(ahead).min(1),
        };
        (low, high.and_then(|high| high.checked_add(ahead)))
    }

    fn next_item(&mut self) -> Option<I::Item> {
        if self.exhausted {
            return None;
        }
        let item = self.plan.items.next();
        self.exhausted = item.is_none();
        self.pulled += usize::from(item.is_some());
        item
    }

    /// The next item, run in this thread.
    fn run_next(&mut self) -> Option<(K, Result<R, JobError>)> {
        let item = self.next_item()?;
        let index = self.pulled - 1;
        let plan = &self.plan;
        let result = permit(&plan.options.limit, plan.calls.kernel.name).and_then(|_permit| {
            let _job = plan.series.begin_inline(index as u64);
            (plan.calls.run)(item)
        });
        let answer = result.map_err(|error| error.with_label(plan.options.label.as_ref()));
        Some((K::of(index), answer))
    }

    /// An answer on its way to the caller: after a failure that may be the last.
    fn judged(&mut self, answer: (K, Result<R, JobError>)) -> (K, Result<R, JobError>) {
        if answer.1.is_err() && self.plan.on_failure == OnFailure::Stop {
            self.stop();
        }
        answer
    }

    /// Pulls nothing any more, and gives up what is under way.
    fn stop(&mut self) {
        self.exhausted = true;
        self.flying.give_up();
    }

    /// Pulls items until enough is in flight, and takes what has ended. `wait`: may wait for admission.
    fn pump(&mut self, shared: &Supervisor, wait: bool) {
        if self.may_wait() && !self.flying.flight.open.is_empty() {
            // What has ended is not to stand behind the next item.
            self.exchange(shared, false);
            if !self.flying.flight.done.is_empty() {
                return;
            }
        }
        let outlook = shared.outlook(&self.plan.calls.kernel);
        loop {
            let goes_on = self.pull(shared, outlook);
            let stayed = self.exchange(shared, wait);
            // Those that were not let in go first next time.
            if !goes_on || stayed > 0 || !self.flying.flight.done.is_empty() {
                return;
            }
        }
    }

    /// Calls that are written and not sent.
    fn written(&self) -> usize {
        self.flying.unsent.lock().len()
    }

    /// Whether the iterator may keep whoever asks it waiting, as far as seen.
    fn may_wait(&self) -> bool {
        self.at_once < self.enough
    }

    /// Pulls and writes the next batch: one item from an iterator that may wait. False if there is no room for more, or no item.
    fn pull(&mut self, shared: &Supervisor, outlook: Outlook) -> bool {
        let unsent = Arc::clone(&self.flying.unsent);
        let mut written = unsent.lock();
        written.begin(&self.plan.options);
        let all_let_in = written.len() == 0;
        let batch = if self.may_wait() { 1 } else { BATCH };
        let mut pulled = 0;
        let mut looked: Option<Instant> = None;
        loop {
            let full = pulled == batch || !self.has_room(shared, outlook, &written, all_let_in);
            if full && pulled == 0 {
                return false;
            }
            if full || pulled.is_multiple_of(LOOK) {
                let now = Instant::now();
                let last = looked.replace(now);
                if last.is_some_and(|last| now.duration_since(last) > WAITS) {
                    self.at_once = 0;
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
                // Perhaps for what became of those before it: that is to happen ever more rarely.
                self.at_once = 0;
                self.enough = self.enough.saturating_mul(2);
            }
            let Some(item) = item else {
                return false;
            };
            self.write(&mut written, item);
            if waited {
                return true;
            }
            pulled += 1;
            self.at_once = self.enough.min(self.at_once + 1);
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
            let held = call.0.leases.iter().map(Lease::bytes).sum();
            self.held = bytes_to_expect(self.held, held);
            self.alone = bytes_to_expect(self.alone, exclusive_bytes(&call.0));
        });
    }

    /// Sends what is written, as far as it is let in, and takes what has ended. How many calls had to stay.
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

    /// Is there to be one more in flight? `all_let_in`: there are no calls that had to stay.
    fn has_room(
        &self,
        shared: &Supervisor,
        outlook: Outlook,
        written: &PendingCalls,
        all_let_in: bool,
    ) -> bool {
        // Answers that nobody has fetched count as well: a slow reader holds the workers back.
        let flight = &self.flying.flight;
        let ahead = flight.open.len() + flight.done.len() + written.len();
        if self.plan.options.limit.is_some() {
            // In front of a limiter there is a line: no caller should stand in it with all it has.
            return ahead < outlook.window.min(2 * shared.lanes());
        }
        if ahead < outlook.window {
            let each = self.alone.saturating_add(outlook.bytes.unwrap_or(0));
            return ahead < shared.window_in_memory(each);
        }
        let Some(made) = outlook.bytes.filter(|_| K::ORDERED && all_let_in) else {
            return false;
        };
        ahead < shared.window_in_order(outlook.expected_ns, self.held.saturating_add(made))
    }

    /// How many jobs take about as long as waking somebody: he had better sleep for so many.
    fn worth_waking(&self, shared: &Supervisor) -> usize {
        let outlook = shared.outlook(&self.plan.calls.kernel);
        (WAKE_NS / outlook.expected_ns.max(1)) as usize
    }

    /// Sleeps until some of what is in flight has ended, or so long. `None` if nothing is in flight, and nothing waits to be let in.
    fn sleep(&mut self, shared: &Supervisor, limit: Option<Duration>) -> Option<()> {
        let Some(last) = self.flying.flight.open.len().checked_sub(1) else {
            return (self.written() > 0).then(|| self.enter_within(shared, limit));
        };
        let open = &self.flying.flight.open;
        let many = self.worth_waking(shared).min(last / 2);
        // It may have ended before the first one: then that is what everything waits for.
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

    /// Waits for so long until the first call that was written is let in, and sends it.
    fn enter_within(&mut self, shared: &Supervisor, limit: Option<Duration>) {
        let entered = park_until(limit, |waker, _| {
            let context = &mut Context::from_waker(waker);
            self.poll_first_call(shared, context)
                .is_ready()
                .then_some(())
        });
        if entered.is_none() {
            // Nobody looks at this place meanwhile, and others stand behind it.
            shared.leave_admission_line(&mut self.flying.line);
        }
    }

    /// The next answer, as an iterator gives it.
    pub(super) fn next(&mut self) -> Option<(K, Result<R, JobError>)> {
        self.next_until(None)
    }

    /// The same, but waits no longer than this.
    pub(super) fn next_timeout(&mut self, limit: Duration) -> Option<(K, Result<R, JobError>)> {
        // A limit beyond all clocks is none.
        self.next_until(Instant::now().checked_add(limit))
    }

    /// Nothing comes any more, as far as somebody has asked.
    pub(super) fn is_over(&self) -> bool {
        self.exhausted && self.written() == 0 && self.flying.flight.is_over()
    }

    fn next_until(&mut self, until: Option<Instant>) -> Option<(K, Result<R, JobError>)> {
        if let Some(done) = self.flying.flight.done.pop_front() {
            return Some(self.judged(done));
        }
        let Some(shared) = self.flying.shared.clone() else {
            let done = self.run_next()?;
            return Some(self.judged(done));
        };
        loop {
            self.pump(&shared, until.is_none());
            if let Some(done) = self.flying.flight.done.pop_front() {
                return Some(self.judged(done));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            self.sleep(&shared, left)?;
        }
    }

    /// The next answer, as a stream gives it.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<(K, Result<R, JobError>)>> {
        if self.in_a_row == IN_A_ROW {
            // Whoever takes one answer after the other never waits, and nothing else would run.
            self.in_a_row = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.poll_answer(context);
        match &next {
            Poll::Ready(Some(_)) => self.in_a_row += 1,
            Poll::Ready(None) | Poll::Pending => self.in_a_row = 0,
        }
        next.map(|next| next.map(|done| self.judged(done)))
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

    /// Sends the first call that was written as soon as it is let in.
    fn poll_first_call(&mut self, shared: &Supervisor, context: &mut Context<'_>) -> Poll<()> {
        let unsent = Arc::clone(&self.flying.unsent);
        let mut written = unsent.lock();
        let (kernel, call) = (&self.plan.calls.kernel, &mut written.all()[0].0);
        let line = &mut self.flying.line;
        let entry =
            std::task::ready!(shared.poll_admit(kernel, exclusive_bytes(call), line, context));
        let id = shared.submit_admitted_job(kernel, call, self.plan.options.if_set(), entry);
        let flight = &mut self.flying.flight;
        flight.open.push_back((K::of(flight.sent), id));
        flight.sent += 1;
        written.remove_sent(1);
        Poll::Ready(())
    }

    /// Has a job ended whose answer may be given? If not, the waker is called when one does.
    fn poll_end(&self, shared: &Supervisor, waker: &Waker) -> Option<usize> {
        let open = &self.flying.flight.open;
        let asked = if K::ORDERED { 1 } else { open.len() };
        shared.poll_any(open.iter().take(asked).map(|&(_, id)| id), waker)
    }
}
