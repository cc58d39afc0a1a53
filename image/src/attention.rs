//! Finds the interesting part of a picture, for [`Position::Attention`](super::Position::Attention).
//!
//! As in libvips, interest is the sum of edges, saturation and similarity to the colour of skin, on a small copy of the
//! picture. A crop can move along one side only. The scores are added up across the other side, and the window with the
//! largest mean is chosen; the middle of the window has the largest weight.

use super::color::without_ycbcr;
use super::error::ImageError;
use super::meta::{Chroma, Metadata, StoredPlan};
use super::pixels::{Pixels, Samples};
use super::resample::{resize, with_chroma};
use super::size::Region;
use super::spec::Filter;

/// The longest side of the small copy, in pixels.
const SIDE: f64 = 128.0;
/// The number of windows that are compared on each side of the middle window.
const STEPS: u32 = 50;

/// Moves the regions of plans to the interesting part, if they cover only a part of the picture.
pub(super) fn aim(
    pixels: &Pixels,
    mut chroma: Option<&mut Chroma>,
    plans: &mut [StoredPlan],
    metadata: &Metadata,
    max_bytes: u64,
) -> Result<(), ImageError> {
    let (width, height) = (f64::from(pixels.width), f64::from(pixels.height));
    let mut interest = None;
    for (index, plan) in plans.iter_mut().enumerate() {
        let free = (width - plan.region.width, height - plan.region.height);
        // Less than a pixel is a rounding error: there is nothing to move.
        if free.0 < 1.0 && free.1 < 1.0 {
            continue;
        }
        let interest = match &interest {
            Some(interest) => interest,
            None => {
                let small = copy(pixels, chroma.as_deref(), metadata, max_bytes)?;
                interest.insert(Interest::of(&small))
            }
        };
        let was = plan.region;
        let start =
            |scores: &[f64], free: f64, whole: f64| best(scores, 1.0 - free / whole) * whole;
        if free.0 >= free.1 {
            plan.region.left = start(&interest.columns, free.0, width).min(free.0);
        } else {
            plan.region.top = start(&interest.rows, free.1, height).min(free.1);
        }
        if was.width == f64::from(plan.width) && was.height == f64::from(plan.height) {
            // The region is not scaled: move it to whole pixels, which are copied.
            plan.region.left = plan.region.left.floor();
            plan.region.top = plan.region.top.floor();
        }
        if let Some(chroma) = &mut chroma {
            let region = &mut chroma.regions[index];
            let scale = (region.width / was.width, region.height / was.height);
            let sides = (f64::from(chroma.width), f64::from(chroma.height));
            let moved = |by: f64, scale: f64, most: f64| (by * scale).clamp(0.0, most.max(0.0));
            region.left = moved(plan.region.left, scale.0, sides.0 - region.width);
            region.top = moved(plan.region.top, scale.1, sides.1 - region.height);
        }
    }
    Ok(())
}

/// Makes a small copy in 8-bit RGB, with or without alpha.
fn copy(
    pixels: &Pixels,
    chroma: Option<&Chroma>,
    metadata: &Metadata,
    max_bytes: u64,
) -> Result<Pixels, ImageError> {
    let whole = |width: u32, height: u32| Region {
        left: 0.0,
        top: 0.0,
        width: f64::from(width),
        height: f64::from(height),
    };
    let region = whole(pixels.width, pixels.height);
    let scale = (SIDE / region.width.max(region.height)).min(1.0);
    let side = |side: f64| (side * scale).round().max(1.0) as u32;
    let size = (side(region.width), side(region.height));
    let mut small = resize(pixels, region, size, Filter::Bilinear, max_bytes)?;
    if let Some(chroma) = chroma {
        let region = whole(chroma.width, chroma.height);
        small = with_chroma(small, chroma, region, Filter::Bilinear, max_bytes)?;
    }
    let small = metadata.clone().apply_colors(small);
    Ok(without_ycbcr(small).into_eight_bits().into_rgb())
}

/// The interest of each column and of each row.
#[derive(Debug)]
struct Interest {
    columns: Vec<f64>,
    rows: Vec<f64>,
}

impl Interest {
    /// Computes the interest of a picture in 8-bit RGB, with or without alpha.
    fn of(small: &Pixels) -> Self {
        let (width, height) = (small.width as usize, small.height as usize);
        let mut interest = Self {
            columns: vec![0.0; width],
            rows: vec![0.0; height],
        };
        let Samples::Eight(samples) = &small.samples else {
            return interest;
        };
        let channels = small.color.channels();
        let pixel = |x: usize, y: usize| &samples[(y * width + x) * channels..][..channels];
        let light = |x: usize, y: usize| luma(pixel(x, y));
        for y in 0..height {
            for x in 0..width {
                let around = [
                    light(x.saturating_sub(1), y),
                    light((x + 1).min(width - 1), y),
                    light(x, y.saturating_sub(1)),
                    light(x, (y + 1).min(height - 1)),
                ];
                let edge = (4.0 * light(x, y) - around.iter().sum::<f64>()).abs();
                let here = pixel(x, y);
                let opacity = here.get(3).map_or(1.0, |&alpha| f64::from(alpha) / 255.0);
                let score = opacity * (edge.min(255.0) + saturation(here) + skin(here));
                interest.columns[x] += score;
                interest.rows[y] += score;
            }
        }
        interest
    }
}

/// Returns red, green and blue.
fn rgb(pixel: &[u8]) -> [f64; 3] {
    [pixel[0], pixel[1], pixel[2]].map(f64::from)
}

fn luma(pixel: &[u8]) -> f64 {
    let [red, green, blue] = rgb(pixel);
    0.299 * red + 0.587 * green + 0.114 * blue
}

/// Returns the score for saturation, up to 80. Dark pixels score 0: their saturation is noise.
fn saturation(pixel: &[u8]) -> f64 {
    const DARK: f64 = 30.0;
    let parts = rgb(pixel);
    let most = parts.iter().copied().fold(0.0, f64::max);
    let least = parts.iter().copied().fold(255.0, f64::min);
    match most > DARK {
        true => 80.0 * (most - least) / most,
        false => 0.0,
    }
}

/// Returns the score for the colour of skin, up to 120. It compares the shares of red and green, which differ less
/// between people than the lightness of their skin.
fn skin(pixel: &[u8]) -> f64 {
    const SHARES: [f64; 2] = [0.44, 0.31];
    const REACH: f64 = 0.07;
    const DARK: f64 = 90.0;
    let [red, green, blue] = rgb(pixel);
    let sum = red + green + blue;
    if sum < DARK {
        return 0.0;
    }
    let (off_red, off_green) = (red / sum - SHARES[0], green / sum - SHARES[1]);
    let distance = (off_red * off_red + off_green * off_green).sqrt();
    120.0 * (1.0 - distance / REACH).max(0.0)
}

/// Returns the start of the best window, as a fraction of the whole. The window has the fraction `share` of all scores.
/// Among windows with equal scores, returns the window closest to the middle.
fn best(scores: &[f64], share: f64) -> f64 {
    let free = 1.0 - share;
    let middle = free / 2.0;
    let mut best = (middle, mean(scores, middle, share));
    for step in 1..=STEPS {
        let offset = middle * f64::from(step) / f64::from(STEPS);
        for start in [middle - offset, middle + offset] {
            let score = mean(scores, start, share);
            // A difference this small is noise.
            if score > best.1 * 1.001 {
                best = (start, score);
            }
        }
    }
    best.0
}

/// Returns the weighted mean of the scores of a window: the weight at the ends is a quarter of the weight in the
/// middle.
fn mean(scores: &[f64], start: f64, share: f64) -> f64 {
    let count = scores.len() as f64;
    let (start, end) = (start * count, (start + share) * count);
    let (mut sum, mut weights) = (0.0, 0.0);
    for (index, score) in scores.iter().enumerate() {
        let (left, right) = ((index as f64).max(start), (index as f64 + 1.0).min(end));
        if left < right {
            // The position in the window, from -1 to 1.
            let at = (left + right - start - end) / (end - start);
            let weight = (right - left) * (1.0 - 0.75 * at * at);
            sum += weight * score;
            weights += weight;
        }
    }
    if weights > 0.0 { sum / weights } else { 0.0 }
}
