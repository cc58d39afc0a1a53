//! Finds the arena's segments in the map list of a process: its own, as a malicious kernel would, or another's.

use std::fs;
use std::ops::Range;

/// One line of `/proc/self/maps` that belongs to a segment.
#[derive(Clone, Debug)]
pub struct Mapped {
    pub addresses: Range<usize>,
    /// Start in the segment.
    pub offset: u64,
    pub writable: bool,
    pub readable: bool,
}

impl Mapped {
    /// The address of a byte of the segment, if this mapping contains it.
    pub fn address_of(&self, at: u64) -> Option<usize> {
        let inside = usize::try_from(at.checked_sub(self.offset)?).ok()?;
        (inside < self.addresses.len()).then(|| self.addresses.start + inside)
    }
}

/// Whether this path is that of the segment whose name ends like this: `control`, `region-0`, … Names are removed at
/// once, but Linux still shows them.
pub fn leads_to(path: &str, name: &str) -> bool {
    let Some(path) = path.strip_suffix(" (deleted)") else {
        return false;
    };
    let named = || {
        let (_, end) = path.strip_prefix("/dev/shm/arenite-")?.split_once('-')?;
        let region = end.rsplit_once(".r");
        let region = region.map(|(_, region)| format!("region-{region}"));
        Some(region.unwrap_or_else(|| "control".into()))
    };
    path.strip_prefix("/memfd:arenite-") == Some(name) || named().as_deref() == Some(name)
}

/// All mappings of a segment in this process.
pub fn pieces(name: &str) -> Vec<Mapped> {
    let maps = fs::read_to_string("/proc/self/maps").expect("this process may read its own maps");
    pieces_in(&maps, name)
}

/// All mappings of a segment in the process with this map list.
pub fn pieces_in(maps: &str, name: &str) -> Vec<Mapped> {
    let piece = |line: &str| {
        // The path is last, and starts with the first slash.
        let (line, path) = line.split_at_checked(line.find('/')?)?;
        if !leads_to(path, name) {
            return None;
        }
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let rights = words.next()?;
        Some(Mapped {
            addresses: usize::from_str_radix(start, 16).ok()?
                ..usize::from_str_radix(end, 16).ok()?,
            offset: u64::from_str_radix(words.next()?, 16).ok()?,
            readable: rights.starts_with('r'),
            writable: rights[1..].starts_with('w'),
        })
    };
    maps.lines().filter_map(piece).collect()
}

/// The address of a byte of a segment in its `which`-th mapping: each region and the control segment are mapped once
/// for reading, and what this worker may write a second time.
pub fn address(name: &str, at: u64, which: impl Fn(&Mapped) -> bool) -> Option<usize> {
    pieces(name)
        .iter()
        .filter(|piece| which(piece))
        .find_map(|piece| piece.address_of(at))
}

/// Layout of the control segment, from which a link's position follows. `link/cells.rs` asserts the same.
pub mod layout {
    pub const HEADER: u64 = 0;
    pub const HUB: u64 = 4096;
    const LINKS: u64 = 8192;
    const POST: u64 = 36 * 1024;
    /// Bytes of the half that a worker writes.
    pub const REPLY: u64 = 52 * 1024;
    /// What the supervisor writes in the link of a lane.
    pub const fn post(lane: u64) -> u64 {
        LINKS + lane * (POST + REPLY)
    }
    /// What the worker writes in the link of a lane.
    pub const fn reply(lane: u64) -> u64 {
        post(lane) + POST
    }
    /// Start of the call slots in a `post`, 128 bytes each.
    pub const CALLS: u64 = 256;
    pub const SLOTS: u64 = 256;
    pub const SLOT: u64 = 128;
    /// Fields of a `reply`.
    pub const WANTS: u64 = 4;
    pub const WANT_BYTES: u64 = 8;
    /// State words, each followed by the duration and a reply of one word.
    pub const STATES: u64 = 16;
    pub const STATE: u64 = 16;
    pub const REPLIES: u64 = 4224;
    pub const TAKEN: u64 = REPLIES + SLOTS * SLOT;
}
