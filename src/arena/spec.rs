//! The settings of an arena, and whether this system can provide them.

use std::path::{Path, PathBuf};

use super::error::{ArenaError, SystemLimit};
use super::layout::{CHUNK, GRANULE, HEADER_LEN, PAGE};
use super::offset::Offset;
use crate::sys::{self, limits};

/// What the segments of an arena are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backing {
    /// `Memfd` for arrays, so that it does not matter what other programs store in `/dev/shm`. `Named` if memory files
    /// are forbidden.
    #[default]
    Auto,
    /// POSIX shared memory in `/dev/shm`, whose size is a limit. Names are removed at once.
    Named,
    /// Anonymous memory files, which the size of `/dev/shm` does not limit.
    Memfd,
    /// `Memfd`, sealed so that no process can truncate it.
    Sealed,
}

/// Settings of [`Arena::create`](super::Arena::create).
#[derive(Debug, Clone)]
pub struct Spec {
    /// The name under which other programs find the control segment: 1 to 100 letters, digits, `-`, `_`.
    pub name: Option<String>,
    /// Bytes that all regions together may commit, rounded up to 64 KiB. See [`default_capacity`].
    pub capacity: u64,
    /// Number of workers. Region 0 belongs to the supervisor, region `k` to worker `k`.
    pub writers: u16,
    /// What the segments are made of.
    pub backing: Backing,
    /// Bytes of the control segment after its header page.
    pub control_len: u64,
    /// Whether to first remove names that killed programs left in `/dev/shm`. Does not depend on `backing`.
    pub sweep: bool,
    /// Whether core dumps of this process contain the regions.
    pub in_core_dumps: bool,
    /// The root below which Linux describes the memory of the machine and the container (`proc`, `sys`): `/`, except in
    /// tests.
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
            in_core_dumps: false,
            root: "/".into(),
        }
    }
}

/// Half of the memory available to this process now, container limits included, in bytes.
pub fn default_capacity() -> u64 {
    half_of(&limits::memory_available(Path::new("/")))
}

fn half_of(memory: &limits::Memory) -> u64 {
    (memory.available / 2).max(CHUNK) / CHUNK * CHUNK
}

/// Maximum address space of all regions of one process together, in bytes: half of what x86_64 has.
const ADDRESSES: u64 = 1 << 46;

/// Limits and memory of the system, as a value, so that tests can supply others.
#[derive(Debug, Clone)]
pub(crate) struct SystemInfo {
    pub(super) shm: Result<limits::Space, sys::Error>,
    pub(super) memory: limits::Memory,
    pub(super) address_space: Option<u64>,
    pub(super) file_size: Option<u64>,
    pub(super) page: usize,
}

impl SystemInfo {
    /// Reads the limits and the memory. For `root` see [`Spec::root`].
    pub(crate) fn read(root: &Path) -> SystemInfo {
        SystemInfo {
            shm: limits::shm_space(Path::new("/dev/shm")),
            memory: limits::memory_available(root),
            address_space: limits::address_space_limit(),
            file_size: limits::file_size_limit(),
            page: sys::page_size(),
        }
    }

    /// The [`default_capacity`] of this system.
    pub(crate) fn default_capacity(&self) -> u64 {
        half_of(&self.memory)
    }
}

/// A [`Spec`] after all defaults were decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvedSpec {
    pub(super) capacity: u64,
    pub(super) backing: Backing,
    pub(super) regions: u16,
    pub(super) reservation: u64,
    pub(super) control_len: u64,
}

impl Spec {
    pub(super) fn resolve(&self, system: &SystemInfo) -> Result<ResolvedSpec, ArenaError> {
        if system.page as u64 != PAGE {
            return Err(ArenaError::Unsupported {
                what: format!(
                    "pages of {} bytes are not supported: run Linux with pages of {PAGE} bytes",
                    system.page
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
                    what: "a sealed arena cannot keep a name: any process of this user can truncate a segment with a \
                           name"
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
                what: format!("an arena has no regions for {} workers", self.writers),
            })?;
        let capacity = self.capacity.max(GRANULE);

        if capacity > system.memory.limit {
            let limit = match system.memory.contained {
                true => SystemLimit::Container,
                false => SystemLimit::Machine,
            };
            return Err(too_large(limit, system.memory.limit));
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
        let backing = match (self.backing, &system.shm) {
            (Backing::Auto, _) => Backing::Memfd,
            (Backing::Named, Ok(space)) if space.size < capacity => {
                return Err(too_large(SystemLimit::DevShm, space.size));
            }
            (Backing::Named, Err(error)) => return Err(ArenaError::System(error.clone())),
            (backing, _) => backing,
        };
        // Rounded up to the unit of commits, since a partial unit could not be used. The result may exceed a limit by
        // less than one unit. Refusing a capacity that equals the limit would be worse, and each commit checks the
        // system's memory anyway.
        let capacity = capacity
            .checked_next_multiple_of(GRANULE)
            .unwrap_or(capacity);

        let share = (ADDRESSES / u64::from(regions)).min(Offset::MAX_REGION_LEN - CHUNK);
        let reservation = capacity.next_multiple_of(CHUNK).min(share / CHUNK * CHUNK);
        if let Some(limit) = system.address_space {
            // Workers inherit the limit and map each region twice. Half of the limit is left for everything else.
            let each = limit / 2 / (2 * u64::from(regions)) / CHUNK * CHUNK;
            if each < reservation {
                return Err(too_large(SystemLimit::AddressSpace, each));
            }
        }
        if let Some(limit) = system.file_size
            && limit < reservation
        {
            return Err(too_large(SystemLimit::FileSize, limit / CHUNK * CHUNK));
        }
        Ok(ResolvedSpec {
            capacity,
            backing,
            regions,
            reservation,
            control_len,
        })
    }
}
