//! Inputs and targets: the traits of values that may be passed to a node, and of the nodes that a run may compute.

use std::marker::PhantomData;

use super::Node;
use crate::array::{Array, ArrayLocation, ArrayMut, ArrayMutLocation, Element};
use crate::kernel::{
    Arg, Bytes, OwnedParam, OwnedParams, RetrySafe, Scalar, Slot, for_each_arity,
    for_each_copied_argument,
};

/// Records the nodes and arrays that are passed to a new node.
#[derive(Debug)]
pub struct Wiring<'g> {
    pub(super) graph: u64,
    /// The new node.
    pub(super) node: u32,
    /// The index of the input that is being recorded.
    pub(super) argument: u32,
    /// The nodes whose values the new node takes.
    pub(super) edges: &'g mut Vec<u32>,
    /// The arrays passed to the new node.
    pub(super) arrays: &'g mut Vec<PassedArray>,
    /// Whether a node of another graph was passed.
    pub(super) foreign: bool,
}

/// An array passed to a node. Checked when the graph is run, because the engine is not known earlier.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassedArray {
    pub(super) node: u32,
    /// The position among the node's inputs, from 0 on.
    pub(super) argument: u32,
    /// The number of the arena that contains the array, if any.
    pub(super) arena: Option<u64>,
}

impl Wiring<'_> {
    fn array(&mut self, arena: Option<u64>) {
        self.arrays.push(PassedArray {
            node: self.node,
            argument: self.argument,
            arena,
        });
    }

    fn node<H>(&mut self, graph: u64, index: u32) -> Slot<H> {
        if graph == self.graph {
            self.edges.push(index);
        } else {
            self.foreign = true;
        }
        Slot::Node(index)
    }
}

/// An input for a parameter `P` of a node. This trait is sealed.
///
/// - Every type that may be passed to a job ([`Arg`]).
/// - A [`Node`] or `&Node` whose value has the parameter's type (`Array<T>` for `&Array<T>` and `&[T]`, `String` for
///   `&str`, `Bytes` for `&Bytes`, otherwise the same type). Only one node can take an exclusive `ArrayMut`, so such a
///   node is passed by value.
/// - For `&[Array<T>]`, a vector or slice of nodes. Numbers of many nodes are combined by
///   [`Graph::reduce`](super::Graph::reduce), or returned as arrays of one element.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed for the kernel's parameter `{P}` in a graph",
    label = "not an argument, nor a node that gives one, for `{P}`",
    note = "a node of a tuple or an `Option` can only be a target: let the kernel that needs it compute it, or return the parts from separate nodes",
    note = "many nodes are passed for `&[Array<T>]`; numbers of many nodes are combined by `graph.reduce`, or returned as arrays of one element"
)]
pub trait Input<P: OwnedParam> {
    #[doc(hidden)]
    fn slot(self, wiring: &mut Wiring<'_>) -> P::Slot;
}

macro_rules! given {
    ($($arg:ty => $param:ty, $held:ty $(, $kind:ident: $bound:path $(, const $n:ident)?)?;)*) => { $(
        impl$(<$kind: $bound $(, const $n: usize)?>)? Input<$param> for $arg {
            #[inline]
            fn slot(self, _: &mut Wiring<'_>) -> Slot<$held> {
                Slot::Held(Arg::<$param>::hold(self))
            }
        }
    )* };
}
for_each_copied_argument!(given);

macro_rules! arrays_given {
    ($($arg:ty => $param:ty, $held:ty, $place:ident $(or $file:ident)?;)*) => { $(
        impl<T: Element> Input<$param> for $arg {
            #[inline]
            fn slot(self, wiring: &mut Wiring<'_>) -> Slot<$held> {
                match self.location() {
                    $place::Block(block, _) => wiring.array(Some(block.arena_id())),
                    $(ArrayLocation::$file(..) => {})?
                    _ => wiring.array(None),
                }
                Slot::Held(Arg::<$param>::hold(self))
            }
        }
    )* };
}
arrays_given! {
    &Array<T> => &Array<T>, Array<T>, ArrayLocation or File;
    Array<T> => &Array<T>, Array<T>, ArrayLocation or File;
    &Array<T> => &[T], Array<T>, ArrayLocation or File;
    Array<T> => &[T], Array<T>, ArrayLocation or File;
    ArrayMut<T> => ArrayMut<T>, Option<ArrayMut<T>>, ArrayMutLocation;
}

macro_rules! taken {
    ($($node:ty => $param:ty, $held:ty $(, $kind:ident: $bound:path)?;)*) => { $(
        impl$(<$kind: $bound>)? Input<$param> for $node {
            #[inline]
            fn slot(self, wiring: &mut Wiring<'_>) -> Slot<$held> {
                wiring.node(self.graph, self.index)
            }
        }
    )* };
}
taken! {
    &Node<Array<T>> => &Array<T>, Array<T>, T: Element;
    Node<Array<T>> => &Array<T>, Array<T>, T: Element;
    &Node<Array<T>> => &[T], Array<T>, T: Element;
    Node<Array<T>> => &[T], Array<T>, T: Element;
    Node<ArrayMut<T>> => ArrayMut<T>, Option<ArrayMut<T>>, T: Element;
    &Node<String> => &str, String;
    Node<String> => &str, String;
    &Node<Bytes> => &Bytes, Bytes;
    Node<Bytes> => &Bytes, Bytes;
    &Node<Vec<S>> => Vec<S>, Vec<S>, S: Scalar;
    Node<Vec<S>> => Vec<S>, Vec<S>, S: Scalar;
    &Node<S> => S, S, S: Scalar;
    Node<S> => S, S, S: Scalar;
}

macro_rules! lists {
    ($($list:ty, $nodes:ty;)*) => { $(
        impl<T: Element> Input<&[Array<T>]> for $list {
            fn slot(self, wiring: &mut Wiring<'_>) -> Vec<Slot<Array<T>>> {
                let one = |array| Input::<&Array<T>>::slot(array, wiring);
                self.iter().map(one).collect()
            }
        }
        impl<T: Element> Input<&[Array<T>]> for $nodes {
            fn slot(self, wiring: &mut Wiring<'_>) -> Vec<Slot<Array<T>>> {
                let one = |node| Input::<&Array<T>>::slot(node, wiring);
                self.iter().map(one).collect()
            }
        }
    )* };
}
lists! {
    &[Array<T>], &[Node<Array<T>>];
    &Vec<Array<T>>, &Vec<Node<Array<T>>>;
    Vec<Array<T>>, Vec<Node<Array<T>>>;
}

impl<R: RetrySafe> RetrySafe for Vec<Node<R>> {}
impl<R: RetrySafe> RetrySafe for &Vec<Node<R>> {}
impl<R: RetrySafe> RetrySafe for &[Node<R>] {}
impl<R: RetrySafe> RetrySafe for Node<R> {}
impl<R: RetrySafe> RetrySafe for &Node<R> {}

/// The inputs of a node with the parameters `P`: a tuple of [`Input`]s. This trait is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` are not inputs for a node with the parameters `{P}`",
    label = "not the inputs that this kernel takes",
    note = "pass a tuple with one argument or node for each parameter; for one parameter: `(x,)`"
)]
pub trait Inputs<P: OwnedParams> {
    #[doc(hidden)]
    fn slots(self, wiring: &mut Wiring<'_>) -> P::Slots;
}

macro_rules! impl_inputs {
    ($($p:ident $a:ident $x:ident $i:tt),*) => {
        impl<$($p: OwnedParam, $a: Input<$p>),*> Inputs<($($p,)*)> for ($($a,)*) {
            #[inline]
            #[allow(unused_variables, clippy::unused_unit, reason = "for a kernel without parameters")]
            fn slots(self, wiring: &mut Wiring<'_>) -> <($($p,)*) as OwnedParams>::Slots {
                ($({
                    wiring.argument = $i;
                    self.$i.slot(wiring)
                },)*)
            }
        }
    };
}
for_each_arity!(impl_inputs);

/// The targets of a run: a node, a slice or vector of nodes of one type, or a tuple of these. This trait is sealed.
pub trait Targets {
    #[doc(hidden)]
    type Wanted: Wanted;
    #[doc(hidden)]
    fn wanted(self, list: &mut TargetList) -> Self::Wanted;
}

/// The target nodes of a run, each as the graph's number and the node's index. Only this crate can name this type.
#[derive(Debug, Default)]
pub struct TargetList(pub(super) Vec<(u64, u32)>);

/// The targets of a started run.
pub trait Wanted {
    /// The values, if no target failed.
    type Values;
    /// Each value, or its error.
    type Results;
    #[doc(hidden)]
    fn results(self, source: &mut super::running::Source<'_>) -> Self::Results;
    #[doc(hidden)]
    fn values(results: Self::Results) -> Result<Self::Values, crate::engine::JobError>;
}

/// One node.
#[derive(Debug)]
pub struct TargetNode<R> {
    pub(super) node: u32,
    pub(super) read: crate::supervisor::Read<R>,
    kind: PhantomData<fn() -> R>,
}

/// Nodes of one type.
#[derive(Debug)]
pub struct TargetNodes<R>(Vec<TargetNode<R>>);

impl<R: Send + 'static> Wanted for TargetNode<R> {
    type Values = R;
    type Results = Result<R, crate::engine::JobError>;
    fn results(self, source: &mut super::running::Source<'_>) -> Self::Results {
        source.take(self.node, self.read)
    }
    fn values(results: Self::Results) -> Result<R, crate::engine::JobError> {
        results
    }
}

impl<R: Send + 'static> Wanted for TargetNodes<R> {
    type Values = Vec<R>;
    type Results = Vec<Result<R, crate::engine::JobError>>;
    fn results(self, source: &mut super::running::Source<'_>) -> Self::Results {
        let nodes = self.0.into_iter();
        nodes.map(|node| node.results(source)).collect()
    }
    fn values(results: Self::Results) -> Result<Vec<R>, crate::engine::JobError> {
        results.into_iter().collect()
    }
}

impl<R: Send + 'static> Targets for &Node<R> {
    type Wanted = TargetNode<R>;
    fn wanted(self, list: &mut TargetList) -> TargetNode<R> {
        list.0.push((self.graph, self.index));
        TargetNode {
            node: self.index,
            read: self.read,
            kind: PhantomData,
        }
    }
}

impl<R: Send + 'static> Targets for Node<R> {
    type Wanted = TargetNode<R>;
    fn wanted(self, list: &mut TargetList) -> TargetNode<R> {
        (&self).wanted(list)
    }
}

impl<R: Send + 'static> Targets for &[Node<R>] {
    type Wanted = TargetNodes<R>;
    fn wanted(self, list: &mut TargetList) -> TargetNodes<R> {
        TargetNodes(self.iter().map(|node| node.wanted(list)).collect())
    }
}

impl<R: Send + 'static> Targets for &Vec<Node<R>> {
    type Wanted = TargetNodes<R>;
    fn wanted(self, list: &mut TargetList) -> TargetNodes<R> {
        self.as_slice().wanted(list)
    }
}

impl<R: Send + 'static> Targets for Vec<Node<R>> {
    type Wanted = TargetNodes<R>;
    fn wanted(self, list: &mut TargetList) -> TargetNodes<R> {
        self.as_slice().wanted(list)
    }
}

macro_rules! targets {
    ($(($($t:ident $i:tt),+))+) => { $(
        impl<$($t: Targets),+> Targets for ($($t,)+) {
            type Wanted = ($($t::Wanted,)+);
            fn wanted(self, list: &mut TargetList) -> Self::Wanted {
                ($(self.$i.wanted(list),)+)
            }
        }
        impl<$($t: Wanted),+> Wanted for ($($t,)+) {
            type Values = ($($t::Values,)+);
            type Results = ($($t::Results,)+);
            fn results(self, source: &mut super::running::Source<'_>) -> Self::Results {
                ($(self.$i.results(source),)+)
            }
            fn values(results: Self::Results) -> Result<Self::Values, crate::engine::JobError> {
                Ok(($($t::values(results.$i)?,)+))
            }
        }
    )+ };
}
targets! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
}
