//! Decodes, resizes and encodes pictures: plain functions over `&[u8]` that any program can call, and that serve as
//! kernels of [arenite](https://docs.rs/arenite). `arenite resize` runs [`resize_encoded`] in its workers.
//!
//! | from | to | |
//! |---|---|---|
//! | a file's bytes | a file's bytes | [`resize_encoded`] |
//! | a file's bytes | whether it is whole | [`check`] |
//! | a file's bytes | sides and frames, by its headers | [`announced()`] |
//! | a file's bytes | pixels | [`resize_to_pixels`], [`decode`] |
//! | a file's bytes | the picture in several sizes | [`resize_encoded_sizes`], [`resize_sizes_to_pixels`] |
//! | pixels | a file's bytes | [`encode`] |
//! | pixels | pixels | [`resize_pixels`] |
//! | pixels | an array, and back | [`Pixels::to_array`], [`Pixels::from_array`] |
//!
//! ```
//! use arenite_image::{probe, resize_encoded, Format, ResizeSpec};
//! # let photo = std::fs::read("../samples/chelsea.jpg")?;
//! assert_eq!(probe(&photo), Some(Format::Jpeg));
//! let small = resize_encoded(&photo, &ResizeSpec::new("100x100".parse()?))?;
//! assert_eq!((small.width, small.height), (100, 67));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What happens to a picture
//! 1. The first bytes decide the format. Formats that are not decoded, such as JPEG 2000, are rejected by name. HEIC is
//!    decoded by libde265, if the system has it.
//! 2. The header is read. A picture of more than `max_pixels` is rejected before memory is allocated for it, and an
//!    animation of [four times](ResizeSpec::MAX_FRAMES) as many before a frame is decoded.
//! 3. The picture is decoded. JPEG is scaled during decoding, to no less than twice the target on each side, except for
//!    the filters `Box` and `Nearest` and in linear light; other formats are decoded at full size. If there are several
//!    target sizes, the largest decides the scale. In a raw file of a camera the largest preview is decoded; in
//!    a TIFF with several pages, and in animated JPEG XL and AVIF, the first picture.
//! 4. The picture is resized, with colours weighted by alpha, in the stored numbers or in linear light
//!    ([`ResizeSpec::linear`]), and *then* turned by its EXIF orientation and converted to sRGB: both are cheap on a
//!    small picture. Margins are added last.
//! 5. The picture is encoded: as JPEG with 4:2:0 chroma, baseline or progressive; as PNG; as WebP, lossy or lossless;
//!    as GIF; or as AVIF with chroma at full size.
//! 6. In an animation (GIF, WebP, PNG of 8 bits that is not interlaced) these steps are taken for each frame. Only the
//!    part of a frame that changes is written. JPEG and AVIF contain the first frame.
//!
//! # Decisions
//! - **Profiles** are applied and dropped: pixels become sRGB, which viewers assume without a profile, and a profile
//!   may be larger than the thumbnail. With `keep_metadata` the pixels keep their colours and the profile is kept
//!   (except for CMYK, and for grey in WebP and AVIF, which become sRGB). A profile that cannot be applied is
//!   [damage](ResizeSpec::fail_on) outside the pixels.
//! - **HDR**: PQ and HLG in AVIF and PNG (cICP) become sRGB by the curve of BT.2390 for a white of 203 nits, up to 1000
//!   nits. With `keep_metadata`, PNG and AVIF keep the pixels and code points unchanged, unless margins are added.
//! - **Truncated and corrupt files are errors** by default, even if libjpeg would fill the gap with grey: a truncated
//!   thumbnail would look complete. Damage that costs no pixel of the result is no error: a missing end, absent restart
//!   markers, later pages of a TIFF beyond the end of the file.
//!   [`ResizeSpec::fail_on`] changes this, and [`Encoded::damage`] describes the damage.
//! - **16 bits** stay 16 bits from PNG or TIFF to PNG, and so do 10 and 12 bits of AVIF; JPEG, WebP and AVIF are
//!   written with 8. A CMYK profile is applied to the upper 8 bits.
//! - **Alpha** is kept in PNG, WebP and AVIF, and rounded to transparent or opaque in GIF. In JPEG, transparent parts
//!   show `background`, which is white by default. Margins of [`Fit::Pad`] show it too, or are transparent: see
//!   [`Margins`]. A GIF without transparent pixels has no alpha; a WebP animation has alpha if its first frame does not
//!   cover the canvas.
//! - **Grey** stays grey in JPEG and PNG, except over a coloured background. WebP, GIF and AVIF are never written as
//!   grey.
//! - **GIF** has 256 colours per frame: those that fit best, mixed (dithered) if the difference would be visible.
//!   Frames of an animation keep their duration, and the animation keeps its number of repetitions.
//! - **CMYK** (and YCCK) JPEGs and CMYK TIFFs become RGB, by their profile if they have one. Adobe's programs and all
//!   others store inverted inks in JPEG, so the inks are inverted back. TIFFs of all colour models keep their alpha.
//! - **AVIF** is turned as its container says; an orientation in its EXIF is ignored. In an animation the separate
//!   still picture is used, which is usually the first frame.
//! - **Curves of video** (BT.709, BT.601 and BT.2020 in cICP, nclx, HEVC, AV1 and JPEG XL) count as that of sRGB, as in
//!   browsers.
//! - **Profiles of PNG** are also made from cICP (as for AVIF), and from gAMA with cHRM; a gAMA of 1/2.2 alone counts
//!   as sRGB.
//! - **Palettes** of PNG and GIF stay palettes in PNG if the result is exact or looks the same: see [`Palette`].
//! - **Metadata** is dropped without `keep_metadata`. With it, EXIF (orientation reset, sides updated, thumbnail
//!   removed), XMP (orientation reset) and the profile are kept in JPEG, PNG, WebP and AVIF. Everything else is
//!   dropped: IPTC (APP13 of JPEG), comments, PNG texts, extended XMP (which spans segments), and XMP about other parts
//!   of the file (gain maps, motion photos, thumbnails). In JPEG, EXIF or XMP longer than a segment (64 KiB) is dropped
//!   with a warning; so is EXIF that does not begin like EXIF. The tags of a TIFF are both its EXIF and the description
//!   of its pixels: none of them is kept.
#![deny(unsafe_code)]

mod animation;
mod announced;
mod arrays;
mod attention;
mod avif;
mod bmp;
mod check;
mod color;
mod damage;
mod encode;
mod error;
mod exif;
mod format;
mod gif;
mod hdr;
mod ico;
mod jpeg;
mod jxl;
mod linear;
mod meta;
mod pad;
mod palette;
mod pixels;
mod png;
mod pnm;
mod position;
mod qoi;
mod raw;
mod resample;
mod several;
mod size;
mod spec;
#[cfg(test)]
mod tests;
mod tga;
mod tiff;
mod webp;
mod xmp;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use announced::{Announced, announced};
pub use check::{Checked, check};
pub use damage::{Damage, FailOn};
pub use error::ImageError;
pub use format::{Format, PROBE_BYTES, probe};
pub use pad::{Margins, Padding};
pub use palette::Palette;
pub use pixels::{Color, Pixels, Samples};
pub use position::Position;
pub use resample::{resize_pixels, resize_pixels_into};
pub use size::{Fit, Plan, Region, Size, When};
pub use spec::{Filter, Output, ResizeSpec};

use animation::Frame;
use damage::Found;
use encode::Encoding;
use meta::{Chroma, Decoded, Metadata, Request, StoredPlan};
use pixels::Orientation;

/// A picture in compressed form.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encoded {
    /// The content of the file.
    pub bytes: Vec<u8>,
    /// The format of the file: JPEG, PNG, WebP, GIF or AVIF.
    pub format: Format,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Damage of the input that [`ResizeSpec::fail_on`] does not count as an error.
    pub damage: Option<Damage>,
}

/// Decodes, resizes and encodes one picture. See the [module](self) for the steps.
///
/// # Errors
/// [`ImageError`]. This function does not panic on broken input.
pub fn resize_encoded(input: &[u8], spec: &ResizeSpec) -> Result<Encoded, ImageError> {
    let mut encoded = resize_encoded_sizes(input, spec, &[spec.size])?;
    // One size has one result.
    Ok(encoded.swap_remove(0))
}

/// Loads the decoder of HEIC, libde265 of the system, and returns its version.
///
/// Without this call, the first HEIC picture loads the library. A sandbox forbids that, so call this function when a
/// worker starts.
///
/// ```
/// # arenite::init();
/// use arenite::Engine;
/// let start = || drop(arenite_image::heic_decoder());
/// let engine = Engine::builder().workers(1).on_worker_start(start).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ImageError::UnsupportedVariety`], with the packages that contain the library, if the system lacks it.
pub fn heic_decoder() -> Result<String, ImageError> {
    avif::hevc_version()
}

/// Returns whether JPEG is decoded and encoded by assembly. On x86_64 that needs nasm when this crate is built; without
/// it, full decodes of JPEG take about twice as long.
pub fn has_jpeg_assembly() -> bool {
    jpeg::has_assembly()
}

/// Decodes one picture once, and resizes and encodes it to each of `sizes`, in their order, for example for `srcset` of
/// a web page. `sizes` replaces the size in `spec`. For a large JPEG this takes little longer than the largest size
/// alone.
///
/// The largest result equals that of [`resize_encoded`], byte for byte. Smaller results are made from the largest, or
/// from the same decoded pixels, and differ from separate results by at most two levels in the mean. Sizes that lead to
/// the same sides, for example if the picture is smaller and may not be enlarged, have equal results.
///
/// ```
/// use arenite_image::{resize_encoded_sizes, ResizeSpec, Size};
/// # let photo = std::fs::read("../samples/chelsea.jpg")?;
/// let sizes: [Size; 3] = ["100x".parse()?, "200x".parse()?, "400x".parse()?];
/// let files = resize_encoded_sizes(&photo, &ResizeSpec::full_size(), &sizes)?;
/// let srcset: Vec<String> = files.iter().map(|file| format!("cat-{0}.jpg {0}w", file.width)).collect();
/// assert_eq!(srcset.join(", "), "cat-100.jpg 100w, cat-200.jpg 200w, cat-400.jpg 400w");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The errors of [`resize_encoded`], for any of the sizes; `BadRequest` if `sizes` is empty.
pub fn resize_encoded_sizes(
    input: &[u8],
    spec: &ResizeSpec,
    sizes: &[Size],
) -> Result<Vec<Encoded>, ImageError> {
    let encode = |rendered: Rendered| {
        let metadata = spec.keep_metadata.then_some(&rendered.metadata);
        let (how, format) = (Encoding::of(spec).after(input), rendered.format);
        let Pixels { width, height, .. } = rendered.frames[0].pixels;
        let bytes = match &rendered.frames[..] {
            [still] => encode::encode(&still.pixels, format, how, metadata)?,
            _ => animation::encode(rendered.frames, rendered.plays, format, how, metadata)?,
        };
        Ok(Encoded {
            bytes,
            format,
            width,
            height,
            damage: rendered.damage,
        })
    };
    let request = Request {
        spec,
        sizes,
        animates: !spec.first_frame,
        checks: false,
    };
    let (rendered, of_sizes) = render(input, request)?;
    let encoded: Result<Vec<Encoded>, ImageError> = rendered.into_iter().map(encode).collect();
    encoded.map(|encoded| for_sizes(encoded, of_sizes))
}

/// Decodes and resizes one picture to the pixels that [`resize_encoded`] would encode.
///
/// # Errors
/// The errors of [`resize_encoded`].
pub fn resize_to_pixels(input: &[u8], spec: &ResizeSpec) -> Result<Pixels, ImageError> {
    let mut pixels = resize_sizes_to_pixels(input, spec, &[spec.size])?;
    // One size has one result.
    Ok(pixels.swap_remove(0))
}

/// Decodes one picture once, and resizes it to the pixels that [`resize_encoded_sizes`] would encode.
///
/// # Errors
/// The errors of [`resize_encoded_sizes`].
pub fn resize_sizes_to_pixels(
    input: &[u8],
    spec: &ResizeSpec,
    sizes: &[Size],
) -> Result<Vec<Pixels>, ImageError> {
    let request = Request {
        spec,
        sizes,
        animates: false,
        checks: false,
    };
    let (rendered, of_sizes) = render(input, request)?;
    let firsts = rendered.into_iter().flat_map(|rendered| rendered.frames);
    let pixels = firsts
        .map(|first| color::without_ycbcr(first.pixels))
        .collect();
    Ok(for_sizes(pixels, of_sizes))
}

/// Returns the result for each size. `of_sizes` contains the index of the result for each size.
fn for_sizes<T: Clone>(results: Vec<T>, of_sizes: Vec<usize>) -> Vec<T> {
    match results.len() == of_sizes.len() {
        true => results,
        false => of_sizes
            .iter()
            .map(|&index| results[index].clone())
            .collect(),
    }
}

/// Decodes one picture at its full size, upright and in sRGB, within the limits of [`ResizeSpec::full_size`].
///
/// ```
/// use arenite_image::{decode, Color};
/// let photo = decode(&std::fs::read("../samples/chelsea.jpg")?)?;
/// assert_eq!((photo.width, photo.height, photo.color), (451, 300, Color::Rgb));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The errors of [`resize_encoded`].
#[doc(alias("imread", "imdecode"))]
pub fn decode(input: &[u8]) -> Result<Pixels, ImageError> {
    resize_to_pixels(input, &ResizeSpec::full_size())
}

/// Encodes sRGB pixels as JPEG, PNG, WebP, GIF or AVIF. `quality` of JPEG, WebP and AVIF is 1 to 100; other numbers are
/// clamped. Pixels that the format does not support are converted, see the [decisions](self#decisions).
///
/// ```
/// use arenite_image::{decode, encode, Format};
/// let photo = decode(&std::fs::read("../samples/chelsea.jpg")?)?;
/// let file = encode(photo.clone(), Format::Png, 80)?;
/// assert_eq!(decode(&file)?, photo);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `NotAnOutput` for another format; `BadRequest` if the number of samples does not match the sides, or a side is 0;
/// `OutputTooLarge` if the format does not support the sides; `Encode`.
#[doc(alias("imwrite", "imencode"))]
pub fn encode(pixels: Pixels, format: Format, quality: u8) -> Result<Vec<u8>, ImageError> {
    pixels.check()?;
    spec::check_sides((pixels.width, pixels.height), format)?;
    let pixels = color::to_srgb(pixels, None);
    let how = Encoding::new(quality);
    encode::encode(&encode::prepared(pixels, format, how), format, how, None)
}

/// Returns the format of a decodable file by its first bytes. A file that has no signature, and begins with plausible
/// fields of a TGA, counts as TGA.
///
/// # Errors
/// `NotAnImage` if the format is unknown, `Unsupported` if it is known but not decoded.
pub fn readable_format(head: &[u8]) -> Result<Format, ImageError> {
    match probe(head) {
        Some(format) if format.is_readable() => Ok(format),
        Some(format) => Err(ImageError::Unsupported {
            format: format.name(),
        }),
        None if tga::is_header(head) => Ok(Format::Tga),
        None => Err(ImageError::NotAnImage),
    }
}

/// Returns the format of a file, of which all bytes are needed: some raw files of cameras begin like TIFF.
fn format_of(input: &[u8]) -> Result<Format, ImageError> {
    match readable_format(input)? {
        Format::Tiff if raw::is_tiff(input) => Ok(Format::CameraRaw),
        format => Ok(format),
    }
}

/// A picture between decoder and encoder.
struct Rendered {
    /// At least one frame; more for an animation.
    frames: Vec<Frame>,
    /// How often an animation is displayed; 0 for endless repetition.
    plays: u32,
    metadata: Metadata,
    format: Format,
    damage: Option<Damage>,
}

/// The different results of a request, and for each of its sizes the index of its result.
type AllRendered = (Vec<Rendered>, Vec<usize>);

fn render(input: &[u8], request: Request<'_>) -> Result<AllRendered, ImageError> {
    let from = format_of(input)?;
    if request.sizes.is_empty() {
        let reason = "at least one size is needed".to_owned();
        return Err(ImageError::BadRequest { reason });
    }
    // Decoders return errors. If a decoder panics in spite of that, the picture counts as corrupt.
    let work = || render_unguarded(input, from, request);
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        let reason = format!("the decoder panicked: {text}");
        Err(ImageError::corrupt(from, reason))
    })
}

/// Decodes a picture for a request, and applies the policy of the request to the damage.
fn decode_for(
    input: &[u8],
    from: Format,
    request: Request<'_>,
) -> Result<(Decoded, Option<Damage>), ImageError> {
    let mut decoded = match from {
        Format::Jpeg => jpeg::decode(input, request)?,
        Format::Png => png::decode(input, request)?,
        Format::WebP => webp::decode(input, request)?,
        Format::Gif => gif::decode(input, request)?,
        Format::Tiff => tiff::decode(input, request)?,
        Format::Bmp => bmp::decode(input, request)?,
        Format::Avif | Format::Heic => avif::decode(input, from, request)?,
        Format::JpegXl => jxl::decode(input, Orientation::NoTransforms, request)?,
        Format::Pnm => pnm::decode(input, request)?,
        Format::Qoi => qoi::decode(input, request)?,
        Format::Tga => tga::decode(input, request)?,
        Format::Ico => ico::decode(input, request)?,
        Format::CameraRaw => raw::decode(input, request)?,
        other => {
            return Err(ImageError::Unsupported {
                format: other.name(),
            });
        }
    };
    let model = match decoded.chroma {
        Some(_) => Color::YCbCr,
        None => decoded.pixels.color,
    };
    let keeps = request.spec.keep_metadata;
    let faults = decoded.metadata.faults(model, keeps).into_iter();
    let faults = faults.map(|reason| Found::around(ImageError::corrupt(from, reason)));
    let mut damage = None;
    for mut found in decoded.damage.take().into_iter().chain(faults) {
        if !request.checks {
            found = found.unshown();
        }
        add_damage(&mut damage, found, request.spec, decoded.full)?;
    }
    Ok((decoded, damage))
}

/// Returns the damage of a file that ends before one of its pictures after the first does, according to the structure
/// of the file. Decodes nothing.
fn damage_after_first(input: &[u8], from: Format) -> Option<Found> {
    match from {
        Format::Jpeg => jpeg::damage_after_first(input),
        Format::Png => png::damage_after_first(input),
        Format::WebP => webp::damage_after_first(input),
        Format::Gif => gif::damage_after_first(input),
        Format::Tiff => tiff::damage_after_first(input),
        Format::Ico => ico::damage_beyond_picture(input),
        Format::CameraRaw => raw::damage_beyond_preview(input),
        _ => None,
    }
}

/// Applies the policy of `spec` to new damage, `found`, and adds it to the earlier `damage`. The sides are those of the
/// file's picture.
fn add_damage(
    damage: &mut Option<Damage>,
    found: Found,
    spec: &ResizeSpec,
    (width, height): (u32, u32),
) -> Result<(), ImageError> {
    let new = found.judge(spec.fail_on, u64::from(width) * u64::from(height))?;
    *damage = Some(match damage.take() {
        Some(damage) => damage.and(new),
        None => new,
    });
    Ok(())
}

fn render_unguarded(
    input: &[u8],
    from: Format,
    request: Request<'_>,
) -> Result<AllRendered, ImageError> {
    let (mut decoded, mut damage) = decode_for(input, from, request)?;
    // All frames of an animation have the margins of the first.
    let margins = margins(&decoded, request.spec);
    let spec = &ResizeSpec {
        margins,
        ..*request.spec
    };
    let into = spec.output.format_for(from);
    let of_sizes = drop_repetitions(&mut decoded.plans, decoded.chroma.as_mut());
    if spec.position == Position::Attention {
        let chroma = decoded.chroma.as_mut();
        attention::aim(
            &decoded.pixels,
            chroma,
            &mut decoded.plans,
            &decoded.metadata,
            spec.max_bytes,
        )?;
    }
    let Decoded {
        pixels,
        chroma,
        plans,
        orientation,
        metadata,
        full,
        ..
    } = decoded;
    let results = |mut pixels: Pixels, chroma: Option<Chroma>| {
        let mut metadata = metadata.clone();
        if spec.linear {
            // Linear light uses the curve of sRGB, so convert to sRGB first, unless colours are kept. CMYK is always
            // converted.
            if !spec.keep_metadata || pixels.color == Color::Cmyk {
                pixels = metadata.apply_colors(pixels);
            }
            pixels = color::without_ycbcr(pixels);
        }
        let small = several::resize_each(pixels, chroma, &plans, spec)?;
        let finished = small.into_iter().zip(&plans).map(|(small, plan)| {
            let upright = small.oriented(orientation)?;
            finish(upright, plan.padding, (from, metadata.clone()), spec)
        });
        finished.collect::<Result<Vec<(Pixels, Metadata)>, ImageError>>()
    };
    let (first_color, mut rendered) = (pixels.color, Vec::with_capacity(plans.len()));
    let mut too_long = None;
    for (pixels, mut metadata) in results(pixels, chroma)? {
        if spec.keep_metadata {
            let turned = orientation != Orientation::NoTransforms;
            metadata.describe((pixels.width, pixels.height), turned);
            let reason = match into {
                Format::Jpeg => jpeg::drop_too_long(&mut metadata),
                _ => None,
            };
            too_long = too_long.or(reason);
        }
        rendered.push(Rendered {
            frames: vec![Frame { pixels, millis: 0 }],
            plays: 0,
            metadata,
            format: into,
            damage: None,
        });
    }
    if let Some(reason) = too_long {
        let found = Found::around(ImageError::BadRequest { reason });
        add_damage(&mut damage, found, spec, full)?;
    }
    // If the first frame lacks pixels, no other frames are added.
    if damage.as_ref().is_none_or(|damage| damage.missing == 0) {
        let mut found = None;
        if request.animates && into.is_animated() {
            found = add_frames(input, (from, spec), first_color, &mut rendered, results)?;
        }
        let unshown = || damage_after_first(input, from).map(Found::unshown);
        if let Some(found) = found.or_else(unshown) {
            add_damage(&mut damage, found, spec, full)?;
        }
    }
    for rendered in &mut rendered {
        rendered.damage.clone_from(&damage);
    }
    Ok((rendered, of_sizes))
}

/// Returns the margins of the results: by the pixels of the picture, because formats differ in whether a picture without
/// transparency has alpha.
fn margins(decoded: &Decoded, spec: &ResizeSpec) -> Margins {
    let has_any = decoded.plans.iter().any(|plan| !plan.padding.is_empty());
    match spec.margins {
        Margins::Auto if has_any && decoded.pixels.is_opaque() => Margins::Background,
        Margins::Auto if has_any => Margins::Transparent,
        margins => margins,
    }
}

/// Adds the other frames of an animation to the results of the first. Returns the damage that ends the animation, if
/// any.
fn add_frames(
    input: &[u8],
    (from, spec): (Format, &ResizeSpec),
    first: Color,
    rendered: &mut [Rendered],
    results: impl Fn(Pixels, Option<Chroma>) -> Result<Vec<(Pixels, Metadata)>, ImageError>,
) -> Result<Option<Found>, ImageError> {
    let animation = match animation::open(input, from, spec, true) {
        Ok(Some(animation)) => animation,
        Ok(None) => return Ok(None),
        Err(error) => return Ok(Some(Found::later(error))),
    };
    let is_grey = matches!(first, Color::Gray | Color::GrayAlpha);
    let mut bytes = 0;
    for (number, frame) in animation.frames.enumerate() {
        let frame = match frame {
            Ok(frame) => frame,
            Err(found) => return Ok(Some(found)),
        };
        // The first frame was grey, so the profile of the result is for grey.
        let pixels = match is_grey {
            true => frame.pixels.into_grey(),
            false => frame.pixels,
        };
        let made = results(pixels, None)?;
        for (rendered, (pixels, _)) in rendered.iter_mut().zip(made) {
            rendered.plays = animation.plays;
            // Writing the frames takes the same amount again.
            bytes += 2 * pixels.bytes();
            let millis = frame.millis;
            match number {
                // The first frame equals the picture made before, but has a time.
                0 => rendered.frames[0] = Frame { pixels, millis },
                _ => rendered.frames.push(Frame { pixels, millis }),
            }
        }
        if bytes > spec.max_bytes {
            return Err(ImageError::TooManyBytes {
                bytes,
                limit: spec.max_bytes,
            });
        }
    }
    Ok(None)
}

/// Removes repeated plans. Returns for each original plan the index of the equal plan in the shortened list.
fn drop_repetitions(plans: &mut Vec<StoredPlan>, chroma: Option<&mut Chroma>) -> Vec<usize> {
    let mut different: Vec<usize> = Vec::new();
    let mut indices = Vec::with_capacity(plans.len());
    for (at, plan) in plans.iter().enumerate() {
        let known = different.iter().position(|&other| plans[other] == *plan);
        indices.push(known.unwrap_or(different.len()));
        if known.is_none() {
            different.push(at);
        }
    }
    if let Some(chroma) = chroma {
        chroma.regions = different.iter().map(|&at| chroma.regions[at]).collect();
    }
    *plans = different.iter().map(|&at| plans[at]).collect();
    indices
}

/// Converts resized pixels to the form that is encoded, with margins. Applies or checks the profile in the metadata.
fn finish(
    upright: Pixels,
    padding: Padding,
    (from, mut metadata): (Format, Metadata),
    spec: &ResizeSpec,
) -> Result<(Pixels, Metadata), ImageError> {
    let into = spec.output.format_for(from);
    let how = Encoding::of(spec);
    // A profile describes its pixels, so it is applied when inks or grey become RGB, and for GIF, which has no
    // profiles.
    let cannot_stay = |icc: &Vec<u8>| {
        let is_too_long = into == Format::Jpeg && icc.len() > jpeg::LONGEST_PROFILE;
        is_too_long || !color::is_profile_of(icc, upright.color)
    };
    let drops_profile = into == Format::Gif
        || upright.color == Color::Cmyk
        || how.makes_rgb(upright.color, into)
        || padding.make_rgb(upright.color, into, spec)
        || metadata.icc.as_ref().is_some_and(cannot_stay);
    // Margins have colours of sRGB, so a picture with margins cannot stay HDR.
    let holds_hdr = matches!(into, Format::Png | Format::Avif) && padding == Padding::default();
    let drops_hdr = metadata.hdr.is_some() && !holds_hdr;
    let pixels = match spec.keep_metadata && !drops_profile && !drops_hdr {
        true => upright,
        false => metadata.apply_colors(upright),
    };
    let pixels = encode::prepared(pixels, into, how);
    let pixels = padding.around(pixels, into, spec)?;
    Ok((pixels, metadata))
}

// The program in README.md is a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
