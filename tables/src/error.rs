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
use arenite::kernel::KernelError;

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

/// The error if a table cannot be read, changed or written. Has the file and part, the row and column, and the reason.
///
/// The text contains all of these: `data/b.csv, row 1048, column "price": "n/a" is not Float64; …`.
pub struct TableError(Box<Inner>);

struct Inner {
    origin: Option<Origin>,
    row: Option<Row>,
    column: Option<String>,
    kind: TableErrorKind,
}

/// The number of a row, from 1 on, without the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    OfFile(u64),
    /// Counted from the beginning of the part, if the rows before the part could not be counted.
    OfPart(u64),
}

/// The reason why a table could not be read, changed or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum TableErrorKind {
    /// A file could not be read or written.
    Io(io::Error),
    /// The content does not fit its format or the schema.
    Data(String),
    /// The job of a part failed: its worker died, it ran out of time or memory, or its function returned an error.
    Job(JobError),
    /// The arena has no room.
    ArenaFull(ArenaFull),
    /// A part is no Arrow stream, or has another schema.
    Arrow(ArrowError),
}

impl TableError {
    pub(super) fn new(origin: Option<Origin>, kind: TableErrorKind) -> Self {
        Self(Box::new(Inner {
            origin,
            row: None,
            column: None,
            kind,
        }))
    }

    pub(super) fn of_file(file: &Arc<Path>, kind: impl Into<TableErrorKind>) -> Self {
        Self::new(Some(Origin::file_only(file)), kind.into())
    }

    /// Returns the error for a fault in the content of a part.
    pub(super) fn of_fault(origin: Origin, fault: Fault, rows_before: Option<u64>) -> Self {
        let row = (fault.row > 0).then(|| match rows_before {
            Some(before) => Row::OfFile(before.saturating_add(fault.row)),
            None => Row::OfPart(fault.row),
        });
        Self(Box::new(Inner {
            origin: Some(origin),
            row,
            column: fault.column,
            kind: TableErrorKind::Data(fault.text),
        }))
    }

    /// Replaces the row of the part by that of the file, if the rows before the part are known.
    pub(super) fn with_rows_before(mut self, rows: Option<u64>) -> Self {
        if let (Some(Row::OfPart(row)), Some(before)) = (self.0.row, rows) {
            self.0.row = Some(Row::OfFile(before.saturating_add(row)));
        }
        self
    }

    /// Returns the reason.
    pub fn kind(&self) -> &TableErrorKind {
        &self.0.kind
    }

    /// Returns the part that the error concerns, or the file if it concerns no single part.
    pub fn origin(&self) -> Option<&Origin> {
        self.0.origin.as_ref()
    }

    /// Returns the row of the file, from 1 on, without the header. `None` if the error concerns no row, or if the rows
    /// before its part are not known because the file cannot be read twice: the text then has the row of the part.
    pub fn row(&self) -> Option<u64> {
        match self.0.row {
            Some(Row::OfFile(row)) => Some(row),
            Some(Row::OfPart(_)) | None => None,
        }
    }

    /// Returns the name of the column.
    pub fn column(&self) -> Option<&str> {
        self.0.column.as_deref()
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(origin) = &inner.origin {
            match inner.row {
                // The row shows the location, so the bytes are left out.
                Some(Row::OfFile(_)) => write_path(f, &origin.file)?,
                _ => write!(f, "{origin}")?,
            }
            match inner.row {
                Some(Row::OfFile(row)) => write!(f, ", row {row}")?,
                Some(Row::OfPart(row)) => write!(f, ", row {row} of these")?,
                None => {}
            }
            if let Some(column) = &inner.column {
                write!(f, ", column {column:?}")?;
            }
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

/// A fault that a worker has found in the content of a part.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Fault {
    /// The row of the part, from 1 on; 0 if the fault concerns no row.
    pub(super) row: u64,
    pub(super) column: Option<String>,
    /// Whether the content could be read with another schema.
    pub(super) is_of_type: bool,
    pub(super) text: String,
}

impl Fault {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.row > 0 {
            write!(f, "row {} of the part: ", self.row)?;
        }
        if let Some(column) = &self.column {
            write!(f, "column {column:?}: ")?;
        }
        escape_text(&self.text).fmt(f)
    }
}

/// Encodes the row (8 bytes), flags (1), the length of the column's name (4), the name, and the text.
impl KernelError for Fault {
    fn to_bytes(&self) -> Vec<u8> {
        let column = self.column.as_deref().unwrap_or_default();
        let flags = u8::from(self.is_of_type) | u8::from(self.column.is_some()) << 1;
        let mut bytes = self.row.to_le_bytes().to_vec();
        bytes.push(flags);
        bytes.extend((column.len() as u32).to_le_bytes());
        bytes.extend(column.as_bytes());
        bytes.extend(self.text.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (row, rest) = bytes.split_first_chunk()?;
        let (&[flags], rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (column, text) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        let column = String::from_utf8(column.to_vec()).ok()?;
        Some(Self {
            row: u64::from_le_bytes(*row),
            column: (flags & 2 != 0).then_some(column),
            is_of_type: flags & 1 != 0,
            text: String::from_utf8(text.to_vec()).ok()?,
        })
    }
}
