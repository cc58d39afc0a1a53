//! What a job has made.

use std::time::Duration;

/// What a job has made: the results of a picture, the time it took, and what was wrong with the input.
#[derive(Debug)]
pub(crate) struct Made<B> {
    /// In the order of the sizes, with different sides each.
    pub results: Vec<Encoded<B>>,
    pub took: Duration,
    pub warning: Option<Warning>,
}

/// An encoded result.
#[derive(Debug)]
pub(crate) struct Encoded<B> {
    pub bytes: B,
    /// Width and height in pixels.
    pub sides: [u32; 2],
}

/// Damage of an input that was written all the same.
#[derive(Debug)]
pub(crate) struct Warning {
    /// One line, without the input's name.
    pub text: String,
    /// The share of its pixels that are missing, 0 to 1.
    pub missing: f64,
}
