//! Arguments with one more in front of them.

use super::entry::{Args, Params, SplitFirst};
use super::param::{Arg, CallWriter, RetrySafe};

/// The arguments `rest` of a kernel, and `first` in front of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead<X, A> {
    pub(crate) first: X,
    pub(crate) rest: A,
}

impl<'env, P, X, A> Args<'env, P> for Ahead<X, A>
where
    P: Params + SplitFirst,
    X: Arg<'env, P::First>,
    A: Args<'env, P::Rest>,
{
    fn send(self, call: &mut CallWriter) {
        self.first.send(call);
        self.rest.send(call);
    }
    fn hold(self) -> P::Held {
        P::join(self.first.hold(), self.rest.hold())
    }
    fn held(&self) -> u64 {
        self.first.held().saturating_add(self.rest.held())
    }
}

impl<X: RetrySafe, A: RetrySafe> RetrySafe for Ahead<X, A> {}
