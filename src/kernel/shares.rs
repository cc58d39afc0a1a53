//! How the time of a chain is spread over its nodes: what its worker measures, and two words of its reply.
//!
//! The reply of a chain has room for eight shares. So each node of up to eight has its own; of more, as many neighbours as make an
//! eighth have one together. Between them the clock is read, and nowhere else: a long chain of tiny nodes pays for nine looks. A value
//! that just fits into its slot is not pushed out of it: then the nodes count equal parts, as those of a chain that fails.

use super::wire::{INLINE_WORDS, ReplyWriter, SENT_WORDS};
use crate::sys::clock::monotonic_ns;

/// Shares that a reply has room for.
pub(crate) const MOST_SHARES: u32 = 8;
/// Words that they take.
pub(crate) const SHARE_WORDS: usize = 2;
/// Shares in a word.
const IN_A_WORD: usize = MOST_SHARES as usize / SHARE_WORDS;

/// The worker's side: a clock that is read when a share is over.
#[derive(Debug)]
pub(super) struct Clock {
    nodes: u32,
    /// The share that runs, and its last node.
    share: usize,
    last: u32,
    since: u64,
    spent: [u64; MOST_SHARES as usize],
}

impl Clock {
    pub(super) fn start(nodes: u32) -> Self {
        Self {
            nodes,
            share: 0,
            last: first_of(1, nodes).saturating_sub(1),
            since: monotonic_ns(),
            spent: [0; MOST_SHARES as usize],
        }
    }

    /// A node has ended.
    #[inline]
    pub(super) fn ended(&mut self, node: u32) {
        if node == self.last {
            let now = monotonic_ns();
            self.spent[self.share] = now.saturating_sub(self.since);
            self.since = now;
            self.share += 1;
            self.last = first_of(self.share as u32 + 1, self.nodes) - 1;
        }
    }

    /// Behind the words of the value, unless just these would need a block of their own.
    pub(super) fn send(&self, reply: &mut ReplyWriter) {
        let words = SENT_WORDS * reply.arrays.len() + reply.words.len();
        if words <= INLINE_WORDS && words + SHARE_WORDS > INLINE_WORDS {
            return;
        }
        let all: u64 = self.spent.iter().sum();
        // 16 bits each: of the whole, which the link tells.
        let part = |&spent: &u64| u128::from(spent) * u128::from(u16::MAX) / u128::from(all.max(1));
        for spent in self.spent.chunks(IN_A_WORD) {
            let spent = spent.iter().rev();
            reply.word(spent.fold(0, |word, spent| word << 16 | part(spent) as u64));
        }
        reply.timed = true;
    }
}

/// The supervisor's side: what a worker says, whatever it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares([u16; MOST_SHARES as usize]);

impl Shares {
    /// `None`: they say nothing.
    pub(crate) fn of(words: [u64; SHARE_WORDS]) -> Option<Self> {
        let shares = std::array::from_fn(|share| {
            (words[share / IN_A_WORD] >> (share % IN_A_WORD * 16)) as u16
        });
        shares
            .iter()
            .any(|&share| share > 0)
            .then_some(Self(shares))
    }

    /// What each of so many nodes took of a time that all took together.
    pub(crate) fn of_nodes(self, nodes: u32, took_ns: u64) -> impl Iterator<Item = u64> {
        let all: u128 = self.0.iter().map(|&share| u128::from(share)).sum();
        (0..nodes.min(MOST_SHARES)).flat_map(move |share| {
            let beside = first_of(share + 1, nodes) - first_of(share, nodes);
            let part = u128::from(took_ns) * u128::from(self.0[share as usize]) / all;
            std::iter::repeat_n(part as u64 / u64::from(beside), beside as usize)
        })
    }
}

/// The first node that counts for a share; of the one behind the last, how many nodes there are.
fn first_of(share: u32, nodes: u32) -> u32 {
    (share * nodes).div_ceil(nodes.clamp(1, MOST_SHARES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_share_is_that_of_a_node_or_more_and_each_node_has_one() {
        for nodes in 1..=1024 {
            let most = nodes.min(MOST_SHARES);
            let firsts: Vec<u32> = (0..=most).map(|share| first_of(share, nodes)).collect();
            assert!(firsts.is_sorted_by(|a, b| a < b), "{firsts:?}");
            assert_eq!((firsts[0], firsts[most as usize]), (0, nodes));
            let mut clock = Clock::start(nodes);
            (0..nodes).for_each(|node| clock.ended(node));
            assert_eq!(clock.share, most as usize, "{nodes}");
        }
    }

    #[test]
    fn what_is_sent_is_what_was_spent() {
        let mut clock = Clock::start(3);
        clock.spent[..3].copy_from_slice(&[1_000_000, 0, 3_000_000]);
        let mut reply = ReplyWriter::default();
        clock.send(&mut reply);
        assert!(reply.timed);
        let shares = Shares::of(reply.words[..].try_into().expect("two words"));
        let shares = shares.expect("they say something");
        let took: Vec<u64> = shares.of_nodes(3, 8_000_000).collect();
        assert!(took[0].abs_diff(2_000_000) < 200 && took[2].abs_diff(6_000_000) < 200);
        assert_eq!((took.len(), took[1]), (3, 0));
        // Sixteen, two for each share.
        let shares = Shares::of([1, 0]).expect("one share");
        let took: Vec<u64> = shares.of_nodes(16, 100).collect();
        assert_eq!((&took[..2], took.len()), (&[50, 50][..], 16));
        assert_eq!(took.iter().sum::<u64>(), 100);
    }

    #[test]
    fn a_reply_that_fills_its_slot_stays_there() {
        let clock = Clock::start(2);
        for words in 0..20 {
            let mut reply = ReplyWriter::default();
            (0..words).for_each(|word| reply.word(word));
            clock.send(&mut reply);
            let fits = ![11, 12].contains(&words);
            assert_eq!(reply.timed, fits, "{words}");
            assert_eq!(reply.words.len() as u64, words + 2 * u64::from(fits));
        }
    }

    #[test]
    fn whatever_a_worker_says_is_a_time() {
        assert_eq!(Shares::of([0; 2]), None);
        for words in [[u64::MAX; 2], [u64::MAX, 0], [0, 1 << 48]] {
            let shares = Shares::of(words).expect("they say something");
            for nodes in [1, 2, 8, 9, 1024] {
                let all = shares
                    .of_nodes(nodes, u64::MAX)
                    .map(u128::from)
                    .sum::<u128>();
                assert!(all <= u128::from(u64::MAX));
                assert_eq!(shares.of_nodes(nodes, 1).count(), nodes as usize);
            }
        }
    }
}
