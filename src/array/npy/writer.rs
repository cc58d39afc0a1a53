//! Writing a `.npy` file in parts.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::Path;

use super::{Dtype, NpyError, Shape, header};
use crate::array::MAX_DIMS;

/// Writes a `.npy` file row by row, without the whole array in memory and without knowing the number of rows.
///
/// ```
/// use arenite::array::{Array, npy};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("table.npy");
/// let mut writer = npy::Writer::create(&path, &[3])?;
/// for part in 0..10 {
///     // 100 rows of 3 numbers.
///     writer.write(&Array::from_fn([100, 3], |i| (part * 300 + i) as f32))?;
/// }
/// assert_eq!(writer.finish()?.dims(), [1000, 3]);
/// assert_eq!(npy::read::<f32>(&path)?[2999], 2999.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Writer<T> {
    file: BufWriter<File>,
    /// The shape, with the rows that have been written.
    shape: Shape,
    element: PhantomData<fn(T)>,
}

impl<T: Dtype> Writer<T> {
    /// Creates the file at `path`, which is replaced if it exists. `row` has the extents of one row: none for an array
    /// with one dimension. The file is an array without rows until [`finish`](Writer::finish).
    ///
    /// # Errors
    ///
    /// [`NpyError::Io`] if the file cannot be created; [`NpyError::Rank`] if `row` has more than 5 extents;
    /// [`NpyError::TooLarge`] if a row does not fit the address space.
    pub fn create(path: impl AsRef<Path>, row: &[usize]) -> Result<Writer<T>, NpyError> {
        let dims: Vec<usize> = std::iter::once(0).chain(row.iter().copied()).collect();
        let shape = match dims.len() {
            1..=MAX_DIMS => Shape::try_from(&dims[..]).expect("1 to 6 dimensions"),
            rank => return Err(NpyError::Rank { rank }),
        };
        if shape.with_rows(1).bytes::<T>().is_none() {
            return Err(NpyError::TooLarge { shape });
        }
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&header::encode_any_rows::<T>(&shape))?;
        Ok(Writer {
            file,
            shape,
            element: PhantomData,
        })
    }

    /// Appends whole rows, in row-major order.
    ///
    /// # Errors
    ///
    /// [`NpyError::Length`] if `elements` are not whole rows; [`NpyError::TooLarge`] if the array would not fit the
    /// address space: nothing is written then. [`NpyError::Io`] if the file cannot be written.
    pub fn write(&mut self, elements: &[T]) -> Result<(), NpyError> {
        let row = self.shape.with_rows(1).len().unwrap_or(0);
        let added = elements.len().checked_div(row).unwrap_or(0);
        if added * row != elements.len() {
            return Err(NpyError::Length {
                shape: self.shape.with_rows(1),
                given: elements.len(),
            });
        }
        let shape = self.shape.with_rows(self.shape.rows() + added);
        if shape.bytes::<T>().is_none() {
            return Err(NpyError::TooLarge { shape });
        }
        self.file.write_all(bytemuck::must_cast_slice(elements))?;
        self.shape = shape;
        Ok(())
    }

    /// Writes the number of rows into the file, and returns the array's shape.
    ///
    /// # Errors
    ///
    /// [`NpyError::Io`] if the file cannot be written.
    pub fn finish(mut self) -> Result<Shape, NpyError> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file
            .write_all(&header::encode_any_rows::<T>(&self.shape))?;
        self.file.flush()?;
        Ok(self.shape)
    }
}
