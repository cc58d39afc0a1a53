//! Stray writes in sandboxed workers, and attacks on the words in their reach: the targets of `tests/hostile/wild.rs`.
//! A sandboxed kernel cannot read its own map list, so it gets the addresses, as an attacker may have found them. Only
//! root can read them, so these tests are ignored for other users.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use libc::{
    FUTEX_CMP_REQUEUE, FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE, FUTEX_WAKE, PROT_READ, PROT_WRITE,
    SIGSEGV, SYS_futex, SYS_mprotect,
};

use crate::harness::{Calls, Lab, by_signal, step, tests, wait_until};
use crate::lab::{Victim, may_look, raw, strict_with};
use crate::segments::{self, Mapped, layout};

tests![
    sleepers_cannot_be_moved,
    a_forged_note_of_a_crash_names_no_file;
    where may_look() =>
    a_write_to_the_control_segment_kills_only_its_worker,
    a_write_to_another_region_kills_only_its_worker,
    maps_cannot_be_opened_for_writing,
];

/// The mappings of a segment in a worker.
fn pieces(pid: u32, segment: &str) -> Vec<Mapped> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let pieces = segments::pieces_in(&maps, segment);
    assert!(!pieces.is_empty(), "{segment} is mapped: {maps}");
    pieces
}

/// The content as mapped in the supervisor.
fn look(segment: &str, at: u64) -> Vec<u8> {
    let address = segments::address(segment, at, |piece| piece.readable);
    let first = std::ptr::with_exposed_provenance::<u8>(address.expect("it is mapped here"));
    // SAFETY: bytes of a segment that stays mapped; read one by one, since other processes may write next to them.
    (0..64)
        .map(|i| unsafe { first.add(i).read_volatile() })
        .collect()
}

/// The process of a worker that is ready, and so has mapped everything.
fn ready(lab: &Lab, worker: usize) -> u32 {
    wait_until("the worker is ready", || lab.stats().workers[worker].ready);
    lab.pid(worker) as u32
}

/// Runs a lone job in this process: `attack` returns `None` if it ran in another one.
fn run_in<R>(lab: &Lab, mut attack: impl FnMut() -> Option<R>) -> R {
    let busy = || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
    };
    loop {
        if let Some(answer) = attack() {
            return answer;
        }
        // It goes to the lane that was active last, while that is idle.
        let held = lab.submit(busy, ());
        let answer = attack();
        held.wait().unwrap();
        if let Some(answer) = answer {
            return answer;
        }
    }
}

/// Writes there, if this is the target process.
fn scribble(worker: u32, address: u64) -> bool {
    let is_meant = std::process::id() == worker;
    if is_meant {
        let address = std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
        // SAFETY: none: an attack, on purpose.
        unsafe { address.write_volatile(0xff) };
    }
    is_meant
}

/// Checks that a write through a read-only map kills this worker alone, and changes nothing.
fn assert_refused(victim: &Victim, by: usize, segment: &str, at: u64) {
    let lab = &victim.lab;
    step(format!("a write to {segment} at {at} to be refused"));
    let worker = ready(lab, by);
    let pieces = pieces(worker, segment);
    let mut closed = pieces.iter().filter(|piece| !piece.writable);
    let address = closed.find_map(|piece| piece.address_of(at));
    let address = address.unwrap_or_else(|| panic!("{segment} at {at} is mapped")) as u64;
    let before = look(segment, at);
    let error = run_in(lab, || {
        match lab.submit(scribble, (worker, address)).wait() {
            Ok(true) => panic!("{segment} at {at} can be written"),
            Ok(false) => None,
            Err(error) => Some(error),
        }
    });
    assert_eq!(
        *error.kind(),
        by_signal(SIGSEGV),
        "{segment} at {at}: {error}"
    );
    assert_eq!(look(segment, at), before, "{segment} at {at}");
    victim.honest().check();
    victim.check();
}

fn a_write_to_the_control_segment_kills_only_its_worker() {
    let victim = Victim::new();
    let last = (layout::SLOTS - 1) * layout::SLOT;
    let header = [0, 8, 12, 16, 40, 4095 - 64].map(|at| layout::HEADER + at);
    // Both lanes: its own, whose replies it writes through another map, and its neighbour's.
    let links = [0, 1].map(|lane| {
        [
            layout::post(lane) + layout::CALLS + last,
            layout::reply(lane) + layout::REPLIES + last,
        ]
    });
    // After the words of the hub's page that change all the time.
    let hub = [layout::HUB + 1024];
    for at in [&header[..], &hub, links.as_flattened()].concat() {
        assert_refused(&victim, 0, "control", at);
    }
}

fn a_write_to_another_region_kills_only_its_worker() {
    let victim = Victim::new();
    // Memory of the supervisor, and memory granted to the other worker.
    let last = (victim.array.len() * 4) as u64 - 64;
    for (by, segment, at) in [
        (0, "region-0", 0),
        (1, "region-0", last),
        (0, "region-2", 0),
        (1, "region-1", 0),
    ] {
        assert_refused(&victim, by, segment, at);
    }
}

/// No mapping of the arena that a worker may only read can be made writable.
fn maps_cannot_be_opened_for_writing() {
    let victim = Victim::new();
    let attack = |worker: u32, starts: &[u64], lens: &[u64]| {
        if std::process::id() != worker {
            return -1;
        }
        let open = |(&start, &len): (&u64, &u64)| {
            let answer = raw!(SYS_mprotect, start, len, PROT_READ | PROT_WRITE);
            // Not allowed (a map of a read-only descriptor), or sealed.
            answer != -13 && answer != -1
        };
        let pieces = starts.iter().zip(lens);
        pieces.filter(|&piece| open(piece)).count() as i64
    };
    let lab = &victim.lab;
    let restarts = victim.restarts();
    for (by, other) in [(0, "region-2"), (1, "region-1")] {
        let worker = ready(lab, by);
        let mut closed = Vec::new();
        for segment in ["control", "region-0", other] {
            let pieces = pieces(worker, segment);
            let before = closed.len();
            closed.extend(pieces.into_iter().filter(|piece| !piece.writable));
            assert!(
                closed.len() > before,
                "{segment} is only mapped for writing"
            );
        }
        let places = closed.iter().map(|piece| &piece.addresses);
        let starts: Vec<u64> = places.clone().map(|place| place.start as u64).collect();
        let lens: Vec<u64> = places.map(|place| place.len() as u64).collect();
        let [starts, lens] = [starts, lens].map(|all| lab.from_slice(&all).unwrap());
        let opened = run_in(lab, || {
            let job = lab.submit(attack, (worker, &starts, &lens));
            Some(job.wait().unwrap()).filter(|&opened| opened >= 0)
        });
        assert_eq!(opened, 0, "{closed:?}");
    }
    assert_eq!(victim.restarts(), restarts);
    victim.honest().check();
    victim.check();
}

/// In a worker: the futex words of the lanes, if it may look.
static BELLS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

fn find_futex_words() {
    for (bell, lane) in BELLS.iter().zip(0..) {
        let address = segments::address("control", layout::post(lane), |piece| piece.readable);
        bell.store(address.expect("the control segment is mapped"), Relaxed);
    }
}

/// Makes this call on both lanes' doorbells, on one of which a thread sleeps. Returns the number of sleepers, or an
/// error.
fn for_bells(call: impl Fn(usize, *const u32) -> i64) -> i64 {
    let own = 0_u32;
    let answers = BELLS
        .each_ref()
        .map(|bell| call(bell.load(Relaxed), &raw const own));
    answers.into_iter().min().unwrap_or(0)
}

/// A worker without work sleeps on a word that others may read. A sleeper that is moved to another word is never woken.
fn sleepers_cannot_be_moved() {
    let lab = strict_with(2, |builder| builder.on_worker_start(find_futex_words));
    let victim = Victim::in_lab(lab);
    victim.denied("futex", |victim| {
        let attack =
            || for_bells(|bell, own| raw!(SYS_futex, bell, FUTEX_REQUEUE, 0, i32::MAX, own));
        victim.lab.submit(attack, ())
    });
    victim.denied("futex", |victim| {
        let attack = || {
            for_bells(|bell, own| {
                // SAFETY: none: an attack, on a word that stays mapped.
                let value =
                    unsafe { std::ptr::with_exposed_provenance::<u32>(bell).read_volatile() };
                raw!(SYS_futex, bell, FUTEX_CMP_REQUEUE, 0, i32::MAX, own, value)
            })
        };
        victim.lab.submit(attack, ())
    });
    // Waking is harmless, and a worker may use its own words.
    victim.refused("moving sleepers", |victim| {
        const PRIVATE: i32 = FUTEX_REQUEUE | FUTEX_PRIVATE_FLAG;
        let attack = || {
            let woken = for_bells(|bell, _| raw!(SYS_futex, bell, FUTEX_WAKE, i32::MAX));
            let moved = for_bells(|bell, own| raw!(SYS_futex, bell, PRIVATE, 0, i32::MAX, own));
            woken.min(0) + moved
        };
        victim.lab.submit(attack, ())
    });
    // Both workers take jobs.
    for worker in 0..2 {
        let pid = ready(&victim.lab, worker);
        let ran = |pid: u32| std::process::id() == pid;
        run_in(&victim.lab, || {
            let ran = victim.lab.value_of(ran, (pid,));
            ran.then_some(())
        });
    }
}

/// In a worker: what it may write of the control segment, and a page that is opened by the first access.
static WRITABLE: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
static CLOSED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn open_page(_: i32) {
    raw!(
        SYS_mprotect,
        CLOSED.load(Relaxed),
        4096,
        PROT_READ | PROT_WRITE
    );
}

fn find_notes() {
    let pieces = segments::pieces("control");
    let writable = pieces.into_iter().find(|piece| piece.writable).unwrap();
    WRITABLE[0].store(writable.addresses.start, Relaxed);
    WRITABLE[1].store(writable.addresses.end, Relaxed);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: maps a new page, and installs a handler that makes one system call.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        CLOSED.store(page.expose_provenance(), Relaxed);
        libc::signal(SIGSEGV, open_page as *const () as libc::sighandler_t);
    }
}

/// Finds the note of this process by a fault that is noted and survived, writes another one with a frame in the code of
/// this function and a file of its choice, and crashes without the handler that would write the truth.
fn forge(path: &str) -> u64 {
    let pointer = std::ptr::with_exposed_provenance_mut::<u8>;
    let code = forge as *const () as u64;
    let line = format!("{:x}-{:x} r-xp 0 0:0 0 {path}\n", code & !4095, code + 4096);
    let closed = CLOSED.load(Relaxed);
    let [start, end] = WRITABLE.each_ref().map(|at| at.load(Relaxed));
    // SAFETY: none: an attack, on memory that stays mapped.
    unsafe {
        pointer(closed).write_volatile(1);
        // The address of the fault is the 32nd byte of a note, which begins a page.
        let is_note = |at: &usize| pointer(at + 32).cast::<u64>().read_volatile() == closed as u64;
        let notes: Vec<usize> = (start..end).step_by(4096).filter(is_note).collect();
        let [note] = notes[..] else {
            return notes.len() as u64;
        };
        libc::signal(SIGSEGV, libc::SIG_DFL);
        let small = [
            (0, 1),
            (4, SIGSEGV),
            (8, 1),
            (12, 0),
            (16, 0),
            (584, line.len() as i32),
        ];
        for (at, value) in small {
            pointer(note + at).cast::<i32>().write_volatile(value);
        }
        for (at, value) in [(32, 16), (40, code), (64, 1), (72, code)] {
            pointer(note + at).cast::<u64>().write_volatile(value);
        }
        for (at, byte) in line.bytes().enumerate() {
            pointer(note + 588 + at).write_volatile(byte);
        }
        pointer(16).write_volatile(1);
    }
    0
}

/// Hostile code cannot make the program read a file of its choice: frames lie in the files that the worker had mapped
/// before its first job.
fn a_forged_note_of_a_crash_names_no_file() {
    let lab = strict_with(1, |builder| builder.on_worker_start(find_notes));
    let error = lab.error_of(forge, ("/chosen/by/the/worker",));
    let crash = error.crash().unwrap_or_else(|| panic!("{error}"));
    let [frame] = crash.frames() else {
        panic!("{:#?}", crash.frames())
    };
    let program = std::env::current_exe().unwrap();
    assert_eq!(frame.module.as_deref(), Some(&*program), "{error}");
    let function = frame.function.as_deref().unwrap_or_default();
    assert!(function.contains("forge"), "{error}");
}
