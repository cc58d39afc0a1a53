//! Tables: CSV files, lines of JSON and Parquet files, read by all workers into Arrow's format in shared memory.
//!
//! A [`Table`] is a list of parts, and a [`Part`] is one array of bytes with an Arrow IPC stream in it. Files are cut
//! into parts at the ends of records, even if fields contain line breaks, and each part is parsed by one job. So the
//! rows and their order depend neither on the number of workers nor on the size of parts. If the parser or a kernel
//! ends its process, only one part fails; the error names it by file and bytes.
//!
//! | to | call |
//! |---|---|
//! | read files | [`Engine::read_csv`], [`Engine::read_json`], [`Engine::read_parquet`] |
//! | read them with options | [`Engine::csv`], [`Engine::json`], [`Engine::parquet`], which return a [`Reader`] |
//! | run a kernel on each part, with broadcast arrays | [`Engine::map_partitions`] |
//! | do both, for more than fits into memory | [`Reader::scan`] |
//! | know what failed, and keep the rest | [`Reader::report`], [`PartMap::report`] |
//! | use the rows | [`Table::batches`], [`Part::batches`] |
//! | write files | [`Table::write_ipc`], [`Table::write_parquet`] |
//!
//! There are no joins, groups or queries: pass the batches to a library that has them.
//!
//! # Files that this process reads
//!
//! Workers open the files. This process reads pipes and compressed files from their beginning. It also reads all files
//! if the workers are sandboxed, because these cannot open files: they get the bytes as arrays, and parse them.
//!
//! [`Engine::read_csv`]: Tables::read_csv
//! [`Engine::read_json`]: Tables::read_json
//! [`Engine::read_parquet`]: Tables::read_parquet
//! [`Engine::csv`]: Tables::csv
//! [`Engine::json`]: Tables::json
//! [`Engine::parquet`]: Tables::parquet
//! [`Engine::map_partitions`]: Tables::map_partitions

#![forbid(unsafe_code)]

mod csv;
mod cut;
mod error;
mod feed;
mod json;
mod kernels;
mod parquet;
mod part;
mod plan;
mod reader;
mod run;
mod schema;
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
