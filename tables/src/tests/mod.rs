#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use arrow_array::RecordBatch;
use arrow_cast::display::array_value_to_string;
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use proptest::prelude::*;

use super::cut::{Records, State, scan};
use super::error::Fault;
use super::*;
use arenite::Engine;
use arenite::kernel::KernelError;

mod json;
mod values;

/// The rows as text; null is `-`.
fn rows(table: &Table) -> Vec<Vec<String>> {
    let row = |batch: &RecordBatch, row| {
        let columns = batch.columns().iter();
        let text = columns.map(|column| match column.is_null(row) {
            true => "-".to_owned(),
            false => array_value_to_string(column, row).unwrap(),
        });
        text.collect()
    };
    let batches: Vec<_> = table.batches().collect::<Result<_, _>>().unwrap();
    let all = batches.iter();
    all.flat_map(|batch| (0..batch.num_rows()).map(|at| row(batch, at)))
        .collect()
}

fn names(table: &Table) -> Vec<String> {
    let schema = table.schema();
    schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect()
}

fn types(table: &Table) -> Vec<DataType> {
    let schema = table.schema();
    schema
        .fields()
        .iter()
        .map(|field| field.data_type().clone())
        .collect()
}

struct Data(tempfile::TempDir);

impl Data {
    fn of<const N: usize>(files: [(&str, &[u8]); N]) -> Self {
        let data = Self(tempfile::tempdir().unwrap());
        for (name, bytes) in files {
            let path = data.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        data
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn pattern(&self, pattern: &str) -> String {
        format!("{}/{pattern}", self.path().display())
    }
}

fn text(error: &TableError, data: &Data) -> String {
    error.to_string().replace(&data.pattern(""), "")
}

/// Returns the records that the parser finds, each as its fields.
fn records(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
    use csv_core::ReadRecordResult as Read;
    let mut reader = csv_core::ReaderBuilder::new().build();
    let (mut text, mut ends) = (vec![0; bytes.len() + 8], vec![0; bytes.len() + 8]);
    reader.read_record(b"\n", &mut text, &mut ends);
    let (mut at, mut len, mut count, mut found) = (0, 0, 0, Vec::new());
    loop {
        let (result, read, written, fields) =
            reader.read_record(&bytes[at..], &mut text[len..], &mut ends[count..]);
        at += read;
        len += written;
        count += fields;
        match result {
            Read::InputEmpty => {}
            Read::Record => {
                let begins = [0].into_iter().chain(ends.iter().copied());
                let bounds = begins.zip(&ends[..count]);
                found.push(
                    bounds
                        .map(|(begin, end)| text[begin..*end].to_vec())
                        .collect(),
                );
                (len, count) = (0, 0);
            }
            Read::End => return found,
            Read::OutputFull | Read::OutputEndsFull => unreachable!("there is room"),
        }
    }
}

/// Generates numbers that have only one text.
fn sixteenths() -> impl Strategy<Value = f64> {
    (-999..999_i32).prop_map(|number| f64::from(number) / 16.0)
}

proptest! {
    #[test]
    fn any_bytes_cut_anywhere_are_the_same_records(
        bytes in proptest::collection::vec(proptest::sample::select(&b"aa,\"\"\n\n\r;"[..]), 0..60),
        size in 1_usize..9,
    ) {
        let rules = Records::Csv { delimiter: b',' };
        let (mut state, mut begin, mut before) = (State::Outside, 0, b'\n');
        let mut parts = Vec::new();
        for (number, chunk) in bytes.chunks(size).enumerate() {
            // Scan each chunk on its own for all states, as workers do.
            let of_state = State::ALL.map(|state| scan(chunk, rules, state, before));
            let found = of_state[state as usize];
            if let Some(first) = found.first {
                let end = number * size + first;
                parts.extend(records(&bytes[begin..end]));
                begin = end;
            }
            state = found.state;
            before = *chunk.last().unwrap();
        }
        parts.extend(records(&bytes[begin..]));
        prop_assert_eq!(parts, records(&bytes));
        let whole = scan(&bytes, rules, State::Outside, b'\n');
        prop_assert_eq!(whole.state, state);
    }

    #[test]
    fn rows_do_not_depend_on_the_size_of_parts(
        cells in proptest::collection::vec((any::<i32>(), "[a,\"\n\r ]{0,8}", proptest::option::of(sixteenths())), 0..30),
        has_mark in any::<bool>(),
        line in proptest::sample::select(&["\n", "\r\n"][..]),
        ends in any::<bool>(),
        size in 1_usize..200,
        is_compressed in any::<bool>(),
    ) {
        let mut csv = String::from(if has_mark { "\u{feff}" } else { "" });
        csv.push_str("number,\"the\n\"\"text\"\"\",float");
        for (number, text, float) in &cells {
            csv.push_str(line);
            let float = float.map(|float| format!("{float:?}")).unwrap_or_default();
            csv.push_str(&format!("{number},\"{}\",{float}", text.replace('"', "\"\"")));
        }
        if ends {
            csv.push_str(line);
        }
        let engine = Engine::inline();
        let data = Data::of([("a.csv", csv.as_bytes())]);
        let expected: Vec<Vec<String>> = cells
            .iter()
            .map(|(number, text, float)| vec![
                number.to_string(),
                if text.is_empty() { "-".into() } else { text.clone() },
                float.map_or_else(|| "-".into(), |float| format!("{float:?}")),
            ])
            .collect();
        let schema = Schema::new(vec![
            Field::new("number", DataType::Int32, true),
            Field::new("the\n\"text\"", DataType::Utf8, true),
            Field::new("float", DataType::Float64, true),
        ]);
        let path = data.path().join("a.csv");
        if is_compressed {
            let file = fs::File::create(&path).unwrap();
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            gzip.write_all(csv.as_bytes()).unwrap();
            gzip.finish().unwrap();
        }
        let table = engine.csv(&path).schema(schema.into()).part_bytes(size).read().unwrap();
        prop_assert_eq!(rows(&table), expected);
        // Each byte belongs to one part, in order.
        let mut at = None;
        for number in 0..table.parts().len() {
            let bytes = table.origin(number).unwrap().bytes().unwrap();
            prop_assert!(at.is_none_or(|at| at == bytes.start));
            at = Some(bytes.end);
        }
        prop_assert!(at.is_none_or(|at| at == csv.len() as u64));
    }

    #[test]
    fn lines_of_json_do_not_depend_on_the_size_of_parts(
        cells in proptest::collection::vec((any::<i32>(), "[a\"\n{}]{0,8}"), 1..30),
        size in 1_usize..100,
        is_passed in any::<bool>(),
    ) {
        let line = |(number, text): &(i32, String)| {
            let text = serde_json::to_string(text).unwrap();
            format!("{{\"n\": {number}, \"t\": {{\"x\": {text}}}}}\n\n")
        };
        let json: String = cells.iter().map(line).collect();
        let data = Data::of([("a.json", json.as_bytes())]);
        let path = data.path().join("a.json");
        if is_passed {
            let file = fs::File::create(&path).unwrap();
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            gzip.write_all(json.as_bytes()).unwrap();
            gzip.finish().unwrap();
        }
        let engine = Engine::inline();
        let table = engine.json(&path).part_bytes(size).read().unwrap();
        let whole = engine.read_json(&path).unwrap();
        prop_assert_eq!(rows(&table), rows(&whole));
        prop_assert_eq!(table.rows(), cells.len() as u64);
    }

    #[test]
    fn a_fault_survives_its_encoding(row in any::<u64>(), column in ".{0,9}", has_column in any::<bool>(), is_of_type in any::<bool>(), text in ".{0,9}") {
        let fault = Fault { row, column: has_column.then_some(column), is_of_type, text };
        prop_assert_eq!(Fault::from_bytes(&fault.to_bytes()), Some(fault));
    }
}

#[test]
fn errors_name_file_row_and_column() {
    let engine = Engine::inline();
    let number = Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("t", DataType::Utf8, true),
    ]);
    type Case = (
        &'static [u8],
        Option<u64>,
        Option<&'static str>,
        &'static str,
    );
    let cases: [Case; 7] = [
        (
            b"n,t\n1,a\n2,b\nthree,c\n4,d\n",
            Some(3),
            Some("n"),
            r#"a.csv, row 3, column "n": "three" is not Int64; pass a schema, or let widen() choose a type that fits all rows"#,
        ),
        (
            b"n,t\n1,a\n2\n3,c\n",
            Some(2),
            None,
            "a.csv, row 2: 1 field instead of 2: is a quote or a line break missing, or too many?",
        ),
        (
            b"n,t\n1,a\n2,b,c\n",
            Some(2),
            None,
            "a.csv, row 2: 3 fields instead of 2: is a quote or a line break missing, or too many?",
        ),
        (
            b"n,t\n1,a\n2,\xFF\n",
            Some(2),
            Some("t"),
            "a.csv, row 2, column \"t\": the text is not UTF-8",
        ),
        (
            b"n,t\n1,a\n2,\"b\n3,c\n",
            Some(2),
            None,
            "a.csv, row 2: the file ends inside the quotes of a field that begins in this row",
        ),
        (
            b"n,u\n1,a\n",
            None,
            Some("u"),
            "a.csv, bytes 4..8, column \"u\": column 2 is \"u\" in this file and \"t\" in the table; by_name() reads files whose columns differ",
        ),
        (
            b"n\n1\n",
            None,
            None,
            "a.csv, bytes 2..4: this file has 1 columns and the table 2; by_name() reads files whose columns differ",
        ),
    ];
    for (csv, row, column, expected) in cases {
        let data = Data::of([("a.csv", csv)]);
        for size in [1, 3, 7, 1 << 20] {
            let reader = engine
                .csv(data.path())
                .schema(number.clone().into())
                .part_bytes(size);
            let error = reader.read().unwrap_err();
            assert_eq!((error.row(), error.column()), (row, column), "{error}");
            if row.is_some() || size == 1 << 20 {
                assert_eq!(text(&error, &data), expected);
            }
        }
    }
}

#[test]
fn a_row_is_counted_behind_parts_that_failed() {
    let engine = Engine::inline();
    let data = Data::of([("a.csv", b"n\n1\nx\n3\n\ny\n5\n")]);
    let report = engine.csv(data.path()).part_bytes(2).report().unwrap();
    assert_eq!(
        types(report.values()),
        [DataType::Utf8],
        "the sample has all rows"
    );
    assert!(report.failures().is_empty());
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
    let report = engine
        .csv(data.path())
        .schema(schema.into())
        .part_bytes(2)
        .report()
        .unwrap();
    let found: Vec<_> = report.failures().iter().map(|error| error.row()).collect();
    assert_eq!(found, [Some(2), Some(4)]);
    // The first part ends with the first record that ends after its two bytes, so it has the rows `1` and `x`.
    assert_eq!(rows(report.values()), [["3"], ["5"]]);
}

#[test]
fn types_that_do_not_fit_are_widened_where_asked() {
    let engine = Engine::inline();
    let data = Data::of([
        ("a.csv", b"n,m,t\n1,007,\n2,008,\n"),
        ("b.csv", b"n,m,t\n1.5,x,7\n"),
    ]);
    let error = engine.read_csv(data.path()).unwrap_err();
    assert_eq!(
        text(&error, &data),
        r#"b.csv, row 1, column "n": "1.5" is not Int64; pass a schema, or let widen() choose a type that fits all rows"#
    );
    let table = engine.csv(data.path()).widen().read().unwrap();
    assert_eq!(
        types(&table),
        [DataType::Float64, DataType::Utf8, DataType::Utf8]
    );
    // Cells that were numbers at first become the text that is in the file.
    let expected = [["1.0", "007", "-"], ["2.0", "008", "-"], ["1.5", "x", "7"]];
    assert_eq!(rows(&table), expected);
    assert!(engine.csv(data.path()).widen().scan().is_err());
}

/// What pyarrow and polars give for these files.
#[test]
fn types_are_those_of_the_files_that_have_values() {
    let engine = Engine::inline();
    let read = |files: [(&str, &[u8]); 3], by_name: bool| {
        let data = Data::of(files);
        let reader = engine.csv(data.path()).widen();
        let table = if by_name { reader.by_name() } else { reader }
            .read()
            .unwrap();
        (types(&table), rows(&table))
    };
    let (int, float) = (DataType::Int64, DataType::Float64);
    // The first file has no rows, and a column of the second no values.
    let files: [(&str, &[u8]); 3] = [
        ("a.csv", b"n,m\n"),
        ("b.csv", b"n,m\n1,2\n"),
        ("c.csv", b"n,m\n1.5,\n"),
    ];
    let expected = vec![vec!["1.0", "2"], vec!["1.5", "-"]];
    for by_name in [false, true] {
        let (types, rows) = read(files, by_name);
        assert_eq!(types, [float.clone(), int.clone()]);
        assert_eq!(rows, expected);
    }
    // Several parts need the same wider type, and the column has the name of another.
    let files: [(&str, &[u8]); 3] = [
        ("a.csv", b"x,x\n1,1\n"),
        ("b.csv", b"x,x\n1,1.5\n"),
        ("c.csv", b"x,x\n1,2.5\n"),
    ];
    assert_eq!(read(files, false).0, [int, float]);
}

#[test]
fn no_time_date_or_decimal_is_cut() {
    let engine = Engine::inline();
    let first = "t,d\n2024-01-01T00:00:00,2024-01-01\n";
    for (row, column, is_wider) in [
        ("2024-01-01T00:00:00.5,2024-01-01", "t", true),
        ("2024-01-01T00:00:00,2024-01-02T13:45:00", "d", true),
        ("2024-01-01T00:00:00,2024-01-02 13:45:00", "d", true),
    ] {
        let data = Data::of([
            ("a.csv", first.as_bytes()),
            ("b.csv", format!("t,d\n{row}\n").as_bytes()),
        ]);
        let error = engine.read_csv(data.path()).unwrap_err();
        assert_eq!(
            (error.row(), error.column()),
            (Some(1), Some(column)),
            "{error}"
        );
        let table = engine.csv(data.path()).widen().read();
        assert_eq!(table.is_ok(), is_wider, "{table:?}");
    }
    let whole = Data::of([("a.csv", b"t,d\n2024-01-01T00:00:00.000,2024-01-01\n")]);
    let schema = Schema::new(vec![
        Field::new("t", DataType::Timestamp(TimeUnit::Second, None), true),
        Field::new("d", DataType::Date32, true),
    ]);
    assert_eq!(
        engine
            .csv(whole.path())
            .schema(schema.into())
            .read()
            .unwrap()
            .rows(),
        1
    );

    let of = DataType::Decimal128(10, 2);
    let schema = Schema::new(vec![Field::new("n", of, true)]);
    for (number, is_exact) in [
        ("1.00", true),
        ("1.005", false),
        ("-1.500", true),
        ("12e-1", true),
        ("12e-3", false),
        ("0e-9", true),
    ] {
        let data = Data::of([
            ("a.csv", format!("n\n{number}\n").as_bytes()),
            (
                "a.json",
                format!("{{\"n\": {number}}}\n{{\"n\": \"{number}\"}}\n").as_bytes(),
            ),
        ]);
        let csv = engine
            .csv(data.path().join("a.csv"))
            .schema(schema.clone().into())
            .read();
        assert_eq!(csv.is_ok(), is_exact, "{number}: {csv:?}");
        let json = engine
            .json(data.path().join("a.json"))
            .schema(schema.clone().into())
            .read();
        assert_eq!(json.is_ok(), is_exact, "{number}: {json:?}");
    }
}

/// The header ends where the parser ends it, so no row is lost.
#[test]
fn carriage_returns_end_records() {
    let engine = Engine::inline();
    for (content, expected) in [
        ("a,b\r1,2\r3,4\r", 2),
        ("a,b\r1,2\n3,4\n", 2),
        ("\r\ra,b\r1,2\r\n3,4", 2),
        ("\"a\r\",b\r\n1,2\n", 1),
        ("\"a\r\"\"\r\",b\r1,2\n", 1),
        ("a,b\r", 0),
    ] {
        let data = Data::of([("a.csv", content.as_bytes())]);
        let table = engine.read_csv(data.path()).unwrap();
        assert_eq!(table.rows(), expected, "{content:?}");
        let bare = engine.csv(data.path()).no_header().read().unwrap();
        assert_eq!(bare.rows(), expected + 1, "{content:?}");
    }
}

#[test]
fn columns_are_matched_by_name_where_asked() {
    let engine = Engine::inline();
    let data = Data::of([
        ("a.csv", b"x,y\n1,a\n"),
        ("b.csv", b"y,z\nb,2.5\n"),
        ("c.csv", b""),
    ]);
    let error = engine.read_csv(data.path()).unwrap_err();
    assert!(error.to_string().contains("by_name()"), "{error}");
    let table = engine
        .csv(data.path())
        .by_name()
        .file_column("file")
        .read()
        .unwrap();
    assert_eq!(names(&table), ["x", "y", "z", "file"]);
    let (a, b) = (data.pattern("a.csv"), data.pattern("b.csv"));
    assert_eq!(rows(&table), [["1", "a", "-", &*a], ["-", "b", "2.5", &*b]]);
    let twice = Data::of([("a.csv", b"x,x\n1,2\n")]);
    assert!(engine.csv(twice.path()).by_name().read().is_err());
    assert_eq!(engine.read_csv(twice.path()).unwrap().rows(), 1);
}

#[test]
fn parquet_is_what_was_written() {
    let engine = Engine::inline();
    let data = Data::of([
        ("in/a.csv", b"n,t\n1,a\n2,\n3,c\n"),
        ("in/b.csv", b"n,t\n4,d\n"),
    ]);
    let table = engine
        .csv(data.path().join("in"))
        .part_bytes(6)
        .file_column("f")
        .read()
        .unwrap();
    let out = data.path().join("out");
    let files = table.write_parquet(&engine, &out).unwrap();
    assert_eq!(files.len(), table.parts().len());
    assert!(fs::read_dir(&out).unwrap().all(|entry| {
        entry
            .unwrap()
            .path()
            .extension()
            .is_some_and(|known| known == "parquet")
    }));
    let again = engine.read_parquet(&out).unwrap();
    assert_eq!((rows(&again), names(&again)), (rows(&table), names(&table)));
    assert_eq!(again.origin(0).unwrap().row_group(), Some(0));
    // No file of another table is replaced, and none is added to it.
    assert!(
        table
            .write_parquet(&engine, &out)
            .unwrap_err()
            .to_string()
            .contains("another table")
    );

    let streams = table.write_ipc(data.path().join("ipc")).unwrap();
    let part = Part::from(engine.read_file(&streams[0]).unwrap());
    assert_eq!(part.batches().unwrap(), table.parts()[0].batches().unwrap());

    // Two columns of one name stay two.
    fs::write(data.path().join("twice.csv"), "x,x\n1,2\n").unwrap();
    let twice = engine.read_csv(data.path().join("twice.csv")).unwrap();
    let twice_out = data.path().join("twice");
    twice.write_parquet(&engine, &twice_out).unwrap();
    assert_eq!(
        rows(&engine.read_parquet(&twice_out).unwrap()),
        [["1", "2"]]
    );

    let whole = fs::read(&files[1]).unwrap();
    for len in [0, 3, 40, whole.len() - 1] {
        fs::write(&files[0], &whole[..len]).unwrap();
        let error = engine.read_parquet(&out).unwrap_err();
        assert!(
            text(&error, &data).starts_with("out/part-00000.parquet: no whole Parquet file"),
            "{error}"
        );
    }
}

#[test]
fn parquet_of_other_columns_is_an_error_or_a_union() {
    let engine = Engine::inline();
    let data = Data::of([("a.csv", b"x,y\n1,a\n"), ("b.csv", b"x,z\n2.5,b\n")]);
    for name in ["a", "b"] {
        let table = engine
            .read_csv(data.path().join(format!("{name}.csv")))
            .unwrap();
        let files = table
            .write_parquet(&engine, data.path().join(name))
            .unwrap();
        fs::create_dir_all(data.path().join("all")).unwrap();
        fs::rename(&files[0], data.path().join(format!("all/{name}.parquet"))).unwrap();
    }
    let all = data.path().join("all");
    let error = engine.read_parquet(&all).unwrap_err();
    assert!(error.to_string().contains("by_name()"), "{error}");
    let error = engine.parquet(&all).by_name().read().unwrap_err();
    assert_eq!(error.column(), Some("x"), "{error}");
    let table = engine.parquet(&all).by_name().widen().read().unwrap();
    assert_eq!(rows(&table), [["1.0", "a", "-"], ["2.5", "-", "b"]]);
    // A schema decides the types, also of files that differ, and names columns that exist.
    let of = |name| Schema::new(vec![Field::new(name, DataType::Float64, true)]);
    let table = engine.parquet(&all).schema(of("x").into()).read().unwrap();
    assert_eq!(rows(&table), [["1.0"], ["2.5"]]);
    let error = engine
        .parquet(&all)
        .schema(of("typo").into())
        .read()
        .unwrap_err();
    assert!(error.to_string().contains("\"typo\""), "{error}");
}

#[test]
fn files_of_parts_have_the_order_of_the_parts() {
    let data = Data::of([]);
    let folder = crate::write::Folder::open(data.path(), "parquet").unwrap();
    let numbers = [0, 1, 9, 99_999, 100_000, 100_001, 999_999, 1_000_000];
    let files: Vec<_> = numbers
        .map(|number| folder.write(number, b"").unwrap())
        .to_vec();
    assert!(files.is_sorted(), "{files:?}");
}

#[test]
fn progress_ends_with_all_bytes_of_all_files() {
    let engine = Engine::inline();
    let csv: String = (0..3000).map(|n| format!("{n}\n")).collect();
    let data = Data::of([
        ("csv/a.csv", format!("n\n{csv}").as_bytes()),
        ("csv/b.csv", b""),
        ("csv/c.csv", b"n\n1.5\n"),
        ("csv/d.csv", b"n\n2\n"),
        ("csv/e.csv", b""),
    ]);
    let gzipped = fs::File::create(data.path().join("csv/a.csv.gz")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(gzipped, flate2::Compression::fast());
    gzip.write_all(format!("n\n{csv}").as_bytes()).unwrap();
    gzip.finish().unwrap();
    let files = fs::read_dir(data.path().join("csv")).unwrap();
    let total = files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    let csv = || engine.csv(data.path().join("csv")).part_bytes(1000);
    let table = csv().widen().read().unwrap();
    let bytes = |part: &Part| part.as_array().len() as u64;
    let of_parts = table.parts().iter().map(bytes).sum::<u64>();
    table
        .write_parquet(&engine, data.path().join("parquet"))
        .unwrap();

    let shown = Mutex::new(Vec::new());
    let show = |read, total| shown.lock().unwrap().push((read, total));
    // `again` is the number of times that the count starts again.
    let check = |what: &str, total: u64, again: usize, is_whole: bool| {
        let shown = std::mem::take(&mut *shown.lock().unwrap());
        let is_of_total = |(read, of): &(u64, u64)| read <= of && *of == total;
        assert!(
            shown.len() > 20 && shown.iter().all(is_of_total),
            "{what}: {shown:?}"
        );
        let back = shown.windows(2).filter(|pair| pair[1].0 < pair[0].0);
        assert_eq!(back.count(), again, "{what}: {shown:?}");
        assert_eq!(
            shown.last() == Some(&(total, total)),
            is_whole,
            "{what}: {shown:?}"
        );
    };
    let report = csv().on_progress(show).report().unwrap();
    assert_eq!(report.failures().len(), 1);
    check("report", total, 0, true);
    let widened = csv().widen().on_progress(show).read().unwrap();
    assert_eq!(widened.rows(), 6002);
    check("widen", total, 1, true);
    assert!(csv().on_progress(show).scan().unwrap().parts().count() > 20);
    check("scan", total, 0, true);
    let batches = |part: &Part| part.batches().map(|batches| batches.len() as u64);
    let map = engine.map_partitions(&table, batches, ());
    assert_eq!(map.on_progress(show).count(), table.parts().len());
    check("map", of_parts, 0, true);
    // A failure ends the reading.
    assert!(csv().on_progress(show).read().is_err());
    check("read", total, 0, false);

    let parquet = engine.parquet(data.path().join("parquet"));
    parquet.on_progress(show).read().unwrap();
    let shown = shown.into_inner().unwrap();
    assert_eq!(shown.len(), table.parts().len());
    assert!(
        shown.is_sorted() && shown.last().unwrap().0 == shown[0].1,
        "{shown:?}"
    );
}

#[test]
fn empty_files_are_no_rows() {
    let engine = Engine::inline();
    let data = Data::of([
        ("a.csv", b""),
        ("b.csv", b"n\n1\n"),
        ("c.csv", b""),
        ("d.csv", b"n\n"),
    ]);
    assert_eq!(rows(&engine.read_csv(data.path()).unwrap()), [["1"]]);
    let table = engine.read_csv(data.path().join("d.csv")).unwrap();
    assert_eq!((table.rows(), names(&table)), (0, vec!["n".to_owned()]));
    let error = engine.read_csv(data.path().join("a.csv")).unwrap_err();
    assert!(
        error.to_string().contains("no row to infer a schema from"),
        "{error}"
    );
    let error = engine.read_csv(data.pattern("*.tsv")).unwrap_err();
    assert!(
        error.to_string().contains("there is no such file"),
        "{error}"
    );
    assert!(engine.read_csv(data.path().join("none.csv")).is_err());
    assert!(engine.read_csv(Vec::<&str>::new()).is_err());
}

#[test]
fn lists_keep_their_order_and_folders_leave_out_hidden_files() {
    let engine = Engine::inline();
    let data = Data::of([
        ("b/1.csv", b"n\n1\n"),
        ("a/2.csv", b"n\n2\n"),
        ("a/.hidden.csv", b"x\n"),
        ("a/_SUCCESS", b""),
    ]);
    assert_eq!(rows(&engine.read_csv(data.path()).unwrap()), [["2"], ["1"]]);
    let list = [data.path().join("b"), data.path().join("a/2.csv")];
    assert_eq!(rows(&engine.read_csv(list).unwrap()), [["1"], ["2"]]);
    assert_eq!(
        rows(&engine.read_csv(data.pattern("*/[12].csv")).unwrap()),
        [["2"], ["1"]]
    );
}

#[test]
fn a_cut_gzip_file_gives_its_rows_and_an_error() {
    let engine = Engine::inline();
    let data = Data::of([]);
    let path = data.path().join("a.csv.gz");
    let file = fs::File::create(&path).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::none());
    let csv: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    gzip.write_all(format!("n\n{csv}").as_bytes()).unwrap();
    gzip.finish().unwrap();
    assert_eq!(
        engine.csv(&path).part_bytes(999).read().unwrap().rows(),
        20_000
    );
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let report = engine.csv(&path).part_bytes(999).report().unwrap();
    let [error] = report.failures() else {
        panic!("{report:?}")
    };
    assert!(
        text(error, &data).starts_with("a.csv.gz: reading ended behind byte "),
        "{error}"
    );
    let numbers = rows(report.values());
    assert!(
        numbers.len() > 5000
            && numbers
                .iter()
                .enumerate()
                .all(|(n, row)| row[0] == n.to_string())
    );
}

#[test]
fn no_text_of_a_table_acts_on_a_terminal() {
    let engine = Engine::inline();
    let bad = "\u{1b}[2J\u{9b}\u{202e}";
    let acts = |text: String| text.contains(|each| each != '\n' && arenite::needs_escape(each));
    // Control characters in the names of a file and of a column.
    let data = Data::of([(&format!("{bad}.csv")[..], b"n\n1\n2\n")]);
    let number = Schema::new(vec![Field::new(bad, DataType::Int64, true)]);
    let wrong = engine.csv(data.path()).schema(number.into()).read();
    let wrong = wrong.unwrap_err().to_string();
    assert!(wrong.contains("\\u{9b}"), "{wrong}");
    assert!(!acts(wrong));
    // A worker under the control of an attacker may send this.
    let sent = Fault {
        row: 1,
        column: Some(bad.to_owned()),
        ..Fault::new(bad)
    };
    let read = Fault::from_bytes(&sent.to_bytes()).unwrap();
    assert!(!acts(read.to_string()));
    let file = std::sync::Arc::from(Path::new(bad));
    let origin = super::error::Origin::file_only(&file);
    assert!(!acts(origin.to_string()));
    assert!(!acts(
        TableError::of_fault(origin, read, Some(7)).to_string()
    ));
}

#[test]
fn a_row_that_a_worker_makes_up_is_no_overflow() {
    let file = std::sync::Arc::from(Path::new("a"));
    let fault = Fault {
        row: u64::MAX,
        ..Fault::new("wrong")
    };
    for known in [None, Some(7)] {
        let origin = super::error::Origin::file_only(&file);
        let error = TableError::of_fault(origin, fault.clone(), known);
        assert_eq!(error.with_rows_before(Some(9)).row(), Some(u64::MAX));
    }
}

#[test]
fn a_part_is_checked_before_its_rows_are_used() {
    let engine = Engine::inline();
    let data = Data::of([("a.csv", b"t\nabc\n")]);
    let table = engine.read_csv(data.path()).unwrap();
    let bytes = table.parts()[0].as_array();
    for at in 0..bytes.len() {
        for with in [0, 0x7F, 0xFF] {
            let mut wrong = bytes.copy();
            wrong[at] = with;
            // Success and failure are both right, but there must be no undefined behaviour and no panic.
            let part = Part::from(wrong.seal());
            let _ = (part.header(), part.batches());
        }
    }
    for len in 0..bytes.len() {
        let part = Part::from(bytes.rows(..len));
        assert!(part.header().is_err());
    }
}

/// If each column was checked, the time would grow with the square of the length of the message.
#[test]
fn columns_that_share_bytes_are_refused() {
    let columns = [&"x".repeat(1000)[..], "a", "b"];
    let columns = columns.map(|text| {
        let array: arrow_array::ArrayRef =
            std::sync::Arc::new(arrow_array::StringArray::from(vec![text]));
        (text[..1].to_owned(), array)
    });
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let part = Part::new(&batch.schema(), &[batch]).unwrap();
    assert_eq!(part.batches().unwrap()[0].num_columns(), 3);
    // A column has the positions of three buffers, of 16 bytes each: validity, offsets and text. The text of the first
    // column is the longest; the texts of all other columns get its position.
    let mut bytes = part.as_array().copy();
    let find = |bytes: &[u8], len: u64| {
        let places = bytes.windows(8).step_by(8);
        places
            .enumerate()
            .find(|(_, place)| **place == len.to_le_bytes())
            .unwrap()
            .0
            * 8
    };
    let first = find(&bytes, 1000) - 8;
    let place = bytes[first..first + 16].to_vec();
    for column in 1..3 {
        bytes[first + 48 * column..][..16].copy_from_slice(&place);
    }
    let shared = Part::from(bytes.seal());
    let error = shared.batches().unwrap_err().to_string();
    assert!(error.contains("share bytes"), "{error}");
}
