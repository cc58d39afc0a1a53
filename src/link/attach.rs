//! Links in the control segment of an arena.

use std::ptr::NonNull;
use std::sync::Arc;

use super::cells::{LINK_BYTES, LinkCells, REPLY_AT, link_at};
use crate::arena::{Arena, ArenaError, HEADER_LEN, View};

impl LinkCells {
    /// Supervisor: the link of lane `lane` in the control segment of `arena`, which must have room for the link: see
    /// [`control_bytes`](super::control_bytes).
    pub(crate) fn in_arena(arena: &Arc<Arena>, lane: usize) -> Self {
        let body = arena.control().body();
        let at = link_at(lane);
        assert!(
            (at + LINK_BYTES) as u64 <= arena.control().len() - HEADER_LEN,
            "no room for lane {lane}"
        );
        // SAFETY: the link is inside the control segment (asserted), which is committed, initially zero, and mapped as
        // long as the arena lives. Offsets are multiples of pages. The worker accesses the same cells, and uses the
        // same layout.
        unsafe {
            let (hub, post, reply) = (body, body.add(at), body.add(at + REPLY_AT));
            Self::from_mapped(hub, post, reply, Arc::clone(arena) as _)
        }
    }

    /// Worker: the link of lane `lane`. The reply half is mapped writable, the rest read-only.
    pub(crate) fn in_view(view: &'static View, lane: usize) -> Result<Self, ArenaError> {
        let at = HEADER_LEN as usize + link_at(lane);
        let writable = (at + REPLY_AT) as u64..(at + LINK_BYTES) as u64;
        let reply = view.control_rw(writable)?;
        let absent = || ArenaError::Absent {
            what: format!("there is no link for lane {lane}"),
        };
        let hub: NonNull<u8> = view
            .control()
            .at(HEADER_LEN as usize, 1)
            .ok_or_else(absent)?;
        let post = view.control().at(at, REPLY_AT).ok_or_else(absent)?;
        let base = reply.base();
        // SAFETY: the supervisor is the same executable and laid out the link there. The view is never dropped, and
        // `reply` lives as long as the cells.
        Ok(unsafe { Self::from_mapped(hub, post, base, Arc::new(reply)) })
    }
}
