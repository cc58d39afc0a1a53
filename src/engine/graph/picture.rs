//! Graphs as pictures.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use super::plan::NONE;
use crate::supervisor::NodeFate;

/// What is known of a graph's shape, for pictures and messages.
#[derive(Debug, Default)]
pub(super) struct Picture {
    /// By node: index of its kernel's name.
    pub(super) kernel_of: Vec<u32>,
    pub(super) kernels: Vec<&'static str>,
    pub(super) names: HashMap<u32, String>,
    /// By node: where its part of `edges` ends.
    pub(super) ends: Vec<u32>,
    /// Nodes that each takes the values of, node by node.
    pub(super) edges: Vec<u32>,
    /// A node, and one that has to end before it; by node.
    pub(super) after: Vec<(u32, u32)>,
    /// By node: its job, or [`NONE`] if nobody needs it.
    pub(super) unit_of: Vec<u32>,
    /// By node: was it asked for?
    pub(super) wanted: Vec<bool>,
}

/// Sizes in the SVG.
const WIDTH: usize = 168;
const HEIGHT: usize = 44;
const GAP: usize = 28;

impl Picture {
    fn nodes(&self) -> std::ops::Range<u32> {
        0..self.ends.len() as u32
    }

    /// The nodes whose value a node takes.
    pub(super) fn sources(&self, node: u32) -> &[u32] {
        let from = match node {
            0 => 0,
            node => self.ends[node as usize - 1] as usize,
        };
        &self.edges[from..self.ends[node as usize] as usize]
    }

    /// All that a node waits for.
    pub(super) fn before(&self, node: u32) -> Vec<u32> {
        let from = self.after.partition_point(|&(later, _)| later < node);
        let after = self.after[from..].iter();
        let after = after.take_while(|&&(later, _)| later == node);
        let sources = self.sources(node).iter().copied();
        sources.chain(after.map(|&(_, before)| before)).collect()
    }

    pub(super) fn kernel(&self, node: u32) -> &'static str {
        self.kernels[self.kernel_of[node as usize] as usize]
    }

    /// How a node is called in messages.
    pub(super) fn name(&self, node: u32) -> String {
        let name = self.names.get(&node);
        name.map_or_else(|| format!("node {node}"), |name| format!("node {name:?}"))
    }

    /// What a picture calls it.
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

    /// Nodes by job, for jobs of more than one.
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

    /// The time of all nodes together: of each, or once of a job of which only the whole is known.
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

    pub(super) fn dot(&self, fates: Option<&[NodeFate]>) -> String {
        let mut dot =
            String::from("digraph {\n  rankdir=LR;\n  node [shape=box, fontname=sans];\n");
        for node in self.nodes() {
            let fate = fates.map(|fates| fates[node as usize]);
            let mut label = quoted(&self.label(node));
            if let Some(said) = fate.and_then(said) {
                label.push_str("\\n");
                label.push_str(&said);
            }
            let style = match fate {
                Some(NodeFate::Failed) => ", color=red",
                Some(NodeFate::Skipped) => ", color=red, style=dashed",
                _ if self.unit_of.get(node as usize) == Some(&NONE) => ", style=dotted",
                _ if self.wanted[node as usize] => ", penwidth=2",
                _ => "",
            };
            let _ = writeln!(dot, "  n{node} [label=\"{label}\"{style}];");
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

    /// Column and row of each node.
    fn places(&self) -> Vec<(usize, usize)> {
        let mut columns = vec![0; self.ends.len()];
        // Each after all that it waits for, which may be younger.
        let mut waits = vec![0u32; self.ends.len()];
        let mut followers: HashMap<u32, Vec<u32>> = HashMap::new();
        for node in self.nodes() {
            for before in self.before(node) {
                waits[node as usize] += 1;
                followers.entry(before).or_default().push(node);
            }
        }
        let free = self.nodes().filter(|&node| waits[node as usize] == 0);
        let mut free: Vec<_> = free.collect();
        while let Some(before) = free.pop() {
            for &node in followers.get(&before).into_iter().flatten() {
                let (node, beyond) = (node as usize, columns[before as usize] + 1);
                columns[node] = beyond.max(columns[node]);
                waits[node] -= 1;
                if waits[node] == 0 {
                    free.push(node as u32);
                }
            }
        }
        let mut rows: HashMap<usize, usize> = HashMap::new();
        let row = |column: usize| {
            let next = rows.entry(column).or_default();
            *next += 1;
            (column, *next - 1)
        };
        columns.into_iter().map(row).collect()
    }

    pub(super) fn svg(&self, fates: &[NodeFate]) -> String {
        let places = self.places();
        let at = |node: u32| {
            let (column, row) = places[node as usize];
            (GAP + column * (WIDTH + 2 * GAP), GAP + row * (HEIGHT + GAP))
        };
        let columns = places.iter().map(|place| place.0 + 1).max().unwrap_or(0);
        let rows = places.iter().map(|place| place.1 + 1).max().unwrap_or(0);
        let (width, height) = (columns * (WIDTH + 2 * GAP), GAP + rows * (HEIGHT + GAP));
        let longest = fates
            .iter()
            .filter_map(took)
            .max()
            .unwrap_or(Duration::ZERO);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
             orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#667\"/></marker></defs>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        for nodes in self.chains() {
            let corners = nodes.iter().map(|&node| at(node));
            let left = corners.clone().map(|corner| corner.0).min().unwrap_or(0) - GAP / 3;
            let top = corners.clone().map(|corner| corner.1).min().unwrap_or(0) - GAP / 3;
            let right = corners.clone().map(|corner| corner.0).max().unwrap_or(0) + WIDTH + GAP / 3;
            let bottom = corners.map(|corner| corner.1).max().unwrap_or(0) + HEIGHT + GAP / 3;
            let _ = writeln!(
                svg,
                "<rect x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{}\" rx=\"9\" fill=\"none\" stroke=\"#99a\" \
                 stroke-dasharray=\"2 3\"><title>one job</title></rect>",
                right - left,
                bottom - top
            );
        }
        let mut line = |before: u32, node: u32, dashes: &str| {
            let ((x0, y0), (x1, y1)) = (at(before), at(node));
            let (x0, y0, y1) = (x0 + WIDTH, y0 + HEIGHT / 2, y1 + HEIGHT / 2);
            let (c0, c1) = (x0 + GAP, x1.saturating_sub(GAP));
            let _ = writeln!(
                svg,
                "<path d=\"M{x0} {y0}C{c0} {y0} {c1} {y1} {x1} {y1}\" fill=\"none\" stroke=\"#667\"{dashes} \
                 marker-end=\"url(#a)\"/>"
            );
        };
        for node in self.nodes() {
            self.sources(node)
                .iter()
                .for_each(|&source| line(source, node, ""));
        }
        for &(node, before) in &self.after {
            line(before, node, " stroke-dasharray=\"5 4\"");
        }
        for node in self.nodes() {
            let fate = fates[node as usize];
            let (x, y) = at(node);
            let needed = self.unit_of[node as usize] != NONE;
            let (fill, edge) = colours(fate, needed, longest);
            let thick = if self.wanted[node as usize] { 2 } else { 1 };
            let _ = write!(
                svg,
                "<g><title>{}: {}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"5\" \
                 fill=\"{fill}\" stroke=\"{edge}\" stroke-width=\"{thick}\"/>",
                escaped(&self.name(node)),
                escaped(self.kernel(node))
            );
            let said = said(fate).unwrap_or_else(|| match needed {
                true => "has not ended".into(),
                false => "not needed".into(),
            });
            let x = x + 8;
            let _ = writeln!(
                svg,
                "<text x=\"{x}\" y=\"{}\">{}</text><text x=\"{x}\" y=\"{}\" fill=\"#556\">{}</text></g>",
                y + 18,
                escaped(&cut(&self.label(node))),
                y + 35,
                escaped(&said)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn took(fate: &NodeFate) -> Option<Duration> {
    match fate {
        NodeFate::Done { took, .. } => Some(*took),
        NodeFate::Open | NodeFate::Failed | NodeFate::Skipped => None,
    }
}

/// What a picture says of a node; nothing if it did not run.
fn said(fate: NodeFate) -> Option<String> {
    Some(match fate {
        NodeFate::Open => return None,
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

/// Fill and edge of a node: the longer it took, the warmer.
fn colours(fate: NodeFate, needed: bool, longest: Duration) -> (String, &'static str) {
    match fate {
        NodeFate::Failed => ("#f6b7b0".into(), "#b00"),
        NodeFate::Skipped => ("#fff".into(), "#b00"),
        NodeFate::Open if needed => ("#fff".into(), "#667"),
        NodeFate::Open => ("#f4f4f4".into(), "#bbc"),
        NodeFate::Done { took, .. } => {
            let share = took.as_secs_f64() / longest.as_secs_f64().max(1e-12);
            let cold = (245.0 - 110.0 * share) as u8;
            (
                format!("#fe{:02x}{cold:02x}", (cold / 2).saturating_add(125)),
                "#667",
            )
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(24) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', " ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use crate::engine::Engine;
    use crate::engine::graph::Graph;
    use crate::engine::graph::plan::Jobs;

    #[test]
    fn a_node_waits_for_what_it_takes_and_for_what_it_comes_after() {
        let mut graph = Graph::new();
        let made: Vec<_> = (0..3u32).map(|n| graph.add(|n: u32| n, (n,))).collect();
        let sum = graph.add(|a: u32, b: u32| a + b, (&made[0], &made[1]));
        let last = graph.add(|| (), ());
        graph.after(&last, &sum).unwrap();
        graph.after(&sum, &made[2]).unwrap();
        graph.after(&last, &made[0]).unwrap();
        let picture = graph.picture(&Jobs::default(), &[]);
        let before: Vec<_> = (0..5).map(|node| picture.before(node)).collect();
        assert_eq!(before, [vec![], vec![], vec![], vec![0, 1, 2], vec![3, 0]]);
    }

    #[test]
    fn what_was_asked_for_stands_out() {
        let mut graph = Graph::new();
        let nodes: Vec<_> = (0..4u32).map(|n| graph.add(|n: u32| n, (n,))).collect();
        let running = graph.run(&Engine::inline(), (&nodes[3], &nodes[1]));
        let dot = running.unwrap().report().dot();
        let thick = dot.lines().filter(|line| line.contains("penwidth=2"));
        let nodes: Vec<_> = thick.map(|line| line.split_whitespace().next()).collect();
        assert_eq!(nodes, [Some("n1"), Some("n3")]);
    }
}
