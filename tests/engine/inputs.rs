//! Bringing data into the arena.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arenite::array::npy::{self, NpyError};
use arenite::engine::SystemLimit;
use arenite::{
    ArenaFull, Array, ArrayMut, Engine, InputError, JobError, JobErrorKind, JobLimit, Rejection,
    TileMut,
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::harness::{Calls, Lab, assert_says, rejected, tests};

tests![
    files,
    what_is_not_a_regular_file_is_refused,
    npy_files,
    npy_files_of_another_type,
    a_pipe_is_refused_as_an_array,
    a_sparse_file_larger_than_memory_is_an_error,
    zeros_and_copies,
    an_uninit_array_is_written_whole,
    mapped_files_are_copied_in,
    a_worker_maps_a_file_itself,
    each_cause_is_printed_once,
    a_full_arena_refuses_inputs,
    a_lack_of_private_memory_is_an_error,
    endless_files_are_not_read_to_the_end,
    files_without_a_size_are_read,
];

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&x| u64::from(x)).sum()
}

fn files() {
    let lab = Lab::balanced(1);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(lab.read_file(file.path()).unwrap().len(), 0);
    let content: Vec<u8> = (0..3_000_017u32).map(|i| (i % 251) as u8).collect();
    file.write_all(&content).unwrap();
    let array = lab.read_file(file.path()).unwrap();
    assert_eq!(array[..], content[..]);
    assert_eq!(lab.value_of(sum, (&array,)), sum(&content));
    // Not regular files with a known length: a pipe, and a generated file.
    let made_up = lab.read_file("/proc/self/stat").unwrap();
    assert!(
        made_up.starts_with(std::process::id().to_string().as_bytes()),
        "{:?}",
        &made_up[..]
    );
    assert_eq!(lab.read_file("/dev/null").unwrap().len(), 0);
}

fn what_is_not_a_regular_file_is_refused() {
    let lab = Lab::balanced(1);
    for (path, hint) in [("/nowhere/at/all", "No such file"), ("/tmp", "directory")] {
        let error = lab.read_file(path).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, InputError::Io { .. }), "{error:?}");
        assert_says(&text, path);
        assert_says(&text, hint);
    }
}

fn npy_files() {
    fn mean(values: &Array<f32>) -> f32 {
        values.iter().sum::<f32>() / values.len() as f32
    }
    let lab = Lab::balanced(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("values.npy");
    let values = Array::from_fn([3, 4, 5], |i| i as f32);
    npy::write(&path, &values).unwrap();
    let read = lab.read_npy::<f32>(&path).unwrap();
    assert_eq!((read.shape(), &read[..]), (values.shape(), &values[..]));
    assert_eq!(lab.value_of(mean, (&read,)), 29.5);
}

/// Opening it does not wait for the other end.
fn a_pipe_is_refused_as_an_array() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let lab = Lab::new(1);
    let error = lab.read_npy::<u8>(&path).unwrap_err();
    assert_says(&error, "not a regular file");
    assert!(npy::read::<u8>(&path).is_err());
}

fn a_sparse_file_larger_than_memory_is_an_error() {
    const LEN: u64 = 1 << 47;
    let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({LEN},), }}\n");
    let mut head = b"\x93NUMPY\x01\x00".to_vec();
    head.extend((text.len() as u16).to_le_bytes());
    head.extend(text.as_bytes());
    // Other file systems may not support files of this length.
    let file = memfd_create(c"long", MFdFlags::MFD_CLOEXEC).unwrap();
    let mut file = std::fs::File::from(file);
    file.write_all(&head).unwrap();
    file.set_len(head.len() as u64 + LEN).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let here = Engine::inline();
    let read = here.read_npy::<u8>(&path).unwrap_err();
    let why = |error: &NpyError| matches!(error, NpyError::OutOfMemory { bytes: LEN });
    assert!(
        matches!(&read, InputError::Npy { error, .. } if why(error)),
        "{read}"
    );
    assert_says(&read, "140737488355328 bytes");
    let read = here.read_file(&path).unwrap_err();
    let why = |error: &std::io::Error| error.kind() == std::io::ErrorKind::OutOfMemory;
    assert!(
        matches!(&read, InputError::Io { error, .. } if why(error)),
        "{read}"
    );
    // Elsewhere the arena has no room.
    let lab = Lab::balanced(1);
    let full = [lab.read_npy::<u8>(&path), lab.read_file(&path)];
    for error in full.map(Result::unwrap_err) {
        assert!(matches!(error, InputError::ArenaFull(_)), "{error}");
    }
    let inside = |path: &str| npy::read::<u8>(path).map(|_| ());
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let error = lab.error_of(inside, (&path,));
    assert_says(&error, "arena");
}

fn npy_files_of_another_type() {
    let lab = Lab::balanced(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("values.npy");
    npy::write(&path, &Array::from_slice(&[1.0f64])).unwrap();
    let text = lab.read_npy::<u8>(&path).unwrap_err().to_string();
    assert_says(&text, "f8");
    assert_says(&text, "values.npy");
    std::fs::write(&path, "no array").unwrap();
    assert!(matches!(
        lab.read_npy::<u8>(&path),
        Err(InputError::Npy { .. })
    ));
    // The header announces more than there is.
    npy::write(&path, &Array::<u8>::zeros(10_000)).unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(
        lab.read_npy::<u8>(&path),
        Err(InputError::Npy { .. })
    ));
}

fn zeros_and_copies() {
    let lab = Lab::balanced(1);
    // Memory that was dirty is zero again.
    for round in 1..4u8 {
        for len in [1, 63, 64, 65, 4096, 70_000, 5 << 20] {
            let mut zeros = lab.zeros::<u8>(len).unwrap();
            assert!(
                zeros.iter().all(|&x| x == 0),
                "{len} bytes in round {round}"
            );
            zeros.fill(round);
        }
    }
    let copy = lab.from_slice(&[1.5f64, 2.5]).unwrap();
    assert_eq!(copy[..], [1.5, 2.5]);
    let made = lab.from_fn([2, 2], |i| i as u8).unwrap();
    assert_eq!(
        (made.to_vec(), made.shape().to_string()),
        (vec![0, 1, 2, 3], "2x2".into())
    );
}

fn an_uninit_array_is_written_whole() {
    fn number(mut tile: TileMut<'_, u64>) {
        let rows = tile.rows();
        tile.iter_mut()
            .zip(rows)
            .for_each(|(x, row)| *x = row as u64);
    }
    fn copy(from: &[u64]) -> Array<u64> {
        let mut to = ArrayMut::uninit(from.len());
        to.copy_from_slice(from);
        to.seal()
    }
    let lab = Lab::balanced(2);
    for len in [0, 1, 5_000, 300_000] {
        let mut out = lab.uninit::<u64>(len).unwrap();
        lab.scope(|s| {
            out.tiles_mut(1_000)
                .for_each(|tile| drop(s.submit(number, (tile,))));
        })
        .unwrap();
        let out = out.seal();
        assert!((0..).zip(out.iter()).all(|(i, &x)| i == x));
        let copied = lab.value_of(copy, (&out,));
        assert_eq!(copied[..], out[..]);
    }
}

fn mapped_files_are_copied_in() {
    let lab = Lab::balanced(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("values.npy");
    npy::write(&path, &Array::from_fn([1000, 3], |i| i as u8)).unwrap();
    // SAFETY: nothing else knows this file.
    let mapped = unsafe { npy::map::<u8>(&path) }.unwrap();
    let error = lab.error_of(sum, (&mapped,));
    assert_eq!(*error.kind(), rejected(Rejection::ForeignArray));
    assert_says(&error, "import");
    let copied = lab.import(&mapped).unwrap();
    assert_eq!(copied.shape(), mapped.shape());
    assert_eq!(lab.value_of(sum, (&copied,)), sum(&mapped));
}

/// Larger than the arena: each job maps it and reads its part.
fn sum_of_part(path: &str, part: u64, parts: u64) -> Result<f64, String> {
    // SAFETY: nothing changes the file while the test runs.
    let numbers = unsafe { npy::map::<f64>(path) }.map_err(|error| error.to_string())?;
    let len = numbers.len() as u64;
    let rows = (len * part / parts) as usize..(len * (part + 1) / parts) as usize;
    Ok(numbers[rows].iter().sum())
}

fn a_worker_maps_a_file_itself() {
    const LEN: usize = 1 << 20;
    let lab = Lab::balanced_with(2, |builder| builder.capacity(4 << 20));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.npy");
    let values = Array::from_fn(LEN, |i| i as f64);
    npy::write(&path, &values).unwrap();
    let path = path.to_str().unwrap();
    assert!(matches!(
        lab.read_npy::<f64>(path),
        Err(InputError::ArenaFull(_))
    ));
    let parts = lab.map(sum_of_part, (0..7).map(|part| (path, part, 7)));
    let sum: f64 = parts.map(Result::unwrap).sum();
    assert_eq!(sum, (LEN * (LEN - 1) / 2) as f64);
}

fn a_full_arena_refuses_inputs() {
    let lab = Lab::balanced_with(1, |builder| builder.capacity(16 << 20));
    let full = lab.zeros::<u8>(17 << 20).unwrap_err();
    assert_eq!((full.requested, full.capacity), (17 << 20, 16 << 20));
    assert_says(&full, "raise the capacity");
    let first = lab.zeros::<u8>(12 << 20).unwrap();
    let full = lab.from_fn(8 << 20, |_| 0u8).unwrap_err();
    assert!(
        full.requested == 8 << 20 && full.free < 4 << 20 && full.largest_free <= full.free,
        "{full:?}"
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![1; 8 << 20]).unwrap();
    assert!(matches!(
        lab.read_file(file.path()),
        Err(InputError::ArenaFull(_))
    ));
    drop(first);
    assert_eq!(lab.read_file(file.path()).unwrap().len(), 8 << 20);
}

/// Runs in a forked copy, since a program that insists on the memory ends.
fn a_lack_of_private_memory_is_an_error() {
    const LEN: usize = 1 << 62;
    fn zeros(len: usize) -> Array<u8> {
        Array::zeros(len)
    }
    fn tried(len: usize) -> Result<ArrayMut<u8>, ArenaFull> {
        ArrayMut::try_uninit(len)
    }
    let engine = Engine::inline();
    // SAFETY: the copy has this thread only, and touches nothing that another may have locked.
    let copy = unsafe { libc::fork() };
    if copy == 0 {
        let is_right = |full: ArenaFull| {
            full.requested == LEN as u64
                && full.limit() == Some(SystemLimit::Machine)
                && !full.to_string().contains("arena")
        };
        let failed = |error: JobError| match error.kind() {
            JobErrorKind::Limit(JobLimit::Arena(full)) => is_right(*full),
            _ => false,
        };
        std::panic::set_hook(Box::new(|_| ()));
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let by_engine = engine.zeros::<u8>(LEN).is_err_and(is_right)
                && engine.uninit::<u8>(LEN).is_err_and(is_right)
                && engine.from_fn(LEN, |_| 0u8).is_err_and(is_right);
            let by_itself = ArrayMut::<u8>::try_zeros(LEN).is_err_and(is_right)
                && tried(LEN).is_err_and(is_right)
                && ArrayMut::try_from_fn(LEN, |_| 0u8).is_err_and(is_right);
            let in_kernels = engine.submit(zeros, (LEN,)).wait().is_err_and(failed);
            by_engine && by_itself && in_kernels
        }));
        // SAFETY: ends the copy without the destructors of a test.
        unsafe { libc::_exit(if result.unwrap_or(false) { 0 } else { 1 }) };
    }
    let copy = nix::unistd::Pid::from_raw(copy);
    let ended = nix::sys::wait::waitpid(copy, None).unwrap();
    assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(copy, 0));
}

/// A bounded part of an endless input.
fn endless_files_are_not_read_to_the_end() {
    const CAPACITY: u64 = 64 << 20;
    /// The end after all, so that a reader that continues does not take all memory.
    const END: u64 = 4 * CAPACITY;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endless");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let written = std::thread::spawn({
        let path = path.clone();
        move || {
            let mut pipe = std::fs::File::options().write(true).open(path).unwrap();
            let piece = [7; 1 << 16];
            let pieces = 0..END / piece.len() as u64;
            pieces
                .take_while(|_| pipe.write_all(&piece).is_ok())
                .count() as u64
                * 65_536
        }
    });
    let lab = Lab::balanced_with(1, |builder| builder.capacity(CAPACITY));
    let error = lab.read_file(&path).unwrap_err();
    let InputError::ArenaFull(full) = error else {
        panic!("{error}");
    };
    assert!(written.join().unwrap() < END);
    assert_eq!((full.requested, full.capacity), (CAPACITY + 1, CAPACITY));
    assert_eq!(full.limit(), None);
}

fn files_without_a_size_are_read() {
    let lab = Lab::balanced(1);
    let result = catch_unwind(AssertUnwindSafe(|| lab.zeros::<u64>([usize::MAX, 2])));
    let text = *result.unwrap_err().downcast::<String>().unwrap();
    assert_says(&text, "address space");
}

/// Printing an error with all its sources repeats nothing.
fn each_cause_is_printed_once() {
    #[derive(Debug)]
    struct Said(&'static str, Option<Box<Said>>);
    impl std::fmt::Display for Said {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }
    impl std::error::Error for Said {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }
    let cause = Said(
        "the disk is gone",
        Some(Box::new(Said("a cable came loose", None))),
    );
    let npy = || NpyError::Io(std::io::Error::other(Said(cause.0, None)));
    assert_eq!(npy().to_string(), "the disk is gone");
    assert!(std::error::Error::source(&npy()).is_none());
    let npy = NpyError::Io(std::io::Error::other(cause));
    let input = arenite::InputError::Npy {
        path: "a.npy".into(),
        error: npy,
    };
    let mut said = vec![input.to_string()];
    let mut next = std::error::Error::source(&input);
    while let Some(error) = next {
        said.push(error.to_string());
        next = error.source();
    }
    assert_eq!(
        said,
        ["cannot read a.npy: the disk is gone", "a cable came loose"]
    );
}
