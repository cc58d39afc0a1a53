//! Tables: CSV files, lines of JSON and Parquet files, read by all workers into Arrow's format in shared memory.
//!
//! This crate is for functions of your own on rows: a [`Part`] is an array of the engine, so a kernel gets it without a
//! copy, with broadcast arrays beside it, and a crash costs one part. For queries, joins and groups, for compressed
//! files and pipes, and for files whose columns differ, use DataFusion or polars, in the program or in a kernel.
//!
//! Files are cut into parts at the ends of records, even if fields contain line breaks, and each part is parsed by one
//! job, with the crates of Arrow. So the rows and their order depend neither on the number of workers nor on the size
//! of parts. If the parser or a kernel ends its process, only one part fails; the error names it by file and bytes.
//!
//! | to | call |
//! |---|---|
//! | read files | [`Engine::read_csv`], [`Engine::read_json`], [`Engine::read_parquet`] |
//! | read them with options | [`Engine::csv`], [`Engine::json`], [`Engine::parquet`], which return a [`Reader`] |
//! | run a kernel on each part, with broadcast arrays | [`Engine::map_partitions`] |
//! | do both, for more than fits into memory | [`Reader::scan`] |
//! | know what failed, and keep the rest | [`Reader::report`], [`PartMap::report`] |
//! | use the rows | [`Table::batches`], [`Part::batches`] |
//! | write Parquet files | [`Table::write_parquet`], [`Scan::write_parquet`], [`PartMap::write_parquet`] |
//!
//! Workers open the files. To sandboxed workers, which cannot, this process passes the bytes as arrays.
//!
//! [`Engine::read_csv`]: Tables::read_csv
//! [`Engine::read_json`]: Tables::read_json
//! [`Engine::read_parquet`]: Tables::read_parquet
//! [`Engine::csv`]: Tables::csv
//! [`Engine::json`]: Tables::json
//! [`Engine::parquet`]: Tables::parquet
//! [`Engine::map_partitions`]: Tables::map_partitions

#![forbid(unsafe_code)]

mod cut;
mod error;
mod kernels;
mod parquet;
mod parse;
mod part;
mod plan;
mod reader;
mod run;
mod sources;
mod table;
mod tasks;
#[cfg(test)]
mod tests;
mod write;

pub use error::{Origin, TableError, TableErrorKind};
pub use part::Part;
pub use reader::{Reader, Scan, Tables};
pub use run::PartMap;
pub use sources::Sources;
pub use table::{PartReport, Table};

/// The crates of Arrow whose types are in this interface, in the versions that it uses.
pub mod arrow {
    pub use arrow_array as array;
    pub use arrow_schema as schema;
}

// The programs in README.md and docs/tables.md are doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
#[cfg(doctest)]
#[doc = include_str!("../../docs/tables.md")]
struct Guide;
