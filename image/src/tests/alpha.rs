//! Alpha in TIFF of all colour models: the picture has the colours of the same one without it.

use super::*;

/// Samples in their order, with 8 bits, or with 16 whose upper and lower half are equal.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// The colour model by its number, and its samples without alpha.
    model: (u32, usize),
    is_deep: bool,
    is_planar: bool,
    is_tiled: bool,
    /// 1 is alpha that multiplies the colours, 2 is alpha that does not.
    alpha: Option<u32>,
}

const SIDE: usize = 32;
const TILE: usize = 16;

/// A TIFF of these pixels, without compression.
fn tiff(shape: Shape, pixels: &[Vec<u8>]) -> Vec<u8> {
    let samples = pixels[0].len();
    let (part, planes) = (
        if shape.is_tiled { TILE } else { SIDE },
        if shape.is_planar { samples } else { 1 },
    );
    let mut file = b"II*\0\0\0\0\0".to_vec();
    let (mut places, mut lens) = (Vec::new(), Vec::new());
    for plane in 0..planes {
        for number in 0..(SIDE / part) * (SIDE / part) {
            let (left, top) = (number % (SIDE / part) * part, number / (SIDE / part) * part);
            let start = file.len();
            for y in top..top + part {
                for pixel in &pixels[y * SIDE + left..][..part] {
                    let own = if shape.is_planar {
                        &pixel[plane..=plane]
                    } else {
                        &pixel[..]
                    };
                    own.iter().for_each(|&sample| {
                        file.extend(vec![sample; 1 + usize::from(shape.is_deep)])
                    });
                }
            }
            places.push(start as u32);
            lens.push((file.len() - start) as u32);
        }
    }
    let bits = if shape.is_deep { 16 } else { 8 };
    let mut tags: Vec<(u16, u16, Vec<u32>)> = vec![
        (256, 3, vec![SIDE as u32]),
        (257, 3, vec![SIDE as u32]),
        (258, 3, vec![bits; samples]),
        (262, 3, vec![shape.model.0]),
        (277, 3, vec![samples as u32]),
        (284, 3, vec![1 + u32::from(shape.is_planar)]),
    ];
    tags.extend(shape.alpha.map(|alpha| (338, 3, vec![alpha])));
    if shape.model.0 == 6 {
        // Each pixel has its own differences.
        tags.push((530, 3, vec![1, 1]));
    }
    if shape.model.0 == 3 {
        let colors = (0..3 << bits).map(|at| (at * 7 % 256) * 257).collect();
        tags.push((320, 3, colors));
    }
    match shape.is_tiled {
        true => tags.extend([
            (322, 3, vec![TILE as u32]),
            (323, 3, vec![TILE as u32]),
            (324, 4, places),
            (325, 4, lens),
        ]),
        false => tags.extend([
            (273, 4, places),
            (278, 3, vec![SIDE as u32]),
            (279, 4, lens),
        ]),
    }
    tags.sort_by_key(|(tag, ..)| *tag);
    let start = (file.len() as u32).to_le_bytes();
    file[4..8].copy_from_slice(&start);
    file.extend((tags.len() as u16).to_le_bytes());
    let mut far = Vec::new();
    let after = file.len() + 12 * tags.len() + 4;
    for (tag, kind, values) in tags {
        let width = if kind == 3 { 2 } else { 4 };
        let mut bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes()[..width].to_vec())
            .collect();
        file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend((values.len() as u32).to_le_bytes());
        if bytes.len() > 4 {
            file.extend(((after + far.len()) as u32).to_le_bytes());
            far.append(&mut bytes);
        } else {
            bytes.resize(4, 0);
            file.append(&mut bytes);
        }
    }
    file.extend([0; 4]);
    file.append(&mut far);
    file
}

/// ICCLab has the white of colour profiles.
#[test]
fn lab_of_profiles_is_what_little_cms_makes_of_it() {
    use lcms2::{CIExyY, GlobalContext, Intent, PixelFormat, Profile, Transform};
    let white = CIExyY {
        x: 0.3457,
        y: 0.3585,
        Y: 1.0,
    };
    let lab = Profile::new_lab4_context(GlobalContext::new(), &white).unwrap();
    let (srgb, intent) = (Profile::new_srgb(), Intent::RelativeColorimetric);
    let formats = (PixelFormat::Lab_8, PixelFormat::RGB_8);
    let transform = Transform::new(&lab, formats.0, &srgb, formats.1, intent).unwrap();
    let pixels: Vec<[u8; 3]> = (0..SIDE * SIDE)
        .map(|at| [60 + at % 170, 118 + at / 7 % 20, 118 + at / 3 % 20].map(|part| part as u8))
        .collect();
    let mut expected = vec![[0_u8; 3]; pixels.len()];
    transform.transform_pixels(&pixels, &mut expected);
    let shape = Shape {
        model: (9, 3),
        is_deep: false,
        is_planar: false,
        is_tiled: false,
        alpha: None,
    };
    let rows: Vec<_> = pixels.iter().map(|pixel| pixel.to_vec()).collect();
    let Samples::Eight(found) = decode(&tiff(shape, &rows)).unwrap().samples else {
        panic!("not eight bits");
    };
    for (at, (found, expected)) in found.iter().zip(expected.as_flattened()).enumerate() {
        assert!(found.abs_diff(*expected) <= 2, "{at}: {found}, {expected}");
    }
}

/// Alpha of 51 at the left and of 255 at the right.
fn alpha_at(index: usize) -> u8 {
    (51 + index % SIDE * 204 / (SIDE - 1)) as u8
}

#[test]
fn alpha_is_kept_beside_all_colours() {
    for (model, is_signed) in [
        ((5, 4), false),
        ((8, 3), true),
        ((9, 3), false),
        ((3, 1), false),
        ((6, 3), false),
        ((2, 3), false),
        ((1, 1), false),
    ] {
        for bits in 0..8u8 {
            let is = |bit: u8| bits >> bit & 1 == 1;
            let shape = Shape {
                model,
                is_deep: is(0),
                is_planar: is(1),
                is_tiled: is(2),
                alpha: None,
            };
            // Luma and chroma have 8 bits. A palette of 16 bits has more colours than there are here.
            if shape.is_deep && matches!(model.0, 3 | 6) {
                continue;
            }
            let part = |index: usize, channel: usize| {
                (20 + index / SIDE * (3 + channel) + channel * 23) as u8 % 100
            };
            let plain: Vec<Vec<u8>> = (0..SIDE * SIDE)
                .map(|index| (0..model.1).map(|channel| part(index, channel)).collect())
                .collect();
            let expected = decode(&tiff(shape, &plain))
                .unwrap()
                .into_eight_bits()
                .into_rgb();
            for kind in [1, 2] {
                let multiplied = |index: usize, channel: usize, sample: u8| match kind {
                    2 => sample,
                    // Differences around 0, and the others, are nearer to nothing.
                    _ if is_signed && channel > 0 => {
                        (f32::from(sample.cast_signed()) * f32::from(alpha_at(index)) / 255.0)
                            .round() as i8 as u8
                    }
                    _ => (f32::from(sample) * f32::from(alpha_at(index)) / 255.0).round() as u8,
                };
                if kind == 1 && matches!(model.0, 3 | 6) {
                    continue;
                }
                let pixels = plain.iter().enumerate().map(|(index, pixel)| {
                    let colors = pixel
                        .iter()
                        .enumerate()
                        .map(|(channel, &sample)| multiplied(index, channel, sample));
                    colors.chain([alpha_at(index)]).collect()
                });
                let file = tiff(
                    Shape {
                        alpha: Some(kind),
                        ..shape
                    },
                    &pixels.collect::<Vec<_>>(),
                );
                let seen = decode(&file).unwrap();
                assert_eq!(
                    seen.color.channels(),
                    expected_channels(model.0),
                    "{shape:?}"
                );
                let seen = seen.into_eight_bits().into_rgb();
                let pairs = seen
                    .eight_bits()
                    .chunks_exact(4)
                    .zip(expected.eight_bits().chunks_exact(3));
                // Rounding of a fifth is five steps, and more once L*a*b* is RGB.
                let most = if kind == 1 { 12 } else { 0 };
                for (index, (seen, expected)) in pairs.enumerate() {
                    assert_eq!(seen[3], alpha_at(index), "{shape:?}");
                    let far = seen.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max();
                    assert!(
                        far <= Some(most),
                        "{shape:?} {kind}: {seen:?}, not {expected:?}"
                    );
                }
                let unspecified = tiff(
                    Shape {
                        alpha: Some(0),
                        ..shape
                    },
                    &vec![vec![9; model.1 + 1]; SIDE * SIDE],
                );
                assert!(!decode(&unspecified).unwrap().color.has_alpha());
            }
        }
    }
}

/// Grey stays grey.
fn expected_channels(model: u32) -> usize {
    if model == 1 { 2 } else { 4 }
}

#[test]
fn transparent_inks_are_transparent_in_a_result() {
    let shape = Shape {
        model: (5, 4),
        is_deep: false,
        is_planar: false,
        is_tiled: false,
        alpha: Some(2),
    };
    let pixel = |index: usize| {
        vec![
            0,
            200,
            200,
            0,
            if index % SIDE < SIDE / 2 { 0 } else { 255 },
        ]
    };
    let file = tiff(shape, &(0..SIDE * SIDE).map(pixel).collect::<Vec<_>>());
    let small = decoded(&resize_encoded(&file, &spec("8")).unwrap()).to_rgba8();
    assert!(small.get_pixel(1, 4).0[3] <= 1);
    let [red, green, _, alpha] = small.get_pixel(6, 4).0;
    assert!(
        red == 255 && green < 70 && alpha >= 254,
        "{red} {green} {alpha}"
    );
}
