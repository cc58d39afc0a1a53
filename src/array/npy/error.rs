//! Errors of `.npy` files.

use std::fmt;
use std::io;

use super::{AllocError, Shape};
use crate::arena::ArenaFull;
use crate::sys::debug_as_text;

/// Why an array could not be read from, mapped from or written to a `.npy` file.
#[non_exhaustive]
pub enum NpyError {
    /// Reading or writing failed.
    Io(io::Error),
    /// The first bytes are not those of a `.npy` file.
    NotNpy,
    /// A format version that is not 1, 2 or 3.
    Version {
        /// The major version in the file.
        major: u8,
        /// The minor version in the file.
        minor: u8,
    },
    /// The header is damaged.
    Header {
        /// What is wrong.
        problem: &'static str,
        /// The position of the damage, in bytes from the start of the file.
        at: u64,
    },
    /// The elements are stored in column-major order.
    FortranOrder,
    /// The numbers are stored in big-endian byte order.
    BigEndian {
        /// NumPy's name of the type.
        descr: String,
    },
    /// The elements have another type than requested.
    Dtype {
        /// NumPy's name of the type in the file.
        found: String,
        /// NumPy's name of the requested type.
        expected: &'static str,
    },
    /// The elements are records with several fields.
    Records,
    /// The array has more dimensions than the maximum of a [`Shape`].
    Rank {
        /// The number of dimensions in the file.
        rank: usize,
    },
    /// The array does not fit the address space.
    TooLarge {
        /// The shape of the array.
        shape: Shape,
    },
    /// The arena has no room for the array that a kernel reads.
    ArenaFull(ArenaFull),
    /// The system has no memory for the array.
    OutOfMemory {
        /// Size of the array in bytes.
        bytes: u64,
    },
    /// The file ends before the array does.
    Truncated {
        /// Size of the array in bytes.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// The length of the slice differs from the number of elements of the shape.
    Length {
        /// The shape.
        shape: Shape,
        /// Length of the slice in elements.
        given: usize,
    },
    /// The array does not have the rows that were asked for.
    Rows {
        /// The rows asked for, and the number of rows.
        problem: String,
    },
    /// The elements are not aligned in the file, so they cannot be mapped.
    Misaligned {
        /// Offset of the first element from the start of the file, in bytes.
        offset: u64,
        /// Required alignment in bytes.
        align: usize,
    },
}

impl fmt::Display for NpyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NpyError::Io(error) => write!(f, "{error}"),
            NpyError::NotNpy => f.write_str("not a .npy file: it does not start with \\x93NUMPY"),
            NpyError::Version { major, minor } => write!(
                f,
                "version {major}.{minor} of the .npy format: only 1.0, 2.0 and 3.0 are known"
            ),
            NpyError::Header { problem, at } => {
                write!(f, "the .npy header is damaged at byte {at}: {problem}")
            }
            NpyError::FortranOrder => f.write_str(
                "the array is stored in column-major order (fortran_order): store it with \
                 numpy.ascontiguousarray(a)",
            ),
            NpyError::BigEndian { descr } => write!(
                f,
                "the numbers are stored big-endian ('{}'): store them with a.astype(a.dtype.newbyteorder('<'))",
                descr.escape_debug()
            ),
            NpyError::Dtype { found, expected } => write!(
                f,
                "the elements are of type '{}', not '{expected}'",
                found.escape_debug()
            ),
            NpyError::Records => f.write_str(
                "the elements are records of several fields, not numbers: store each field as an array",
            ),
            NpyError::Rank { rank } => write!(
                f,
                "the array has {rank} dimensions, and at most {} are supported",
                crate::array::MAX_DIMS
            ),
            NpyError::TooLarge { shape } => {
                write!(
                    f,
                    "an array of shape {shape} does not fit the address space"
                )
            }
            NpyError::ArenaFull(full) => write!(f, "{full}"),
            NpyError::OutOfMemory { bytes } => write!(
                f,
                "there is no memory for the array of {bytes} bytes: map the file instead of reading it"
            ),
            NpyError::Truncated { expected, found } => write!(
                f,
                "the array has {expected} bytes, but the file holds only {found}"
            ),
            NpyError::Length { shape, given } => write!(
                f,
                "the shape {shape} does not match a slice of {given} elements"
            ),
            NpyError::Rows { problem } => write!(f, "there are no such rows in the file: {problem}"),
            NpyError::Misaligned { offset, align } => write!(
                f,
                "the elements start at byte {offset} of the file, which is not a multiple of {align}: read the file \
                 instead of mapping it"
            ),
        }
    }
}

debug_as_text!(NpyError);

impl std::error::Error for NpyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            NpyError::Io(error) => error.source(),
            _ => None,
        }
    }
}

impl From<AllocError> for NpyError {
    fn from(why: AllocError) -> NpyError {
        match why {
            AllocError::Arena(full) => NpyError::ArenaFull(full),
            AllocError::System { bytes } => NpyError::OutOfMemory { bytes },
        }
    }
}

impl From<io::Error> for NpyError {
    fn from(error: io::Error) -> NpyError {
        NpyError::Io(error)
    }
}
