//! Reading a file from its beginning, in blocks of whole records: [`Feed`].

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::cut::{Records, State, first_record, scan};

const GZIP: [u8; 2] = [0x1F, 0x8B];
const MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];
/// The number of bytes that are read at a time.
const STEP: usize = 1 << 18;

/// A file that is read from its beginning: a pipe, a compressed file, or the header and a sample of any file.
///
/// Bytes that were read but not taken stay in the feed, so a pipe can be sampled before it is read.
pub(super) struct Feed {
    reader: Box<dyn Read + Send>,
    /// Another handle to the reader's file, with the same position.
    file: File,
    /// The length of a plain file, whose bytes can be read at any position. `None` for other files.
    plain: Option<u64>,
    pending: Vec<u8>,
    /// The position of the first pending byte in the content.
    offset: u64,
    is_at_end: bool,
    /// The error that ended reading. Complete records before it are returned first.
    error: Option<io::Error>,
    /// The first record, if it is a header.
    pub(super) header: Vec<u8>,
    header_end: u64,
}

/// Bytes of whole records.
pub(super) struct Block {
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) is_last: bool,
}

impl Feed {
    /// Opens a file and takes the byte-order mark and the header.
    pub(super) fn open(path: &Path, records: Records, has_header: bool) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let same = file.try_clone()?;
        let known = file.metadata()?;
        let mut begin = Vec::new();
        (&mut file).take(2).read_to_end(&mut begin)?;
        let is_compressed = begin == GZIP;
        let is_plain = known.is_file() && !is_compressed;
        let whole = io::Cursor::new(begin).chain(file);
        let reader: Box<dyn Read + Send> = if is_compressed {
            Box::new(MultiGzDecoder::new(whole))
        } else {
            Box::new(whole)
        };
        let mut feed = Self {
            reader,
            file: same,
            plain: is_plain.then_some(known.len()),
            pending: Vec::new(),
            offset: 0,
            is_at_end: false,
            error: None,
            header: Vec::new(),
            header_end: 0,
        };
        feed.fill(MARK.len());
        if feed.pending.starts_with(&MARK) {
            feed.take(MARK.len());
        }
        if has_header {
            feed.header = feed.record(records)?;
            // A file of empty lines has no header.
            if feed.header.iter().all(|byte| matches!(byte, b'\n' | b'\r')) {
                feed.header.clear();
            }
        }
        feed.header_end = feed.offset;
        Ok(feed)
    }

    /// Returns the length of the file, if its bytes can be read at any position.
    pub(super) fn plain(&self) -> Option<u64> {
        self.plain
    }

    /// Returns the position after the byte-order mark and the header.
    pub(super) fn header_end(&self) -> u64 {
        self.header_end
    }

    /// Returns the position of the first byte that was not taken yet.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the number of bytes of the file that have been read, before decompression; 0 for a pipe.
    pub(super) fn read(&self) -> u64 {
        (&self.file).stream_position().unwrap_or(0)
    }

    /// Takes the first record.
    fn record(&mut self, records: Records) -> io::Result<Vec<u8>> {
        let mut wanted = STEP;
        loop {
            self.fill(wanted);
            if let Some(end) = first_record(&self.pending, records) {
                return Ok(self.take(end));
            }
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            if self.is_at_end {
                if scan(&self.pending, records, State::Outside, b'\n').state == State::Quoted {
                    // It would contain all rows.
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the file ends inside the quotes of a field of the header",
                    ));
                }
                let end = self.pending.len();
                return Ok(self.take(end));
            }
            wanted *= 2;
        }
    }

    /// Reads until `wanted` bytes are pending, or the file ends.
    fn fill(&mut self, wanted: usize) {
        while self.pending.len() < wanted && !self.is_at_end {
            let missing = (wanted - self.pending.len()) as u64;
            match self
                .reader
                .by_ref()
                .take(missing)
                .read_to_end(&mut self.pending)
            {
                Ok(0) => self.is_at_end = true,
                Ok(_) => {}
                Err(error) => {
                    self.error = Some(error);
                    self.is_at_end = true;
                }
            }
        }
    }

    fn take(&mut self, end: usize) -> Vec<u8> {
        let rest = self.pending.split_off(end);
        self.offset += end as u64;
        std::mem::replace(&mut self.pending, rest)
    }

    /// Returns the end of the last record in the first `size` pending bytes. If no record ends there, returns the end
    /// of the first record after these bytes.
    fn end_of_block(&mut self, size: usize, records: Records) -> usize {
        let mut wanted = size;
        loop {
            self.fill(wanted);
            let whole = self.is_at_end && self.error.is_none();
            if whole && self.pending.len() <= size {
                return self.pending.len();
            }
            let first = &self.pending[..size.min(self.pending.len())];
            let found = scan(first, records, State::Outside, b'\n');
            if let Some(end) = found.last {
                return end;
            }
            let before = first.last().copied().unwrap_or(b'\n');
            let behind = scan(&self.pending[first.len()..], records, found.state, before);
            if let Some(end) = behind.first {
                return first.len() + end;
            }
            if self.is_at_end {
                return if whole { self.pending.len() } else { 0 };
            }
            wanted = wanted.saturating_mul(2);
        }
    }

    /// Returns about `size` bytes from the beginning of the content, up to the end of a record. The bytes stay in the
    /// feed.
    pub(super) fn sample(&mut self, size: usize, records: Records) -> &[u8] {
        let end = self.end_of_block(size, records);
        &self.pending[..end]
    }

    /// Takes records of about `size` bytes, at least one. `None` at the end.
    ///
    /// # Errors
    /// The error that ended reading, after the complete records before it were taken.
    pub(super) fn block(&mut self, size: usize, records: Records) -> io::Result<Option<Block>> {
        let end = self.end_of_block(size.max(1), records);
        if end == 0 {
            return match self.error.take() {
                Some(error) => Err(error),
                None => Ok(None),
            };
        }
        let start = self.offset;
        let bytes = self.take(end);
        // Reading more shows whether these were the last records.
        self.fill(1);
        Ok(Some(Block {
            start,
            bytes,
            is_last: self.is_at_end && self.pending.is_empty() && self.error.is_none(),
        }))
    }
}
