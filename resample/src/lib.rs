//! [`fast_image_resize`] behind a function that is not generic, for `arenite` and the twins that it is measured beside.
//!
//! `Resizer::resize` is generic over what holds the pixels, so its convolutions, hundreds of vectorised variants of a few
//! functions, are compiled in whichever crate calls it: they were two fifths of the code generated for the library, made once
//! more for its unit tests and at every change of a line of it. Here they are compiled once, as their authors release them
//! (without checks for overflow, which made resizing a tenth slower), and linked.
#![forbid(unsafe_code)]

mod resize;

pub use fast_image_resize::images::{Image, ImageRef};
pub use fast_image_resize::{
    FilterType, ImageBufferError, PixelType, ResizeAlg, ResizeError, ResizeOptions, Resizer,
};

pub use resize::{lanczos3, resize};
