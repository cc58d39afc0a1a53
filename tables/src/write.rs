//! Writing the parts of a table as files.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::TableError;
use super::parquet::encode;
use super::reader::Tables;
use super::table::Table;
use arenite::engine::Engine;

impl Table {
    /// Writes each part as an Arrow stream: `part-00000.arrows` and so on. Other libraries can map or read these files.
    /// Creates the folder. Returns the paths of the files.
    ///
    /// A file gets its name when it is complete. If writing a file fails, the complete files stay.
    ///
    /// # Errors
    /// If a file cannot be written, or the folder already contains such files.
    pub fn write_ipc(&self, folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, TableError> {
        let folder = Folder::open(folder.as_ref(), "arrows")?;
        let parts = self.parts().iter().enumerate();
        parts
            .map(|(number, part)| folder.write(number, part.as_array()))
            .collect()
    }

    /// Writes each part as a Parquet file, encoded by the engine's workers: `part-00000.parquet` and so on, compressed
    /// by Snappy. Otherwise like [`write_ipc`](Self::write_ipc).
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
    /// The errors of `write_ipc`; also if a part cannot be encoded.
    pub fn write_parquet(
        &self,
        engine: &Engine,
        folder: impl AsRef<Path>,
    ) -> Result<Vec<PathBuf>, TableError> {
        let folder = Folder::open(folder.as_ref(), "parquet")?;
        let encoded = engine.map_partitions(self, encode, ()).enumerate();
        encoded
            .map(|(number, file)| folder.write(number, &file?))
            .collect()
    }
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
