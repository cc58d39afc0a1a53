//! `ndarray` views of arrays, and arrays from `ndarray`'s.

use ndarray::{
    ArrayBase, ArrayViewD, ArrayViewMutD, Data, Dimension, Ix0, Ix1, Ix2, Ix3, Ix4, Ix5, Ix6, IxDyn,
};

use super::shape::BadRank;
use super::{Array, ArrayMut, Element, Shape, TileMut};

const FITS: &str = "the shape was checked when the array was made";

impl<T: Element> Array<T> {
    /// The array as an `ndarray` view, without a copy.
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
    /// The array as an `ndarray` view, without a copy.
    pub fn view(&self) -> ArrayViewD<'_, T> {
        ArrayViewD::from_shape(self.shape().dims(), self).expect(FITS)
    }

    /// The array as an `ndarray` view to change, without a copy.
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
    /// The tile as an `ndarray` view, without a copy.
    pub fn view(&self) -> ArrayViewD<'_, T> {
        ArrayViewD::from_shape(self.shape().dims(), self).expect(FITS)
    }

    /// The tile as an `ndarray` view to change, without a copy.
    pub fn view_mut(&mut self) -> ArrayViewMutD<'_, T> {
        let shape = self.shape();
        ArrayViewMutD::from_shape(shape.dims(), self).expect(FITS)
    }
}

/// Writes the elements in row-major order, whatever the order of `from`, into as many. (`ndarray`'s views are such arrays as well.)
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
        /// Copies the elements in row-major order; an array without dimensions gets the shape 1.
        impl<T: Element, S: Data<Elem = T>> From<ArrayBase<S, $dimension>> for ArrayMut<T> {
            fn from(from: ArrayBase<S, $dimension>) -> ArrayMut<T> {
                let shape = shape_of(from.shape()).expect("ndarray's fixed dimensions end at 6");
                copy(&from, shape)
            }
        }

        /// Copies the elements in row-major order; an array without dimensions gets the shape 1.
        impl<T: Element, S: Data<Elem = T>> From<ArrayBase<S, $dimension>> for Array<T> {
            fn from(from: ArrayBase<S, $dimension>) -> Array<T> {
                ArrayMut::from(from).seal()
            }
        }
    )+};
}

from_dimension!(Ix0, Ix1, Ix2, Ix3, Ix4, Ix5, Ix6);

/// Copies the elements in row-major order; refuses more than 6 dimensions.
impl<T: Element, S: Data<Elem = T>> TryFrom<ArrayBase<S, IxDyn>> for ArrayMut<T> {
    type Error = BadRank;

    fn try_from(from: ArrayBase<S, IxDyn>) -> Result<ArrayMut<T>, BadRank> {
        let shape = shape_of(from.shape())?;
        Ok(copy(&from, shape))
    }
}

/// Copies the elements in row-major order; refuses more than 6 dimensions.
impl<T: Element, S: Data<Elem = T>> TryFrom<ArrayBase<S, IxDyn>> for Array<T> {
    type Error = BadRank;

    fn try_from(from: ArrayBase<S, IxDyn>) -> Result<Array<T>, BadRank> {
        ArrayMut::try_from(from).map(ArrayMut::seal)
    }
}

/// The shape of an `ndarray`; one without dimensions has the shape 1.
pub(crate) fn shape_of(dims: &[usize]) -> Result<Shape, BadRank> {
    match dims {
        [] => Ok(Shape::from(1)),
        dims => Shape::try_from(dims),
    }
}
