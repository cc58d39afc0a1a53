//! Properties that must hold for any bytes. Each function takes bytes and panics if a property is violated: that is the
//! interface of a fuzzer, and of the driver next to this file.

use std::io::Read;

use arenite::array::npy::{self, Dtype, Header, NpyError};
use arenite_image::{FailOn, Output, ResizeSpec, probe, resize_encoded};

/// Maximum pixels and bytes of a picture here, so that a million cases take an hour.
pub const MAX_PIXELS: u64 = 1_000_000;
pub const MAX_BYTES: u64 = 16 << 20;
/// The longest sides of a result: a JPEG is decoded in full for the first, and at several scales for the others.
const SIDES: [u32; 4] = [16, 8, 5, 2];

/// An input of `arenite resize`: a picture that fits, or an error in one line; never a panic.
pub fn resize_input(data: &[u8]) {
    // The bytes also choose the path, so that all paths are taken.
    let sum = data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let side = SIDES[usize::from(sum >> 3 & 3)];
    let spec = ResizeSpec {
        max_pixels: MAX_PIXELS,
        max_bytes: MAX_BYTES,
        keep_metadata: sum & 4 != 0,
        output: [Output::SameAsInput, Output::Jpeg, Output::Png, Output::WebP]
            [usize::from(sum & 3)],
        fail_on: [
            FailOn::None,
            FailOn::Truncated,
            FailOn::Error,
            FailOn::Warning,
        ][usize::from(sum >> 5 & 3)],
        ..ResizeSpec::new(side.to_string().parse().expect("a number is a size"))
    };
    match resize_encoded(data, &spec) {
        Ok(made) => {
            assert!((1..=side).contains(&made.width) && (1..=side).contains(&made.height));
            assert_eq!(
                probe(&made.bytes),
                Some(made.format),
                "it can be read again"
            );
            assert!(made.format.is_writable());
        }
        Err(error) => a_sentence(&error.to_string()),
    }
}

/// The header of a `.npy` file describes the data that follows, or it is an error.
pub fn npy_header(data: &[u8]) {
    let mut rest = data;
    let header = match Header::read(&mut rest) {
        Ok(header) => header,
        Err(error) => return a_sentence(&error.to_string()),
    };
    let read = data.len() - rest.len();
    assert_eq!(
        header.data_offset(),
        read as u64,
        "the reader stands at the first element"
    );
    elements::<u8>(&header, rest);
    elements::<i16>(&header, rest);
    elements::<u32>(&header, rest);
    elements::<f32>(&header, rest);
    elements::<f64>(&header, rest);
}

fn elements<T: Dtype + Default>(header: &Header, rest: &[u8]) {
    let bytes = match header.check::<T>() {
        Ok(bytes) => bytes,
        Err(error) => return a_sentence(&error.to_string()),
    };
    let expected = header
        .shape()
        .dims()
        .iter()
        .try_fold(size_of::<T>() as u64, |product, side| {
            product.checked_mul(*side as u64)
        });
    // With an extent of zero the product of the others may be anything.
    assert!(
        Some(bytes) == expected || bytes == 0,
        "{bytes} bytes of {:?}",
        header.shape()
    );
    if bytes > 1 << 16 {
        return;
    }
    let mut out = vec![T::default(); bytes as usize / size_of::<T>()];
    let mut reader = rest.take(u64::MAX);
    match npy::read_into(header, &mut reader, &mut out) {
        Ok(()) => assert_eq!(bytemuck::cast_slice::<T, u8>(&out), &rest[..bytes as usize]),
        Err(NpyError::Truncated { expected, found }) => {
            assert_eq!((expected, found), (bytes, rest.len() as u64));
            assert!(found < expected);
        }
        Err(error) => panic!("{error}"),
    }
}

/// What a hostile worker writes into its link and when: its supervisor answers each job once, and kills it for
/// impossible values.
#[cfg(feature = "points")]
pub fn link_words(data: &[u8]) {
    arenite::link_words(data);
}

/// Errors are read by people, one to a line.
fn a_sentence(text: &str) {
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
    // Kernels catch panics of decoders, so that a program does not fail; here they count.
    assert!(!text.contains("panicked"), "{text}");
}
