//! Order constraints between nodes that do not take each other's values, and the check that they form no cycle.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The constraints of [`Graph::after`](super::Graph::after).
///
/// Values pass from older nodes to newer ones. While all constraints do so too, there is no cycle. After the first edge
/// in the other direction, each new edge is checked by two searches, from both of its ends, in alternating steps. The
/// check ends when either search is exhausted. That is soon if one node waits for many, or many nodes wait for one.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Pairs of a node and a node that has to end before it, in the order of addition.
    after: Vec<(u32, u32)>,
    /// Whether an older node waits for a newer one.
    goes_back: bool,
    /// The relation for the searches, built when it is first needed.
    both: Option<BothWays>,
}

/// The waiting relation in both directions.
#[derive(Debug, Default)]
struct BothWays {
    /// For each node: the nodes that have to end before it, except those whose values it takes.
    predecessors: HashMap<u32, Vec<u32>>,
    /// For each node: all nodes that wait for it, whether they take its value or not.
    followers: HashMap<u32, Vec<u32>>,
}

/// A depth-first search from one end.
struct Search {
    /// For each found node: the neighbour from which it was found.
    through: HashMap<u32, u32>,
    /// The stack: nodes, each with the number of its visited neighbours.
    open: Vec<(u32, usize)>,
}

/// The result of visiting one neighbour.
enum Visit {
    Nothing,
    /// The other search has found this node as well.
    Met(u32),
    /// The search is exhausted.
    Over,
}

impl Order {
    /// Returns pairs of a node and a node that has to end before it, in the order of addition.
    pub(super) fn after(&self) -> &[(u32, u32)] {
        &self.after
    }

    /// Makes `node` wait for `before`. `nodes`: the number of nodes; `sources`: the nodes whose values each node takes.
    ///
    /// # Errors
    ///
    /// If this makes a cycle, the error is the cycle's nodes: each waits for the next, and the last, `node`, would wait
    /// for the first.
    pub(super) fn add<'g>(
        &mut self,
        node: u32,
        before: u32,
        nodes: u32,
        sources: impl Fn(u32) -> &'g [u32],
    ) -> Result<(), Vec<u32>> {
        if node == before {
            return Err(vec![node]);
        }
        if self.goes_back || before > node {
            let both = self
                .both
                .get_or_insert_with(|| BothWays::new(nodes, &sources, &self.after));
            if let Some(cycle) = both.path(before, node, &sources) {
                return Err(cycle);
            }
            self.goes_back |= before > node;
        }
        if let Some(both) = &mut self.both {
            both.add(node, before);
        }
        self.after.push((node, before));
        Ok(())
    }

    /// Adds a node that takes the values of `sources`.
    pub(super) fn added(&mut self, node: u32, sources: &[u32]) {
        let Some(both) = &mut self.both else { return };
        for &source in sources {
            both.followers.entry(source).or_default().push(node);
        }
    }
}

impl BothWays {
    fn new<'g>(nodes: u32, sources: impl Fn(u32) -> &'g [u32], after: &[(u32, u32)]) -> Self {
        let mut both = Self::default();
        for node in 0..nodes {
            for &source in sources(node) {
                both.followers.entry(source).or_default().push(node);
            }
        }
        for &(node, before) in after {
            both.add(node, before);
        }
        both
    }

    fn add(&mut self, node: u32, before: u32) {
        self.predecessors.entry(node).or_default().push(before);
        self.followers.entry(before).or_default().push(node);
    }

    /// Returns the path on which `from` waits for `to`, another node, if `from` waits for it.
    fn path<'g>(&self, from: u32, to: u32, sources: impl Fn(u32) -> &'g [u32]) -> Option<Vec<u32>> {
        let nth = |of: &HashMap<u32, Vec<u32>>, node, at: usize| of.get(&node)?.get(at).copied();
        let before = |node, at| {
            let sources = sources(node);
            let source = sources.get(at).copied();
            source.or_else(|| nth(&self.predecessors, node, at - sources.len()))
        };
        let follower = |node, at| nth(&self.followers, node, at);
        let (mut down, mut up) = (Search::from(from), Search::from(to));
        loop {
            let visit = match down.step(&up, before) {
                Visit::Nothing => up.step(&down, follower),
                visit => visit,
            };
            match visit {
                Visit::Nothing => {}
                Visit::Over => return None,
                Visit::Met(node) => {
                    let mut path: Vec<_> = down.path_from(node).collect();
                    path.reverse();
                    path.extend(up.path_from(node).skip(1));
                    return Some(path);
                }
            }
        }
    }
}

impl Search {
    fn from(end: u32) -> Self {
        Self {
            through: HashMap::from([(end, end)]),
            open: vec![(end, 0)],
        }
    }

    /// Visits the next neighbour. `nth` returns the n-th neighbour of a node.
    fn step(&mut self, other: &Self, nth: impl Fn(u32, usize) -> Option<u32>) -> Visit {
        while let Some((node, visited)) = self.open.last_mut() {
            let Some(found) = nth(*node, *visited) else {
                self.open.pop();
                continue;
            };
            *visited += 1;
            if let Entry::Vacant(new) = self.through.entry(found) {
                new.insert(*node);
                self.open.push((found, 0));
                if other.through.contains_key(&found) {
                    return Visit::Met(found);
                }
            }
            return Visit::Nothing;
        }
        Visit::Over
    }

    /// Returns the path from a found node back to the node at which this search began.
    fn path_from(&self, node: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(node), |node| {
            self.through.get(node).copied().filter(|next| next != node)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns, for each node, whether `node` waits for it; true for `node` itself.
    fn waits_for(predecessors: &[Vec<u32>], node: u32) -> Vec<bool> {
        let mut seen = vec![false; predecessors.len()];
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut seen[node as usize], true) {
                open.extend(&predecessors[node as usize]);
            }
        }
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
        /// Steps add nodes and edges in any order. A refused edge must change nothing.
                #[test]
                fn an_edge_that_closes_a_cycle_is_refused(
            steps in prop::collection::vec((any::<bool>(), 0u32..24, 0u32..24), 1..80),
        ) {
            let mut order = Order::default();
            let mut sources = vec![vec![]];
            let mut predecessors = vec![vec![]];
            for (is_node, a, b) in steps {
                let nodes = sources.len() as u32;
                let (a, b) = (a % nodes, b % nodes);
                if is_node {
                    let takes = if a < b { vec![a, b] } else { vec![a] };
                    order.added(nodes, &takes);
                    sources.push(takes.clone());
                    predecessors.push(takes);
                    continue;
                }
                let is_cycle = waits_for(&predecessors, b)[a as usize];
                match order.add(a, b, nodes, |node| &sources[node as usize]) {
                    Ok(()) => {
                        prop_assert!(!is_cycle);
                        predecessors[a as usize].push(b);
                    }
                    Err(cycle) => {
                                            prop_assert!(is_cycle);
                                            prop_assert_eq!((cycle[0], cycle[cycle.len() - 1]), (b, a));
                                            for pair in cycle.windows(2) {
                            prop_assert!(predecessors[pair[0] as usize].contains(&pair[1]));
                        }
                    }
                }
            }
        }
    }
}
