//! Which nodes come after others, although they do not take their values; and whether that goes round.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// What was said with [`Graph::after`](super::Graph::after).
///
/// Values go from older nodes to younger ones. As long as this does too, nothing can go round. From the first edge on that goes back,
/// each is looked at from both ends in turn: the search is over when one of them has nothing more to look at, which is soon where a node
/// waits for many that nobody else waits for, or many wait for one.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// A node, and one that has to end before it, as they were said.
    after: Vec<(u32, u32)>,
    /// One of these has an older node wait for a younger one.
    goes_back: bool,
    /// Made when it is first needed.
    both: Option<BothWays>,
}

/// Who waits for whom.
#[derive(Debug, Default)]
struct BothWays {
    /// By node: those that have to end before it, beside those whose value it takes.
    befores: HashMap<u32, Vec<u32>>,
    /// By node: those that wait for it, because of its value or not.
    followers: HashMap<u32, Vec<u32>>,
}

/// What was found from one end.
struct Found {
    /// By node: through which it was found.
    through: HashMap<u32, u32>,
    /// Nodes on the way, and how many of their neighbours were looked at.
    open: Vec<(u32, usize)>,
}

/// What came of a look at one neighbour.
enum Look {
    Nothing,
    /// It was found from the other end, too.
    Met(u32),
    /// There are no more.
    Over,
}

impl Order {
    /// A node, and one that has to end before it, as they were said.
    pub(super) fn after(&self) -> &[(u32, u32)] {
        &self.after
    }

    /// `node` comes after `before`. `sources`: whose values each of so many nodes takes.
    ///
    /// # Errors
    /// If that goes round: the circle, in which each waits for the next, and the last, `node`, would wait for the first.
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
            if let Some(circle) = both.path(before, node, &sources) {
                return Err(circle);
            }
            self.goes_back |= before > node;
        }
        if let Some(both) = &mut self.both {
            both.add(node, before);
        }
        self.after.push((node, before));
        Ok(())
    }

    /// A node was added that takes these values.
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
        self.befores.entry(node).or_default().push(before);
        self.followers.entry(before).or_default().push(node);
    }

    /// How `from` waits for `to`, if it does. They are not the same.
    fn path<'g>(&self, from: u32, to: u32, sources: impl Fn(u32) -> &'g [u32]) -> Option<Vec<u32>> {
        let nth = |of: &HashMap<u32, Vec<u32>>, node, at: usize| of.get(&node)?.get(at).copied();
        let before = |node, at| {
            let sources = sources(node);
            let source = sources.get(at).copied();
            source.or_else(|| nth(&self.befores, node, at - sources.len()))
        };
        let follower = |node, at| nth(&self.followers, node, at);
        let (mut down, mut up) = (Found::from(from), Found::from(to));
        loop {
            let look = match down.look(&up, before) {
                Look::Nothing => up.look(&down, follower),
                look => look,
            };
            match look {
                Look::Nothing => {}
                Look::Over => return None,
                Look::Met(node) => {
                    let mut path: Vec<_> = down.way_from(node).collect();
                    path.reverse();
                    path.extend(up.way_from(node).skip(1));
                    return Some(path);
                }
            }
        }
    }
}

impl Found {
    fn from(end: u32) -> Self {
        Self {
            through: HashMap::from([(end, end)]),
            open: vec![(end, 0)],
        }
    }

    /// Looks at the next neighbour; `nth` is a certain one of a node.
    fn look(&mut self, other: &Self, nth: impl Fn(u32, usize) -> Option<u32>) -> Look {
        while let Some((node, looked)) = self.open.last_mut() {
            let Some(found) = nth(*node, *looked) else {
                self.open.pop();
                continue;
            };
            *looked += 1;
            if let Entry::Vacant(new) = self.through.entry(found) {
                new.insert(*node);
                self.open.push((found, 0));
                if other.through.contains_key(&found) {
                    return Look::Met(found);
                }
            }
            return Look::Nothing;
        }
        Look::Over
    }

    /// From a node that was found to the end.
    fn way_from(&self, node: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(node), |node| {
            self.through.get(node).copied().filter(|next| next != node)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All that a node waits for, itself included.
    fn waits_for(befores: &[Vec<u32>], node: u32) -> Vec<bool> {
        let mut seen = vec![false; befores.len()];
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut seen[node as usize], true) {
                open.extend(&befores[node as usize]);
            }
        }
        seen
    }

    proptest! {
        /// Nodes are added between edges, and an edge that was refused leaves everything as it was.
        #[test]
        fn an_edge_is_refused_if_it_goes_round(
            steps in prop::collection::vec((any::<bool>(), 0u32..24, 0u32..24), 1..80),
        ) {
            let mut order = Order::default();
            let mut sources = vec![vec![]];
            let mut befores = vec![vec![]];
            for (is_node, a, b) in steps {
                let nodes = sources.len() as u32;
                let (a, b) = (a % nodes, b % nodes);
                if is_node {
                    let takes = if a < b { vec![a, b] } else { vec![a] };
                    order.added(nodes, &takes);
                    sources.push(takes.clone());
                    befores.push(takes);
                    continue;
                }
                let goes_round = waits_for(&befores, b)[a as usize];
                match order.add(a, b, nodes, |node| &sources[node as usize]) {
                    Ok(()) => {
                        prop_assert!(!goes_round);
                        befores[a as usize].push(b);
                    }
                    Err(circle) => {
                        prop_assert!(goes_round);
                        prop_assert_eq!((circle[0], circle[circle.len() - 1]), (b, a));
                        for pair in circle.windows(2) {
                            prop_assert!(befores[pair[0] as usize].contains(&pair[1]));
                        }
                    }
                }
            }
        }
    }
}
