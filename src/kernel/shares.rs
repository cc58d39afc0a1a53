//! How the time of a chain is spread over its nodes: what its worker measures, and two words of its reply.
//!
//! The reply of a chain has room for eight shares. So each node of up to eight has its own; of more, as many neighbours as make an
//! eighth have one together. Between them the clock is read, and nowhere else: a long chain of tiny nodes pays for eight looks.

use super::wire::ReplyWriter;
use crate::sys::clock::monotonic_ns;

/// Shares that a reply has room for.
pub(crate) const MOST_SHARES: u32 = 8;
/// Words that they take.
pub(crate) const SHARE_WORDS: usize = 2;
/// Shares in a word.
const IN_A_WORD: usize = MOST_SHARES as usize / SHARE_WORDS;

/// Which share a node of a chain counts for.
fn share_of(node: u32, nodes: u32) -> usize {
    let shares = u64::from(nodes.min(MOST_SHARES));
    // Less than the number of shares, as the node is less than the number of nodes.
    (u64::from(node) * shares / u64::from(nodes.max(1))) as usize
}

/// The worker's side: a clock that is read when a share is over.
#[derive(Debug)]
pub(super) struct Clock {
    nodes: u32,
    since: u64,
    spent: [u64; MOST_SHARES as usize],
}

impl Clock {
    pub(super) fn start(nodes: u32) -> Self {
        Self {
            nodes,
            since: monotonic_ns(),
            spent: [0; MOST_SHARES as usize],
        }
    }

    /// A node has ended.
    #[inline]
    pub(super) fn ended(&mut self, node: u32) {
        let share = share_of(node, self.nodes);
        if node + 1 == self.nodes || share_of(node + 1, self.nodes) != share {
            let now = monotonic_ns();
            self.spent[share] = now.saturating_sub(self.since);
            self.since = now;
        }
    }

    /// Behind the words of the value.
    pub(super) fn send(&self, reply: &mut ReplyWriter) {
        let all: u64 = self.spent.iter().sum();
        // 16 bits each: of the whole, which the link tells.
        let part = |&spent: &u64| u128::from(spent) * u128::from(u16::MAX) / u128::from(all.max(1));
        for spent in self.spent.chunks(IN_A_WORD) {
            let word = spent
                .iter()
                .rev()
                .fold(0, |word, spent| word << 16 | part(spent) as u64);
            reply.word(word);
        }
        reply.timed = true;
    }
}

/// The supervisor's side: what a worker says, whatever it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares([u16; MOST_SHARES as usize]);

impl Shares {
    pub(crate) fn of(words: [u64; SHARE_WORDS]) -> Self {
        Self(std::array::from_fn(|share| {
            (words[share / IN_A_WORD] >> (share % IN_A_WORD * 16)) as u16
        }))
    }

    /// What a node of so many took of a time that all took together.
    pub(crate) fn of_node(self, node: u32, nodes: u32, took_ns: u64) -> u64 {
        let all: u64 = self.0.iter().map(|&share| u64::from(share)).sum();
        let share = share_of(node, nodes);
        let part = u128::from(took_ns) * u128::from(self.0[share]) / u128::from(all.max(1));
        part as u64 / u64::from(first_of(share + 1, nodes) - first_of(share, nodes))
    }
}

/// The first node that counts for a share.
fn first_of(share: usize, nodes: u32) -> u32 {
    (share as u32 * nodes).div_ceil(nodes.min(MOST_SHARES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_counts_for_one_share_and_each_share_for_a_node() {
        for nodes in 1..=1024 {
            let shares: Vec<usize> = (0..nodes).map(|node| share_of(node, nodes)).collect();
            assert!(shares.is_sorted());
            let most = nodes.min(MOST_SHARES) as usize;
            for share in 0..most {
                let first = shares.iter().position(|&of| of == share);
                assert_eq!(
                    first,
                    Some(first_of(share, nodes) as usize),
                    "{share} of {nodes}"
                );
            }
            assert_eq!(first_of(most, nodes), nodes);
        }
    }

    #[test]
    fn what_is_sent_is_what_was_spent() {
        let mut clock = Clock::start(3);
        (0..3).for_each(|node| clock.ended(node));
        clock.spent[..3].copy_from_slice(&[1_000_000, 0, 3_000_000]);
        let mut reply = ReplyWriter::default();
        clock.send(&mut reply);
        let shares = Shares::of(reply.words[..].try_into().expect("two words"));
        let took = |node| shares.of_node(node, 3, 8_000_000);
        assert!(took(0).abs_diff(2_000_000) < 200 && took(2).abs_diff(6_000_000) < 200);
        assert_eq!((took(1), reply.timed), (0, true));
        // Sixteen, two for each share.
        let shares = Shares::of([1, 0]);
        let took: Vec<u64> = (0..16).map(|node| shares.of_node(node, 16, 100)).collect();
        assert_eq!((&took[..2], took[2..].iter().sum()), (&[50, 50][..], 0u64));
    }

    #[test]
    fn whatever_a_worker_says_is_a_time() {
        for words in [[0; 2], [u64::MAX; 2], [u64::MAX, 0]] {
            for nodes in [1, 2, 8, 9, 1024] {
                let node = |node| Shares::of(words).of_node(node, nodes, u64::MAX);
                let all: u128 = (0..nodes).map(|at| u128::from(node(at))).sum();
                assert!(all <= u128::from(u64::MAX));
            }
        }
    }
}
