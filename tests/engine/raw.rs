//! Buffers of bytes for bindings of other languages: read or changed in place by address.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arenite::raw::{Buffer, Buffers, Received};
use arenite::{Array, Backoff, Bytes, Engine, JobErrorKind, Rejection, Sandbox, WorkerExit};
use arenite_memory::{CowHeap, PrivateCopy};

use crate::harness::{
    ABORTED, Calls, Dice, Gate, Lab, assert_says, by_signal, pass, rejected, step, tests,
    wait_until,
};

tests![
    bytes_are_read_and_changed_where_they_are,
    parts_of_one_page_are_changed_by_many_workers,
    buffers_of_one_job_must_not_overlap,
    parts_of_buffers_of_one_job_may_lie_between_each_other,
    a_loan_keeps_its_memory,
    a_worker_that_dies_with_a_loan,
    a_job_with_a_loan_is_tried_once,
    what_was_lent_may_be_returned,
    results_are_lent_to_any_worker,
    pages_are_closed_after_the_job,
    pages_that_another_lane_needs_stay_open,
    loans_are_refused_where_nothing_is_lent,
    buffers_of_another_engine_are_refused,
    a_received_buffer_escapes_like_an_array,
    memory_may_change_while_handles_exist,
    private_copies_are_changed_for_their_job_alone_and_stay,
    private_copies_of_the_program_keep_their_memory_and_are_counted,
    what_was_written_to_a_private_copy_is_passed,
    snapshots_do_not_change_and_what_is_kept_of_them_stays,
];

/// Lends bytes to a job.
fn lend(array: Array<u8>) -> Buffer<'static> {
    // SAFETY: the tests refer to lent bytes only after the job has been answered, and lend them once at a time.
    unsafe { Buffer::write(array) }
}

/// Writes through the address, as another language does.
fn fill(array: &mut arenite::ArrayMut<u8>, value: u8) {
    // SAFETY: `len` bytes are lent to this job.
    unsafe { array.as_mut_ptr().write_bytes(value, array.len()) };
}

/// Adds up all bytes that it reads, and fills the others with `value`.
fn run(buffers: Buffers<'_>, value: u8) -> u64 {
    let mut sum = 0;
    for buffer in buffers {
        match buffer {
            Received::Read(array) => sum += array.iter().map(|&x| u64::from(x)).sum::<u64>(),
            Received::Write(mut array) => fill(&mut array, value),
            Received::Value(_) => unreachable!("no job is passed"),
        }
    }
    sum
}

fn bytes_are_read_and_changed_where_they_are() {
    let lab = Lab::balanced(2);
    let mut dice = Dice::new(1);
    for engine in [&*lab, &Engine::inline()] {
        for len in [1usize, 4096, 20_000, 100_000] {
            let array = engine.from_fn(len, |i| i as u8 % 100).unwrap();
            let mut expected = array.to_vec();
            for _ in 0..20 {
                let below = |dice: &mut Dice, limit: usize| dice.below(limit as u64 + 1) as usize;
                let middle = below(&mut dice, len);
                let (from, to) = (
                    below(&mut dice, middle),
                    middle + below(&mut dice, len - middle),
                );
                let buffers = vec![
                    Buffer::read(array.rows(..from)),
                    lend(array.rows(from..middle)),
                    Buffer::read(array.rows(to..)),
                    lend(array.rows(middle..to)),
                ];
                let read = expected[..from].iter().chain(&expected[to..]);
                let sum = read.map(|&x| u64::from(x)).sum::<u64>();
                assert_eq!(engine.value_of(run, (buffers, 201)), sum);
                expected[from..to].fill(201);
                assert_eq!(array[..], expected);
                // Back to what it was, by another job.
                let buffers = vec![lend(array.rows(from..to))];
                assert_eq!(engine.value_of(run, (buffers, 7)), 0);
                expected[from..to].fill(7);
                assert_eq!(array[..], expected);
            }
        }
        assert_eq!(engine.value_of(run, (vec![], 1)), 0);
    }
}

/// The shape arrives too, and other parameters stand beside buffers.
fn parts_of_one_page_are_changed_by_many_workers() {
    fn number(name: &Bytes, buffers: Buffers<'_>, value: u8) -> Bytes {
        assert_eq!(buffers.len(), 1);
        for buffer in buffers {
            let Received::Write(mut array) = buffer else {
                panic!("it is lent");
            };
            assert_eq!(array.shape().dims()[1], 3);
            fill(&mut array, value);
        }
        name.clone()
    }
    const PARTS: usize = 80;
    for lanes in [1, 3] {
        let lab = Lab::balanced_with(2, |builder| builder.lanes(lanes));
        let array = lab.zeros::<u8>([PARTS * 37, 3]).unwrap().seal();
        for round in 0..5u8 {
            let jobs: Vec<_> = (0..PARTS)
                .map(|part| {
                    let rows = array.rows(part * 37..(part + 1) * 37);
                    lab.submit(number, (b"name", vec![lend(rows)], part as u8 + round))
                })
                .collect();
            for job in jobs {
                assert_eq!(*job.wait().unwrap(), *b"name");
            }
            for part in 0..PARTS {
                let rows = array.rows(part * 37..(part + 1) * 37);
                assert!(rows.iter().all(|&x| x == part as u8 + round));
            }
        }
    }
}

fn buffers_of_one_job_must_not_overlap() {
    let lab = Lab::new(1);
    let array = lab.zeros::<u8>(5000).unwrap().seal();
    let read = |rows| Buffer::read(array.rows(rows));
    // SAFETY: no reference is formed by the job, which is refused.
    let write = |rows| unsafe { Buffer::write(array.rows(rows)) };
    for buffers in [
        vec![read(0..100), write(99..200)],
        vec![write(99..200), read(0..100)],
        vec![write(0..100), write(99..200)],
        vec![write(0..5000), write(4999..5000)],
    ] {
        let error = lab.error_of(run, (buffers, 1));
        let JobErrorKind::Lost(WorkerExit::Protocol(why)) = error.kind() else {
            panic!("{error}");
        };
        assert_says(&why, "overlap");
    }
    let apart = vec![read(0..100), write(100..200), read(200..300), read(0..100)];
    assert_eq!(lab.value_of(run, (apart, 1)), 0);
    assert_eq!(array.iter().map(|&x| u64::from(x)).sum::<u64>(), 100);
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

/// Writes to every second byte from `first` on.
fn fill_every_second(buffers: Buffers<'_>, value: u8) {
    for (first, buffer) in buffers.enumerate() {
        let Received::Write(mut array) = buffer else {
            panic!("it is lent");
        };
        for at in (first..array.len()).step_by(2) {
            // SAFETY: the byte is lent to this job, through this buffer alone.
            unsafe { *array.as_mut_ptr().add(at) = value + first as u8 };
        }
    }
}

fn parts_of_buffers_of_one_job_may_lie_between_each_other() {
    let lab = Lab::new(1);
    for engine in [&*lab, &Engine::inline()] {
        let array = engine.zeros::<u8>(10_001).unwrap().seal();
        // SAFETY: the job changes the bytes with even numbers through one buffer, and the others through the other one.
        let parts = || unsafe { Buffer::write_parts(array.rows(..)) };
        engine.value_of(fill_every_second, (vec![parts(), parts()], 5));
        assert!((0..array.len()).all(|at| array[at] == 5 + at as u8 % 2));
    }
}

fn at_gate(gate: &str, buffers: Buffers<'_>, value: u8) -> u64 {
    pass(gate);
    run(buffers, value)
}

/// All handles are dropped while the job runs: its memory is given to nobody else.
fn a_loan_keeps_its_memory() {
    const LEN: usize = 1 << 20;
    let lab = Lab::balanced(1);
    let gate = Gate::new();
    let array = lab.zeros::<u8>(LEN).unwrap().seal();
    let buffers = vec![lend(array.rows(10..20))];
    drop(array);
    let job = lab.submit(at_gate, (gate.path(), buffers, 9));
    let held = gate.meet();
    assert!(lab.stats().arena.in_use >= LEN as u64);
    let others: Vec<_> = (0..20).map(|_| lab.zeros::<u8>(LEN).unwrap()).collect();
    drop(held);
    job.wait().unwrap();
    assert!(others.iter().all(|other| other.iter().all(|&x| x == 0)));
    drop(others);
    lab.assert_in_use(0);
    // The same for a job whose handle is dropped: it is cancelled, and may run on.
    let gate = Gate::new();
    let array = lab.zeros::<u8>(LEN).unwrap().seal();
    let job = lab.submit(at_gate, (gate.path(), vec![lend(array)], 9));
    let held = gate.meet();
    drop(job);
    assert!(lab.stats().arena.in_use >= LEN as u64);
    drop(held);
}

fn a_worker_that_dies_with_a_loan() {
    fn fill_and_die(buffers: Buffers<'_>, value: u8) {
        run(buffers, value);
        std::process::abort();
    }
    let lab = Lab::balanced(1);
    let array = lab.zeros::<u8>(10_000).unwrap().seal();
    for value in 1..4 {
        let buffers = vec![lend(array.rows(5..9000))];
        let error = lab.submit(fill_and_die, (buffers, value)).wait();
        let error = error.unwrap_err();
        assert_eq!(*error.kind(), ABORTED);
        assert_eq!(
            (array[4], array[5], array[8999], array[9000]),
            (0, value, value, 0)
        );
    }
    assert_eq!(lab.value_of(run, (vec![lend(array.rows(..))], 8)), 0);
    assert!(array.iter().all(|&x| x == 8));
}

fn a_job_with_a_loan_is_tried_once() {
    fn fill_and_panic(buffers: Buffers<'_>, value: u8) {
        run(buffers, value);
        panic!("each time");
    }
    let lab = Lab::new(1);
    let array = lab.zeros::<u8>(100).unwrap().seal();
    let attempts = |buffers: Vec<Buffer>| {
        let job = lab
            .job(fill_and_panic, (buffers, 1))
            .retries(3)
            .backoff(Backoff::NONE);
        job.submit().wait().unwrap_err().attempt()
    };
    assert_eq!(attempts(vec![Buffer::read(array.clone())]), 4);
    assert_eq!(
        attempts(vec![Buffer::read(array.rows(50..)), lend(array.rows(..50))]),
        1
    );
    assert!(array[..50].iter().all(|&x| x == 1) && array[50..].iter().all(|&x| x == 0));
}

/// Fills what it may write with `value`, and returns all.
fn returned(buffers: Buffers<'_>, value: u8) -> Vec<Array<u8>> {
    let arrays = buffers.map(|buffer| match buffer {
        Received::Read(array) => array,
        Received::Write(mut array) => {
            fill(&mut array, value);
            array.seal()
        }
        Received::Value(_) => panic!("it takes no job"),
    });
    arrays.collect()
}

/// The memory itself comes back, with what the job wrote there.
fn what_was_lent_may_be_returned() {
    fn back(buffers: Buffers<'_>) -> (Bytes, Vec<Array<u8>>) {
        let mut arrays = returned(buffers, 3);
        arrays.push(arrays[1].rows(1..2));
        arrays.push(Array::from_slice(b"fresh"));
        (Bytes::from(b"head"), arrays)
    }
    let lab = Lab::balanced(2);
    for engine in [&*lab, &Engine::inline()] {
        for len in [300usize, 300_000] {
            let array = engine.zeros::<u8>(len).unwrap().seal();
            let parts = [
                array.rows(..len / 3),
                array.rows(len / 3..len / 2),
                array.rows(len - 1..),
            ];
            let [a, b, c] = parts.clone();
            let buffers = vec![Buffer::read(a), lend(b), Buffer::read(c)];
            let (head, arrays) = engine.value_of(back, (buffers,));
            assert_eq!((*head).as_ref(), b"head");
            assert_eq!(arrays.len(), 5);
            for (array, part) in arrays.iter().zip(&parts) {
                assert_eq!((array.as_ptr(), array.len()), (part.as_ptr(), part.len()));
            }
            assert!(arrays[1].iter().all(|&x| x == 3));
            assert_eq!(arrays[3].as_ptr().addr(), parts[1].as_ptr().addr() + 1);
            assert_eq!(arrays[4][..], *b"fresh");
            drop((array, parts));
            // The block lives as long as one of them.
            assert_eq!(arrays[3][..], [3]);
        }
    }
}

fn results_are_lent_to_any_worker() {
    fn ramp(len: usize) -> Array<u8> {
        Array::from_fn(len, |i| i as u8)
    }
    let lab = Lab::balanced(2);
    for len in [1000usize, 200_000] {
        let made = lab.value_of(ramp, (len,));
        // Each worker has it in turn, the one that made it as well, and goes on to make others in the same memory.
        for value in 0..20u8 {
            let job = lab.submit(run, (vec![lend(made.rows(1..len - 1))], value));
            let other = lab.value_of(ramp, (len,));
            job.wait().unwrap();
            assert!(made[1..len - 1].iter().all(|&x| x == value));
            assert_eq!((made[0], made[len - 1]), (0, (len - 1) as u8));
            assert!(other.iter().enumerate().all(|(i, &x)| x == i as u8));
        }
    }
}

/// In a worker: the address of what was lent.
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

fn note(buffers: Buffers<'_>) {
    for buffer in buffers {
        let Received::Write(mut array) = buffer else {
            panic!("it is lent");
        };
        fill(&mut array, 1);
        ADDRESS.store(array.as_mut_ptr().expose_provenance(), Ordering::Relaxed);
    }
}

fn stray() {
    let address = ADDRESS.load(Ordering::Relaxed);
    // SAFETY: none: the page is closed, and the write ends this process.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(2) };
}

fn pages_are_closed_after_the_job() {
    let lab = Lab::new(1);
    let array = lab.zeros::<u8>(10_000).unwrap().seal();
    let made = lab.value_of(|| Array::<u8>::zeros(10_000), ());
    for array in [&array, &made] {
        lab.value_of(note, (vec![lend(array.rows(100..200))],));
        // The own pages of a worker close with their grant.
        if std::ptr::eq(array, &made) {
            continue;
        }
        let error = lab.error_of(stray, ());
        assert_eq!(*error.kind(), by_signal(libc::SIGSEGV), "{error}");
        assert_eq!(
            (array[99], array[100], array[199], array[200]),
            (0, 1, 1, 0)
        );
    }
}

/// One lane writes to a page for as long as another one borrows and returns other bytes of it.
fn pages_that_another_lane_needs_stay_open() {
    fn write_until(gate: &str, buffers: Buffers<'_>) -> u64 {
        let mut buffers: Vec<_> = buffers.collect();
        let Some(Received::Write(array)) = buffers.first_mut() else {
            panic!("it is lent");
        };
        let mut rounds = 0;
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| pass(gate));
            while !waiting.is_finished() || rounds == 0 {
                fill(array, rounds as u8);
                rounds += 1;
            }
        });
        fill(array, 77);
        rounds
    }
    const LEN: usize = 300_000;
    let lab = Lab::balanced_with(1, |builder| builder.lanes(2));
    let given = lab.zeros::<u8>(LEN).unwrap().seal();
    // In the region that the worker itself writes: there a chunk is closed when it is returned.
    let made = lab.value_of(|| Array::<u8>::zeros(LEN), ());
    for array in [given, made] {
        let gate = Gate::new();
        let middle = vec![lend(array.rows(150_000..150_010))];
        let job = lab.submit(write_until, (gate.path(), middle));
        let held = gate.meet();
        for _ in 0..20 {
            let buffers = vec![
                Buffer::read(array.rows(..150_000)),
                lend(array.rows(150_010..150_050)),
                Buffer::read(array.rows(150_050..)),
            ];
            let arrays = lab.value_of(returned, (buffers, 5));
            assert!(arrays[1].iter().all(|&x| x == 5));
        }
        drop(held);
        step("the writing job to end");
        assert!(job.wait().unwrap() > 0);
        assert!(array[150_000..150_010].iter().all(|&x| x == 77));
    }
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

fn loans_are_refused_where_nothing_is_lent() {
    let lab = Lab::with(1, |builder| builder.sandbox(Sandbox::Strict));
    let array = lab.from_slice(&[1u8; 100]).unwrap();
    let error = lab.submit(run, (vec![lend(array.clone())], 1)).wait();
    let refused = rejected(Rejection::Lending);
    assert_eq!(*error.unwrap_err().kind(), refused);
    let read = vec![Buffer::read(array.clone()), Buffer::read(array.clone())];
    assert_eq!(lab.value_of(run, (read, 1)), 200);
    // The state of an actor would outlive the loan.
    let lab = Lab::new(1);
    let array = lab.from_slice(&[1u8; 100]).unwrap();
    let state = lab.actor(run, (vec![lend(array.clone())], 1)).start();
    let error = state.call(|sum: &mut u64| *sum, ()).wait().unwrap_err();
    assert_eq!(*error.kind(), refused, "{error}");
    let state = lab.actor(run, (vec![Buffer::read(array)], 1)).start();
    assert_eq!(state.call(|sum: &mut u64| *sum, ()).wait().unwrap(), 100);
}

fn buffers_of_another_engine_are_refused() {
    let (lab, other) = (Lab::new(1), Lab::new(1));
    let foreign = other.from_slice(&[1u8; 100]).unwrap();
    for array in [foreign, Array::from_slice(&[1u8; 100])] {
        for buffer in [Buffer::read(array.clone()), lend(array)] {
            let error = lab.error_of(run, (vec![buffer], 1));
            assert_eq!(*error.kind(), rejected(Rejection::ForeignArray));
        }
    }
}

fn a_received_buffer_escapes_like_an_array() {
    static KEPT: Mutex<Vec<Received>> = Mutex::new(Vec::new());
    fn keep(buffers: Buffers<'_>) {
        KEPT.lock().unwrap().extend(buffers);
    }
    let lab = Lab::balanced(1);
    let array = lab.from_slice(&[1u8; 10_000]).unwrap();
    for lent in [false, true] {
        let buffer = match lent {
            false => Buffer::read(array.clone()),
            true => lend(array.clone()),
        };
        let error = lab.error_of(keep, (vec![buffer],));
        let escaped = JobErrorKind::Lost(WorkerExit::Escaped { count: 1 });
        assert_eq!(*error.kind(), escaped, "{error}");
    }
}

/// What another language does: it writes to an array of this process while a job reads it by address.
fn memory_may_change_while_handles_exist() {
    fn await_byte(buffers: Buffers<'_>) -> u64 {
        let arrays: Vec<_> = arrays(buffers).collect();
        let mut rounds = 0;
        // SAFETY: the first byte of an array that lives; it may change at any time, and is read without a reference.
        while unsafe { arrays[0].as_ptr().read_volatile() } != 9 {
            rounds += 1;
            std::thread::yield_now();
        }
        rounds
    }
    let lab = Lab::new(1);
    let array = lab.zeros::<u8>(1000).unwrap().seal();
    let job = lab.submit(await_byte, (vec![Buffer::read(array.clone())],));
    wait_until("the job runs", || lab.stats().open == 1);
    // SAFETY: the memory is writable, and no reference to it exists.
    unsafe { array.as_ptr().cast_mut().write_volatile(9) };
    step("the job to see the byte");
    job.wait().unwrap();
}

fn arrays(buffers: Buffers<'_>) -> impl Iterator<Item = Array<u8>> {
    buffers.map(|buffer| match buffer {
        Received::Read(array) => array,
        other => panic!("{other:?} is not to be read"),
    })
}

/// The first byte, one in the middle and the last one, of memory at this address.
fn look(at: *const u8, len: usize) -> Vec<u8> {
    let places = [0, len / 2, len - 1];
    // SAFETY: callers pass memory of `len` bytes, which nothing else changes meanwhile.
    places
        .map(|place| unsafe { at.add(place).read_volatile() })
        .to_vec()
}

/// In an engine that lets jobs leave handles behind, and in one that does not: a private copy is no handle.
fn private_copies_are_changed_for_their_job_alone_and_stay() {
    static COPIES: Mutex<Vec<Arc<PrivateCopy>>> = Mutex::new(Vec::new());
    fn change(buffers: Buffers<'_>, keeps: u8) -> Vec<u8> {
        let mut seen = Vec::new();
        for array in arrays(buffers) {
            let copy = PrivateCopy::of(&array).unwrap();
            assert_eq!(copy.len(), array.len());
            // SAFETY: the byte in the middle of a copy that this job alone has.
            unsafe { copy.as_ptr().add(copy.len() / 2).write_volatile(9) };
            seen.extend(look(copy.as_ptr(), copy.len()));
            seen.extend(look(array.as_ptr(), array.len()));
            if keeps == 1 {
                COPIES.lock().unwrap().push(copy);
            }
        }
        seen
    }
    fn kept() -> Vec<u8> {
        let copies = COPIES.lock().unwrap();
        let seen = copies.iter().map(|copy| look(copy.as_ptr(), copy.len()));
        seen.collect::<Vec<_>>().concat()
    }
    for lab in [
        Lab::new(1),
        Lab::with(1, |builder| builder.retain_escaped(|| {})),
    ] {
        let mut expected = Vec::new();
        for len in [1 << 10, 70_000, 5 << 20] {
            let array = lab.from_slice(&vec![1u8; len]).unwrap();
            for keeps in [0, 1, 0] {
                // Also of a part, and twice of the same bytes.
                let parts = [array.clone(), array.rows(len / 3..), array.clone()];
                let buffers = Vec::from(parts.map(Buffer::read));
                let seen = lab.value_of(change, (buffers, keeps));
                assert_eq!(seen, [1, 9, 1, 1, 1, 1].repeat(3));
            }
            expected.extend([1, 9, 1].repeat(3));
            assert!(array.iter().all(|&x| x == 1));
            drop(array);
            // The memory is free, and others write there.
            let others: Vec<_> = (0..3)
                .map(|_| lab.from_slice(&vec![5u8; len]).unwrap())
                .collect();
            assert_eq!(lab.value_of(kept, ()), expected);
            drop(others);
        }
        assert_eq!(lab.stats().restarts(), 0);
        lab.assert_in_use(0);
    }
    assert!(PrivateCopy::of(&Array::from_slice(&[1u8; 100])).is_none());
}

fn private_copies_of_the_program_keep_their_memory_and_are_counted() {
    let lab = Lab::new(1);
    for len in [1 << 10, 70_000, 5 << 20] {
        let array = lab.from_slice(&vec![1u8; len]).unwrap();
        let (copy, part) = (
            PrivateCopy::of(&array).unwrap(),
            PrivateCopy::of(&array.rows(len / 3..)).unwrap(),
        );
        let is_written = |range| copy.unwritten(range).is_none();
        assert!(!is_written(0..len) && !is_written(len..len));
        // SAFETY: the last byte of a copy that this thread alone has.
        unsafe { copy.as_ptr().add(len - 1).write_volatile(9) };
        assert!(is_written(len - 1..len) && is_written(0..len));
        // Another page.
        assert_eq!(is_written(0..1), len < 1 << 16);
        assert_eq!(part.unwritten(0..part.len()).unwrap()[..], array[len / 3..]);
        assert!(copy.snapshot(0..len).is_none(), "there are other handles");
        assert!(array.iter().all(|&x| x == 1));
        drop(array);
        // The memory is not free.
        let others: Vec<_> = (0..3)
            .map(|_| lab.from_slice(&vec![5u8; len]).unwrap())
            .collect();
        assert_eq!(look(copy.as_ptr(), len), [1, 1, 9]);
        assert_eq!(look(part.as_ptr(), part.len()), [1, 1, 1]);
        drop(others);
    }
    lab.assert_in_use(0);
    // A program may not use up all of the maps that Linux gives it.
    let array = lab.from_slice(&[1u8; 4096]).unwrap();
    let mut copies: Vec<_> = std::iter::from_fn(|| PrivateCopy::of(&array)).collect();
    assert_eq!(copies.len(), 16 << 10);
    copies.pop();
    assert!(PrivateCopy::of(&array).is_some());
}

fn what_was_written_to_a_private_copy_is_passed() {
    let lab = Lab::balanced(1);
    for len in [70_000, 5 << 20] {
        // Its first and last pages have other arrays too.
        let mut arrays: Vec<_> = (0..3u8)
            .map(|n| lab.from_slice(&vec![n; len + usize::from(n)]).unwrap())
            .collect();
        let copy = PrivateCopy::of(&arrays[1]).unwrap();
        let len = copy.len();
        drop(arrays.remove(1));
        // SAFETY: a byte of the copy, which this thread alone has.
        let write = |at: usize, value: u8| unsafe { copy.as_ptr().add(at).write_volatile(value) };
        write(0, 7);
        write(len - 1, 8);
        let Some((first, copied)) = copy.snapshot(0..len) else {
            // Linux finds no writes, or does not allow it.
            continue;
        };
        assert!((2..=8192).contains(&copied), "{copied}");
        let seen = |array: &Array<u8>| {
            let job = lab.submit(run, (vec![Buffer::read(array.clone())], 0));
            job.wait().unwrap();
            look(array.as_ptr(), len)
        };
        assert_eq!(seen(&first), [7, 1, 8]);
        write(len / 2, 9);
        assert!(copy.snapshot(0..len).is_none(), "the first one is read");
        assert_eq!(copy.unwritten(0..1).unwrap()[..], [7]);
        assert_eq!(look(first.as_ptr(), len), [7, 1, 8]);
        drop(first);
        wait_until("no job has it", || copy.snapshot(0..len).is_some());
        assert_eq!(seen(&copy.unwritten(0..len).unwrap()), [7, 9, 8]);
        assert!(
            arrays
                .iter()
                .zip([0, 2])
                .all(|(array, n)| array.iter().all(|&x| x == n))
        );
    }
}

fn snapshots_do_not_change_and_what_is_kept_of_them_stays() {
    static SNAPSHOTS: Mutex<Vec<Array<u8>>> = Mutex::new(Vec::new());
    fn see(gate: &str, buffers: Buffers<'_>, keeps: u8) -> Vec<u8> {
        pass(gate);
        let mut seen = Vec::new();
        for array in arrays(buffers) {
            seen.extend(look(array.as_ptr(), array.len()));
            if keeps == 1 {
                SNAPSHOTS.lock().unwrap().push(array);
            }
        }
        seen
    }
    fn kept() -> Vec<u8> {
        let arrays = SNAPSHOTS.lock().unwrap();
        let seen = arrays.iter().map(|array| look(array.as_ptr(), array.len()));
        seen.collect::<Vec<_>>().concat()
    }
    const LEN: usize = 5 << 20;
    let heap = CowHeap::new("heap-snapshots").unwrap();
    for lab in [
        Lab::new(1),
        Lab::with(1, |builder| builder.retain_escaped(|| {})),
    ] {
        let mut expected = Vec::new();
        for round in 1..=6u8 {
            let block = heap.alloc(LEN, false).unwrap();
            // SAFETY: this thread alone has the block, until it is freed.
            let fill = |value: u8| unsafe { block.as_ptr().write_bytes(value, LEN) };
            fill(round);
            let (snapshot, _) = heap.snapshot(block.addr().get(), LEN).unwrap();
            let (part, _) = heap.snapshot(block.addr().get() + 100, 70_000).unwrap();
            let gate = Gate::new();
            let buffers = vec![Buffer::read(snapshot), Buffer::read(part)];
            let job = lab.submit(see, (gate.path(), buffers, u8::from(round % 2 == 0)));
            let held = gate.meet();
            fill(100);
            // SAFETY: not used from here on, unless it is written once more.
            let free = || assert!(unsafe { heap.free(block) });
            let is_written_again = round > 3;
            if !is_written_again {
                free();
            }
            // The job still has it.
            let other = heap.alloc(LEN, false).unwrap();
            // SAFETY: as for the first block.
            unsafe {
                other.as_ptr().write_bytes(200, LEN);
                assert!(heap.free(other));
            }
            drop(held);
            step("the job to read its snapshots");
            assert_eq!(job.wait().unwrap(), [round; 6]);
            if round % 2 == 0 {
                expected.extend([round; 6]);
            }
            if is_written_again {
                // Passed again, with what was written since.
                for value in [101, 102] {
                    fill(value);
                    let again = heap.snapshot(block.addr().get(), LEN);
                    assert!(again.is_none_or(|(again, _)| again[LEN - 1] == value));
                    assert_eq!(lab.value_of(kept, ()), expected);
                }
                free();
            }
            wait_until("the memory is free", || heap.in_use().0 == 0);
            // In its place.
            let other = heap.alloc(LEN, false).unwrap();
            // SAFETY: as for the first block.
            unsafe {
                other.as_ptr().write_bytes(201, LEN);
                assert!(heap.free(other));
            }
            assert_eq!(lab.value_of(kept, ()), expected);
        }
        assert_eq!(lab.stats().restarts(), 0);
        lab.assert_in_use(0);
    }
    // A worker in a sandbox gets a copy.
    let lab = Lab::with(1, |builder| builder.sandbox(Sandbox::Strict));
    let block = heap.alloc(LEN, true).unwrap();
    let (snapshot, _) = heap.snapshot(block.addr().get(), LEN).unwrap();
    assert_eq!(lab.value_of(run, (vec![Buffer::read(snapshot)], 1)), 0);
    // SAFETY: not used from here on.
    assert!(unsafe { heap.free(block) });
}
