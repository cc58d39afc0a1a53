//! Jobs that take each other's values, and a picture of them.

use std::fmt::{self, Write};

use super::{Engine, Job, JobBuilder, JobFailure};
use crate::kernel::{Accepts, Args, Bind, Kernel, Params, Program, Reply, captures_nothing};

/// Jobs that take each other's [values as arguments](Engine::submit), combined in pairs and drawn.
///
/// A graph submits each job when it is added, so each runs as soon as its inputs are there. It notes names and inputs
/// for [`dot`](Graph::dot), and holds neither jobs nor values: the [`Job`]s that it returns are those of the engine.
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
/// let mut graph = Graph::new(&engine);
/// let double = graph.add(scale, (&values, 2.0));
/// let ten_times = graph.add(scale, (&double, 10.0));
/// let sums = [graph.add(total, (&double,)), graph.add_job(engine.job(total, (&ten_times,)).name("ten times"))];
/// let sum = graph.reduce(|a: f32, b: f32| a + b, sums).expect("there are two");
/// assert_eq!(sum.wait()?, 66.0);
/// std::fs::write(std::env::temp_dir().join("sums.dot"), graph.dot())?;
/// # std::fs::remove_file(std::env::temp_dir().join("sums.dot"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Graph<'e> {
    engine: &'e Engine,
    nodes: Vec<Node>,
}

/// A job, as it is drawn.
struct Node {
    /// The job, as the supervisor names it. `None` for a job that ran inline.
    job: Option<u64>,
    name: String,
    inputs: Vec<u64>,
}

impl<'e> Graph<'e> {
    /// Returns a graph without jobs.
    pub fn new(engine: &'e Engine) -> Self {
        Self {
            engine,
            nodes: Vec::new(),
        }
    }

    /// Submits a job, as [`Engine::submit`] does.
    pub fn add<F, A, P, R>(&mut self, kernel: F, args: A) -> Job<R::Out>
    where
        F: Bind<A>,
        F::Kernel: Kernel<P, R>,
        F::Args: Args<'static, P>,
        P: Params,
        R: Reply,
    {
        const { captures_nothing::<F::Kernel>() };
        let engine = self.engine;
        self.add_job(engine.job(kernel, args))
    }

    /// Submits a job of the same engine that has options. Its [name](JobBuilder::name) is drawn in place of its
    /// kernel's.
    pub fn add_job<G, A, const RETRIES: bool, E>(
        &mut self,
        job: JobBuilder<'e, G, A, RETRIES, E>,
    ) -> Job<<G::Reply as Reply>::Out, E>
    where
        G: Program + Accepts<A>,
        E: JobFailure,
    {
        let name = job.options.name.unwrap_or_else(G::name);
        let name = name.rsplit("::").next().unwrap_or(name).to_owned();
        let mut inputs = Vec::new();
        let job = job.submit_noting(|call| {
            inputs.extend(call.open_inputs().iter().map(|input| input.job));
        });
        self.nodes.push(Node {
            job: job.sent_to().map(|(_, id)| id.to_bits()),
            name,
            inputs,
        });
        job
    }

    /// Combines the values of these jobs: `kernel` combines neighbouring values, then neighbouring results, until one
    /// value is left. The pairs depend only on the number of jobs, so sums of floats have the same bits for any number
    /// of workers. Returns `None` if there are no jobs.
    pub fn reduce<F, P, R>(
        &mut self,
        kernel: F,
        jobs: impl IntoIterator<Item = Job<R::Out>>,
    ) -> Option<Job<R::Out>>
    where
        F: Kernel<P, R>,
        P: Params,
        R: Reply,
        (Job<R::Out>, Job<R::Out>): Args<'static, P>,
    {
        const { captures_nothing::<F>() };
        let mut row: Vec<_> = jobs.into_iter().collect();
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

    /// Returns the number of jobs.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns true if there are no jobs.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns a picture of the jobs in Graphviz's language, with an arrow for each value. Jobs of an inline engine end
    /// when they are added, and are drawn without arrows. [`Builder::trace`](super::Builder::trace) shows when and
    /// where jobs ran.
    pub fn dot(&self) -> String {
        let mut dot =
            String::from("digraph {\n  rankdir=LR;\n  node [shape=box, fontname=sans];\n");
        let at: std::collections::HashMap<_, _> = self
            .nodes
            .iter()
            .zip(0..)
            .filter_map(|(node, at)| Some((node.job?, at)))
            .collect();
        for (node, at) in self.nodes.iter().zip(0..) {
            let label = node.name.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(dot, "  n{at} [label=\"{label} {at}\"];");
        }
        for (node, to) in self.nodes.iter().zip(0..) {
            // A job of the same engine that was not added is not drawn.
            let inputs = node.inputs.iter().filter_map(|input| at.get(input));
            for from in inputs.filter(|&&from| from < to) {
                let _ = writeln!(dot, "  n{from} -> n{to};");
            }
        }
        dot.push_str("}\n");
        dot
    }
}

impl fmt::Debug for Graph<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = self.nodes.len();
        f.debug_struct("Graph")
            .field("jobs", &jobs)
            .finish_non_exhaustive()
    }
}
