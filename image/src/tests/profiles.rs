//! Profiles of all kinds: what they mean is computed here from CIE's formulas.

use super::*;
use crate::meta::Metadata;

/// Numbers of a profile: whole ones, and with 16 bits of fraction.
fn fixed(number: f64) -> [u8; 4] {
    ((number * 65_536.0).round() as i32).to_be_bytes()
}

fn shorts(numbers: &[u16]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect()
}

/// A profile, made by hand: its version, class, colour space, connection space, and tags.
fn profile(
    version: [u8; 2],
    [class, space, connection]: [&[u8; 4]; 3],
    tags: &[(&[u8; 4], Vec<u8>)],
) -> Vec<u8> {
    let d50 = [0.9642, 1.0, 0.8249].map(fixed).concat();
    let white = [b"XYZ \0\0\0\0", &d50[..]].concat();
    let text = b"text\0\0\0\0none\0".to_vec();
    let text_4 = [&b"mluc\0\0\0\0\0\0\0\x01\0\0\0\x0cenUS\0\0\0\x02\0\0\0\x1c\0x"[..]].concat();
    let text = if version[0] >= 4 { text_4 } else { text };
    let more = [(b"wtpt", white), (b"cprt", text)];
    let tags: Vec<_> = tags.iter().chain(&more).collect();
    let mut table = (tags.len() as u32).to_be_bytes().to_vec();
    let mut data = Vec::new();
    for (name, content) in &tags {
        let start = 128 + 4 + 12 * tags.len() + data.len();
        table.extend(&name[..]);
        table.extend(
            [start as u32, content.len() as u32]
                .map(u32::to_be_bytes)
                .concat(),
        );
        data.extend(content);
        data.resize(data.len().next_multiple_of(4), 0);
    }
    let len = (128 + table.len() + data.len()) as u32;
    let mut header = [&len.to_be_bytes()[..], &[0; 4], &version, &[0; 2]].concat();
    for part in [
        &class[..],
        space,
        connection,
        &[0; 12],
        b"acsp",
        &[0; 28],
        &d50,
    ] {
        header.extend(part);
    }
    header.resize(128, 0);
    [header, table, data].concat()
}

/// A table of 8 bits (`mft1`) with straight curves.
fn table_of_bytes(inputs: u8, points: u8, nodes: &[u8]) -> Vec<u8> {
    let matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        .map(fixed)
        .concat();
    let line = |channels: u8| (0..=255).collect::<Vec<u8>>().repeat(channels.into());
    let head = [inputs, 3, points, 0];
    [
        b"mft1\0\0\0\0",
        &head[..],
        &matrix,
        &line(inputs),
        nodes,
        &line(3),
    ]
    .concat()
}

fn gamma(exponent: f64) -> Vec<u8> {
    [
        &b"curv\0\0\0\0\0\0\0\x01"[..],
        &((exponent * 256.0) as u16).to_be_bytes(),
    ]
    .concat()
}

/// A table of 16 bits (`mft2`) with straight curves: the nodes of a grid with this number of points on each side.
fn table(inputs: u8, points: u8, nodes: &[u16]) -> Vec<u8> {
    let matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        .map(fixed)
        .concat();
    let line = |channels: u8| shorts(&[0, 65_535].repeat(channels.into()));
    let head = [inputs, 3, points, 0];
    let counts = shorts(&[2, 2]);
    [
        b"mft2\0\0\0\0",
        &head[..],
        &matrix,
        &counts,
        &line(inputs),
        &shorts(nodes),
        &line(3),
    ]
    .concat()
}

/// A table of version 4 (`mAB `) with straight curves, and a grid whose sides may be unequal.
fn unequal_table(points: &[u8], nodes: &[u16]) -> Vec<u8> {
    let line = b"para\0\0\0\0\0\0\0\0\0\x01\0\0";
    let mut sides = points.to_vec();
    sides.resize(16, 0);
    let grid = [sides, vec![2, 0, 0, 0], shorts(nodes)].concat();
    let offset = |number: usize| (number as u32).to_be_bytes();
    let (curves, after) = (line.repeat(3), 32 + 48);
    let mut grid = grid;
    grid.resize(grid.len().next_multiple_of(4), 0);
    let offsets = [32, 0, 0, after, after + grid.len()].map(offset).concat();
    let head = [points.len() as u8, 3, 0, 0];
    [
        b"mAB \0\0\0\0",
        &head[..],
        &offsets,
        &curves,
        &grid,
        &line.repeat(points.len()),
    ]
    .concat()
}

/// The nodes of a grid, of which the last side changes fastest, in the 16 bits of L*a*b* in version 4.
fn nodes(points: &[u8], lab: impl Fn(&[f64]) -> [f64; 3]) -> Vec<u16> {
    let count: usize = points.iter().map(|&side| usize::from(side)).product();
    let node = |mut index: usize| {
        let mut at: Vec<f64> = Vec::new();
        for &side in points.iter().rev() {
            at.insert(0, (index % usize::from(side)) as f64 / f64::from(side - 1));
            index /= usize::from(side);
        }
        let [level, a, b] = lab(&at);
        [level / 100.0, (a + 128.0) / 255.0, (b + 128.0) / 255.0]
            .map(|part| (part * 65_535.0) as u16)
    };
    (0..count).flat_map(node).collect()
}

fn curve_of_srgb(light: f64) -> f64 {
    match light {
        ..=0.003_130_8 => 12.92 * light,
        _ => 1.055 * light.powf(1.0 / 2.4) - 0.055,
    }
}

/// The sample of sRGB with this lightness.
fn of_lightness(level: f64) -> f64 {
    let y = match level > 8.0 {
        true => ((level + 16.0) / 116.0).powi(3),
        false => level / 903.3,
    };
    curve_of_srgb(y)
}

fn tagged(pixels: &Pixels, icc: &[u8]) -> Vec<u8> {
    let metadata = Metadata {
        icc: Some(icc.to_vec()),
        ..Metadata::default()
    };
    encode::encode(pixels, Format::Png, Encoding::new(80), Some(&metadata)).unwrap()
}

/// All levels, in one row of equal channels; alpha is opaque.
fn ramp(color: Color, is_deep: bool) -> Pixels {
    let pixel = |level: u8| {
        let colors = color.channels() - usize::from(color.has_alpha());
        std::iter::repeat_n(level, colors).chain(color.has_alpha().then_some(255))
    };
    let samples = (0..=255).flat_map(pixel);
    Pixels {
        width: 256,
        height: 1,
        color,
        samples: match is_deep {
            true => Samples::Sixteen(samples.map(|level| u16::from(level) * 257).collect()),
            false => Samples::Eight(samples.collect()),
        },
    }
}

/// Compares a ramp after conversion with the samples that each level should have.
#[track_caller]
fn assert_levels(name: &str, icc: &[u8], color: Color, expected: impl Fn(f64) -> f64) {
    for is_deep in [false, true] {
        let file = tagged(&ramp(color, is_deep), icc);
        let strict = ResizeSpec {
            fail_on: FailOn::Warning,
            ..ResizeSpec::full_size()
        };
        let pixels = resize_to_pixels(&file, &strict).unwrap();
        assert_eq!(pixels.color, color, "{name}");
        let shown = pixels.into_eight_bits();
        let levels = shown.eight_bits().chunks_exact(color.channels());
        for (level, pixel) in (0..=255u8).zip(levels) {
            let expected = expected(f64::from(level) / 255.0) * 255.0;
            assert!(
                (f64::from(pixel[0]) - expected).abs() < 2.0,
                "{name}: {level} is {pixel:?}, not {expected}"
            );
            assert!(!color.has_alpha() || pixel[color.channels() - 1] == 255);
        }
    }
}

#[test]
fn grey_may_be_described_by_lightness() {
    let kinds =
        |tags: &[(&[u8; 4], Vec<u8>)]| profile([2, 0x40], [b"prtr", b"GRAY", b"Lab "], tags);
    // A curve of four points: darker than a line.
    let points = [0, 8_000, 30_000, 65_535];
    let curve = [&b"curv\0\0\0\0\0\0\0\x04"[..], &shorts(&points)].concat();
    let bent = |level: f64| {
        let (at, part) = ((level * 3.0) as usize, (level * 3.0).fract());
        let value = |at: usize| f64::from(points[at.min(3)]) / 65_535.0;
        value(at) + (value(at + 1) - value(at)) * part
    };
    // L*a*b* of version 2 ends at 65,280.
    let inverted = table(1, 2, &[65_280, 32_768, 32_768, 0, 32_768, 32_768]);
    let lut_4 = unequal_table(&[3], &nodes(&[3], |at| [100.0 * (1.0 - at[0]), 0.0, 0.0]));
    for color in [Color::Gray, Color::GrayAlpha] {
        assert_levels(
            "gamma 1",
            &kinds(&[(b"kTRC", gamma(1.0))]),
            color,
            |level| of_lightness(level * 100.0),
        );
        assert_levels(
            "curve",
            &kinds(&[(b"kTRC", curve.clone())]),
            color,
            |level| of_lightness(bent(level) * 100.0),
        );
        let negative = |level: f64| of_lightness(100.0 - level * 100.0);
        assert_levels(
            "table",
            &kinds(&[(b"A2B0", inverted.clone())]),
            color,
            negative,
        );
        // A header of version 4 would move black.
        assert_levels(
            "colorimetric table",
            &kinds(&[(b"A2B1", inverted.clone())]),
            color,
            negative,
        );
        assert_levels(
            "table of version 4",
            &kinds(&[(b"A2B0", lut_4.clone())]),
            color,
            negative,
        );
    }
}

#[test]
fn a_profile_may_tint_grey() {
    let sepia = nodes(&[2], |at| [100.0 * at[0], 0.0, 60.0 * at[0]]);
    let icc = profile(
        [4, 0x30],
        [b"prtr", b"GRAY", b"Lab "],
        &[(b"A2B0", unequal_table(&[2], &sepia))],
    );
    for color in [Color::Gray, Color::GrayAlpha] {
        let pixels = decode(&tagged(&ramp(color, false), &icc)).unwrap();
        assert_eq!(pixels.color.channels(), color.channels() + 2, "{color:?}");
        let light = pixels
            .eight_bits()
            .chunks_exact(pixels.color.channels())
            .nth(200)
            .unwrap();
        assert!(light[0] > 200 && light[2] < 130, "{light:?}");
    }
}

/// The tags of a profile with the primaries of sRGB.
fn colorants(exponent: f64) -> Vec<(&'static [u8; 4], Vec<u8>)> {
    let colorant = |xyz: [f64; 3]| [b"XYZ \0\0\0\0".to_vec(), xyz.map(fixed).concat()].concat();
    vec![
        (b"rTRC", gamma(exponent)),
        (b"gTRC", gamma(exponent)),
        (b"bTRC", gamma(exponent)),
        (b"rXYZ", colorant([0.43607, 0.22249, 0.01392])),
        (b"gXYZ", colorant([0.38515, 0.71687, 0.09708])),
        (b"bXYZ", colorant([0.14307, 0.06061, 0.7141])),
    ]
}

/// The primaries of sRGB with light as samples.
fn linear(version: [u8; 2]) -> Vec<u8> {
    profile(version, [b"mntr", b"RGB ", b"XYZ "], &colorants(1.0))
}

#[test]
fn headers_of_all_versions_are_read() {
    for version in [[0, 0], [1, 0], [2, 0x10], [3, 0], [4, 0x40], [5, 0]] {
        for color in [Color::Rgb, Color::Rgba] {
            assert_levels(
                &format!("{version:?}"),
                &linear(version),
                color,
                curve_of_srgb,
            );
        }
    }
}

/// Grey has equal parts of red, green and blue.
#[test]
fn a_profile_of_rgb_is_applied_to_grey() {
    for color in [Color::Gray, Color::GrayAlpha] {
        assert_levels("linear", &linear([2, 0x40]), color, curve_of_srgb);
    }
}

/// The type of a table says how it codes L*a*b*, not the version of the profile: `mft1` and `mAB ` as in version 4,
/// `mft2` as in version 2.
#[test]
fn tables_code_lightness_as_their_type_says() {
    let bright =
        |at: &[f64]| at.iter().take(3).sum::<f64>() / 3.0 * (1.0 - at.get(3).unwrap_or(&0.0));
    let lab = |at: &[f64]| [100.0 * bright(at), 0.0, 0.0];
    for (space, color) in [
        (b"RGB ", Color::Rgb),
        (b"RGB ", Color::Rgba),
        (b"CMYK", Color::Cmyk),
    ] {
        let inputs = if color == Color::Cmyk { 4 } else { 3 };
        let sides = &[2; 4][..inputs];
        let new = nodes(sides, lab);
        let bytes: Vec<u8> = new
            .iter()
            .map(|&node| ((u32::from(node) + 128) / 257) as u8)
            .collect();
        let old: Vec<u16> = new
            .iter()
            .map(|&node| (f64::from(node) / 65_535.0 * 65_280.0) as u16)
            .collect();
        for (name, table) in [
            ("mft1", table_of_bytes(inputs as u8, 2, &bytes)),
            ("mft2", table(inputs as u8, 2, &old)),
            ("mAB ", unequal_table(sides, &new)),
        ] {
            for version in [[2, 0x10], [2, 0x40], [4, 0], [4, 0x30]] {
                let names = [b"prtr", space, b"Lab "];
                // The other tag for a table would move black in version 4.
                let icc = profile(version, names, &[(b"A2B1", table.clone())]);
                let name = format!("{name} in version {version:?}");
                let levels = match color {
                    // Without black.
                    Color::Cmyk => ramp(Color::Rgb, false)
                        .eight_bits()
                        .chunks(3)
                        .flat_map(|p| [p[0], p[1], p[2], 0])
                        .collect(),
                    color => ramp(color, false).eight_bits().to_vec(),
                };
                let pixels = Pixels {
                    width: 256,
                    height: 1,
                    color,
                    samples: Samples::Eight(levels),
                };
                let shown = color::to_srgb(pixels, Some(&icc));
                let width = shown.color.channels();
                for (level, pixel) in (0..=255u8).zip(shown.eight_bits().chunks_exact(width)) {
                    let expected = of_lightness(f64::from(level) / 2.55) * 255.0;
                    let is_near = pixel[..3]
                        .iter()
                        .all(|&part| (f64::from(part) - expected).abs() < 2.5);
                    assert!(is_near, "{name}: {level} is {pixel:?}, not {expected}");
                }
            }
        }
    }
}

/// XYZ ends at 1 + 32,767 / 32,768.
#[test]
fn tables_may_lead_to_xyz() {
    let white = [0.9642, 1.0, 0.8249];
    let node = |at: usize| {
        let bright = [at >> 2, at >> 1 & 1, at & 1].into_iter().sum::<usize>() as f64 / 3.0;
        white.map(|part| (part * bright * 32_768.0) as u16)
    };
    let nodes: Vec<u16> = (0..8).flat_map(node).collect();
    let icc = profile(
        [2, 0x40],
        [b"scnr", b"RGB ", b"XYZ "],
        &[(b"A2B0", table(3, 2, &nodes))],
    );
    assert_levels("XYZ", &icc, Color::Rgb, curve_of_srgb);
    // Next to colorants, the table counts.
    let mut both: Vec<(&[u8; 4], Vec<u8>)> = colorants(1.8);
    both.push((b"A2B0", table(3, 2, &nodes)));
    let icc = profile([2, 0x40], [b"scnr", b"RGB ", b"XYZ "], &both);
    assert_levels("XYZ and colorants", &icc, Color::Rgb, curve_of_srgb);
}

/// Colorants are XYZ, whatever connection space the header names.
#[test]
fn colorants_may_lead_to_lab() {
    let pixels = Pixels {
        width: 64,
        height: 1,
        color: Color::Rgb,
        samples: Samples::Eight((0..192u32).map(|at| (at * 7919 % 251) as u8).collect()),
    };
    for version in [[2, 0x40], [4, 0x30]] {
        let [to_xyz, to_lab] = [b"XYZ ", b"Lab "].map(|connection| {
            let icc = profile(version, [b"mntr", b"RGB ", connection], &colorants(1.0));
            color::to_srgb(pixels.clone(), Some(&icc))
        });
        let pairs = to_xyz.eight_bits().iter().zip(to_lab.eight_bits());
        let far = pairs.map(|(a, b)| a.abs_diff(*b)).max();
        assert!(far <= Some(2), "{version:?}: {far:?}");
        assert_ne!(to_xyz, pixels);
    }
}

#[test]
fn tables_may_have_unequal_sides() {
    // Linear along each axis, so that a coarse grid is exact.
    let lab = |at: &[f64]| {
        let ink = at.get(3).map_or(1.0, |black| 1.0 - black / 2.0);
        [
            (100.0 - 20.0 * (at[0] + at[1] + at[2])) * ink,
            40.0 * (at[0] - at[1]),
            40.0 * (at[1] - at[2]),
        ]
    };
    let names = |space| [b"prtr", space, b"Lab "];
    for (space, color, sides) in [
        (b"CMYK", Color::Cmyk, &[[9, 5, 7, 3], [2, 3, 4, 17]][..]),
        (b"RGB ", Color::Rgb, &[[9, 5, 7, 0], [2, 17, 3, 0]]),
    ] {
        let inputs = color.channels();
        let equal = unequal_table(
            &[9, 9, 9, 9][..inputs],
            &nodes(&[9, 9, 9, 9][..inputs], lab),
        );
        let equal = profile([4, 0x30], names(space), &[(b"A2B0", equal)]);
        let samples = (0..400u32).map(|at| (at * 7919 % 251) as u8);
        let pixels = Pixels {
            width: samples.len() as u32 / inputs as u32,
            height: 1,
            color,
            samples: Samples::Eight(samples.take(400 / inputs * inputs).collect()),
        };
        let expected = color::to_srgb(pixels.clone(), Some(&equal));
        assert_ne!(expected, color::to_srgb(pixels.clone(), None));
        for sides in sides {
            let sides = &sides[..inputs];
            let icc = profile(
                [4, 0x30],
                names(space),
                &[(b"A2B0", unequal_table(sides, &nodes(sides, lab)))],
            );
            let seen = color::to_srgb(pixels.clone(), Some(&icc));
            let pairs = seen.eight_bits().iter().zip(expected.eight_bits());
            let far = pairs.map(|(a, b)| a.abs_diff(*b)).max();
            assert!(far <= Some(4), "{sides:?}: {far:?}");
        }
    }
}

#[test]
fn a_profile_that_cannot_be_applied_is_a_warning() {
    let rgb = ramp(Color::Rgb, false);
    let of_inks = profile([2, 0x40], [b"prtr", b"CMYK", b"Lab "], &[]);
    let torn = linear([2, 0x40])[..200].to_vec();
    let newest = linear([6, 0]);
    // Such profiles lead from device to device, from one connection space to another, or from names.
    let [link, of_lab, of_names, to_rgb] = [
        [b"link", b"RGB ", b"RGB "],
        [b"abst", b"RGB ", b"Lab "],
        [b"nmcl", b"RGB ", b"Lab "],
        [b"prtr", b"RGB ", b"RGB "],
    ]
    .map(|names: [&[u8; 4]; 3]| {
        let lab = nodes(&[2, 2, 2], |at| [100.0 * at[0], 0.0, 0.0]);
        profile(
            [4, 0x30],
            names,
            &[(b"A2B0", unequal_table(&[2, 2, 2], &lab))],
        )
    });
    for (icc, why) in [
        (&of_inks, "for other colours"),
        (&torn, "cannot be read"),
        (&newest, "cannot be read"),
        (&link, "cannot be read"),
        (&of_lab, "cannot be read"),
        (&of_names, "cannot be read"),
        (&to_rgb, "cannot be read"),
        (&b"not a profile".to_vec(), "cannot be read"),
    ] {
        let file = tagged(&rgb, icc);
        let made = resize_encoded(&file, &ResizeSpec::full_size()).unwrap();
        let damage = made.damage.unwrap();
        assert!(
            damage.text.contains(why) && damage.missing == 0,
            "{}",
            damage.text
        );
        assert_eq!(
            check(&file, &ResizeSpec::full_size())
                .unwrap()
                .damage
                .unwrap()
                .text,
            damage.text
        );
        let strict = ResizeSpec {
            fail_on: FailOn::Warning,
            ..ResizeSpec::full_size()
        };
        assert!(
            resize_encoded(&file, &strict)
                .unwrap_err()
                .to_string()
                .contains(why)
        );
        assert!(check(&file, &strict).unwrap_err().proves_damage());
    }
    let good = resize_encoded(&tagged(&rgb, &linear([2, 0x40])), &ResizeSpec::full_size());
    assert_eq!(good.unwrap().damage, None);
}

/// A JPEG whose segments have parts of a profile: number, number of parts, bytes.
fn in_parts(parts: &[(u8, u8, &[u8])]) -> Vec<u8> {
    let file = jpeg(&waves(40, 30));
    let segment = |&(number, count, part): &(u8, u8, &[u8])| {
        let content = [b"ICC_PROFILE\0", &[number, count][..], part].concat();
        let len = (content.len() as u16 + 2).to_be_bytes();
        [&[0xff, 0xe2], &len[..], &content].concat()
    };
    let segments: Vec<u8> = parts.iter().flat_map(segment).collect();
    [&file[..2], &segments, &file[2..]].concat()
}

/// libvips and libjpeg join the first part of each number, too, and drop a profile that lacks parts.
#[test]
fn parts_of_a_profile_in_a_jpeg_may_be_repeated_but_not_missing() {
    let icc = linear([2, 0x40]);
    let third = icc.len() / 3;
    let (one, two, three) = (&icc[..third], &icc[third..2 * third], &icc[2 * third..]);
    let made = |parts: &[(u8, u8, &[u8])]| {
        resize_encoded(&in_parts(parts), &ResizeSpec::full_size()).unwrap()
    };
    let whole = made(&[(1, 1, &icc)]);
    let plain = made(&[]);
    assert_ne!(whole.bytes, plain.bytes);
    let all = [(1, 3, one), (2, 3, two), (3, 3, three)];
    for parts in [
        &all[..],
        &[all[2], all[0], all[1]],
        &[all, all].concat(),
        &[all[0], all[1], all[1], all[2]],
        &[all[0], all[1], all[2], (4, 3, one)],
        &[all[0], all[1], all[2], (1, 1, one), (2, 2, one)],
        &[(1, 1, &icc), all[0], all[1], all[2]],
        &[(0, 3, one), (1, 3, two), (2, 3, three)],
    ] {
        let made = made(parts);
        assert!(
            made.bytes == whole.bytes && made.damage.is_none(),
            "{parts:?}"
        );
    }
    for parts in [
        &all[..2],
        &all[1..],
        &[all[0], all[2]],
        &[all[0], all[0], all[2]],
        &[(1, 4, one), (2, 4, two), (3, 4, three)],
        &[(1, 0, &icc)],
        &[(1, u8::MAX, &icc), (u8::MAX, u8::MAX, &icc)],
    ] {
        let made = made(parts);
        let text = made.damage.unwrap().text;
        assert!(text.contains("colour profile cannot be read"), "{text}");
        assert_eq!(made.bytes, plain.bytes, "{parts:?}");
    }
}

/// libvips decodes the file with `fail_on=error`, without the profile, and refuses it with `fail_on=warning`.
#[test]
fn a_profile_that_ends_beyond_its_tiff_is_a_warning() {
    use ::tiff::encoder::{TiffEncoder, colortype::RGB8};
    let profile = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    let mut file = std::io::Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file).unwrap();
    let mut image = encoder.new_image::<RGB8>(8, 8).unwrap();
    let tag = ::tiff::tags::Tag::IccProfile;
    image.encoder().write_tag(tag, &profile[..]).unwrap();
    image.write_data(&[200, 60, 60].repeat(64)).unwrap();
    let mut whole = file.into_inner();
    // Moves the profile to the end of the file.
    let entry = [
        &[0x73, 0x87, 1, 0],
        &(profile.len() as u32).to_le_bytes()[..],
    ]
    .concat();
    let at = whole.windows(8).position(|eight| eight == entry).unwrap() + 8;
    let end = whole.len() as u32;
    whole[at..at + 4].copy_from_slice(&end.to_le_bytes());
    whole.extend(profile);

    let spec = ResizeSpec::full_size();
    let red = |file: &[u8]| {
        let made = resize_encoded(file, &spec).unwrap();
        (decoded(&made).to_rgb8().get_pixel(4, 4).0[0], made.damage)
    };
    let (applied, damage) = red(&whole);
    assert!(applied > 208 && damage.is_none(), "{applied}: {damage:?}");
    let torn = &whole[..whole.len() - 1];
    let (plain, damage) = red(torn);
    let damage = damage.unwrap();
    assert!(damage.text.contains("colour profile"), "{}", damage.text);
    assert_eq!((plain, damage.missing), (200, 0));
    let fail_on = FailOn::Warning;
    for result in [
        check(torn, &ResizeSpec { fail_on, ..spec }).map(|_| ()),
        resize_encoded(torn, &ResizeSpec { fail_on, ..spec }).map(|_| ()),
    ] {
        assert!(result.unwrap_err().proves_damage());
    }
}

/// Whatever the bytes are, a profile is applied or not; nothing panics.
#[test]
fn spoilt_profiles_are_harmless() {
    let lut = table(4, 3, &nodes(&[3; 4], |at| [100.0 - 90.0 * at[3], 0.0, 0.0]));
    let unequal = unequal_table(
        &[2, 3, 2, 4],
        &nodes(&[2, 3, 2, 4], |at| [100.0 * at[0], 0.0, 0.0]),
    );
    let names = [b"prtr", b"CMYK", b"Lab "];
    let mut seed = 1u64;
    for icc in [
        profile([4, 0x30], names, &[(b"A2B0", lut)]),
        profile([4, 0x30], names, &[(b"A2B0", unequal)]),
        profile(
            [2, 0x40],
            [b"prtr", b"GRAY", b"Lab "],
            &[(b"kTRC", gamma(1.0))],
        ),
    ] {
        let color = if &icc[16..20] == b"GRAY" {
            Color::Gray
        } else {
            Color::Cmyk
        };
        let pixels = Pixels {
            width: 4,
            height: 1,
            color,
            samples: Samples::Eight(vec![90; 4 * color.channels()]),
        };
        for _ in 0..40 {
            let mut spoilt = icc.clone();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (seed >> 33) as usize % spoilt.len().min(400);
                spoilt[at] = (seed >> 25) as u8;
            }
            color::to_srgb(pixels.clone(), Some(&spoilt));
            color::to_srgb(pixels.clone(), Some(&spoilt[..spoilt.len() / 2]));
        }
    }
}

/// A PNG of two pixels with this chunk about its colours.
fn with_chunk(color: Color, kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let file = encode(ramp(color, false), Format::Png, 80).unwrap();
    let body = [&kind[..], data].concat();
    let sum = meta::crc32(&body).to_be_bytes();
    let chunk = [&(data.len() as u32).to_be_bytes(), &body[..], &sum].concat();
    // Signature and header have 33 bytes.
    [&file[..33], &chunk, &file[33..]].concat()
}

/// libpng ignores a profile of version 4 whose length is no multiple of 4, and warns about offsets that are none and
/// about another white (`png_icc_check_header`, `png_icc_check_tag_table`): browsers, libvips and ImageMagick read with
/// libpng.
#[test]
fn profiles_made_for_a_result_are_as_libpng_wants_them() {
    let keeping = ResizeSpec {
        keep_metadata: true,
        ..ResizeSpec::full_size()
    };
    let word = |icc: &[u8], at: usize| u32::from_be_bytes(*icc[at..].first_chunk().unwrap());
    let gammas =
        [100_000_u32, 55_556, 50_000].map(|gamma| (*b"gAMA", gamma.to_be_bytes().to_vec()));
    let points = [
        (12, 13),
        (9, 13),
        (9, 1),
        (1, 4),
        (1, 8),
        (12, 8),
        (10, 8),
        (11, 17),
        (5, 6),
    ];
    let points = points.map(|(primaries, curve)| (*b"cICP", vec![primaries, curve, 0, 1]));
    let mut lengths = std::collections::BTreeSet::new();
    for (kind, data) in gammas.into_iter().chain(points) {
        for color in [Color::Gray, Color::Rgb, Color::Rgba] {
            let what = format!("{} {data:?} {color:?}", kind.escape_ascii());
            let file = with_chunk(color, &kind, &data);
            let icc = rendered(&file, &keeping).unwrap().metadata.icc.unwrap();
            assert_eq!(word(&icc, 0) as usize, icc.len(), "{what}");
            assert_eq!(icc.len() % 4, 0, "{what}");
            let d50 = [0.9642, 1.0, 0.8249].map(fixed).concat();
            assert_eq!(icc[68..80], d50, "{what}");
            // Not the time of the run: equal inputs have equal results.
            assert_eq!(icc[24..36], shorts(&[2026, 1, 1, 0, 0, 0]), "{what}");
            let tags: Vec<_> = (0..word(&icc, 128) as usize)
                .map(|number| &icc[132 + 12 * number..][..12])
                .collect();
            for tag in &tags {
                assert_eq!(word(tag, 4) % 4, 0, "{what}: {}", tag[..4].escape_ascii());
            }
            // White is that of the connection space, and nothing says how it was adapted.
            let white = tags.iter().find(|tag| tag.starts_with(b"wtpt")).unwrap();
            assert_eq!(icc[word(white, 4) as usize + 8..][..12], d50, "{what}");
            assert!(tags.iter().all(|tag| !tag.starts_with(b"chad")), "{what}");
            assert!(lcms2::Profile::new_icc(&icc).is_ok(), "{what}");
            lengths.insert(icc.len());
        }
    }
    assert!(lengths.len() > 5, "{lengths:?}");
}

/// The numbers are those that ImageMagick 6.9 writes to each PNG.
#[test]
fn primaries_of_srgb_need_no_profile() {
    let keeping = ResizeSpec {
        keep_metadata: true,
        ..ResizeSpec::full_size()
    };
    let icc = |places: [u32; 8]| {
        let places: Vec<u8> = places.iter().flat_map(|it| it.to_be_bytes()).collect();
        let file = with_chunk(Color::Rgb, b"cHRM", &places);
        rendered(&file, &keeping).unwrap().metadata.icc
    };
    let srgb = [
        31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000,
    ];
    assert_eq!(icc(srgb), None);
    // Rounded otherwise, and green of Adobe RGB.
    assert_eq!(icc(srgb.map(|place| place + 100)), None);
    let adobe = [
        31_270, 32_900, 64_000, 33_000, 21_000, 71_000, 15_000, 6_000,
    ];
    assert!(icc(adobe).is_some());
}

/// As in libavif, libheif, Pillow, libvips and Chromium: the curve of a camera, by the numbers of BT.709, BT.601 and
/// BT.2020, changes no pixel.
#[test]
fn curves_of_video_count_as_that_of_srgb() {
    let avif = include_bytes!("pictures/avif_444_8_full.avif");
    let at = avif.windows(4).position(|four| four == b"nclx").unwrap() + 4;
    let shown = |primaries: u8, curve: u8| {
        let png = with_chunk(Color::Rgb, b"cICP", &[primaries, curve, 0, 1]);
        let mut avif = avif.to_vec();
        avif[at..at + 4].copy_from_slice(&[0, primaries, 0, curve]);
        [png, avif].map(|file| decode(&file).unwrap())
    };
    for primaries in [1, 12] {
        for curve in [1, 6, 14, 15] {
            assert!(
                shown(primaries, curve) == shown(primaries, 13),
                "{primaries}, {curve}"
            );
        }
        assert!(shown(primaries, 8) != shown(primaries, 13), "linear");
    }
    for primaries in 5..=7 {
        assert!(shown(primaries, 6) == shown(1, 13), "{primaries}");
        assert!(shown(primaries, 13) != shown(1, 13), "{primaries}");
    }
}
