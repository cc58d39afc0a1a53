//! The shape of a graph, for messages and for Graphviz.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use super::plan::NONE;
use crate::supervisor::NodeFate;

/// The shape of a graph.
#[derive(Debug, Default)]
pub(super) struct Picture {
    /// The index of each node's kernel in `kernels`, by node.
    pub(super) kernel_of: Vec<u32>,
    pub(super) kernels: Vec<&'static str>,
    pub(super) names: HashMap<u32, String>,
    /// The end of each node's range of `edges`, by node.
    pub(super) ends: Vec<u32>,
    /// The nodes whose values each node takes, in the order of the nodes.
    pub(super) edges: Vec<u32>,
    /// Pairs of a node and a node that has to end before it, sorted by the former.
    pub(super) after: Vec<(u32, u32)>,
    /// The job of each node, by node, or [`NONE`] if the node is not needed.
    pub(super) unit_of: Vec<u32>,
    /// Whether each node is a target, by node.
    pub(super) wanted: Vec<bool>,
}

impl Picture {
    fn nodes(&self) -> std::ops::Range<u32> {
        0..self.ends.len() as u32
    }

    /// Returns the nodes whose values a node takes.
    pub(super) fn sources(&self, node: u32) -> &[u32] {
        let from = match node {
            0 => 0,
            node => self.ends[node as usize - 1] as usize,
        };
        &self.edges[from..self.ends[node as usize] as usize]
    }

    pub(super) fn kernel(&self, node: u32) -> &'static str {
        self.kernels[self.kernel_of[node as usize] as usize]
    }

    /// Returns the label of a node in pictures.
    fn label(&self, node: u32) -> String {
        let kernel = self.kernel(node);
        let short = kernel.rsplit("::").next().unwrap_or(kernel);
        match self.names.get(&node) {
            Some(name) => name.clone(),
            None => format!("{short} {node}"),
        }
    }

    pub(super) fn jobs(&self) -> usize {
        let needed = self.unit_of.iter().filter(|&&unit| unit != NONE);
        needed.max().map_or(0, |&last| last as usize + 1)
    }

    /// Returns the nodes of each job that has more than one node.
    fn chains(&self) -> Vec<Vec<u32>> {
        let mut chains: HashMap<u32, Vec<u32>> = HashMap::new();
        for node in self
            .nodes()
            .filter(|&node| self.unit_of[node as usize] != NONE)
        {
            chains
                .entry(self.unit_of[node as usize])
                .or_default()
                .push(node);
        }
        let mut chains: Vec<_> = chains
            .into_values()
            .filter(|nodes| nodes.len() > 1)
            .collect();
        chains.sort();
        chains
    }

    /// Returns the total run time of all nodes. The time of a job whose nodes were not measured separately is added
    /// once.
    pub(super) fn busy(&self, fates: &[NodeFate]) -> Duration {
        let mut seen = vec![false; self.jobs()];
        let mut busy = Duration::ZERO;
        for (fate, &unit) in fates.iter().zip(&self.unit_of) {
            if let NodeFate::Done { took, with, .. } = fate
                && unit != NONE
                && (*with == 0 || !std::mem::replace(&mut seen[unit as usize], true))
            {
                busy += *took;
            }
        }
        busy
    }

    /// Returns the graph in Graphviz's language, with the `fates` of its nodes.
    pub(super) fn dot(&self, fates: Option<&[NodeFate]>) -> String {
        let mut dot =
            String::from("digraph {\n  rankdir=LR;\n  node [shape=box, fontname=sans];\n");
        let took = fates.into_iter().flatten().filter_map(took);
        let longest = took.max().unwrap_or(Duration::ZERO);
        for node in self.nodes() {
            let fate = fates.map(|fates| fates[node as usize]);
            let is_needed = self.unit_of.get(node as usize) != Some(&NONE);
            let mut label = quoted(&self.label(node));
            if let Some(outcome) = fate.and_then(|fate| outcome(fate, is_needed)) {
                label.push_str("\\n");
                label.push_str(&outcome);
            }
            let style = match fate {
                Some(NodeFate::Failed) => ", color=red",
                Some(NodeFate::Skipped) => ", color=red, style=dashed",
                _ if !is_needed => ", style=dotted",
                _ if self.wanted[node as usize] => ", penwidth=2",
                _ => "",
            };
            let fill = fate.and_then(|fate| fill(fate, longest));
            let fill = fill.map_or(String::new(), |fill| {
                format!(", style=filled, fillcolor=\"{fill}\"")
            });
            let _ = writeln!(dot, "  n{node} [label=\"{label}\"{style}{fill}];");
        }
        for node in self.nodes() {
            for source in self.sources(node) {
                let _ = writeln!(dot, "  n{source} -> n{node};");
            }
        }
        for (node, before) in &self.after {
            let _ = writeln!(dot, "  n{before} -> n{node} [style=dashed];");
        }
        if !self.unit_of.is_empty() {
            for (chain, nodes) in self.chains().iter().enumerate() {
                let _ = write!(dot, "  subgraph cluster_{chain} {{ style=rounded;");
                nodes.iter().for_each(|node| {
                    let _ = write!(dot, " n{node};");
                });
                dot.push_str(" }\n");
            }
        }
        dot.push_str("}\n");
        dot
    }
}

fn took(fate: &NodeFate) -> Option<Duration> {
    match fate {
        NodeFate::Done { took, .. } => Some(*took),
        NodeFate::Open | NodeFate::Failed | NodeFate::Skipped => None,
    }
}

/// Returns the description of a node's fate in a picture, or `None` for a node that may still run.
fn outcome(fate: NodeFate, is_needed: bool) -> Option<String> {
    Some(match fate {
        NodeFate::Open if is_needed => return None,
        NodeFate::Open => "not needed".into(),
        NodeFate::Done {
            took,
            worker,
            with: 0,
        } => format!("{took:.1?}, worker {worker}"),
        NodeFate::Done { took, worker, with } => {
            format!("{took:.1?} with {with} more, worker {worker}")
        }
        NodeFate::Failed => "failed".into(),
        NodeFate::Skipped => "not run".into(),
    })
}

/// Returns the colour of a node: the longer the node ran, the warmer the colour.
fn fill(fate: NodeFate, longest: Duration) -> Option<String> {
    let took = took(&fate)?;
    let share = took.as_secs_f64() / longest.as_secs_f64().max(1e-12);
    let blue = (245.0 - 110.0 * share) as u8;
    let green = (blue / 2).saturating_add(125);
    Some(format!("#fe{green:02x}{blue:02x}"))
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', " ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use crate::engine::Engine;
    use crate::engine::graph::Graph;

    #[test]
    fn targets_have_thick_borders() {
        let mut graph = Graph::new();
        let nodes: Vec<_> = (0..4u32).map(|n| graph.add(|n: u32| n, (n,))).collect();
        let running = graph.run(&Engine::inline(), (&nodes[3], &nodes[1]));
        let dot = running.unwrap().dot();
        let thick = dot.lines().filter(|line| line.contains("penwidth=2"));
        let nodes: Vec<_> = thick.map(|line| line.split_whitespace().next()).collect();
        assert_eq!(nodes, [Some("n1"), Some("n3")]);
    }
}
