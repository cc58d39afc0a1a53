//! Whole arrays by one call.

use arenite::{Array, ArrayMut, JobErrorKind};

use crate::harness::{Lab, tests};

tests![
    a_million_squares,
    another_type_and_many_dimensions,
    in_place,
    nothing_at_all,
    rows_of_odd_sizes,
    a_chunk_that_fails,
    foreign_arrays,
    no_room_for_the_result,
];

fn a_million_squares() {
    let lab = Lab::new(2);
    let numbers = lab.from_fn(1_000_000, |i| i as i64).unwrap();
    let squares = lab.par_map(&numbers, |x| x * x).unwrap();
    assert!(squares.iter().zip(0..).all(|(&x, n)| x == n * n));
    let chunked = lab
        .par_apply(&numbers, |from: &[i64], to: &mut [i64]| {
            from.iter().zip(to).for_each(|(x, to)| *to = x * x)
        })
        .unwrap();
    assert_eq!(squares[..], chunked[..]);
    // The result is an array like any other.
    let roots = lab.par_map(&squares, |x| x.isqrt()).unwrap();
    assert_eq!(roots[..], numbers[..]);
    drop((numbers, squares, chunked, roots));
    lab.assert_in_use(0);
}

fn another_type_and_many_dimensions() {
    let lab = Lab::new(3);
    let bytes = lab.from_fn([17, 3, 5, 7], |i| i as u8).unwrap();
    let wide = lab.par_map(&bytes, |x| f64::from(x) / 2.0).unwrap();
    assert_eq!(wide.shape(), bytes.shape());
    assert!(
        wide.iter()
            .zip(bytes.iter())
            .all(|(&a, &b)| a == f64::from(b) / 2.0)
    );
    let narrow = lab.par_map(&wide, |x| x as u16).unwrap();
    assert!(
        narrow
            .iter()
            .zip(bytes.iter())
            .all(|(&a, &b)| a == u16::from(b / 2))
    );
}

fn in_place() {
    let lab = Lab::new(2);
    let mut values = lab.zeros::<u16>([333, 1001]).unwrap();
    for _ in 0..10 {
        lab.par_apply_mut(&mut values, |part: &mut [u16]| {
            part.iter_mut().for_each(|x| *x += 3)
        })
        .unwrap();
    }
    assert!(values.iter().all(|&x| x == 30));
    drop(values);
    lab.assert_in_use(0);
}

fn nothing_at_all() {
    let lab = Lab::new(2);
    for shape in [arenite::Shape::from(0), [0, 5].into(), [5, 0].into()] {
        let empty = lab.from_fn(shape, |_| 0i64).unwrap();
        let mapped = lab.par_map(&empty, |x| x + 1).unwrap();
        assert_eq!((mapped.shape(), mapped.len()), (shape, 0));
        let mut empty = lab.zeros::<u8>(shape).unwrap();
        lab.par_apply_mut(&mut empty, |part: &mut [u8]| part.fill(1))
            .unwrap();
    }
    lab.assert_in_use(0);
}

fn rows_of_odd_sizes() {
    let lab = Lab::new(2);
    for (rows, columns) in [
        (1usize, 1_000_003usize),
        (1_000_003, 1),
        (7, 65_537),
        (4097, 129),
        (3, 1),
    ] {
        let values = lab.from_fn([rows, columns], |i| i as u32).unwrap();
        let mapped = lab.par_map(&values, |x| !x).unwrap();
        assert!(
            mapped.iter().zip(0..).all(|(&x, n)| x == !n),
            "{rows} rows of {columns}"
        );
    }
    lab.assert_in_use(0);
}

fn a_chunk_that_fails() {
    let lab = Lab::new(2);
    let values = lab.from_fn(500_000, |i| i as u32).unwrap();
    let picky = |x: u32| {
        assert_ne!(x, 400_000, "the one");
        x
    };
    let error = lab.par_map(&values, picky).unwrap_err();
    assert!(
        matches!(error.kind(), JobErrorKind::Panicked { message, .. } if message.contains("the one")),
        "{error:?}"
    );
    assert_eq!(lab.par_map(&values, |x| x).unwrap()[..], values[..]);
    drop(values);
    lab.assert_in_use(0);
}

fn foreign_arrays() {
    let lab = Lab::new(1);
    let private = Array::from_slice(&[1u8, 2]);
    assert_eq!(
        *lab.par_map(&private, |x| x).unwrap_err().kind(),
        JobErrorKind::ForeignArray
    );
    let mut private = ArrayMut::<u8>::zeros(5);
    let error = lab
        .par_apply_mut(&mut private, |part: &mut [u8]| part.fill(1))
        .unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::ForeignArray);
    assert_eq!(private[..], [0; 5]);
    lab.assert_in_use(0);
}

fn no_room_for_the_result() {
    let lab = Lab::with(1, |builder| builder.capacity(16 << 20));
    let values = lab.zeros::<u8>(2 << 20).unwrap().seal();
    let error = lab.par_map(&values, f64::from).unwrap_err();
    let JobErrorKind::ArenaFull(full) = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!((full.requested, full.capacity), (16 << 20, 16 << 20));
    assert_eq!(lab.par_map(&values, u16::from).unwrap().len(), 2 << 20);
    drop(values);
    lab.assert_in_use(0);
}
