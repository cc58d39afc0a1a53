//! Lines of JSON: what is wrong with them, and types that fit all rows.

use arrow_schema::{DataType, Field, Schema, TimeUnit};

use super::{Data, names, rows, text, types};
use crate::{TableError, Tables};
use arenite::Engine;

/// Makes a file with 1,000 rows of `first`, from which its types are inferred, and then `last`.
fn file(first: &str, last: &str) -> Data {
    let first = format!("{first}\n").repeat(1000);
    Data::of([("a.json", format!("{first}{last}\n").as_bytes())])
}

#[test]
fn json_names_what_it_cannot_read() {
    let engine = Engine::inline();
    let advice = "; pass a schema, or let widen() choose one that fits all rows";
    let first = r#"{"a": 1, "s": {"t": [true]}}"#;
    for (last, column, expected) in [
        (
            r#"{"a": "x"}"#,
            Some("a"),
            r#"failed to parse "x" as Int64"#,
        ),
        (r#"{"a": 1.5}"#, Some("a"), "1.5 is not Int64"),
        (r#"{"a": [1]}"#, Some("a"), "expected primitive got [1]"),
        (r#"{"b": 1}"#, Some("b"), "the schema has no such field"),
        (r#"{"s": 1}"#, Some("s"), "expected { got 1"),
        (
            r#"{"s": {"t": [1]}}"#,
            Some("s"),
            "whilst decoding field 't': ",
        ),
        (
            r#"{"s": {"u": 1}}"#,
            Some("s"),
            "column 'u' missing from schema",
        ),
        (r#"{"a": "#, None, "no JSON object in one line"),
        ("[1, 2]", None, "no JSON object in one line"),
    ] {
        let data = file(first, last);
        for size in [100, 1 << 20] {
            let read = engine.json(data.path()).part_bytes(size).read();
            let error = read.unwrap_err();
            assert_eq!(
                (error.row(), error.column()),
                (Some(1001), column),
                "{error}"
            );
            let known = column.map(|column| format!(", column {column:?}"));
            let place = format!("a.json, row 1001{}: {expected}", known.unwrap_or_default());
            let error = text(&error, &data);
            assert!(error.starts_with(&place), "{error}");
            assert_eq!(error.ends_with(advice), column.is_some(), "{error}");
        }
    }
}

#[test]
fn json_types_widen_where_asked() {
    use DataType::{Boolean, Float64, Int64, Utf8};
    let engine = Engine::inline();
    let list = |of| DataType::List(Field::new_list_field(of, true).into());
    let record = |of| DataType::Struct(vec![Field::new("t", of, true)].into());
    for (first, last, widened, shown) in [
        ("1", "1.5", Float64, ["1.0", "1.5"]),
        ("1", "-2e-1", Float64, ["1.0", "-0.2"]),
        ("1", "1e300", Float64, ["1.0", "1e300"]),
        (
            "1",
            "9223372036854775809",
            Utf8,
            ["1", "9223372036854775809"],
        ),
        ("1", r#""x""#, Utf8, ["1", "x"]),
        ("1.5", "true", Utf8, ["1.5", "true"]),
        ("true", "1", Utf8, ["true", "1"]),
        ("null", "true", Boolean, ["-", "true"]),
        ("[1]", "[1.5, 2]", list(Float64), ["[1.0]", "[1.5, 2.0]"]),
        ("[]", "[1]", list(Int64), ["[]", "[1]"]),
        (
            r#"{"t": 1}"#,
            r#"{"t": 1.5}"#,
            record(Float64),
            ["{t: 1.0}", "{t: 1.5}"],
        ),
    ] {
        let data = file(
            &format!("{{\"a\": {first}}}"),
            &format!("{{\"a\": {last}}}"),
        );
        for size in [100, 1 << 20] {
            let read = engine.json(data.path()).part_bytes(size).widen().read();
            let table = read.unwrap_or_else(|error| panic!("{first}, {last}: {error}"));
            assert_eq!(types(&table), std::slice::from_ref(&widened));
            let rows = rows(&table);
            let expected = [&rows[0][0], &rows[999][0], &rows[1000][0]];
            assert_eq!(expected, [shown[0], shown[0], shown[1]]);
        }
    }
    let data = file(r#"{"a": 1}"#, r#"{"a": "x", "b": {"c": [1.5]}}"#);
    let table = engine
        .json(data.path())
        .part_bytes(100)
        .widen()
        .read()
        .unwrap();
    assert_eq!(
        (table.rows(), names(&table)),
        (1001, vec!["a".into(), "b".into()])
    );
    assert_eq!(rows(&table)[1000], ["x", "{c: [1.5]}"]);
}

#[test]
fn a_number_of_json_is_never_rounded() {
    let engine = Engine::inline();
    let read = |of: &DataType, value: &str| -> Result<String, TableError> {
        let data = Data::of([("a.json", format!("{{\"a\": {value}}}\n").as_bytes())]);
        let schema = Schema::new(vec![Field::new("a", of.clone(), true)]);
        let table = engine.json(data.path()).schema(schema.into()).read()?;
        Ok(rows(&table)[0][0].clone())
    };
    let second = DataType::Timestamp(TimeUnit::Second, None);
    for (of, value, expected) in [
        (
            DataType::Int64,
            "-9223372036854775808",
            "-9223372036854775808",
        ),
        (
            DataType::UInt64,
            "18446744073709551615",
            "18446744073709551615",
        ),
        (DataType::Int8, "1.2e1", "12"),
        (DataType::Int64, "7.0", "7"),
        (second.clone(), "1e3", "1970-01-01T00:16:40"),
    ] {
        assert_eq!(read(&of, value).unwrap(), expected, "{of}");
    }
    for (of, value) in [
        (DataType::Int64, "0.5"),
        (DataType::Int64, "9223372036854775808"),
        (DataType::Int64, "9007199254740993.0"),
        (DataType::UInt64, "-1"),
        (DataType::Int8, "128"),
        (DataType::Date32, "1.5"),
        (second.clone(), "1.5"),
        (second.clone(), "9223372036854775808"),
    ] {
        let error = read(&of, value).unwrap_err();
        assert_eq!(
            (error.row(), error.column()),
            (Some(1), Some("a")),
            "{error}"
        );
    }
}

/// What pandas gives. Arrow infers floats, which would be rounded.
#[test]
fn integers_without_a_sign_stay_exact() {
    let engine = Engine::inline();
    let lines = "{\"id\": 1, \"x\": 5.0}\n\n{\"id\": 18446744073709551615, \"x\": 1}\n";
    let data = Data::of([("a.json", lines.as_bytes())]);
    let table = engine.read_json(data.path()).unwrap();
    assert_eq!(types(&table), [DataType::UInt64, DataType::Float64]);
    assert_eq!(
        rows(&table),
        [["1", "5.0"], ["18446744073709551615", "1.0"]]
    );
}
