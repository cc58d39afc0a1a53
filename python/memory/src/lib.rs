//! Memory for the arrays of another language, such as Python: a heap whose blocks jobs read as they were at a moment
//! ([`CowHeap`]), and copies of a job's arguments and results that are made page by page ([`PrivateCopy`]).
//!
//! The crate is built in layers: a module uses only modules above it in this list (`tests/layers.rs` checks it).
//!
//! | layer | what it is |
//! |---|---|
//! | `sync` | locks, and the points where tests kill |
//! | `pages` | pages of a map that are replaced one by one |
//! | `written` | which pages of a private map were written |
//! | `habit` | whether to search an array for written pages |
//! | `private_copy` | copy-on-write maps of arrays of an engine: [`PrivateCopy`] |
//! | `heap` | blocks of memory, and snapshots of them: [`CowHeap`] |
//!
//! # What the engine gives
//!
//! [`arenite::raw::memory`] has what this crate is built on: files ([`Segment`]), their maps ([`Map`]), what else a
//! process does around `fork`. Three of its functions reach into the engine:
//!
//! - [`SealedFile::lease`] makes arrays of a part of a memory file. Jobs hold the lease like any array; its owner
//!   learns of the end by a drop. The function is `unsafe`: the heap must not change the bytes during the lease.
//! - [`PrivateMap::of`] maps an argument or a result copy-on-write. The engine never gives out the file of an arena.
//! - In a worker, the lane remembers each [`PrivateMap`] of its job. Before the job is answered, the lane makes those
//!   that still exist independent of the arena.
//!
//! [`Segment`]: arenite::raw::memory::Segment
//! [`Map`]: arenite::raw::memory::Map
//! [`SealedFile::lease`]: arenite::raw::memory::SealedFile::lease
//! [`PrivateMap`]: arenite::raw::memory::PrivateMap
//! [`PrivateMap::of`]: arenite::raw::memory::PrivateMap::of

#[forbid(unsafe_code)]
mod habit;
mod heap;
mod pages;
mod private_copy;
#[forbid(unsafe_code)]
mod sync;
mod written;

pub use heap::CowHeap;
pub use private_copy::PrivateCopy;
