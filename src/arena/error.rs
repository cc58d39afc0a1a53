//! Arena errors.

use std::fmt;
use std::path::Path;

use bytemuck::{Pod, Zeroable};

use crate::sys::{self, debug_as_text};

/// The arena has no room for an allocation. All numbers are bytes.
///
/// Where there is no arena (in an inline engine, and outside of engines), arrays use private memory, and the numbers
/// are those of the machine or the container.
// Plain numbers, so that the error can cross a link from a worker unchanged.
#[repr(C)]
#[derive(Copy, Clone, Pod, Zeroable, PartialEq, Eq)]
pub struct ArenaFull {
    /// Bytes requested.
    pub requested: u64,
    /// Free bytes, in all regions together.
    pub free: u64,
    /// Maximum size of the arena.
    pub capacity: u64,
    /// The largest free run in the region of the request. For a worker with a lower limit: the bytes it may still
    /// allocate.
    pub largest_free: u64,
    /// Bytes that the system has left: space in `/dev/shm`, or memory if segments have no names.
    pub shm_free: u64,
    /// Bytes that workers retain for arrays that outlive their jobs, if the engine
    /// [allows](crate::engine::Builder::retain_escaped) that.
    pub retained: u64,
    /// What `shm_free` refers to, and which limit was reached: one of the codes below. For `SHARE` the higher bits are
    /// the bytes that a worker may hold.
    pub(crate) source: u64,
}

const _: () = assert!(size_of::<ArenaFull>() == 56 && align_of::<ArenaFull>() == 8);

impl ArenaFull {
    /// The `source` if `shm_free` is memory of the machine.
    pub(crate) const MACHINE: u64 = 0;
    /// The `source` if `shm_free` is memory of the container.
    pub(crate) const CONTAINER: u64 = 1;
    /// The `source` if `shm_free` is space of the file system at `/dev/shm`.
    pub(crate) const FILE_SYSTEM: u64 = 2;
    /// The `source` if the arena's capacity was reached; `shm_free` is memory of the machine.
    pub(crate) const ARENA: u64 = 3;
    /// The `source` if the limit on file sizes was lowered below the capacity; `shm_free` is memory of the machine.
    pub(crate) const FILE_SIZE: u64 = 6;
    /// The `source` if the request was for private memory, without an arena; `shm_free` is memory of the machine.
    pub(crate) const PROCESS: u64 = 4;

    /// The low bits of `source` if the limit of the worker was reached; `shm_free` is memory of the machine. The bits
    /// above are the limit in bytes.
    const SHARE: u64 = 5;
    const SHARE_SHIFT: u32 = 8;

    /// The `source` for an allocation that would bring a worker above its limit of `limit` bytes.
    pub(crate) fn share(limit: u64) -> u64 {
        Self::SHARE | limit.min(u64::MAX >> Self::SHARE_SHIFT) << Self::SHARE_SHIFT
    }

    /// The number of bytes of the arena that one worker may hold, if this limit was reached: the arena has room, but
    /// not for this worker. See [`Builder::max_arena_per_worker`](crate::engine::Builder::max_arena_per_worker).
    pub fn worker_share(&self) -> Option<u64> {
        let code = self.source & ((1 << Self::SHARE_SHIFT) - 1);
        (code == Self::SHARE).then_some(self.source >> Self::SHARE_SHIFT)
    }

    /// The error for a failed allocation of `requested` bytes of private memory.
    pub(crate) fn private(requested: u64) -> ArenaFull {
        let memory = sys::limits::memory_available(Path::new("/"));
        ArenaFull {
            requested,
            free: memory.available,
            capacity: memory.limit,
            largest_free: memory.available,
            shm_free: memory.available,
            retained: 0,
            source: Self::PROCESS,
        }
    }

    /// The limit of the system that was reached. `None` if the arena's own capacity or the
    /// [share](ArenaFull::worker_share) of a worker was reached. The capacity can be used up although
    /// [`largest_free`](ArenaFull::largest_free) reports room: it limits committed memory, which grows by at least 64
    /// KiB at a time, so small arrays in many places commit more memory than they occupy.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).capacity(1 << 20).build()?;
    /// let full = engine.zeros::<u8>(2 << 20).unwrap_err();
    /// assert_eq!(full.limit(), None);
    /// # Ok::<(), arenite::BuildError>(())
    /// ```
    pub fn limit(&self) -> Option<SystemLimit> {
        let fits = self.requested <= self.largest_free.min(self.free).min(self.capacity);
        match self.source {
            // The machine has the memory, but a limit of this process forbids to use it.
            Self::PROCESS if fits => Some(SystemLimit::AddressSpace),
            Self::PROCESS => Some(SystemLimit::Machine),
            Self::ARENA => None,
            Self::FILE_SIZE => Some(SystemLimit::FileSize),
            _ if self.worker_share().is_some() => None,
            _ if !fits => None,
            Self::CONTAINER => Some(SystemLimit::Container),
            Self::FILE_SYSTEM => Some(SystemLimit::DevShm),
            _ => Some(SystemLimit::Machine),
        }
    }
}

impl fmt::Display for ArenaFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ArenaFull {
            requested,
            free,
            capacity,
            largest_free,
            shm_free,
            retained,
            source,
        } = *self;
        if source == Self::PROCESS {
            return write!(
                f,
                "out of memory: requested {requested}, left {shm_free} of {capacity} bytes; {}",
                match self.limit() {
                    Some(SystemLimit::AddressSpace) =>
                        "a limit of this process was reached: raise it (`ulimit -v`, `ulimit -d`)",
                    _ => "ask for less, or stop other programs",
                }
            );
        }
        if let Some(share) = self.worker_share() {
            return write!(
                f,
                "a worker has its share of the arena: requested {requested} more of the {share} bytes that it may \
                 hold, free {free}, capacity {capacity}; the rest is for other workers: make smaller results, raise \
                 max_arena_per_worker, or raise the capacity"
            );
        }
        write!(
            f,
            "the arena is full: requested {requested}, free {free}, capacity {capacity}, largest free run \
             {largest_free}, left in shared memory {shm_free} bytes; "
        )?;
        let todo = if source == Self::FILE_SIZE {
            "the limit on file sizes of this process is lower than the capacity, which counts for shared memory too: \
             it was lowered after the engine was built, so raise it again (RLIMIT_FSIZE, `ulimit -f`)"
        } else if requested > capacity {
            "raise the capacity"
        } else if requested > free {
            "drop arrays that are no longer needed, or raise the capacity"
        } else if requested > largest_free {
            "the free memory is fragmented: drop neighbouring arrays, or raise the capacity"
        } else {
            match self.limit() {
                Some(SystemLimit::DevShm) => {
                    "/dev/shm is full: mount a larger /dev/shm, or use a backing without names"
                }
                Some(SystemLimit::Container) if requested <= shm_free => {
                    "the container has this much, but part of it is held in reserve, because Linux would kill a \
                     process when it runs out: raise its limit, or reduce what else runs in it"
                }
                Some(SystemLimit::Container) => {
                    "the container has no more memory for it: raise its limit, or reduce what else runs in it"
                }
                Some(SystemLimit::Machine) if requested <= shm_free => {
                    "the machine has this much, but part of it is held in reserve, because Linux would kill a \
                     process when it runs out: stop other programs"
                }
                None => {
                    "all of the capacity is committed, by small arrays in many places: drop arrays that are no longer \
                     needed, or raise the capacity"
                }
                _ => "the machine has no more memory for it: stop other programs",
            }
        };
        f.write_str(todo)?;
        if retained > 0 {
            write!(
                f,
                "; workers retain {retained} bytes for arrays that jobs have left behind: drop them in the kernels, or \
                 recycle the workers more often"
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for ArenaFull {}

debug_as_text!(ArenaFull, ArenaError);

/// A limit of the system that an arena reached.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SystemLimit {
    /// The size of the file system `/dev/shm`.
    DevShm,
    /// The memory limit of the container (control group).
    Container,
    /// The memory of the machine.
    Machine,
    /// `RLIMIT_AS`, or what addresses can express.
    AddressSpace,
    /// `RLIMIT_FSIZE`.
    FileSize,
}

/// An arena could not be created or attached to.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArenaError {
    /// No room for an allocation.
    ArenaFull(ArenaFull),
    /// The capacity is larger than a limit of the system.
    TooLarge {
        /// The capacity asked for, in bytes.
        capacity: u64,
        /// Which limit.
        limit: SystemLimit,
        /// The largest possible capacity, in bytes.
        largest: u64,
    },
    /// A running program uses an arena of this name.
    NameTaken {
        /// The name.
        name: String,
    },
    /// The name has a character that is not allowed, or a wrong length.
    BadName {
        /// The name.
        name: String,
    },
    /// The request is not possible on this system.
    Unsupported {
        /// What is not supported, as a sentence.
        what: String,
    },
    /// There is no arena to attach to.
    Absent {
        /// What is missing.
        what: String,
    },
    /// The arena is still being created.
    NotReady,
    /// The arena was made by another version of this crate, or it is not an arena.
    WrongVersion {
        /// The layout version found; 0 if it is not an arena at all.
        found: u32,
        /// The layout version of this program.
        expected: u32,
    },
    /// A segment is shorter than its header says.
    Truncated {
        /// Which segment.
        segment: String,
        /// The length of the segment in bytes.
        len: u64,
        /// The length according to its header.
        expected: u64,
    },
    /// A system call failed.
    System(sys::Error),
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArenaError::ArenaFull(full) => full.fmt(f),
            ArenaError::TooLarge {
                capacity,
                limit,
                largest,
            } => {
                write!(f, "a capacity of {capacity} bytes is more than ")?;
                let (what, todo) = match limit {
                    SystemLimit::DevShm => (
                        "/dev/shm has",
                        "mount a larger one (`mount -o remount,size=…`, `docker run --shm-size=…`), or use a backing \
                         without names",
                    ),
                    SystemLimit::Container => {
                        ("the memory limit of this container", "raise that limit")
                    }
                    SystemLimit::Machine => ("the memory of this machine", "add memory"),
                    SystemLimit::AddressSpace => (
                        "the address space allows (RLIMIT_AS; each process maps each region, workers twice)",
                        "raise it (`ulimit -v unlimited`), use fewer workers",
                    ),
                    SystemLimit::FileSize => (
                        "the file size limit allows (RLIMIT_FSIZE, which counts for shared memory too)",
                        "raise it (`ulimit -f unlimited`)",
                    ),
                };
                match largest {
                    0 => write!(f, "{what}: {todo}"),
                    _ => write!(
                        f,
                        "{what}: {todo}, or lower the capacity to {largest} bytes at most"
                    ),
                }
            }
            ArenaError::NameTaken { name } => write!(
                f,
                "an arena named \"{name}\" is in use by a running program: choose another name"
            ),
            ArenaError::BadName { name } => write!(
                f,
                "\"{name}\" cannot name an arena: use 1 to 100 letters, digits, '-' and '_'"
            ),
            ArenaError::Unsupported { what } => f.write_str(what),
            ArenaError::Absent { what } => write!(f, "there is no arena: {what}"),
            ArenaError::NotReady => {
                write!(
                    f,
                    "the arena is not ready yet: its program is still making it"
                )
            }
            ArenaError::WrongVersion { found: 0, .. } => write!(f, "this is not an arena"),
            ArenaError::WrongVersion { found, expected } => write!(
                f,
                "the arena has layout version {found}, this program knows {expected}: use the same version of arenite"
            ),
            ArenaError::Truncated {
                segment,
                len,
                expected,
            } => write!(
                f,
                "the {segment} segment is {len} bytes long instead of {expected}: it was truncated"
            ),
            ArenaError::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ArenaError {}

impl From<sys::Error> for ArenaError {
    fn from(error: sys::Error) -> ArenaError {
        ArenaError::System(error)
    }
}

impl From<ArenaFull> for ArenaError {
    fn from(full: ArenaFull) -> ArenaError {
        ArenaError::ArenaFull(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_limit_that_was_reached() {
        let full = |source, shm_free| {
            let requested = 1000;
            let (free, capacity, largest_free) = (5000, 9000, 5000);
            let full = ArenaFull {
                requested,
                free,
                capacity,
                largest_free,
                shm_free,
                retained: 0,
                source,
            };
            full.to_string()
        };
        for (source, shm_free, expected) in [
            (ArenaFull::CONTAINER, 999, "container has no more"),
            (ArenaFull::CONTAINER, 1000, "container has this much, but"),
            (ArenaFull::MACHINE, 999, "machine has no more"),
            (ArenaFull::MACHINE, 1000, "machine has this much, but"),
            (ArenaFull::FILE_SYSTEM, 999, "/dev/shm is full"),
            (ArenaFull::ARENA, 1000, "all of the capacity"),
        ] {
            let said = full(source, shm_free);
            assert!(said.contains(expected), "{said}");
        }
    }
}
