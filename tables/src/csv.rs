//! Parsing the parts of CSV files.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_csv::ReaderBuilder;
use arrow_csv::reader::{Decoder, Format};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use super::cut::{Records, State, scan};
use super::error::Fault;
use super::kernels::Spec;
use super::schema::{cast, duplicate, is_exact, twice};

/// The maximum number of rows of a batch.
const BATCH: usize = 1 << 16;
/// The number of cells of a batch, where [`BATCH`] rows would have more cells.
const CELLS: usize = 1 << 20;

pub(super) fn batch_rows(columns: usize) -> usize {
    (CELLS / columns.max(1)).clamp(1 << 10, BATCH)
}

/// The columns of a file, and which of them the table has.
struct Columns {
    /// All columns of the file. Columns that are also in the table have the table's types.
    file: SchemaRef,
    /// The columns as the parser makes them: times, dates and decimals are texts, which it would cut or round.
    parsed: SchemaRef,
    table: SchemaRef,
    /// For each column of the table, the index of its column in the file.
    from: Vec<Option<usize>>,
    delimiter: u8,
}

/// Parses whole records, without the header.
pub(super) fn parse(
    data: &[u8],
    header: &[u8],
    spec: &Spec,
    table: &SchemaRef,
) -> Result<Vec<RecordBatch>, Fault> {
    let columns = Columns::new(header, spec, table)?;
    let mut batches = Vec::new();
    let decoded = columns.decode(data, &mut batches);
    let done = batches.iter().map(RecordBatch::num_rows).sum();
    decoded.map_err(|error| columns.diagnose(data, done, &error))?;
    if spec.is_last {
        let records = Records::Csv {
            delimiter: spec.delimiter,
        };
        // A quoted field that is not closed: the parser would take the rest of the file as this field.
        if scan(data, records, State::Outside, b'\n').state == State::Quoted {
            return Err(Fault {
                row: done as u64,
                ..Fault::new("the file ends inside the quotes of a field that begins in this row")
            });
        }
    }
    batches
        .into_iter()
        .map(|batch| columns.arrange(batch))
        .collect::<Result<_, _>>()
        .map_err(|error| Fault::new(error.to_string()))
}

impl Columns {
    fn new(header: &[u8], spec: &Spec, table: &SchemaRef) -> Result<Self, Fault> {
        let delimiter = spec.delimiter;
        let whole = |table: &SchemaRef| Self {
            file: table.clone(),
            parsed: parsed(table),
            from: (0..table.fields().len()).map(Some).collect(),
            table: table.clone(),
            delimiter,
        };
        if !spec.has_header {
            return Ok(whole(table));
        }
        let names = names(header, delimiter)?;
        if !spec.by_name {
            let known: Vec<_> = table.fields().iter().map(|field| field.name()).collect();
            let differing = names
                .iter()
                .zip(&known)
                .position(|(name, known)| name != *known);
            if let Some(at) = differing {
                return Err(Fault {
                    column: Some(names[at].clone()),
                    ..Fault::new(format!(
                        "column {} is {:?} in this file and {:?} in the table; by_name() reads files whose columns \
                         differ",
                        at + 1,
                        names[at],
                        known[at]
                    ))
                });
            }
            if names.len() != known.len() {
                return Err(Fault::new(format!(
                    "this file has {} columns and the table {}; by_name() reads files whose columns differ",
                    names.len(),
                    known.len()
                )));
            }
            return Ok(whole(table));
        }
        if let Some(name) = duplicate(&names) {
            return Err(twice(name));
        }
        let field = |name: &String| match table.field_with_name(name) {
            Ok(field) => Ok(field.clone()),
            Err(_) => Err(Fault {
                column: Some(name.clone()),
                ..Fault::new("the schema has no such column")
            }),
        };
        let file: Vec<Field> = names.iter().map(field).collect::<Result<_, _>>()?;
        let place = |field: &Arc<Field>| names.iter().position(|name| name == field.name());
        let file = Arc::new(Schema::new(file));
        Ok(Self {
            parsed: parsed(&file),
            file,
            from: table.fields().iter().map(place).collect(),
            table: table.clone(),
            delimiter,
        })
    }

    fn builder(&self, rows: usize) -> ReaderBuilder {
        ReaderBuilder::new(self.parsed.clone())
            .with_delimiter(self.delimiter)
            .with_batch_size(rows)
    }

    /// Parses records. After an error, `batches` contains the records before it.
    fn decode(&self, data: &[u8], batches: &mut Vec<RecordBatch>) -> Result<(), ArrowError> {
        let mut decoder = begun(self.builder(batch_rows(self.file.fields().len())))?;
        let mut rest = data;
        loop {
            let read = decoder.decode(rest)?;
            rest = &rest[read..];
            if read == 0 || decoder.capacity() == 0 {
                match decoder.flush()? {
                    Some(batch) => batches.push(self.typed(&batch)?),
                    None => return Ok(()),
                }
            }
        }
    }

    /// Returns a parsed batch with the types of the file's columns.
    fn typed(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = batch.columns().iter().zip(self.file.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()));
        RecordBatch::try_new(self.file.clone(), columns.collect::<Result<_, _>>()?)
    }

    /// Arranges the columns of a file in the order of the table.
    fn arrange(&self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let column = |(from, field): (&Option<usize>, &Arc<Field>)| -> ArrayRef {
            match from {
                Some(at) => batch.column(*at).clone(),
                None => new_null_array(field.data_type(), batch.num_rows()),
            }
        };
        let columns = self.from.iter().zip(self.table.fields()).map(column);
        RecordBatch::try_new(self.table.clone(), columns.collect())
    }

    /// Finds the first row that cannot be parsed, after `good` rows that were parsed, and the column at fault.
    fn diagnose(&self, data: &[u8], good: usize, error: &ArrowError) -> Fault {
        let expected = self.file.fields().len();
        let mut row = 0;
        let fault = each_record(data, self.delimiter, |record, fields| {
            row += 1;
            if row <= good {
                return None;
            }
            if fields != expected {
                return Some(Fault::new(format!(
                    "{} instead of {expected}: is a quote or a line break missing, or too many?",
                    count(fields, "field")
                )));
            }
            self.bad_cell(&data[record])
        });
        let fault = fault.unwrap_or_else(|| Fault::new(error.to_string()));
        Fault {
            row: row as u64,
            ..fault
        }
    }

    /// Returns the first cell of a record that does not fit the type of its column.
    fn bad_cell(&self, record: &[u8]) -> Option<Fault> {
        let cells = cells(record, self.delimiter);
        let fault = |column: usize, text: String| Fault {
            column: Some(self.file.field(column).name().clone()),
            ..Fault::new(text)
        };
        if let Some(column) = cells.iter().position(|cell| str::from_utf8(cell).is_err()) {
            return Some(fault(column, "the text is not UTF-8".into()));
        }
        let column = (0..cells.len()).find(|column| self.is_bad(record, *column))?;
        let field = self.file.field(column);
        let text: String = String::from_utf8_lossy(&cells[column])
            .chars()
            .take(100)
            .collect();
        let text = format!(
            "{text:?} is not {}; pass a schema, or let widen() choose a type that fits all rows",
            field.data_type()
        );
        Some(Fault {
            is_of_type: true,
            ..fault(column, text)
        })
    }

    /// Returns whether the cell of a column cannot be parsed.
    fn is_bad(&self, record: &[u8], column: usize) -> bool {
        let parse = || {
            let mut decoder = begun(self.builder(1).with_projection(vec![column]))?;
            decoder.decode(record)?;
            // No bytes stand for the end of the file, which ends the last record.
            decoder.decode(&[])?;
            let field = self.file.field(column);
            let parsed = decoder.flush()?;
            parsed
                .map(|batch| cast(batch.column(0), field.data_type()))
                .transpose()
        };
        parse().is_err()
    }
}

/// Returns the columns as the parser makes them.
fn parsed(file: &SchemaRef) -> SchemaRef {
    let field = |field: &Arc<Field>| match field.data_type() {
        of if of.is_temporal() || of.is_decimal() => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8))
        }
        _ => field.clone(),
    };
    let fields: Vec<_> = file.fields().iter().map(field).collect();
    Arc::new(Schema::new(fields))
}

/// Returns a decoder that has already read a line break: an empty line, which is no record. A decoder skips a
/// byte-order mark before its first byte, but only the beginning of a file may have one.
fn begun(builder: ReaderBuilder) -> Result<Decoder, ArrowError> {
    let mut decoder = builder.build_decoder();
    decoder.decode(b"\n")?;
    Ok(decoder)
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Calls `each` with the bytes and the number of fields of each record, until it returns a value.
fn each_record<T>(
    data: &[u8],
    delimiter: u8,
    mut each: impl FnMut(Range<usize>, usize) -> Option<T>,
) -> Option<T> {
    use csv_core::ReadRecordResult as Read;
    let mut reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
    let (mut text, mut ends) = (vec![0; 1 << 12], vec![0; 1 << 10]);
    // Skips the check for a byte-order mark in the first record.
    reader.read_record(b"\n", &mut text, &mut ends);
    let (mut at, mut begin, mut fields) = (0, 0, 0);
    loop {
        let (result, read, _, found) = reader.read_record(&data[at..], &mut text, &mut ends);
        at += read;
        fields += found;
        match result {
            // The text is not needed, so its buffer is reused. If nothing is left to read, the next call ends the last
            // record.
            Read::InputEmpty | Read::OutputFull | Read::OutputEndsFull => {}
            Read::Record => {
                if let Some(found) = each(begin..at, fields) {
                    return Some(found);
                }
                (begin, fields) = (at, 0);
            }
            Read::End => return None,
        }
    }
}

/// Returns the fields of one record.
fn cells(record: &[u8], delimiter: u8) -> Vec<Vec<u8>> {
    let mut reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
    let (mut text, mut ends) = (vec![0; record.len() + 1], vec![0; record.len() + 2]);
    // Skips the check for a byte-order mark.
    reader.read_record(b"\n", &mut text, &mut ends);
    let (_, _, mut len, mut count) = reader.read_record(record, &mut text, &mut ends);
    // No bytes stand for the end of the file, which ends the last record.
    let (_, _, more, found) = reader.read_record(&[], &mut text[len..], &mut ends[count..]);
    len += more;
    count += found;
    let begins = [0].into_iter().chain(ends.iter().copied());
    let bounds = begins.zip(&ends[..count]);
    bounds
        .map(|(begin, end)| text[..len][begin..*end].to_vec())
        .collect()
}

/// Returns the number of records.
pub(super) fn count_rows(data: &[u8], delimiter: u8) -> u64 {
    let mut rows = 0;
    each_record(data, delimiter, |_, _| {
        rows += 1;
        None::<()>
    });
    rows
}

/// Returns the names in a header.
fn names(header: &[u8], delimiter: u8) -> Result<Vec<String>, Fault> {
    let format = Format::default()
        .with_header(true)
        .with_delimiter(delimiter);
    let (schema, _) = format
        .infer_schema(header, Some(0))
        .map_err(|error| Fault::new(format!("the header cannot be read: {error}")))?;
    Ok(schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect())
}

/// Returns the schema that fits the first `rows` records.
pub(super) fn infer(
    data: &[u8],
    header: &[u8],
    spec: &Spec,
    rows: Option<usize>,
) -> Result<Schema, Fault> {
    let format = Format::default()
        .with_header(spec.has_header)
        .with_delimiter(spec.delimiter);
    let (schema, _) = format
        .infer_schema(std::io::Read::chain(header, data), rows)
        .map_err(|error| of_sample(data, header, spec, &error))?;
    Ok(without_zones(schema, data, spec.delimiter, rows))
}

/// Returns the fault of a sample of which no schema can be inferred, with the row. Text fits every column, so the row
/// has too many or too few fields, or is no UTF-8.
fn of_sample(data: &[u8], header: &[u8], spec: &Spec, error: &ArrowError) -> Fault {
    let names = match spec.has_header {
        true => match names(header, spec.delimiter) {
            Ok(names) => names,
            Err(fault) => return fault,
        },
        false => {
            let first = each_record(data, spec.delimiter, |_, fields| Some(fields));
            (1..=first.unwrap_or(0))
                .map(|number| format!("column_{number}"))
                .collect()
        }
    };
    let text = |name: &String| Field::new(name, DataType::Utf8, true);
    let table: SchemaRef = Arc::new(Schema::new(names.iter().map(text).collect::<Vec<_>>()));
    let columns = Columns {
        file: table.clone(),
        parsed: table.clone(),
        from: Vec::new(),
        table,
        delimiter: spec.delimiter,
    };
    columns.diagnose(data, 0, error)
}

/// Returns a schema that was inferred, with text for columns of times of which one has a time zone: the type that Arrow
/// infers has none.
fn without_zones(schema: Schema, data: &[u8], delimiter: u8, rows: Option<usize>) -> Schema {
    let is_time = |field: &&Arc<Field>| matches!(field.data_type(), DataType::Timestamp(_, None));
    if !schema.fields().iter().any(|field| is_time(&field)) {
        return schema;
    }
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    let mut row = 0;
    each_record(data, delimiter, |record, _| {
        row += 1;
        if rows.is_some_and(|rows| row > rows) {
            return Some(());
        }
        for (cell, field) in cells(&data[record], delimiter).iter().zip(&mut fields) {
            if !cell.is_empty() && !is_exact(&String::from_utf8_lossy(cell), field.data_type()) {
                let text = Field::new(field.name(), DataType::Utf8, true);
                *field = Arc::new(text);
            }
        }
        None
    });
    Schema::new_with_metadata(fields, schema.metadata)
}
