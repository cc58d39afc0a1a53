//! How the time of a chain is divided among its nodes. The worker measures the shares and sends them as two words of
//! the reply.
//!
//! The reply has room for eight shares. In a chain of up to eight nodes, each node has its own share; in a longer
//! chain, adjacent nodes have a share together. The clock is read only at the start and at the end of each share, so a
//! long chain of tiny nodes reads it nine times. If the value fits into its slot, but not together with the shares, the
//! shares are left out; the time is then divided equally, as for a chain that fails.

use super::wire::{INLINE_WORDS, ReplyWriter, SENT_WORDS, kind};
use crate::sys::clock::monotonic_ns;

/// The maximum number of shares in a reply.
pub(crate) const MAX_SHARES: u32 = 8;
/// The number of words for the shares.
pub(crate) const SHARE_WORDS: usize = 2;
/// The number of shares in a word.
const SHARES_PER_WORD: usize = MAX_SHARES as usize / SHARE_WORDS;

/// The worker's half of the protocol: reads the clock at the end of each share.
#[derive(Debug)]
pub(super) struct ShareClock {
    nodes: u32,
    /// The index of the share that is being measured.
    share: usize,
    /// The last node that belongs to this share.
    last: u32,
    /// The time when the share began, in nanoseconds.
    since: u64,
    spent_ns: [u64; MAX_SHARES as usize],
}

impl ShareClock {
    pub(super) fn start(nodes: u32) -> Self {
        Self {
            nodes,
            share: 0,
            last: first_of(1, nodes).saturating_sub(1),
            since: monotonic_ns(),
            spent_ns: [0; MAX_SHARES as usize],
        }
    }

    /// Records that a node has ended: if it was the last node of its share, reads the clock.
    #[inline]
    pub(super) fn ended(&mut self, node: u32) {
        if node == self.last {
            let now = monotonic_ns();
            self.spent_ns[self.share] = now.saturating_sub(self.since);
            self.since = now;
            self.share += 1;
            self.last = first_of(self.share as u32 + 1, self.nodes) - 1;
        }
    }

    /// Appends the shares to the reply, unless a value that fits into a slot would not fit with them.
    pub(super) fn send(&self, reply: &mut ReplyWriter) {
        let words = SENT_WORDS * reply.arrays.len() + reply.words.len();
        if words <= INLINE_WORDS && words + SHARE_WORDS > INLINE_WORDS {
            return;
        }
        let all: u64 = self.spent_ns.iter().sum();
        // Each share has 16 bits: its fraction of the whole time, which the link reports.
        let part = |&spent: &u64| u128::from(spent) * u128::from(u16::MAX) / u128::from(all.max(1));
        for spent in self.spent_ns.chunks(SHARES_PER_WORD) {
            let spent = spent.iter().rev();
            reply.word(spent.fold(0, |word, spent| word << 16 | part(spent) as u64));
        }
        reply.kind = kind::TIMED;
    }
}

/// The supervisor's half of the protocol: the shares that a worker has sent. Any words are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares([u16; MAX_SHARES as usize]);

impl Shares {
    /// Decodes the shares. Returns `None` if all of them are zero.
    pub(crate) fn of(words: [u64; SHARE_WORDS]) -> Option<Self> {
        let shares = std::array::from_fn(|share| {
            (words[share / SHARES_PER_WORD] >> (share % SHARES_PER_WORD * 16)) as u16
        });
        shares
            .iter()
            .any(|&share| share > 0)
            .then_some(Self(shares))
    }

    /// Divides `took_ns`, the time of a chain of `nodes` nodes, among its nodes.
    pub(crate) fn of_nodes(self, nodes: u32, took_ns: u64) -> impl Iterator<Item = u64> {
        let all: u128 = self.0.iter().map(|&share| u128::from(share)).sum();
        (0..nodes.min(MAX_SHARES)).flat_map(move |share| {
            let sharers = first_of(share + 1, nodes) - first_of(share, nodes);
            let part = u128::from(took_ns) * u128::from(self.0[share as usize]) / all;
            std::iter::repeat_n(part as u64 / u64::from(sharers), sharers as usize)
        })
    }
}

/// Returns the first node of a share, or, for the share after the last one, the number of nodes.
fn first_of(share: u32, nodes: u32) -> u32 {
    (share * nodes).div_ceil(nodes.clamp(1, MAX_SHARES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_a_share_and_no_share_is_empty() {
        for nodes in 1..=1024 {
            let most = nodes.min(MAX_SHARES);
            let firsts: Vec<u32> = (0..=most).map(|share| first_of(share, nodes)).collect();
            assert!(firsts.is_sorted_by(|a, b| a < b), "{firsts:?}");
            assert_eq!((firsts[0], firsts[most as usize]), (0, nodes));
            let mut clock = ShareClock::start(nodes);
            (0..nodes).for_each(|node| clock.ended(node));
            assert_eq!(clock.share, most as usize, "{nodes}");
        }
    }

    #[test]
    fn received_shares_match_the_time_spent() {
        let mut clock = ShareClock::start(3);
        clock.spent_ns[..3].copy_from_slice(&[1_000_000, 0, 3_000_000]);
        let mut reply = ReplyWriter::default();
        clock.send(&mut reply);
        assert_eq!(reply.kind, kind::TIMED);
        let shares = Shares::of(reply.words[..].try_into().expect("two words"));
        let shares = shares.expect("shares that are not zero");
        let took: Vec<u64> = shares.of_nodes(3, 8_000_000).collect();
        assert!(took[0].abs_diff(2_000_000) < 200 && took[2].abs_diff(6_000_000) < 200);
        assert_eq!((took.len(), took[1]), (3, 0));
        // Sixteen nodes, two for each share.
        let shares = Shares::of([1, 0]).expect("one share");
        let took: Vec<u64> = shares.of_nodes(16, 100).collect();
        assert_eq!((&took[..2], took.len()), (&[50, 50][..], 16));
        assert_eq!(took.iter().sum::<u64>(), 100);
    }

    #[test]
    fn shares_do_not_push_a_reply_out_of_its_slot() {
        let clock = ShareClock::start(2);
        for words in 0..20 {
            let mut reply = ReplyWriter::default();
            (0..words).for_each(|word| reply.word(word));
            clock.send(&mut reply);
            let fits = ![11, 12].contains(&words);
            assert_eq!(reply.kind == kind::TIMED, fits, "{words}");
            assert_eq!(reply.words.len() as u64, words + 2 * u64::from(fits));
        }
    }

    #[test]
    fn arbitrary_shares_give_valid_times() {
        assert_eq!(Shares::of([0; 2]), None);
        for words in [[u64::MAX; 2], [u64::MAX, 0], [0, 1 << 48]] {
            let shares = Shares::of(words).expect("shares that are not zero");
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
