//! A subtree of a reduction as one job: it runs a kernel for each of several adjacent chunks, and a second kernel that
//! combines two results at a time until one result is left.
//!
//! A chunk is a *leaf*; a combination of two neighbours is a *node* above them. The random numbers of a node depend on
//! its position in the whole tree, and not on how the tree is divided into jobs.
//!
//! ```text
//! call  = leaves, rows of a leaf, number of the first leaf, series, the array, the other arguments
//! reply = 0 | 1, then the reply of the kernel | of combine
//! ```

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;

use super::entry::params_sealed;
use super::entry::{Args, Kernel, Params, Program, SplitFirst, zst_value};
use super::error::Returned;
use super::failure::Failure;
use super::param::{Arg, CallWriter, HostRef, Key, Param, Words};
use super::reply::{BadReply, Receiving, Reply, Sending, reply_sealed};
use super::seed::seed_in_series;
use crate::array::{Array, Element};

/// The arguments of a [`Subtree`]: adjacent leaves, and the other arguments of the kernel.
#[derive(Debug)]
pub(crate) struct Leaves<T: Element, A> {
    /// The rows of all leaves.
    pub(crate) rows: Array<T>,
    /// The number of leaves: a power of two.
    pub(crate) count: usize,
    /// The number of rows of each leaf. The last leaf of the tree may have fewer.
    pub(crate) step: usize,
    /// Index of the first leaf in the tree.
    pub(crate) first: usize,
    /// Seed of the random numbers of all nodes.
    pub(crate) series: u64,
    pub(crate) rest: A,
}

impl<T: Element, A> Leaves<T, A> {
    /// Writes the call of a [`Subtree`].
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

    /// Writes the call of the kernel itself, for the case of a single leaf.
    pub(crate) fn send_single<P>(self, call: &mut CallWriter)
    where
        P: SplitFirst,
        Array<T>: Arg<'static, P::First>,
        A: Args<'static, P::Rest>,
    {
        Arg::<P::First>::send(self.rows, call);
        self.rest.send(call);
    }

    /// Returns the arguments of the kernel if it runs inline, for the case of a single leaf.
    pub(crate) fn hold_single<P>(self) -> P::Held
    where
        P: SplitFirst,
        Array<T>: Arg<'static, P::First>,
        A: Args<'static, P::Rest>,
    {
        P::join(Arg::<P::First>::hold(self.rows), self.rest.hold())
    }
}

/// Returns the number of a node in its tree. On level 0, a node is the leaf `index`; on level `n`, a node is above
/// `2^n` leaves.
pub(crate) fn node(level: usize, index: usize) -> u64 {
    (level as u64) << 48 | index as u64
}

/// The program that takes [`Leaves`].
#[derive(Debug)]
pub(crate) struct Subtree<T, F, P, R, C, X, Y, S>(Signature<T, F, P, R, C, X, Y, S>);
type Signature<T, F, P, R, C, X, Y, S> = PhantomData<(fn(T, F, P) -> R, fn(C, X, Y) -> S)>;

/// Distinguishes the program id of a subtree from that of a chain of the same kernels.
#[derive(Debug)]
pub(crate) enum SubtreeId {}

/// The value at the top of a subtree.
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
    fn send(self, reply: &mut Sending<'_>) -> Result<(), Failure> {
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
    fn check_error(error: &Returned) -> Result<(), BadReply> {
        R::check_error(error).or_else(|_| S::check_error(error))
    }
    fn into_value(self) -> Result<R::Out, Failure> {
        match self {
            Self::Leaf(value) => value.into_value(),
            Self::Pair(value) => value.into_value(),
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
    type Id = (SubtreeId, F, C);
    fn name() -> &'static str {
        type_name::<(F, C)>()
    }
    fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Top<R, S>, Failure> {
        let mut number = || words.0.word();
        let [count, step, first] = [number()? as usize, number()? as usize, number()? as usize];
        let series = number()?;
        let rows = <&Array<T> as Param>::receive(words, host)?;
        let enter = |level, index| match host.0.step(seed_in_series(series, node(level, index))) {
            true => Err(Failure::Cancelled),
            false => Ok(()),
        };
        // Values whose right neighbour is not computed yet: at most one for each level, that of the lowest level last.
        let mut waiting: Vec<R::Out> = Vec::new();
        for i in 0.. {
            enter(0, first + i)?;
            let chunk = rows.rows(i * step..rows.shape().rows().min((i + 1) * step));
            let rest = P::Rest::receive(&mut Words(words.0.clone()), host)?;
            let mut top = Top::Leaf(
                zst_value::<F>().call(P::join(Arg::<P::First>::hold(chunk), rest), Key::new()),
            );
            crate::sync::point!("subtree.leaf");
            for level in 1..=i.trailing_ones() as usize {
                let (left, right) = (waiting.pop(), top.into_value()?);
                let left = left.expect("a leaf of odd index has one to its left");
                enter(level, (first + i) >> level)?;
                let held = Args::<(X, Y)>::hold((left, right));
                top = Top::Pair(zst_value::<C>().call(held, Key::new()));
                crate::sync::point!("subtree.pair");
            }
            if i + 1 == count {
                return Ok(top);
            }
            waiting.push(top.into_value()?);
        }
        unreachable!("the last leaf returns")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_node_has_its_own_seed() {
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
