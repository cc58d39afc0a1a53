//! Conversions to and from `ndarray`.

use std::sync::{Mutex, PoisonError};

use ndarray::{
    ArrayBase, ArrayViewD, ArrayViewMutD, Axis, Data, Dimension, Ix0, Ix1, Ix2, Ix3, Ix4, Ix5, Ix6,
    IxDyn,
};

use super::ShapeError;
use super::{Array, ArrayMut, Element, Shape, TileMut};
use crate::sys::limits::cores;

const FITS: &str = "the shape was checked when the array was made";

impl<T: Element> Array<T> {
    /// Views the array as an `ndarray`, without copying.
    ///
    /// ```
    /// use arenite::array::Array;
    /// use ndarray::Axis;
    ///
    /// let table = Array::from_fn([3, 4], |i| i as f64);
    /// let sums = table.view().sum_axis(Axis(0));
    /// assert_eq!(Array::from(sums.into_dimensionality::<ndarray::Ix1>()?)[..], [12., 15., 18., 21.]);
    /// # Ok::<(), ndarray::ShapeError>(())
    /// ```
    pub fn view(&self) -> ArrayViewD<'_, T> {
        ArrayViewD::from_shape(self.shape().dims(), self).expect(FITS)
    }
}

impl<T: Element> ArrayMut<T> {
    /// Views the array as an `ndarray`, without copying.
    pub fn view(&self) -> ArrayViewD<'_, T> {
        ArrayViewD::from_shape(self.shape().dims(), self).expect(FITS)
    }

    /// Views the array as a mutable `ndarray`, without copying.
    ///
    /// ```
    /// use arenite::array::ArrayMut;
    ///
    /// let mut table = ArrayMut::<f32>::zeros([2, 2]);
    /// table.view_mut()[[1, 0]] = 5.;
    /// assert_eq!(table[..], [0., 0., 5., 0.]);
    /// ```
    pub fn view_mut(&mut self) -> ArrayViewMutD<'_, T> {
        let shape = self.shape();
        ArrayViewMutD::from_shape(shape.dims(), self).expect(FITS)
    }
}

impl<T: Element> TileMut<'_, T> {
    /// Views the tile as an `ndarray`, without copying.
    pub fn view(&self) -> ArrayViewD<'_, T> {
        ArrayViewD::from_shape(self.shape().dims(), self).expect(FITS)
    }

    /// Views the tile as a mutable `ndarray`, without copying.
    pub fn view_mut(&mut self) -> ArrayViewMutD<'_, T> {
        let shape = self.shape();
        ArrayViewMutD::from_shape(shape.dims(), self).expect(FITS)
    }
}

/// From this number of bytes on, several threads copy, because most of the time is spent in page faults.
const SHARED_FROM: usize = 16 << 20;

/// Writes the elements in row-major order, regardless of the order of `from`, into a slice of the same length. Several
/// threads write a large array, so call this only in the program: a sandboxed worker may not start threads.
pub(crate) fn write_by_threads<T: Element, S: Data<Elem = T>, D: Dimension>(
    from: &ArrayBase<S, D>,
    to: &mut [T],
) {
    let from = from.view().into_dyn();
    let rows = from.shape().first().copied().unwrap_or(1);
    if size_of_val(to) < SHARED_FROM || rows < 2 {
        return write(&from, to);
    }
    let threads = cores().min(8);
    let rows_each = rows.div_ceil(4 * threads);
    let parts = to.chunks_mut(rows_each * (to.len() / rows));
    let parts = Mutex::new(from.axis_chunks_iter(Axis(0), rows_each).zip(parts));
    let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((from, to)) = next() {
            write(&from, to);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // If no thread can be started, this one copies everything.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

/// Writes the elements in row-major order, regardless of the order of `from`, into a slice of the same length.
pub(crate) fn write<T: Element, S: Data<Elem = T>, D: Dimension>(
    from: &ArrayBase<S, D>,
    to: &mut [T],
) {
    match from.as_slice() {
        Some(elements) => to.copy_from_slice(elements),
        None => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
    }
}

fn copy<T: Element, S: Data<Elem = T>, D: Dimension>(
    from: &ArrayBase<S, D>,
    shape: Shape,
) -> ArrayMut<T> {
    let mut copy = ArrayMut::uninit(shape);
    write(from, &mut copy);
    copy
}

macro_rules! from_dimension {
    ($($dimension:ty),+) => {$(
        /// Copies the elements in row-major order. An array without dimensions gets the shape 1.
        impl<T: Element, S: Data<Elem = T>> From<ArrayBase<S, $dimension>> for ArrayMut<T> {
            fn from(from: ArrayBase<S, $dimension>) -> ArrayMut<T> {
                let shape = shape_of(from.shape()).expect("ndarray's fixed dimensions end at 6");
                copy(&from, shape)
            }
        }

        /// Copies the elements in row-major order. An array without dimensions gets the shape 1.
        impl<T: Element, S: Data<Elem = T>> From<ArrayBase<S, $dimension>> for Array<T> {
            fn from(from: ArrayBase<S, $dimension>) -> Array<T> {
                ArrayMut::from(from).seal()
            }
        }
    )+};
}

from_dimension!(Ix0, Ix1, Ix2, Ix3, Ix4, Ix5, Ix6);

/// Copies the elements in row-major order. More than 6 dimensions are an error.
impl<T: Element, S: Data<Elem = T>> TryFrom<ArrayBase<S, IxDyn>> for ArrayMut<T> {
    type Error = ShapeError;

    fn try_from(from: ArrayBase<S, IxDyn>) -> Result<ArrayMut<T>, ShapeError> {
        let shape = shape_of(from.shape())?;
        Ok(copy(&from, shape))
    }
}

/// Copies the elements in row-major order. More than 6 dimensions are an error.
impl<T: Element, S: Data<Elem = T>> TryFrom<ArrayBase<S, IxDyn>> for Array<T> {
    type Error = ShapeError;

    fn try_from(from: ArrayBase<S, IxDyn>) -> Result<Array<T>, ShapeError> {
        ArrayMut::try_from(from).map(ArrayMut::seal)
    }
}

/// Converts the extents of an `ndarray` to a shape. No dimensions give the shape 1.
pub(crate) fn shape_of(dims: &[usize]) -> Result<Shape, ShapeError> {
    match dims {
        [] => Ok(Shape::from(1)),
        dims => Shape::try_from(dims),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_threads_write_a_large_view_as_one_does() {
        let (rows, columns) = (3 * 1024 + 7, 1024 + 5);
        let table =
            ndarray::Array2::from_shape_fn((rows, columns), |(y, x)| (y * columns + x) as u64);
        assert!(rows * columns * 8 > SHARED_FROM);
        let mut written = vec![0; rows * columns];
        write_by_threads(&table, &mut written);
        assert!(
            written
                .iter()
                .enumerate()
                .all(|(i, &value)| value == i as u64)
        );
        write_by_threads(&table.t(), &mut written);
        let transposed = |i: usize| (i % rows * columns + i / rows) as u64;
        assert!(
            written
                .iter()
                .enumerate()
                .all(|(i, &value)| value == transposed(i))
        );
    }
}
