//! AV1 by re_rav1d, a fork of rav1d, which is dav1d translated to Rust: decodes one picture from the bytes of one item.
//!
//! This module calls the C interface of rav1d: the safe interface of the fork panics on reserved code points. The
//! `unsafe` blocks pass pointers to local variables, and read the samples of a picture that rav1d returned.
//!
//! A panic of rav1d aborts the process: its functions are `extern "C"`. No file is known that leads to a panic.

use std::ffi::c_uint;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use re_rav1d::include::dav1d::data::Dav1dData;
use re_rav1d::include::dav1d::dav1d::{Dav1dContext, Dav1dLogger, Dav1dSettings};
use re_rav1d::include::dav1d::headers::{
    DAV1D_PIXEL_LAYOUT_I400, DAV1D_PIXEL_LAYOUT_I420, DAV1D_PIXEL_LAYOUT_I422,
};
use re_rav1d::include::dav1d::picture::Dav1dPicture;
use re_rav1d::src::lib::{
    dav1d_close, dav1d_data_create, dav1d_data_unref, dav1d_default_settings, dav1d_get_picture,
    dav1d_open, dav1d_picture_unref, dav1d_send_data,
};

use super::super::error::ImageError;
use super::boxes::corrupt;
use super::container::{CodePoints, Config};
use super::picture::{Owner, Picture};

/// The result "try again" of rav1d.
const AGAIN: i32 = -11;
/// The result "not allocated" of rav1d.
const NO_MEMORY: i32 = -12;

/// A picture of rav1d, which owns its samples.
pub(super) struct Frame(Box<Dav1dPicture>);

/// An open decoder.
struct Context(Option<Dav1dContext>);

impl Context {
    /// Opens a decoder that runs on the caller's thread, and rejects frames of more than `most_pixels` pixels.
    fn new(operating_point: u8, most_pixels: u32) -> Result<Self, ImageError> {
        let mut settings = MaybeUninit::<Dav1dSettings>::uninit();
        // SAFETY: the pointer is that of a local variable, which is only written.
        unsafe { dav1d_default_settings(NonNull::from(&mut settings).cast()) };
        // SAFETY: the call above has initialised it.
        let mut settings = unsafe { settings.assume_init() };
        settings.n_threads = 1;
        settings.max_frame_delay = 1;
        settings.operating_point = operating_point.into();
        // Decodes only the best of several layers.
        settings.all_layers = 0;
        settings.frame_size_limit = most_pixels as c_uint;
        // SAFETY: no function is passed, so none can be called.
        settings.logger = unsafe { Dav1dLogger::new(None, None) };
        let mut context = Self(None);
        // SAFETY: both pointers are those of local variables, initialised and valid for the whole call.
        let result = unsafe {
            dav1d_open(
                Some(NonNull::from(&mut context.0)),
                Some(NonNull::from(&mut settings)),
            )
        };
        match (result.0, &context.0) {
            (0, Some(_)) => Ok(context),
            _ => Err(ImageError::OutOfMemory { bytes: 0 }),
        }
    }

    /// Passes data to the decoder, which removes from `data` the bytes that it has read. Returns rav1d's result.
    fn send(&mut self, data: &mut Data) -> i32 {
        // SAFETY: the context is open until `drop`. rav1d made `data`, and changed it since only by taking from it.
        unsafe { dav1d_send_data(self.0, Some(NonNull::from(&mut data.0))).0 }
    }

    /// Returns the next picture, or rav1d's result if there is none.
    fn picture(&mut self) -> Result<Dav1dPicture, i32> {
        let mut picture = Dav1dPicture::default();
        // SAFETY: the context is open until `drop`. `picture` is an empty local variable, which is only written.
        let result = unsafe { dav1d_get_picture(self.0, Some(NonNull::from(&mut picture))) };
        match result.0 {
            0 => Ok(picture),
            error => Err(error),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is what `dav1d_open` stored, or `None`, and is not used afterwards. Pictures have their
        // own references to the data that they need.
        unsafe { dav1d_close(Some(NonNull::from(&mut self.0))) };
    }
}

/// Bytes in memory of rav1d.
struct Data(Dav1dData);

impl Data {
    fn copied(bytes: &[u8]) -> Result<Self, ImageError> {
        let mut data = Self(Dav1dData::default());
        // SAFETY: the pointer is that of an empty local variable, which is only written.
        let start = unsafe { dav1d_data_create(Some(NonNull::from(&mut data.0)), bytes.len()) };
        if start.is_null() {
            let bytes = bytes.len() as u64;
            return Err(ImageError::OutOfMemory { bytes });
        }
        // SAFETY: the call above allocated `bytes.len()` bytes at `start`, and no other code has their address yet.
        unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(data)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        // SAFETY: rav1d made the struct. It is empty if all data was taken.
        unsafe { dav1d_data_unref(Some(NonNull::from(&mut self.0))) };
    }
}

/// Decodes the first picture in `bytes`.
///
/// # Errors
/// If there is no picture, or if its sides are not these.
pub(super) fn decode(
    bytes: &[u8],
    (width, height): (u32, u32),
    operating_point: u8,
) -> Result<Picture, ImageError> {
    if bytes.is_empty() {
        return Err(corrupt("a picture without data"));
    }
    // 0 would mean no limit. If the number of pixels does not fit, the largest limit applies.
    let pixels = u64::from(width) * u64::from(height);
    let most = u32::try_from(pixels).unwrap_or(u32::MAX).max(1);
    let mut context = Context::new(operating_point, most)?;
    let mut data = Data::copied(bytes)?;
    let inner = loop {
        let had = data.0.sz;
        if had > 0 {
            match context.send(&mut data) {
                0 | AGAIN => {}
                error => return Err(translate(error)),
            }
        }
        match context.picture() {
            Ok(picture) => break Frame(Box::new(picture)),
            Err(AGAIN) if data.0.sz < had => {}
            Err(error) => return Err(translate(error)),
        }
    };
    let Dav1dPicture {
        p, data, stride, ..
    } = &*inner.0;
    let chroma_shifts = match p.layout {
        DAV1D_PIXEL_LAYOUT_I420 => (1, 1),
        DAV1D_PIXEL_LAYOUT_I422 => (1, 0),
        _ => (0, 0),
    };
    // SAFETY: rav1d stores a pointer to the header with which it decoded the picture, and keeps it as long as the
    // picture.
    let header = inner.0.seq_hdr.map(|header| unsafe { header.as_ref() });
    let code_points = CodePoints {
        primaries: header.map_or(2, |header| header.pri as u8),
        transfer: header.map_or(2, |header| header.trc as u8),
        matrix: header.map_or(2, |header| header.mtrx as u8),
        is_full: header.is_some_and(|header| header.color_range != 0),
    };
    let (start, stride) = (*data, *stride);
    let (depth, sides) = (p.bpc as u8, (p.w, p.h));
    let is_grey = p.layout == DAV1D_PIXEL_LAYOUT_I400;
    let channel = |number: usize| Some((start[number]?.cast(), stride[number.min(1)]));
    let channels = [channel(0), channel(1), channel(2)];
    // SAFETY: rav1d allocated the stride of a channel for each of its rows, and has written the samples of the picture,
    // which has this depth. It does not change them as long as the frame exists.
    Ok(unsafe {
        Picture::new(
            Owner::Av1(inner),
            channels,
            sides,
            Config { depth, is_grey },
            chroma_shifts,
            code_points,
        )
    })
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: rav1d returned the picture, and nothing borrows it any more.
        unsafe { dav1d_picture_unref(Some(NonNull::from(&mut *self.0))) };
    }
}

/// Converts a result of rav1d to an error.
fn translate(result: i32) -> ImageError {
    match result {
        NO_MEMORY => ImageError::OutOfMemory { bytes: 0 },
        // `ERANGE`.
        -34 => corrupt("its picture is larger than its header says"),
        AGAIN => corrupt("its data ends before the picture does"),
        _ => corrupt("its pixels cannot be decoded"),
    }
}
