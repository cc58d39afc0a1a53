//! Pictures with a palette of at most 256 colours, for PNG: exact if the picture has no more, otherwise with the
//! colours that fit best.

use std::ops::{Add, Mul};
use std::str::FromStr;

use bytemuck::{CheckedBitPattern, NoUninit};

use super::pixels::{Color, Pixels, Samples};

/// When PNG is written with a palette.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, NoUninit, CheckedBitPattern)]
#[repr(u8)]
pub enum Palette {
    /// If the input has a palette (PNG, GIF) and the result has at most 256 colours, or looks the same with 256.
    #[default]
    Auto = 0,
    /// Always, except for 16 bits per sample and for grey. If 256 colours do not suffice, colours are mixed (dithered).
    Always = 1,
    /// Never.
    Never = 2,
}

impl FromStr for Palette {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(format!(
                "unknown palette {text:?}; choose auto, always or never"
            )),
        }
    }
}

/// The maximum number of colours of a palette.
pub(super) const MAX_COLORS: usize = 256;

/// Red, green, blue, alpha.
type Rgba = [u8; 4];

/// A colour whose red, green and blue are weighted by alpha, so that invisible differences do not count.
type Weighted = [f32; 4];

/// A picture with a palette.
#[derive(Debug)]
pub(super) struct Indexed {
    /// At most 256 colours, transparent ones first.
    pub(super) colors: Vec<Rgba>,
    /// The index of each pixel.
    pub(super) indices: Vec<u8>,
    /// The mean squared difference from the picture, per colour channel, in steps of 255.
    pub(super) error: f64,
}

impl Indexed {
    /// Returns the picture with its own colours. `None` if it has more than 256 colours, or is not 8-bit RGB or RGBA.
    pub(super) fn exact(pixels: &Pixels) -> Option<Self> {
        /// The number of slots of a hash table: few collisions with 256 entries.
        const SLOTS: usize = 1024;
        let mut slots = [(0u32, 0u16); SLOTS];
        let mut colors: Vec<Rgba> = Vec::new();
        let mut indices = Vec::with_capacity(pixels.width as usize * pixels.height as usize);
        for color in colors_of(pixels)? {
            let key = u32::from_ne_bytes(color);
            // A slot contains the index plus one; 0 means free.
            let mut at = (key.wrapping_mul(0x9e37_79b1) >> 22) as usize;
            let index = loop {
                match slots[at] {
                    (_, 0) if colors.len() == MAX_COLORS => return None,
                    (_, 0) => {
                        colors.push(color);
                        slots[at] = (key, colors.len() as u16);
                        break colors.len() - 1;
                    }
                    (found, index) if found == key => break usize::from(index) - 1,
                    _ => at = (at + 1) % SLOTS,
                }
            };
            indices.push(index as u8);
        }
        let exact = Self {
            colors,
            indices,
            error: 0.0,
        };
        Some(exact.sorted())
    }

    /// Returns the picture with at most `most` colours, those that fit best. `None` if it is not 8-bit RGB or RGBA.
    pub(super) fn nearest(pixels: &Pixels, most: usize) -> Option<Self> {
        let mut keyed: Vec<u64> = colors_of(pixels)?
            .zip(0u64..)
            .map(|(color, index)| u64::from(u32::from_be_bytes(color)) << 32 | index)
            .collect();
        keyed.sort_unstable();
        let color_of = |key: u64| ((key >> 32) as u32).to_be_bytes();
        let same = keyed.chunk_by(|one, other| one >> 32 == other >> 32);
        let same: Vec<&[u64]> = same.collect();
        let counts = same.iter().map(|run| (color_of(run[0]), run.len()));
        let colors = chosen(samples(counts), most);
        let targets = Targets::new(&colors);
        let mut indices = vec![0; keyed.len()];
        let mut error = 0.0;
        for run in same {
            let (index, distance) = targets.nearest(weighted(color_of(run[0])));
            error += f64::from(distance) * run.len() as f64;
            for key in run {
                indices[(key & u64::from(u32::MAX)) as usize] = index;
            }
        }
        let nearest = Self {
            error: error / (3 * keyed.len()) as f64,
            colors,
            indices,
        };
        Some(nearest.sorted())
    }

    /// Returns the picture with the same colours, where each pixel's difference is passed on to the next pixels (Floyd
    /// and Steinberg).
    pub(super) fn dithered(self, pixels: &Pixels) -> Self {
        let Some(colors) = colors_of(pixels) else {
            return self;
        };
        let width = pixels.width as usize;
        let targets = Targets::new(&self.colors);
        let mut indices = Vec::with_capacity(self.indices.len());
        // Differences for this row and the next, with one more column on each side.
        let mut rows = [vec![[0.0f32; 4]; width + 2], vec![[0.0f32; 4]; width + 2]];
        for (at, color) in colors.enumerate() {
            let x = at % width + 1;
            if x == 1 {
                rows.swap(0, 1);
                rows[1].fill([0.0; 4]);
            }
            let wanted = plus(weighted(color), rows[0][x], 1.0);
            let wanted = wanted.map(|part| part.clamp(0.0, 255.0));
            let (index, _) = targets.nearest(wanted);
            indices.push(index);
            let left = plus(wanted, weighted(self.colors[usize::from(index)]), -1.0);
            for (row, x, share) in [
                (0, x + 1, 7.0),
                (1, x - 1, 3.0),
                (1, x, 5.0),
                (1, x + 1, 1.0),
            ] {
                rows[row][x] = plus(rows[row][x], left, share / 16.0);
            }
        }
        Self { indices, ..self }
    }

    /// Sorts the colours: transparent colours first, since only they need an alpha in the file, then by brightness.
    fn sorted(self) -> Self {
        let luma = |[r, g, b, a]: Rgba| {
            let luma = 2 * u32::from(r) + 5 * u32::from(g) + u32::from(b);
            (a == u8::MAX, luma)
        };
        let mut order: Vec<usize> = (0..self.colors.len()).collect();
        order.sort_by_key(|&index| luma(self.colors[index]));
        let mut places = [0; MAX_COLORS];
        for (place, &index) in order.iter().enumerate() {
            places[index] = place as u8;
        }
        let moved = |&index: &u8| places[usize::from(index)];
        Self {
            colors: order.iter().map(|&index| self.colors[index]).collect(),
            indices: self.indices.iter().map(moved).collect(),
            ..self
        }
    }
}

/// Returns the colours of 8-bit RGB or RGBA. All fully transparent pixels have the same colour.
fn colors_of(pixels: &Pixels) -> Option<impl Iterator<Item = Rgba>> {
    let Samples::Eight(samples) = &pixels.samples else {
        return None;
    };
    let channels = match pixels.color {
        Color::Rgb => 3,
        Color::Rgba => 4,
        _ => return None,
    };
    Some(samples.chunks_exact(channels).map(|pixel| match *pixel {
        [_, _, _, 0] => [0; 4],
        [r, g, b, a] => [r, g, b, a],
        [r, g, b] => [r, g, b, u8::MAX],
        _ => [0; 4],
    }))
}

fn weighted([r, g, b, a]: Rgba) -> Weighted {
    let alpha = f32::from(a);
    let [r, g, b] = [r, g, b].map(|part| f32::from(part) * alpha / 255.0);
    [r, g, b, alpha]
}

/// Adds a multiple of `other` to `one`.
fn plus<T: Copy + Mul<Output = T> + Add<Output = T>>(
    one: [T; 4],
    other: [T; 4],
    times: T,
) -> [T; 4] {
    std::array::from_fn(|channel| one[channel] + other[channel] * times)
}

fn unweighted([r, g, b, a]: Weighted) -> Rgba {
    let scale = if a > 0.0 { 255.0 / a } else { 0.0 };
    let [r, g, b] = [r, g, b].map(|part| (part * scale).round() as u8);
    [r, g, b, a.round() as u8]
}

/// A colour from which a palette is chosen, with its number of pixels.
struct Sample {
    color: Weighted,
    count: f32,
}

/// If there are more colours than this, similar colours are merged first.
const MAX_SAMPLES: usize = 1 << 15;

/// Returns the distinct colours, or the means of similar colours if there are too many.
fn samples(counts: impl Iterator<Item = (Rgba, usize)> + Clone) -> Vec<Sample> {
    let sample = |(color, count): (Rgba, usize)| Sample {
        color: weighted(color),
        count: count as f32,
    };
    if counts.clone().count() <= MAX_SAMPLES {
        return counts.map(sample).collect();
    }
    let mut coarse: Vec<(u32, Sample)> = counts
        .map(|(color, count)| {
            let key = color.map(|part| part >> 3);
            (u32::from_be_bytes(key), sample((color, count)))
        })
        .collect();
    coarse.sort_by_key(|(key, _)| *key);
    let same = coarse.chunk_by(|one, other| one.0 == other.0);
    same.map(|run| {
        let count: f32 = run.iter().map(|(_, sample)| sample.count).sum();
        let add = |sum, sample: &Sample| plus(sum, sample.color, sample.count / count);
        let color = run
            .iter()
            .fold([0.0; 4], |sum, (_, sample)| add(sum, sample));
        Sample { color, count }
    })
    .collect()
}

/// A group of colours that becomes one colour of the palette.
struct Group {
    /// The start of the group's range in the list of all samples.
    start: usize,
    end: usize,
    mean: Weighted,
    /// The channel with the largest spread.
    axis: usize,
    /// The sum of the squared differences in that channel.
    spread: f32,
}

impl Group {
    fn new(samples: &[Sample], start: usize, end: usize) -> Self {
        let mut count = 0.0f64;
        let (mut sum, mut squares) = ([0.0f64; 4], [0.0f64; 4]);
        for sample in &samples[start..end] {
            let own = f64::from(sample.count);
            let color = sample.color.map(f64::from);
            count += own;
            sum = plus(sum, color, own);
            squares = plus(squares, color.map(|part| part * part), own);
        }
        let mean = sum.map(|sum| sum / count);
        let spread = |channel: usize| squares[channel] - sum[channel] * mean[channel];
        let axis = (1..4).fold(0, |best, channel| {
            if spread(channel) > spread(best) {
                channel
            } else {
                best
            }
        });
        Self {
            start,
            end,
            mean: mean.map(|mean| mean as f32),
            axis,
            spread: if end - start > 1 {
                spread(axis).max(0.0) as f32
            } else {
                0.0
            },
        }
    }
}

/// Chooses at most `most` colours: splits the group with the largest spread at its mean until there are enough groups,
/// then moves each colour to the mean of the samples that are nearest to it.
fn chosen(mut samples: Vec<Sample>, most: usize) -> Vec<Rgba> {
    /// The number of rounds of moving. The first two have most of the effect.
    const ROUNDS: usize = 3;
    let mut groups = vec![Group::new(&samples, 0, samples.len())];
    while groups.len() < most {
        let widest = groups.iter().enumerate();
        let widest = widest.max_by(|(_, one), (_, other)| one.spread.total_cmp(&other.spread));
        let Some((index, group)) = widest.filter(|(_, group)| group.spread > 0.0) else {
            break;
        };
        let (start, end, axis, mean) = (group.start, group.end, group.axis, group.mean);
        let part = &mut samples[start..end];
        part.sort_by(|one, other| one.color[axis].total_cmp(&other.color[axis]));
        let below = part.partition_point(|sample| sample.color[axis] < mean[axis]);
        // Rounding may put the mean at an end.
        let middle = start + below.clamp(1, part.len() - 1);
        groups[index] = Group::new(&samples, start, middle);
        groups.push(Group::new(&samples, middle, end));
    }
    let mut means: Vec<Weighted> = groups.iter().map(|group| group.mean).collect();
    // Find the most frequent colour of each group.
    let mut main: Vec<(f32, Weighted)> = Vec::new();
    let mut totals: Vec<f32> = Vec::new();
    for _ in 0..ROUNDS {
        let targets = Targets::of(&means);
        let mut sums = vec![([0.0f64; 4], 0.0f64); means.len()];
        main = vec![(0.0, [0.0; 4]); means.len()];
        for sample in &samples {
            let (index, _) = targets.nearest(sample.color);
            let index = usize::from(index);
            let (sum, count) = &mut sums[index];
            *count += f64::from(sample.count);
            *sum = plus(*sum, sample.color.map(f64::from), f64::from(sample.count));
            if sample.count > main[index].0 {
                main[index] = (sample.count, sample.color);
            }
        }
        totals = sums.iter().map(|(_, count)| *count as f32).collect();
        for (mean, (sum, count)) in means.iter_mut().zip(sums) {
            if count > 0.0 {
                *mean = sum.map(|sum| (sum / count) as f32);
            }
        }
    }
    // If most pixels of a group have the same colour, that colour stays exact, as in backgrounds and lines.
    let exact = |((mean, (count, color)), total): ((&Weighted, &(f32, Weighted)), &f32)| match count
        * 2.0
        >= *total
        && *count > 0.0
    {
        true => unweighted(*color),
        false => unweighted(*mean),
    };
    let mut colors: Vec<Rgba> = means.iter().zip(&main).zip(&totals).map(exact).collect();
    colors.sort_unstable();
    colors.dedup();
    colors
}

/// The colours of a palette, sorted for a fast search.
struct Targets {
    /// The colours, sorted by the sum of red, green and blue, with their indices in the palette.
    sorted: Vec<(f32, Weighted, u8)>,
}

impl Targets {
    fn new(colors: &[Rgba]) -> Self {
        let weighted: Vec<Weighted> = colors.iter().copied().map(weighted).collect();
        Self::of(&weighted)
    }

    fn of(colors: &[Weighted]) -> Self {
        let mut sorted: Vec<(f32, Weighted, u8)> = (0..=u8::MAX)
            .zip(colors)
            .map(|(index, color)| (sum_of(color), *color, index))
            .collect();
        sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
        Self { sorted }
    }

    /// Returns the index of the nearest colour, and the squared distance.
    fn nearest(&self, color: Weighted) -> (u8, f32) {
        let sum = sum_of(&color);
        let (below, above) = self
            .sorted
            .split_at(self.sorted.partition_point(|(key, ..)| *key < sum));
        let mut best = (0, f32::MAX);
        let mut sides = (below.iter().rev().peekable(), above.iter().peekable());
        loop {
            let gaps = (
                sides.0.peek().map_or(f32::MAX, |(key, ..)| sum - key),
                sides.1.peek().map_or(f32::MAX, |(key, ..)| key - sum),
            );
            let (gap, next) = match gaps.0 < gaps.1 {
                true => (gaps.0, sides.0.next()),
                false => (gaps.1, sides.1.next()),
            };
            // A distance is at least the difference of the sums divided by the root of 3, so the search can stop.
            let Some((_, other, index)) = next.filter(|_| gap * gap < 3.0 * best.1) else {
                return best;
            };
            let left = plus(color, *other, -1.0);
            let distance = left.iter().map(|part| part * part).sum();
            if distance < best.1 {
                best = (*index, distance);
            }
        }
    }
}

fn sum_of([red, green, blue, _]: &Weighted) -> f32 {
    red + green + blue
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn picture(color: Color, samples: Vec<u8>) -> Pixels {
        Pixels {
            width: (samples.len() / color.channels()) as u32,
            height: 1,
            color,
            samples: Samples::Eight(samples),
        }
    }

    fn shown(indexed: &Indexed) -> Vec<Rgba> {
        let color = |&index: &u8| indexed.colors[usize::from(index)];
        indexed.indices.iter().map(color).collect()
    }

    #[test]
    fn up_to_256_colours_are_exact() {
        let colors = |count: usize| {
            let color = |n: usize| [n as u8, (n >> 8) as u8, (n * 7) as u8];
            picture(
                Color::Rgb,
                (0..count * 3).flat_map(|n| color(n % count)).collect(),
            )
        };
        for count in [1, 2, 17, 255, 256] {
            let picture = colors(count);
            let exact = Indexed::exact(&picture).unwrap();
            assert_eq!(exact.colors.len(), count);
            assert!(shown(&exact).into_iter().eq(colors_of(&picture).unwrap()));
        }
        assert!(Indexed::exact(&colors(257)).is_none());
        assert!(Indexed::exact(&picture(Color::Gray, vec![1, 2])).is_none());
    }

    #[test]
    fn transparent_colours_are_first_and_hidden_ones_equal() {
        let hidden = [9, 9, 9, 255, 1, 2, 3, 0, 9, 9, 9, 128, 7, 7, 7, 0];
        let exact = Indexed::exact(&picture(Color::Rgba, hidden.to_vec())).unwrap();
        assert_eq!(exact.colors, [[0; 4], [9, 9, 9, 128], [9, 9, 9, 255]]);
        assert_eq!(exact.indices, [2, 0, 1, 0]);
    }

    #[test]
    fn the_nearest_colours_are_near_and_frequent_ones_are_exact() {
        // A third is one background, the rest fills the cube of colours.
        let background = [251, 3, 7];
        let sample = |n: usize| {
            [
                (n * 37 % 256) as u8,
                (n * 91 % 256) as u8,
                (n * 13 % 251) as u8,
            ]
        };
        let pixel = |n: usize| {
            if n.is_multiple_of(3) {
                background
            } else {
                sample(n)
            }
        };
        let picture = picture(Color::Rgb, (0..60_000).flat_map(pixel).collect());
        let nearest = Indexed::nearest(&picture, MAX_COLORS).unwrap();
        assert!(nearest.colors.len() > 200 && nearest.colors.len() <= 256);
        assert!(nearest.colors.contains(&[251, 3, 7, 255]));
        assert!(nearest.error < 400.0, "{}", nearest.error);
        let squares = shown(&nearest)
            .into_iter()
            .zip(colors_of(&picture).unwrap());
        let square = |(one, other): (Rgba, Rgba)| -> f64 {
            let parts = one.into_iter().zip(other);
            parts.map(|(a, b)| f64::from(a.abs_diff(b)).powi(2)).sum()
        };
        let error = squares.map(square).sum::<f64>() / (3.0 * 60_000.0);
        assert!(
            (error - nearest.error).abs() < 1.0,
            "{error} {}",
            nearest.error
        );
    }

    #[test]
    fn dithering_keeps_the_mean() {
        let black_and_white = Indexed {
            colors: vec![[0, 0, 0, 255], [255; 4]],
            indices: Vec::new(),
            error: 0.0,
        };
        let grey = Pixels {
            width: 40,
            height: 25,
            ..picture(Color::Rgb, vec![64; 3000])
        };
        let mixed = black_and_white.dithered(&grey);
        let white = mixed.indices.iter().filter(|&&index| index == 1).count();
        assert!(white.abs_diff(251) < 25, "{white}");
    }
}
