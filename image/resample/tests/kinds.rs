//! Supported pixel types.

use arenite_resample::{
    FilterType, Image, ImageRef, PixelType, ResizeAlg, ResizeError, ResizeOptions, Resizer,
    lanczos3, resize,
};

/// Each supported type is resized as such; a white picture stays white.
#[test]
fn one_to_four_samples_of_8_or_16_bits_are_supported() {
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
fn other_types_are_rejected() {
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

/// To fewer and more pixels, by integer and other factors.
#[test]
fn lanczos3_equals_the_filter_of_fast_image_resize() {
    let (width, height) = (97, 61);
    let noise: Vec<u8> = (0..width * height * 3u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let source = ImageRef::new(width, height, &noise, PixelType::U8x3).expect("a picture");
    for (width, height) in [(10, 7), (49, 30), (97, 61), (96, 60), (200, 130)] {
        let [ours, theirs] = [lanczos3(), FilterType::Lanczos3].map(|filter| {
            let mut target = Image::new(width, height, PixelType::U8x3);
            let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
            resize(&mut Resizer::new(), &source, &mut target, &options).expect("it is taken");
            target.into_vec()
        });
        let far = ours
            .iter()
            .zip(&theirs)
            .filter(|(a, b)| a.abs_diff(**b) > 1);
        assert_eq!(far.count(), 0, "{width}x{height}");
        let off = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
        assert!(
            off * 100 <= ours.len(),
            "{width}x{height}: {off} samples are another number"
        );
    }
}
