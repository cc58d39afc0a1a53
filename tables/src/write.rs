//! Writing the parts of a table as files.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::TableError;
use super::parquet::encode;
use super::part::Part;
use super::reader::{Scan, Tables};
use super::run::PartMap;
use super::table::Table;
use arenite::Array;
use arenite::engine::Engine;

impl Table {
    /// Writes each part as a Parquet file, encoded by the engine's workers and compressed by Snappy:
    /// `part-00000.parquet` and so on. Creates the folder. Returns the paths of the files.
    ///
    /// A file gets its name when it is complete. If writing a file fails, the complete files stay.
    ///
    /// ```
    /// # use arenite_tables::Tables;
    /// # let engine = arenite::Engine::inline();
    /// # let folder = tempfile::tempdir()?;
    /// # let (data, out) = (folder.path().join("a.csv"), folder.path().join("out"));
    /// std::fs::write(&data, "name,price\napple,1.5\n")?;
    /// let table = engine.read_csv(&data)?;
    /// let files = table.write_parquet(&engine, &out)?;
    /// assert_eq!(files, [out.join("part-00000.parquet")]);
    /// assert_eq!(engine.read_parquet(&out)?.rows(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If a part cannot be encoded, a file cannot be written, or the folder already contains such files.
    pub fn write_parquet(
        &self,
        engine: &Engine,
        folder: impl AsRef<Path>,
    ) -> Result<Vec<PathBuf>, TableError> {
        write(folder.as_ref(), engine.map_partitions(self, encode, ()))
    }
}

impl Scan<'_> {
    /// Writes each part as a Parquet file, encoded in the job that reads it: see [`Table::write_parquet`]. Only a few
    /// parts are in memory, however large the files are.
    ///
    /// # Errors
    /// As `Table::write_parquet`, and the first part that cannot be read.
    pub fn write_parquet(self, folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, TableError> {
        write(folder.as_ref(), self.map_partitions(encode, ()))
    }
}

impl PartMap<'_, Part> {
    /// Writes each result as a Parquet file: see [`Table::write_parquet`]. Only a few parts are in memory, however
    /// large the files of a scan are.
    ///
    /// ```
    /// # use arenite_tables::{Part, Tables};
    /// # let engine = arenite::Engine::inline();
    /// # let folder = tempfile::tempdir()?;
    /// # let (data, out) = (folder.path().join("a.csv"), folder.path().join("out"));
    /// fn unchanged(part: &Part) -> Part {
    ///     part.clone()
    /// }
    ///
    /// std::fs::write(&data, "n\n1\n2\n")?;
    /// let files = engine.csv(&data).part_bytes(2).scan()?.map_partitions(unchanged, ()).write_parquet(&out)?;
    /// assert_eq!(files.len(), 2);
    /// assert_eq!(engine.read_parquet(&out)?.rows(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As `Table::write_parquet`, and the first part for which there is no result.
    pub fn write_parquet(self, folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, TableError> {
        write(folder.as_ref(), self.then(encode))
    }
}

fn write(folder: &Path, files: PartMap<'_, Array<u8>>) -> Result<Vec<PathBuf>, TableError> {
    let folder = Folder::open(folder, "parquet")?;
    { files.enumerate() }
        .map(|(number, file)| folder.write(number, &file?))
        .collect()
}

pub(super) struct Folder {
    path: PathBuf,
    extension: &'static str,
}

impl Folder {
    pub(super) fn open(path: &Path, extension: &'static str) -> Result<Self, TableError> {
        let folder = Self {
            path: path.to_owned(),
            extension,
        };
        let failed = |error: io::Error| TableError::of_file(&Arc::from(path), error);
        fs::create_dir_all(path).map_err(failed)?;
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?.path();
            let name = entry.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(b"part-")
                && entry.extension().is_some_and(|known| known == extension)
            {
                let text = "the parts of another table are in this folder: remove them, or choose another folder";
                let exists = io::Error::new(io::ErrorKind::AlreadyExists, text);
                return Err(TableError::of_file(&Arc::from(entry), exists));
            }
        }
        Ok(folder)
    }

    pub(super) fn write(&self, number: usize, bytes: &[u8]) -> Result<PathBuf, TableError> {
        // Names have the order of the parts: a letter for each digit beyond the fifth, as in `part-a100000`.
        let longer = number
            .checked_ilog10()
            .map_or(0, |digits| digits.saturating_sub(4));
        let letters = "a".repeat(longer as usize);
        let path = self
            .path
            .join(format!("part-{letters}{number:05}.{}", self.extension));
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new()
                .prefix(".part-")
                // The umask of the process removes some of these permissions.
                .permissions(Permissions::from_mode(0o666))
                .tempfile_in(&self.path)?;
            file.write_all(bytes)?;
            file.persist_noclobber(&path)
                .map_err(|failed| failed.error)?;
            Ok(())
        };
        match write() {
            Ok(()) => Ok(path),
            Err(error) => Err(TableError::of_file(&Arc::from(path), error)),
        }
    }
}
