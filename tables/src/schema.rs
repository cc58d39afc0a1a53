//! Combining schemas that differ: [`merge`].

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, make_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

use super::error::Fault;

/// Returns the narrowest type that can represent the values of both types; text if there is no other.
pub(super) fn widest(a: &DataType, b: &DataType) -> DataType {
    use DataType::{
        Date32, Float16, Float32, Float64, Int64, LargeUtf8, List, Null, Struct, Timestamp, UInt64,
        Utf8,
    };
    match (a, b) {
        _ if a == b => a.clone(),
        (Null, other) | (other, Null) => other.clone(),
        (Timestamp(x, zone), Timestamp(y, other)) if zone == other => {
            Timestamp(finer(*x, *y), zone.clone())
        }
        (Date32, Timestamp(unit, zone)) | (Timestamp(unit, zone), Date32) => {
            Timestamp(*unit, zone.clone())
        }
        (LargeUtf8, Utf8) | (Utf8, LargeUtf8) => LargeUtf8,
        (List(x), List(y)) => List(Arc::new(Field::new(
            x.name(),
            widest(x.data_type(), y.data_type()),
            true,
        ))),
        (Struct(x), Struct(y)) => {
            Struct(union(x, y, &|_, x, y| Ok::<_, ()>(widest(x, y))).unwrap_or_else(|()| x.clone()))
        }
        (UInt64, other) | (other, UInt64) if other.is_unsigned_integer() => UInt64,
        // No number can represent all values of both.
        (UInt64, other) | (other, UInt64) if other.is_integer() => Utf8,
        (a, b) if a.is_integer() && b.is_integer() => Int64,
        (Float16 | Float32, Float16 | Float32) => Float32,
        (a, b) if a.is_numeric() && b.is_numeric() => Float64,
        _ => Utf8,
    }
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    let rank = |unit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if rank(a) < rank(b) { b } else { a }
}

/// Returns all fields of `a`, followed by those that only `b` has. `settle` decides the type of a field that differs.
fn union<E>(
    a: &Fields,
    b: &Fields,
    settle: &dyn Fn(&str, &DataType, &DataType) -> Result<DataType, E>,
) -> Result<Fields, E> {
    let mut fields: Vec<FieldRef> = a.iter().cloned().collect();
    for field in b {
        match fields.iter_mut().find(|known| known.name() == field.name()) {
            Some(known) if known.data_type() == field.data_type() => {}
            Some(known) => {
                let settled = settle(field.name(), known.data_type(), field.data_type())?;
                *known = Arc::new(Field::new(field.name(), settled, true));
            }
            None => fields.push(field.clone()),
        }
    }
    Ok(fields.into())
}

/// Returns the columns of both schemas, in the order of their first appearance.
///
/// # Errors
/// The column and its two types, if they differ and widening is not allowed.
pub(super) fn merge(
    a: &Schema,
    b: &Schema,
    may_widen: bool,
) -> Result<SchemaRef, (String, DataType, DataType)> {
    let fields = union(a.fields(), b.fields(), &|name, x, y| {
        let wider = widest(x, y);
        // A column without values in a sample has no type, so any type may replace it.
        if may_widen || *x == DataType::Null || *y == DataType::Null {
            Ok(wider)
        } else {
            Err((name.to_owned(), x.clone(), y.clone()))
        }
    })?;
    Ok(Arc::new(Schema::new_with_metadata(
        fields,
        a.metadata.clone(),
    )))
}

/// Returns the names of the columns.
pub(super) fn names(schema: &Schema) -> Vec<String> {
    let fields = schema.fields().iter();
    fields.map(|field| field.name().clone()).collect()
}

/// Returns the first name that two columns have.
pub(super) fn duplicate(names: &[String]) -> Option<&str> {
    let mut known = std::collections::HashSet::new();
    let mut names = names.iter().map(String::as_str);
    names.find(|name| !known.insert(*name))
}

/// Returns the fault of a file with two columns of one name.
pub(super) fn twice(name: &str) -> Fault {
    Fault {
        column: Some(name.to_owned()),
        ..Fault::new(format!(
            "two columns have the name {name:?}, so by_name() cannot tell them apart"
        ))
    }
}

/// Returns the schema of columns of CSV files, each optional. A column without values becomes text, which any later
/// cell fits.
pub(super) fn of_csv(schema: &Schema) -> SchemaRef {
    let field = |field: &FieldRef| {
        let data_type = match field.data_type() {
            DataType::Null => DataType::Utf8,
            known => known.clone(),
        };
        Field::new(field.name(), data_type, true)
    };
    Arc::new(Schema::new(
        schema.fields().iter().map(field).collect::<Vec<_>>(),
    ))
}

/// Returns the schema whose columns can represent the values of both schemas, which have the same columns.
pub(super) fn widen_by_position(known: &Schema, found: &Schema) -> SchemaRef {
    let columns = known.fields().iter().zip(found.fields());
    let columns =
        columns.map(|(x, y)| Field::new(x.name(), widest(x.data_type(), y.data_type()), true));
    Arc::new(Schema::new_with_metadata(
        columns.collect::<Vec<_>>(),
        known.metadata.clone(),
    ))
}

/// Converts a column to the type `of`. A value that has no equivalent is an error: Arrow would cut or round some.
pub(super) fn cast(column: &ArrayRef, of: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == of {
        return Ok(column.clone());
    }
    let made = converted(column, of)?;
    if !is_same(column, &made)? {
        let text = format!(
            "a value of {} does not fit {of}: it would be altered",
            column.data_type()
        );
        return Err(ArrowError::CastError(text));
    }
    Ok(made)
}

fn converted(column: &ArrayRef, of: &DataType) -> Result<ArrayRef, ArrowError> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(column, of, &strict)
}

/// Returns whether a converted array has all that the values before were. A fraction may be rounded in a narrower
/// float.
fn is_same(before: &ArrayRef, after: &ArrayRef) -> Result<bool, ArrowError> {
    use DataType::{Dictionary, Null, Struct, Timestamp};
    Ok(match (before.data_type(), after.data_type()) {
        (a, b) if a == b => true,
        (Null, _) => true,
        (Dictionary(_, of), _) => is_same(&converted(before, of)?, after)?,
        (_, Dictionary(_, of)) => is_same(before, &converted(after, of)?)?,
        (Struct(fields), Struct(_)) => {
            let (before, after) = (before.as_struct(), after.as_struct());
            for (field, values) in fields.iter().zip(before.columns()) {
                if let Some(made) = after.column_by_name(field.name())
                    && !is_same(values, made)?
                {
                    return Ok(false);
                }
            }
            true
        }
        (a, b) if a.is_nested() || b.is_nested() => {
            let (before, after) = (before.to_data(), after.to_data());
            let (before, after) = (before.child_data(), after.child_data());
            if before.len() == after.len() {
                for (values, made) in before.iter().zip(after) {
                    if !is_same(&make_array(values.clone()), &make_array(made.clone()))? {
                        return Ok(false);
                    }
                }
            }
            true
        }
        (a, b) if is_text(a) => {
            let texts = converted(before, &DataType::Utf8);
            let is_exact = |text: &str| is_exact(text, b);
            texts.is_ok_and(|texts| texts.as_string::<i32>().iter().flatten().all(is_exact))
        }
        (_, b) if is_text(b) => true,
        (a, b) if b.is_floating() && !a.is_integer() => {
            !a.is_floating() || infinities(before)? == infinities(after)?
        }
        (Timestamp(_, zone), Timestamp(_, other)) if zone.is_some() != other.is_some() => false,
        (a, _) => converted(after, a).is_ok_and(|back| back.as_ref() == before.as_ref()),
    })
}

fn is_text(of: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(
        of,
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView
    )
}

/// Returns the positions of infinite floats.
fn infinities(floats: &ArrayRef) -> Result<Vec<usize>, ArrowError> {
    use arrow_array::types::Float64Type;
    let floats = converted(floats, &DataType::Float64)?;
    let floats = floats.as_primitive::<Float64Type>().iter().enumerate();
    let infinite = floats.filter(|(_, value)| value.is_some_and(f64::is_infinite));
    Ok(infinite.map(|(at, _)| at).collect())
}

/// Returns whether a type represents a time, a date or a decimal number exactly: the parsers of Arrow would cut or
/// round other values.
pub(super) fn is_exact(text: &str, of: &DataType) -> bool {
    use DataType::{
        Date32, Date64, Decimal32, Decimal64, Decimal128, Decimal256, Time32, Time64, Timestamp,
    };
    match of {
        // The time of the day would be lost.
        Date32 => !text.trim().contains([' ', 'T', 't', ':']),
        Date64 | Timestamp(_, None) if has_zone(text) => false,
        Date64 => places(text) <= 3,
        // Arrow makes a second of the next minute of a leap second.
        Time32(_) | Time64(_) if text.contains(":60") => false,
        Timestamp(unit, _) | Time32(unit) | Time64(unit) => {
            let most = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            places(text) <= most
        }
        Decimal32(_, scale) | Decimal64(_, scale) | Decimal128(_, scale) | Decimal256(_, scale) => {
            last_place(text) <= i64::from(*scale)
        }
        _ => true,
    }
}

/// Returns whether a date with a time also has a time zone.
fn has_zone(text: &str) -> bool {
    let time = text.trim().split_once(['T', 't', ' ']);
    time.is_some_and(|(_, time)| time.contains(['+', '-', 'Z', 'z', '/']))
}

/// Returns the number of digits of the fraction, without zeros at its end.
fn places(number: &str) -> usize {
    let fraction = number.split_once('.').map_or("", |(_, fraction)| fraction);
    let end = fraction.find(|digit: char| !digit.is_ascii_digit());
    let digits = &fraction[..end.unwrap_or(fraction.len())];
    digits.trim_end_matches('0').len()
}

/// Returns the place of the last digit that is not 0: 2 for 0.05, -1 for 50.
fn last_place(number: &str) -> i64 {
    let (digits, exponent) = number
        .trim()
        .split_once(['e', 'E'])
        .unwrap_or((number.trim(), "0"));
    if !digits.contains(|digit| matches!(digit, '1'..='9')) {
        return i64::MIN;
    }
    let whole = digits.split('.').next().unwrap_or(digits);
    let place = match places(digits) {
        0 => whole.trim_end_matches('0').len() as i64 - whole.len() as i64,
        places => places as i64,
    };
    place.saturating_sub(exponent.parse().unwrap_or(0))
}
