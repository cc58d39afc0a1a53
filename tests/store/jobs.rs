//! Arrays of a store as arguments of jobs: mapped by the workers, not copied.

use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::path::Path;

use arenite::array::npy;
use arenite::raw::{Buffer, Buffers, Received};
use arenite::{Array, JobErrorKind, Rejection, Sandbox, SandboxReport};
use arenite_store::Kind;

use crate::harness::programs::{Program, say};
use crate::harness::{
    Calls, Lab, assert_kind, assert_says, by_signal, rejected, tests, wait_until,
};
use crate::programs::{Home, SOCKET, descriptors};

/// What the program for [`a_program_that_forbids_it`] is called.
pub const UNDUMPABLE: &str = "undumpable";

tests![
    every_parameter_takes_them,
    a_small_array_is_copied,
    an_array_without_bytes,
    a_retry_maps_it_again,
    a_job_keeps_an_array_that_is_gone_elsewhere,
    an_actor_keeps_an_array_that_was_removed,
    a_handle_may_outlive_its_job,
    a_kernel_returns_a_copy,
    a_write_costs_the_job,
    arrays_that_can_change_are_rejected,
    a_descriptor_that_is_another_file_costs_the_job,
    nothing_stays_open_or_mapped,
    a_program_short_of_descriptors_keeps_none,
    a_program_that_forbids_it;
    where SandboxReport::of_this_kernel().lacking().is_empty() => sandboxed_workers_get_copies,
];

const LEN: usize = 300_000;

/// A table of 1000 rows in a store of its own.
struct Table {
    home: Home,
    server: Program,
    array: Array<f32>,
}

impl Table {
    fn new() -> Table {
        let home = Home::new();
        let server = home.serve();
        let store = home.connect();
        let mut draft = store
            .draft(Kind::array::<f32>([1000, LEN / 1000]), LEN * 4)
            .unwrap();
        fill(draft.elements_mut());
        draft.publish("table").unwrap();
        let array = store.get("table").unwrap();
        Table {
            home,
            server,
            array,
        }
    }

    /// Leaves only the handle: the object is removed, and the server ends.
    fn orphan(mut self) -> Array<f32> {
        self.home.connect().remove("table").unwrap();
        self.server.kill();
        self.server.wait().assert_killed();
        self.array
    }
}

fn fill(elements: &mut [f32]) {
    for (index, element) in elements.iter_mut().enumerate() {
        *element = (index % 97) as f32;
    }
}

fn sum_of(values: &[f32]) -> f64 {
    values.iter().copied().map(f64::from).sum()
}

fn sum_array(values: &Array<f32>) -> f64 {
    sum_of(values)
}

fn sum_list(values: &[Array<f32>]) -> f64 {
    values.iter().map(sum_array).sum()
}

/// Number of maps of objects in a process.
fn maps(pid: i32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.matches("memfd:arenite-object").count()
}

fn every_parameter_takes_them() {
    assert_taken(&Lab::balanced(2), &Table::new());
}

/// By every kind of parameter, as a whole and in parts, and in every kind of call.
fn assert_taken(lab: &Lab, table: &Table) {
    let one = &table.array;
    let (whole, row) = (sum_of(one), sum_of(&one.row(0)));
    let list = || vec![one.clone(), one.rows(..1)];
    for (sum, expected) in [
        (lab.value_of(sum_array, (one,)), whole),
        (lab.value_of(sum_of, (one,)), whole),
        (lab.value_of(sum_of, (one.clone(),)), whole),
        (lab.value_of(sum_of, (&one.rows(1..),)), whole - row),
        (lab.value_of(sum_list, (list(),)), whole + row),
        (lab.value_of(sum_list, (&list(),)), whole + row),
    ] {
        assert_eq!(sum, expected);
    }
    for at in [0, 1, 17, 999] {
        let third = lab.value_of(|row: &[f32]| row.to_vec()[3], (&one.row(at),));
        assert_eq!(third, one.row(at)[3]);
    }
    let part = one.rows(500..700).rows(10..20);
    let shape = |part: &Array<f32>| part.shape().dims().len() as u32 * 1000 + part.len() as u32;
    assert_eq!(lab.value_of(shape, (&part,)), 5000);
    assert_eq!(lab.value_of(sum_of, (part.clone(),)), sum_of(&part));
    // More words than a slot of a link holds, next to an array of the arena.
    let sum = |a: &[f32], b: &[f32], c: &[f32], d: &Array<f32>, _: &str| {
        sum_of(a) + sum_of(b) + sum_of(c) + sum_of(d)
    };
    let copy = lab.import(one).unwrap();
    let text = "x".repeat(100);
    assert_eq!(lab.value_of(sum, (one, &copy, one, one, text)), 4. * whole);
    // The second part of a chain.
    let add = |sum: f64, more: &[f32]| sum + sum_of(more);
    let job = lab.job(sum_of, (one,)).then(add, (one,)).submit();
    assert_eq!(job.wait().unwrap(), 2. * whole);
    // Bytes for other languages.
    let count = |buffers: Buffers<'_>| {
        let count = |buffer| match buffer {
            Received::Read(array) => array.iter().filter(|&&byte| byte != 0).count() as u64,
            _ => 0,
        };
        buffers.map(count).sum::<u64>()
    };
    let (_, bytes) = table.home.connect().get_bytes("table").unwrap();
    let expected = bytes.iter().filter(|&&byte| byte != 0).count() as u64;
    assert_eq!(lab.value_of(count, (vec![Buffer::read(bytes)],)), expected);

    let rows = (0..1000).map(|at| (one.row(at),));
    let sums: Vec<f64> = lab.map(sum_of, rows).map(Result::unwrap).collect();
    assert_eq!(sums.iter().sum::<f64>(), whole);
    // Jobs at the same time share one copy in a sandbox: a hundred of their own would not fit.
    let element = |table: &[f32], at: u64| table[at as usize];
    let items = (0..2000).map(|at| (one, at * 7));
    let elements: Vec<f32> = lab.map(element, items).map(Result::unwrap).collect();
    assert!(elements.into_iter().eq((0..2000).map(|at| one[at * 7])));
    let doubled = lab.par(one).map(|x: f32| x * 2.).unwrap();
    assert_eq!(sum_of(&doubled), whole * 2.);
    let first = lab.submit(sum_of, (one,));
    let first = lab.submit(add, (first, one));
    let second = lab.submit(sum_list, (&list(),));
    let add = |a: f64, b: f64, table: &[f32]| a + b + f64::from(table[1]);
    let sum = lab.submit(add, (&first, &second, one)).wait().unwrap();
    assert_eq!(sum, 3. * whole + row + 1.);
    let make = |table: &Array<f32>| table.clone();
    let actor = lab.actor(make, (one,)).start();
    let sum = |held: &mut Array<f32>| sum_of(held);
    assert_eq!(actor.call(sum, ()).wait().unwrap(), whole);
}

fn a_small_array_is_copied() {
    let home = Home::new();
    let _server = home.serve();
    let store = home.connect();
    let before = descriptors(std::process::id() as i32);
    store.put("few", &Array::from_slice(&[1_f32, 2.])).unwrap();
    let few = store.get::<f32>("few").unwrap();
    assert_eq!(descriptors(std::process::id() as i32), before);
    let lab = Lab::balanced(1);
    assert_eq!(lab.value_of(sum_of, (&few,)), 3.);
    assert_eq!(lab.value_of(sum_of, (&few.rows(1..),)), 2.);
    assert_eq!(maps(lab.pid(0)), 0);
}

fn an_array_without_bytes() {
    let table = Table::new();
    let store = table.home.connect();
    store.put("none", &Array::<f32>::zeros([0, 3])).unwrap();
    let lab = Lab::new(1);
    let none = store.get::<f32>("none").unwrap();
    for none in [none, table.array.rows(1000..)] {
        assert_eq!(lab.value_of(sum_array, (&none,)), 0.);
    }
}

/// Ends its worker unless there is a file at this path.
fn dies_once(table: &Array<f32>, path: &str) -> f64 {
    let sum = sum_of(table);
    if !Path::new(path).exists() {
        std::fs::write(path, "").unwrap();
        std::process::abort();
    }
    sum
}

fn a_retry_maps_it_again() {
    let table = Table::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("died").display().to_string();
    let array = table.orphan();
    let expected = sum_of(&array);
    let lab = Lab::new(1);
    let job = lab.job(dies_once, (array, path)).retries(1).submit();
    assert_eq!(job.wait().unwrap(), expected);
    assert_eq!(lab.failures("dies_once"), 1);
}

fn a_job_keeps_an_array_that_is_gone_elsewhere() {
    let table = Table::new();
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let path = gate.display().to_string();
    let waits = |path: &str, table: &[f32]| {
        while !Path::new(path).exists() {
            std::thread::yield_now();
        }
        sum_of(table)
    };
    let expected = sum_of(&table.array);
    let lab = Lab::new(1);
    // One runs, one is queued, and no other handle is left.
    let jobs = [0, 1].map(|_| lab.submit(waits, (&path, &table.array)));
    drop(table.orphan());
    std::fs::write(gate, "").unwrap();
    for job in jobs {
        assert_eq!(job.wait().unwrap(), expected);
    }
}

fn an_actor_keeps_an_array_that_was_removed() {
    struct Held(Array<f32>);
    let table = Table::new();
    let expected = sum_of(&table.array);
    let lab = Lab::new(1);
    let make = |table: &Array<f32>| Held(table.clone());
    let save = |held: &Held| Array::from_slice(&[held.0.len() as u64]);
    let restore = |saved: &Array<u64>, table: &Array<f32>| {
        assert_eq!(saved[0], table.len() as u64);
        Held(table.clone())
    };
    let actor = lab.actor(make, (&table.array,));
    let actor = actor.checkpoint(1, save, restore).start();
    let sum = |held: &mut Held| sum_of(&held.0);
    assert_eq!(actor.call(sum, ()).wait().unwrap(), expected);
    drop(table.orphan());
    assert_eq!(actor.call(sum, ()).wait().unwrap(), expected);
    // A new worker makes the state from the same arguments.
    lab.replace(0);
    assert_eq!(actor.call(sum, ()).wait().unwrap(), expected);
    // What a call leaves in the state.
    let table = Table::new();
    let keep = |held: &mut Held, table: &Array<f32>| held.0 = table.rows(1..);
    actor.call(keep, (&table.array,)).wait().unwrap();
    let rest = sum_of(&table.array.rows(1..));
    drop(table.orphan());
    assert_eq!(actor.call(sum, ()).wait().unwrap(), rest);
}

fn a_handle_may_outlive_its_job() {
    thread_local! {
        static HELD: RefCell<Option<Array<f32>>> = const { RefCell::new(None) };
    }
    let table = Table::new();
    let expected = sum_of(&table.array);
    let lab = Lab::new(1);
    let keep = |table: &Array<f32>| HELD.set(Some(table.clone()));
    lab.value_of(keep, (&table.array,));
    drop(table.orphan());
    let sum = || HELD.with_borrow(|held| held.as_ref().map(sum_array).unwrap());
    assert_eq!(lab.value_of(sum, ()), expected);
    let stats = lab.stats();
    assert_eq!(stats.restarts(), 0, "{stats:?}");
}

fn a_kernel_returns_a_copy() {
    let table = Table::new();
    let lab = Lab::new(1);
    let tail = |table: &Array<f32>| table.rows(990..);
    let tail = lab.value_of(tail, (&table.array,));
    assert_eq!(tail, table.array.rows(990..));
    let whole = |table: &Array<f32>| table.clone();
    let whole = lab.value_of(whole, (&table.array,));
    assert_eq!(whole, table.array);
    // It is an array of the arena.
    let job = lab.submit(sum_of, (&whole,));
    assert_eq!(job.wait().unwrap(), sum_of(&table.array));
}

fn a_write_costs_the_job() {
    let table = Table::new();
    let lab = Lab::new(1);
    let write = |table: &Array<f32>| {
        // SAFETY: none: a bug, on purpose.
        unsafe { table.as_ptr().cast_mut().add(7).write_volatile(1.) }
    };
    let error = lab.error_of(write, (&table.array,));
    assert_eq!(*error.kind(), by_signal(libc::SIGSEGV), "{error}");
    let job = lab.submit(sum_of, (&table.array,));
    assert_eq!(job.wait().unwrap(), sum_of(&table.array));
    assert_eq!(table.array[7], 7.);
}

fn arrays_that_can_change_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.npy");
    npy::write(&path, &Array::<f32>::zeros(100_000)).unwrap();
    // SAFETY: nothing writes to it.
    let mapped = unsafe { npy::map::<f32>(&path) }.unwrap();
    let lab = Lab::new(1);
    for array in [mapped, Array::zeros(10)] {
        let error = lab.error_of(sum_of, (array,));
        assert_eq!(*error.kind(), rejected(Rejection::ForeignArray), "{error}");
    }
    let table = Table::new();
    let (_, bytes) = table.home.connect().get_bytes("table").unwrap();
    // SAFETY: it is rejected.
    let lent = unsafe { Buffer::write(bytes) };
    let error = lab.error_of(|_: Buffers<'_>| (), (vec![lent],));
    assert_eq!(*error.kind(), rejected(Rejection::ForeignArray), "{error}");
}

fn a_descriptor_that_is_another_file_costs_the_job() {
    let table = Table::new();
    let lab = Lab::new(1);
    let worker = lab.pid(0);
    let null = std::fs::File::open("/dev/null").unwrap();
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let objects = entries.filter(|entry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        target.to_string_lossy().contains("memfd:arenite-object")
    });
    let objects: Vec<i32> = objects
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    let [fd] = objects[..] else {
        panic!("{objects:?}")
    };
    // SAFETY: a bug, on purpose, in a program that has opened this number.
    assert_eq!(unsafe { libc::dup2(null.as_raw_fd(), fd) }, fd);
    let error = lab.error_of(sum_of, (&table.array,));
    assert_kind!(error, JobErrorKind::Returned(_));
    assert_says(&error, "engine.import");
    assert_says(&error, "another file");
    let copy = lab.import(&table.array).unwrap();
    let job = lab.submit(sum_of, (&copy,));
    assert_eq!(job.wait().unwrap(), sum_of(&table.array));
    assert_eq!(lab.pid(0), worker);
    drop(table);
    // SAFETY: the descriptor made above, which the array has left alone.
    assert_eq!(unsafe { libc::close(fd) }, 0);
}

fn nothing_stays_open_or_mapped() {
    let table = Table::new();
    let store = table.home.connect();
    let lab = Lab::new(1);
    let (own, worker) = (std::process::id() as i32, lab.pid(0));
    let once = || {
        let array = store.get::<f32>("table").unwrap();
        lab.value_of(sum_of, (array,))
    };
    once();
    // Maybe more than stay open: the thread that started the worker may still have its handshake, and the monitor opens
    // files for a moment.
    let before = (descriptors(own), descriptors(worker));
    for _ in 0..200 {
        once();
    }
    wait_until("there are no more descriptors than before", || {
        descriptors(own) <= before.0 && descriptors(worker) <= before.1
    });
    // Other tests of this program have maps of their own.
    wait_until("the worker has unmapped it", || maps(worker) == 0);
    assert_eq!(lab.pid(0), worker);
    // More files than a lane retains.
    let arrays: Vec<_> = (0..40)
        .map(|index| {
            let array = Array::from_fn(LEN, |i| (i + index) as f32);
            store.put(&format!("array {index}"), &array).unwrap();
            store.get::<f32>(&format!("array {index}")).unwrap()
        })
        .collect();
    let job = lab.submit(sum_list, (&arrays,));
    assert_eq!(job.wait().unwrap(), sum_list(&arrays));
    wait_until("the worker has unmapped them", || maps(worker) == 0);
}

fn a_program_short_of_descriptors_keeps_none() {
    let table = Table::new();
    let store = table.home.connect();
    let own = std::process::id() as i32;
    let before = descriptors(own);
    // Beyond half of the limit on descriptors, which other programs may have raised.
    let (soft, _) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let many = usize::try_from(soft / 2 + 10).unwrap_or(usize::MAX);
    if many > 20_000 {
        return;
    }
    let null = || std::fs::File::open("/dev/null").unwrap();
    let files: Vec<_> = (0..many).map(|_| null()).collect();
    let array = store.get::<f32>("table").unwrap();
    let others = files.len();
    assert!(descriptors(own) <= before + others);
    drop(files);
    let lab = Lab::balanced(1);
    let job = lab.submit(sum_of, (&array,));
    assert_eq!(job.wait().unwrap(), sum_of(&array));
    assert_eq!(maps(lab.pid(0)), 0);
}

fn a_program_that_forbids_it() {
    let table = Table::new();
    let mut program = table.home.start(UNDUMPABLE, || Ok(()));
    program.expect("done");
    program.wait().assert_done();
}

/// A program that no other may look into.
pub fn undumpable() {
    nix::sys::prctl::set_dumpable(false).unwrap();
    let store = arenite_store::connect(&std::env::var(SOCKET).unwrap()).unwrap();
    let array = store.get::<f32>("table").unwrap();
    let lab = Lab::new(1);
    let job = lab.submit(sum_of, (&array,));
    assert_eq!(job.wait().unwrap(), sum_of(&array));
    lab.assert_in_use(0);
    say("done");
}

fn sandboxed_workers_get_copies() {
    let lab = Lab::balanced_with(2, |builder| builder.sandbox(Sandbox::Strict));
    assert_taken(&lab, &Table::new());
}
