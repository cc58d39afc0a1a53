//! One lane as the supervisor keeps it: its link, and what it holds. Its process is in `worker.rs`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::actor::HostedActors;
use crate::arena::{Arena, Block, BlockPlacement, Extent, QUANTUM};
use crate::kernel::wire::{Lease, ReceivedArray, SentArray};
use crate::link::{Ask, LinkCells, NO_GRANT, Producer, SLOTS};
use smallvec::SmallVec;

/// No record: the job was retracted, or nobody placed one.
pub(super) const NOBODY: u32 = u32::MAX;

/// When the time of a job is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alarm {
    pub(super) position: u64,
    pub(super) at: Instant,
}

/// Output memory that the worker may use and has not published.
#[derive(Debug)]
struct Grant {
    number: u32,
    /// From the cursor on.
    block: Block,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) region: u16,
    pub(super) producer: Producer,
    /// Its worker takes jobs: a copy of [`Status`](super::worker::Status).
    pub(super) ready: bool,
    /// What its worker says here is not heard any more.
    pub(super) condemned: bool,
    /// That of its worker.
    pub(super) life: u32,
    /// Record of each slot.
    pub(super) records: Box<[u32; SLOTS]>,
    /// Expected duration of each slot's job.
    expected: Box<[u32; SLOTS]>,
    /// Sum of `expected` over open jobs.
    pub(super) backlog_ns: u64,
    grants: VecDeque<Grant>,
    /// Bytes granted and not used.
    pub(super) ahead: u64,
    /// Bytes that the monitor is to grant ahead, because they have to be committed first.
    pub(super) short_of: u64,
    /// Bytes in use when there was no room for that: it is asked for again when fewer are.
    pub(super) full_at: u64,
    /// Size of the last grant.
    pub(super) last_grant: u64,
    /// Where the oldest open job stood at the last tick.
    pub(super) seen_at_tick: u64,
    /// Positions of open jobs that have a deadline, oldest first; some may be over or taken back.
    pub(super) timed: VecDeque<u64>,
    /// The running clock of the oldest open job.
    pub(super) alarm: Option<Alarm>,
    /// A job whose end was seen when it was asked for something: the next drain finds it.
    pub(super) said_over: u64,
    /// The job before one with a deadline whose end the monitor wants to hear of.
    pub(super) noticed: u64,
    pub(super) jobs: u64,
    /// `jobs` when the present worker was started.
    pub(super) jobs_before: u64,
    /// The first position that the present worker may not have: `share`, or none while it has actors.
    pub(super) last: u64,
    /// The first position beyond its share of the jobs before recycling.
    pub(super) share: u64,
    /// The first position that may not be posted now: `last`, or 0 while nothing may.
    pub(super) until: u64,
    /// Actors whose states it has; `None`: no one's.
    pub(super) hosted: Option<Box<HostedActors>>,
    /// Nothing may be posted, for want of memory.
    pub(super) held: bool,
    /// Nothing may be posted in any lane of the worker, because of a job that runs alone there, or is to.
    pub(super) alone: bool,
}

/// What a reply sends, taken over.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) arrays: SmallVec<[ReceivedArray; 1]>,
    /// Output memory: inputs that come back take none.
    pub(super) bytes: u64,
}

/// Memory that a reply names first, and how much of it arrays have.
struct Fresh {
    chunk: Extent,
    block: Arc<Block>,
    viewed: u64,
}

impl Lane {
    pub(super) fn new(region: u16, cells: Arc<LinkCells>) -> Self {
        Self {
            region,
            producer: Producer::new(cells),
            ready: false,
            condemned: false,
            life: 0,
            records: Box::new([NOBODY; SLOTS]),
            expected: Box::new([0; SLOTS]),
            backlog_ns: 0,
            grants: VecDeque::new(),
            ahead: 0,
            short_of: 0,
            full_at: u64::MAX,
            last_grant: 0,
            seen_at_tick: u64::MAX,
            timed: VecDeque::new(),
            alarm: None,
            said_over: u64::MAX,
            noticed: u64::MAX,
            jobs: 0,
            jobs_before: 0,
            last: u64::MAX,
            until: u64::MAX,
            share: u64::MAX,
            hosted: None,
            held: false,
            alone: false,
        }
    }

    /// Returns whether it took jobs before.
    pub(super) fn set_ready(&mut self, ready: bool) -> bool {
        std::mem::replace(&mut self.ready, ready)
    }

    /// How many actors have their state here.
    pub(super) fn actors(&self) -> usize {
        self.hosted.as_ref().map_or(0, |hosted| hosted.count())
    }

    /// Does an actor wait for room in this lane?
    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        let hosted = self.hosted.as_ref();
        hosted.is_some_and(|hosted| hosted.has_turns())
    }

    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.producer.open() == 0
    }

    /// Jobs that it holds; slots that were retracted and not passed yet are none.
    pub(super) fn live(&self) -> usize {
        self.records
            .iter()
            .filter(|&&record| record != NOBODY)
            .count()
    }

    /// The record of the job at this position, or [`NOBODY`].
    #[inline]
    pub(super) fn record_at(&self, position: u64) -> u32 {
        self.records[(position % SLOTS as u64) as usize]
    }

    /// The positions of the jobs that it holds, oldest first.
    pub(super) fn held(&self) -> impl DoubleEndedIterator<Item = u64> {
        let open = self.producer.open_positions();
        open.filter(|&position| self.record_at(position) != NOBODY)
    }

    /// Is there an open job at this position?
    pub(super) fn holds(&self, position: u64) -> bool {
        self.producer.open_positions().contains(&position) && self.record_at(position) != NOBODY
    }

    /// Adds a request to the job at this position. If that is over, the next drain takes it, or the worker lies.
    pub(super) fn ask(&mut self, position: u64, request: u32) -> Ask {
        let asked = self.producer.ask(position, request);
        if asked == Ask::Over {
            self.said_over = position;
        }
        asked
    }

    /// Its oldest job is the one that the last tick saw there.
    pub(super) fn stands_still(&self) -> bool {
        self.seen_at_tick == self.producer.open_positions().start
    }

    /// The job of this record now lies at this position.
    #[inline]
    pub(super) fn note(&mut self, position: u64, record: u32, expected_ns: u32) {
        let index = (position % SLOTS as u64) as usize;
        self.records[index] = record;
        self.expected[index] = expected_ns;
        self.backlog_ns += u64::from(expected_ns);
    }

    /// The job at this position takes longer than was expected, by at least so much.
    pub(super) fn expect_longer(&mut self, position: u64, more_ns: u32) {
        let expected = &mut self.expected[(position % SLOTS as u64) as usize];
        let longer = expected.saturating_add(more_ns);
        self.backlog_ns += u64::from(longer - *expected);
        *expected = longer;
    }

    /// The job at this position is over: its record, or [`NOBODY`].
    #[inline]
    pub(super) fn take(&mut self, position: u64) -> u32 {
        let index = (position % SLOTS as u64) as usize;
        self.backlog_ns -= u64::from(std::mem::take(&mut self.expected[index]));
        std::mem::replace(&mut self.records[index], NOBODY)
    }

    /// Hands a block to the worker; gives it back when the link cannot take more grants now.
    pub(super) fn grant(&mut self, block: Block) -> Result<(), Block> {
        let (at, len) = (block.extent().at.offset(), block.held());
        let number = self.producer.granted();
        if !self.producer.grant(at, len, block.is_fresh()) {
            return Err(block);
        }
        self.ahead += len;
        self.last_grant = len;
        self.grants.push_back(Grant { number, block });
        Ok(())
    }

    /// Bytes of the blocks that the worker may use and has not: what the books of the arena know of them.
    pub(super) fn granted(&self) -> u64 {
        self.grants.iter().map(|grant| grant.block.held()).sum()
    }

    /// Takes over what a reply sends: arrays, and a block with its words where they did not fit.
    /// Frees what the job used and did not send. An error is what is wrong with the reply.
    pub(super) fn receive(
        &mut self,
        arena: &Arc<Arena>,
        grant: u64,
        cursor: u64,
        sent: &[SentArray],
        leases: &[Lease],
    ) -> Result<Taken, String> {
        let mut pieces = self.advance(grant, cursor)?;
        let mut fresh: SmallVec<[Fresh; 2]> = SmallVec::new();
        let mut received = SmallVec::new();
        for array in sent {
            if array.view.len == 0 {
                // Nothing has no place: its offset may be that of any array beside it.
                let empty = arena.alloc(self.region, 0, BlockPlacement::Packed);
                let block = Arc::new(empty.map_err(|full| full.to_string())?);
                received.push(ReceivedArray {
                    block,
                    skip: 0,
                    len: 0,
                });
                continue;
            }
            let lent = leases.iter().find_map(|lease| match lease {
                Lease::Shared(block) | Lease::Owned(block) => {
                    skip_within(block.extent(), array.view).map(|skip| (Arc::clone(block), skip))
                }
                Lease::Lent(_) => None,
            });
            let (block, skip) = match lent {
                Some(found) => found,
                None => {
                    // Arrays without bytes may lie at one place and are not the same.
                    let known = fresh
                        .iter()
                        .position(|known| known.chunk == array.chunk && known.chunk.len > 0);
                    let at = match known {
                        Some(at) => at,
                        None => {
                            fresh.push(Fresh {
                                chunk: array.chunk,
                                block: Arc::new(self.carve(&mut pieces, array.chunk)?),
                                viewed: 0,
                            });
                            fresh.len() - 1
                        }
                    };
                    let skip = skip_within(array.chunk, array.view).ok_or_else(|| {
                        format!("an array at {:?} outside its memory", array.view)
                    })?;
                    let known = &mut fresh[at];
                    // Views may overlap, and there may be thousands: together they take no more than is there.
                    known.viewed = known
                        .viewed
                        .saturating_add(array.view.len)
                        .min(array.chunk.len);
                    (Arc::clone(&known.block), skip)
                }
            };
            received.push(ReceivedArray {
                block,
                skip,
                len: array.view.len,
            });
        }
        Ok(Taken {
            arrays: received,
            bytes: fresh.iter().map(|fresh| fresh.viewed).sum(),
        })
    }

    /// Does the extent lie in memory that the worker may use?
    pub(super) fn was_granted(&self, extent: Extent) -> bool {
        let whole = |grant: &Grant| Extent {
            len: grant.block.held(),
            ..grant.block.extent()
        };
        let mut grants = self.grants.iter();
        grants.any(|grant| skip_within(whole(grant), extent).is_some())
    }

    /// The worker's cursor is here now: what lies before it is used, and no longer granted.
    fn advance(&mut self, number: u64, cursor: u64) -> Result<SmallVec<[Block; 2]>, String> {
        let mut pieces = SmallVec::new();
        if number == NO_GRANT {
            return Ok(pieces);
        }
        let bad = || format!("a cursor at {cursor} of grant {number}, which it does not hold");
        let position = self
            .grants
            .iter()
            .position(|grant| u64::from(grant.number) == number)
            .ok_or_else(bad)?;
        let current = &self.grants[position].block;
        let used = cursor
            .checked_sub(current.extent().at.offset())
            .filter(|used| *used <= current.held() && used.is_multiple_of(QUANTUM))
            .or((current.held() == 0).then_some(0))
            .ok_or_else(bad)?;
        for old in self.grants.drain(..position) {
            self.ahead -= old.block.held();
            pieces.push(old.block);
        }
        if used > 0 {
            let current = &mut self.grants[0].block;
            let rest = current.split_off(used);
            pieces.push(std::mem::replace(current, rest));
            self.ahead -= used;
        }
        Ok(pieces)
    }

    /// Cuts a chunk out of the used pieces.
    fn carve(&self, pieces: &mut SmallVec<[Block; 2]>, chunk: Extent) -> Result<Block, String> {
        let bad = || format!("an array at {chunk:?}, which was not granted");
        let unit = BlockPlacement::Packed.unit(chunk.len);
        let held = chunk.len.checked_next_multiple_of(unit).ok_or_else(bad)?;
        if chunk.at.region() != self.region {
            return Err(bad());
        }
        for index in 0..pieces.len() {
            let whole = Extent {
                len: pieces[index].held(),
                ..pieces[index].extent()
            };
            let Some(skip) = skip_within(
                whole,
                Extent {
                    at: chunk.at,
                    len: held,
                },
            ) else {
                continue;
            };
            if !skip.is_multiple_of(QUANTUM) {
                return Err(bad());
            }
            let mut block = pieces[index].split_off(skip);
            let after = block.split_off(held);
            if !after.is_empty() {
                pieces.push(after);
            }
            return Ok(block);
        }
        Err(bad())
    }

    /// The next process begins here, after all that was posted; nothing is left of the last one.
    pub(super) fn start_over(&mut self) {
        self.producer.reset();
        self.producer.cells().clear_notes();
        self.backlog_ns = 0;
        self.seen_at_tick = u64::MAX;
        self.condemned = false;
    }

    /// Everything granted is free again. Only after the exit of the worker is confirmed.
    pub(super) fn revoke(&mut self) {
        self.timed.clear();
        self.alarm = None;
        self.noticed = u64::MAX;
        self.grants.clear();
        self.ahead = 0;
        self.short_of = 0;
        self.full_at = u64::MAX;
        self.last_grant = 0;
    }
}

#[cfg(any(test, feature = "points"))]
impl Lane {
    /// Where the grant of this number begins, from the cursor on.
    #[cfg(test)]
    pub(super) fn granted_at(&self, number: u32) -> Option<u64> {
        let grant = self.grants.iter().find(|grant| grant.number == number)?;
        Some(grant.block.extent().at.offset())
    }

    /// Offset and bytes of what is granted and not used.
    pub(super) fn grants_held(&self) -> impl Iterator<Item = (u64, u64)> {
        let block = |grant: &Grant| (grant.block.extent().at.offset(), grant.block.held());
        self.grants.iter().map(block)
    }
}

/// How far into `outer` the extent `inner` begins, if it lies within.
fn skip_within(outer: Extent, inner: Extent) -> Option<u64> {
    if outer.at.region() != inner.at.region() {
        return None;
    }
    let skip = inner.at.offset().checked_sub(outer.at.offset())?;
    (skip.checked_add(inner.len)? <= outer.len).then_some(skip)
}
