//! Arrays: typed, shaped handles to memory in the arena, in a worker's lane, in a mapped file or on the heap, with the
//! same interface everywhere.
//!
//! | type | meaning | like |
//! |---|---|---|
//! | [`Array<T>`] | sealed, immutable, reference-counted; any number of jobs may read it | `Arc<[T]>` with a shape |
//! | [`ArrayMut<T>`] | exclusive; moves into a job and comes back as part of its result | `Box<[T]>` with a shape |
//! | [`TileMut<'s, T>`] | an exclusive part of an `ArrayMut` along its leading axis | an item of `chunks_mut` |
//!
//! Elements are plain old data ([`Element`]). Arrays are row-major and contiguous, with one to six dimensions
//! ([`Shape`]). All three types dereference to slices of their elements.
//!
//! Inside a kernel the constructors allocate in the worker's part of the arena, elsewhere on the heap. So a kernel can
//! be tested as the plain function it is:
//!
//! ```
//! use arenite::array::{Array, ArrayMut};
//!
//! fn brighten(pixels: &Array<u8>, by: u8) -> Array<u8> {
//!     let mut out = ArrayMut::zeros(pixels.shape());
//!     for (to, from) in out.iter_mut().zip(pixels.iter()) {
//!         *to = from.saturating_add(by);
//!     }
//!     out.seal()
//! }
//!
//! let pixels = Array::from_slice(&[1, 100, 250]);
//! assert_eq!(brighten(&pixels, 10)[..], [11, 110, 255]);
//! ```
//!
//! # Where references come from
//!
//! A `&[T]` or `&mut [T]` exists only while no other process may write the elements. Each kind of handle stands for a
//! state in which that is true:
//!
//! - *private*: no other process maps the memory;
//! - *owned block* (`ArrayMut` in the supervisor): this process alone has the block, and no job has it;
//! - *sealed block* (`Array` in the supervisor): no process writes it until the last handle, including leases of
//!   running jobs, is gone;
//! - *parameter* (in a kernel): the supervisor has a lease for the job; during the lease no process writes;
//! - *fresh chunk, moved window* (in a kernel): granted to this lane alone, or moved into its job. Once any part of it
//!   is *published* (sent in a reply), no handle to it becomes exclusive again: the lane does not know the handles in
//!   other processes, which the supervisor counts;
//! - *lent tile, lent bytes* (in a kernel): lent to this job alone until it ends;
//! - *loan* (in a kernel that runs inline): the lender of the memory guarantees it ([`raw`](crate::raw));
//! - *sealed file*: a memory file that no process can write or truncate any more ([`Array::map_sealed`]);
//! - *leased file*: a part of a memory file that its owner does not write during the lease
//!   ([`raw::memory`](crate::raw::memory));
//! - *mapped file*: the caller that maps it guarantees that the file does not change ([`npy::map`]).

#[cfg(test)]
mod block_tests;
mod exclusive;
mod index;
pub(crate) mod lane;
mod memory;
mod memory_file;
#[cfg(feature = "ndarray")]
pub(crate) mod nd;
pub mod npy;
mod partitions;
mod private_map;
mod sealed;
mod sealed_file;
mod shape;
mod show;
#[cfg(test)]
mod tests;
mod tile;

pub use exclusive::ArrayMut;
pub(crate) use exclusive::ArrayMutLocation;
pub(crate) use exclusive::check_count;
pub use index::ArrayIndex;
pub(crate) use lane::{LaneChunk, LaneCount, LaneMemory};
pub(crate) use memory::AllocError;
pub use memory_file::MemoryFile;
// For bindings, by `raw::memory`.
#[doc(hidden)]
pub use private_map::PrivateMap;
pub use sealed::Array;
pub(crate) use sealed::ArrayLocation;
pub(crate) use sealed_file::FileName;
pub use sealed_file::MapError;
#[doc(hidden)]
pub use sealed_file::SealedFile;
pub use shape::{MAX_DIMS, Shape, ShapeError};
pub use tile::TileMut;
pub(crate) use tile::TilesMut;

/// Types that an array can hold: plain old data, valid in every bit pattern, without padding and pointers.
///
/// Implemented for everything that is [`bytemuck::Pod`], `Send`, `Sync` and `'static`; derive `Pod` for your own types.
/// Alignments of up to 64 bytes are supported.
///
/// A `String` points into the memory of one process, so it is rejected:
///
/// ```compile_fail,E0277
/// use arenite::array::Array;
///
/// let words = Array::from_slice(&[String::from("a"), String::from("b")]);
/// ```
///
/// A type aligned to more than 64 bytes fails when the program is built:
///
/// ```compile_fail,E0080
/// #[derive(Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
/// #[repr(C, align(128))]
/// struct Wide([u8; 128]);
///
/// let wide = arenite::array::Array::<Wide>::zeros(1);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an element of an array",
    label = "not plain data of any bit pattern",
    note = "elements are numbers, arrays of numbers, and types of your own that derive `bytemuck::Pod`",
    note = "for `bool` use `u8`; for texts, one `u8` array of all texts and one `usize` array of their ends"
)]
pub trait Element: bytemuck::Pod + Send + Sync + 'static {}

impl<T: bytemuck::Pod + Send + Sync + 'static> Element for T {}
