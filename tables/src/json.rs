//! Parsing the parts of files with one JSON object per line.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{ArrayRef, RecordBatch};
use arrow_json::ReaderBuilder;
use arrow_json::reader::{
    ArrayDecoder, Decoder, DecoderContext, DecoderFactory, Tape, TapeElement, infer_json_schema,
};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use memchr::memchr;

use super::csv::batch_rows;
use super::error::Fault;
use super::kernels::Spec;
use super::schema::is_exact;

/// From this number on, floats cannot represent every integer.
const EXACT: f64 = (1_u64 << 53) as f64;

/// Parses whole lines.
pub(super) fn parse(
    data: &[u8],
    spec: &Spec,
    table: &SchemaRef,
) -> Result<Vec<RecordBatch>, Fault> {
    let mut batches = Vec::new();
    let decoded = decode(
        data,
        spec,
        table,
        batch_rows(table.fields().len()),
        &mut batches,
    );
    decoded.map_err(|error| {
        let done = batches.iter().map(RecordBatch::num_rows).sum();
        diagnose(data, spec, table, done, &error)
    })?;
    // The decoder accepts several objects in a line, and one in several lines, where a part may end.
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows as u64 != count_rows(data) {
        let is_row = |line: &&[u8]| {
            let mut batches = Vec::new();
            decode(line, spec, table, 2, &mut batches).is_err()
                || batches.iter().map(RecordBatch::num_rows).sum::<usize>() != 1
        };
        let row = lines(data).position(|line| is_row(&line));
        return Err(Fault {
            row: row.map_or(0, |at| at as u64 + 1),
            ..Fault::new("no JSON object in one line")
        });
    }
    Ok(batches)
}

fn decode(
    data: &[u8],
    spec: &Spec,
    table: &SchemaRef,
    rows: usize,
    batches: &mut Vec<RecordBatch>,
) -> Result<(), ArrowError> {
    decode_with(begun(spec, table, rows, true)?, data, batches)
}

/// Returns a decoder. `is_strict`: whether fields that the schema lacks are an error.
fn begun(
    spec: &Spec,
    table: &SchemaRef,
    rows: usize,
    is_strict: bool,
) -> Result<Decoder, ArrowError> {
    ReaderBuilder::new(table.clone())
        .with_batch_size(rows)
        .with_strict_mode(is_strict)
        .with_coerce_primitive(spec.widen)
        .with_decoder_factory(Arc::new(Exact))
        .build_decoder()
}

fn decode_with(
    mut decoder: Decoder,
    data: &[u8],
    batches: &mut Vec<RecordBatch>,
) -> Result<(), ArrowError> {
    let mut rest = data;
    loop {
        let read = decoder.decode(rest)?;
        rest = &rest[read..];
        if rest.is_empty() && decoder.has_partial_record() {
            return Err(ArrowError::JsonError("an object that does not end".into()));
        }
        match decoder.flush()? {
            Some(batch) => batches.push(batch),
            None if rest.is_empty() => return Ok(()),
            None => {}
        }
    }
}

/// Makes integers, times, dates and decimals only of values that these represent exactly: the decoders of Arrow would
/// round others.
#[derive(Debug)]
struct Exact;

impl DecoderFactory for Exact {
    fn make_default_decoder(
        &self,
        context: &DecoderContext,
        field: &FieldRef,
        is_nullable: bool,
    ) -> Result<Option<Box<dyn ArrayDecoder>>, ArrowError> {
        let of = field.data_type();
        if !of.is_integer() && !of.is_temporal() && !of.is_decimal() {
            return Ok(None);
        }
        let inner = context.make_builtin_decoder(field, is_nullable)?;
        let of = of.clone();
        Ok(Some(Box::new(ExactValues { inner, of })))
    }
}

/// Decodes only values that the type represents exactly.
struct ExactValues {
    inner: Box<dyn ArrayDecoder>,
    of: DataType,
}

impl ArrayDecoder for ExactValues {
    fn decode(&mut self, tape: &Tape<'_>, at: &[u32]) -> Result<ArrayRef, ArrowError> {
        for &at in at {
            let (text, is_kept) = match tape.get(at) {
                TapeElement::Number(number) if !self.of.is_decimal() => {
                    let number = tape.get_string(number);
                    (number, is_whole(number, &self.of))
                }
                TapeElement::Number(text) | TapeElement::String(text) => {
                    let text = tape.get_string(text);
                    (text, is_exact(text, &self.of))
                }
                _ => continue,
            };
            if !is_kept {
                let text = format!("{text} is not {}", self.of);
                return Err(ArrowError::JsonError(text));
            }
        }
        self.inner.decode(tape, at)
    }
}

/// Returns whether a JSON number is an integer of this type, such as `2e3`.
fn is_whole(number: &str, of: &DataType) -> bool {
    let is_short = number.len() < 19;
    if is_short
        && number
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-')
    {
        return true;
    }
    let is_float = |number: f64| number.fract() == 0.0 && number.abs() < EXACT;
    match number.parse::<i128>() {
        Ok(_) if *of == DataType::UInt64 => number.parse::<u64>().is_ok(),
        Ok(_) => number.parse::<i64>().is_ok(),
        Err(_) => number.parse().is_ok_and(is_float),
    }
}

/// Finds the first line that cannot be parsed, after `good` rows that were parsed, and the column at fault.
fn diagnose(data: &[u8], spec: &Spec, table: &SchemaRef, good: usize, error: &ArrowError) -> Fault {
    let mut row = 0;
    for line in lines(data) {
        row += 1;
        if row <= good {
            continue;
        }
        let Err(error) = decode(line, spec, table, 1, &mut Vec::new()) else {
            continue;
        };
        let fault = match infer_json_schema(line, None) {
            Ok((found, _)) => of_column(&found, spec, table, &error),
            Err(_) => Fault::new(format!("no JSON object in one line: {error}")),
        };
        return Fault {
            row: row as u64,
            ..fault
        };
    }
    Fault::new(error.to_string())
}

/// Returns the fault of a line that is an object, with the column at fault. `found` has the fields of the line.
fn of_column(found: &Schema, spec: &Spec, table: &Schema, error: &ArrowError) -> Fault {
    let text = match error {
        ArrowError::JsonError(text) => text.clone(),
        other => other.to_string(),
    };
    // The text of the decoder begins with the path of the field.
    let at = |field: &FieldRef| {
        let path = format!("whilst decoding field '{}': ", field.name());
        Some((field.name().clone(), text.strip_prefix(&path)?.to_owned()))
    };
    let is_missing = |field: &&FieldRef| table.column_with_name(field.name()).is_none();
    let missing = || found.fields().iter().find(is_missing);
    let (column, text) = match table.fields().iter().find_map(at) {
        Some((column, text)) => (Some(column), text),
        None => match missing() {
            Some(field) => (
                Some(field.name().clone()),
                "the schema has no such field".to_owned(),
            ),
            None => (None, text),
        },
    };
    let advice = match spec.widen {
        true => "",
        false => "; pass a schema, or let widen() choose one that fits all rows",
    };
    Fault {
        column,
        is_of_type: true,
        ..Fault::new(format!("{text}{advice}"))
    }
}

/// Returns whether a line is a JSON object, of any schema.
fn is_object(line: &[u8]) -> bool {
    infer_json_schema(line, None).is_ok()
}

/// Returns the lines that are not empty.
fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    let next = move || {
        let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, behind) = rest.split_at(end);
        rest = behind;
        (!line.is_empty()).then_some(line)
    };
    std::iter::from_fn(next).filter(|line| !line.trim_ascii().is_empty())
}

/// Returns the number of rows.
pub(super) fn count_rows(data: &[u8]) -> u64 {
    lines(data).count() as u64
}

/// Returns the schema that fits the first `rows` lines, or all.
pub(super) fn infer(data: &[u8], rows: Option<usize>) -> Result<Schema, Fault> {
    let inferred = infer_json_schema(data, rows);
    let (schema, _) = inferred.map_err(|error| {
        let row = lines(data)
            .position(|line| !is_object(line))
            .map_or(0, |at| at + 1);
        Fault {
            row: row as u64,
            ..Fault::new(format!("no JSON object per line: {error}"))
        }
    })?;
    let has_long_number = || {
        data.split(|byte| !byte.is_ascii_digit())
            .any(|digits| digits.len() >= LONG)
    };
    let mut leaves = 0;
    let numbered = with_floats(schema.fields(), &mut |field| {
        let number = ("leaf".to_owned(), leaves.to_string());
        leaves += 1;
        Field::clone(field).with_metadata(HashMap::from([number]))
    });
    if leaves == 0 || !has_long_number() {
        return Ok(schema);
    }
    let last = lines(data).take(rows.unwrap_or(usize::MAX)).last();
    let end = last.map_or(0, |line| {
        line.as_ptr_range().end.addr() - data.as_ptr().addr()
    });
    let sample = &data[..end];
    let seen = Arc::new(Seen(Mutex::new(vec![Numbers::default(); leaves])));
    let decoded = ReaderBuilder::new(Arc::new(Schema::new(numbered)))
        .with_batch_size(batch_rows(schema.fields().len()))
        .with_coerce_primitive(true)
        .with_decoder_factory(Arc::new(SeenFactory(seen.clone())))
        .build_decoder()
        .and_then(|decoder| decode_with(decoder, sample, &mut Vec::new()));
    decoded.map_err(|error| Fault::new(error.to_string()))?;
    let seen = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut seen = seen.iter();
    let fields = with_floats(schema.fields(), &mut |field| {
        let of = seen.next().map_or(DataType::Float64, Numbers::of);
        Field::clone(field).with_data_type(of)
    });
    Ok(Schema::new(fields))
}

/// The number of digits of integers that need more than 63 bits.
const LONG: usize = 19;

/// Returns fields with each field of floats changed, also in structs and lists.
fn with_floats(fields: &Fields, change: &mut impl FnMut(&FieldRef) -> Field) -> Fields {
    fn changed(field: &FieldRef, change: &mut impl FnMut(&FieldRef) -> Field) -> FieldRef {
        let of = match field.data_type() {
            DataType::Float64 => return Arc::new(change(field)),
            DataType::Struct(fields) => DataType::Struct(with_floats(fields, change)),
            DataType::List(item) => DataType::List(changed(item, change)),
            _ => return field.clone(),
        };
        Arc::new(Field::clone(field).with_data_type(of))
    }
    fields.iter().map(|field| changed(field, change)).collect()
}

/// The numbers of a field for which Arrow has inferred floats.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    /// Whether an integer needs 64 bits without a sign.
    is_large: bool,
    /// Whether there is a negative number or a fraction.
    is_other: bool,
    /// Whether an integer needs more than 64 bits.
    is_longer: bool,
}

impl Numbers {
    fn add(&mut self, number: &str) {
        let digits = number.strip_prefix('-').unwrap_or(number);
        let is_integer = digits.bytes().all(|byte| byte.is_ascii_digit());
        let (small, large) = (number.parse::<i64>(), number.parse::<u64>());
        match is_integer {
            true if large.is_ok() => self.is_large |= small.is_err(),
            true if small.is_ok() => self.is_other = true,
            true => self.is_longer = true,
            false => self.is_other = true,
        }
    }

    /// Returns the type that fits the numbers: as in CSV, text for integers that floats would round.
    fn of(&self) -> DataType {
        match self {
            _ if self.is_longer || (self.is_large && self.is_other) => DataType::Utf8,
            _ if self.is_large => DataType::UInt64,
            _ => DataType::Float64,
        }
    }
}

/// The numbers of each field of floats, by the number in the field's metadata.
#[derive(Debug)]
struct Seen(Mutex<Vec<Numbers>>);

#[derive(Debug)]
struct SeenFactory(Arc<Seen>);

impl DecoderFactory for SeenFactory {
    fn make_default_decoder(
        &self,
        context: &DecoderContext,
        field: &FieldRef,
        is_nullable: bool,
    ) -> Result<Option<Box<dyn ArrayDecoder>>, ArrowError> {
        let leaf = field
            .metadata()
            .get("leaf")
            .and_then(|leaf| leaf.parse().ok());
        let Some(leaf) = leaf else {
            return Ok(None);
        };
        let inner = context.make_builtin_decoder(field, is_nullable)?;
        let seen = self.0.clone();
        Ok(Some(Box::new(SeenValues { inner, seen, leaf })))
    }
}

struct SeenValues {
    inner: Box<dyn ArrayDecoder>,
    seen: Arc<Seen>,
    leaf: usize,
}

impl ArrayDecoder for SeenValues {
    fn decode(&mut self, tape: &Tape<'_>, at: &[u32]) -> Result<ArrayRef, ArrowError> {
        let mut seen = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(numbers) = seen.get_mut(self.leaf) {
            for &at in at {
                if let TapeElement::Number(number) = tape.get(at) {
                    numbers.add(tape.get_string(number));
                }
            }
        }
        drop(seen);
        self.inner.decode(tape, at)
    }
}
