//! Several sizes of one decoded picture.
//!
//! The largest result is made from the decoder's pixels, as if it were the only one. A smaller result is made from the
//! next larger result that has [`SPARE`] times its sides: filtering all pixels again would take several times as long.
//! This is only done for Lanczos, because two passes of a softer filter blur more than one pass. It is not done with
//! alpha, because alpha is clamped where the filter overshoots, and not from a result that is enlarged: the decoder's
//! pixels are fewer and sharper.

use super::error::ImageError;
use super::linear;
use super::meta::{Chroma, SPARE, StoredPlan};
use super::pixels::{Pixels, Samples};
use super::resample::{keep_buffer, resize, with_chroma};
use super::size::Region;
use super::spec::{Filter, ResizeSpec};

/// Resizes a decoded picture by each plan. `chroma` has a region for each plan. Returns the results in the order of the
/// plans. For linear light the picture must be grey or RGB, with or without alpha.
pub(super) fn resize_each(
    mut pixels: Pixels,
    chroma: Option<Chroma>,
    plans: &[StoredPlan],
    spec: &ResizeSpec,
) -> Result<Vec<Pixels>, ImageError> {
    let (filter, limit) = (spec.filter, spec.max_bytes);
    let cascades = filter == Filter::Lanczos3 && !spec.linear && !pixels.color.has_alpha();
    let is_eight = matches!(pixels.samples, Samples::Eight(_));
    if spec.linear {
        pixels = linear::to_light(pixels, limit)?;
    }
    let mut order: Vec<usize> = (0..plans.len()).collect();
    let area = |&index: &usize| u64::from(plans[index].width) * u64::from(plans[index].height);
    order.sort_by_key(|index| std::cmp::Reverse(area(index)));
    let mut results: Vec<(usize, Pixels)> = Vec::with_capacity(plans.len());
    for index in order {
        let plan = &plans[index];
        let size = (plan.width, plan.height);
        let is_source = |(other, larger): &&(usize, Pixels)| {
            let region = plans[*other].region;
            shows_same(region, plan.region) && !plans[*other].enlarges() && has_spare(larger, plan)
        };
        let larger = results.iter().rev().find(is_source);
        if let Some((_, larger)) = larger.filter(|_| cascades) {
            let whole = Region {
                left: 0.0,
                top: 0.0,
                width: f64::from(larger.width),
                height: f64::from(larger.height),
            };
            let small = resize(larger, whole, size, filter, limit)?;
            results.push((index, small));
            continue;
        }
        let mut small = resize(&pixels, plan.region, size, filter, limit)?;
        if let Some(chroma) = &chroma {
            small = with_chroma(small, chroma, chroma.regions[index], filter, limit)?;
        }
        if spec.linear {
            small = linear::from_light(small, is_eight);
        }
        results.push((index, small));
    }
    if let Samples::Eight(samples) = pixels.samples {
        keep_buffer(samples);
    }
    if let Some(chroma) = chroma {
        keep_buffer(chroma.pairs);
    }
    results.sort_by_key(|&(index, _)| index);
    Ok(results.into_iter().map(|(_, small)| small).collect())
}

/// Returns whether two regions are equal, up to rounding.
fn shows_same(one: Region, other: Region) -> bool {
    let parts = |region: Region| [region.left, region.top, region.width, region.height];
    let is_near = |(a, b): (f64, f64)| (a - b).abs() < 1e-3;
    parts(one).into_iter().zip(parts(other)).all(is_near)
}

/// Returns whether the result `larger` has enough pixels to make the result of `plan` from it.
fn has_spare(larger: &Pixels, plan: &StoredPlan) -> bool {
    f64::from(larger.width) >= SPARE * f64::from(plan.width)
        && f64::from(larger.height) >= SPARE * f64::from(plan.height)
}
