//! Loop bodies that name what they capture: `kernel!`. The oracle is the same body as a closure of this process.

use arenite::stream::{Stream, Windows};
use arenite::{Array, Bytes, Engine, Graph, TileMut, kernel};

use crate::harness::{Lab, block_on, tests};

tests![
    each_type_is_captured,
    jobs_are_captured,
    references_are_not_borrowed_again,
    a_map_passes_them_with_each_item,
    a_failed_item_returns_them,
    single_arguments_need_no_tuple,
    tiles_of_a_scope_beside_them,
    what_a_scope_lends_is_captured,
    a_chain_and_a_graph,
    whole_arrays,
    actors,
    streams,
    eight_of_eight,
    generic_bodies_and_methods,
    retries_run_with_them_again,
];

/// Runs a test with workers and inline.
fn both(test: impl Fn(&Engine)) {
    test(&Lab::new(2));
    test(&Engine::inline());
}

fn each_type_is_captured() {
    both(|engine| {
        let array = engine.from_slice(&[1u16, 2, 3]).unwrap();
        let (slice, text, name) = (vec![2.5f32, 3.5], String::from("seven"), "x");
        let (bytes, list) = (Bytes::from(b"nine"), vec![array.clone(), array.clone()]);
        let (flag, numbers) = (true, [7u64, 8]);
        let sum = |x: u64| {
            let arrays = list.iter().map(|array| array.len()).sum::<usize>() + array.len();
            let lengths = text.len() + name.len() + bytes.len() + arrays;
            x + lengths as u64 + slice[1] as u64 + u64::from(flag) + numbers[1]
        };
        let expected = sum(1000);
        let left = engine.submit(
            kernel!(
                |array: &Array<u16>, slice: &[f32], text: &str, name: &str| |x: u64| {
                    x + (array.len() + text.len() + name.len()) as u64 + slice[1] as u64
                }
            ),
            (1000,),
        );
        let all = engine.submit(
            kernel!(|left: u64,
                     bytes: &Bytes,
                     list: &[Array<u16>],
                     flag: bool,
                     numbers: [u64; 2]| || {
                let arrays = list.iter().map(|array| array.len()).sum::<usize>();
                left + (bytes.len() + arrays) as u64 + u64::from(flag) + numbers[1]
            }),
            (),
        );
        assert_eq!(all.wait().unwrap(), expected);
        // A variable that is borrowed is still there.
        assert_eq!((array.len(), text.len()), (3, 5));
    });
}

fn jobs_are_captured() {
    both(|engine| {
        let table = engine.submit(|n: u64| Array::from_fn(n as usize, |i| i as u64), (100,));
        let total = engine.submit(kernel!(|table: &[u64]| || table.iter().sum::<u64>()), ());
        let total = &total;
        let jobs = engine.map(
            kernel!(|table: &Array<u64>, total: u64| |at: usize| table[at] + total),
            0..100,
        );
        let values: Vec<u64> = jobs.map(Result::unwrap).collect();
        assert_eq!(values, (0..100).map(|i| i + 4950).collect::<Vec<u64>>());
    });
}

fn references_are_not_borrowed_again() {
    fn lengths(engine: &Engine, array: &Array<u8>, list: &[f32], text: &str) -> usize {
        let body = kernel!(|array: &Array<u8>, list: &[f32], text: &str| || {
            array.len() + list.len() + text.len()
        });
        engine.submit(body, ()).wait().unwrap()
    }
    both(|engine| {
        let array = engine.from_slice(&[0; 5]).unwrap();
        assert_eq!(lengths(engine, &array, &[0.0; 7], "abc"), 15);
    });
}

fn a_map_passes_them_with_each_item() {
    both(|engine| {
        let photo = engine.from_fn([300, 20], |i| (i % 251) as u8).unwrap();
        let by = 40u8;
        let body = |row: usize, scale: u64| -> u64 {
            let row = &photo[row * 20..][..20];
            row.iter()
                .map(|&p| u64::from(p.saturating_add(by)) * scale)
                .sum()
        };
        let kernel = kernel!(
            |photo: &Array<u8>, by: u8| |row: usize, scale: u64| -> u64 {
                let row = &photo[row * 20..][..20];
                row.iter()
                    .map(|&p| u64::from(p.saturating_add(by)) * scale)
                    .sum()
            }
        );
        let items = || (0..300).map(|row| (row, 3));
        let expected: Vec<u64> = items().map(|(row, scale)| body(row, scale)).collect();
        let got: Vec<u64> = engine
            .map(kernel.clone(), items())
            .map(Result::unwrap)
            .collect();
        assert_eq!(got, expected);
        let mut got: Vec<_> = engine.map(kernel, items()).unordered().collect();
        got.sort_unstable_by_key(|(index, _)| *index);
        assert!(got.into_iter().map(|(_, sum)| sum.unwrap()).eq(expected));
    });
}

fn a_failed_item_returns_them() {
    both(|engine| {
        let limit = 2u32;
        let body = kernel!(|limit: u32| |x: u32| {
            (x < limit).then_some(x).ok_or_else(|| format!("{x}"))
        });
        let report = engine.map(body, 0..4u32).report();
        let failed: Vec<_> = report.failures.iter().map(|letter| letter.args).collect();
        assert_eq!(failed, [(2, 2), (3, 2)]);
    });
}

fn single_arguments_need_no_tuple() {
    both(|engine| {
        let arrays: Vec<_> = (0..5)
            .map(|n| engine.from_slice(&[n; 3]).unwrap())
            .collect();
        let sum = |values: &[u32]| values.iter().sum::<u32>();
        let sums: Vec<u32> = engine.map(sum, &arrays).map(Result::unwrap).collect();
        assert_eq!(sums, [0, 3, 6, 9, 12]);
        let more: Vec<u32> = engine
            .map(|x: u32| x + 1, sums)
            .map(Result::unwrap)
            .collect();
        assert_eq!(more, [1, 4, 7, 10, 13]);
        let first = arrays[2].clone();
        assert_eq!(engine.submit(sum, first).wait().unwrap(), 6);
        let letters = engine.map(|x: u32| -> u32 { panic!("{x}") }, 7..8).report();
        assert_eq!(letters.failures[0].args, 7);
    });
}

fn tiles_of_a_scope_beside_them() {
    both(|engine| {
        let weights = vec![0.5f32, 2.0];
        let mut out = engine.zeros::<f32>([64, 10]).unwrap();
        let offset = 3.0f32;
        let done = engine.scope(|s| {
            for tile in out.tiles_mut(7) {
                s.submit(
                    kernel!(
                        |weights: &[f32], offset: f32| |mut tile: TileMut<'_, f32>| {
                            for (row, part) in tile.rows().zip(tile.chunks_mut(10)) {
                                part.fill(row as f32 * weights[row % 2] + offset);
                            }
                        }
                    ),
                    (tile,),
                );
            }
        });
        done.unwrap();
        let expected = (0..640).map(|i| (i / 10) as f32 * weights[i / 10 % 2] + offset);
        assert!(out.iter().copied().eq(expected));
    });
}

fn what_a_scope_lends_is_captured() {
    both(|engine| {
        let (mut left, mut right) = (engine.zeros::<u8>(9).unwrap(), engine.zeros(9).unwrap());
        let done = engine.scope(|s| {
            let (left, right) = (&mut left, &mut right);
            let fill = kernel!(|left: &mut [u8], right: TileMut<'_, u8>| |x: u8| {
                let mut right = right;
                left.fill(x);
                right.fill(x + 1);
            });
            s.submit(fill, (7,));
        });
        done.unwrap();
        assert_eq!((&left[..], &right[..]), (&[7; 9][..], &[8; 9][..]));
    });
}

fn a_chain_and_a_graph() {
    both(|engine| {
        let values = engine.from_slice(&[1u32, 2, 3]).unwrap();
        let (by, end) = (10u32, 1u32);
        let scale = kernel!(|by: u32| |values: &Array<u32>| {
            Array::from_fn(values.shape(), |i| values[i] * by)
        });
        let total = kernel!(|end: u32| |values: &[u32], more: u32| {
            values.iter().sum::<u32>() + more + end
        });
        let job = engine
            .job(scale.clone(), (&values,))
            .then(total.clone(), (100,));
        assert_eq!(job.retries(2).submit().wait().unwrap(), 161);
        let mut graph = Graph::new(engine);
        let scaled = graph.add(scale, (&values,));
        let total = graph.add(total, (&scaled, 200));
        assert_eq!(total.wait().unwrap(), 261);
    });
}

fn whole_arrays() {
    both(|engine| {
        let pixels = engine.from_fn(100_000, |i| (i % 256) as u8).unwrap();
        let table = engine.from_fn(256, |i| i as f32 / 4.0).unwrap();
        let by = 2.0f32;
        let body = |x: u8| table[usize::from(x)] * by;
        let mapped = engine
            .par(&pixels)
            .map_kernel(kernel!(|table: &Array<f32>, by: f32| |x: u8| table
                [usize::from(x)]
                * by));
        assert!(
            mapped
                .unwrap()
                .iter()
                .copied()
                .eq(pixels.iter().map(|&x| body(x)))
        );
        let applied = engine
            .par(&pixels)
            .apply_kernel(kernel!(|table: &[f32], by: f32| {
                |from: &[u8], to: &mut [f32]| {
                    for (to, &x) in to.iter_mut().zip(from) {
                        *to = table[usize::from(x)] * by;
                    }
                }
            }));
        let mut applied = applied.unwrap().try_into_mut().unwrap();
        let changed = engine
            .par_mut(&mut applied)
            .apply_kernel(kernel!(|by: f32| |part: &mut [f32]| {
                part.iter_mut().for_each(|x| *x += by);
            }));
        changed.unwrap();
        assert!(
            applied
                .iter()
                .copied()
                .eq(pixels.iter().map(|&x| body(x) + by))
        );
        let limit = 200u8;
        let above = kernel!(|limit: u8| |part: &[u8]| {
            part.iter().filter(|&&x| x > limit).count() as u64
        });
        let count = engine
            .par(&pixels)
            .reduce(above, (), |a: u64, b: u64| a + b);
        let expected = pixels.iter().filter(|&&x| x > limit).count();
        assert_eq!(count.unwrap(), expected as u64);
    });
}

fn actors() {
    both(|engine| {
        let (first, by) = (5u64, 2u64);
        let list = engine
            .actor(kernel!(|first: u64| || vec![first]), ())
            .start();
        let push = kernel!(|by: u64| |list: &mut Vec<u64>, x: u64| {
            list.push(x * by);
            list.len() as u64
        });
        assert_eq!(list.call(push, (7,)).wait().unwrap(), 2);
        let sum = kernel!(|by: u64| |list: &Vec<u64>| list.iter().sum::<u64>() * by);
        let sum = block_on(async { list.call_async(sum, ()).await.await });
        assert_eq!(sum.unwrap(), 38);
    });
}

fn streams() {
    both(|engine| {
        let (by, end) = (3u64, 1u64);
        let items = Stream::new(0..10u64)
            .stage(kernel!(|by: u64| |x: u64, more: u64| x * by + more), (5,))
            .stage_with(|x: u64, end: u64| x + end, move |x| ((), (x, end)));
        let got: Vec<u64> = items.run(engine).map(|item| item.unwrap().1).collect();
        assert_eq!(got, (0..10).map(|x| x * 3 + 6).collect::<Vec<u64>>());
        let sums = Stream::new((0..6).map(|n| n as f32))
            .window(Windows::count(3))
            .unwrap();
        let by = 10.0f32;
        let sums = sums.items().stage_with(
            kernel!(|by: f32| |x: &[f32]| x.iter().sum::<f32>() * by),
            |window| ((), (window.value,)),
        );
        let sums: Vec<f32> = sums.run(engine).map(|sum| sum.unwrap().1).collect();
        assert_eq!(sums, [30.0, 120.0]);
    });
}

fn eight_of_eight() {
    both(|engine| {
        let (a, b, c, d, e, f, g, h) = (1u8, 2u16, 3u32, 4u64, 5i8, 6i16, 7i32, 8i64);
        let sum = kernel!(
            |a: u8, b: u16, c: u32, d: u64, e: i8, f: i16, g: i32, h: i64| |i: u8,
                                                                            j: u16,
                                                                            k: u32,
                                                                            [l, m]: [u64; 2],
                                                                            mut n: i8,
                                                                            (o, p): (i16, i32),
                                                                            q: i64|
             -> i64 {
                n += 1;
                let left = [
                    a.into(),
                    b.into(),
                    c.into(),
                    d as i64,
                    e.into(),
                    f.into(),
                    g.into(),
                    h,
                ];
                let right = [
                    i.into(),
                    j.into(),
                    k.into(),
                    l as i64,
                    m as i64,
                    n.into(),
                    o.into(),
                ];
                left.iter().chain(&right).sum::<i64>() + i64::from(p) + q
            }
        );
        let job = engine.submit(sum, (9, 10, 11, [12, 13], 13, (15, 16), 17));
        assert_eq!(job.wait().unwrap(), (1..=17).sum::<i64>());
    });
}

/// Has a kernel that uses its own functions.
struct Scaled(Array<u32>);

impl Scaled {
    const BY: u32 = 3;

    fn scale(x: u32) -> u32 {
        x * Self::BY
    }

    fn total(&self, engine: &Engine) -> u32 {
        let values = &self.0;
        let sum = kernel!(|values: &[u32]| || values.iter().map(|&x| Self::scale(x)).sum::<u32>());
        engine.submit(sum, ()).wait().unwrap()
    }
}

fn generic_bodies_and_methods() {
    fn total<T: arenite::Element + Into<f64>>(engine: &Engine, values: &Array<T>) -> f64 {
        let sum = kernel!(|values: &Array<T>| || values.iter().map(|&x| x.into()).sum::<f64>());
        engine.submit(sum, ()).wait().unwrap()
    }
    both(|engine| {
        let bytes = engine.from_slice(&[1u8, 2]).unwrap();
        let floats = engine.from_slice(&[0.5f32, 0.25]).unwrap();
        let sums = (total(engine, &bytes), total(engine, &floats));
        assert_eq!(sums, (3.0, 0.75));
        let scaled = Scaled(engine.from_slice(&[1, 2, 3]).unwrap());
        assert_eq!(scaled.total(engine), 18);
    });
}

fn retries_run_with_them_again() {
    let lab = Lab::new(2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tried");
    let path = path.to_str().unwrap();
    let values = lab.from_slice(&[1u32, 2]).unwrap();
    let second = kernel!(|path: &str, values: &[u32]| |by: u32| -> u32 {
        if std::fs::File::create_new(path).is_ok() {
            std::process::abort();
        }
        values.iter().sum::<u32>() * by
    });
    let job = lab.job(second, 10).retries(1).submit();
    assert_eq!(job.wait().unwrap(), 30);
}
