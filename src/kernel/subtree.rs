//! A subtree of a reduction as one job: a kernel on each of some chunks that lie beside each other, and another kernel
//! on two results at a time until one is left.
//!
//! A chunk is a *leaf*, and what `combine` makes of two neighbours is the *node* above them. Which node draws which random
//! numbers depends on where it is in the whole tree, so it is the same wherever the jobs are cut.
//!
//! ```text
//! call  = leaves, rows of a leaf, number of the first leaf, series, the array, the other arguments
//! reply = 0 | 1, then the reply of the kernel | of combine
//! ```

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;

use super::entry::params_sealed;
use super::entry::{Args, Failure, Kernel, Params, Program, SplitFirst, Stopped, conjure};
use super::param::{Arg, BadArgument, CallWriter, HostRef, Key, Param, Rejected, Words};
use super::reply::{BadReply, Receiving, Reply, Sending, Unsent, reply_sealed};
use super::seed::seed_in_series;
use crate::array::{Array, Element};

/// Neighbouring leaves, and what the kernel gets with each of them.
#[derive(Debug)]
pub(crate) struct Leaves<T: Element, A> {
    /// All their rows.
    pub(crate) rows: Array<T>,
    /// How many they are: a power of two.
    pub(crate) count: usize,
    /// Rows of each, but fewer in the last one of all.
    pub(crate) step: usize,
    /// How many leaves are before them.
    pub(crate) first: usize,
    /// Of the random numbers of all nodes.
    pub(crate) series: u64,
    pub(crate) rest: A,
}

impl<T: Element, A> Leaves<T, A> {
    /// As the call of a [`Subtree`].
    pub(crate) fn send<P>(self, call: &mut CallWriter)
    where
        P: SplitFirst,
        A: Args<'static, P::Rest>,
    {
        let head = [self.count, self.step, self.first];
        head.into_iter().for_each(|word| call.0.word(word as u64));
        call.0.word(self.series);
        Arg::<&Array<T>>::send(self.rows, call);
        self.rest.send(call);
    }

    /// As the call of the kernel itself: there is one leaf.
    pub(crate) fn send_alone<P>(self, call: &mut CallWriter)
    where
        P: SplitFirst,
        Array<T>: Arg<'static, P::First>,
        A: Args<'static, P::Rest>,
    {
        Arg::<P::First>::send(self.rows, call);
        self.rest.send(call);
    }

    /// As arguments of the kernel in this thread: there is one leaf.
    pub(crate) fn hold_alone<P>(self) -> P::Held
    where
        P: SplitFirst,
        Array<T>: Arg<'static, P::First>,
        A: Args<'static, P::Rest>,
    {
        P::join(self.rows.hold(), self.rest.hold())
    }
}

/// The number of a node among all of its tree: the leaf of this index, or the node above so many levels of pairs.
pub(crate) fn node(level: usize, index: usize) -> u64 {
    (level as u64) << 48 | index as u64
}

/// The program of [`Leaves`].
#[derive(Debug)]
pub(crate) struct Subtree<T, F, P, R, C, X, Y, S>(Signature<T, F, P, R, C, X, Y, S>);
type Signature<T, F, P, R, C, X, Y, S> = PhantomData<(fn(T, F, P) -> R, fn(C, X, Y) -> S)>;

/// Tells it from the same kernels one after the other.
#[derive(Debug)]
pub(crate) enum Both {}

/// What stands at the top of a subtree.
pub(crate) enum Top<R, S> {
    Leaf(R),
    Pair(S),
}

impl<R, S> fmt::Debug for Top<R, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaf(_) => "Leaf",
            Self::Pair(_) => "Pair",
        })
    }
}

impl<R: Reply, S: Reply<Out = R::Out>> reply_sealed::Sealed for Top<R, S> {}
impl<R: Reply, S: Reply<Out = R::Out>> Reply for Top<R, S> {
    type Out = R::Out;
    fn send(self, reply: &mut Sending<'_>) -> Result<(), Unsent> {
        match self {
            Self::Leaf(value) => {
                reply.writer.word(0);
                value.send(reply)
            }
            Self::Pair(value) => {
                reply.writer.word(1);
                value.send(reply)
            }
        }
    }
    fn receive(reply: &mut Receiving<'_>) -> Result<R::Out, BadReply> {
        match reply.0.words.word()? {
            0 => R::receive(reply),
            1 => S::receive(reply),
            _ => Err(BadReply),
        }
    }
    fn keep(self) -> Result<R::Out, Unsent> {
        match self {
            Self::Leaf(value) => value.keep(),
            Self::Pair(value) => value.keep(),
        }
    }
}

impl<T, F, P, R, C, X, Y, S> params_sealed::Sealed for Subtree<T, F, P, R, C, X, Y, S> {}
impl<T, F, P, R, C, X, Y, S> Program for Subtree<T, F, P, R, C, X, Y, S>
where
    T: Element,
    F: Kernel<P, R>,
    P: SplitFirst,
    R: Reply,
    Array<T>: Arg<'static, P::First>,
    C: Kernel<(X, Y), S>,
    X: Param,
    Y: Param,
    S: Reply<Out = R::Out>,
    R::Out: Arg<'static, X> + Arg<'static, Y>,
{
    type Reply = Top<R, S>;
    type Id = (Both, F, C);
    fn name() -> &'static str {
        type_name::<(F, C)>()
    }
    fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Top<R, S>, Stopped> {
        let rejected = |Rejected(why)| Stopped(Failure::Rejected(why));
        let mut number = || {
            let malformed = |_| Stopped(Failure::Rejected(BadArgument::Malformed));
            words.0.word().map_err(malformed)
        };
        let [count, step, first] = [number()? as usize, number()? as usize, number()? as usize];
        let series = number()?;
        let rows = <&Array<T> as Param>::receive(words, host).map_err(rejected)?;
        let enter = |level, index| match host.0.step(0, seed_in_series(series, node(level, index)))
        {
            true => Err(Stopped(Failure::Cancelled)),
            false => Ok(()),
        };
        // Of each level at most one, the lowest last.
        let mut waiting: Vec<R::Out> = Vec::new();
        for i in 0.. {
            enter(0, first + i)?;
            let chunk = rows.rows(i * step..rows.shape().rows().min((i + 1) * step));
            let rest = P::Rest::receive(&mut Words(words.0.clone()), host).map_err(rejected)?;
            let mut top = Top::Leaf(conjure::<F>().call(P::join(chunk.hold(), rest), Key::new()));
            crate::sync::point!("subtree.leaf");
            for level in 1..=i.trailing_ones() as usize {
                let keep = |top: Top<R, S>| top.keep().map_err(|unsent| Stopped(unsent.into()));
                let (left, right) = (waiting.pop(), keep(top)?);
                let left = left.expect("a leaf of an odd number has one to its left");
                enter(level, (first + i) >> level)?;
                let held = Args::<(X, Y)>::hold((left, right));
                top = Top::Pair(conjure::<C>().call(held, Key::new()));
                crate::sync::point!("subtree.pair");
            }
            if i + 1 == count {
                return Ok(top);
            }
            waiting.push(top.keep().map_err(|unsent| Stopped(unsent.into()))?);
        }
        unreachable!("the last leaf returns")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_node_draws_its_own_numbers() {
        let mut seen = HashSet::new();
        for series in 0..3 {
            for level in 0..=10 {
                for index in 0..1 << (10 - level) {
                    assert!(seen.insert(seed_in_series(series, node(level, index))));
                }
            }
        }
    }
}
