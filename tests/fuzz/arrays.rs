//! `.npy` headers.

use crate::driver::{Driver, Seed};
use crate::memory::with_peak;
use crate::targets::npy_header;

/// A file of version 1, 2 or 3 with this dictionary and these elements.
fn file(version: u8, dictionary: &str, elements: usize) -> Vec<u8> {
    let mut file = b"\x93NUMPY".to_vec();
    file.extend([version, 0]);
    let text = format!("{dictionary}\n");
    match version {
        1 => file.extend((text.len() as u16).to_le_bytes()),
        _ => file.extend((text.len() as u32).to_le_bytes()),
    }
    file.extend(text.bytes());
    file.extend((0..elements).map(|n| n as u8));
    file
}

fn seeds() -> Vec<Seed> {
    let of = |descr: &str, order: &str, shape: &str| {
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}")
    };
    vec![
        ("bytes", file(1, &of("|u1", "False", "(4, 3)"), 12)),
        ("floats", file(1, &of("<f4", "False", "(2, 2, 2)"), 32)),
        ("doubles", file(2, &of("<f8", "False", "(3,)"), 24)),
        (
            "shorts",
            file(3, &of("<i2", "False", "(1, 2, 3, 1, 2, 1)"), 24),
        ),
        ("scalar", file(1, &of("<u4", "False", "()"), 4)),
        ("empty", file(1, &of("<u4", "False", "(0, 7)"), 0)),
        ("big-endian", file(1, &of(">f4", "False", "(2,)"), 8)),
        ("columns", file(1, &of("<f4", "True", "(2, 2)"), 16)),
        (
            "record",
            file(
                1,
                "{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2,)}",
                8,
            ),
        ),
        (
            "enormous",
            file(
                1,
                &of("<f8", "False", "(4294967295, 4294967295, 4294967295)"),
                8,
            ),
        ),
    ]
}

#[test]
fn headers_truncated_at_every_byte() {
    Driver::new(npy_header).cut_at_every_byte(&seeds());
}

#[test]
fn headers_with_bits_flipped() {
    Driver::new(npy_header).bits_flipped(&seeds());
}

#[test]
fn headers_in_a_random_stretch() {
    Driver::new(npy_header).random_stretch(5_000, &seeds(), |_| {});
}

#[test]
fn a_header_with_a_huge_shape_allocates_little() {
    let mut long = b"\x93NUMPY\x02\0".to_vec();
    long.extend(u32::MAX.to_le_bytes());
    long.extend(b"{'descr': '<f8'");
    for seed in seeds().into_iter().chain([("long", long)]) {
        let ((), peak) = with_peak(|| npy_header(&seed.1));
        assert!(peak < 256 << 10, "{}: {peak} bytes", seed.0);
    }
}
