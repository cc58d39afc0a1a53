//! A running graph and its results.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::iter::once;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::column::Columns;
use super::input::Wanted;
use super::picture::Picture;
use crate::engine::JobError;
use crate::kernel::NodeValues;
use crate::supervisor::{
    Failed, GraphId, GraphProgress, JobOptions, Jobs, NodeFate, PermitSource, Read, Supervisor,
    node_name,
};

/// A running graph: see [`Graph::run`](super::Graph::run).
///
/// Dropping it cancels the graph: jobs that have not started never start, and running jobs are asked to stop. It is
/// also a [`Future`], for any executor, with the output of [`wait`](Running::wait).
#[must_use = "dropping a running graph cancels it: `wait` for it"]
pub struct Running<W: Wanted> {
    state: State,
    wanted: Option<W>,
    picture: Arc<Picture>,
}

enum State {
    Sent {
        shared: Arc<Supervisor>,
        graph: GraphId,
    },
    Inline(InlineRun),
}

/// A graph that ran on the caller's thread.
pub(super) struct InlineRun {
    kept: NodeValues,
    /// For each node: why it failed or did not run.
    errors: Vec<Option<Lost>>,
    fates: Vec<NodeFate>,
    picture: Arc<Picture>,
    /// Whether the first failure stops the graph.
    stops: bool,
    failure: Option<JobError>,
    /// Number of units with a target that have neither a value nor an error yet.
    open: usize,
}

/// Why a node has no value.
enum Lost {
    Failed(JobError),
    /// The node depends on this other node, which failed.
    To(u32),
    /// The graph stopped.
    Stopped(JobError),
}

impl InlineRun {
    /// Runs the jobs of a graph, one after the other, until all targets are decided.
    pub(super) fn run(
        mut columns: Columns,
        options: &HashMap<u32, JobOptions>,
        jobs: &Jobs,
        picture: &Arc<Picture>,
        stops: bool,
    ) -> Self {
        let count = jobs.unit_of.len();
        let mut inline = Self {
            kept: NodeValues {
                values: (0..count).map(|_| None).collect(),
                uses: vec![0; count],
            },
            errors: (0..count).map(|_| None).collect(),
            fates: vec![NodeFate::Open; count],
            picture: Arc::clone(picture),
            stops,
            failure: None,
            open: jobs.units.iter().filter(|unit| unit.is_requested).count(),
        };
        for unit in &jobs.units {
            for (&node, at) in jobs.nodes_of(unit).iter().zip(1..) {
                inline.kept.uses[node as usize] = if at == unit.count { unit.uses } else { 1 };
            }
        }
        for (at, unit) in jobs.units.iter().enumerate() {
            let is_stopped = inline.stops && inline.failure.is_some();
            if inline.open > 0 || is_stopped {
                inline.unit(at, jobs, options, &mut columns);
                continue;
            }
            // All targets are decided, so this unit is not needed.
            for &node in jobs.nodes_of(unit) {
                if inline.errors[node as usize].is_none() {
                    inline.release_inputs(node);
                }
            }
        }
        inline
    }

    /// Runs the nodes of a unit, unless a failure has decided them.
    fn unit(
        &mut self,
        at: usize,
        jobs: &Jobs,
        options: &HashMap<u32, JobOptions>,
        columns: &mut Columns,
    ) {
        let nodes = jobs.nodes_of(&jobs.units[at]);
        if self.errors[nodes[0] as usize].is_some() {
            return;
        }
        for (done, &node) in nodes.iter().enumerate() {
            if let Some(failure) = self.failure.as_ref().filter(|_| self.stops) {
                let error = Failed::new(failure.of_stop(), self.picture.kernel(node), 0);
                self.skip(node, Lost::Stopped(error.into()));
            } else if !self.node(node, options.get(&node), columns) {
                self.lose(at, &nodes[done + 1..], node, jobs);
                return;
            }
        }
        self.open -= usize::from(jobs.units[at].is_requested);
    }

    /// Runs a node, with a permit of its limiter. Returns true if the node has a value.
    fn node(&mut self, node: u32, options: Option<&JobOptions>, columns: &mut Columns) -> bool {
        let at = node as usize;
        let limit = options.and_then(|options| options.limit.as_ref());
        let permit = limit.map(PermitSource::acquire_inline).transpose();
        let started = Instant::now();
        let ran = match permit {
            Ok(_permit) => columns.run(node, &mut self.kept),
            Err(why) => {
                self.release_inputs(node);
                Err(Failed::new(why, self.picture.kernel(node), 0).into())
            }
        };
        match ran {
            Ok(value) => {
                self.fates[at] = NodeFate::Done {
                    took: started.elapsed(),
                    worker: 0,
                    with: 0,
                };
                if self.kept.uses[at] > 0 {
                    self.kept.values[at] = Some(value);
                }
                true
            }
            Err(error) => {
                let error = match options {
                    Some(options) => error.with_label(&options.label),
                    None => error,
                };
                self.fates[at] = NodeFate::Failed;
                self.failure.get_or_insert_with(|| error.clone());
                self.errors[at] = Some(Lost::Failed(error));
                false
            }
        }
    }

    /// Skips `rest`, the nodes of a unit after its failed node `root`, and all units that wait for that unit.
    fn lose(&mut self, unit: usize, rest: &[u32], root: u32, jobs: &Jobs) {
        rest.iter()
            .for_each(|&node| self.skip(node, Lost::To(root)));
        self.open -= usize::from(jobs.units[unit].is_requested);
        let mut lost = vec![unit];
        while let Some(failed) = lost.pop() {
            for at in jobs.dependents_of(failed as u32) {
                let dependent = jobs.dependents[at];
                let unit = &jobs.units[dependent as usize];
                let nodes = jobs.nodes_of(unit);
                if self.errors[nodes[0] as usize].is_some() {
                    continue;
                }
                nodes
                    .iter()
                    .for_each(|&node| self.skip(node, Lost::To(root)));
                self.open -= usize::from(unit.is_requested);
                lost.push(dependent as usize);
            }
        }
    }

    /// Marks a node that will not run.
    fn skip(&mut self, node: u32, why: Lost) {
        self.errors[node as usize] = Some(why);
        self.fates[node as usize] = NodeFate::Skipped;
        self.release_inputs(node);
    }

    /// Releases the values that were retained for a node which will not run.
    fn release_inputs(&mut self, node: u32) {
        for &source in self.picture.sources(node) {
            let uses = &mut self.kept.uses[source as usize];
            *uses -= 1;
            if *uses == 0 {
                self.kept.values[source as usize] = None;
            }
        }
    }

    fn take<R: Send + 'static>(&mut self, node: u32) -> Result<R, JobError> {
        match &self.errors[node as usize] {
            None => {
                let value: Option<Box<dyn Any>> = match self.kept.values[node as usize].take() {
                    Some(value) => Some(value),
                    None => None,
                };
                let value = value.and_then(|value| value.downcast::<R>().ok());
                Ok(*value.expect("a target has a value of its type"))
            }
            Some(Lost::Failed(error) | Lost::Stopped(error)) => Err(error.clone()),
            Some(Lost::To(root)) => {
                let Some(Lost::Failed(error)) = &self.errors[*root as usize] else {
                    unreachable!("the failed node has an error");
                };
                let why = error.of_dependency(node_name(&self.picture.names, *root));
                Err(Failed::new(why, self.picture.kernel(node), 0).into())
            }
        }
    }
}

/// Gives access to the values of a graph whose targets are all decided.
#[allow(missing_debug_implementations, reason = "hidden")]
pub struct Source<'r>(&'r mut State);

impl Source<'_> {
    pub(super) fn take<R: Send + 'static>(
        &mut self,
        node: u32,
        read: Read<R>,
    ) -> Result<R, JobError> {
        match &mut self.0 {
            State::Sent { shared, graph } => shared.take_node(*graph, node, read),
            State::Inline(inline) => inline.take(node),
        }
    }
}

impl<W: Wanted> Running<W> {
    pub(super) fn sent(
        shared: &Arc<Supervisor>,
        graph: GraphId,
        wanted: W,
        picture: Arc<Picture>,
    ) -> Self {
        Self {
            state: State::Sent {
                shared: Arc::clone(shared),
                graph,
            },
            wanted: Some(wanted),
            picture,
        }
    }

    pub(super) fn inline(inline: InlineRun, wanted: W, picture: Arc<Picture>) -> Self {
        Self {
            state: State::Inline(inline),
            wanted: Some(wanted),
            picture,
        }
    }

    /// Waits for the values of the targets.
    ///
    /// # Errors
    /// The first failure, in the order of the targets. If a target did not run because another node failed, the error
    /// is [`FailedDependency::Node`](crate::FailedDependency::Node), with that node and its cause.
    ///
    /// # Panics
    /// If polling has already returned the values.
    pub fn wait(self) -> Result<W::Values, JobError> {
        W::values(self.results())
    }

    /// Waits until all targets are decided, and returns a result for each target: a failure does not discard the other
    /// values.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{Graph, JobErrorKind, FailedDependency};
    ///
    /// fn half(x: u32) -> Result<u32, String> {
    ///     if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd")) }
    /// }
    ///
    /// let mut graph = Graph::new();
    /// let three = graph.add(half, (6,));
    /// let odd = graph.add(half, (&three,));
    /// let lost = graph.add(half, (&odd,));
    /// let (three, lost) = graph.run(&engine, (&three, &lost))?.results();
    /// assert_eq!(three?, 3);
    /// let JobErrorKind::Dependency(FailedDependency::Node { node, cause, .. }) = lost.unwrap_err().kind().clone() else {
    ///     panic!()
    /// };
    /// assert_eq!((node.as_str(), *cause), ("node 1", JobErrorKind::Returned("3 is odd".into())));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If polling has already returned the values.
    pub fn results(mut self) -> W::Results {
        self.await_end(None);
        self.take_results()
    }

    /// Waits until all targets are decided, for at most `limit`. Returns false if the limit passes first; the graph
    /// continues.
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        self.await_end(Some(limit))
    }

    /// Returns the number of nodes, and how many of them have ended. Does not wait.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let mut graph = arenite::Graph::new();
    /// let six = graph.add(|| 6u32, ());
    /// let seven = graph.add(|x: u32| x + 1, (&six,));
    /// let running = graph.run(&engine, &seven)?;
    /// while !running.wait_timeout(std::time::Duration::from_millis(100)) {
    ///     let progress = running.progress();
    ///     eprintln!("{} of {} nodes are left", progress.left(), progress.nodes);
    /// }
    /// assert_eq!(running.progress().done, 2);
    /// # Ok::<(), arenite::GraphError>(())
    /// ```
    pub fn progress(&self) -> GraphProgress {
        match &self.state {
            State::Sent { shared, graph } => shared.graph_progress(*graph),
            State::Inline(inline) => {
                // The run has ended, so nodes that are still open were not needed.
                let decided = inline.fates.iter().filter(|fate| **fate != NodeFate::Open);
                decided.fold(GraphProgress::default(), |mut progress, fate| {
                    progress.nodes += 1;
                    progress.count(*fate);
                    progress
                })
            }
        }
    }

    /// Waits until all nodes are decided, and returns the graph in Graphviz's language: nodes with their run times (the
    /// longer, the warmer the colour), failed nodes in red, chains that ran as one job as clusters. `dot -Tsvg` draws
    /// it.
    ///
    /// In a fused chain of more than eight nodes, the label of each node has the time of the whole job, and says so.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{Array, Graph};
    ///
    /// let mut graph = Graph::new();
    /// let ramp = graph.job(|n: usize| Array::from_fn(n, |i| i as u32), (1000,)).name("ramp").add();
    /// let sum = graph.add(|values: &[u32]| values.iter().sum::<u32>(), (&ramp,));
    /// let running = graph.run(&engine, &sum)?;
    /// assert!(running.dot().contains("ramp"));
    /// println!("{} jobs, {:?} of work", running.jobs(), running.busy());
    /// // The values are still there.
    /// assert_eq!(running.wait()?, 499_500);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dot(&self) -> String {
        self.picture.dot(Some(&self.fates()))
    }

    /// Returns the number of jobs of the graph: a fused chain is one job.
    pub fn jobs(&self) -> usize {
        self.picture.jobs()
    }

    /// Waits until all nodes are decided, and returns the total run time of all jobs.
    pub fn busy(&self) -> Duration {
        self.picture.busy(&self.fates())
    }

    fn fates(&self) -> Vec<NodeFate> {
        self.await_end(None);
        match &self.state {
            State::Sent { shared, graph } => shared.fates(*graph),
            State::Inline(inline) => inline.fates.clone(),
        }
    }

    fn await_end(&self, limit: Option<Duration>) -> bool {
        match &self.state {
            State::Sent { shared, graph } => shared.wait_until_done(graph.job, limit),
            State::Inline(_) => true,
        }
    }

    fn take_results(&mut self) -> W::Results {
        let wanted = self.wanted.take();
        let wanted = wanted.expect("the values of this graph were taken before");
        wanted.results(&mut Source(&mut self.state))
    }
}

// A handle is not self-referential.
impl<W: Wanted> Unpin for Running<W> {}

impl<W: Wanted> Future for Running<W> {
    type Output = Result<W::Values, JobError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Sent { shared, graph } = &self.state
            && shared.poll_any(once(graph.job), context.waker()).is_none()
        {
            return Poll::Pending;
        }
        Poll::Ready(W::values(self.take_results()))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Self::Sent { shared, graph } = self {
            shared.drop_graph(*graph);
        }
    }
}

impl<W: Wanted> fmt::Debug for Running<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Sent { .. } => "sent",
            State::Inline(_) => "done",
        };
        f.debug_tuple("Running").field(&state).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Array, Engine, Graph, OnFailure};

    fn odd(x: u32) -> Result<u32, String> {
        (x % 2 == 1)
            .then_some(x)
            .ok_or_else(|| format!("{x} is even"))
    }

    fn both(values: &[u32], x: u32) -> u32 {
        values.iter().sum::<u32>() + x
    }

    fn inline<W: Wanted>(running: &Running<W>) -> &InlineRun {
        let State::Inline(inline) = &running.state else {
            panic!("an inline engine runs graphs in this thread");
        };
        inline
    }

    #[test]
    fn values_that_no_node_takes_are_freed() {
        let engine = Engine::inline();
        for stops in [OnFailure::GoOn, OnFailure::Stop] {
            let mut graph = Graph::new();
            graph.on_failure(stops);
            // When the other node fails, the value of `early` exists and that of the other input does not.
            let early = graph.add(|| Array::from_slice(&[1u32; 1000]), ());
            let even = graph.add(odd, (2,));
            let late = graph.add(|| Array::from_slice(&[1u32; 1000]), ());
            let lost = graph.add(both, (&early, &even));
            let lost_too = graph.add(both, (&late, &even));
            let fine = graph.add(|| 7u32, ());
            graph.after(&fine, &late).expect("no cycle");
            let running = graph.run(&engine, (&lost, &lost_too, &fine));
            let running = running.expect("it fits");
            let kept = inline(&running).kept.values.iter().flatten().count();
            assert_eq!(kept, usize::from(stops == OnFailure::GoOn), "the 7");
            let (lost, lost_too, fine) = running.results();
            assert!(lost.is_err() && lost_too.is_err());
            assert_eq!(fine.is_ok(), stops == OnFailure::GoOn);
        }
    }

    #[test]
    fn nodes_that_only_failed_targets_need_do_not_run() {
        let engine = Engine::inline();
        let mut graph = Graph::new();
        let early = graph.add(|| Array::from_slice(&[1u32; 1000]), ());
        let even = graph.add(odd, (2,));
        let unneeded = graph.add(|values: &[u32]| Array::from_slice(values), (&early,));
        let lost = graph.add(both, (&unneeded, &even));
        // Two nodes take `early`, so it is not part of a chain.
        let lost_too = graph.add(both, (&early, &even));
        let running = graph.run(&engine, (&lost, &lost_too));
        let running = running.expect("it fits");
        use NodeFate::{Done, Failed, Open, Skipped};
        assert!(matches!(
            inline(&running).fates[..],
            [Done { .. }, Failed, Open, Skipped, Skipped]
        ));
        assert!(inline(&running).kept.values.iter().all(Option::is_none));
        let (lost, lost_too) = running.results();
        assert!(lost.is_err() && lost_too.is_err());
    }
}
