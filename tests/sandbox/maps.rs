//! Attacks on the read-only maps of the arena.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arenite::{Array, ArrayMut};
use libc::*;

use crate::harness::{Calls, Lab, by_signal, tests};
use crate::lab::{Victim, descriptors, may_look, raw, remember, spoil, strict_with};
use crate::segments;

tests![
    a_write_to_a_read_only_map_faults,
    maps_stay_read_only,
    maps_cannot_be_moved_or_punched,
    no_arena_descriptor_stays_open,
    a_result_cannot_be_changed_once_it_is_taken,
    results_with_shared_chunks_are_copied_out,
    zeros_are_zero_after_a_hostile_worker;
    where may_look() => no_arena_descriptor_is_visible_from_outside,
];

/// The page in which an array starts.
fn page(array: &Array<u32>) -> i64 {
    array.as_ptr() as i64 / 4096 * 4096
}

fn a_write_to_a_read_only_map_faults() {
    let victim = Victim::new();
    let attack = |array: &Array<u32>| {
        // SAFETY: none: an attack, on purpose.
        unsafe { array.as_ptr().cast_mut().write_volatile(7) };
    };
    let honest = victim.honest();
    let error = victim
        .lab
        .failure_of(victim.lab.submit(attack, (&victim.array,)));
    assert_eq!(*error.kind(), by_signal(SIGSEGV), "{error}");
    honest.check();
    victim.check();
}

fn maps_stay_read_only() {
    let victim = Victim::new();
    victim.refused("opening the arena for writing", |victim| {
        let attack = |array: &Array<u32>| {
            let answer = raw!(SYS_mprotect, page(array), 4096, PROT_READ | PROT_WRITE);
            // Not allowed (a map of a read-only descriptor), or sealed.
            i64::from(answer != -13 && answer != -1)
        };
        victim.lab.submit(attack, (&victim.array,))
    });
    victim.denied("mprotect", |victim| {
        let attack =
            |array: &Array<u32>| raw!(SYS_mprotect, page(array), 4096, PROT_READ | PROT_EXEC);
        victim.lab.submit(attack, (&victim.array,))
    });
    victim.refused("throwing pages away", |victim| {
        let attack = |array: &Array<u32>| {
            let before: u64 = array.iter().map(|&x| u64::from(x)).sum();
            // Allowed: it drops only what can be read again.
            let _ = raw!(SYS_madvise, page(array), 4096 * 16, MADV_DONTNEED);
            let after: u64 = array.iter().map(|&x| u64::from(x)).sum();
            i64::from(before != after)
        };
        victim.lab.submit(attack, (&victim.array,))
    });
}

fn maps_cannot_be_moved_or_punched() {
    let victim = Victim::new();
    victim.refused("moving a map", |victim| {
        let attack = |array: &Array<u32>| {
            let answer = raw!(
                SYS_mremap,
                page(array),
                4096,
                4096,
                MREMAP_MAYMOVE | MREMAP_FIXED,
                1_i64 << 40
            );
            i64::from(answer != -38)
        };
        victim.lab.submit(attack, (&victim.array,))
    });
    victim.denied("remap_file_pages", |victim| {
        let attack = |array: &Array<u32>| raw!(SYS_remap_file_pages, page(array), 4096, 0, 0, 0);
        victim.lab.submit(attack, (&victim.array,))
    });
    victim.denied("madvise", |victim| {
        let attack = |array: &Array<u32>| raw!(SYS_madvise, page(array), 4096, MADV_REMOVE);
        victim.lab.submit(attack, (&victim.array,))
    });
    // A worker may write its own region, but not punch it.
    victim.denied("madvise", |victim| {
        let attack = || {
            let own = Array::from_fn(100_000, |i| i as u32);
            raw!(SYS_madvise, page(&own), 4096, MADV_REMOVE)
        };
        victim.lab.submit(attack, ())
    });
    victim.refused("advice that swaps or merges", |victim| {
        let attack = |array: &Array<u32>| {
            let advice = [
                MADV_PAGEOUT,
                MADV_COLD,
                MADV_MERGEABLE,
                MADV_DONTFORK,
                MADV_WIPEONFORK,
            ];
            let advised = advice
                .into_iter()
                .filter(|&what| raw!(SYS_madvise, page(array), 4096, what) != -38);
            advised.count() as i64
        };
        victim.lab.submit(attack, (&victim.array,))
    });
    victim.denied("process_vm_writev", |victim| {
        let attack = |array: &Array<u32>| {
            let bytes = [1_u64; 2];
            let from = [bytes.as_ptr() as u64, 8];
            let to = [array.as_ptr() as u64, 8];
            raw!(
                SYS_process_vm_writev,
                std::process::id(),
                from.as_ptr(),
                1,
                to.as_ptr(),
                1,
                0
            )
        };
        victim.lab.submit(attack, (&victim.array,))
    });
}

fn no_arena_descriptor_stays_open() {
    let victim = Victim::new();
    victim.refused("reopening descriptors", |victim| {
        let attack = || {
            let open = |fd: &i32| {
                let path = format!("/proc/self/fd/{fd}");
                std::fs::File::options()
                    .read(true)
                    .write(true)
                    .open(path)
                    .is_ok()
            };
            (0..256).filter(open).count() as i64
        };
        victim.lab.submit(attack, ())
    });
    // Only private memory can be mapped, whatever a descriptor refers to.
    victim.denied("mmap", |victim| {
        let attack = || {
            let map = |fd: i64| raw!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            (0..256).map(map).max().unwrap_or(0)
        };
        victim.lab.submit(attack, ())
    });
}

fn no_arena_descriptor_is_visible_from_outside() {
    let victim = Victim::new();
    for worker in 0..2 {
        for restarts in 0..2 {
            victim.lab.await_restart(worker, restarts);
            for target in descriptors(victim.lab.pid(worker)).values() {
                assert!(
                    !target.contains("arenite") && !target.contains("memfd"),
                    "{target}"
                );
            }
            if restarts == 0 {
                victim.lab.replace(worker);
            }
        }
    }
}

fn a_result_cannot_be_changed_once_it_is_taken() {
    let lab = crate::lab::strict(1);
    let make = |len: usize| remember(Array::from_fn(len, |i| i as u32));
    for len in [10, 1000, 100_000] {
        let taken = lab.value_of(make, (len,));
        assert!(
            lab.value_of(spoil, (len,)),
            "the worker can write its own region"
        );
        assert!(taken.iter().zip(0..).all(|(&x, i)| x == i), "{len} numbers");
    }
}

fn results_with_shared_chunks_are_copied_out() {
    let lab = crate::lab::strict(1);
    // Two handles to one chunk, one of them to a part; an input that is returned; and an empty array.
    let kernel = |input: &Array<u32>| {
        let made = Array::from_fn(30_000, |i| i as u32);
        let part = made.rows(10..20);
        (made, (part, input.clone(), Array::<u8>::zeros(0)))
    };
    let input = lab.from_slice(&[1_u32, 2, 3]).unwrap();
    let (made, (part, back, nothing)) = lab.value_of(kernel, (&input,));
    assert!(made.iter().zip(0..).all(|(&x, i)| x == i));
    assert_eq!(part[..], (10..20).collect::<Vec<u32>>()[..]);
    assert_eq!(part.as_ptr(), &raw const made[10], "one copy for both");
    assert_eq!(back.as_ptr(), input.as_ptr(), "an input is not copied");
    assert_eq!(nothing.len(), 0);
    // The results are ordinary inputs.
    let total = lab.submit(|a: &Array<u32>, b: &Array<u32>| a[5] + b[5], (&made, &part));
    assert_eq!(total.wait().unwrap(), 5 + 15);
}

/// In a worker: start and end of its own region.
static REGION: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

fn find_the_region() {
    let pieces = segments::pieces("region-1");
    let starts = pieces.iter().map(|piece| piece.addresses.start);
    let ends = pieces.iter().map(|piece| piece.addresses.end);
    REGION[0].store(starts.min().unwrap(), Relaxed);
    REGION[1].store(ends.max().unwrap(), Relaxed);
}

/// Opens the worker's whole region and fills what has, or can get, memory; it is killed beyond that.
fn fill_the_region() -> i64 {
    let [start, end] = REGION.each_ref().map(|address| address.load(Relaxed));
    let opened = raw!(SYS_mprotect, start, end - start, PROT_READ | PROT_WRITE);
    if opened == 0 {
        // SAFETY: none: an attack, on purpose.
        unsafe {
            std::ptr::with_exposed_provenance_mut::<u8>(start).write_bytes(0x41, end - start)
        };
    }
    opened
}

/// Number of nonzero bytes in an array of zeros.
fn not_zero(len: usize) -> usize {
    let zeros = ArrayMut::<u8>::zeros(len);
    zeros.iter().filter(|&&byte| byte != 0).count()
}

fn zeros_are_zero_after_a_hostile_worker() {
    let free = Lab::with(1, |builder| builder.on_worker_start(find_the_region));
    let bound = strict_with(1, |builder| builder.on_worker_start(find_the_region));
    for lab in [free, bound] {
        for round in 0..2 {
            let error = lab.error_of(fill_the_region, ());
            assert_eq!(*error.kind(), by_signal(SIGBUS), "{error}");
            for len in [100, 10_000, 100_000, 1_000_000, 10_000_000] {
                let wrong = lab.value_of(not_zero, (len,));
                assert_eq!(wrong, 0, "of {len}, the time after fill {round}");
            }
            // The next one also fills memory that has been freed.
            lab.trim();
        }
        lab.assert_in_use(0);
    }
}

/// Tests that need `mseal`.
pub mod sealed {
    use super::*;

    tests![a_view_cannot_be_replaced];

    fn a_view_cannot_be_replaced() {
        let victim = Victim::new();
        victim.refused("unmapping the arena", |victim| {
            let attack = |array: &Array<u32>| {
                let at = page(array);
                let fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
                let answers = [
                    raw!(SYS_munmap, at, 4096),
                    raw!(SYS_mmap, at, 4096, PROT_READ | PROT_WRITE, fixed, -1, 0),
                    raw!(SYS_mprotect, at, 4096, PROT_NONE),
                ];
                answers.iter().filter(|&&answer| answer != -1).count() as i64
            };
            victim.lab.submit(attack, (&victim.array,))
        });
    }
}
