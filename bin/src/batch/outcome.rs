//! The outcome of one input, and the failure of an input.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arenite::engine::Crash;
use arenite_image::ImageError;

use crate::folder::Stamp;
use crate::text::{one_line, reason};

/// The outcome of one input.
#[derive(Debug)]
pub(crate) enum Outcome {
    Written {
        results: Vec<Written>,
        took: Duration,
        warning: Option<Warning>,
    },
    /// The input was checked. Its damage, if any, does not count as an error.
    Whole {
        /// Width and height in pixels.
        sides: [u32; 2],
        took: Duration,
        warning: Option<Warning>,
    },
    /// The input would be processed without `--dry-run`.
    Planned,
    /// `--resume` has found its results up to date.
    Fresh,
    Failed(Fault),
    /// Not begun before the run was stopped or refused.
    Pending,
}

/// A result that exists, from this run or an earlier one.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// The path below the output folder.
    pub relative: PathBuf,
    /// The path including the output folder.
    pub output: PathBuf,
    pub stamp: Stamp,
    /// Width and height in pixels, if they are known.
    pub sides: Option<[u32; 2]>,
}

/// The result of a job: the results of a picture, the time they took, and a warning about the input.
#[derive(Debug)]
pub(crate) struct Made<B> {
    /// In the order of the sizes. No two results have the same sides.
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

/// Damage of an input whose result was written in spite of it.
#[derive(Debug)]
pub(crate) struct Warning {
    /// One line, without the input's name.
    pub text: String,
    /// The fraction of the input's pixels that is missing, 0 to 1.
    pub missing: f64,
}

/// The failure of one input: a word for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// A stable word. The words are listed in the help of `--json`.
    pub cause: Cow<'static, str>,
    /// One line, without the input's name.
    pub text: String,
    /// The number of attempts, if the input failed in a worker.
    pub attempts: Option<u32>,
    /// The crash that ended the worker.
    pub crash: Option<Box<Crash>>,
    /// Whether the file is broken. If false, it could not be checked.
    pub proves_damage: bool,
    /// The format of the picture, if it is not supported.
    pub unsupported: Option<&'static str>,
}

impl Fault {
    pub(crate) fn new(cause: &'static str, text: impl Into<String>) -> Fault {
        Fault {
            cause: Cow::Borrowed(cause),
            text: one_line(&text.into()),
            attempts: None,
            crash: None,
            proves_damage: false,
            unsupported: None,
        }
    }

    /// Returns the failure for a picture in an unsupported format.
    pub(crate) fn unsupported(format: &'static str) -> Fault {
        let text = ImageError::Unsupported { format }.to_string();
        Fault {
            unsupported: Some(format),
            ..Fault::new("unsupported-format", text)
        }
    }

    /// Returns the failure for a broken file.
    pub(crate) fn damage(cause: &'static str, text: impl Into<String>) -> Fault {
        Fault {
            proves_damage: true,
            ..Fault::new(cause, text)
        }
    }

    /// Returns the failure for a file or folder that cannot be read.
    pub(crate) fn read(path: &Path, error: &io::Error) -> Fault {
        match error.kind() {
            _ if is_broken_link(path, error) => {
                Fault::new("not-found", "a link whose target is missing")
            }
            io::ErrorKind::NotFound => Fault::missing(),
            _ => Fault::new("read", format!("cannot be read: {}", reason(error))),
        }
    }

    pub(crate) fn missing() -> Fault {
        Fault::new("not-found", "no such file or folder")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Returns whether `path` is a link whose target is missing.
pub(crate) fn is_broken_link(path: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        && path.symlink_metadata().is_ok_and(|meta| meta.is_symlink())
}
