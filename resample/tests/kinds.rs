//! Which types of pixels are taken.

use arenite_resample::{Image, ImageRef, PixelType, ResizeError, ResizeOptions, Resizer, resize};

/// Each type that is taken is resized as itself; a white picture stays white.
#[test]
fn one_to_four_samples_of_8_or_16_bits_are_taken() {
    use PixelType::*;
    for kind in [U8, U8x2, U8x3, U8x4, U16, U16x2, U16x3, U16x4] {
        let white = vec![255; 6 * 4 * kind.size()];
        let source = ImageRef::new(6, 4, &white, kind).expect("a picture");
        let mut small = Image::new(3, 2, kind);
        let (mut resizer, options) = (Resizer::new(), ResizeOptions::new());
        resize(&mut resizer, &source, &mut small, &options).expect("it is taken");
        assert_eq!(small.buffer(), &white[..3 * 2 * kind.size()], "{kind:?}");

        let mut other = Image::new(3, 2, if kind == U8 { U16 } else { U8 });
        let refused = resize(&mut resizer, &source, &mut other, &options);
        assert_eq!(
            refused,
            Err(ResizeError::PixelTypesAreDifferent),
            "{kind:?}"
        );
    }
}

#[test]
fn other_types_are_refused() {
    use PixelType::*;
    for kind in [I32, F32, F32x2, F32x3, F32x4] {
        let black = vec![0; 6 * 4 * kind.size()];
        let source = ImageRef::new(6, 4, &black, kind).expect("a picture");
        let mut small = Image::new(3, 2, kind);
        let refused = resize(
            &mut Resizer::new(),
            &source,
            &mut small,
            &ResizeOptions::new(),
        );
        assert_eq!(
            refused,
            Err(ResizeError::PixelTypesAreDifferent),
            "{kind:?}"
        );
    }
}
