//! Every kind of parameter, argument and reply, through a real worker.

use arenite::{Array, ArrayMut, Bytes, Engine, JobErrorKind, Scalar, WorkerExit};
use bytemuck::{CheckedBitPattern, NoUninit};

use crate::harness::{Calls, Lab, assert_kind, tests};

tests![
    kernels_return_what_they_return_as_functions,
    many_jobs_of_one_closure,
    generic_kernels_are_distinguished,
    arrays_of_every_shape,
    exclusive_arrays_move_in_and_come_back,
    runs_of_bytes,
    many_long_arguments,
    array_replies,
    a_reply_may_be_an_input,
    a_reply_may_be_a_sub_array,
    a_reply_made_on_another_thread,
    long_replies,
    too_long_replies,
    lists_of_plain_values,
    lists_of_plain_values_as_parameters,
    lists_of_arrays,
    tuples_as_arguments,
    results,
    an_invalid_bit_pattern_is_refused,
];

/// Each row is a kernel with arguments. In a worker and in an inline engine, it returns what it returns as a function.
macro_rules! assert_same {
    ($lab:ident: $($kernel:tt($($argument:expr),*);)+) => {
        for engine in [&*$lab, &Engine::inline()] { $(
            #[allow(unused_parens, reason = "closures are in parentheses")]
            let kernel = $kernel;
            let expected = kernel($($argument),*);
            assert_eq!(engine.value_of(kernel, ($($argument,)*)), expected, stringify!($kernel));
        )+ }
    };
}

#[allow(clippy::too_many_arguments, reason = "eight is what a kernel may have")]
fn eight(a: u8, b: u16, c: u32, d: u64, e: i8, f: i16, g: i32, h: i64) -> i128 {
    let unsigned = i128::from(a) + i128::from(b) + i128::from(c) + i128::from(d);
    let signed = i128::from(e) + i128::from(f) + i128::from(g) + i128::from(h);
    unsigned + signed
}

#[allow(clippy::too_many_arguments, reason = "eight is what a kernel may have")]
fn join(
    a: &Array<u8>,
    b: &[u8],
    c: &Array<u8>,
    d: &[u8],
    e: &Array<u8>,
    f: &[u8],
    g: &Array<u8>,
    h: ArrayMut<u8>,
) -> Array<u8> {
    let all = [&a[..], b, &c[..], d, &e[..], f, &g[..], &h[..]];
    Array::from_slice(&all.concat())
}

fn dot(a: &[f64], b: &Array<f64>) -> f64 {
    a.iter().zip(b.iter()).map(|(a, b)| a * b).sum()
}

fn shout(text: &str) -> String {
    text.to_uppercase()
}

fn widen(limits: Limits, by: f64) -> Limits {
    Limits {
        low: limits.low - by,
        high: limits.high + by,
        count: limits.count + 1,
        ..limits
    }
}

fn maybe(n: usize) -> Option<Array<u8>> {
    (n > 0).then(|| Array::zeros(n))
}

fn four(n: u8) -> (Array<u8>, String, Option<u8>, ArrayMut<u16>) {
    let words = ArrayMut::from_slice(&[n.into(); 3]);
    (Array::from_slice(&[n; 2]), n.to_string(), None, words)
}

fn kernels_return_what_they_return_as_functions() {
    let lab = Lab::balanced(1);
    let part = |n: u8| lab.from_slice(&[n; 3]).unwrap();
    let last = || lab.zeros::<u8>([1, 1, 1, 1, 1, 3]).unwrap();
    let [x, y] = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]].map(|row| lab.from_slice(&row).unwrap());
    let long = "é".repeat(100_000);
    let limits = Limits {
        low: 1.0,
        high: 2.0,
        count: 41,
        strict: true,
        padding: [0; 3],
    };
    assert_same!(lab:
        (|| 7_u64)();
        (|a: u8| a)(1);
        (|a: u8, b: i64| i64::from(a) + b)(1, -2);
        (|a: f32, b: f64, c: f32| f64::from(a) * b + f64::from(c))(0.5, 4.0, 1.0);
        (|a: bool, b: char, c: u8, d: u128| (a, b, c, d))(true, 'ß', 3, u128::MAX);
        (|a: u8, b: u8, c: u8, d: u8, e: u8| [a, b, c, d, e])(1, 2, 3, 4, 5);
        (|a: u8, b: u8, c: u8, d: u8, e: u8, f: u8| a + b + c + d + e + f)(1, 2, 3, 4, 5, 6);
        (|a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8| a + b + c + d + e + f + g)(1, 2, 3, 4, 5, 6, 7);
        eight(u8::MAX, u16::MAX, u32::MAX, u64::MAX, i8::MIN, i16::MIN, i32::MIN, i64::MIN);
        dot(&x, &y);
        dot(&x, &x);
        dot(&x.rows(1..), &y.rows(..2));
        join(&part(1), &part(2), &part(3), &part(4), &part(5), &part(6), &part(7), last());
        // Elements without bytes have a number only.
        (|units: &[()], empty: &[[u8; 0]]| (units.len(), empty.len()))(&[(); 77], &[[0_u8; 0]; 5]);
        shout("");
        shout("grüße");
        shout(&long);
        widen(limits, 0.5);
        (|m: [[f32; 2]; 2]| m[0][0] * m[1][1] - m[0][1] * m[1][0])([[1.0, 2.0], [3.0, 4.0]]);
        // Around the 96 bytes that fit into a slot, give or take a word.
        (|a: [u64; 12]| a.iter().sum::<u64>())([1; 12]);
        (|a: [u64; 13]| a.iter().sum::<u64>())([1; 13]);
        (|| ())();
        (|| true)();
        (|| 'λ')();
        (|| i128::MIN)();
        (|| f64::NAN.to_bits())();
        (|| [1u16; 100])();
        (|n: u32| n.is_multiple_of(2).then_some(n / 2))(4);
        (|n: u32| n.is_multiple_of(2).then_some(n / 2))(5);
        maybe(0);
        maybe(9);
        (|| (1u8,))();
        (|| (1u8, 2.5f32))();
        (|| (1u8, 2.5f32, true))();
        four(7);
    );
    // Arguments of other types than the parameters.
    assert_eq!(lab.value_of(shout, (String::from("owned"),)), "OWNED");
    assert_eq!(lab.value_of(dot, (x.rows(1..), y.rows(..2))), 23.0);
    assert_eq!(lab.value_of(dot, (x, y)), 32.0);
}

fn many_jobs_of_one_closure() {
    let lab = Lab::new(2);
    let jobs: Vec<_> = (0..1000u64)
        .map(|n| lab.submit(|n: u64| n * n, (n,)))
        .collect();
    for (n, job) in (0..1000u64).zip(jobs) {
        assert_eq!(job.wait().unwrap(), n * n);
    }
}

/// Linkers fold functions with equal code; each must still decode its own arguments.
fn generic_kernels_are_distinguished() {
    fn first<T: arenite::Element + Scalar>(values: &[T]) -> T {
        values[0]
    }
    let lab = Lab::new(1);
    let (bytes, words) = (
        lab.from_slice(&[250u8, 1]).unwrap(),
        lab.from_slice(&[-5i8, 1]).unwrap(),
    );
    assert_eq!(lab.value_of(first::<u8>, (&bytes,)), 250);
    assert_eq!(lab.value_of(first::<i8>, (&words,)), -5);
    let names: Vec<_> = lab
        .stats()
        .kernels
        .iter()
        .map(|kernel| kernel.name)
        .collect();
    assert_eq!(names.len(), 2, "statistics go by type: {names:?}");
}

fn arrays_of_every_shape() {
    fn describe(array: &Array<u16>) -> String {
        format!(
            "{} {}",
            array.shape(),
            array.iter().map(|&x| u64::from(x)).sum::<u64>()
        )
    }
    let lab = Lab::balanced(1);
    let make = |shape: arenite::Shape| lab.from_fn(shape, |i| i as u16).unwrap();
    for (shape, expected) in [
        (arenite::Shape::from(5), "5 10"),
        ([2, 3].into(), "2x3 15"),
        ([2, 3, 2].into(), "2x3x2 66"),
        ([2, 1, 3, 2].into(), "2x1x3x2 66"),
        ([1, 2, 1, 3, 2].into(), "1x2x1x3x2 66"),
        ([1, 2, 1, 3, 1, 2].into(), "1x2x1x3x1x2 66"),
    ] {
        let array = make(shape);
        assert_eq!(lab.value_of(describe, (&array,)), expected);
        assert_eq!(
            lab.value_of(describe, (array.rows(..1),))
                .split(' ')
                .next()
                .unwrap(),
            array.rows(..1).shape().to_string()
        );
    }
}

fn exclusive_arrays_move_in_and_come_back() {
    fn reverse(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
        values.reverse();
        values
    }
    fn seal(values: ArrayMut<u32>) -> Array<u32> {
        values.seal()
    }
    fn swallow(values: ArrayMut<u32>) -> u64 {
        values.iter().map(|&x| u64::from(x)).sum()
    }
    let lab = Lab::balanced(2);
    for len in [3usize, 100_000] {
        let mut values = lab.zeros::<u32>(len).unwrap();
        values.iter_mut().zip(0..).for_each(|(to, n)| *to = n);
        let place = values.as_ptr();
        let mut values = lab.value_of(reverse, (values,));
        assert_eq!((values[0], values[len - 1]), (len as u32 - 1, 0));
        assert_eq!(
            values.as_ptr(),
            place,
            "it moves there and back without a copy"
        );
        values[0] = 0;
        let sealed = lab.value_of(seal, (values,));
        assert_eq!((sealed[0], sealed[1]), (0, len as u32 - 2));
        let again = sealed.try_into_mut().expect("the only handle");
        lab.value_of(swallow, (again,));
    }
}

/// Not text: any byte, and no terminator.
fn runs_of_bytes() {
    fn reversed(bytes: &Bytes) -> Bytes {
        bytes.iter().rev().copied().collect::<Vec<u8>>().into()
    }
    fn around(a: &Bytes, n: u32, b: &Bytes) -> Result<(Bytes, Option<Bytes>, u32), String> {
        Ok((b.clone(), (!a.is_empty()).then(|| a.clone()), n))
    }
    let lab = Lab::balanced(1);
    for engine in [&*lab, &Engine::inline()] {
        for len in [0, 1, 7, 8, 9, 87, 88, 89, 96, 97, 1000, 1 << 20] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8 ^ 0x80).collect();
            let back: Vec<u8> = bytes.iter().rev().copied().collect();
            let own = Bytes::from(&bytes);
            let jobs = [
                engine.submit(reversed, (&bytes[..],)),
                engine.submit(reversed, (&bytes,)),
                engine.submit(reversed, (&own,)),
                engine.submit(reversed, (bytes.clone(),)),
                engine.submit(reversed, (own.clone(),)),
            ];
            for job in jobs {
                assert_eq!(job.wait().unwrap().into_vec(), back);
            }
            let (b, a, n) = engine.value_of(around, (&own, 5, &back));
            assert_eq!((&*b, n), (&back[..], 5));
            assert_eq!(a, (len > 0).then_some(own));
        }
        let twice = engine
            .job(reversed, (b"a\0\xff",))
            .then(reversed, ())
            .retries(1);
        assert_eq!(*twice.submit().wait().unwrap(), *b"a\0\xff");
    }
    assert_eq!(format!("{:?}", Bytes::from(b"a\0\xff")), r#"b"a\x00\xff""#);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, NoUninit, CheckedBitPattern)]
#[repr(C)]
struct Limits {
    low: f64,
    high: f64,
    count: u32,
    strict: bool,
    padding: [u8; 3],
}
impl Scalar for Limits {}

fn many_long_arguments() {
    fn sum(words: [u64; 32], text: &str, last: u64) -> u64 {
        words.iter().sum::<u64>() + text.len() as u64 + last
    }
    let lab = Lab::balanced(2);
    let words: [u64; 32] = std::array::from_fn(|i| i as u64);
    let jobs: Vec<_> = (0..500)
        .map(|last| lab.submit(sum, (words, &"x".repeat(1000), last)))
        .collect();
    for (last, job) in (0..500).zip(jobs) {
        assert_eq!(job.wait().unwrap(), 496 + 1000 + last);
    }
}

fn array_replies() {
    fn range(rows: usize, columns: usize) -> Array<u32> {
        Array::from_fn([rows, columns], |i| i as u32)
    }
    fn exclusive(len: usize) -> ArrayMut<u32> {
        ArrayMut::from_fn(len, |i| i as u32)
    }
    let lab = Lab::balanced(2);
    for (rows, columns) in [(0, 5), (5, 0), (1, 1), (3, 5), (129, 127), (1024, 1024)] {
        let array = lab.value_of(range, (rows, columns));
        assert_eq!(array.shape(), arenite::Shape::from([rows, columns]));
        assert!(array.iter().zip(0..).all(|(&x, n)| x == n));
        let mut array = lab.value_of(exclusive, (rows * columns,));
        assert!(array.iter().zip(0..).all(|(&x, n)| x == n));
        // The caller has the only handle.
        array.fill(1);
        assert_eq!(array.iter().sum::<u32>() as usize, rows * columns);
    }
}

fn a_reply_may_be_an_input() {
    fn same(array: &Array<u8>) -> Array<u8> {
        array.clone()
    }
    fn middle(array: &Array<u8>) -> Array<u8> {
        array.rows(1..2)
    }
    let lab = Lab::balanced(2);
    let array = lab.from_fn([3, 100], |i| i as u8).unwrap();
    let back = lab.value_of(same, (&array,));
    assert_eq!(back.as_ptr(), array.as_ptr(), "a lease, no copy");
    let part = lab.value_of(middle, (&array,));
    assert_eq!(part.as_ptr(), array[100..].as_ptr());
    assert_eq!(part.shape(), array.rows(1..2).shape());
    // The sub-array alone keeps the memory.
    drop((array, back));
    assert_eq!(part[..], (100..200).collect::<Vec<u8>>());
    drop(part);
    // The caller may drop its handle before the job returns the array.
    let array = lab.from_slice(&[1, 2, 3]).unwrap();
    assert_eq!(lab.value_of(same, (array,))[..], [1, 2, 3]);
}

fn a_reply_may_be_a_sub_array() {
    fn halves(len: usize) -> (Array<u64>, Array<u64>) {
        let whole = Array::from_fn(len, |i| i as u64);
        (whole.rows(..len / 2), whole.rows(len / 2..))
    }
    fn tail(len: usize) -> Array<u64> {
        Array::from_fn(len, |i| i as u64).rows(len - 1..)
    }
    fn exclusive(len: usize) -> ArrayMut<u64> {
        tail(len).try_into_mut().expect("the only handle")
    }
    fn of_a_parameter(values: ArrayMut<u64>) -> ArrayMut<u64> {
        let rest = values.seal().rows(1..);
        rest.try_into_mut().expect("the only handle")
    }
    let lab = Lab::balanced(1);
    for len in [4usize, 100_000] {
        let (front, back) = lab.value_of(halves, (len,));
        assert_eq!((front[0], back[0]), (0, len as u64 / 2));
        drop(front);
        assert_eq!(back[back.len() - 1], len as u64 - 1);
        drop(back);
        assert_eq!(lab.value_of(tail, (len,))[..], [len as u64 - 1]);
        let mut last = lab.value_of(exclusive, (len,));
        assert_eq!(last[..], [len as u64 - 1]);
        last[0] = 7;
        let last = lab.submit(|one: ArrayMut<u64>| one, (last,)).wait();
        assert_eq!(last.unwrap()[..], [7]);
        let mut values = lab.zeros::<u64>(len).unwrap();
        values[1] = 5;
        let rest = lab.value_of(of_a_parameter, (values,));
        assert_eq!((rest.len(), rest[0]), (len - 1, 5));
    }
}

fn a_reply_made_on_another_thread() {
    fn elsewhere(values: &Array<u32>) -> Array<u32> {
        let values = &values[..];
        std::thread::scope(|s| {
            let doubled = s.spawn(move || Array::from_fn(values.len(), |i| values[i] * 2));
            doubled.join().unwrap()
        })
    }
    let lab = Lab::balanced(1);
    for len in [3usize, 50_000] {
        let values = lab.from_fn(len, |i| i as u32).unwrap();
        let doubled = lab.value_of(elsewhere, (&values,));
        assert!(doubled.iter().zip(0..).all(|(&x, n)| x == 2 * n));
    }
}

fn long_replies() {
    fn repeat(text: &str, times: usize) -> String {
        text.repeat(times)
    }
    fn mixed(len: usize) -> (String, Array<u8>, [u64; 20], Array<u8>) {
        (
            "ü".repeat(len),
            Array::from_fn(len, |i| i as u8),
            [len as u64; 20],
            Array::zeros(len),
        )
    }
    let lab = Lab::balanced(2);
    for times in [0, 1, 11, 12, 13, 1000, 1 << 20] {
        assert_eq!(
            lab.value_of(repeat, ("0123456", times)),
            "0123456".repeat(times)
        );
    }
    for len in [0usize, 5, 70_000] {
        let (text, numbers, scalars, zeros) = lab.value_of(mixed, (len,));
        assert_eq!(
            (text.len(), zeros.len(), scalars),
            (2 * len, len, [len as u64; 20])
        );
        assert!(
            numbers.iter().enumerate().all(|(i, &x)| x == i as u8) && zeros.iter().all(|&x| x == 0)
        );
    }
}

fn squares(count: usize) -> Vec<Array<u32>> {
    (0..count)
        .map(|n| Array::from_fn([n, 2], |i| (i * n) as u32))
        .collect()
}

fn lists_of_plain_values() {
    fn sum(values: &[u32], more: &[[u8; 3]]) -> u64 {
        let more = more.iter().flatten().map(|&x| u64::from(x));
        values.iter().map(|&x| u64::from(x)).chain(more).sum()
    }
    fn count(n: u32) -> (Vec<u32>, Vec<char>, Option<Vec<Limits>>) {
        let limits = |count| Limits {
            count,
            ..Limits::default()
        };
        (
            (0..n).collect(),
            vec!['ä'; n as usize],
            Some((0..n).map(limits).collect()),
        )
    }
    fn kibibytes(count: usize) -> Vec<[u64; 128]> {
        vec![[7; 128]; count]
    }
    let lab = Lab::balanced_with(1, |builder| builder.capacity(512 << 20));
    let long: Vec<u32> = (0..100_000).collect();
    let of_long = long.iter().map(|&x| u64::from(x)).sum::<u64>();
    for engine in [&*lab, &Engine::inline()] {
        let sums = [
            engine.submit(sum, (vec![1, 2], [[3, 4, 5]])),
            engine.submit(sum, (&[1, 2], &vec![[3, 4, 5]])),
            engine.submit(sum, (&[1, 2][..], vec![[3, 4, 5]])),
            engine.job(sum, (vec![15], [])).retries(1).submit(),
        ];
        for job in sums {
            assert_eq!(job.wait().unwrap(), 15);
        }
        assert_eq!(engine.value_of(sum, (&long, &[])), of_long);
        for n in [0, 1, 50_000] {
            let (numbers, letters, limits) = engine.value_of(count, (n,));
            assert!(numbers.into_iter().eq(0..n));
            assert!(letters.len() == n as usize && letters.iter().all(|&c| c == 'ä'));
            assert!(limits.unwrap().iter().map(|limits| limits.count).eq(0..n));
        }
        let most = engine.value_of(kibibytes, (64 << 10,));
        assert!(most.len() == 64 << 10 && most.iter().flatten().all(|&x| x == 7));
        let more = engine.submit(kibibytes, ((64 << 10) + 1,));
        let error = more.wait().unwrap_err();
        assert_kind!(error, JobErrorKind::Returned(_));
    }
}

fn lists_of_plain_values_as_parameters() {
    type Rest = (Vec<[u32; 2]>, Vec<Limits>);
    type Lists = (Vec<bool>, Vec<char>, Vec<[u32; 2]>, Vec<Limits>);
    fn reversed(flags: Vec<bool>, letters: Vec<char>, (pairs, limits): Rest) -> Lists {
        fn back<T>(list: Vec<T>) -> Vec<T> {
            list.into_iter().rev().collect()
        }
        (back(flags), back(letters), back(pairs), back(limits))
    }
    let lab = Lab::with(1, |builder| builder.capacity(64 << 20));
    for engine in [&*lab, &Engine::inline()] {
        for n in [0, 1, 3, 50_000] {
            let flags: Vec<bool> = (0..n).map(|i| i % 3 == 0).collect();
            let letters: Vec<char> = ('a'..='ü').cycle().take(n as usize).collect();
            let pairs: Vec<[u32; 2]> = (0..n).map(|i| [i, n - i]).collect();
            let limit = |count| Limits {
                count,
                ..Limits::default()
            };
            let limits: Vec<Limits> = (0..n).map(limit).collect();
            // The oracle is the kernel, called as a function.
            let rest = (pairs.clone(), limits.clone());
            let expected = reversed(flags.clone(), letters.clone(), rest);
            let args = (&flags, &letters[..], (pairs, limits));
            assert!(engine.submit(reversed, args).wait().unwrap() == expected);
        }
    }
    lab.assert_in_use(0);
}

fn lists_of_arrays() {
    type Lists = (Bytes, Vec<Array<u32>>, Option<Vec<Array<u8>>>);
    fn with_head(count: usize, fails: bool) -> Result<Lists, String> {
        if fails {
            return Err(format!("{count} are too many"));
        }
        Ok((
            Bytes::from(b"head"),
            squares(count),
            Some(vec![Array::zeros(count)]),
        ))
    }
    /// Inputs, parts of them, and one array several times.
    fn repeated(given: &[Array<u32>]) -> Vec<Array<u32>> {
        let own = Array::from_slice(&[7u32; 1000]);
        let parts = given.iter().map(|array| array.rows(1..2));
        given
            .iter()
            .cloned()
            .chain(parts)
            .chain([own.clone(), own.rows(1..3), own])
            .collect()
    }
    fn total(parts: &[Array<u32>]) -> u64 {
        parts
            .iter()
            .flat_map(|part| part.iter())
            .map(|&x| u64::from(x))
            .sum()
    }
    let lab = Lab::balanced(2);
    for engine in [&*lab, &Engine::inline()] {
        for count in [0, 1, 3, 100, 500] {
            let list = engine.value_of(squares, (count,));
            assert_eq!(list, squares(count));
            let (head, list, option) = engine.value_of(with_head, (count, false));
            assert_eq!((&*head, list), (&b"head"[..], squares(count)));
            assert_eq!(option.unwrap()[0].len(), count);
            let sum = engine.job(squares, (count,)).then(total, ()).submit();
            assert_eq!(sum.wait().unwrap(), total(&squares(count)));
            let error = engine.error_of(with_head, (count, true));
            assert_eq!(
                *error.kind(),
                JobErrorKind::Returned(format!("{count} are too many").into())
            );
        }
        let given = [2usize, 5].map(|len| engine.from_fn([len, 3], |i| i as u32).unwrap());
        let all = engine.value_of(repeated, (&given[..],));
        assert_eq!(all.len(), 7);
        for (array, given) in all.iter().zip(&given) {
            assert_eq!(
                (array.as_ptr(), array.shape()),
                (given.as_ptr(), given.shape())
            );
        }
        assert_eq!(all[3], given[1].rows(1..2));
        assert_eq!(all[4].as_ptr(), all[6].as_ptr());
        assert_eq!(all[5][..], [7, 7]);
    }
}

/// The fault is the kernel's, and no reason to distrust its worker.
fn too_long_replies() {
    const TEXT: usize = 64 << 20;
    const ARRAYS: usize = 4096;
    fn one(len: usize) -> String {
        "x".repeat(len)
    }
    fn shared(len: usize) -> Result<(String, Array<u8>, Option<String>), String> {
        Ok((one(len), Array::zeros(3), Some(one(TEXT - len))))
    }
    fn both(len: usize) -> (String, Option<Bytes>) {
        (one(len), Some(one(len).into_bytes().into()))
    }
    fn bytes(count: usize) -> Vec<Array<u8>> {
        (0..count).map(|n| Array::from_slice(&[n as u8])).collect()
    }
    fn two(count: usize) -> (Vec<Array<u8>>, Option<Array<u8>>) {
        (bytes(count), Some(Array::zeros(1)))
    }
    let lab = Lab::balanced_with(1, |builder| builder.capacity(512 << 20));
    for engine in [&*lab, &Engine::inline()] {
        for (error, most) in [
            (engine.error_of(one, (70 << 20,)), TEXT),
            (engine.error_of(one, (TEXT + 1,)), TEXT),
            (engine.error_of(both, (TEXT / 2 + 1,)), TEXT),
            (engine.error_of(bytes, (ARRAYS + 1,)), ARRAYS),
            (engine.error_of(bytes, (70_000,)), ARRAYS),
            (engine.error_of(two, (ARRAYS,)), ARRAYS),
        ] {
            let JobErrorKind::Returned(text) = error.kind() else {
                panic!("{error}");
            };
            assert!(text.text().contains(&most.to_string()), "{text}");
        }
        assert_eq!(engine.value_of(one, (TEXT,)).len(), TEXT);
        let (first, _, second) = engine.value_of(shared, (TEXT / 3,));
        assert_eq!(first.len() + second.unwrap().len(), TEXT);
        assert_eq!(engine.value_of(bytes, (ARRAYS,)), bytes(ARRAYS));
        let (list, _) = engine.value_of(two, (ARRAYS - 1,));
        assert_eq!(list.len(), ARRAYS - 1);
    }
    assert_eq!(lab.stats().restarts(), 0);
}

fn results() {
    fn parse(text: &str) -> Result<i64, std::num::ParseIntError> {
        text.parse()
    }
    fn boxed(n: u32) -> Result<(), Box<dyn std::error::Error>> {
        if n > 0 {
            Err(format!("{n} is too many: {}", "x".repeat(n as usize)).into())
        } else {
            Ok(())
        }
    }
    let lab = Lab::balanced(1);
    assert_eq!(lab.value_of(parse, ("-12",)), -12);
    let error = lab.error_of(parse, ("twelve",));
    assert_eq!(
        *error.kind(),
        JobErrorKind::Returned("invalid digit found in string".into())
    );
    assert!(
        error.kernel().ends_with("parse") && error.worker() == Some(0) && error.attempt() == 1,
        "{error:?}"
    );
    assert!(
        error.job().is_some() && error.to_string().contains("invalid digit"),
        "{error}"
    );
    lab.value_of(boxed, (0,));
    let error = lab.error_of(boxed, (1000,));
    let JobErrorKind::Returned(text) = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!(
        text.text(),
        format!("1000 is too many: {}", "x".repeat(1000))
    );
    // The job failed, but its worker lives.
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

fn tuples_as_arguments() {
    fn area((width, height): (u32, u32), scale: f64) -> f64 {
        f64::from(width * height) * scale
    }
    fn all(parts: (&Array<u16>, &str, (char, bool), ArrayMut<u8>)) -> (u64, String, ArrayMut<u8>) {
        let (array, text, (letter, is_upper), mut own) = parts;
        own[0] = 9;
        let letter = if is_upper {
            letter.to_ascii_uppercase()
        } else {
            letter
        };
        (
            array.iter().map(|&x| u64::from(x)).sum(),
            format!("{text}{letter}"),
            own,
        )
    }
    let lab = Lab::balanced(1);
    let array = lab.from_iter([1, 2, 3_u16]).unwrap();
    for engine in [&*lab, &Engine::inline()] {
        let job = engine.job(area, ((3, 4), 0.5)).retries(1).submit();
        assert_eq!(job.wait().unwrap(), 6.0);
        let own = engine.zeros(2).unwrap();
        let array = engine.import(&array).unwrap();
        let (sum, text, own) = engine.value_of(all, ((&array, "a", ('b', true), own),));
        assert_eq!((sum, text.as_str(), &own[..]), (6, "aB", &[9, 0][..]));
    }
}

/// A `bool` of 2 is an error, not undefined behaviour.
fn an_invalid_bit_pattern_is_refused() {
    #[derive(Clone, Copy, Debug, NoUninit, CheckedBitPattern)]
    #[repr(C)]
    struct Flag {
        set: bool,
    }
    impl Scalar for Flag {}
    fn wrong(value: u8) -> Flag {
        let mut flag = Flag { set: false };
        // SAFETY: none: this breaks the rules of the language on purpose, as a bug in foreign code might.
        unsafe { (&raw mut flag).cast::<u8>().write_volatile(value) };
        flag
    }
    let lab = Lab::new(1);
    assert!(lab.value_of(wrong, (1,)).set);
    let error = lab.error_of(wrong, (2,));
    assert_kind!(error, JobErrorKind::Lost(WorkerExit::Protocol(_)));
    assert!(!lab.value_of(wrong, (0,)).set);
}
