//! `ndarray` in kernels and callers.

use arenite::array::ShapeError;
use arenite::{Array, InputError};

use crate::harness::{Calls, Lab, tests};

tests![any_order_is_converted_and_back];

fn any_order_is_converted_and_back() {
    /// Sums each row in the worker, through a view.
    fn sums(table: &Array<u32>) -> Array<u32> {
        let rows = table.view().sum_axis(ndarray::Axis(1));
        Array::from_slice(rows.as_slice().expect("one row after the other"))
    }
    let lab = Lab::balanced(2);
    let table =
        ndarray::Array2::from_shape_fn((300, 7), |(row, column)| (row * 10 + column) as u32);
    let whole = lab.from_ndarray(&table).unwrap();
    assert_eq!(whole.shape().dims(), [300, 7]);
    assert_eq!(whole.view(), table.view().into_dyn());
    // Column-major, strided, reversed, and empty.
    let odd = table.slice(ndarray::s![..;-3, 1..;2]).reversed_axes();
    let odd_here = lab.from_ndarray(&odd).unwrap();
    assert_eq!(odd_here.view(), odd.view().into_dyn());
    let none = lab
        .from_ndarray(&table.slice(ndarray::s![..0, ..]))
        .unwrap();
    assert_eq!(none.shape().dims(), [0, 7]);
    for (array, table) in [
        (&whole, table.view().into_dyn()),
        (&odd_here, odd.into_dyn()),
    ] {
        let expected = table.sum_axis(ndarray::Axis(1));
        let found = lab.value_of(sums, (array,));
        assert_eq!(found[..], *expected.as_slice().unwrap());
    }
    let deep = ndarray::ArrayD::<u8>::zeros(vec![1; 7]);
    let refused = lab.from_ndarray(&deep).unwrap_err();
    assert!(
        matches!(refused, InputError::Shape(ShapeError::Rank(7))),
        "{refused}"
    );
}
