//! A large array is passed to a worker, which reads it.

use ipc_channel::ipc::IpcSharedMemory;

use super::noop::timed;
use super::{BenchError, Case, Goal, Running, Setup, Shared, Unit, ours, rayon_pool};
use crate::ipc::IpcPeer;
use crate::stream::{StreamKind, StreamPeer, task};
use crate::work;

/// How much the receiver reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// One cache line of each page.
    Touch,
    /// The whole array.
    Sum,
}

impl Read {
    pub(super) fn of(self, bytes: &[u8]) -> u64 {
        match self {
            Self::Touch => work::touch(bytes),
            Self::Sum => work::sum(bytes),
        }
    }
}

type Bytes = Shared<Vec<u8>>;

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let small: Bytes = Shared::new(|| work::Random::new(1).bytes(64 << 10));
    let middle: Bytes = Shared::new(|| work::Random::new(2).bytes(10_000_000));
    let large: Bytes = Shared::new(|| work::Random::new(3).bytes(1 << 30));
    let few = u64::from(!setup.quick);
    let mut cases = Vec::new();
    for (read, word, does) in [
        (Read::Touch, "touch", "that reads one cache line per page"),
        (Read::Sum, "sum", "that reads all of it"),
    ] {
        let touch = read == Read::Touch;
        let goals = |goals: &[Goal]| if touch { goals.to_vec() } else { Vec::new() };
        let case = |size: &str, words: &str, unit, bytes: &Bytes| {
            let id = format!("handover-{size}-{word}");
            systems(
                Case::new(
                    id,
                    format!("Hand {words} in shared memory to a worker {does}"),
                    unit,
                )
                .note("unix-socket, pipe and ipc-channel start from private memory, and copy it"),
                bytes,
                read,
            )
        };
        cases.push(case("64kib", "64 KiB", Unit::Microseconds, &small).plan(
            200 + 800 * few,
            9,
            100,
        ));
        cases.push(
            case("10mb", "10 MB", Unit::Microseconds, &middle)
                .plan(10 + 20 * few, 7, 5)
                .goals(&goals(&[Goal::AtMost(1.1, "rayon")])),
        );
        let mut big = case("1gib", "1 GiB", Unit::Milliseconds, &large)
            .plan(1, 5, 1)
            .goals(&goals(&[
                Goal::AtMost(1.1, "rayon"),
                Goal::AtLeast(100.0, "ipc-channel"),
            ]));
        big.quick = false;
        big.memory = 10 << 30;
        cases.push(big);
    }
    cases
}

fn systems(case: Case, bytes: &Bytes, read: Read) -> Case {
    let with = |start: fn(&Setup, &Bytes, Read) -> Result<Running, BenchError>| {
        let bytes = bytes.clone();
        move |setup: &Setup| start(setup, &bytes, read)
    };
    case.system(
        "arenite",
        with(|setup, bytes, read| ours::handover(setup, &bytes.get(), read)),
    )
    .system("rayon", with(rayon))
    .system(
        "unix-socket",
        with(|_, bytes, read| stream(StreamKind::UnixSocket, bytes, read)),
    )
    .system(
        "pipe",
        with(|_, bytes, read| stream(StreamKind::Pipe, bytes, read)),
    )
    .system("ipc-channel", with(ipc))
    .system("ipc-channel-shm", with(ipc_shared))
    .system("memcpy", with(memcpy))
}

/// Passes a reference to the array to a thread pool.
fn rayon(setup: &Setup, bytes: &Bytes, read: Read) -> Result<Running, BenchError> {
    let pool = rayon_pool(setup)?;
    let bytes = bytes.get();
    let expected = read.of(&bytes);
    Ok(Box::new(move |times| {
        let bytes: &[u8] = &bytes;
        timed(times, |_| {
            BenchError::expect(pool.install(|| read.of(bytes)), expected)
        })
    }))
}

fn stream(kind: StreamKind, bytes: &Bytes, read: Read) -> Result<Running, BenchError> {
    let mut peer = StreamPeer::start(kind)?;
    let bytes = bytes.get();
    let expected = read.of(&bytes);
    let task = match read {
        Read::Touch => task::TOUCH,
        Read::Sum => task::SUM,
    };
    Ok(Box::new(move |times| {
        timed(times, |_| {
            BenchError::expect(peer.hand_over(task, &bytes)?, expected)
        })
    }))
}

fn ipc(_: &Setup, bytes: &Bytes, read: Read) -> Result<Running, BenchError> {
    let mut peer = IpcPeer::start("ipc-channel")?;
    let bytes = bytes.get();
    let expected = read.of(&bytes);
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let got = peer.hand_over_bytes(&bytes, read == Read::Sum)?;
            BenchError::expect(got, expected)
        })
    }))
}

/// Sends only a descriptor: the bytes are already in shared memory, as with the engine.
fn ipc_shared(_: &Setup, bytes: &Bytes, read: Read) -> Result<Running, BenchError> {
    let mut peer = IpcPeer::start("ipc-channel-shm")?;
    let memory = IpcSharedMemory::from_bytes(&bytes.get());
    let expected = read.of(&memory);
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let got = peer.hand_over_shared(&memory, read == Read::Sum)?;
            BenchError::expect(got, expected)
        })
    }))
}

/// Copies the bytes into warm memory and reads them on the same thread, without passing them to another thread.
fn memcpy(_: &Setup, bytes: &Bytes, read: Read) -> Result<Running, BenchError> {
    let bytes = bytes.get();
    let mut copy = bytes.to_vec();
    let expected = read.of(&bytes);
    Ok(Box::new(move |times| {
        timed(times, |_| {
            copy.copy_from_slice(&bytes);
            BenchError::expect(read.of(std::hint::black_box(&copy)), expected)
        })
    }))
}
