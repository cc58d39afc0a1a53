//! [`Table`] and [`PartReport`].

use std::fmt;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema, SchemaRef};

use super::error::{Origin, TableError, TableErrorKind};
use super::part::Part;

/// Rows and columns in shared memory: a list of parts with one schema, each an array with an Arrow stream.
///
/// A clone is another handle to the same parts. [`Engine::read_csv`](crate::Tables::read_csv) and its siblings read
/// tables, [`Engine::map_partitions`](crate::Tables::map_partitions) runs a kernel on each part.
#[derive(Clone)]
pub struct Table {
    /// The schema, if it is known; a table without parts may have one.
    schema: Option<SchemaRef>,
    parts: Vec<Part>,
    origins: Vec<Option<Origin>>,
    rows: u64,
}

impl Table {
    pub(super) fn empty(schema: Option<SchemaRef>) -> Self {
        Self {
            schema,
            parts: Vec::new(),
            origins: Vec::new(),
            rows: 0,
        }
    }

    /// Returns a table of parts that have the same schema, such as the results of a [report](super::PartMap::report).
    ///
    /// # Errors
    /// If a part is no Arrow stream, or has other columns than the first part.
    pub fn from_parts(parts: impl IntoIterator<Item = Part>) -> Result<Self, TableError> {
        let mut table = Self::empty(None);
        for part in parts {
            table.push(part, None)?;
        }
        Ok(table)
    }

    /// Adds a part.
    pub(super) fn push(&mut self, part: Part, origin: Option<Origin>) -> Result<(), TableError> {
        let wrong = |error: ArrowError| TableError::new(origin.clone(), error.into());
        let (schema, rows) = part.header().map_err(wrong)?;
        let known = self.schema.get_or_insert_with(|| schema.clone());
        if known.fields() != schema.fields() {
            let text = format!(
                "this part has the columns {}, and those before it {}",
                columns(&schema),
                columns(known)
            );
            return Err(TableError::new(origin, TableErrorKind::Data(text)));
        }
        self.parts.push(part);
        self.origins.push(origin);
        self.rows = self.rows.saturating_add(rows);
        Ok(())
    }

    /// Returns the columns and their types. The schema is empty if there are neither parts nor files.
    pub fn schema(&self) -> SchemaRef {
        let none = || Arc::new(Schema::empty());
        self.schema.clone().unwrap_or_else(none)
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Returns the location from which the rows of a part were read, even if a kernel has changed them since. `None`
    /// for parts that were not read from files.
    pub fn origin(&self, part: usize) -> Option<&Origin> {
        self.origins.get(part)?.as_ref()
    }

    /// Returns all rows as batches, in order, without a copy: see [`Part::batches`].
    pub fn batches(&self) -> impl Iterator<Item = Result<RecordBatch, TableError>> {
        let of_part = |(part, origin): (&Part, &Option<Origin>)| match part.batches() {
            Ok(batches) => batches.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(TableError::new(origin.clone(), error.into()))],
        };
        self.parts.iter().zip(&self.origins).flat_map(of_part)
    }
}

fn columns(schema: &Schema) -> String {
    let column = |field: &Arc<arrow_schema::Field>| {
        let optional = if field.is_nullable() { "?" } else { "" };
        format!("{}: {}{optional}", field.name(), field.data_type())
    };
    let columns: Vec<_> = schema.fields().iter().map(column).collect();
    columns.join(", ")
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Table of {} rows in {} parts ({})",
            self.rows,
            self.parts.len(),
            columns(&self.schema())
        )
    }
}

/// The results of the parts that succeeded, and the failures of the others.
#[derive(Debug)]
pub struct PartReport<V> {
    pub(super) values: V,
    pub(super) failures: Vec<TableError>,
}

impl<V> PartReport<V> {
    /// Returns the results. A reader gives a [`Table`] without the parts that failed, a map gives an `Option` for each
    /// part.
    pub fn values(&self) -> &V {
        &self.values
    }

    /// Returns the failures, in order.
    pub fn failures(&self) -> &[TableError] {
        &self.failures
    }

    /// Returns the results and the failures.
    pub fn into_parts(self) -> (V, Vec<TableError>) {
        (self.values, self.failures)
    }
}
