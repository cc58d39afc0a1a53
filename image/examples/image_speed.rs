//! Where the time for one picture goes: `cargo run --release --example image_speed [FILE [SIZE]]`.
//! With a size, only this size is made, 300 times: for a profiler.
//!
//! Without a file, the example makes a 12-megapixel JPEG from a sample: enlarged, with seeded noise, quality 85.

use std::time::{Duration, Instant};

use arenite_image::{
    Filter, Pixels, ResizeSpec, Samples, Size, resize_encoded, resize_encoded_sizes, resize_pixels,
    resize_to_pixels,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let photo = match std::env::args_os().nth(1) {
        Some(path) => std::fs::read(path)?,
        None => twelve_megapixels()?,
    };
    println!("input: {} bytes", photo.len());
    if let Some(size) = std::env::args().nth(2) {
        let spec = ResizeSpec::new(size.parse()?);
        let start = Instant::now();
        for _ in 0..300 {
            resize_encoded(&photo, &spec)?;
        }
        println!("{size}: {:.2} ms", ms(start.elapsed()) / 300.0);
        return Ok(());
    }
    let spec = ResizeSpec::new("224x224".parse()?);
    for (name, spec) in [
        ("224x224 contain", spec),
        (
            "224x224 cover",
            ResizeSpec {
                fit: arenite_image::Fit::Cover,
                ..spec
            },
        ),
        (
            "224x224 linear",
            ResizeSpec {
                linear: true,
                ..spec
            },
        ),
        ("800x800 contain", ResizeSpec::new("800x800".parse()?)),
    ] {
        let all = best(|| resize_encoded(&photo, &spec).map(|encoded| encoded.bytes.len()));
        let pixels = best(|| resize_to_pixels(&photo, &spec).map(|p| p.width as usize));
        println!(
            "{name}: {:6.1} images/s, {:.2} ms, of which encoding {:.2} ms",
            1.0 / all.as_secs_f64(),
            ms(all),
            ms(all.saturating_sub(pixels)),
        );
    }
    sizes(&photo)?;
    let encoded = resize_encoded(&photo, &spec)?;
    println!("224x224 output: {} bytes", encoded.bytes.len());

    let side = 1826; // 10 MB of RGB
    let raw = vec![77; side * side * 3];
    let time = best(|| {
        let size = (side as u32, side as u32);
        resize_pixels(&raw, size, 3, (224, 224), Filter::Lanczos3).map(|out| out.len())
    });
    println!("10 MB of RGB to 224x224: {:.2} ms", ms(time));
    Ok(())
}

/// Compares three sizes from one decode with the largest size alone, and with three separate runs. Rounds of the three
/// alternate. Prints medians, with the smallest and the largest ratio.
fn sizes(photo: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let sizes: [Size; 3] = ["320x".parse()?, "640x".parse()?, "1280x".parse()?];
    let time = |sizes: &[Size]| {
        let spec = ResizeSpec::full_size();
        let start = Instant::now();
        resize_encoded_sizes(photo, &spec, sizes).map(|_| start.elapsed())
    };
    let [mut one, mut all, mut apart, mut ratios] = [const { Vec::new() }; 4];
    for _ in 0..31 {
        let largest = ms(time(&sizes[2..])?);
        let together = ms(time(&sizes)?);
        let rest = ms(time(&sizes[..1])?) + ms(time(&sizes[1..2])?);
        one.push(largest);
        all.push(together);
        apart.push(largest + rest);
        ratios.push(together / largest);
    }
    let [one, all, apart] = [&mut one, &mut all, &mut apart].map(|times| median(times));
    let ratio = median(&mut ratios);
    println!(
        "320, 640, 1280: {all:.2} ms from one decode, {apart:.2} ms apart; 1280 alone {one:.2} ms: \
         ratio {ratio:.3} ({:.3} to {:.3})",
        ratios[0],
        ratios[ratios.len() - 1]
    );
    Ok(())
}

/// Sorts the values, and returns the median.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn twelve_megapixels() -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let sample = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../samples/seeding.jpg"
    ))?;
    let spec = ResizeSpec::new("4000x3000!".parse()?);
    let Pixels {
        samples,
        width,
        height,
        ..
    } = resize_to_pixels(&sample, &spec)?;
    let Samples::Eight(mut samples) = samples else {
        return Err("a JPEG has 8 bits".into());
    };
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for sample in &mut samples {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        *sample = sample.saturating_add_signed((seed % 21) as i8 - 10);
    }
    let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    encoder.set_fastest_defaults();
    encoder.set_size(width as usize, height as usize);
    encoder.set_quality(85.0);
    let mut encoder = encoder.start_compress(Vec::new())?;
    encoder.write_scanlines(&samples)?;
    let photo = encoder.finish()?;
    if let Some(path) = std::env::var_os("IMAGE_SPEED_KEEP") {
        std::fs::write(path, &photo)?;
    }
    Ok(photo)
}

fn best<T>(mut work: impl FnMut() -> Result<T, arenite_image::ImageError>) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..15 {
        let start = Instant::now();
        work().expect("the picture is valid");
        best = best.min(start.elapsed());
    }
    best
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
