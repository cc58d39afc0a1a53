//! Fills and compares large buffers by functions that are fast in tests, whose own code is not optimised.

use arenite::ArrayMut;

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
