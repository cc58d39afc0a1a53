//! Fills and compares large buffers by functions that are fast in tests, whose own code is not optimised; and kernels
//! that make an array, or write to one that they may only read.

use arenite::{Array, ArrayMut};

/// Returns an array of `len` times this byte.
pub fn filled(len: usize, byte: u8) -> ArrayMut<u8> {
    let mut bytes = ArrayMut::uninit(len);
    bytes.fill(byte);
    bytes
}

/// Returns whether all bytes equal `byte`: the first does, and each of the others equals the one before it.
pub fn are_all(bytes: &[u8], byte: u8) -> bool {
    match bytes {
        [] => true,
        [first, rest @ ..] => *first == byte && rest == &bytes[..rest.len()],
    }
}

/// A kernel: returns the numbers from 0, as bytes.
pub fn made(len: usize) -> Array<u8> {
    Array::from_fn(len, |i| i as u8)
}

/// A kernel: writes to its read-only input.
pub fn vandal(victim: &Array<u8>, at: usize) -> u8 {
    // SAFETY: none: a bug in a kernel, on purpose.
    unsafe { victim.as_ptr().cast_mut().add(at).write_volatile(0xff) };
    1
}
