//! Lossy and lossless WebP by libwebp: decodes one picture into the caller's memory.
//!
//! The `unsafe` blocks pass libwebp pointers to slices that are borrowed for the call, with their lengths.

use super::super::pixels::buffer;
use super::riff::{alpha, announces_alpha};
use libwebp_sys::{
    VP8StatusCode, WEBP_CSP_MODE, WebPDecode, WebPDecoderConfig, WebPGetFeatures, WebPIDecode,
    WebPIDecodedArea, WebPIDelete, WebPIUpdate, WebPRGBABuffer, WebPYUVABuffer,
};

/// The properties of the picture in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) has_alpha: bool,
    pub(super) is_lossy: bool,
}

/// Why pixels are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    OutOfMemory,
    Damage,
}

/// The memory for the pixels: rows without padding.
pub(super) enum Target<'a> {
    /// Red, green, blue, and alpha if the header says so.
    Rgb(&'a mut [u8]),
    /// Luma, and two planes of chroma with half of each side, rounded up. Only for a lossy picture without alpha.
    Planes(&'a mut [u8], [&'a mut [u8]; 2]),
}

/// Reads the header. `None` if libwebp cannot read it.
pub(super) fn header(file: &[u8]) -> Option<Header> {
    /// libwebp's number for a lossy picture.
    const LOSSY: i32 = 1;
    let mut config = WebPDecoderConfig::new().ok()?;
    let features = &mut config.input;
    // SAFETY: the bytes are borrowed for the call, which fills `features`.
    let status = unsafe { WebPGetFeatures(file.as_ptr(), file.len(), features) };
    let is_lossy = features.format == LOSSY;
    (status == VP8StatusCode::VP8_STATUS_OK).then_some(Header {
        width: features.width.unsigned_abs(),
        height: features.height.unsigned_abs(),
        // libwebp also finds alpha of a lossy picture that the file does not announce; Pillow and libvips ignore it.
        has_alpha: features.has_alpha != 0 && (!is_lossy || announces_alpha(file)),
        is_lossy,
    })
}

impl Target<'_> {
    /// Returns whether the memory has room for the picture.
    fn fits(&self, header: &Header) -> bool {
        let (width, height) = (header.width as usize, header.height as usize);
        match self {
            Self::Rgb(samples) => {
                samples.len() == width * height * if header.has_alpha { 4 } else { 3 }
            }
            Self::Planes(luma, chroma) => {
                let half = width.div_ceil(2) * height.div_ceil(2);
                luma.len() == width * height && chroma.iter().all(|plane| plane.len() == half)
            }
        }
    }

    /// Returns the options of libwebp. If `smooths`, libwebp smooths the borders of blocks in a lossy picture.
    fn config(&mut self, header: &Header, smooths: bool) -> Option<WebPDecoderConfig> {
        if !self.fits(header) {
            return None;
        }
        let mut config = WebPDecoderConfig::new().ok()?;
        config.options.bypass_filtering = i32::from(!smooths);
        config.output.is_external_memory = 1;
        let width = i32::try_from(header.width).ok()?;
        match self {
            Self::Rgb(samples) => {
                let (mode, channels) = match header.has_alpha {
                    true => (WEBP_CSP_MODE::MODE_RGBA, 4),
                    false => (WEBP_CSP_MODE::MODE_RGB, 3),
                };
                config.output.colorspace = mode;
                config.output.u.RGBA = WebPRGBABuffer {
                    rgba: samples.as_mut_ptr(),
                    stride: width.checked_mul(channels)?,
                    size: samples.len(),
                };
            }
            Self::Planes(luma, [blue, red]) => {
                let half = width / 2 + width % 2;
                config.output.colorspace = WEBP_CSP_MODE::MODE_YUV;
                config.output.u.YUVA = WebPYUVABuffer {
                    y: luma.as_mut_ptr(),
                    u: blue.as_mut_ptr(),
                    v: red.as_mut_ptr(),
                    a: std::ptr::null_mut(),
                    y_stride: width,
                    u_stride: half,
                    v_stride: half,
                    a_stride: 0,
                    y_size: luma.len(),
                    u_size: blue.len(),
                    v_size: red.len(),
                    a_size: 0,
                };
            }
        }
        Some(config)
    }
}

fn judged(status: VP8StatusCode, file: &[u8], header: &Header) -> Result<(), Failure> {
    match status {
        VP8StatusCode::VP8_STATUS_OK => Ok(()),
        // libwebp also says this of alpha that it cannot begin to decode.
        VP8StatusCode::VP8_STATUS_OUT_OF_MEMORY if !has_damaged_alpha(file, header) => {
            Err(Failure::OutOfMemory)
        }
        _ => Err(Failure::Damage),
    }
}

/// Decodes only the alpha of a lossy picture, and returns whether it is damaged.
fn has_damaged_alpha(file: &[u8], header: &Header) -> bool {
    let (compression, values) = match alpha(file) {
        None => return false,
        // The two highest bits are reserved; the next two are 1 for alpha with fewer levels.
        Some(&[head, ref values @ ..]) if head >> 6 == 0 && head >> 4 <= 1 => (head & 3, values),
        Some(_) => return true,
    };
    let pixels = header.width as usize * header.height as usize;
    match compression {
        0 => values.len() < pixels,
        1 => {
            // Alpha is a lossless picture without its header: a signature, and two sides of 14 bits.
            let sides = (header.width - 1) | (header.height - 1) << 14;
            let stream = buffer(5 + values.len());
            let (Ok(mut stream), Ok(mut samples)) = (stream, buffer(3 * pixels)) else {
                return false;
            };
            stream[0] = 0x2f;
            stream[1..5].copy_from_slice(&sides.to_le_bytes());
            stream[5..].copy_from_slice(values);
            let header = Header {
                has_alpha: false,
                ..*header
            };
            whole(&stream, &header, Target::Rgb(&mut samples), true) == Err(Failure::Damage)
        }
        _ => true,
    }
}

/// Decodes a whole picture. A file that ends early counts as damaged, even if no pixel is missing.
pub(super) fn whole(
    file: &[u8],
    header: &Header,
    mut target: Target<'_>,
    smooths: bool,
) -> Result<(), Failure> {
    let config = target.config(header, smooths);
    let mut config = config.ok_or(Failure::Damage)?;
    // SAFETY: the bytes of the file and, through the lengths in `config`, of the target are borrowed for the call.
    let status = unsafe { WebPDecode(file.as_ptr(), file.len(), &mut config) };
    judged(status, file, header)
}

/// Decodes as much of a picture as the file contains. Returns the number of rows, and the reason if rows are missing.
pub(super) fn beginning(
    file: &[u8],
    header: &Header,
    samples: &mut [u8],
    smooths: bool,
) -> (usize, Result<(), Failure>) {
    let Some(mut config) = Target::Rgb(&mut *samples).config(header, smooths) else {
        return (0, Err(Failure::Damage));
    };
    let mut rows = 0;
    // SAFETY: the decoder has pointers to the file, to `config` and to the samples, and is deleted before they are
    // dropped.
    let status = unsafe {
        let decoder = WebPIDecode(std::ptr::null(), 0, &mut config);
        if decoder.is_null() {
            return (0, Err(Failure::OutOfMemory));
        }
        let status = WebPIUpdate(decoder, file.as_ptr(), file.len());
        let mut sides = [0; 3];
        let [left, top, width] = &mut sides;
        WebPIDecodedArea(decoder, left, top, width, &mut rows);
        WebPIDelete(decoder);
        status
    };
    (
        usize::try_from(rows).unwrap_or(0),
        judged(status, file, header),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::encoder::encoded;
    use super::*;

    /// libwebp reports a lack of memory in both cases. The oracle is its decoder of lossless pictures.
    #[test]
    fn only_damaged_alpha_is_no_lack_of_memory() {
        let (width, height) = (40, 30);
        let pixels: Vec<u8> = (0..width * height * 4)
            .map(|i| (i * i % 251) as u8)
            .collect();
        let whole = encoded(&pixels, (width, height), true, 80.0, false).unwrap();
        let header = header(&whole).unwrap();
        let judged = |file: &[u8]| {
            let status = VP8StatusCode::VP8_STATUS_OUT_OF_MEMORY;
            super::judged(status, file, &header).unwrap_err()
        };
        assert_eq!(judged(&whole), Failure::OutOfMemory);
        let at = whole.windows(4).position(|kind| kind == b"ALPH").unwrap() + 8;
        assert_eq!(whole[at] & 3, 1, "compressed");
        let mut counts = [0; 2];
        for (position, value) in (at..at + 80).flat_map(|at| [(at, 0), (at, 0xff), (at, 0x55)]) {
            let mut file = whole.to_vec();
            file[position] = value;
            let mut samples = vec![0; pixels.len()];
            // Of the whole picture.
            let expected = match super::whole(&file, &header, Target::Rgb(&mut samples), true) {
                Ok(()) => Failure::OutOfMemory,
                Err(_) => Failure::Damage,
            };
            assert_eq!(judged(&file), expected, "{value:#x} at {position}");
            counts[usize::from(expected == Failure::Damage)] += 1;
        }
        assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
    }
}
