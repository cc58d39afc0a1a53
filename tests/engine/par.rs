//! Whole arrays with one call.

use arenite::{Array, ArrayMut, Engine, JobErrorKind, JobLimit, Rejection, Scalar};
use bytemuck::{CheckedBitPattern, NoUninit};
use rand::RngExt;

use crate::harness::{ABORTED, Lab, assert_kind, rejected, tests};

tests![
    another_type_and_many_dimensions,
    par_map_with_a_number,
    par_map_with_a_shared_array,
    par_map_with_texts_and_user_types,
    par_map_with_survives_a_worker,
    an_empty_array,
    rows_of_odd_sizes,
    one_long_row_is_cut,
    a_chunk_that_fails,
    foreign_arrays_are_rejected,
    a_full_arena_fails_the_result,
];

fn another_type_and_many_dimensions() {
    let lab = Lab::new(3);
    let bytes = lab.from_fn([17, 3, 5, 7], |i| i as u8).unwrap();
    let wide = lab.par(&bytes).map(|x| f64::from(x) / 2.0).unwrap();
    assert_eq!(wide.shape(), bytes.shape());
    assert!(
        wide.iter()
            .zip(bytes.iter())
            .all(|(&a, &b)| a == f64::from(b) / 2.0)
    );
    let narrow = lab.par(&wide).map(|x| x as u16).unwrap();
    assert!(
        narrow
            .iter()
            .zip(bytes.iter())
            .all(|(&a, &b)| a == u16::from(b / 2))
    );
}

fn par_map_with_a_number() {
    let lab = Lab::balanced(2);
    for engine in [&*lab, &Engine::inline()] {
        let numbers = engine.from_fn([1000, 1000], |i| i as i64).unwrap();
        for by in [3, -7] {
            let mapped = engine
                .par(&numbers)
                .with(by)
                .map(|x: i64, by: i64| x * by)
                .unwrap();
            assert_eq!(mapped.shape(), numbers.shape());
            assert!(mapped.iter().zip(0..).all(|(&x, n)| x == n * by));
            let applied = engine
                .par(&numbers)
                .with(by)
                .apply(|from: &[i64], to: &mut [i64], by: i64| {
                    from.iter().zip(to).for_each(|(x, to)| *to = x * by)
                })
                .unwrap();
            assert_eq!(applied[..], mapped[..]);
            let mut changed = applied.try_into_mut().unwrap();
            engine
                .par_mut(&mut changed)
                .with(by)
                .apply(|part: &mut [i64], by: i64| {
                    part.iter_mut().for_each(|x| *x /= by);
                })
                .unwrap();
            assert_eq!(changed[..], numbers[..]);
        }
        // Without the number.
        let applied = engine
            .par(&numbers)
            .apply(|from: &[i64], to: &mut [i64]| to.copy_from_slice(from));
        let mut changed = applied.unwrap().try_into_mut().unwrap();
        engine
            .par_mut(&mut changed)
            .apply(|part: &mut [i64]| part.iter_mut().for_each(|x| *x *= *x))
            .unwrap();
        assert!(changed.iter().zip(0..).all(|(&x, n)| x == n * n));
    }
}

fn par_map_with_a_shared_array() {
    let lab = Lab::balanced(2);
    let indices = lab.from_fn(300_000, |i| (i * 7919 % 1000) as u16).unwrap();
    let table = lab.from_fn(1000, |i| i as f32 / 2.0).unwrap();
    let look_up = |x: u16, table: &[f32]| table[usize::from(x)];
    let found = lab.par(&indices).with(&table).map(look_up).unwrap();
    let expected = |x: u16| f32::from(x) / 2.0;
    assert!(
        found
            .iter()
            .zip(indices.iter())
            .all(|(&y, &x)| y == expected(x))
    );
    // A handle to the array itself, and several arrays.
    let tables = vec![table.clone(), table.clone()];
    let sums = lab
        .par(&indices)
        .with(&tables)
        .map(|x: u16, tables: &[Array<f32>]| {
            tables
                .iter()
                .map(|table| table[usize::from(x)])
                .sum::<f32>()
        })
        .unwrap();
    assert!(
        sums.iter()
            .zip(indices.iter())
            .all(|(&y, &x)| y == f32::from(x))
    );
    let moved = lab
        .par(&indices)
        .with(table)
        .map(|x: u16, table: &Array<f32>| table[usize::from(x)])
        .unwrap();
    assert_eq!(moved[..], found[..]);
    // A private array, which workers cannot see.
    let foreign = Array::from_slice(&[1.0f32; 1000]);
    let error = lab.par(&indices).with(&foreign).map(look_up).unwrap_err();
    assert_eq!(*error.kind(), rejected(Rejection::ForeignArray));
}

fn par_map_with_texts_and_user_types() {
    #[derive(Clone, Copy, NoUninit, CheckedBitPattern)]
    #[repr(C)]
    struct Line {
        slope: f32,
        offset: f32,
    }
    impl Scalar for Line {}
    fn on_line(x: f32, line: Line) -> f32 {
        line.slope * x + line.offset
    }
    let lab = Lab::new(1);
    let x = lab.from_slice(&[0.0f32, 1.0, 2.0]).unwrap();
    let line = Line {
        slope: 2.0,
        offset: 0.5,
    };
    assert_eq!(
        lab.par(&x).with(line).map(on_line).unwrap()[..],
        [0.5, 2.5, 4.5]
    );
    let letter = |i: u8, text: &str| text.as_bytes()[usize::from(i)];
    let order = lab.from_slice(&[2u8, 0, 1]).unwrap();
    assert_eq!(
        lab.par(&order).with("abc").map(letter).unwrap()[..],
        *b"cab"
    );
    let owned = lab.par(&order).with(String::from("abc")).map(letter);
    assert_eq!(owned.unwrap()[..], *b"cab");
}

fn par_map_with_survives_a_worker() {
    let lab = Lab::balanced(2);
    let values = lab.from_fn(500_000, |i| i as u32).unwrap();
    let table = lab.from_fn(4, |i| i as u32).unwrap();
    let picky = |x: u32, table: &[u32]| {
        if x == 400_000 {
            std::process::abort();
        }
        x + table[1]
    };
    let error = lab.par(&values).with(&table).map(picky).unwrap_err();
    assert_eq!(*error.kind(), ABORTED, "{error}");
    // This function has the only handle.
    drop(table);
    let next = lab.par(&values).with(1).map(|x: u32, one: u32| x + one);
    assert!(next.unwrap().iter().zip(1..).all(|(&x, n)| x == n));
}

fn an_empty_array() {
    let lab = Lab::balanced(2);
    for shape in [arenite::Shape::from(0), [0, 5].into(), [5, 0].into()] {
        let empty = lab.from_fn(shape, |_| 0i64).unwrap();
        let mapped = lab.par(&empty).map(|x| x + 1).unwrap();
        assert_eq!((mapped.shape(), mapped.len()), (shape, 0));
        let mut empty = lab.zeros::<u8>(shape).unwrap();
        lab.par_mut(&mut empty)
            .apply(|part: &mut [u8]| part.fill(1))
            .unwrap();
    }
}

fn rows_of_odd_sizes() {
    let lab = Lab::balanced(2);
    for (rows, columns) in [
        (1usize, 1_000_003usize),
        (1_000_003, 1),
        (7, 65_537),
        (4097, 129),
        (3, 1),
    ] {
        let values = lab.from_fn([rows, columns], |i| i as u32).unwrap();
        let mapped = lab.par(&values).map(|x| !x).unwrap();
        assert!(
            mapped.iter().zip(0..).all(|(&x, n)| x == !n),
            "{rows} rows of {columns}"
        );
    }
}

/// Elements draw by their index, wherever chunks are cut.
fn one_long_row_is_cut() {
    let shapes = [
        arenite::Shape::from(1 << 22),
        [1, 1 << 22].into(),
        [2, 1 << 21].into(),
    ];
    let values = shapes.map(|shape| {
        let lab = Lab::with(2, |builder| builder.seed(7));
        let bytes = lab.from_fn(shape, |i| i as u8).unwrap();
        let mapped = lab.par(&bytes).map(|x| x / 2).unwrap();
        assert_eq!(mapped.shape(), shape);
        let calls = |lab: &Lab| lab.stats().kernels.iter().map(|one| one.calls).sum::<u64>();
        let first = calls(&lab);
        assert!(first > 1, "{first} jobs");
        let with = lab
            .par(&mapped)
            .with(1)
            .map(|x: u8, more: u8| x + more)
            .unwrap();
        assert_eq!(with.shape(), shape);
        assert!(calls(&lab) > first + 1);
        let few = with.clone().reshape(1 << 22).unwrap().rows(0..1 << 17);
        let few = few
            .reshape([shape.rows().min(4), (1 << 17) / shape.rows().min(4)])
            .unwrap();
        let drawn = lab
            .par(&few)
            .map(|x| u64::from(x) ^ arenite::rng().random::<u64>());
        (with.to_vec(), drawn.unwrap().to_vec())
    });
    assert!(
        values[0]
            .0
            .iter()
            .zip(0..)
            .all(|(&x, i): (_, u32)| x == i as u8 / 2 + 1)
    );
    assert!(values[1] == values[0] && values[2] == values[0]);
}

fn a_chunk_that_fails() {
    let lab = Lab::balanced(2);
    let values = lab.from_fn(500_000, |i| i as u32).unwrap();
    let picky = |x: u32| {
        assert_ne!(x, 400_000, "the one");
        x
    };
    let error = lab.par(&values).map(picky).unwrap_err();
    assert_kind!(error, JobErrorKind::Panicked { message, .. } if message.contains("the one"));
    // It names the function but no rows: the caller has lent none.
    assert_eq!(error.kernel(), std::any::type_name_of_val(&picky));
    assert!(error.unspecified_rows().is_empty());
    let mut out = lab.zeros::<u32>(500_000).unwrap();
    fn fails<T>(_: &mut [T], _: u8) {
        panic!("at once");
    }
    let error = lab
        .par_mut(&mut out)
        .with(0)
        .apply(fails::<u32>)
        .unwrap_err();
    assert_eq!(error.kernel(), std::any::type_name_of_val(&fails::<u32>));
    drop(out);
    assert_eq!(lab.par(&values).map(|x| x).unwrap()[..], values[..]);
}

fn foreign_arrays_are_rejected() {
    let lab = Lab::balanced(1);
    let private = Array::from_slice(&[1.0f32, 2.0]);
    let mut own = ArrayMut::<u8>::zeros(5);
    fn sum(x: &[f32]) -> f32 {
        x.iter().sum()
    }
    let answers = [
        lab.par(&private).map(|x| x).map(|_| ()),
        lab.par(&private).sum().map(|_| ()),
        lab.par(&private).cumsum().map(|_| ()),
        lab.par(&private)
            .reduce(sum, (), |a: f32, b: f32| a + b)
            .map(|_| ()),
        lab.par_mut(&mut own).apply(|part: &mut [u8]| part.fill(1)),
        lab.scope(|s| {
            for tile in own.tiles_mut(2) {
                s.submit(|tile: &mut [u8]| tile.fill(1), (tile,));
            }
        }),
    ];
    for error in answers.map(Result::unwrap_err) {
        assert_eq!(*error.kind(), rejected(Rejection::ForeignArray), "{error}");
    }
    assert_eq!(own[..], [0; 5]);
    assert_eq!(Engine::inline().par(&private).sum().unwrap(), 3.0);
}

fn a_full_arena_fails_the_result() {
    let lab = Lab::balanced_with(1, |builder| builder.capacity(16 << 20));
    let values = lab.zeros::<u8>(2 << 20).unwrap().seal();
    let error = lab.par(&values).map(f64::from).unwrap_err();
    let JobErrorKind::Limit(JobLimit::Arena(full)) = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!((full.requested, full.capacity), (16 << 20, 16 << 20));
    assert_eq!(lab.par(&values).map(u16::from).unwrap().len(), 2 << 20);
}
