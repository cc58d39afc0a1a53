#![doc = include_str!("README.md")]

mod builder;
mod column;
mod error;
mod input;
mod order;
mod picture;
mod plan;
mod running;

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use builder::NodeBuilder;
pub use error::GraphError;
pub use input::{Input, Inputs, Targets, Wanted, Wiring};
pub use running::Running;

use column::Columns;
use input::{PassedArray, TargetList};
use order::Order;
use picture::Picture;
use plan::{NONE, Sketch, sources};
use running::InlineRun;

use super::{Engine, OnFailure};
use crate::kernel::{Kernel, OwnedParam, OwnedParams, Reply, captures_nothing};
use crate::supervisor::{Calls, JobOptions, Jobs, Read, RunPlan, node_name};
use crate::sys::HUGE;

/// A task graph: jobs that take each other's values, described before any of them runs.
///
/// [`add`](Graph::add) adds a job and returns a [`Node`], which can be passed wherever the job's value could be passed.
/// [`run`](Graph::run) computes the values of its targets and of all nodes that they need: each node once, independent
/// nodes in parallel.
///
/// ```
/// # let engine = arenite::Engine::inline();
/// use arenite::{Array, Graph};
///
/// fn scale(values: &Array<f32>, by: f32) -> Array<f32> {
///     Array::from_fn(values.shape(), |i| values[i] * by)
/// }
/// fn total(values: &[f32]) -> f32 {
///     values.iter().sum()
/// }
///
/// let values = engine.from_slice(&[1.0f32, 2.0])?;
/// let mut graph = Graph::new();
/// let double = graph.add(scale, (&values, 2.0));
/// let sum = graph.add(total, (&double,));
/// let ten_times = graph.add(scale, (&double, 10.0));
/// // Not a target, and not needed by one: it never runs.
/// let _ = graph.add(total, (&ten_times,));
/// let (sum, ten_times) = graph.run(&engine, (&sum, &ten_times))?.wait()?;
/// assert_eq!((sum, &ten_times[..]), (6.0, &[20.0, 40.0][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A kernel that takes `&[Array<T>]` takes the values of any number of nodes. [`reduce`](Graph::reduce) combines values
/// two at a time, including numbers:
///
/// ```
/// # let engine = arenite::Engine::inline();
/// use arenite::{Array, Graph};
///
/// fn joined(parts: &[Array<u32>]) -> Array<u32> {
///     let all: Vec<u32> = parts.iter().flat_map(|part| part.iter().copied()).collect();
///     Array::from_slice(&all)
/// }
///
/// let mut graph = Graph::new();
/// let part = |n: u32| Array::from_fn(3, |i| n + i as u32);
/// let parts: Vec<_> = (0..3).map(|n| graph.add(part, (10 * n,))).collect();
/// let all = graph.add(joined, (&parts,));
/// let sums: Vec<_> = parts.iter().map(|part| graph.add(|p: &[u32]| p.iter().sum::<u32>(), (part,))).collect();
/// let sum = graph.reduce(|a: u32, b: u32| a + b, sums).expect("there are three");
/// let (all, sum) = graph.run(&engine, (&all, &sum))?.wait()?;
/// assert_eq!((&all[..], sum), (&[0, 1, 2, 10, 11, 12, 20, 21, 22][..], 99));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// If only the next node takes a value, the value never leaves its worker: such chains run as one job, unless a node
/// has options of its own ([`job`](Graph::job)). A value is freed as soon as the last node that takes it has ended.
///
/// An exclusive array is moved from node to node:
///
/// ```compile_fail,E0277
/// use arenite::{ArrayMut, Graph};
///
/// fn negate(mut values: ArrayMut<i32>) -> ArrayMut<i32> {
///     values.iter_mut().for_each(|x| *x = -*x);
///     values
/// }
///
/// let mut graph = Graph::new();
/// let start = graph.add(|n: usize| ArrayMut::<i32>::zeros(n), (10,));
/// // This node would change `start`, which other nodes could still take.
/// let negated = graph.add(negate, (&start,));
/// ```
pub struct Graph {
    id: u64,
    nodes: Vec<Meta>,
    /// The nodes whose values each node takes, in the order of the nodes.
    edges: Vec<u32>,
    order: Order,
    /// The arrays passed to nodes, in the order of the nodes.
    arrays: Vec<PassedArray>,
    options: Vec<JobOptions>,
    bytes: HashMap<u32, u64>,
    names: HashMap<u32, String>,
    columns: Columns,
    unfused: bool,
    on_failure: OnFailure,
    /// The place in the program where a node of another graph was first passed.
    foreign: Option<&'static Location<'static>>,
}

/// A node, without its arguments.
#[derive(Clone, Copy, Debug)]
struct Meta {
    kernel: u32,
    /// The end of the node's part of `edges`.
    edges_end: u32,
    /// Index of the node's options plus 1, or 0 if it has none.
    options: u32,
}

/// A value that a [`Graph`] can compute. Pass it, or a reference to it, to other nodes, or make it a target of
/// [`Graph::run`].
pub struct Node<R> {
    graph: u64,
    index: u32,
    read: Read<R>,
    value: PhantomData<fn() -> R>,
}

/// The work and memory that a graph needs: see [`Graph::plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// Number of nodes that have to run.
    pub nodes: usize,
    /// Number of jobs that run these nodes: a fused chain of nodes is one job.
    pub jobs: usize,
    /// The maximum of the bytes that declared values take at the same time if jobs run one after the other.
    pub peak_bytes: u64,
    /// The size of all declared values, in bytes.
    pub total_bytes: u64,
}

impl Graph {
    /// Creates a graph without nodes.
    pub fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self {
            // Relaxed: only uniqueness matters.
            id: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            nodes: Vec::new(),
            edges: Vec::new(),
            order: Order::default(),
            arrays: Vec::new(),
            options: Vec::new(),
            bytes: HashMap::new(),
            names: HashMap::new(),
            columns: Columns::default(),
            unfused: false,
            on_failure: OnFailure::default(),
            foreign: None,
        }
    }

    /// Adds a node that runs `kernel` on these inputs: arguments as for [`Engine::submit`], and other nodes.
    #[doc(alias = "delayed")]
    #[track_caller]
    #[inline]
    pub fn add<F, A, P, R>(&mut self, kernel: F, inputs: A) -> Node<R::Out>
    where
        F: Kernel<P, R>,
        A: Inputs<P>,
        P: OwnedParams,
        R: Reply,
    {
        const { captures_nothing::<F>() };
        // Only the type of the kernel is used: its value has no bytes.
        let _ = kernel;
        let mut wiring = Wiring {
            graph: self.id,
            node: self.nodes.len() as u32,
            argument: 0,
            edges: &mut self.edges,
            arrays: &mut self.arrays,
            foreign: false,
        };
        let slots = inputs.slots(&mut wiring);
        if wiring.foreign {
            self.foreign.get_or_insert(Location::caller());
        }
        let kernel = self.columns.push::<F, P, R>(slots);
        let index = self.nodes.len();
        let edges = self.nodes.last().map_or(0, |last| last.edges_end as usize);
        assert!(
            index < u32::MAX as usize,
            "a graph has fewer than 2^32 nodes"
        );
        self.nodes.push(Meta {
            kernel,
            edges_end: self.edges.len() as u32,
            options: 0,
        });
        self.order.added(index as u32, &self.edges[edges..]);
        Node {
            graph: self.id,
            index: index as u32,
            read: R::receive,
            value: PhantomData,
        }
    }

    /// Combines the values of these nodes: `kernel` combines neighbouring values, then neighbouring results, until one
    /// value is left. The pairs depend only on the number of nodes, so sums of floats have the same bits for any number
    /// of workers. Returns `None` if there are no nodes.
    #[track_caller]
    pub fn reduce<F, P, R>(
        &mut self,
        kernel: F,
        nodes: impl IntoIterator<Item = Node<R::Out>>,
    ) -> Option<Node<R::Out>>
    where
        F: Kernel<(P, P), R>,
        P: OwnedParam,
        R: Reply,
        Node<R::Out>: Input<P>,
    {
        const { captures_nothing::<F>() };
        let mut row: Vec<_> = nodes.into_iter().collect();
        while row.len() > 1 {
            let mut above = Vec::with_capacity(row.len().div_ceil(2));
            let mut below = row.into_iter();
            while let Some(left) = below.next() {
                above.push(match below.next() {
                    Some(right) => self.add(kernel, (left, right)),
                    None => left,
                });
            }
            row = above;
        }
        row.pop()
    }

    /// Starts building a node, which may get [options](crate::JobOptions), a name, and the size of its value.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use std::time::Duration;
    /// use arenite::{Array, Graph};
    ///
    /// let mut graph = Graph::new();
    /// let ramp = graph
    ///     .job(|n: usize| Array::from_fn(n, |i| i as u32), (1000,))
    ///     .name("ramp")
    ///     .retries(2)
    ///     .deadline(Duration::from_secs(10))
    ///     .shape::<u32>(1000)
    ///     .add();
    /// let sum = graph.add(|values: &[u32]| values.iter().sum::<u32>(), (&ramp,));
    /// assert_eq!(graph.plan(&sum)?.peak_bytes, 4000);
    /// assert_eq!(graph.run(&engine, &sum)?.wait()?, 499_500);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn job<F, A, P, R>(&mut self, kernel: F, inputs: A) -> NodeBuilder<'_, R::Out, A>
    where
        F: Kernel<P, R>,
        A: Inputs<P>,
        P: OwnedParams,
        R: Reply,
    {
        const { captures_nothing::<F>() };
        let node = self.add(kernel, inputs);
        NodeBuilder::new(self, node)
    }

    /// Makes `node` run after `before`, although `node` does not take the value of `before`. Use it if `before` writes
    /// a file that `node` reads, for example. If `before` fails, `node` does not run.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{Graph, GraphError};
    ///
    /// let mut graph = Graph::new();
    /// let write = graph.add(|| {}, ());
    /// let read = graph.add(|| 7u8, ());
    /// graph.after(&read, &write)?;
    /// assert!(matches!(graph.after(&write, &read), Err(GraphError::Cycle { .. })));
    /// assert_eq!(graph.run(&engine, &read)?.wait()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`GraphError::Cycle`] if `before` already waits for `node`; [`GraphError::ForeignNode`]. The graph does not
    /// change.
    #[track_caller]
    pub fn after<A, B>(&mut self, node: &Node<A>, before: &Node<B>) -> Result<(), GraphError> {
        if node.graph != self.id || before.graph != self.id {
            return Err(GraphError::ForeignNode {
                at: Location::caller().to_string(),
            });
        }
        let (nodes, edges) = (&self.nodes, &self.edges);
        let sources = |node| sources(nodes, edges, node);
        let order = &mut self.order;
        let added = order.add(node.index, before.index, nodes.len() as u32, sources);
        added.map_err(|cycle| GraphError::Cycle {
            nodes: cycle
                .into_iter()
                .map(|node| node_name(&self.names, node))
                .collect(),
        })
    }

    /// Sets whether a chain of nodes runs as one job, as it does by default.
    pub fn fuse(&mut self, fuse: bool) -> &mut Self {
        self.unfused = !fuse;
        self
    }

    /// Sets whether the graph continues after a failure, with all nodes that do not depend on the failed node (the
    /// default), or stops.
    ///
    /// A graph that stops starts no more nodes, and cancels running nodes like [`Job::cancel`](super::Job::cancel): a
    /// kernel that does not check [`cancelled`](crate::cancelled) runs to its end. Nodes that have a value by then keep
    /// it. All other nodes fail with [`Cancelled`](super::JobErrorKind::Cancelled), with the failure as their
    /// [`origin`](super::JobError::origin).
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{Graph, JobErrorKind, OnFailure};
    ///
    /// let mut graph = Graph::new();
    /// graph.on_failure(OnFailure::Stop);
    /// let fine = graph.add(|| 1u32, ());
    /// let bad = graph.add(|| Err::<u32, _>("no such file"), ());
    /// let late = graph.add(|x: u32| x + 1, (&fine,));
    /// let (fine, bad, late) = graph.run(&engine, (&fine, &bad, &late))?.results();
    /// assert_eq!(fine?, 1);
    /// let late = late.unwrap_err();
    /// assert_eq!(*late.kind(), JobErrorKind::Cancelled);
    /// assert_eq!(late.origin(), bad.err().as_ref());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_failure(&mut self, on_failure: OnFailure) -> &mut Self {
        self.on_failure = on_failure;
        self
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns true if there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the work and memory that these targets need, without computing them.
    ///
    /// # Errors
    /// Like [`run`](Graph::run), except for errors that depend on the engine: the arena's room, and which arrays it
    /// contains.
    #[track_caller]
    pub fn plan(&self, targets: impl Targets) -> Result<Plan, GraphError> {
        let (_, targets) = self.targets(targets)?;
        let jobs = self
            .sketch(&self.columns.fusable())
            .jobs(&targets, u64::MAX)?;
        Ok(Plan {
            nodes: jobs.nodes.len(),
            jobs: jobs.units.len(),
            peak_bytes: jobs.peak,
            total_bytes: jobs.total,
        })
    }

    /// Returns the graph in Graphviz's language. [`Running::dot`] adds run times.
    pub fn dot(&self) -> String {
        let picture = self.picture(&Jobs::default(), &[]);
        picture.dot(None)
    }

    /// Computes the values of the targets, and of all nodes that they need.
    ///
    /// Returns at once; [`Running::wait`] returns the values. The engine starts each job when its inputs are available.
    /// A failed node stops the nodes that depend on it, and no others. [`Engine::inline`] runs the jobs on this thread,
    /// one after the other.
    ///
    /// If sizes are declared ([`NodeBuilder::shape`]), the peak memory of all values is computed before the first job
    /// starts. If it exceeds the arena's free memory, the nodes run in another order that fits, with fewer in parallel.
    /// Free memory is measured once, before the first job, and not reserved: if another graph runs, or other jobs
    /// allocate at the same time, a graph that fitted may still fail with [`JobLimit::Arena`](crate::JobLimit::Arena).
    /// Run large graphs one after the other.
    ///
    /// Consumes the graph, also on error. [`plan`](Graph::plan) returns in advance what the graph needs: if
    /// [`peak_bytes`](Plan::peak_bytes) are free, the graph is not refused for lack of memory.
    ///
    /// ```
    /// use arenite::{Array, ArrayMut, Engine, Graph};
    ///
    /// const MB: usize = 1_000_000;
    ///
    /// fn block(n: usize) -> Array<u8> {
    ///     ArrayMut::zeros(n).seal()
    /// }
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     arenite::init();
    ///     let engine = Engine::builder().workers(2).capacity(64 << 20).build()?;
    ///     let mut graph = Graph::new();
    ///     // Otherwise a block and its length would be one job.
    ///     graph.fuse(false);
    ///     let blocks: Vec<_> =
    ///         (0..5).map(|_| graph.job(block, (20 * MB,)).shape::<u8>(20 * MB).add()).collect();
    ///     let lengths: Vec<_> =
    ///         blocks.iter().map(|block| graph.add(|block: &[u8]| block.len(), (block,))).collect();
    ///     // In the order of addition, all five blocks would exist before the first one is read.
    ///     assert_eq!(graph.plan(&lengths)?.peak_bytes, 100_000_000);
    ///     // So each is read before the next is made.
    ///     assert_eq!(graph.run(&engine, &lengths)?.wait()?, [20 * MB; 5]);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`GraphError::ForeignNode`], [`GraphError::AskedTwice`], [`GraphError::ForeignArray`];
    /// [`GraphError::DoesNotFit`] if no order fits. After an error, no node has run.
    #[doc(alias = "compute")]
    #[track_caller]
    pub fn run<T: Targets>(
        mut self,
        engine: &Engine,
        targets: T,
    ) -> Result<Running<T::Wanted>, GraphError> {
        let (wanted, targets) = self.targets(targets)?;
        let fusable = self.columns.fusable();
        let shared = engine.supervisor();
        let room = shared.map_or(u64::MAX, |shared| match self.bytes.is_empty() {
            true => u64::MAX,
            false => shared.room(),
        });
        let jobs = self.sketch(&fusable).jobs(&targets, room)?;
        if let Some(shared) = shared {
            self.check_arrays(&jobs, shared.arena.id())?;
        }
        let picture = Arc::new(self.picture(&jobs, &targets));
        self.columns.series = Some(engine.seeds.series());
        let Some(shared) = shared else {
            let options = self.options_of_nodes();
            let stops = self.on_failure == OnFailure::Stop;
            let inline = InlineRun::run(self.columns, &options, &jobs, &picture, stops);
            return Ok(Running::inline(inline, wanted, picture));
        };
        // Memory that is granted to workers in advance, for results, is not available to other jobs.
        let largest = self.bytes.values().copied().max().unwrap_or(0);
        let ahead = largest
            .saturating_mul(2)
            .max(HUGE as u64)
            .saturating_mul(shared.active_workers() as u64);
        let limit = room.saturating_sub(ahead).max(jobs.peak);
        let plan = RunPlan {
            ceiling: (jobs.total > limit).then_some(limit),
            stops: self.on_failure == OnFailure::Stop,
            jobs,
            kernel_of: picture.kernel_of.clone(),
            kernels: self.columns.kernels.clone(),
            options: self.options.into_iter().map(Arc::new).collect(),
            names: self.names,
            calls: Calls::Nodes(Box::new(self.columns)),
        };
        let graph = shared.start_graph(plan);
        Ok(Running::sent(shared, graph, wanted, picture))
    }

    /// Checks that all arrays passed to nodes that will run are in this arena.
    fn check_arrays(&self, jobs: &Jobs, arena: u64) -> Result<(), GraphError> {
        let is_needed = |node: u32| jobs.unit_of[node as usize] != NONE;
        let mut arrays = self.arrays.iter();
        let stray = arrays.find(|held| held.arena != Some(arena) && is_needed(held.node));
        let Some(&PassedArray { node, argument, .. }) = stray else {
            return Ok(());
        };
        let kernel = self.nodes[node as usize].kernel;
        Err(GraphError::ForeignArray {
            node: node_name(&self.names, node),
            kernel: self.columns.kernels[kernel as usize].info.name,
            argument: argument as usize + 1,
        })
    }

    /// Returns the options of those nodes that have options.
    fn options_of_nodes(&self) -> HashMap<u32, JobOptions> {
        let nodes = self.nodes.iter().zip(0..);
        let with_options = nodes.filter(|(meta, _)| meta.options != 0);
        with_options
            .map(|(meta, node)| (node, self.options[meta.options as usize - 1].clone()))
            .collect()
    }

    fn sketch<'g>(&'g self, fusable: &'g [bool]) -> Sketch<'g> {
        Sketch {
            nodes: &self.nodes,
            edges: &self.edges,
            after: self.order.after(),
            fusable,
            bytes: &self.bytes,
            fuse: !self.unfused,
        }
    }

    #[track_caller]
    fn targets<T: Targets>(&self, targets: T) -> Result<(T::Wanted, Vec<u32>), GraphError> {
        if let Some(at) = self.foreign {
            return Err(GraphError::ForeignNode { at: at.to_string() });
        }
        let mut asked = TargetList::default();
        let wanted = targets.wanted(&mut asked);
        let TargetList(list) = asked;
        if list.iter().any(|&(graph, _)| graph != self.id) {
            return Err(GraphError::ForeignNode {
                at: Location::caller().to_string(),
            });
        }
        let list: Vec<u32> = list.into_iter().map(|(_, node)| node).collect();
        let mut sorted = list.clone();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(GraphError::AskedTwice {
                node: node_name(&self.names, twice[0]),
            });
        }
        Ok((wanted, list))
    }

    fn picture(&self, jobs: &Jobs, targets: &[u32]) -> Picture {
        let kernels = self.columns.kernels.iter();
        let mut after = self.order.after().to_vec();
        after.sort_by_key(|&(node, _)| node);
        let mut wanted = vec![false; self.nodes.len()];
        for &node in targets {
            wanted[node as usize] = true;
        }
        Picture {
            kernel_of: self.nodes.iter().map(|node| node.kernel).collect(),
            kernels: kernels.map(|kernel| kernel.info.name).collect(),
            names: self.names.clone(),
            ends: self.nodes.iter().map(|node| node.edges_end).collect(),
            edges: self.edges.clone(),
            after,
            unit_of: jobs.unit_of.clone(),
            wanted,
        }
    }
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("nodes", &self.nodes.len())
            .field("edges", &(self.edges.len() + self.order.after().len()))
            .finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for Node<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.index).finish()
    }
}
