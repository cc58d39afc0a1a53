//! Combining schemas that differ: [`merge`].

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

/// Returns the narrowest type that can represent the values of both types; text if there is no other.
pub(super) fn widest(a: &DataType, b: &DataType) -> DataType {
    use DataType::{
        Date32, Float16, Float32, Float64, Int64, LargeUtf8, List, Null, Struct, Timestamp, Utf8,
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

/// Returns the first name that two columns have.
pub(super) fn duplicate(schema: &Schema) -> Option<&str> {
    let mut names = std::collections::HashSet::new();
    schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .find(|name| !names.insert(*name))
}

/// Returns the schema with each column optional. A column without values in the sample gets the type `instead`.
pub(super) fn without_nulls(schema: &Schema, instead: &DataType) -> Schema {
    let field = |field: &FieldRef| {
        let data_type = match field.data_type() {
            DataType::Null => instead.clone(),
            known => known.clone(),
        };
        Field::new(field.name(), data_type, true)
    };
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}
