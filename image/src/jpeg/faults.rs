//! libjpeg's errors and warnings as `Result`s.
//!
//! libjpeg reports an error by calling a function that must not return. Here it unwinds with an [`ImageError`] as
//! payload, through C frames compiled with `-fexceptions`, up to [`guarded`]. Missing and invalid data are only
//! *warnings* to libjpeg, which fills the gap with grey. A torn thumbnail that looks finished is worse than an error,
//! and mozjpeg's own error manager drops all warnings; this one turns those that mean lost pixels into errors.
//!
//! The `unsafe` blocks fill in and read the C struct that libjpeg passes to its callbacks; there is no safe interface.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mozjpeg_sys::{
    JWRN_HIT_MARKER, JWRN_HUFF_BAD_CODE, JWRN_JPEG_EOF, JWRN_MUST_RESYNC, jpeg_common_struct,
    jpeg_error_mgr, jpeg_std_error,
};

use super::super::error::ImageError;
use super::super::format::Format;

thread_local! {
    /// Whether the running decode reached the end of its bytes before the end marker.
    static ENDED_EARLY: Cell<bool> = const { Cell::new(false) };
}

/// Whether the decode on this thread has reached the end of its bytes since [`strict_error_manager`].
pub(super) fn ended_early() -> bool {
    ENDED_EARLY.get()
}

/// An error manager that unwinds on errors and on warnings that mean lost pixels.
pub(super) fn strict_error_manager() -> jpeg_error_mgr {
    ENDED_EARLY.set(false);
    // SAFETY: `jpeg_error_mgr` is a plain C struct of integers, nullable function pointers (`Option`)
    // and raw pointers, for all of which zero bytes are a value.
    let mut manager: jpeg_error_mgr = unsafe { std::mem::zeroed() };
    // SAFETY: it writes every field of the struct and keeps no pointer to it; it stores addresses of functions and of
    // static tables, which stay valid when the struct moves.
    unsafe { jpeg_std_error(&mut manager) };
    manager.error_exit = Some(on_error);
    manager.emit_message = Some(on_message);
    manager
}

/// Runs code that calls into libjpeg, and turns what unwinds out of it, from this module or from mozjpeg, into an
/// error. Unwinding drops all values that the code works on.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(from_payload(payload)))
}

fn from_payload(payload: Box<dyn Any + Send>) -> ImageError {
    let text = match payload.downcast::<ImageError>() {
        Ok(error) => return *error,
        Err(other) => match other.downcast::<String>() {
            Ok(text) => *text,
            Err(other) => match other.downcast::<&'static str>() {
                Ok(text) => (*text).to_owned(),
                Err(_) => "the decoder gave up".to_owned(),
            },
        },
    };
    from_message(text.trim_start_matches("libjpeg fatal error: "))
}

fn from_message(text: &str) -> ImageError {
    // The messages of jerror.h for valid but unsupported files, and for a failed malloc.
    if text.starts_with("Unsupported") || text.starts_with("Sorry") {
        ImageError::variety(Format::Jpeg, text)
    } else if text.starts_with("Insufficient memory") {
        ImageError::OutOfMemory { bytes: 0 }
    } else {
        ImageError::corrupt(Format::Jpeg, text)
    }
}

extern "C-unwind" fn on_error(cinfo: &mut jpeg_common_struct) {
    let text = message(cinfo);
    // Not a panic: the panic hook does not run.
    resume_unwind(Box::new(from_message(&text)));
}

extern "C-unwind" fn on_message(cinfo: &mut jpeg_common_struct, level: c_int) {
    // -1 is a warning, 0 and above are traces.
    if level >= 0 {
        return;
    }
    // SAFETY: libjpeg calls this with a struct in whose `err` it has just stored the code: the manager made above,
    // which lives as long as the (de)compressor that owns it.
    let code = unsafe { (*cinfo.err).msg_code };
    if code == JWRN_JPEG_EOF as c_int {
        ENDED_EARLY.set(true);
    } else if code == JWRN_HIT_MARKER as c_int && ENDED_EARLY.get() {
        resume_unwind(Box::new(ImageError::Truncated {
            format: Format::Jpeg,
        }));
    } else if [JWRN_HIT_MARKER, JWRN_HUFF_BAD_CODE, JWRN_MUST_RESYNC]
        .iter()
        .any(|&lost| code == lost as c_int)
    {
        resume_unwind(Box::new(ImageError::corrupt(Format::Jpeg, message(cinfo))));
    }
    // The others are harmless: bytes between segments, an unknown JFIF version, a wrong spectral range.
}

type DeclaredFormatter = unsafe extern "C-unwind" fn(&mut jpeg_common_struct, &[u8; 80]);

fn message(cinfo: &mut jpeg_common_struct) -> String {
    // SAFETY: as in `on_message`.
    let format = unsafe { (*cinfo.err).format_message };
    let Some(format) = format else {
        return "unknown error".to_owned();
    };
    /// Its real type: the binding says `&[u8; 80]`, but the function writes there.
    type Formatter = unsafe extern "C-unwind" fn(&mut jpeg_common_struct, &mut [u8; 80]);
    // SAFETY: two pointer types of one function in C, which takes a `char *`.
    let format = unsafe { std::mem::transmute::<DeclaredFormatter, Formatter>(format) };
    let mut buffer = [0; 80];
    // SAFETY: libjpeg's own formatter, called in the callback it is meant for; it writes at most 80
    // bytes (JMSG_LENGTH_MAX), ended by a zero.
    unsafe { format(cinfo, &mut buffer) };
    let text = buffer.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
