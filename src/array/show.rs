//! How arrays look in messages.

use std::any::TypeId;
use std::fmt;

use super::{Element, Shape};

/// Arrays with at most this number of elements are shown completely.
const ALL: usize = 1000;
/// The number of rows that are shown at each end of a longer axis.
const EDGE: usize = 3;

/// Writes `Array<u8> 2x3 [[1, 2, 3], [4, 5, 6]]`: type, shape, and the elements if they are numbers. An array of more
/// than [`ALL`] elements shows the ends of each axis, as numpy does. `{:#?}` writes a line for each row, and formats
/// such as `{:.3?}` and `{:x?}` apply to the elements.
pub(super) fn debug<T: Element>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    shape: Shape,
    elements: &[T],
) -> fmt::Result {
    let path = std::any::type_name::<T>();
    let element = path.rsplit("::").next().unwrap_or(path);
    write!(f, "{name}<{element}> {shape}")?;
    macro_rules! numbers {
        ($($number:ty)+) => {$(
            if TypeId::of::<T>() == TypeId::of::<$number>() {
                let elements: &[$number] = bytemuck::cast_slice(elements);
                f.write_str(if f.alternate() { "\n" } else { " " })?;
                return axes(f, shape.dims(), elements, elements.len() > ALL, 0);
            }
        )+};
    }
    numbers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);
    Ok(())
}

fn axes<N: fmt::Debug>(
    f: &mut fmt::Formatter<'_>,
    dims: &[usize],
    elements: &[N],
    is_abbreviated: bool,
    depth: usize,
) -> fmt::Result {
    let Some((&rows, inner)) = dims.split_first() else {
        return elements[0].fmt(f);
    };
    let row_len = elements.len().checked_div(rows).unwrap_or(0);
    let row = |at: usize| &elements[at * row_len..][..row_len];
    f.write_str("[")?;
    let mut at = 0;
    while at < rows {
        if at > 0 {
            f.write_str(",")?;
            if f.alternate() && !inner.is_empty() {
                write!(f, "\n{:1$}", "", depth + 1)?;
            } else {
                f.write_str(" ")?;
            }
        }
        if is_abbreviated && at == EDGE && rows > 2 * EDGE {
            f.write_str("...")?;
            at = rows - EDGE;
            continue;
        }
        axes(f, inner, row(at), is_abbreviated, depth + 1)?;
        at += 1;
    }
    f.write_str("]")
}

#[cfg(test)]
mod tests {
    use crate::array::{Array, ArrayMut};

    #[test]
    fn elements_are_shown_as_nested_lists_with_type_and_shape() {
        let table = Array::from_fn([2, 3], |i| i as u8);
        assert_eq!(format!("{table:?}"), "Array<u8> 2x3 [[0, 1, 2], [3, 4, 5]]");
        assert_eq!(
            format!("{table:#?}"),
            "Array<u8> 2x3\n[[0, 1, 2],\n [3, 4, 5]]"
        );
        let mut half = ArrayMut::from_slice(&[0.5_f32, f32::NAN]);
        assert_eq!(format!("{half:?}"), "ArrayMut<f32> 2 [0.5, NaN]");
        assert_eq!(
            format!("{:.2?}", half.as_tile_mut()),
            "TileMut<f32> 2 [0.50, NaN]"
        );
        assert_eq!(
            format!("{:?}", Array::<i64>::zeros([2, 0])),
            "Array<i64> 2x0 [[], []]"
        );
        assert_eq!(
            format!("{:?}", Array::<[u8; 2]>::zeros(4)),
            "Array<[u8; 2]> 4"
        );
    }

    #[test]
    fn long_axes_are_abbreviated_as_numpy_does() {
        // str(numpy.arange(1001)), str(numpy.arange(2000).reshape(1000, 2)), without line breaks and with commas.
        let line = Array::from_fn(1001, |i| i);
        assert_eq!(
            format!("{line:?}"),
            "Array<usize> 1001 [0, 1, 2, ..., 998, 999, 1000]"
        );
        let table = Array::from_fn([1000, 2], |i| i);
        assert_eq!(
            format!("{table:?}"),
            "Array<usize> 1000x2 [[0, 1], [2, 3], [4, 5], ..., [1994, 1995], [1996, 1997], [1998, 1999]]"
        );
        let whole = format!("{:?}", Array::from_fn(1000, |i| i));
        assert!(
            whole.ends_with("998, 999]") && !whole.contains("..."),
            "{whole}"
        );
    }
}
