//! Lossy and lossless WebP by libwebp: encodes one picture.
//!
//! The `unsafe` blocks pass libwebp pointers to values that are borrowed for the call, with their lengths.

use std::ffi::c_int;

use libwebp_sys::{
    WebPConfig, WebPEncode, WebPEncodingError, WebPPicture, WebPPictureFree, WebPPictureImportRGB,
    WebPPictureImportRGBA,
};

/// A picture of libwebp, with the copy of the pixels that it owns.
struct Picture(WebPPicture);

impl Drop for Picture {
    fn drop(&mut self) {
        // SAFETY: the picture was initialized, and nothing else has a pointer to its memory.
        unsafe { WebPPictureFree(&mut self.0) }
    }
}

/// Appends a part of the file to the vector at `custom_ptr`. Returns 0, which ends the encoder, if there is no memory.
unsafe extern "C" fn append(part: *const u8, len: usize, picture: *const WebPPicture) -> c_int {
    if len == 0 {
        return 1;
    }
    // SAFETY: `encoded` has put the vector there and does not use it while the encoder runs; the part has `len` bytes.
    let (file, part) = unsafe {
        let file = &mut *(*picture).custom_ptr.cast::<Vec<u8>>();
        (file, std::slice::from_raw_parts(part, len))
    };
    let has_room = file.try_reserve(len).is_ok();
    if has_room {
        file.extend_from_slice(part);
    }
    c_int::from(has_room)
}

/// Encodes rows of red, green, blue, and alpha if `has_alpha`, without padding. `quality` is the effort if `lossless`.
pub(super) fn encoded(
    samples: &[u8],
    (width, height): (u32, u32),
    has_alpha: bool,
    quality: f32,
    lossless: bool,
) -> Result<Vec<u8>, WebPEncodingError> {
    let unusable = WebPEncodingError::VP8_ENC_ERROR_INVALID_CONFIGURATION;
    let mut config = WebPConfig::new().map_err(|()| unusable)?;
    config.quality = quality;
    config.lossless = c_int::from(lossless);
    let mut picture = Picture(WebPPicture::new().map_err(|()| unusable)?);
    let too_large = WebPEncodingError::VP8_ENC_ERROR_BAD_DIMENSION;
    let side = |side: u32| c_int::try_from(side).map_err(|_| too_large);
    let channels = if has_alpha { 4 } else { 3 };
    (picture.0.width, picture.0.height) = (side(width)?, side(height)?);
    let stride = picture.0.width.checked_mul(channels).ok_or(too_large)?;
    if samples.len() as u64 != stride.unsigned_abs() as u64 * u64::from(height) {
        return Err(too_large);
    }
    // Otherwise the samples are converted to luma and chroma as they are copied.
    picture.0.use_argb = c_int::from(lossless);
    let mut file = Vec::<u8>::new();
    picture.0.writer = Some(append);
    picture.0.custom_ptr = (&raw mut file).cast();
    // SAFETY: the samples have as many bytes as sides and stride say, and are borrowed for the call; `file` outlives
    // the encoder.
    let is_done = unsafe {
        let import = if has_alpha {
            WebPPictureImportRGBA
        } else {
            WebPPictureImportRGB
        };
        import(&mut picture.0, samples.as_ptr(), stride) != 0
            && WebPEncode(&config, &mut picture.0) != 0
    };
    match is_done {
        true => Ok(file),
        false => Err(picture.0.error_code),
    }
}
