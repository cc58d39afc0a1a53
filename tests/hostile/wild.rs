//! A kernel with a stray write: it fails alone, and its target is unchanged.
//!
//! Writes to inputs, to other workers' arrays and to published arrays are in `tests/engine/faults.rs`.

use arenite::{Array, ArrayMut, Backing, TileMut};

use crate::harness::{Gate, Lab, by_signal, made, pass, tests, vandal};
use crate::maps::{self, layout};

tests![
    a_write_to_a_page_of_the_supervisor,
    a_write_to_a_neighbours_links,
    a_write_to_a_published_array_in_a_closed_grant,
    a_write_to_a_published_array_after_it_was_lent,
    a_write_to_a_neighbours_tile,
    regions_cannot_be_reopened_for_writing,
];

/// A slot that the few jobs of a test do not reach: they begin just before the first one.
const UNUSED: u64 = layout::SLOTS / 2 * layout::SLOT;

fn lab(workers: usize) -> Lab {
    Lab::with(workers, |builder| builder.backing(Backing::Memfd))
}

/// Writes one byte of a segment through the read-only map.
fn scribble(segment: &str, at: u64) -> bool {
    let Some(address) = maps::address(segment, at, |piece| piece.readable && !piece.writable)
    else {
        return false;
    };
    // SAFETY: none: a bug in a kernel, on purpose.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(0xff) };
    true
}

/// Reads bytes of a segment in a worker.
fn peek(segment: &str, at: u64, len: usize) -> Array<u8> {
    let address =
        maps::address(segment, at, |piece| piece.readable).expect("the segment is mapped");
    let first = std::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: bytes of a segment that stays mapped; read one by one, since the supervisor may write next to them.
    Array::from_fn(len, |i| unsafe { first.add(i).read_volatile() })
}

/// A write there is SIGSEGV, in that worker alone, and changes nothing.
fn assert_refused(lab: &Lab, segment: &str, at: u64) {
    let look = || lab.submit(peek, (segment, at, 64usize)).wait().unwrap()[..].to_vec();
    let before = look();
    let error = lab.failure_of(lab.submit(scribble, (segment, at)));
    assert_eq!(*error.kind(), by_signal(11), "{segment} at {at}: {error}");
    assert_eq!(look(), before, "{segment} at {at}");
    let workers = lab.stats().workers.len() as u32;
    let values = lab.map(|n: u32| n, (0..100u32).map(|n| (n,)));
    let sum: u32 = values.map(Result::unwrap).sum();
    assert_eq!(sum, 4950, "{workers} workers go on");
}

fn a_write_to_a_page_of_the_supervisor() {
    let lab = lab(1);
    let header = [0, 8, 12, 16, 40, 4095 - 64].map(|at| layout::HEADER + at);
    // After the words of the hub, which change all the time; and the submissions to this very worker.
    let others = [layout::HUB + 1024, layout::post(0) + layout::CALLS + UNUSED];
    for at in header.into_iter().chain(others) {
        assert_refused(&lab, "control", at);
    }
    // Grants, doorbell, flags: never writable, whatever they contain at the moment.
    for at in [0, 4, 8, 12, 16, 64, 128] {
        let error = lab.failure_of(lab.submit(scribble, ("control", layout::post(0) + at)));
        assert_eq!(*error.kind(), by_signal(11), "{error}");
    }
    lab.assert_in_use(0);
}

fn a_write_to_a_neighbours_links() {
    let lab = lab(2);
    for lane in [0, 1] {
        // One worker is at the gate, so the other one attacks it, and then itself.
        let (blocked, held) = lab.hold();
        for at in [
            layout::post(lane) + layout::CALLS + UNUSED,
            layout::reply(lane) + layout::REPLIES + UNUSED,
        ] {
            assert_refused(&lab, "control", at);
        }
        drop(held);
        blocked.wait().unwrap();
    }
    lab.assert_in_use(0);
}

fn a_write_to_a_published_array_in_a_closed_grant() {
    let lab = lab(1);
    let pid = lab.pid(0);
    let victim = lab.submit(made, (5000,)).wait().unwrap();
    // More than the rest of the grant, so the lane continues with another grant.
    let large: Vec<_> = (0..40)
        .map(|_| lab.submit(made, (60_000,)).wait().unwrap())
        .collect();
    assert_eq!(lab.pid(0), pid, "the same worker made both");
    let error = lab.failure_of(lab.submit(vandal, (&victim, 4096)));
    assert_eq!(*error.kind(), by_signal(11), "{error}");
    assert!(victim.iter().enumerate().all(|(i, &x)| x == i as u8));
    drop((victim, large));
    lab.assert_in_use(0);
}

fn a_write_to_a_published_array_after_it_was_lent() {
    // From a grant that is in use; from this size on pages are closed as they are sent.
    const LEN: usize = 64 << 10;
    let lab = lab(1);
    let made = lab.submit(|len: usize| ArrayMut::<u8>::zeros(len), (LEN,));
    let mut array = made.wait().unwrap();
    for value in 1..4u8 {
        lab.scope(|s| {
            s.submit(
                |bytes: &mut [u8], with: u8| bytes.fill(with),
                (&mut array, value),
            );
        })
        .unwrap();
        let victim = array.seal();
        for at in [0, LEN - 1] {
            let error = lab.failure_of(lab.submit(vandal, (&victim, at)));
            assert_eq!(*error.kind(), by_signal(11), "{error}");
            assert!(victim.iter().all(|&x| x == value));
        }
        // By the next worker, from its first grant.
        drop(victim);
        let made = lab.submit(|len: usize| ArrayMut::<u8>::zeros(len), (LEN,));
        array = made.wait().unwrap();
    }
    drop(array);
    lab.assert_in_use(0);
}

fn a_write_to_a_neighbours_tile() {
    /// Fills its own tile, waits, and then writes outside it: `by` bytes from its start.
    fn vandal(mut tile: TileMut<'_, u8>, by: isize, gate: &str) {
        tile.fill(1);
        pass(gate);
        // SAFETY: none: a bug in a kernel, on purpose.
        unsafe { tile.as_mut_ptr().offset(by).write_volatile(0xff) };
    }
    fn careful(mut tile: TileMut<'_, u8>, gate: &str) {
        tile.fill(2);
        pass(gate);
    }
    const ROWS: usize = 64 * 1024;
    let lab = lab(2);
    let mut values = lab.zeros::<u8>(2 * ROWS).unwrap();
    // Forwards into the second tile, backwards into the first: the first byte outside its own tile, and the farthest.
    for (first, by) in [
        (true, ROWS as isize),
        (true, 2 * ROWS as isize - 1),
        (false, -1),
        (false, -(ROWS as isize)),
    ] {
        let (here, there) = (Gate::new(), Gate::new());
        let mut errors = Vec::new();
        let result = lab.scope(|s| {
            let (mut hostile, mut honest) = (None, None);
            for tile in values.tiles_mut(ROWS) {
                if (tile.rows().start == 0) == first {
                    hostile = Some(s.submit(vandal, (tile, by, &here.path())));
                } else {
                    honest = Some(s.submit(careful, (tile, &there.path())));
                }
            }
            // Both tiles are open and filled, each in its own worker.
            let neighbour = there.meet();
            drop(here.meet());
            errors.push(hostile.unwrap().wait().unwrap_err());
            drop(neighbour);
            let _ = honest.unwrap().wait();
        });
        let _ = result;
        assert_eq!(*errors[0].kind(), by_signal(11), "{}", errors[0]);
        let own = if first { 0..ROWS } else { ROWS..2 * ROWS };
        assert_eq!(errors[0].unspecified_rows(), std::slice::from_ref(&own));
        let neighbours = values.iter().enumerate().filter(|(i, _)| !own.contains(i));
        let mut neighbours = neighbours.map(|(_, &x)| x);
        assert!(neighbours.all(|x| x == 2), "{by} bytes away");
    }
    drop(values);
    lab.assert_in_use(0);
}

fn regions_cannot_be_reopened_for_writing() {
    /// Number of mappings of this segment that `mprotect` makes writable.
    fn opened(segment: &str) -> u32 {
        let pieces = maps::pieces(segment);
        assert!(!pieces.is_empty(), "{segment} is mapped");
        let open = |piece: &maps::Mapped| {
            // SAFETY: none is needed: the maps of this process's own arena, which nothing else uses meanwhile.
            let answer = unsafe {
                libc::mprotect(
                    std::ptr::with_exposed_provenance_mut(piece.addresses.start),
                    piece.addresses.len(),
                    libc::PROT_READ | libc::PROT_WRITE,
                )
            };
            answer == 0
        };
        let closed = pieces.iter().filter(|piece| !piece.writable);
        closed.filter(|piece| open(piece)).count() as u32
    }
    let lab = lab(2);
    let input = lab.from_slice(&[1u8; 100]).unwrap();
    for segment in ["control", "region-0"] {
        let count = lab.submit(opened, (segment,)).wait().unwrap();
        assert_eq!(count, 0, "{segment}");
    }
    // Each worker's own region is writable; the other's is not.
    let opens = |segment| lab.submit(opened, (segment,)).wait().unwrap() > 0;
    let both = ["region-1", "region-2"].map(opens);
    assert_ne!(
        both[0], both[1],
        "a lone job goes to the lane that was active last"
    );
    assert!(input.iter().all(|&x| x == 1));
    drop(input);
    lab.assert_in_use(0);
}
