//! The journal, which contains the results of a packet's calls: [`Journal`].

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arenite::Array;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::values::{Read, Reader};
use crate::buffer::Buffer;

/// This bit of the first word of a journal is set when no further call may begin.
const CLOSED: u32 = 1 << 31;
/// The offset of the records.
const RECORDS: usize = 16;
/// The longest record of a journal, in bytes. A longer value is sent in the reply.
pub const LONGEST_RECORD: usize = 8 << 10;
/// Bytes of the smallest journal.
const SMALLEST_JOURNAL: usize = 16 << 10;

/// Memory into which the worker of a packet writes the results of calls.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Journal {
    memory: Array<u8>,
    /// Keeps the memory writable as long as this value lives.
    buffer: Py<Buffer>,
}

/// Returns the memory of a journal; fails if the buffer is not suitable.
fn journal_memory(buffer: &Buffer) -> PyResult<Array<u8>> {
    let memory = buffer.array();
    if !buffer.is_writable()
        || memory.len() < SMALLEST_JOURNAL
        || !memory.as_ptr().addr().is_multiple_of(8)
    {
        let why = format!("a journal needs {SMALLEST_JOURNAL} bytes of writable memory");
        return Err(PyValueError::new_err(why));
    }
    Ok(memory)
}

/// The two words at the beginning of a journal.
struct Words<'a> {
    begun: &'a AtomicU32,
    ended: &'a AtomicU64,
}

fn words(memory: &Array<u8>) -> Words<'_> {
    let first = memory.as_ptr().cast_mut();
    // SAFETY: the array keeps its memory mapped. `journal_memory` has checked that it is writable, aligned, and longer
    // than `RECORDS`. Both processes access these bytes by atomics only.
    unsafe {
        Words {
            begun: AtomicU32::from_ptr(first.cast()),
            ended: AtomicU64::from_ptr(first.add(8).cast()),
        }
    }
}

impl Journal {
    fn ended(&self) -> (usize, usize) {
        // Acquire: "record written", pairs with `Writer::write`.
        let word = words(&self.memory).ended.load(Ordering::Acquire);
        let bytes = (word & u64::from(u32::MAX)) as usize;
        (
            (word >> 32) as usize,
            bytes.min(self.memory.len() - RECORDS),
        )
    }
}

#[pymethods]
impl Journal {
    /// `buffer`: memory of the arena that this process can write to.
    #[new]
    fn new(buffer: Py<Buffer>) -> PyResult<Self> {
        let memory = journal_memory(buffer.get())?;
        Ok(Self { memory, buffer })
    }

    /// Empties the journal. Returns its memory, for lending to a task.
    fn open(&self) -> PyResult<Buffer> {
        let words = words(&self.memory);
        // Relaxed: no task has the journal at this time. Submitting the task publishes both words.
        words.begun.store(0, Ordering::Relaxed);
        words.ended.store(0, Ordering::Relaxed);
        self.buffer.get().lend()
    }

    /// The number of calls that have begun.
    #[getter]
    fn begun(&self) -> u32 {
        words(&self.memory).begun.load(Ordering::SeqCst) & !CLOSED
    }

    /// The number of calls that have ended.
    #[getter]
    fn done(&self) -> usize {
        self.ended().0
    }

    /// Prevents further calls from beginning. Returns the number of calls that have begun.
    fn close(&self) -> u32 {
        // SeqCst: "closed", pairs with `Writer::begin`.
        words(&self.memory).begun.fetch_or(CLOSED, Ordering::SeqCst) & !CLOSED
    }

    /// Reads at most `most` results, from byte `at` of the records on. Returns the values, whether any of the values is
    /// a failure, and the offset of the next record. `load` makes a value from its pickle; `raised` makes the value for
    /// a pickled exception; instances of `failed` are failures.
    fn read<'py>(
        &self,
        py: Python<'py>,
        at: usize,
        most: usize,
        load: &Bound<'py, PyAny>,
        raised: &Bound<'py, PyAny>,
        failed: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyList>, bool, usize)> {
        let (_, len) = self.ended();
        // Copies the records: Python code runs below, and the worker may append records meanwhile.
        let mut bytes = vec![0; len.saturating_sub(at)];
        // SAFETY: `ended` has checked the length. The worker does not write to published records. A worker that breaks
        // this rule only changes the bytes that it could have published.
        unsafe {
            let from = self.memory.as_ptr().add(RECORDS + at.min(len));
            from.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len());
        }
        let mut reader = Reader { left: &bytes };
        let mut values = Vec::with_capacity(most.min(bytes.len()));
        let mut is_whole = true;
        for _ in 0..most {
            let value = match reader.read(py, 0)? {
                Read::Value(value) => value,
                Read::Pickle(pickle, _) => {
                    let value = load.call1((PyBytes::new(py, pickle),))?;
                    is_whole &= !value.get_type().is(failed);
                    value
                }
                Read::Raised(pickle) => {
                    is_whole = false;
                    raised.call1((PyBytes::new(py, pickle),))?
                }
            };
            values.push(value);
        }
        Ok((
            PyList::new(py, values)?,
            is_whole,
            len.max(at) - reader.left.len(),
        ))
    }
}

/// The worker's end of a journal.
pub struct Writer {
    memory: Array<u8>,
    /// The bytes of the records.
    len: usize,
    count: u64,
}

impl Writer {
    pub fn new(journal: &Buffer) -> PyResult<Self> {
        Ok(Self {
            memory: journal_memory(journal)?,
            len: 0,
            count: 0,
        })
    }

    /// Begins a call. Returns false if the program has closed the journal.
    pub fn begin(&self) -> bool {
        // SeqCst: "begun", pairs with `Journal::close`.
        let begun = words(&self.memory).begun.fetch_add(1, Ordering::SeqCst);
        begun & CLOSED == 0
    }

    /// Writes a record of at most `LONGEST_RECORD` bytes. Returns whether there is room for another record.
    pub fn write(&mut self, record: &[u8]) -> bool {
        let room = self.memory.len() - RECORDS - self.len;
        assert!(record.len() <= room, "a record does not fit its journal");
        // SAFETY: there is room. The memory is lent to this task for writing, and the program reads published records
        // only. No Rust reference to the memory exists.
        unsafe {
            let to = self.memory.as_ptr().cast_mut().add(RECORDS + self.len);
            to.copy_from_nonoverlapping(record.as_ptr(), record.len());
        }
        self.len += record.len();
        self.count += 1;
        let word = self.count << 32 | self.len as u64;
        // Release: "record written", pairs with `Journal::ended`.
        words(&self.memory).ended.store(word, Ordering::Release);
        room - record.len() >= LONGEST_RECORD
    }
}
