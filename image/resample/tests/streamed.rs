//! Preloading does not change the results of `fast_image_resize`.

use arenite_resample::{
    FilterType, Image, ImageRef, PixelType, ResizeAlg, ResizeOptions, Resizer, resize,
};
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;

const SIDES: (u32, u32) = (301, 157);

fn noise() -> Vec<u8> {
    let len = SIDES.0 * SIDES.1 * 3;
    let noise = (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8);
    noise.collect()
}

fn theirs(pixels: &[u8], size: (u32, u32), options: &ResizeOptions) -> Vec<u8> {
    let pixels: Vec<U8x3> = pixels
        .chunks(3)
        .map(|p| U8x3::new([p[0], p[1], p[2]]))
        .collect();
    let source = TypedImageRef::new(SIDES.0, SIDES.1, &pixels).expect("a picture");
    let mut target = TypedImage::<U8x3>::new(size.0, size.1);
    let resized = Resizer::new().resize_typed(&source, &mut target, options);
    resized.expect("it is taken");
    target.pixels().iter().flat_map(|pixel| pixel.0).collect()
}

fn ours(pixels: &[u8], size: (u32, u32), options: &ResizeOptions) -> Vec<u8> {
    let source = ImageRef::new(SIDES.0, SIDES.1, pixels, PixelType::U8x3).expect("a picture");
    let mut target = Image::new(size.0, size.1, PixelType::U8x3);
    let resized = resize(&mut Resizer::new(), &source, &mut target, options);
    resized.expect("it is taken");
    target.into_vec()
}

/// To fewer and more pixels, on both sides or one; the whole picture and a part; with and without overlapping windows.
#[test]
fn results_are_bit_identical() {
    let pixels = noise();
    let algorithms = [
        ResizeAlg::Convolution(FilterType::Box),
        ResizeAlg::Convolution(FilterType::Lanczos3),
        ResizeAlg::Nearest,
        ResizeAlg::SuperSampling(FilterType::Bilinear, 2),
    ];
    let sizes = [
        (40, 21),
        (301, 20),
        (30, 157),
        (600, 40),
        (50, 400),
        (1, 1),
        SIDES,
    ];
    for algorithm in algorithms {
        let whole = ResizeOptions::new().resize_alg(algorithm);
        for options in [whole, whole.crop(17.5, 90.25, 200.0, 60.5)] {
            for size in sizes {
                let (ours, theirs) = (
                    ours(&pixels, size, &options),
                    theirs(&pixels, size, &options),
                );
                assert!(ours == theirs, "{algorithm:?} to {size:?}");
            }
        }
    }
}
