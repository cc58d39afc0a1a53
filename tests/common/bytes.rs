//! Megabytes that are all one: by one instruction of the processor, not by a loop that nobody has optimised.

use arenite::ArrayMut;

/// So many bytes that are all this one.
pub fn filled(len: usize, byte: u8) -> ArrayMut<u8> {
    let mut bytes = ArrayMut::uninit(len);
    bytes.fill(byte);
    bytes
}

/// Whether all of them are this one: each is, if it is what the one before it is.
pub fn are_all(bytes: &[u8], byte: u8) -> bool {
    match bytes {
        [] => true,
        [first, rest @ ..] => *first == byte && rest == &bytes[..rest.len()],
    }
}
