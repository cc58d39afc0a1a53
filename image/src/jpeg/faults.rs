//! libjpeg's errors and warnings as `Result`s.
//!
//! libjpeg reports an error by calling a function that must not return. Here this function unwinds with an
//! [`ImageError`] as payload, through C frames compiled with `-fexceptions`, up to [`guarded`]. Missing and invalid
//! data are only *warnings* to libjpeg, which fills the gap with grey; mozjpeg's own error manager drops all warnings.
//! The manager here keeps them: warnings about lost pixels become errors, unless the caller accepts lost pixels.
//!
//! The `unsafe` blocks fill in and read the C struct that libjpeg passes to its callbacks; there is no safe interface.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mozjpeg_sys::{
    JTRC_DHT, JTRC_DQT, JTRC_DRI, JTRC_MISC_MARKER, JTRC_SOS, JWRN_EXTRANEOUS_DATA,
    JWRN_HIT_MARKER, JWRN_HUFF_BAD_CODE, JWRN_JPEG_EOF, JWRN_MUST_RESYNC, jpeg_common_struct,
    jpeg_error_mgr, jpeg_std_error,
};

use super::super::damage::FailOn;
use super::super::error::ImageError;
use super::super::format::Format;

unsafe extern "C" {
    /// Whether libjpeg transforms blocks by assembly on this processor. Always false if it was built without.
    safe fn jsimd_can_idct_islow() -> c_int;
}

/// Returns whether libjpeg was built with its assembly.
pub(in super::super) fn has_assembly() -> bool {
    jsimd_can_idct_islow() != 0
}

/// The reports of the decode that runs on this thread.
#[derive(Debug, Default)]
struct Reports {
    /// The lowest level of damage at which the decode ends at once.
    fail_on: FailOn,
    /// Whether the decode reached the end of its bytes before the end marker.
    ended_early: bool,
    /// The first loss of pixels.
    lost: Option<ImageError>,
    /// The first damage that costs no pixel.
    around: Option<ImageError>,
    /// Whether the data of a scan comes next, or more of it.
    is_in_scan: bool,
    /// The number of bytes between the last code of a scan, or of an interval of it, and the next marker.
    left_over: usize,
}

thread_local! {
    static REPORTS: RefCell<Reports> = RefCell::default();
}

/// Returns whether the decode on this thread has reached the end of its bytes since [`error_manager`].
pub(super) fn ended_early() -> bool {
    REPORTS.with_borrow(|reports| reports.ended_early)
}

/// Returns whether the decode on this thread has lost pixels since [`error_manager`].
pub(super) fn has_lost() -> bool {
    REPORTS.with_borrow(|reports| reports.lost.is_some())
}

/// Takes the first loss of pixels of the decode on this thread.
pub(super) fn take_lost() -> Option<ImageError> {
    REPORTS.with_borrow_mut(|reports| reports.lost.take())
}

/// Takes the first damage outside the pixels that the decode on this thread has found.
pub(super) fn take_around() -> Option<ImageError> {
    REPORTS.with_borrow_mut(|reports| reports.around.take())
}

/// Returns the number of bytes in scans that belong to no code, in the decode on this thread.
pub(super) fn left_over() -> usize {
    REPORTS.with_borrow(|reports| reports.left_over)
}

/// Returns an error manager that unwinds on errors, and on warnings about lost pixels if `fail_on` counts them as
/// errors.
pub(super) fn error_manager(fail_on: FailOn) -> jpeg_error_mgr {
    REPORTS.set(Reports {
        fail_on,
        ..Reports::default()
    });
    // SAFETY: `jpeg_error_mgr` is a plain C struct of integers, nullable function pointers (`Option`) and raw pointers.
    // Zero bytes are a valid value of all of them.
    let mut manager: jpeg_error_mgr = unsafe { std::mem::zeroed() };
    // SAFETY: it writes every field of the struct and keeps no pointer to it. It stores addresses of functions and of
    // static tables, which stay valid when the struct moves.
    unsafe { jpeg_std_error(&mut manager) };
    manager.error_exit = Some(on_error);
    manager.emit_message = Some(on_message);
    manager
}

/// Runs code that calls libjpeg. If the code unwinds, from this module or from mozjpeg, returns an error. Unwinding
/// drops all values that the code uses.
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

/// Converts a message of jerror.h to an error.
fn from_message(text: &str) -> ImageError {
    let variety = |reason: &str| ImageError::variety(Format::Jpeg, reason);
    let corrupt = |reason: &str| ImageError::corrupt(Format::Jpeg, reason);
    let text = text.trim_start_matches("Corrupt JPEG data: ");
    if text.starts_with("Insufficient memory") {
        ImageError::OutOfMemory { bytes: 0 }
    } else if let Some(kind) = text.strip_prefix("Unsupported JPEG process: SOF type ") {
        variety(&format!("a lossless or hierarchical process ({kind})"))
    } else if let Some(bits) = text.strip_prefix("Unsupported JPEG data precision ") {
        variety(&format!("{bits} bits per sample"))
    } else if text.starts_with("Unsupported marker type 0xf7") {
        variety("JPEG-LS")
    } else if text.starts_with("Fractional sampling") {
        variety("chroma whose sampling does not divide that of luma")
    } else if text.starts_with("Unsupported marker type") {
        corrupt("an unknown marker between its segments")
    } else if text.starts_with("Unsupported color conversion") {
        variety("a colour model without a conversion to RGB")
    } else if text.starts_with("Unsupported") || text.starts_with("Sorry") {
        variety(text.trim_start_matches("Sorry, "))
    } else if text.starts_with("Bogus Huffman table") || text.starts_with("Bogus DHT") {
        corrupt("an invalid Huffman table")
    } else if text.starts_with("Bogus marker length") {
        corrupt("a segment of an impossible length")
    } else if text.starts_with("Bogus sampling factors") {
        corrupt("invalid sampling factors")
    } else if text.starts_with("Bogus ") {
        corrupt(&format!(
            "an invalid header: {}",
            text.trim_start_matches("Bogus ")
        ))
    } else if text.starts_with("Empty JPEG image") {
        corrupt("it has no pixels")
    } else if text.contains("table 0x") && text.ends_with("was not defined") {
        corrupt("a table that its pixels need is missing")
    } else if text.starts_with("Invalid JPEG file structure") {
        let why = text.rsplit_once(": ").map_or(text, |(_, why)| why);
        corrupt(&format!("its segments are out of order: {why}"))
    } else if text.starts_with("bad Huffman code") {
        corrupt("its pixels hold an invalid code")
    } else if text.starts_with("premature end of data segment") {
        corrupt("its pixels end too early")
    } else if text.starts_with("found marker ") {
        corrupt("its restart markers are out of order")
    } else if text.contains("extraneous bytes before marker") {
        corrupt("bytes that belong to nothing before a marker")
    } else {
        corrupt(text)
    }
}

extern "C-unwind" fn on_error(cinfo: &mut jpeg_common_struct) {
    let text = message(cinfo);
    // Not a panic: the panic hook does not run.
    resume_unwind(Box::new(from_message(&text)));
}

extern "C-unwind" fn on_message(cinfo: &mut jpeg_common_struct, level: c_int) {
    // SAFETY: libjpeg calls this with a struct in whose `err` it has just stored the code and its numbers. `err` is the
    // manager made above, which lives as long as the (de)compressor that owns it.
    let (code, number) = unsafe {
        (
            (*cinfo.err).msg_code,
            (*cinfo.err).msg_parm._bindgen_data_[0],
        )
    };
    let is = |one: c_int| code == one;
    // -1 is a warning, 0 and above are traces.
    if level >= 0 {
        let is_segment = [JTRC_DHT, JTRC_DQT, JTRC_DRI, JTRC_MISC_MARKER]
            .into_iter()
            .any(|one| is(one as c_int));
        let begins_scan = is(JTRC_SOS as c_int);
        if is_segment || begins_scan {
            REPORTS.with_borrow_mut(|reports| reports.is_in_scan = begins_scan);
        }
        return;
    }
    if is(JWRN_JPEG_EOF as c_int) {
        REPORTS.with_borrow_mut(|reports| reports.ended_early = true);
        return;
    }
    let hit_marker = is(JWRN_HIT_MARKER as c_int);
    if hit_marker || is(JWRN_HUFF_BAD_CODE as c_int) || is(JWRN_MUST_RESYNC as c_int) {
        let (error, fails) = if hit_marker && ended_early() {
            let format = Format::Jpeg;
            (ImageError::Truncated { format }, FailOn::Truncated)
        } else {
            (from_message(&message(cinfo)), FailOn::Error)
        };
        if REPORTS.with_borrow(|reports| reports.fail_on >= fails) {
            resume_unwind(Box::new(error));
        }
        REPORTS.with_borrow_mut(|reports| {
            reports.lost.get_or_insert(error);
        });
    } else if message(cinfo).contains("bad arithmetic code") {
        // The binding lacks the number of this message.
        let error = from_message("bad Huffman code");
        if REPORTS.with_borrow(|reports| reports.fail_on >= FailOn::Error) {
            resume_unwind(Box::new(error));
        }
        REPORTS.with_borrow_mut(|reports| {
            reports.lost.get_or_insert(error);
        });
    } else if is(JWRN_EXTRANEOUS_DATA as c_int) {
        let error = from_message(&message(cinfo));
        REPORTS.with_borrow_mut(|reports| {
            if reports.is_in_scan {
                reports.left_over += number as usize;
            } else {
                reports.around.get_or_insert(error);
            }
        });
    }
    // The other warnings are harmless: an unknown JFIF version, a wrong spectral range.
}

type DeclaredFormatter = unsafe extern "C-unwind" fn(&mut jpeg_common_struct, &[u8; 80]);

fn message(cinfo: &mut jpeg_common_struct) -> String {
    // SAFETY: as in `on_message`.
    let format = unsafe { (*cinfo.err).format_message };
    let Some(format) = format else {
        return "unknown error".to_owned();
    };
    /// The real type: the binding says `&[u8; 80]`, but the function writes there.
    type Formatter = unsafe extern "C-unwind" fn(&mut jpeg_common_struct, &mut [u8; 80]);
    // SAFETY: two pointer types for the same C function, which takes a `char *`.
    let format = unsafe { std::mem::transmute::<DeclaredFormatter, Formatter>(format) };
    let mut buffer = [0; 80];
    // SAFETY: libjpeg's own formatter, called in the callback that it is meant for. It writes at most 80 bytes
    // (JMSG_LENGTH_MAX), including a final zero.
    unsafe { format(cinfo, &mut buffer) };
    let text = buffer.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
