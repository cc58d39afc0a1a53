//! No value is altered: what a type cannot contain is an error, and what a file cannot be is one too.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StructArray};
use arrow_cast::cast;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;

use super::{Data, names, rows, text, types};
use crate::{Table, TableError, Tables};
use arenite::Engine;

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let columns = columns.iter();
    let fields = columns.map(|(name, of)| Field::new(*name, of.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Returns a column of one value, which Arrow makes of text, and of numbers by way of floats.
fn column(value: &str, of: &DataType) -> ArrayRef {
    let text: ArrayRef = Arc::new(arrow_array::StringArray::from(vec![None, Some(value)]));
    cast(&text, of).unwrap()
}

fn write(data: &Data, name: &str, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, column)| (name, column, true)),
    );
    let batch = batch.unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    std::fs::write(data.path().join(name), writer.into_inner().unwrap()).unwrap();
}

fn timestamp(unit: TimeUnit) -> DataType {
    DataType::Timestamp(unit, None)
}

#[test]
fn conversions_of_parquet_alter_no_value() {
    use DataType::{
        Boolean, Date32, Decimal128, Float16, Float32, Float64, Int8, Int64, Time32, Time64, Utf8,
    };
    let engine = Engine::inline();
    let millis = timestamp(TimeUnit::Millisecond);
    let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
    let time = "2020-01-01T10:11:12.5";
    for (value, of, to, fits) in [
        (time, &millis, Date32, false),
        (time, &millis, timestamp(TimeUnit::Second), false),
        (time, &utc, millis.clone(), false),
        (time, &Utf8, Date32, false),
        (time, &Utf8, timestamp(TimeUnit::Second), false),
        ("2020-01-01T10:11:12+01:00", &Utf8, millis.clone(), false),
        ("1.5", &Float64, Int64, false),
        ("0.5", &Float64, Boolean, false),
        ("1.25", &Float64, Decimal128(5, 1), false),
        ("1e300", &Float64, Float32, false),
        ("9007199254740993", &Int64, Float64, false),
        ("2049", &Int64, Float16, false),
        ("5", &Int64, Boolean, false),
        ("300", &Int64, Int8, false),
        ("1.25", &Decimal128(5, 2), Decimal128(5, 1), false),
        ("1.25", &Decimal128(5, 2), Int64, false),
        (
            "10:11:12.5",
            &Time64(TimeUnit::Microsecond),
            Time32(TimeUnit::Second),
            false,
        ),
        ("2020-01-01", &millis, Date32, true),
        ("2020-01-01", &Date32, millis.clone(), true),
        (
            "2020-01-01T10:11:12",
            &millis,
            timestamp(TimeUnit::Second),
            true,
        ),
        ("1", &Int64, Boolean, true),
        ("2", &Float64, Int64, true),
        ("0.1", &Float64, Float32, true),
        ("0.1", &Float64, Decimal128(5, 2), true),
        ("inf", &Float64, Float32, true),
        ("1.20", &Decimal128(5, 2), Decimal128(5, 1), true),
        ("0.1", &Decimal128(5, 2), Float64, true),
        ("9007199254740992", &Int64, Float64, true),
        ("7", &Utf8, Int64, true),
        ("1.5", &Float64, Utf8, true),
    ] {
        let data = Data::of([]);
        let (plain, of) = (column(value, of), Arc::new(Field::new("x", to, true)));
        let to = of.data_type().clone();
        let field = Arc::new(Field::new("x", plain.data_type().clone(), true));
        let nested = StructArray::from(vec![(field, plain.clone())]);
        write(
            &data,
            "a.parquet",
            vec![("a", plain.clone()), ("s", Arc::new(nested))],
        );
        let read = |column: &str, to: DataType| {
            let schema = schema(&[(column, to)]);
            engine.parquet(data.path()).schema(schema).read()
        };
        let nested = DataType::Struct(vec![of].into());
        for (column, to) in [("a", to.clone()), ("s", nested)] {
            let read = read(column, to.clone());
            let what = format!("{value}: {} as {to}", plain.data_type());
            match read {
                Ok(table) => {
                    assert!(fits, "{what}: {:?}", rows(&table));
                    let parts: Vec<_> = table.batches().collect::<Result<_, _>>().unwrap();
                    let found = parts[0].column(0);
                    if column == "a" {
                        assert_eq!(
                            found.as_ref(),
                            cast(&plain, &to).unwrap().as_ref(),
                            "{what}"
                        );
                    }
                }
                Err(error) => {
                    assert!(!fits, "{what}: {error}");
                    assert_eq!(error.column(), Some(column), "{what}: {error}");
                }
            }
        }
    }
}

#[test]
fn parquet_widens_only_exactly() {
    let engine = Engine::inline();
    for (number, fits) in [("9007199254740993", false), ("9007199254740992", true)] {
        let data = Data::of([]);
        write(
            &data,
            "a.parquet",
            vec![("a", column(number, &DataType::Int64))],
        );
        write(
            &data,
            "b.parquet",
            vec![("a", column("1.5", &DataType::Float64))],
        );
        let read = engine.parquet(data.path()).widen().read();
        assert_eq!(read.is_ok(), fits, "{number}");
    }
}

#[test]
fn quotes_that_do_not_close_in_the_header_are_an_error() {
    let engine = Engine::inline();
    for bytes in [
        "\"a,b\n1,2\n3,4\n",
        "a,\"b\n1,2\n",
        "\n\"a\r\n1\r\n",
        "\"a\"\"\n1\n",
        "\"",
    ] {
        let data = Data::of([("a.csv", bytes.as_bytes())]);
        let given = schema(&[("a", DataType::Int64), ("b", DataType::Int64)]);
        let csv = || engine.csv(data.path());
        for read in [
            csv().read(),
            csv().schema(given).read(),
            csv().by_name().read(),
        ] {
            let error = read.unwrap_err().to_string();
            assert!(
                error.contains("inside the quotes of a field of the header"),
                "{error}"
            );
        }
        assert!(csv().no_header().read().is_err(), "{bytes}");
    }
}

#[test]
fn two_columns_of_one_name_are_told_apart_or_refused() {
    let engine = Engine::inline();
    let data = Data::of([("a.csv", b"a,a\n1,2\n")]);
    let wanted = || schema(&[("a", DataType::Int64)]);
    let refused = |read: Result<Table, TableError>| {
        let error = read.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("two columns have the name \"a\""),
            "{error}"
        );
    };
    refused(engine.csv(data.path()).by_name().read());
    refused(engine.csv(data.path()).by_name().schema(wanted()).read());
    let data = Data::of([]);
    let int = |value| column(value, &DataType::Int64);
    write(
        &data,
        "a.parquet",
        vec![("a", int("1")), ("a", int("2")), ("b", int("3"))],
    );
    let parquet = || engine.parquet(data.path());
    refused(parquet().by_name().read());
    refused(parquet().by_name().schema(wanted()).read());
    refused(parquet().schema(wanted()).read());
    let other = parquet().schema(schema(&[("b", DataType::Int64)])).read();
    assert_eq!(rows(&other.unwrap())[1], ["3"]);
    let whole = parquet().read().unwrap();
    assert_eq!(
        (names(&whole), rows(&whole)[1].clone()),
        (
            vec!["a".to_owned(), "a".to_owned(), "b".to_owned()],
            vec!["1".to_owned(), "2".to_owned(), "3".to_owned()],
        )
    );
}

#[test]
fn a_file_of_empty_lines_decides_no_types() {
    let engine = Engine::inline();
    for blank in ["a,b\n\n", "a,b\r\n\r\n", "a,b\n", "\n\n", "\r\n", ""] {
        let data = Data::of([
            ("a.csv", blank.as_bytes()),
            ("b.csv", b"a,b\n1,2.5\n"),
            ("c.csv", blank.as_bytes()),
        ]);
        let table = engine.csv(data.path()).read();
        let table = table.unwrap_or_else(|error| panic!("{blank:?}: {error}"));
        assert_eq!(
            types(&table),
            [DataType::Int64, DataType::Float64],
            "{blank:?}"
        );
        assert_eq!(rows(&table), [["1", "2.5"]]);
    }
    for (first, last) in [("\n\n", "{\"a\": 1}\n"), ("{\"a\": 1}\n", " \n")] {
        let data = Data::of([("a.json", first.as_bytes()), ("b.json", last.as_bytes())]);
        for table in [
            engine.json(data.path()).read(),
            engine.json(data.path()).by_name().read(),
        ] {
            assert_eq!(rows(&table.unwrap()), [["1"]]);
        }
    }
}

#[test]
fn time_zones_are_not_dropped() {
    let engine = Engine::inline();
    let naive = timestamp(TimeUnit::Second);
    for zoned in [
        "2020-01-01T12:00:00+02:00",
        "2020-01-01 12:00:00Z",
        "2020-01-01T12:00:00-0130",
    ] {
        let bytes = format!("a\n{zoned}\n2020-01-01T12:00:00\n");
        let data = Data::of([("a.csv", bytes.as_bytes())]);
        let table = engine.read_csv(data.path()).unwrap();
        assert_eq!(rows(&table), [[zoned], ["2020-01-01T12:00:00"]]);
        let read = engine
            .csv(data.path())
            .schema(schema(&[("a", naive.clone())]))
            .read();
        let error = read.unwrap_err();
        assert_eq!(
            (error.row(), error.column()),
            (Some(1), Some("a")),
            "{error}"
        );
        let late = format!("a\n{}{zoned}\n", "2020-01-01T12:00:00\n".repeat(1000));
        let data = Data::of([("a.csv", late.as_bytes())]);
        let error = engine.read_csv(data.path()).unwrap_err();
        assert_eq!(error.row(), Some(1001), "{error}");
        let table = engine.csv(data.path()).widen().read().unwrap();
        assert_eq!(rows(&table)[1000], [zoned]);
        let json = format!("{{\"a\": {zoned:?}}}\n");
        let data = Data::of([("a.json", json.as_bytes())]);
        let read = engine
            .json(data.path())
            .schema(schema(&[("a", naive.clone())]))
            .read();
        assert_eq!(read.unwrap_err().column(), Some("a"));
    }
    let data = Data::of([("a.csv", b"a\n2020-01-01T12:00:00\n2020-01-01T12:00:00.5\n")]);
    let table = engine.read_csv(data.path()).unwrap();
    assert!(matches!(types(&table)[0], DataType::Timestamp(_, None)));
    let data = Data::of([("a.csv", b"a\n23:59:60\n")]);
    let time = schema(&[("a", DataType::Time32(TimeUnit::Second))]);
    let error = engine.csv(data.path()).schema(time).read().unwrap_err();
    assert_eq!(
        text(&error, &data).split(':').next(),
        Some("a.csv, row 1, column \"a\"")
    );
}

#[test]
fn errors_in_the_first_rows_name_the_row() {
    let engine = Engine::inline();
    for (bytes, row, column) in [
        (&b"a,b\n1,2\n1,2,3\n"[..], 2, None),
        (b"a,b\n1,2\n\n1\n", 2, None),
        (b"a,b\n1,2\n3,4\n1,\xE9\n", 3, Some("b")),
    ] {
        let data = Data::of([("a.csv", bytes)]);
        let error = engine.read_csv(data.path()).unwrap_err();
        assert_eq!(
            (error.row(), error.column()),
            (Some(row), column),
            "{error}"
        );
    }
}

#[test]
fn each_line_of_json_is_an_object() {
    let engine = Engine::inline();
    let wanted = || schema(&[("a", DataType::Int64)]);
    for (bytes, row) in [
        ("{\"a\": 1}\n{\n\"a\": 2\n}\n", 2),
        ("{\"a\": 1}\n{\"a\": 2}{\"a\": 3}\n", 2),
        ("{\"a\": 1}\r{\"a\": 2}\r", 1),
    ] {
        let data = Data::of([("a.json", bytes.as_bytes())]);
        for size in [1, 12, 1 << 20] {
            let read = engine
                .json(data.path())
                .part_bytes(size)
                .schema(wanted())
                .read();
            let error = read.unwrap_err();
            assert_eq!(error.row(), Some(row), "{error}");
            assert!(
                error.to_string().contains("no JSON object in one line"),
                "{error}"
            );
        }
    }
}

#[test]
fn integers_of_json_beyond_64_bits_are_text_or_an_error() {
    let engine = Engine::inline();
    let beyond = [
        "18446744073709551616",
        "-9223372036854775809",
        "1000000000000000000000000000001",
    ];
    for form in ["{}", "{\"b\": {}}", "[1, {}]", "[{\"b\": [{}]}]"] {
        for number in beyond {
            let line = |number: &str| format!("{{\"a\": {}}}\n", form.replace("{}", number));
            let bytes = line("5") + &line(number);
            let data = Data::of([("a.json", bytes.as_bytes())]);
            let error = engine.read_json(data.path()).unwrap_err();
            assert_eq!(error.column(), Some("a"), "{error}");
            for size in [10, 1 << 20] {
                let read = engine.json(data.path()).part_bytes(size).widen().read();
                let table = read.unwrap_or_else(|error| panic!("{bytes}: {error}"));
                assert!(rows(&table)[1][0].contains(number), "{:?}", rows(&table));
            }
        }
        for number in ["9223372036854775808", "18446744073709551615"] {
            let bytes = format!("{{\"a\": {}}}\n", form.replace("{}", number));
            let data = Data::of([("a.json", bytes.as_bytes())]);
            let table = engine.read_json(data.path()).unwrap();
            assert!(rows(&table)[0][0].contains(number), "{:?}", rows(&table));
        }
    }
    // With floats, no number represents all values.
    let data = Data::of([("a.json", b"{\"a\": 1.5}\n{\"a\": 9223372036854775809}\n")]);
    assert!(engine.read_json(data.path()).is_err());
    let table = engine.json(data.path()).widen().read().unwrap();
    assert_eq!(rows(&table), [["1.5"], ["9223372036854775809"]]);
    let floats = engine
        .json(data.path())
        .schema(schema(&[("a", DataType::Float64)]));
    assert_eq!(rows(&floats.read().unwrap())[1], ["9.223372036854776e18"]);
}
