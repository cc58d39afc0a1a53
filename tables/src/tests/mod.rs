#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_cast::display::array_value_to_string;
use arrow_csv::reader::Format;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use proptest::prelude::*;

use super::cut::{Records, State, scan};
use super::*;
use arenite::Engine;

/// The rows as text; null is `-`.
fn rows(table: &Table) -> Vec<Vec<String>> {
    let batches: Vec<_> = table.batches().collect::<Result<_, _>>().unwrap();
    rows_of(&batches)
}

fn rows_of(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let row = |batch: &RecordBatch, row| {
        let columns = batch.columns().iter();
        let text = columns.map(|column| match column.is_null(row) {
            true => "-".to_owned(),
            false => array_value_to_string(column, row).unwrap(),
        });
        text.collect()
    };
    batches
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(|at| row(batch, at)))
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

/// What the reader of Arrow makes of a whole file of CSV, whose header it skips.
fn whole_csv(content: &[u8], schema: &SchemaRef) -> Result<Vec<RecordBatch>, ArrowError> {
    let reader = arrow_csv::ReaderBuilder::new(schema.clone()).with_header(true);
    reader.build(content)?.collect()
}

/// What the reader of Arrow makes of a whole file of JSON.
fn whole_json(content: &[u8], schema: &SchemaRef) -> Result<Vec<RecordBatch>, ArrowError> {
    let reader = arrow_json::ReaderBuilder::new(schema.clone()).with_strict_mode(true);
    reader.build(content)?.collect()
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

}

proptest! {
    // Each case reads many files, part by part.
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Parts of any size have the rows that the reader of Arrow finds in the whole file.
    #[test]
    fn rows_do_not_depend_on_the_size_of_parts(
        cells in proptest::collection::vec((any::<i32>(), "[a,\"\n\r ]{0,8}", proptest::option::of(sixteenths())), 0..20),
        has_mark in any::<bool>(),
        blank in "\n{0,3}",
        line in proptest::sample::select(&["\n", "\r\n"][..]),
        ends in any::<bool>(),
    ) {
        let mut csv = String::from(if has_mark { "\u{feff}" } else { "" });
        csv.push_str(&blank);
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
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("number", DataType::Int32, true),
            Field::new("the\n\"text\"", DataType::Utf8, true),
            Field::new("float", DataType::Float64, true),
        ]));
        let expected = rows_of(&whole_csv(csv.as_bytes(), &schema).unwrap());
        prop_assert_eq!(expected.len(), cells.len());
        for size in (1..=csv.len()).step_by(1 + csv.len() / 8) {
            let table = engine.csv(data.path()).schema(schema.clone()).part_bytes(size).read().unwrap();
            prop_assert_eq!(rows(&table), expected.clone());
            // Each byte belongs to one part, in order.
            let mut at = 0;
            for number in 0..table.parts().len() {
                let bytes = table.origin(number).unwrap().bytes().unwrap();
                prop_assert_eq!(at, bytes.start);
                at = bytes.end;
            }
            prop_assert_eq!(at, csv.len() as u64);
        }
    }

    #[test]
    fn lines_of_json_do_not_depend_on_the_size_of_parts(
        cells in proptest::collection::vec((any::<i32>(), "[a\"\n{}]{0,8}"), 1..20),
    ) {
        let line = |(number, text): &(i32, String)| {
            let text = serde_json::to_string(text).unwrap();
            format!("{{\"n\": {number}, \"t\": {{\"x\": {text}}}}}\n\n")
        };
        let json: String = cells.iter().map(line).collect();
        let data = Data::of([("a.json", json.as_bytes())]);
        let engine = Engine::inline();
        let table = engine.read_json(data.path()).unwrap();
        let expected = rows_of(&whole_json(json.as_bytes(), &table.schema()).unwrap());
        prop_assert_eq!(rows(&table), expected.clone());
        prop_assert_eq!(table.rows(), cells.len() as u64);
        for size in (1..=json.len()).step_by(1 + json.len() / 8) {
            let table = engine.json(data.path()).part_bytes(size).read().unwrap();
            prop_assert_eq!(rows(&table), expected.clone());
        }
    }
}

/// Types and values are those of Arrow, and what it refuses is an error in parts of any size.
#[test]
fn csv_means_what_it_means_to_arrow() {
    let engine = Engine::inline();
    for content in [
        "n,t\n1,a\n2,b\nthree,c\n4,d\n",
        "n,t\n1,a\n2,b,c\n",
        "n,t\n1,a\n2\n3,c\n",
        "n,t\n1,\n,b\n\"\",\"\"\n",
        "n,t\n007,2024-01-01\n8,2024-01-02\n",
        "n,t\n1.5,2024-01-01T00:00:00\n2,2024-01-01T00:00:00.5\n",
        "n,t\n99999999999999999999,true\n1,false\n",
        "n,t\n,\n,\n",
        "x,x\n1,2\n",
        "n,t\n1,\u{e9}\n",
    ] {
        let data = Data::of([("a.csv", content.as_bytes())]);
        let inferred = Format::default().with_header(true);
        let inferred = inferred.infer_schema(content.as_bytes(), Some(1000));
        for size in 1..content.len() {
            let table = engine.csv(data.path()).part_bytes(size).read();
            let Ok((inferred, _)) = &inferred else {
                assert!(table.is_err(), "{content:?}");
                continue;
            };
            let types = inferred
                .fields()
                .iter()
                .map(|field| match field.data_type() {
                    DataType::Null => DataType::Utf8,
                    other => other.clone(),
                });
            let fields = inferred.fields().iter().zip(types);
            let fields = fields.map(|(field, of)| Field::new(field.name(), of, true));
            let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            match whole_csv(content.as_bytes(), &schema) {
                Ok(expected) => {
                    let table = table.unwrap();
                    assert_eq!(table.schema(), schema);
                    assert_eq!(rows(&table), rows_of(&expected), "{content:?}");
                }
                Err(_) => assert!(table.is_err(), "{content:?}"),
            }
        }
    }
}

#[test]
fn errors_name_the_part() {
    let engine = Engine::inline();
    let number: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("t", DataType::Utf8, true),
    ]));
    let cases: [(&str, &str); 5] = [
        ("n,t\n1,a\n2,b\nthree,c\n", "three"),
        ("n,t\n1,a\n2,b,c\n", "fields"),
        ("n,t\n1,a\n2,\"b\n3,c\n", "the file ends inside the quotes"),
        ("n,\"t\n1,a\n2,b\n3,c\n", "the file ends inside the quotes"),
        (
            "n,u\n1,a\n",
            "the columns of this file are [\"n\", \"u\"], and those of the table",
        ),
    ];
    for (content, expected) in cases {
        let data = Data::of([("a.csv", content.as_bytes())]);
        for size in [1, 3, 1 << 20] {
            let reader = engine.csv(data.path()).schema(number.clone());
            let error = reader.part_bytes(size).read().unwrap_err();
            let shown = text(&error, &data);
            assert!(
                shown.starts_with("a.csv, bytes ") && shown.contains(expected),
                "{error}"
            );
        }
    }
    for content in [
        "{\"n\": 1}\n{\"m\": 1}\n",
        "{\"n\": 1}\n{\"n\":\n2}\n",
        "{\"n\": 1}\n{\"n\": \"x\"}\n",
    ] {
        let data = Data::of([("a.json", content.as_bytes())]);
        let one: SchemaRef = Arc::new(Schema::new(vec![number.field(0).clone()]));
        let reader = engine.json(data.path()).schema(one).part_bytes(2);
        let error = text(&reader.read().unwrap_err(), &data);
        assert!(error.starts_with("a.json, bytes "), "{error}");
    }
}

/// Neither can be cut.
#[test]
fn compressed_files_and_pipes_are_refused() {
    let engine = Engine::inline();
    let data = Data::of([("a.csv.gz", b"\x1f\x8b\x08 and so on")]);
    let error = engine.read_csv(data.path()).unwrap_err();
    assert!(error.to_string().contains("it is compressed"), "{error}");
    let error = engine.read_json("/dev/null").unwrap_err();
    assert!(error.to_string().contains("no plain file"), "{error}");
}

/// What a scan writes is what the table has, however small the parts are.
#[test]
fn scans_are_written_part_by_part() {
    fn unchanged(part: &Part) -> Part {
        part.clone()
    }
    let engine = Engine::inline();
    let content: String = (0..200).map(|n| format!("{n},\"a\n{n}\"\n")).collect();
    let data = Data::of([("in/a.csv", format!("n,t\n{content}").as_bytes())]);
    let reader = || engine.csv(data.path().join("in")).part_bytes(100);
    let table = reader().read().unwrap();
    let scan = || reader().scan().unwrap();
    let out = |name: &str| data.path().join(name);
    let files = scan().write_parquet(out("direct")).unwrap();
    let again = scan()
        .map_partitions(unchanged, ())
        .write_parquet(out("mapped"))
        .unwrap();
    assert_eq!(
        (files.len(), again.len()),
        (table.parts().len(), table.parts().len())
    );
    for folder in ["direct", "mapped"] {
        assert_eq!(
            rows(&engine.read_parquet(out(folder)).unwrap()),
            rows(&table)
        );
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
fn parquet_is_what_was_written() {
    let engine = Engine::inline();
    let data = Data::of([
        ("in/a.csv", b"n,t\n1,a\n2,\n3,c\n"),
        ("in/b.csv", b"n,t\n4,d\n"),
    ]);
    let table = engine
        .csv(data.path().join("in"))
        .part_bytes(6)
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
            text(&error, &data).starts_with("out/part-00000.parquet: ")
                && error.to_string().contains("no whole Parquet file"),
            "{error}"
        );
    }
}

#[test]
fn parquet_of_other_columns_is_an_error_or_follows_a_schema() {
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
    assert!(error.to_string().contains("its columns are"), "{error}");
    let of = |name, of| Schema::new(vec![Field::new(name, of, true)]);
    let read = |schema: Schema| engine.parquet(&all).schema(schema.into()).read();
    let table = read(of("x", DataType::Float64)).unwrap();
    assert_eq!(rows(&table), [["1.0"], ["2.5"]]);
    let error = read(of("typo", DataType::Float64)).unwrap_err();
    assert!(error.to_string().contains("\"typo\""), "{error}");
    // A value that does not fit is an error, not null.
    assert!(read(of("y", DataType::Int64)).is_err());
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
fn no_text_of_a_table_acts_on_a_terminal() {
    let engine = Engine::inline();
    let bad = "\u{1b}[2J\u{9b}\u{202e}";
    let acts = |text: String| text.contains(|each| each != '\n' && arenite::needs_escape(each));
    // Control characters in the names of a file and of a column, and in a cell.
    let data = Data::of([(
        &format!("{bad}.csv")[..],
        format!("{bad}\n{bad}\n").as_bytes(),
    )]);
    for name in [bad, "n"] {
        let number = Schema::new(vec![Field::new(name, DataType::Int64, true)]);
        let wrong = engine.csv(data.path()).schema(number.into()).read();
        let wrong = wrong.unwrap_err().to_string();
        assert!(wrong.contains("\\u{9b}"), "{wrong}");
        assert!(!acts(wrong));
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
