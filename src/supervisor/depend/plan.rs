//! The plan of a run: its units, the units that each waits for, and their arguments.
//!
//! A *unit* is one job of a run: a node of a graph, a chain of nodes, or a task that a job has spawned.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::spawn_reply::SpawnReply;
use crate::kernel::{Loading, NodeKernel};
use crate::supervisor::options::JobOptions;

/// Writes the arguments of a graph's nodes.
pub(crate) trait NodeCalls: Send {
    /// Writes the call of a node. Called once per node.
    fn load(&mut self, node: u32, loading: &mut Loading<'_>);
}

/// The source of the units' arguments.
pub(crate) enum Calls {
    /// The arguments of a graph, by node.
    Nodes(Box<dyn NodeCalls>),
    /// The reply of the job that spawned the units, with their arguments by unit.
    Tasks(SpawnReply),
    /// No source: no more units are sent, or a call is being written.
    None,
}

/// One job of a run. A task counts as one node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunUnit {
    /// The unit's nodes are `count` entries of [`Jobs::nodes`], from this index on.
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Start of the unit's part of [`Jobs::dependents`].
    pub(crate) dependents: u32,
    /// Start of the unit's part of [`Jobs::sources`].
    pub(crate) sources: u32,
    /// Number of units that this unit waits for.
    pub(crate) waits: u32,
    /// Number of times that the unit's value will still be taken, by other units and by the caller.
    pub(crate) uses: u32,
    /// Index into [`RunPlan::options`], from 1; 0 for none.
    pub(crate) options: u32,
    /// Length of the longest path to this unit from a unit without sources.
    pub(crate) level: u32,
    /// Whether the caller asked for the unit's value.
    pub(crate) is_requested: bool,
    /// Bytes of the unit's value, if declared.
    pub(crate) bytes: u64,
}

/// The jobs of a run, sorted so that each comes after the jobs that it waits for.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    pub(crate) units: Vec<RunUnit>,
    /// Node numbers, unit by unit.
    pub(crate) nodes: Vec<u32>,
    /// For each node of a graph: its unit, or [`u32::MAX`] if the node is not needed.
    pub(crate) unit_of: Vec<u32>,
    /// The units that wait for each unit, in the order of the units.
    pub(crate) dependents: Vec<u32>,
    /// The units whose values each unit takes, in the order of the units.
    pub(crate) sources: Vec<u32>,
    /// The maximum number of bytes of values at one time if the units run in this order.
    pub(crate) peak: u64,
    /// Bytes of all values together.
    pub(crate) total: u64,
}

impl Jobs {
    /// Returns the nodes of a unit, in the order of execution.
    pub(crate) fn nodes_of(&self, unit: &RunUnit) -> &[u32] {
        &self.nodes[unit.first as usize..(unit.first + unit.count) as usize]
    }

    /// Returns the range of `dependents` that belongs to `unit`.
    pub(crate) fn dependents_of(&self, unit: u32) -> Range<usize> {
        let of = |unit: &RunUnit| unit.dependents as usize;
        self.part(unit, of, self.dependents.len())
    }

    /// Returns the range of `sources` that belongs to `unit`.
    pub(crate) fn sources_of(&self, unit: u32) -> Range<usize> {
        let of = |unit: &RunUnit| unit.sources as usize;
        self.part(unit, of, self.sources.len())
    }

    fn part(&self, unit: u32, from: impl Fn(&RunUnit) -> usize, end: usize) -> Range<usize> {
        let unit = unit as usize;
        from(&self.units[unit])..self.units.get(unit + 1).map_or(end, from)
    }

    /// Returns the node of a unit. If the unit is a chain: the node at this step, or the last node if there is none.
    pub(super) fn node_at(&self, unit: u32, step: u32) -> u32 {
        let RunUnit { first, count, .. } = self.units[unit as usize];
        self.nodes[(first + step.min(count - 1)) as usize]
    }
}

/// The plan of a graph, or of the tasks of a job.
pub(crate) struct RunPlan {
    pub(crate) jobs: Jobs,
    /// For each node: the index of its kernel in `kernels`.
    pub(crate) kernel_of: Vec<u32>,
    /// The kernels of a graph's nodes. Empty for tasks, because the reply names their kernels.
    pub(crate) kernels: Vec<NodeKernel>,
    pub(crate) options: Vec<Arc<JobOptions>>,
    /// The names of nodes that have a name.
    pub(crate) names: HashMap<u32, String>,
    /// Limit on the bytes of all values. Units start in order, as long as their values fit.
    pub(crate) ceiling: Option<u64>,
    /// Whether the first failure stops the run.
    pub(crate) stops: bool,
    pub(crate) calls: Calls,
}

impl RunPlan {
    /// Returns the plan of the tasks of a job. The last task waits for all others, and takes their values.
    pub(super) fn of_tasks(reply: SpawnReply, options: Option<&Arc<JobOptions>>) -> Self {
        let mut listed = Vec::new();
        let mut list = |options: Arc<JobOptions>| {
            options.if_set()?;
            listed.push(options);
            Some(listed.len() as u32)
        };
        let several = options.and_then(|options| list(Arc::clone(options)));
        // A task that changes its arguments can run only once: the arguments exist only once.
        let once = options.and_then(|options| {
            let options = JobOptions::clone(options);
            list(Arc::new(JobOptions {
                retries: 0,
                ..options
            }))
        });
        let last = reply.tasks.len() as u32 - 1;
        let units = reply.tasks.iter().zip(0..).map(|(task, unit)| RunUnit {
            first: unit,
            count: 1,
            dependents: unit,
            sources: 0,
            waits: if unit == last { last } else { 0 },
            uses: 1,
            options: if task.moved { once } else { several }.unwrap_or(0),
            level: u32::from(unit == last),
            is_requested: unit == last,
            bytes: 0,
        });
        Self {
            jobs: Jobs {
                units: units.collect(),
                nodes: (0..=last).collect(),
                dependents: vec![last; last as usize],
                sources: (0..last).collect(),
                ..Jobs::default()
            },
            kernel_of: reply.tasks.iter().map(|task| task.kernel).collect(),
            kernels: Vec::new(),
            options: listed,
            names: HashMap::new(),
            ceiling: None,
            stops: true,
            calls: Calls::Tasks(reply),
        }
    }

    /// Returns the options of a unit's job.
    pub(super) fn options_of(&self, unit: u32) -> Option<&Arc<JobOptions>> {
        let number = self.jobs.units[unit as usize].options as usize;
        number.checked_sub(1).map(|at| &self.options[at])
    }

    /// Returns the kernel of a node of a graph.
    pub(super) fn kernel(&self, node: u32) -> &NodeKernel {
        &self.kernels[self.kernel_of[node as usize] as usize]
    }
}

/// Returns the name of a node in messages.
pub(crate) fn node_name(names: &HashMap<u32, String>, node: u32) -> String {
    let name = names.get(&node);
    name.map_or_else(|| format!("node {node}"), |name| format!("node {name:?}"))
}
