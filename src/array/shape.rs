//! Shapes of arrays.

use std::fmt;
use std::ops::Index;

use crate::sys::debug_as_text;

/// Maximum number of dimensions of an array.
pub const MAX_DIMS: usize = 6;

/// The shape of an array: one to six extents, the leading (slowest) axis first.
///
/// Constructors take anything that converts into a shape: a number, an array or a tuple of numbers.
///
/// ```
/// use arenite::array::Shape;
///
/// assert_eq!(Shape::from(12).dims(), [12]);
/// assert_eq!(Shape::from([1024, 768, 3]), Shape::from((1024, 768, 3)));
/// assert_eq!(Shape::from([1024, 768, 3]).to_string(), "1024x768x3");
/// assert_eq!(Shape::from([1024, 768, 3])[1], 768);
/// assert_eq!(Shape::from([4, 0]).len(), Some(0));
/// assert_eq!(Shape::from([usize::MAX, 2]).len(), None);
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    // Axes beyond `rank` have extent 1, so that the derived comparison and the products need not check the rank.
    dims: [usize; MAX_DIMS],
    rank: u8,
}

impl Shape {
    /// The extents, the leading axis first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank()]
    }

    /// Number of axes, 1 to 6.
    pub(crate) fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    /// Extent of the leading axis.
    pub fn rows(&self) -> usize {
        self.dims[0]
    }

    /// Number of elements, or `None` if the product of the nonzero extents overflows `usize`: every stride must fit,
    /// even if there are no elements.
    pub fn len(&self) -> Option<usize> {
        let product = self.nonzero_product()?;
        Some(if self.is_empty() { 0 } else { product })
    }

    /// Whether an extent is 0, so that there are no elements.
    pub fn is_empty(&self) -> bool {
        self.dims.contains(&0)
    }

    /// Number of elements per row (one step along the leading axis), counted like [`len`](Shape::len).
    pub fn row_len(&self) -> Option<usize> {
        self.with_rows(1).len()
    }

    /// Size in bytes with elements of type `T`, or `None` if it exceeds the maximum size of an object (`isize::MAX`).
    pub(crate) fn bytes<T>(&self) -> Option<usize> {
        // Zero-sized elements and extents of 0 count as 1 here, so that every stride is in bounds too.
        let most = self.nonzero_product()?.checked_mul(size_of::<T>().max(1))?;
        isize::try_from(most).ok()?;
        Some(if self.is_empty() || size_of::<T>() == 0 {
            0
        } else {
            most
        })
    }

    /// The same shape with another leading extent.
    #[must_use]
    pub(crate) fn with_rows(mut self, rows: usize) -> Shape {
        self.dims[0] = rows;
        self
    }

    /// The shape of one row. The leading axis is dropped; a one-dimensional shape keeps it with extent 1.
    pub(crate) fn row(&self) -> Shape {
        if self.rank == 1 {
            return self.with_rows(1);
        }
        let mut dims = [1; MAX_DIMS];
        dims[..MAX_DIMS - 1].copy_from_slice(&self.dims[1..]);
        Shape {
            dims,
            rank: self.rank - 1,
        }
    }

    fn nonzero_product(&self) -> Option<usize> {
        self.dims
            .iter()
            .filter(|&&extent| extent != 0)
            .try_fold(1_usize, |product, &extent| product.checked_mul(extent))
    }

    fn from_dims(given: &[usize]) -> Shape {
        let mut dims = [1; MAX_DIMS];
        dims[..given.len()].copy_from_slice(given);
        Shape {
            dims,
            // At most MAX_DIMS: the slice index above panics otherwise.
            rank: given.len() as u8,
        }
    }
}

/// The extent of an axis. Panics if the axis does not exist.
impl Index<usize> for Shape {
    type Output = usize;

    fn index(&self, axis: usize) -> &usize {
        &self.dims()[axis]
    }
}

impl From<usize> for Shape {
    fn from(len: usize) -> Shape {
        Shape::from_dims(&[len])
    }
}

macro_rules! from_fixed {
    ($($rank:literal ($($tuple:ident)+);)+) => {$(
        impl From<[usize; $rank]> for Shape {
            fn from(dims: [usize; $rank]) -> Shape {
                Shape::from_dims(&dims)
            }
        }

        impl From<from_fixed!(@tuple $($tuple)+)> for Shape {
            fn from(($($tuple,)+): from_fixed!(@tuple $($tuple)+)) -> Shape {
                Shape::from_dims(&[$($tuple),+])
            }
        }
    )+};
    (@tuple $($tuple:ident)+) => { ($(from_fixed!(@usize $tuple),)+) };
    (@usize $tuple:ident) => { usize };
}

from_fixed! {
    1 (a);
    2 (a b);
    3 (a b c);
    4 (a b c d);
    5 (a b c d e);
    6 (a b c d e f);
}

impl TryFrom<&[usize]> for Shape {
    type Error = ShapeError;

    fn try_from(dims: &[usize]) -> Result<Shape, ShapeError> {
        match dims.len() {
            1..=MAX_DIMS => Ok(Shape::from_dims(dims)),
            rank => Err(ShapeError::Rank(rank)),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (axis, extent) in self.dims().iter().enumerate() {
            if axis > 0 {
                f.write_str("x")?;
            }
            write!(f, "{extent}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shape({self})")
    }
}

/// A shape that an array cannot have.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShapeError {
    /// The number of dimensions is not between one and six.
    Rank(usize),
    /// The requested shape has another number of elements than the array.
    Elements {
        /// The array's shape.
        from: Box<Shape>,
        /// The requested shape.
        to: Box<Shape>,
    },
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShapeError::Rank(rank) => write!(
                f,
                "{rank} dimensions: a shape has 1 to {MAX_DIMS}, so flatten or split the array"
            ),
            ShapeError::Elements { from, to } => write!(
                f,
                "an array of shape {from} cannot be reshaped to {to}: the number of elements differs"
            ),
        }
    }
}

impl std::error::Error for ShapeError {}

debug_as_text!(ShapeError);
