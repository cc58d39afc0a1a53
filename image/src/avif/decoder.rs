//! AV1 by re_rav1d, a fork of rav1d, which is dav1d in Rust: one picture from the bytes of one item.
//!
//! rav1d is called here through its interface of C. The safe one that the fork adds panics on reserved code points. The
//! `unsafe` blocks pass pointers to locals, and read the samples of a picture that rav1d returned.
//!
//! A panic of rav1d aborts the process: its functions are `extern "C"`. No file is known that leads to one.

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

/// rav1d's "try again" and "not allocated", as it returns them.
const AGAIN: i32 = -11;
const NO_MEMORY: i32 = -12;

/// A decoded picture, of which rav1d owns the samples.
pub(super) struct Picture {
    inner: Dav1dPicture,
    /// Bits per sample.
    depth: u8,
}

/// The samples of one channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane<'a, T> {
    samples: &'a [T],
    stride: usize,
    width: usize,
}

/// A sample of 8 bits, or of 10 or 12 in 16.
pub(super) trait Sample: Copy + Into<u32> + 'static {}

impl Sample for u8 {}
impl Sample for u16 {}

impl<'a, T> Plane<'a, T> {
    /// A row; `None` below the last one.
    pub(super) fn row(&self, y: usize) -> Option<&'a [T]> {
        let start = y.checked_mul(self.stride)?;
        self.samples.get(start..)?.get(..self.width)
    }
}

/// An open decoder.
struct Context(Option<Dav1dContext>);

impl Context {
    /// A decoder that runs on the caller's thread, and refuses frames of more than this number of pixels.
    fn new(operating_point: u8, most_pixels: u32) -> Result<Self, ImageError> {
        let mut settings = MaybeUninit::<Dav1dSettings>::uninit();
        // SAFETY: the pointer is that of a local, which is only written.
        unsafe { dav1d_default_settings(NonNull::from(&mut settings).cast()) };
        // SAFETY: the call above has written all of it.
        let mut settings = unsafe { settings.assume_init() };
        settings.n_threads = 1;
        settings.max_frame_delay = 1;
        settings.operating_point = operating_point.into();
        // The best of several layers.
        settings.all_layers = 0;
        settings.frame_size_limit = most_pixels as c_uint;
        // SAFETY: there is no function that would be called.
        settings.logger = unsafe { Dav1dLogger::new(None, None) };
        let mut context = Self(None);
        // SAFETY: both pointers are those of locals, valid and initialized for the whole call.
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

    /// Passes on data. Returns rav1d's result; what it took is gone from `data`.
    fn send(&mut self, data: &mut Data) -> i32 {
        // SAFETY: the context is open until `drop`; `data` is what rav1d made or left of it.
        unsafe { dav1d_send_data(self.0, Some(NonNull::from(&mut data.0))).0 }
    }

    /// The next picture, or rav1d's result without one.
    fn picture(&mut self) -> Result<Dav1dPicture, i32> {
        let mut picture = Dav1dPicture::default();
        // SAFETY: the context is open until `drop`; `picture` is a local that holds nothing, and is only written.
        let result = unsafe { dav1d_get_picture(self.0, Some(NonNull::from(&mut picture))) };
        match result.0 {
            0 => Ok(picture),
            error => Err(error),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is what `dav1d_open` stored, or `None`, and nothing uses it afterwards. Pictures have
        // references of their own to what they need.
        unsafe { dav1d_close(Some(NonNull::from(&mut self.0))) };
    }
}

/// Bytes in memory of rav1d.
struct Data(Dav1dData);

impl Data {
    fn copied(bytes: &[u8]) -> Result<Self, ImageError> {
        let mut data = Self(Dav1dData::default());
        // SAFETY: the pointer is that of a local that holds nothing, and is only written.
        let start = unsafe { dav1d_data_create(Some(NonNull::from(&mut data.0)), bytes.len()) };
        if start.is_null() {
            let bytes = bytes.len() as u64;
            return Err(ImageError::OutOfMemory { bytes });
        }
        // SAFETY: the call above allocated as many bytes at `start`, and has shown them to nothing else yet.
        unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(data)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        // SAFETY: the struct is what rav1d made or left of it; it is empty if all was taken.
        unsafe { dav1d_data_unref(Some(NonNull::from(&mut self.0))) };
    }
}

impl Picture {
    /// Decodes the first picture in `bytes`.
    ///
    /// # Errors
    /// If there is none, if it has not these sides, or other samples than the configuration says.
    pub(super) fn decode(
        bytes: &[u8],
        (width, height): (u32, u32),
        config: Config,
        operating_point: u8,
    ) -> Result<Self, ImageError> {
        if bytes.is_empty() {
            return Err(corrupt("a picture without data"));
        }
        // 0 would be no limit; no picture has so many pixels that it does not fit.
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
                Ok(picture) => break picture,
                Err(AGAIN) if data.0.sz < had => {}
                Err(error) => return Err(translate(error)),
            }
        };
        let is_grey = inner.p.layout == DAV1D_PIXEL_LAYOUT_I400;
        let depth = inner.p.bpc as u8;
        let sides = (inner.p.w, inner.p.h);
        let picture = Self { inner, depth };
        if (i64::from(sides.0), i64::from(sides.1)) != (i64::from(width), i64::from(height)) {
            let reason = format!(
                "its picture has {}x{} pixels, and its header says {width}x{height}",
                sides.0, sides.1
            );
            return Err(corrupt(&reason));
        }
        if (Config { depth, is_grey }) != config {
            return Err(corrupt(
                "its picture has other samples than its header says",
            ));
        }
        Ok(picture)
    }

    /// How far the sides of chroma are halved: powers of two.
    pub(super) fn chroma_shifts(&self) -> (u32, u32) {
        match self.inner.p.layout {
            DAV1D_PIXEL_LAYOUT_I420 => (1, 1),
            DAV1D_PIXEL_LAYOUT_I422 => (1, 0),
            _ => (0, 0),
        }
    }

    /// How the numbers stand for colours, as the data itself says.
    pub(super) fn code_points(&self) -> CodePoints {
        // SAFETY: rav1d stores the header that a picture was decoded by, and keeps it as long as the picture.
        let header = self.inner.seq_hdr.map(|header| unsafe { header.as_ref() });
        CodePoints {
            primaries: header.map_or(2, |header| header.pri as u8),
            transfer: header.map_or(2, |header| header.trc as u8),
            matrix: header.map_or(2, |header| header.mtrx as u8),
            is_full: header.is_some_and(|header| header.color_range != 0),
        }
    }

    /// A channel: luma, or one of chroma. `None` if the picture does not have it, or has samples of another size.
    pub(super) fn plane<T: Sample>(&self, number: usize) -> Option<Plane<'_, T>> {
        let bytes = if self.depth == 8 { 1 } else { 2 };
        let start = (*self.inner.data.get(number)?)?.cast::<T>();
        if size_of::<T>() != bytes {
            return None;
        }
        let (across, down) = match number {
            0 => (0, 0),
            _ => self.chroma_shifts(),
        };
        let shrunk = |side: i32, shift: u32| {
            usize::try_from(side)
                .ok()
                .map(|side| (side + (1 << shift) - 1) >> shift)
        };
        let width = shrunk(self.inner.p.w, across)?;
        let height = shrunk(self.inner.p.h, down)?;
        let stride = usize::try_from(self.inner.stride[number.min(1)]).ok()? / bytes;
        if width == 0 || height == 0 || width > stride {
            return None;
        }
        // SAFETY: rav1d allocated `stride` bytes for each of the rows of this channel, aligned for the widest vectors,
        // and filled in the samples of the picture, which has the size of sample that was checked above. They stay as
        // they are as long as the picture, which is borrowed.
        let samples =
            unsafe { std::slice::from_raw_parts(start.as_ptr(), stride * (height - 1) + width) };
        Some(Plane {
            samples,
            stride,
            width,
        })
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // SAFETY: the picture is what rav1d returned, and nothing borrows it any more.
        unsafe { dav1d_picture_unref(Some(NonNull::from(&mut self.inner))) };
    }
}

/// Rewords a result of rav1d.
fn translate(result: i32) -> ImageError {
    match result {
        NO_MEMORY => ImageError::OutOfMemory { bytes: 0 },
        // `ERANGE`.
        -34 => corrupt("its picture is larger than its header says"),
        AGAIN => corrupt("its data ends before the picture does"),
        _ => corrupt("its pixels cannot be decoded"),
    }
}
