//! What an arena shall be like, and whether this system can have it.

use std::path::{Path, PathBuf};

use super::error::{ArenaError, Limit};
use super::layout::{CHUNK, GRANULE, HEADER_LEN, PAGE};
use super::offset::Offset;
use crate::sys::{self, limits};

/// What segments are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backing {
    /// Arrays as with `Memfd`, so that what others do in `/dev/shm` does not matter, then or later; `Named` where memory files are
    /// forbidden.
    #[default]
    Auto,
    /// POSIX shared memory in `/dev/shm`, which bounds it; names are removed at once.
    Named,
    /// Anonymous memory files, which the size of `/dev/shm` does not bound.
    Memfd,
    /// `Memfd`, sealed so that nobody can cut it.
    Sealed,
}

/// What [`Arena::create`](super::Arena::create) shall make.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Keeps the control segment under this name, for other programs: 1 to 100 letters, digits, `-`, `_`.
    pub name: Option<String>,
    /// Bytes that all regions together may commit, rounded up to 64 KiB; see [`default_capacity`].
    pub capacity: u64,
    /// How many workers there are; region 0 is the supervisor's, region `k` that of worker `k`.
    pub writers: u16,
    /// What segments are made of.
    pub backing: Backing,
    /// Bytes of the control segment behind its header page.
    pub control_len: u64,
    /// Whether names that dead programs left in `/dev/shm` are removed first, whatever this arena is made of.
    pub sweep: bool,
    /// Below which folder the system says how much memory machine and container have: `/`, but for tests.
    #[doc(hidden)]
    pub root: PathBuf,
}

impl Default for Spec {
    fn default() -> Spec {
        Spec {
            name: None,
            capacity: default_capacity(),
            writers: 1,
            backing: Backing::Auto,
            control_len: 0,
            sweep: true,
            root: "/".into(),
        }
    }
}

/// Half of the memory that this process could have now, container limits counted, in bytes.
pub fn default_capacity() -> u64 {
    half_of(&limits::memory_available(Path::new("/")))
}

fn half_of(memory: &limits::Memory) -> u64 {
    (memory.available / 2).max(CHUNK) / CHUNK * CHUNK
}

/// How much address space one process's regions may take together, in bytes: half of what x86_64 has.
const ADDRESSES: u64 = 1 << 46;

/// What the system says; a value, so that decisions can be tested.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(super) shm: Result<limits::Space, sys::Error>,
    pub(super) memory: limits::Memory,
    pub(super) address_space: Option<u64>,
    pub(super) file_size: Option<u64>,
    pub(super) page: usize,
}

impl Surroundings {
    /// As they are now; `root` is that of a [`Spec`].
    pub(crate) fn read(root: &Path) -> Surroundings {
        Surroundings {
            shm: limits::shm_space(Path::new("/dev/shm")),
            memory: limits::memory_available(root),
            address_space: limits::address_space_limit(),
            file_size: limits::file_size_limit(),
            page: sys::page_size(),
        }
    }

    /// The [`default_capacity`] there.
    pub(crate) fn default_capacity(&self) -> u64 {
        half_of(&self.memory)
    }
}

/// A spec that this system can have, with everything decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) capacity: u64,
    pub(super) backing: Backing,
    pub(super) regions: u16,
    pub(super) reservation: u64,
    pub(super) control_len: u64,
}

impl Spec {
    pub(super) fn plan(&self, around: &Surroundings) -> Result<Plan, ArenaError> {
        if around.page as u64 != PAGE {
            return Err(ArenaError::Unsupported {
                what: format!(
                    "pages of {} bytes are not supported: run a kernel with pages of {PAGE} bytes",
                    around.page
                ),
            });
        }
        if let Some(name) = &self.name {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if name.is_empty() || name.len() > 100 || !name.bytes().all(legal) {
                return Err(ArenaError::BadName { name: name.clone() });
            }
            if self.backing == Backing::Sealed {
                return Err(ArenaError::Unsupported {
                    what: "a sealed arena cannot keep a name: what has a name can be cut by any process of this user"
                        .into(),
                });
            }
        }
        let too_large = |limit, largest| ArenaError::TooLarge {
            capacity: self.capacity,
            limit,
            largest,
        };
        let regions = self
            .writers
            .checked_add(1)
            .ok_or_else(|| ArenaError::Unsupported {
                what: format!(
                    "{} workers are more than an arena has regions for",
                    self.writers
                ),
            })?;
        let capacity = self.capacity.max(GRANULE);

        if capacity > around.memory.limit {
            let limit = match around.memory.contained {
                true => Limit::Container,
                false => Limit::Machine,
            };
            return Err(too_large(limit, around.memory.limit));
        }
        let control_len = self
            .control_len
            .checked_next_multiple_of(PAGE)
            .and_then(|len| len.checked_add(HEADER_LEN))
            .filter(|&len| len < Offset::MAX_REGION_LEN)
            .ok_or_else(|| ArenaError::Unsupported {
                what: format!(
                    "a control segment of {} bytes is too large",
                    self.control_len
                ),
            })?;
        let backing = match (self.backing, &around.shm) {
            (Backing::Auto, _) => Backing::Memfd,
            (Backing::Named, Ok(space)) if space.size < capacity => {
                return Err(too_large(Limit::DevShm, space.size));
            }
            (Backing::Named, Err(error)) => return Err(ArenaError::System(error.clone())),
            (backing, _) => backing,
        };
        // What is committed at once: a capacity with a part of it could not be used to its end. It may pass a limit by that
        // part, which matters less than refusing what is exactly the limit; each commit asks the system anyway.
        let capacity = capacity
            .checked_next_multiple_of(GRANULE)
            .unwrap_or(capacity);

        let share = (ADDRESSES / u64::from(regions)).min(Offset::MAX_REGION_LEN - CHUNK);
        let reservation = capacity.next_multiple_of(CHUNK).min(share / CHUNK * CHUNK);
        if let Some(limit) = around.address_space {
            // Workers inherit the limit and map regions twice; half of what is left stays for everything else.
            let each = limit / 2 / (2 * u64::from(regions)) / CHUNK * CHUNK;
            if each < reservation {
                return Err(too_large(Limit::AddressSpace, each));
            }
        }
        if let Some(limit) = around.file_size
            && limit < reservation
        {
            return Err(too_large(Limit::FileSize, limit / CHUNK * CHUNK));
        }
        Ok(Plan {
            capacity,
            backing,
            regions,
            reservation,
            control_len,
        })
    }
}
