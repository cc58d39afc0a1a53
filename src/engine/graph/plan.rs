//! Turns nodes into jobs: determines which nodes are needed, which nodes are fused, in which order they run, and the
//! memory that they take.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::{GraphError, Meta};
use crate::supervisor::{Jobs, RunUnit};

/// Maximum number of nodes of a fused chain. Chains are limited so that other jobs get their turn on the worker.
const LONGEST: usize = 1024;
/// Stands for no node and no unit.
pub(super) const NONE: u32 = u32::MAX;

/// The input of planning.
pub(super) struct Sketch<'g> {
    pub(super) nodes: &'g [Meta],
    /// The nodes whose values each node takes, in the order of the nodes.
    pub(super) edges: &'g [u32],
    /// Pairs of a node and a node that has to end before it.
    pub(super) after: &'g [(u32, u32)],
    /// Whether the nodes of each kernel may be part of a chain, by kernel.
    pub(super) fusable: &'g [bool],
    /// The declared size in bytes of each node's value, by node.
    pub(super) bytes: &'g HashMap<u32, u64>,
    /// Whether a chain of nodes becomes one job.
    pub(super) fuse: bool,
}

/// Returns the nodes whose values a node takes.
pub(super) fn sources<'g>(nodes: &[Meta], edges: &'g [u32], node: u32) -> &'g [u32] {
    let from = match node {
        0 => 0,
        node => nodes[node as usize - 1].edges_end as usize,
    };
    &edges[from..nodes[node as usize].edges_end as usize]
}

impl Sketch<'_> {
    /// Returns the nodes whose values a node takes.
    pub(super) fn sources(&self, node: u32) -> &[u32] {
        sources(self.nodes, self.edges, node)
    }

    fn bytes(&self, node: u32) -> u64 {
        self.bytes.get(&node).copied().unwrap_or(0)
    }

    /// Returns the jobs for these targets. `room`: the bytes that values may take. Jobs are in the order in which nodes
    /// were added if that order fits; otherwise in an order that takes less memory.
    pub(super) fn jobs(&self, targets: &[u32], room: u64) -> Result<Jobs, GraphError> {
        let predecessors = self.predecessors();
        let order = self.order(targets, &predecessors);
        let jobs = self.units(&order, targets, &predecessors);
        if jobs.peak <= room {
            return Ok(jobs);
        }
        let frugal = self.frugal_order(&jobs, targets, &predecessors);
        let frugal = self.units(&frugal, targets, &predecessors);
        let best = if frugal.peak < jobs.peak {
            frugal
        } else {
            jobs
        };
        if best.peak > room {
            return Err(GraphError::DoesNotFit {
                peak: best.peak,
                room,
            });
        }
        Ok(best)
    }

    /// Returns, for each node, the nodes that have to end before it, except those whose values it takes.
    fn predecessors(&self) -> HashMap<u32, Vec<u32>> {
        let mut predecessors: HashMap<u32, Vec<u32>> = HashMap::new();
        for &(node, before) in self.after {
            predecessors.entry(node).or_default().push(before);
        }
        predecessors
    }

    /// Returns the needed nodes: each after the nodes that it waits for, otherwise in the order of addition.
    fn order(&self, targets: &[u32], predecessors: &HashMap<u32, Vec<u32>>) -> Vec<u32> {
        let mut needed = vec![false; self.nodes.len()];
        let mut open = targets.to_vec();
        while let Some(node) = open.pop() {
            if std::mem::replace(&mut needed[node as usize], true) {
                continue;
            }
            open.extend(self.sources(node));
            open.extend(predecessors.get(&node).into_iter().flatten());
        }
        let all = (0..self.nodes.len() as u32).filter(|&node| needed[node as usize]);
        if predecessors.is_empty() {
            // The order of addition suffices, because a node takes only values of nodes that were added earlier.
            return all.collect();
        }
        let mut waits = vec![0u32; self.nodes.len()];
        let mut followers: HashMap<u32, Vec<u32>> = HashMap::new();
        for node in all.clone() {
            let before = self.sources(node).iter();
            for &before in before.chain(predecessors.get(&node).into_iter().flatten()) {
                waits[node as usize] += 1;
                followers.entry(before).or_default().push(node);
            }
        }
        let free = all.filter(|&node| waits[node as usize] == 0).map(Reverse);
        let mut free: BinaryHeap<_> = free.collect();
        let mut order = Vec::new();
        while let Some(Reverse(node)) = free.pop() {
            order.push(node);
            for &follower in followers.get(&node).into_iter().flatten() {
                waits[follower as usize] -= 1;
                if waits[follower as usize] == 0 {
                    free.push(Reverse(follower));
                }
            }
        }
        order
    }

    /// Divides the nodes, in this order, into jobs.
    fn units(&self, order: &[u32], targets: &[u32], predecessors: &HashMap<u32, Vec<u32>>) -> Jobs {
        let mut uses = vec![0u32; self.nodes.len()];
        for &node in order {
            for &source in self.sources(node) {
                uses[source as usize] += 1;
            }
        }
        let mut wanted = vec![false; self.nodes.len()];
        for &target in targets {
            uses[target as usize] += 1;
            wanted[target as usize] = true;
        }
        let mut is_single = vec![!self.fuse; self.nodes.len()];
        for (&node, predecessors) in predecessors {
            is_single[node as usize] = true;
            predecessors
                .iter()
                .for_each(|&before| is_single[before as usize] = true);
        }
        let may_join = |node: u32| {
            let meta = &self.nodes[node as usize];
            !is_single[node as usize] && meta.options == 0 && self.fusable[meta.kernel as usize]
        };
        // For each node, the next node of its chain.
        let mut next = vec![NONE; self.nodes.len()];
        let mut length = vec![0u16; self.nodes.len()];
        for &node in order {
            if let &[source] = self.sources(node)
                && uses[source as usize] == 1
                && !wanted[source as usize]
                && may_join(node)
                && may_join(source)
                && usize::from(length[source as usize]) + 1 < LONGEST
            {
                next[source as usize] = node;
                length[node as usize] = length[source as usize] + 1;
            }
        }
        let mut jobs = Jobs {
            unit_of: vec![NONE; self.nodes.len()],
            ..Jobs::default()
        };
        jobs.nodes.reserve(order.len());
        for &head in order.iter().filter(|&&node| length[node as usize] == 0) {
            let unit = jobs.units.len() as u32;
            let first = jobs.nodes.len() as u32;
            let (mut node, mut last, mut bytes) = (head, head, 0);
            while node != NONE {
                jobs.nodes.push(node);
                jobs.unit_of[node as usize] = unit;
                let pair = if node == head { 0 } else { self.bytes(last) };
                bytes = bytes.max(self.bytes(node).saturating_add(pair));
                last = node;
                node = next[node as usize];
            }
            jobs.units.push(RunUnit {
                first,
                count: jobs.nodes.len() as u32 - first,
                uses: uses[last as usize],
                options: self.nodes[head as usize].options,
                is_requested: wanted[last as usize],
                bytes,
                ..RunUnit::default()
            });
        }
        self.connect(&mut jobs, predecessors);
        self.measure_memory(&mut jobs);
        jobs
    }

    /// Fills in the relations between units: for which units each unit waits, and whose values it takes.
    fn connect(&self, jobs: &mut Jobs, predecessors: &HashMap<u32, Vec<u32>>) {
        let mut counts = vec![0u32; jobs.units.len() + 1];
        let mut waiting = Vec::with_capacity(self.edges.len());
        for unit in 0..jobs.units.len() {
            let node = jobs.nodes[jobs.units[unit].first as usize];
            jobs.units[unit].sources = jobs.sources.len() as u32;
            for &source in self.sources(node) {
                let source = jobs.unit_of[source as usize];
                jobs.sources.push(source);
                waiting.push((source, unit as u32));
            }
            for &before in predecessors.get(&node).into_iter().flatten() {
                waiting.push((jobs.unit_of[before as usize], unit as u32));
            }
        }
        // `waiting` is sorted by the waiting unit, so the level of `before` is already final.
        for &(before, unit) in &waiting {
            let level = jobs.units[before as usize].level + 1;
            let waits = &mut jobs.units[unit as usize];
            waits.waits += 1;
            waits.level = waits.level.max(level);
            counts[before as usize] += 1;
        }
        let mut at = 0;
        for (unit, count) in jobs.units.iter_mut().zip(&mut counts) {
            unit.dependents = at;
            at += *count;
            *count = unit.dependents;
        }
        jobs.dependents = vec![0; waiting.len()];
        for (before, unit) in waiting {
            let place = &mut counts[before as usize];
            jobs.dependents[*place as usize] = unit;
            *place += 1;
        }
    }

    /// Computes the memory that the values take if the jobs run in order.
    fn measure_memory(&self, jobs: &mut Jobs) {
        if self.bytes.is_empty() {
            return;
        }
        let mut uses: Vec<u32> = jobs.units.iter().map(|unit| unit.uses).collect();
        let mut live = 0u64;
        for at in 0..jobs.units.len() {
            let unit = jobs.units[at];
            let all = jobs.nodes_of(&unit).iter().map(|&node| self.bytes(node));
            let last = all.clone().next_back().unwrap_or(0);
            jobs.total = all.fold(jobs.total, u64::saturating_add);
            jobs.peak = jobs.peak.max(live.saturating_add(unit.bytes));
            for &source in &jobs.sources[jobs.sources_of(at as u32)] {
                let source = source as usize;
                uses[source] -= 1;
                if uses[source] == 0 {
                    let unit = jobs.units[source];
                    // If a sum has saturated, the difference is wrong, but the peak exceeds any arena anyway.
                    live = live.saturating_sub(
                        self.bytes(jobs.nodes[(unit.first + unit.count - 1) as usize]),
                    );
                }
            }
            if unit.uses > 0 {
                live = live.saturating_add(last);
            }
        }
    }

    /// Returns a depth-first order that takes little memory. The inputs of a node are sorted by the memory that is free
    /// again after each: the memory that it takes while it is computed minus the size of its value. The largest
    /// difference comes first.
    fn frugal_order(
        &self,
        jobs: &Jobs,
        targets: &[u32],
        predecessors: &HashMap<u32, Vec<u32>>,
    ) -> Vec<u32> {
        // The memory that is needed to compute each node and its inputs, as if no other node took the same inputs.
        let mut need = vec![0u64; self.nodes.len()];
        let mut plans: HashMap<u32, Vec<u32>> = HashMap::new();
        for &node in &jobs.nodes {
            let predecessors = predecessors.get(&node).into_iter().flatten();
            let mut before: Vec<u32> = self
                .sources(node)
                .iter()
                .chain(predecessors)
                .copied()
                .collect();
            before.sort_unstable();
            before.dedup();
            before.sort_by_key(|&node| Reverse(need[node as usize] - self.bytes(node)));
            let mut held = 0u64;
            for &node_before in &before {
                let whole = held.saturating_add(need[node_before as usize]);
                need[node as usize] = need[node as usize].max(whole);
                held = held.saturating_add(self.bytes(node_before));
            }
            let own = held.saturating_add(self.bytes(node));
            need[node as usize] = need[node as usize].max(own);
            if before.len() > 1 {
                plans.insert(node, before);
            }
        }
        let mut targets = targets.to_vec();
        targets.sort_by_key(|&node| Reverse(need[node as usize] - self.bytes(node)));
        let mut order = Vec::with_capacity(jobs.nodes.len());
        let mut seen = vec![false; self.nodes.len()];
        for target in targets {
            let mut path = vec![(target, false)];
            while let Some((node, is_done)) = path.pop() {
                if is_done {
                    order.push(node);
                    continue;
                }
                if std::mem::replace(&mut seen[node as usize], true) {
                    continue;
                }
                path.push((node, true));
                let predecessors = predecessors.get(&node).into_iter().flatten();
                let plain = || {
                    self.sources(node)
                        .iter()
                        .chain(predecessors)
                        .copied()
                        .collect()
                };
                let before = plans.get(&node).cloned().unwrap_or_else(plain);
                path.extend(before.into_iter().rev().map(|node| (node, false)));
            }
        }
        order
    }
}
