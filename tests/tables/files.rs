//! The same rows for any number of workers, files that are hard to read, and where the columns lie.

use std::fs;
use std::sync::Arc;

use arenite::{Array, Engine};
use arenite_tables::arrow::array::cast::AsArray;
use arenite_tables::arrow::array::types::Int64Type;
use arenite_tables::arrow::array::{Array as _, Int64Array, RecordBatch};
use arenite_tables::arrow::schema::ArrowError;
use arenite_tables::{Part, Tables};

use crate::{csv, engine, numbers, sum};

#[test]
fn any_number_of_workers_reads_the_same_rows() {
    let data = tempfile::tempdir().unwrap();
    for file in 0..3 {
        fs::write(
            data.path().join(format!("{file}.csv")),
            csv(file * 1000..(file + 1) * 1000),
        )
        .unwrap();
    }
    for workers in [1, 2, 4] {
        let engine = engine(workers);
        for size in [100, 1000, 1 << 20] {
            let table = engine.csv(data.path()).part_bytes(size).read().unwrap();
            assert_eq!(
                numbers(&table),
                (0..3000).collect::<Vec<_>>(),
                "{workers} workers, {size} bytes"
            );
        }
    }
}

#[test]
fn a_kernel_gets_parts_and_broadcast_arrays_and_returns_parts() {
    fn add(part: &Part, more: &Array<i64>, factor: i64) -> Result<Part, ArrowError> {
        let change = |batch: RecordBatch| {
            let numbers = batch.column(0).as_primitive::<Int64Type>();
            let changed: Int64Array = numbers
                .values()
                .iter()
                .map(|n| n * factor + more[0])
                .collect();
            let mut columns = batch.columns().to_vec();
            columns[0] = Arc::new(changed);
            RecordBatch::try_new(batch.schema(), columns)
        };
        let batches: Vec<_> = part
            .batches()?
            .into_iter()
            .map(change)
            .collect::<Result<_, _>>()?;
        Part::new(&batches[0].schema(), &batches)
    }
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("a.csv"), csv(0..500)).unwrap();
    let engine = engine(2);
    let more = engine.from_slice(&[7_i64]).unwrap();
    let expected: Vec<i64> = (0..500).map(|n| n * 3 + 7).collect();
    let table = engine.csv(data.path()).part_bytes(1000).read().unwrap();
    let changed = engine
        .map_partitions(&table, add, (&more, 3))
        .table()
        .unwrap();
    assert_eq!(numbers(&changed), expected);
    assert_eq!(changed.origin(1), table.origin(1));
    let scan = engine.csv(data.path()).part_bytes(1000).scan().unwrap();
    assert_eq!(
        numbers(&scan.map_partitions(add, (&more, 3)).table().unwrap()),
        expected
    );
}

#[test]
fn a_scan_of_more_than_the_capacity_needs_room_for_a_few_parts() {
    let data = tempfile::tempdir().unwrap();
    let content = csv(0..20_000);
    for file in 0..100 {
        fs::write(data.path().join(format!("{file}.csv")), &content).unwrap();
    }
    let engine = Engine::builder()
        .workers(2)
        .capacity(16 << 20)
        .build()
        .unwrap();
    let total: i64 = (0..20_000_i64).sum::<i64>() * 100;
    let mut highest = Vec::new();
    for files in ["?.csv", "*.csv"] {
        let pattern = data.path().join(files);
        let scan = engine.csv(pattern).part_bytes(1 << 17).scan().unwrap();
        let mut found = 0;
        let mut most = 0;
        for part in scan.map_partitions(sum, ()) {
            found += part.unwrap();
            most = most.max(engine.stats().arena.in_use);
        }
        assert_eq!(found, if files == "?.csv" { total / 10 } else { total });
        highest.push(most);
    }
    // Ten times the data, and no more memory than for a few more parts.
    assert!(highest[1] < highest[0] + (4 << 20), "{highest:?}");
    // Nor to change and write all of it.
    let scan = engine.csv(data.path()).part_bytes(1 << 17).scan().unwrap();
    let changed = scan.map_partitions(|part: &Part| part.clone(), ());
    let out = data.path().join("out");
    assert!(changed.write_parquet(&out).unwrap().len() > 100);
    let written = engine.parquet(&out).scan().unwrap();
    let sums = written.map_partitions(sum, ());
    assert_eq!(sums.sum::<Result<i64, _>>().unwrap(), total);
    fs::remove_dir_all(out).unwrap();
    // Read as a whole, it does not fit, and the error says so.
    let error = engine.read_csv(data.path()).unwrap_err();
    assert!(error.to_string().contains("csv, bytes"), "{error}");
}

#[test]
fn ten_thousand_tiny_files_are_one_table() {
    let data = tempfile::tempdir().unwrap();
    for file in 0..10_000 {
        fs::write(
            data.path().join(format!("{file:05}.csv")),
            format!("number\n{file}\n"),
        )
        .unwrap();
    }
    let engine = engine(2);
    let table = engine.read_csv(data.path()).unwrap();
    assert_eq!(numbers(&table), (0..10_000).collect::<Vec<_>>());
    assert_eq!(
        table.origin(77).unwrap().file(),
        data.path().join("00077.csv")
    );
}

#[test]
fn sandboxed_workers_get_the_bytes() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("a.csv");
    fs::write(&path, csv(0..3000)).unwrap();
    let builder = Engine::builder().workers(2).capacity(256 << 20);
    let engine = builder
        .sandbox(arenite::Sandbox::default())
        .build()
        .unwrap();
    let table = engine.csv(&path).part_bytes(1000).read().unwrap();
    assert_eq!(numbers(&table), (0..3000).collect::<Vec<_>>());
    let out = data.path().join("out");
    table.write_parquet(&engine, &out).unwrap();
    assert_eq!(
        numbers(&engine.read_parquet(&out).unwrap()),
        (0..3000).collect::<Vec<_>>()
    );
    let json = data.path().join("a.json");
    fs::write(&json, "{\"n\": 1}\n{\"n\": 2}\n").unwrap();
    assert_eq!(numbers(&engine.read_json(json).unwrap()), [1, 2]);
}

#[test]
fn the_columns_of_a_part_lie_in_the_arena() {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("a.csv"), csv(0..3000)).unwrap();
    let engine = engine(1);
    let table = engine.read_csv(data.path()).unwrap();
    let part = &table.parts()[0];
    let begin = part.as_array().as_ptr().addr();
    let inside = begin..begin + part.as_array().len();
    for batch in part.batches().unwrap() {
        for column in batch.columns() {
            for buffer in column.to_data().buffers() {
                assert!(
                    inside.contains(&buffer.as_ptr().addr()),
                    "a buffer was copied"
                );
            }
        }
    }
}
