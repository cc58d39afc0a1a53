//! Calls in `async` code.

use std::time::Duration;

use super::{Actor, ActorLocation, call_inline, within, written};
use crate::engine::Submitting;
use crate::engine::submitting::PendingCall;
use crate::kernel::actor::Call;
use crate::kernel::{Args, Bind, KernelInfo, Method, MethodParams, Reply, captures_nothing};
use crate::supervisor::JobOptions;

impl<S: Send + 'static> Actor<S> {
    /// [Calls](Actor::call) a method from `async` code, without blocking the thread.
    ///
    /// With a limit on bytes in flight ([`max_in_flight_bytes`](crate::engine::Builder::max_in_flight_bytes)), the
    /// future waits until the call is admitted, in one line with all other jobs; without a limit it is ready at once.
    /// The call is submitted when the future is ready, so calls run in the order of admission, not of creation. An
    /// inline engine runs the method before this function returns.
    ///
    /// ```
    /// # fn main() -> Result<(), arenite::JobError> {
    /// # let engine = arenite::Engine::inline();
    /// fn push(list: &mut Vec<u32>, x: u32) -> u64 {
    ///     list.push(x);
    ///     list.len() as u64
    /// }
    ///
    /// let list = engine.actor(Vec::<u32>::new, ()).start();
    /// smol::block_on(async {
    ///     // Both calls are made before either answer is awaited.
    ///     let first = list.call_async(push, (7,)).await;
    ///     let second = list.call_async(push, (8,)).await;
    ///     assert_eq!((first.await?, second.await?), (1, 2));
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn call_async<F, A, P, R>(&self, method: F, args: A) -> Submitting<R::Out>
    where
        F: Bind<A>,
        F::Kernel: Method<S, P, R>,
        F::Args: Args<'static, P::Params>,
        P: MethodParams,
        R: Reply,
    {
        const { captures_nothing::<F::Kernel>() };
        let (method, args) = method.bind(args);
        self.send_async(method, args, JobOptions::default())
    }

    /// Like [`call_async`](Actor::call_async), with the deadline of [`call_within`](Actor::call_within). The time until
    /// admission does not count.
    pub fn call_within_async<F, A, P, R>(
        &self,
        limit: Duration,
        method: F,
        args: A,
    ) -> Submitting<R::Out>
    where
        F: Bind<A>,
        F::Kernel: Method<S, P, R>,
        F::Args: Args<'static, P::Params>,
        P: MethodParams,
        R: Reply,
    {
        const { captures_nothing::<F::Kernel>() };
        let (method, args) = method.bind(args);
        self.send_async(method, args, within(limit))
    }

    fn send_async<F, A, P, R>(&self, method: F, args: A, options: JobOptions) -> Submitting<R::Out>
    where
        F: Method<S, P, R>,
        A: Args<'static, P::Params>,
        P: MethodParams,
        R: Reply,
    {
        match &self.inner.location {
            ActorLocation::Worker { shared, id } => {
                let call = PendingCall {
                    kernel: KernelInfo::of::<Call<F, S, P, R>>(),
                    call: written(shared, *id, args).0,
                    target: (*id).into(),
                    options,
                };
                Submitting::new(shared, call, R::receive, (), Some(self.inner.clone()))
            }
            ActorLocation::Inline(actor, seeds) => {
                Submitting::of_ran(call_inline(actor, seeds, method, args))
            }
        }
    }
}
