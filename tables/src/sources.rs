//! The files that a table is read from: [`Sources`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{TableError, TableErrorKind};

/// The files of a table: a file, a folder, a pattern such as `data/*.csv`, or a list of these.
///
/// A pattern and a folder stand for their files in the order of their paths; a list keeps its order. A folder stands
/// for all files in it and in its folders, except those whose name begins with `.` or `_`.
#[derive(Clone, Debug)]
pub struct Sources(Vec<PathBuf>);

macro_rules! one {
    ($($path:ty)*) => { $(
        impl From<$path> for Sources {
            fn from(path: $path) -> Self {
                Self(vec![PathBuf::from(path)])
            }
        }
    )* };
}
one!(&str String &String &Path PathBuf);

impl From<&PathBuf> for Sources {
    fn from(path: &PathBuf) -> Self {
        Self(vec![path.clone()])
    }
}

impl<P: Into<PathBuf>> From<Vec<P>> for Sources {
    fn from(paths: Vec<P>) -> Self {
        Self(paths.into_iter().map(Into::into).collect())
    }
}

impl<P: Into<PathBuf>, const N: usize> From<[P; N]> for Sources {
    fn from(paths: [P; N]) -> Self {
        Self(paths.into_iter().map(Into::into).collect())
    }
}

impl Sources {
    /// Returns all files, in order.
    pub(super) fn files(&self) -> Result<Vec<Arc<Path>>, TableError> {
        let mut files = Vec::new();
        for source in &self.0 {
            let found = files.len();
            expand(source, &mut files).map_err(|error| {
                TableError::of_file(&Arc::from(source.as_path()), TableErrorKind::Io(error))
            })?;
            if files.len() == found {
                let nothing =
                    "there is no such file: nothing matches the pattern, or the folder is empty";
                return Err(TableError::of_file(
                    &Arc::from(source.as_path()),
                    TableErrorKind::Io(io::Error::new(io::ErrorKind::NotFound, nothing)),
                ));
            }
        }
        if files.is_empty() {
            return Err(TableError::new(
                None,
                TableErrorKind::Data("the list of files is empty".into()),
            ));
        }
        Ok(files)
    }
}

fn expand(source: &Path, files: &mut Vec<Arc<Path>>) -> io::Result<()> {
    let known = match fs::metadata(source) {
        Ok(known) => known,
        Err(error) => {
            // A name that exists is not a pattern.
            let pattern = source
                .to_str()
                .filter(|name| name.contains(['*', '?', '[']));
            let Some(pattern) = pattern else {
                return Err(error);
            };
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
            for path in glob::glob(pattern).map_err(invalid)? {
                let path = path.map_err(io::Error::from)?;
                if !path.is_dir() {
                    files.push(path.into());
                }
            }
            return Ok(());
        }
    };
    if !known.is_dir() {
        files.push(source.into());
        return Ok(());
    }
    let mut inside: Vec<PathBuf> = fs::read_dir(source)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    inside.sort();
    for path in inside {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if !matches!(name.first(), Some(b'.' | b'_')) {
            expand(&path, files)?;
        }
    }
    Ok(())
}
