//! A parameter of this crate's own kernels whose type the program chooses: [`Extra`].
//!
//! A kernel over a whole array calls a function of the program with a chunk and one more argument, some [`Param`] `P`.
//! The function takes this argument as `P::At<'j>`, from which the compiler cannot infer `P`. The wrapper
//! `Extra<'j, P>` names `P`.

use super::failure::BadArgument;
use super::param::{Arg, CallWriter, HostRef, Key, Param, Words, sealed};
use super::reply::AnyValue;

/// The argument that the program passes in addition to the array, in the form in which the kernel takes it.
#[allow(missing_debug_implementations, reason = "`P::At` may have none")]
pub struct Extra<'j, P: Param>(pub(crate) P::At<'j>);

impl<P: Param> sealed::Sealed for Extra<'_, P> {}
impl<P: Param> Param for Extra<'_, P> {
    type At<'j> = Extra<'j, P>;
    type Held = P::Held;
    fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<P::Held, BadArgument> {
        P::receive(words, host)
    }
    fn at<'j>(held: &'j mut P::Held, key: Key) -> Extra<'j, P> {
        Extra(P::at(held, key))
    }
}

/// The argument for an [`Extra`].
#[derive(Clone, Debug)]
pub struct ExtraArg<A>(pub(crate) A);

impl<'env, P: Param, A: Arg<'env, P>> Arg<'env, Extra<'_, P>> for ExtraArg<A> {
    fn send(self, call: &mut CallWriter) {
        self.0.send(call);
    }
    fn hold(self) -> P::Held {
        self.0.hold()
    }
    fn bytes_held(&self) -> u64 {
        self.0.bytes_held()
    }
    fn failed(&self) -> Option<AnyValue> {
        self.0.failed()
    }
}

/// Takes the place of the additional argument if there is none.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl sealed::Sealed for Nothing {}
impl Param for Nothing {
    type At<'j> = Nothing;
    type Held = ();
    fn receive(_: &mut Words<'_>, _: &HostRef<'_>) -> Result<(), BadArgument> {
        Ok(())
    }
    fn at((): &mut (), _: Key) -> Nothing {
        Nothing
    }
}

impl Arg<'_, Nothing> for Nothing {
    fn send(self, _: &mut CallWriter) {}
    fn hold(self) {}
}
