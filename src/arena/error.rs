//! What can go wrong with an arena, in numbers.

use std::fmt;
use std::path::Path;

use bytemuck::{Pod, Zeroable};

use crate::sys::{self, debug_as_text};

/// An allocation found no room. All numbers are bytes.
///
/// Where there is no arena (in an inline engine, and outside of engines) an array takes memory of the process, and these are the
/// numbers of the machine, or of the container.
// Plain numbers, so that it can cross a link from a worker unchanged.
#[repr(C)]
#[derive(Copy, Clone, Pod, Zeroable, PartialEq, Eq)]
pub struct ArenaFull {
    /// What was asked for.
    pub requested: u64,
    /// What nobody holds, in all regions together.
    pub free: u64,
    /// What the arena may have at most.
    pub capacity: u64,
    /// The largest run that nobody holds in the region that was asked.
    pub largest_free: u64,
    /// What the system can still give: room of `/dev/shm`, or memory where segments have no names.
    pub shm_free: u64,
    /// Whose number `shm_free` is: one of the codes below.
    pub(crate) whose: u64,
}

const _: () = assert!(size_of::<ArenaFull>() == 48 && align_of::<ArenaFull>() == 8);

impl ArenaFull {
    /// `shm_free` is what the machine has left.
    pub(crate) const MACHINES: u64 = 0;
    /// `shm_free` is what the container has left.
    pub(crate) const CONTAINERS: u64 = 1;
    /// `shm_free` is what the file system `/dev/shm` has left.
    pub(crate) const FILE_SYSTEMS: u64 = 2;
    /// As `MACHINES`; but it was the arena's own capacity that had no room, although so much is free in it.
    pub(crate) const ARENAS: u64 = 3;
    /// As `MACHINES`; there was no arena: the memory would have been the process's own.
    pub(crate) const PROCESSES: u64 = 4;

    /// A refusal of so many bytes of the process's own memory.
    pub(crate) fn private(requested: u64) -> ArenaFull {
        let memory = sys::limits::memory_available(Path::new("/"));
        ArenaFull {
            requested,
            free: memory.available,
            capacity: memory.limit,
            largest_free: memory.available,
            shm_free: memory.available,
            whose: Self::PROCESSES,
        }
    }

    /// The limit of the system that was in the way; `None` where it was the arena's own capacity. That may be so although
    /// [`largest_free`](ArenaFull::largest_free) says that there is room: the capacity counts what is committed, which is
    /// 64 KiB at least at a time, so small arrays in many places take more of it than they hold.
    ///
    /// ```
    /// use arenite::arena::{Arena, Limit, Placement, Spec};
    ///
    /// let arena = Arena::create(&Spec { capacity: 1 << 20, ..Spec::default() })?;
    /// let full = arena.alloc(0, 2 << 20, Placement::Packed).unwrap_err();
    /// assert_eq!(full.limit(), None);
    /// # Ok::<(), arenite::arena::ArenaError>(())
    /// ```
    pub fn limit(&self) -> Option<Limit> {
        let fits = self.requested <= self.largest_free.min(self.free).min(self.capacity);
        match self.whose {
            // Memory that there is, and that this process may not have.
            Self::PROCESSES if fits => Some(Limit::AddressSpace),
            Self::PROCESSES => Some(Limit::Machine),
            Self::ARENAS => None,
            _ if !fits => None,
            Self::CONTAINERS => Some(Limit::Container),
            Self::FILE_SYSTEMS => Some(Limit::DevShm),
            _ => Some(Limit::Machine),
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
            whose,
        } = *self;
        if whose == Self::PROCESSES {
            return write!(
                f,
                "there is no memory: requested {requested}, left {shm_free} of {capacity} bytes; {}",
                match self.limit() {
                    Some(Limit::AddressSpace) =>
                        "this process may not have more: raise its limits (`ulimit -v`, `ulimit -d`)",
                    _ => "ask for less, or stop other programs",
                }
            );
        }
        write!(
            f,
            "the arena is full: requested {requested}, free {free}, capacity {capacity}, largest free run \
             {largest_free}, left in shared memory {shm_free} bytes; "
        )?;
        let todo = if requested > capacity {
            "raise the capacity"
        } else if requested > free {
            "drop arrays that are no longer needed, or raise the capacity"
        } else if requested > largest_free {
            "the free memory is in pieces: drop neighbouring arrays, or raise the capacity"
        } else {
            match self.limit() {
                Some(Limit::DevShm) => {
                    "/dev/shm is full: mount a larger /dev/shm, or use a backing without names"
                }
                Some(Limit::Container) if requested <= shm_free => {
                    "the container has so much, and keeps some of it free, so that the kernel need not kill: raise its limit, or \
                     lower what else runs in it"
                }
                Some(Limit::Container) => {
                    "the container has no more memory for it: raise its limit, or lower what else runs in it"
                }
                Some(Limit::Machine) if requested <= shm_free => {
                    "the machine has so much, and keeps some of it free, so that the kernel need not kill: stop other programs"
                }
                None => {
                    "all of the capacity is committed, beside small arrays in many places: drop arrays that are no longer \
                     needed, or raise the capacity"
                }
                _ => "the machine has no more memory for it: stop other programs",
            }
        };
        f.write_str(todo)
    }
}

impl std::error::Error for ArenaFull {}

debug_as_text!(ArenaFull, ArenaError);

/// Which limit an arena does not fit into.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Limit {
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

/// An arena could not be made or attached to.
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
        limit: Limit,
        /// The largest capacity that would do, in bytes.
        largest: u64,
    },
    /// An arena of this name is in use.
    NameTaken {
        /// The name.
        name: String,
    },
    /// A name that cannot be one.
    BadName {
        /// The name.
        name: String,
    },
    /// What was asked for does not exist here.
    Unsupported {
        /// A sentence about it.
        what: String,
    },
    /// There is no arena to attach to.
    Absent {
        /// What was looked for.
        what: String,
    },
    /// The arena is being made right now.
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
        /// Its length in bytes.
        len: u64,
        /// The length it must have.
        expected: u64,
    },
    /// The system refused.
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
                    Limit::DevShm => (
                        "/dev/shm has",
                        "mount a larger one (`mount -o remount,size=…`, `docker run --shm-size=…`), or use a backing \
                         without names",
                    ),
                    Limit::Container => ("the memory limit of this container", "raise that limit"),
                    Limit::Machine => ("the memory of this machine", "add memory"),
                    Limit::AddressSpace => (
                        "the address space allows (RLIMIT_AS; each process maps each region, workers twice)",
                        "raise it (`ulimit -v unlimited`), use fewer workers",
                    ),
                    Limit::FileSize => (
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
                "the {segment} segment is {len} bytes long instead of {expected}: something has cut it"
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
    fn a_refusal_says_whose_memory_it_was() {
        let full = |whose, shm_free| {
            let requested = 1000;
            let (free, capacity, largest_free) = (5000, 9000, 5000);
            let full = ArenaFull {
                requested,
                free,
                capacity,
                largest_free,
                shm_free,
                whose,
            };
            full.to_string()
        };
        for (whose, shm_free, expected) in [
            (ArenaFull::CONTAINERS, 999, "container has no more"),
            (
                ArenaFull::CONTAINERS,
                1000,
                "container has so much, and keeps",
            ),
            (ArenaFull::MACHINES, 999, "machine has no more"),
            (ArenaFull::MACHINES, 1000, "machine has so much, and keeps"),
            (ArenaFull::FILE_SYSTEMS, 999, "/dev/shm is full"),
            (ArenaFull::ARENAS, 1000, "all of the capacity"),
        ] {
            let said = full(whose, shm_free);
            assert!(said.contains(expected), "{said}");
        }
    }
}
