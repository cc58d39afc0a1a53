//! NumPy's `.npy` files: reading into memory, mapping without a copy, writing; as a whole or by rows ([`read_rows`],
//! [`Writer`]).
//!
//! Reads format versions 1 to 3 and writes version 1. The element type of the file must be that of the array
//! ([`Dtype`]); nothing is converted. Files in column-major order (`fortran_order`) and with big-endian numbers are
//! rejected with an error that says how to store the array instead. Column-major order is accepted if both orders store
//! the array alike: at most one extent is above 1, or there are no elements. An array without dimensions (a NumPy
//! scalar) gets the shape 1.
//!
//! Files are not trusted: the header is checked before anything is allocated, and an array is allocated only if the
//! file is long enough. A sparse file can be larger than memory, which is an error too. Bytes after the array are
//! ignored, as in NumPy.
//!
//! ```
//! use arenite::array::{Array, npy};
//!
//! # let dir = tempfile::tempdir()?;
//! let path = dir.path().join("table.npy");
//! let table = Array::from_fn([2, 3], |i| i as f64);
//! npy::write(&path, &table)?;
//! assert_eq!(npy::read::<f64>(&path)?, table);
//! assert!(npy::read::<i64>(&path).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod header;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::RangeBounds;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::Mmap;

pub use error::NpyError;
pub use header::{Header, encode_header};
pub use writer::Writer;

use super::memory::{self, SealedMemory};
use super::sealed::checked_rows;
use super::{AllocError, Array, ArrayMut, Element, Shape};

/// Element types of `.npy` files: integers of 8 to 64 bits, `f32` and `f64`.
///
/// `u8` also reads NumPy's booleans (0 and 1).
pub trait Dtype: Element + sealed::Sealed {
    /// NumPy's name of the type, without the byte order: kind and size in bytes, such as `f4`.
    const NAME: &'static str;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! numbers {
    ($($number:ty = $name:literal),+ $(,)?) => {$(
        impl sealed::Sealed for $number {}
        impl Dtype for $number {
            const NAME: &'static str = $name;
        }
    )+};
}

numbers! {
    u8 = "u1", u16 = "u2", u32 = "u4", u64 = "u8",
    i8 = "i1", i16 = "i2", i32 = "i4", i64 = "i8",
    f32 = "f4", f64 = "f8",
}

/// Maximum length of the header text in bytes. The text for an array of numbers has about 100 bytes.
const MAX_TEXT: usize = 64 << 10;

// Headers are written with `<` (little-endian), and elements are read without conversion.
const _: () = assert!(cfg!(target_endian = "little"));

/// Reads the array in the file at `path` into memory (inside a kernel, into the arena).
///
/// # Errors
///
/// [`NpyError`] if the file cannot be read, is damaged, or does not hold an array of `T`. [`NpyError::OutOfMemory`]
/// (inside a kernel [`NpyError::ArenaFull`]) if there is no memory for the array.
pub fn read<T: Dtype>(path: impl AsRef<Path>) -> Result<Array<T>, NpyError> {
    read_rows(path, ..)
}

/// Reads the rows `rows`, along the leading axis, of the array in the file at `path`. Only these rows are read and take
/// memory.
///
/// ```
/// use arenite::array::{Array, npy};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("table.npy");
/// let table = Array::from_fn([1000, 3], |i| i as f64);
/// npy::write(&path, &table)?;
/// let part = npy::read_rows::<f64>(&path, 500..502)?;
/// assert_eq!(part, table.rows(500..502));
/// assert!(npy::read_rows::<f64>(&path, 999..1001).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`read`]; [`NpyError::Rows`] if the array has fewer rows.
pub fn read_rows<T: Dtype>(
    path: impl AsRef<Path>,
    rows: impl RangeBounds<usize>,
) -> Result<Array<T>, NpyError> {
    let (header, file) = open_rows::<T>(path.as_ref(), rows)?;
    let mut array = ArrayMut::to_read(header.shape())?;
    read_into(&header, file, &mut array)?;
    Ok(array.seal())
}

/// Reads the elements that follow `header` from `reader` directly into `out`.
///
/// ```
/// use arenite::array::{Array, ArrayMut, npy};
///
/// let mut file = Vec::new();
/// npy::write_to(&mut file, [2, 2], &[1_i32, 2, 3, 4])?;
///
/// let mut reader = file.as_slice();
/// let header = npy::Header::read(&mut reader)?;
/// header.check::<i32>()?;
/// let mut array = ArrayMut::<i32>::zeros(header.shape());
/// npy::read_into(&header, reader, &mut array)?;
/// assert_eq!(array.row(1), [3, 4]);
/// # Ok::<(), npy::NpyError>(())
/// ```
///
/// # Errors
///
/// [`NpyError`] if the header does not describe an array of `T`, if `out` has another length than that array, or if
/// `reader` fails or ends early. In the last case `out` is partly overwritten.
pub fn read_into<T: Dtype>(
    header: &Header,
    mut reader: impl Read,
    out: &mut [T],
) -> Result<(), NpyError> {
    header.check::<T>()?;
    if header.shape().len() != Some(out.len()) {
        return Err(NpyError::Length {
            shape: header.shape(),
            given: out.len(),
        });
    }
    let out: &mut [u8] = bytemuck::must_cast_slice_mut(out);
    let mut done = 0;
    while done < out.len() {
        match reader.read(&mut out[done..]) {
            Ok(0) => {
                return Err(NpyError::Truncated {
                    expected: out.len() as u64,
                    found: done as u64,
                });
            }
            Ok(some) => done += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Maps the array in the file at `path`, without reading or copying it; it may be larger than memory.
///
/// Submitting the array to a worker copies it to the arena. If it is larger than the arena, or jobs read only parts of
/// it, pass the path and let the kernel map the file (not in a sandboxed worker, which opens no files).
///
/// # Safety
///
/// Until the array and all its clones and sub-arrays are gone, no process, including this one, may write to the file or
/// truncate it. Otherwise elements change while a shared reference to them exists, or the process is killed by SIGBUS.
/// (Replacing the file by renaming another one over it is fine.)
///
/// # Errors
///
/// [`NpyError`] if the file cannot be read or mapped, is damaged, or does not hold an array of `T`.
/// [`NpyError::Misaligned`] if the elements in the file are not aligned for `T`; use [`read`] then.
///
/// ```
/// use arenite::array::{Array, npy};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("table.npy");
/// npy::write(&path, &Array::from_slice(&[1_u16, 2, 3]))?;
/// // SAFETY: the file is in a directory of this program, and nothing writes to it.
/// let mapped = unsafe { npy::map::<u16>(&path)? };
/// assert_eq!(mapped[..], [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub unsafe fn map<T: Dtype>(path: impl AsRef<Path>) -> Result<Array<T>, NpyError> {
    let (header, file) = open::<T>(path.as_ref())?;
    // SAFETY: the caller guarantees that no process changes the file while the array lives; the array owns the map.
    let map = unsafe { Mmap::map(&file)? };
    // The file may have become shorter since `open` compared its length with that of the array: check the length of the
    // map.
    let shape = header.shape();
    let bytes = memory::bytes_of::<T>(&shape);
    let data = usize::try_from(header.data_offset())
        .ok()
        .and_then(|offset| map.get(offset..)?.get(..bytes))
        .ok_or(NpyError::Truncated {
            expected: bytes as u64,
            found: (map.len() as u64).saturating_sub(header.data_offset()),
        })?;
    let start = NonNull::from(data).cast::<u8>();
    if bytes > 0 && !start.cast::<T>().is_aligned() {
        return Err(NpyError::Misaligned {
            offset: header.data_offset(),
            align: align_of::<T>(),
        });
    }
    Ok(Array::assemble(
        memory::first_element(start, bytes),
        shape,
        memory::len_of(&shape),
        SealedMemory::Mapped(Arc::new(map)),
    ))
}

/// Writes `array` to a file at `path`, which is replaced if it exists.
///
/// # Errors
///
/// [`NpyError::Io`] if the file cannot be written. A part of it may exist then.
///
/// ```
/// use arenite::array::{Array, npy};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("ramp.npy");
/// npy::write(&path, &Array::from_fn([2, 2], |i| i as u8))?;
/// assert_eq!(npy::read::<u8>(&path)?[..], [0, 1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write<T: Dtype>(path: impl AsRef<Path>, array: &Array<T>) -> Result<(), NpyError> {
    let mut file = File::create(path)?;
    write_to(&mut file, array.shape(), array)
}

/// Writes the header and `elements`, in the given shape, to `writer`.
///
/// # Errors
///
/// [`NpyError::Length`] if `shape` has another number of elements than `elements`; [`NpyError::Io`] if `writer` fails.
pub fn write_to<T: Dtype>(
    writer: impl Write,
    shape: impl Into<Shape>,
    elements: &[T],
) -> Result<(), NpyError> {
    let shape = shape.into();
    if shape.len() != Some(elements.len()) {
        return Err(NpyError::Length {
            shape,
            given: elements.len(),
        });
    }
    let mut writer = BufWriter::new(writer);
    writer.write_all(&header::encode::<T>(&shape))?;
    writer.write_all(bytemuck::must_cast_slice(elements))?;
    writer.flush()?;
    Ok(())
}

/// Opens a file as [`open`] does. The file is then positioned at the first of these rows, and the header describes an
/// array of these rows alone.
pub(crate) fn open_rows<T: Dtype>(
    path: &Path,
    rows: impl RangeBounds<usize>,
) -> Result<(Header, File), NpyError> {
    let (mut header, mut file) = open::<T>(path)?;
    let rows =
        checked_rows(rows, header.shape().rows()).map_err(|problem| NpyError::Rows { problem })?;
    let before = memory::bytes_of::<T>(&header.shape().with_rows(rows.start));
    file.seek(SeekFrom::Start(header.data_offset() + before as u64))?;
    header.keep_rows(rows.len());
    Ok((header, file))
}

/// Opens a file and checks that it contains a whole array of `T`. The file is then positioned at the first element.
pub(crate) fn open<T: Dtype>(path: &Path) -> Result<(Header, File), NpyError> {
    // Non-blocking, because opening a pipe would wait for its other end.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(NpyError::Io(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not a regular file", path.display()),
        )));
    }
    let mut reader = io::BufReader::with_capacity(512, file);
    let header = Header::read(&mut reader)?;
    let expected = header.check::<T>()?;
    let found = metadata.len().saturating_sub(header.data_offset());
    if found < expected {
        return Err(NpyError::Truncated { expected, found });
    }
    let mut file = reader.into_inner();
    file.seek(SeekFrom::Start(header.data_offset()))?;
    Ok((header, file))
}
