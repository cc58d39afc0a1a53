//! The outcome of one input, and its fault.

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
    /// Checked: its damage, if any, is none that counts.
    Whole {
        /// Width and height in pixels.
        sides: [u32; 2],
        took: Duration,
        warning: Option<Warning>,
    },
    /// Would be written without `--dry-run`.
    Planned,
    /// `--resume` found its results up to date.
    Fresh,
    Failed(Fault),
    /// Not begun when the run was stopped or refused.
    Pending,
}

/// A result that exists: this run has written it, or an earlier one.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// Its path below the output folder.
    pub relative: PathBuf,
    /// Its path with the output folder.
    pub output: PathBuf,
    pub stamp: Stamp,
    /// Width and height in pixels, if they are known.
    pub sides: Option<[u32; 2]>,
}

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

/// The failure of one input: a word for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Stable words, listed in the help of `--json`.
    pub cause: Cow<'static, str>,
    /// One line, without the input's name.
    pub text: String,
    /// Attempts, if it failed in a worker.
    pub attempts: Option<u32>,
    /// The crash that ended its worker.
    pub crash: Option<Box<Crash>>,
    /// Whether the file is broken; otherwise it could not be judged.
    pub proves_damage: bool,
    /// The format of a picture that is not read.
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

    /// A picture in a format that is not read.
    pub(crate) fn unsupported(format: &'static str) -> Fault {
        let text = ImageError::Unsupported { format }.to_string();
        Fault {
            unsupported: Some(format),
            ..Fault::new("unsupported-format", text)
        }
    }

    /// A file that is broken.
    pub(crate) fn damage(cause: &'static str, text: impl Into<String>) -> Fault {
        Fault {
            proves_damage: true,
            ..Fault::new(cause, text)
        }
    }

    /// A file or folder that cannot be read.
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

/// Whether `path` is a link whose target is missing.
pub(crate) fn is_broken_link(path: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        && path.symlink_metadata().is_ok_and(|meta| meta.is_symlink())
}
