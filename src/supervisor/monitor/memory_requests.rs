//! Output memory that lanes request, or that has to be committed to be granted ahead.

use super::Monitor;
use crate::arena::ArenaFull;
use crate::link::AllocRequest;
use crate::supervisor::grants::HUGE;
use crate::supervisor::lane::NO_RECORD;
use crate::supervisor::state::EngineState;
use crate::sys::clock;

impl Monitor {
    /// Grants memory ahead that has to be committed first. Commits without the lock.
    pub(super) fn grant_ahead(&self, index: usize, generation: u32, bytes: u64) {
        let arena = &self.shared.arena;
        let in_use = arena.in_use();
        let (region, share) = {
            let state = self.shared.lock();
            (
                state.lanes[index].region(),
                state.lanes.check_ahead(index, bytes, arena, &state.config),
            )
        };
        let block = share
            .map_err(|over| over.into_full(arena, bytes))
            .and_then(|()| arena.grant(region, bytes, bytes >= HUGE));
        crate::sync::point!("grant.ahead");
        let mut state = self.shared.lock();
        let runs = state.workers[state.lanes.worker_of(index)]
            .process()
            .is_some();
        let lane = &mut state.lanes[index];
        if lane.generation() != generation || !runs {
            return;
        }
        let full_at = block.is_err().then(|| in_use.max(arena.in_use()));
        lane.grants_mut().committed(full_at);
        if let Ok(block) = block {
            // If the link has no room for another grant, the lane has enough memory.
            drop(lane.grant(block));
        }
    }

    /// Answers the request of a lane for output memory. Allocates without the lock, because a gigabyte takes a while.
    pub(super) fn grant(&self, index: usize, generation: u32, request: AllocRequest) {
        let bytes = request.bytes;
        let (region, generous, shares) = {
            let mut state = self.shared.lock();
            if bytes == 0 && state.lanes[index].generation() == generation {
                // A grant without bytes would count for no share, and there would be no end of them.
                state.condemn_for(index, NO_RECORD, "a request for memory of zero bytes");
                return self.shared.unlock(state);
            }
            let lane = &state.lanes[index];
            let generous =
                (lane.grants().last() * 2).min(state.lanes.most_granted_at_once(&state.config));
            let generous = bytes.max(generous);
            let shares = [generous, bytes].map(|len| {
                let lanes = &state.lanes;
                lanes.check_share(index, len, &self.shared.arena, &state.config)
            });
            (lane.region(), generous, shares)
        };
        let arena = &self.shared.arena;
        let [generous_share, share] = shares;
        let grant = |len: u64| arena.grant(region, len, len >= HUGE);
        let block = match generous_share.is_ok().then(|| grant(generous)) {
            Some(Ok(block)) => Ok(block),
            _ => share
                .map_err(|over| over.into_full(arena, bytes))
                .and_then(|()| grant(bytes)),
        };
        crate::sync::point!("grant.found");
        let damage = block.is_err().then(|| arena.damage()).flatten();
        let mut state = self.shared.lock();
        if let Some(why) = damage {
            state.give_up(&why);
        }
        let lane = &mut state.lanes[index];
        // The lane may have taken a grant that was made ahead, and may request other memory by now.
        if lane.generation() != generation || lane.producer.alloc_request() != Some(request) {
            return;
        }
        let refusal = match block.map(|block| lane.grant(block)) {
            // Either the memory was granted, or the link is full of grants that were made ahead meanwhile: the lane
            // takes those.
            Ok(Ok(()) | Err(_)) => None,
            Err(full) => Some(ArenaFull {
                requested: bytes,
                ..full
            }),
        };
        let (given, now) = (refusal.is_none(), clock::monotonic_ns());
        lane.producer
            .answer_alloc(request, refusal.map(crate::worker::full_to_words));
        let EngineState { trace, lanes, .. } = &mut *state;
        trace.granted(lanes, index, bytes, given, now);
        crate::sync::point!("grant.answered");
        self.shared.unlock(state);
    }
}
