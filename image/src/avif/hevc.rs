//! HEVC by the system's libde265, which is loaded when it is first needed. Decodes one picture from the bytes of an
//! item.
//!
//! The `unsafe` blocks call functions of libde265 as its header declares them, and pass pointers to local variables.
//! The sandbox of a worker forbids opening files, so [`version`] loads the library earlier.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use libloading::Library;

use super::super::error::ImageError;
use super::super::format::Format;
use super::boxes::{Reader, corrupt};
use super::container::{CodePoints, Config, HevcHeader};
use super::picture::{Owner, Picture};

/// The file name of the library, with the version of its interface.
const NAME: &str = "libde265.so.0";

const OUT_OF_MEMORY: c_int = 7;
const WAITING_FOR_INPUT: c_int = 13;
/// The lowest number of a warning.
const FIRST_WARNING: c_int = 1000;
/// The warnings that do not affect the picture: decoding cannot be parallel; there were too many warnings to store.
const HARMLESS: [c_int; 2] = [1000, 1001];

/// A function that is called before memory is allocated for a picture.
type GetBuffer = unsafe extern "C" fn(*mut c_void, *mut Spec, *mut c_void, *mut c_void) -> c_int;
type ReleaseBuffer = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void);

/// The struct `de265_image_allocation`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Allocation {
    get: GetBuffer,
    release: ReleaseBuffer,
}

/// The first fields of `de265_image_spec`.
#[repr(C)]
struct Spec {
    format: c_int,
    width: c_int,
    height: c_int,
}

macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of libde265 that are called. The library stays loaded.
        #[allow(non_snake_case, reason = "names of C")]
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            fn load() -> Result<Self, libloading::Error> {
                // SAFETY: libde265 does nothing when it is loaded, and it is never unloaded.
                let library = Box::leak(Box::new(unsafe { Library::new(NAME)? }));
                // SAFETY: the types are those of de265.h, which are the same in all versions with this file name.
                Ok(unsafe {
                    Self { $($name: *library.get(concat!("de265_", stringify!($name), "\0").as_bytes())?,)* }
                })
            }
        }
    };
}

functions! {
    get_version: fn() -> *const c_char;
    get_error_text: fn(c_int) -> *const c_char;
    new_decoder: fn() -> *mut c_void;
    free_decoder: fn(*mut c_void) -> c_int;
    get_default_image_allocation_functions: fn() -> *const Allocation;
    set_image_allocation_functions: fn(*mut c_void, *mut Allocation, *mut c_void);
    push_NAL: fn(*mut c_void, *const u8, c_int, i64, *mut c_void) -> c_int;
    flush_data: fn(*mut c_void) -> c_int;
    decode: fn(*mut c_void, *mut c_int) -> c_int;
    get_warning: fn(*mut c_void) -> c_int;
    get_next_picture: fn(*mut c_void) -> *const c_void;
    get_image_width: fn(*const c_void, c_int) -> c_int;
    get_image_height: fn(*const c_void, c_int) -> c_int;
    get_chroma_format: fn(*const c_void) -> c_int;
    get_bits_per_pixel: fn(*const c_void, c_int) -> c_int;
    get_image_plane: fn(*const c_void, c_int, *mut c_int) -> *const u8;
    get_image_full_range_flag: fn(*const c_void) -> c_int;
    get_image_colour_primaries: fn(*const c_void) -> c_int;
    get_image_transfer_characteristics: fn(*const c_void) -> c_int;
    get_image_matrix_coefficients: fn(*const c_void) -> c_int;
}

/// Returns the functions of the library, loaded once.
fn library() -> Result<&'static Functions, ImageError> {
    static LOADED: OnceLock<Result<Functions, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| Functions::load().map_err(|error| error.to_string()));
    loaded.as_ref().map_err(|error| {
        let reason = format!(
            "{NAME}, which decodes it, cannot be loaded: install libde265-0 (Debian, Ubuntu) or libde265 (Fedora, Arch) ({error})"
        );
        ImageError::variety(Format::Heic, reason)
    })
}

/// Loads the library, and returns its version.
pub(in super::super) fn version() -> Result<String, ImageError> {
    let library = library()?;
    // SAFETY: the function returns a constant text.
    let text = unsafe { CStr::from_ptr((library.get_version)()) };
    Ok(text.to_string_lossy().into_owned())
}

/// An open decoder.
pub(super) struct Frame {
    library: &'static Functions,
    decoder: NonNull<c_void>,
    /// Allocated by a `Box`. libde265 has pointers to this limit.
    limit: NonNull<Limit>,
}

/// The limit on memory for pictures.
struct Limit {
    own: Allocation,
    default: Allocation,
    most_pixels: u64,
    is_exceeded: Cell<bool>,
}

/// Allocates memory for a picture, if it is not larger than the limit.
///
/// # Safety
/// Only libde265 may call this function, with the pointer that was registered together with it.
unsafe extern "C" fn get_buffer(
    decoder: *mut c_void,
    spec: *mut Spec,
    image: *mut c_void,
    limit: *mut c_void,
) -> c_int {
    // SAFETY: the limit lives as long as its decoder, and only its cell is written. The specification lives during the
    // call.
    let (limit, sides) = unsafe { (&*limit.cast::<Limit>(), &*spec) };
    let pixels = i64::from(sides.width) * i64::from(sides.height);
    if !u64::try_from(pixels).is_ok_and(|pixels| pixels <= limit.most_pixels) {
        limit.is_exceeded.set(true);
        return 0;
    }
    // SAFETY: the function that libde265 would call by default, with the same arguments.
    unsafe { (limit.default.get)(decoder, spec, image, ptr::null_mut()) }
}

/// # Safety
/// Only libde265 may call this function, with the pointer that was registered together with it.
unsafe extern "C" fn release_buffer(decoder: *mut c_void, image: *mut c_void, limit: *mut c_void) {
    // SAFETY: as in `get_buffer`.
    unsafe { ((*limit.cast::<Limit>()).default.release)(decoder, image, ptr::null_mut()) }
}

impl Frame {
    fn new((width, height): (u32, u32)) -> Result<Self, ImageError> {
        let library = library()?;
        // SAFETY: the function takes no arguments.
        let decoder = NonNull::new(unsafe { (library.new_decoder)() });
        let decoder = decoder.ok_or(ImageError::OutOfMemory { bytes: 0 })?;
        // Coded sides are multiples of the smallest block, which has up to 64 pixels.
        let coded = |side: u32| u64::from(side).next_multiple_of(64);
        let limit = NonNull::from(Box::leak(Box::new(Limit {
            own: Allocation {
                get: get_buffer,
                release: release_buffer,
            },
            // SAFETY: the library has these functions as constants.
            default: unsafe { *(library.get_default_image_allocation_functions)() },
            most_pixels: coded(width) * coded(height),
            is_exceeded: Cell::new(false),
        })));
        // SAFETY: the decoder is open, and the limit outlives it.
        unsafe {
            let own = &raw mut (*limit.as_ptr()).own;
            (library.set_image_allocation_functions)(decoder.as_ptr(), own, limit.as_ptr().cast());
        }
        Ok(Self {
            library,
            decoder,
            limit,
        })
    }

    fn push(&mut self, unit: &[u8]) -> Result<(), ImageError> {
        let len = c_int::try_from(unit.len()).map_err(|_| corrupt("its data is too long"))?;
        // SAFETY: the decoder is open, and copies the bytes.
        let result = unsafe {
            (self.library.push_NAL)(
                self.decoder.as_ptr(),
                unit.as_ptr(),
                len,
                0,
                ptr::null_mut(),
            )
        };
        self.translate(result)
    }

    /// Decodes the bytes that were pushed, up to the first picture.
    fn picture(&mut self) -> Result<NonNull<c_void>, ImageError> {
        let (library, decoder) = (self.library, self.decoder.as_ptr());
        // SAFETY: the decoder is open.
        self.translate(unsafe { (library.flush_data)(decoder) })?;
        loop {
            let mut more = 0;
            // SAFETY: the decoder is open, and the pointer is that of a local variable.
            let result = unsafe { (library.decode)(decoder, &raw mut more) };
            if result != WAITING_FOR_INPUT {
                self.translate(result)?;
            }
            // SAFETY: the decoder is open.
            let picture = unsafe { (library.get_next_picture)(decoder) };
            if let Some(picture) = NonNull::new(picture.cast_mut()) {
                return Ok(picture);
            }
            if more == 0 {
                return Err(corrupt("its data has no picture"));
            }
        }
    }

    /// Returns an error for the first warning that affects the picture: libde265 only warns when it fills in parts that
    /// it cannot decode.
    fn warnings(&self) -> Result<(), ImageError> {
        loop {
            // SAFETY: the decoder is open.
            match unsafe { (self.library.get_warning)(self.decoder.as_ptr()) } {
                0 => return Ok(()),
                warning if HARMLESS.contains(&warning) => {}
                warning => self.translate(warning)?,
            }
        }
    }

    /// Converts a result of libde265.
    fn translate(&self, result: c_int) -> Result<(), ImageError> {
        // SAFETY: the limit lives as long as the frame, and only its cell is written.
        let limit = unsafe { self.limit.as_ref() };
        match result {
            0 => Ok(()),
            _ if limit.is_exceeded.get() => {
                Err(corrupt("its picture is larger than its header says"))
            }
            OUT_OF_MEMORY => Err(ImageError::OutOfMemory { bytes: 0 }),
            result => {
                // SAFETY: the function returns a constant text for any number.
                let text = unsafe { CStr::from_ptr((self.library.get_error_text)(result)) };
                let kind = if result < FIRST_WARNING {
                    "error"
                } else {
                    "warning"
                };
                let text = text.to_string_lossy();
                Err(corrupt(&format!(
                    "its pixels cannot be decoded ({kind} of libde265: {text})"
                )))
            }
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: the decoder is open and is not used afterwards. The limit was leaked from a `Box`.
        unsafe {
            (self.library.free_decoder)(self.decoder.as_ptr());
            drop(Box::from_raw(self.limit.as_ptr()));
        }
    }
}

/// Decodes the picture in `data`, with the parameters in the header.
///
/// # Errors
/// If there is no picture, or if a part of it cannot be decoded.
pub(super) fn decode(
    data: &[u8],
    header: HevcHeader<'_>,
    sides: (u32, u32),
) -> Result<Picture, ImageError> {
    let mut frame = Frame::new(sides)?;
    header.for_each_unit(|unit| frame.push(unit))?;
    let mut units = Reader::new(data);
    while !units.rest().is_empty() {
        let len = units.take(header.length_size)?;
        let len = len
            .iter()
            .fold(0, |len, &byte| len << 8 | usize::from(byte));
        frame.push(units.take(len)?)?;
    }
    let picture = frame.picture()?;
    frame.warnings()?;
    let (library, image) = (frame.library, picture.as_ptr().cast_const());
    // SAFETY: the picture lives until its decoder is freed or asked for the next picture.
    let number =
        |function: unsafe extern "C" fn(*const c_void) -> c_int| unsafe { function(image) };
    let chroma_shifts = match number(library.get_chroma_format) {
        1 => (1, 1),
        2 => (1, 0),
        _ => (0, 0),
    };
    let is_grey = number(library.get_chroma_format) == 0;
    let short = |number: c_int| u8::try_from(number).unwrap_or(u8::MAX);
    let code_points = CodePoints {
        primaries: short(number(library.get_image_colour_primaries)),
        transfer: short(number(library.get_image_transfer_characteristics)),
        matrix: short(number(library.get_image_matrix_coefficients)),
        is_full: number(library.get_image_full_range_flag) != 0,
    };
    // SAFETY: as above. Each picture has channel 0; it has the others unless it is grey.
    let of_channel = |function: unsafe extern "C" fn(*const c_void, c_int) -> c_int, channel| unsafe {
        function(image, channel)
    };
    let sides = (
        of_channel(library.get_image_width, 0),
        of_channel(library.get_image_height, 0),
    );
    let depth = of_channel(library.get_bits_per_pixel, 0);
    if !is_grey && of_channel(library.get_bits_per_pixel, 1) != depth {
        let reason = "luma and chroma of different depths";
        return Err(ImageError::variety(Format::Heic, reason));
    }
    let channel = |number: c_int| {
        let mut stride = 0;
        // SAFETY: as above, and the pointer is that of a local variable.
        let start = unsafe { (library.get_image_plane)(image, number, &raw mut stride) };
        Some((NonNull::new(start.cast_mut())?, stride as isize))
    };
    let channels = match is_grey {
        true => [channel(0), None, None],
        false => [channel(0), channel(1), channel(2)],
    };
    let config = Config {
        depth: short(depth),
        is_grey,
    };
    // SAFETY: libde265 allocated these rows, and has decoded or filled in all of them: bytes, or words above 8 bits.
    // The picture belongs to its decoder, which decodes nothing more.
    Ok(unsafe {
        Picture::new(
            Owner::Hevc(frame),
            channels,
            sides,
            config,
            chroma_shifts,
            code_points,
        )
    })
}
