//! Errors of graphs.

use std::fmt;

use crate::sys::debug_as_text;

/// Why a graph cannot be run.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphError {
    /// Nodes would wait for each other.
    Cycle {
        /// The nodes of the cycle: each node would wait for the previous node in the list, and the first for the last.
        nodes: Vec<String>,
    },
    /// A node of another graph was used.
    ForeignNode {
        /// The place in the program, as `file:line:column`.
        at: String,
    },
    /// A node that has to run takes an array that is in private memory, in a mapped file that may change, or in another
    /// engine's arena. Copy the array with [`Engine::import`](crate::Engine::import).
    ForeignArray {
        /// The name or number of the node.
        node: String,
        /// The kernel of the node.
        kernel: &'static str,
        /// The position of the array among the node's inputs, from 1 on.
        argument: usize,
    },
    /// A node occurs twice among the targets.
    AskedTwice {
        /// The name or number of the node.
        node: String,
    },
    /// No order was found in which the arena has room for all values that are needed at the same time. No node has run.
    ///
    /// ```
    /// use arenite::{Array, Engine, Graph, GraphError};
    ///
    /// const MB: usize = 1_000_000;
    ///
    /// fn block(n: usize) -> Array<u8> {
    ///     Array::from_fn(n, |i| i as u8)
    /// }
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     arenite::init();
    ///     let engine = Engine::builder().workers(1).capacity(64 << 20).build()?;
    ///     let mut graph = Graph::new();
    ///     // All of them are targets, so all of them exist at the end.
    ///     let blocks: Vec<_> =
    ///         (0..5).map(|_| graph.job(block, (20 * MB,)).shape::<u8>(20 * MB).add()).collect();
    ///     let Err(GraphError::DoesNotFit { peak, room }) = graph.run(&engine, &blocks) else {
    ///         panic!("100 MB in 64 MiB")
    ///     };
    ///     assert!(peak == 100_000_000 && room <= 64 << 20);
    ///     assert_eq!(engine.progress().done, 0);
    ///     Ok(())
    /// }
    /// ```
    DoesNotFit {
        /// The declared sizes, in bytes, of the values that are needed at the same time, summed up.
        peak: u64,
        /// The free bytes of the arena.
        room: u64,
    },
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cycle { nodes } => {
                write!(
                    f,
                    "nodes would wait for each other: {}",
                    nodes.join(", after ")
                )
            }
            Self::ForeignNode { at } => write!(
                f,
                "a node of another graph was used at {at}; nodes belong to the graph that returned them"
            ),
            Self::ForeignArray {
                node,
                kernel,
                argument,
            } => write!(
                f,
                "argument {argument} of {node} ({kernel}) is neither in this engine's arena nor from a store; \
                 copy it in with engine.import(&array)"
            ),
            Self::AskedTwice { node } => write!(
                f,
                "{node} is a target twice; name it once, and clone its value"
            ),
            Self::DoesNotFit { peak, room } => write!(
                f,
                "the values needed at one time take {peak} bytes, and the arena has {room} bytes free; \
                                 use fewer targets or smaller pieces, or raise the capacity"
            ),
        }
    }
}

impl std::error::Error for GraphError {}

debug_as_text!(GraphError);
