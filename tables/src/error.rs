//! [`TableError`], and [`Origin`], the location that the rows of a part come from.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow_schema::ArrowError;

use arenite::ArenaFull;
use arenite::engine::JobError;
use arenite::escape_text;

/// The location in a file that the rows of a part come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub(super) file: Arc<Path>,
    pub(super) place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The file as a whole.
    File,
    /// Bytes of a file; if it is compressed, of its decompressed content.
    Bytes(Range<u64>),
    /// A row group of a Parquet file, and its rows.
    RowGroup(u64, Range<u64>),
}

impl Origin {
    pub(super) fn file_only(file: &Arc<Path>) -> Self {
        Self {
            file: Arc::clone(file),
            place: Place::File,
        }
    }

    /// Returns the file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the bytes of the file, from 0 on; for a compressed file, those of its decompressed content. `None` for
    /// Parquet.
    pub fn bytes(&self) -> Option<Range<u64>> {
        match &self.place {
            Place::Bytes(bytes) => Some(bytes.clone()),
            Place::File | Place::RowGroup(..) => None,
        }
    }

    /// Returns the index of the row group in a Parquet file, from 0 on. `None` for other files.
    pub fn row_group(&self) -> Option<u64> {
        match self.place {
            Place::RowGroup(group, _) => Some(group),
            Place::File | Place::Bytes(_) => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_path(f, &self.file)?;
        match &self.place {
            Place::File => Ok(()),
            Place::Bytes(bytes) => write!(f, ", bytes {}..{}", bytes.start, bytes.end),
            Place::RowGroup(group, rows) => {
                write!(f, ", row group {group} (rows {}..{})", rows.start, rows.end)
            }
        }
    }
}

/// The error if a table cannot be read, changed or written. Has the part, by its file and bytes or row group, and the
/// reason. Lines that the parser of Arrow counts are those of the part.
pub struct TableError(Box<Inner>);

struct Inner {
    origin: Option<Origin>,
    kind: TableErrorKind,
}

/// The reason why a table could not be read, changed or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum TableErrorKind {
    /// A file could not be read or written.
    Io(io::Error),
    /// A file does not have the columns of the others, or cannot be read.
    Data(String),
    /// The job of a part failed: its content does not fit its format or the schema, its worker died, it ran out of time
    /// or memory, or its function returned an error.
    Job(JobError),
    /// The arena has no room.
    ArenaFull(ArenaFull),
    /// A part is no Arrow stream, or has another schema.
    Arrow(ArrowError),
}

impl TableError {
    pub(super) fn new(origin: Option<Origin>, kind: TableErrorKind) -> Self {
        Self(Box::new(Inner { origin, kind }))
    }

    pub(super) fn of_file(file: &Arc<Path>, kind: impl Into<TableErrorKind>) -> Self {
        Self::new(Some(Origin::file_only(file)), kind.into())
    }

    /// Returns the reason.
    pub fn kind(&self) -> &TableErrorKind {
        &self.0.kind
    }

    /// Returns the part that the error concerns, or the file if it concerns no single part.
    pub fn origin(&self) -> Option<&Origin> {
        self.0.origin.as_ref()
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(origin) = &inner.origin {
            write!(f, "{origin}")?;
            f.write_str(": ")?;
        }
        match &inner.kind {
            TableErrorKind::Io(error) => escape_text(&error.to_string()).fmt(f),
            // Texts from files and workers may contain any characters.
            TableErrorKind::Data(text) => escape_text(text).fmt(f),
            TableErrorKind::Job(error) => error.fmt(f),
            TableErrorKind::ArenaFull(full) => {
                write!(
                    f,
                    "{full}; or use scan(), which needs room for a few parts only"
                )
            }
            TableErrorKind::Arrow(error) => escape_text(&error.to_string()).fmt(f),
        }
    }
}

fn write_path(f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
    write!(f, "{}", escape_text(&path.to_string_lossy()))
}

impl fmt::Debug for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<TableError> for arenite::Error {
    fn from(error: TableError) -> Self {
        Self::Other(Box::new(error))
    }
}

impl std::error::Error for TableError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            TableErrorKind::Io(error) => error.source(),
            TableErrorKind::Job(error) => error.source(),
            TableErrorKind::Data(_) | TableErrorKind::ArenaFull(_) => None,
            TableErrorKind::Arrow(error) => error.source(),
        }
    }
}

impl From<io::Error> for TableErrorKind {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ArenaFull> for TableErrorKind {
    fn from(full: ArenaFull) -> Self {
        Self::ArenaFull(full)
    }
}

impl From<ArrowError> for TableErrorKind {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

impl From<String> for TableErrorKind {
    fn from(text: String) -> Self {
        Self::Data(text)
    }
}

impl From<ArrowError> for TableError {
    fn from(error: ArrowError) -> Self {
        Self::new(None, error.into())
    }
}
