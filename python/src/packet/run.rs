//! The calls of a packet, in a worker.

use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::damaged;
use super::journal::{LONGEST_RECORD, Writer};
use super::values::{Read, Reader, dump_simple, form, is_simple, write_pickle, write_plain};
use crate::buffer::Buffer;
use crate::worker::{call_task, for_each_call};

/// The interval at which the output of calls is flushed. Flushing after each call would take longer than a short call.
const FLUSHED: Duration = Duration::from_micros(3);

/// The warning filters as they were before the calls, to detect changes.
struct Filters<'py> {
    warnings: Bound<'py, PyDict>,
    list: Bound<'py, PyList>,
    len: usize,
    first: Option<Bound<'py, PyAny>>,
}

impl<'py> Filters<'py> {
    fn new(py: Python<'py>) -> PyResult<Self> {
        let warnings = py.import("warnings")?;
        let list: Bound<'py, PyList> = warnings.getattr(intern!(py, "filters"))?.cast_into()?;
        Ok(Self {
            warnings: warnings.dict(),
            len: list.len(),
            first: list.get_item(0).ok(),
            list,
        })
    }

    /// Returns whether a call has changed the filters: has added a filter at the end, moved a filter to the front,
    /// removed all filters, or replaced the list.
    fn have_changed(&self) -> PyResult<bool> {
        let now = self.warnings.get_item(intern!(self.list.py(), "filters"))?;
        if !now.is_some_and(|now| now.is(&self.list)) || self.list.len() != self.len {
            return Ok(true);
        }
        Ok(match &self.first {
            Some(first) => !self.list.get_item(0)?.is(first),
            None => false,
        })
    }
}

/// The Python functions that `run_packet` calls.
type Hooks<'py> = (
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
);

/// Where the result of a call is.
enum Given<'py> {
    /// In the journal.
    Record,
    /// In the reply of the task, which ends after this call.
    Value(Bound<'py, PyAny>),
    Raised(Bound<'py, PyAny>),
}

/// Writes a value as a record, if the value is short and the packet has a journal.
fn write_value<'py>(
    value: Bound<'py, PyAny>,
    record: &mut Vec<u8>,
    dump: &Bound<'py, PyAny>,
    is_journaled: bool,
) -> PyResult<Given<'py>> {
    let fits = |record: &Vec<u8>| is_journaled && record.len() <= LONGEST_RECORD;
    if is_journaled {
        if write_plain(&value, record, 0) && fits(record) {
            return Ok(Given::Record);
        }
        record.clear();
        if is_simple(&value, 0, &mut 0) {
            write_pickle(form::PICKLE, dump_simple(&value)?.as_bytes(), 0, record);
            if fits(record) {
                return Ok(Given::Record);
            }
            record.clear();
        }
    }
    let dumped = dump.call1((value,))?;
    let (pickle, buffers, _): (Bound<'py, PyBytes>, Bound<'py, PyAny>, Bound<'py, PyAny>) =
        dumped.extract()?;
    if !buffers.is_truthy()? && pickle.as_bytes().len() < LONGEST_RECORD - 16 && is_journaled {
        write_pickle(form::PICKLE, pickle.as_bytes(), 0, record);
        return Ok(Given::Record);
    }
    Ok(Given::Value(dumped))
}

/// Calls a function with the arguments of a packet, and writes the result of each call into the journal. Returns early
/// when `budget` seconds have passed, the journal is full, or the program has closed it. Returns the seconds taken, the
/// number of calls and, if the last result is not in the journal, what `dump` or `dump_error` returned for it. A packet
/// without a journal contains one call.
///
/// `hooks`: `load` makes arguments from a pickle and its buffers; `dump` returns the pickle of a value, its buffers and
/// the number of copied bytes; `dump_error` returns the text and the pickle of an exception; `renew` restores the
/// program's warning filters; `flush` writes the printed output.
#[pyfunction]
#[pyo3(signature = (function, arguments, journal, buffers, budget, hooks))]
pub fn run_packet<'py>(
    function: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyAny>,
    journal: Option<&Bound<'py, Buffer>>,
    buffers: &Bound<'py, PyList>,
    budget: f64,
    hooks: Hooks<'py>,
) -> PyResult<(f64, u64, Option<Bound<'py, PyAny>>)> {
    for_each_call(|begin_call| {
        let py = function.py();
        let (load, dump, dump_error, renew, flush) = hooks;
        let mut filters = Filters::new(py)?;
        let in_arena;
        let bytes: &[u8] = if let Ok(buffer) = arguments.cast::<Buffer>() {
            in_arena = buffer.get().sealed().ok_or_else(damaged)?;
            &in_arena
        } else {
            arguments.cast::<PyBytes>()?.as_bytes()
        };
        let mut writer = journal
            .map(|journal| Writer::new(journal.get()))
            .transpose()?;
        let budget = Duration::try_from_secs_f64(budget).unwrap_or(Duration::MAX);
        let mut reader = Reader { left: bytes };
        let (mut calls, mut next_buffer) = (0, 0);
        let mut record = Vec::new();
        let mut tail = None;
        let begin = Instant::now();
        let mut flushed = Duration::ZERO;
        let mut now = Duration::ZERO;
        // The number of the call after which the clock is read next, and the number of calls between two readings.
        // Reading the clock takes a tenth of the time of the shortest call.
        let (mut timed, mut untimed) = (1, 1);
        while !reader.left.is_empty() && tail.is_none() {
            if writer.as_ref().is_some_and(|writer| !writer.begin()) {
                break;
            }
            begin_call(calls);
            calls += 1;
            record.clear();
            let mut call = || {
                if calls > 1 && filters.have_changed()? {
                    renew.call0()?;
                    filters = Filters::new(py)?;
                }
                let arguments = match reader.read(py, 0)? {
                    Read::Value(arguments) => arguments,
                    Read::Raised(_) => return Err(damaged()),
                    Read::Pickle(pickle, count) => {
                        let own = buffers.get_slice(next_buffer, next_buffer + count);
                        next_buffer += count;
                        load.call1((PyBytes::new(py, pickle), own))?
                    }
                };
                let value = call_task(function, arguments.cast_into::<PyTuple>()?)?;
                write_value(value, &mut record, &dump, writer.is_some())
            };
            let given = match call() {
                Ok(given) => given,
                Err(error) => {
                    record.clear();
                    let dumped = dump_error.call1((error,))?;
                    let (_, pickle): (Bound<'py, PyAny>, Bound<'py, PyBytes>) = dumped.extract()?;
                    if writer.is_some() && pickle.as_bytes().len() < LONGEST_RECORD - 16 {
                        write_pickle(form::RAISED, pickle.as_bytes(), 0, &mut record);
                        Given::Record
                    } else {
                        Given::Raised(dumped)
                    }
                }
            };
            let is_last = matches!(given, Given::Value(_) | Given::Raised(_));
            if calls == timed || is_last {
                let before = std::mem::replace(&mut now, begin.elapsed());
                untimed = if now < before + FLUSHED / 4 {
                    2 * untimed
                } else {
                    1
                };
                timed = calls + untimed;
                if now >= flushed + FLUSHED || is_last {
                    flush.call0()?;
                    flushed = now;
                }
            }
            match given {
                Given::Record => {
                    let has_room = writer.as_mut().is_some_and(|writer| writer.write(&record));
                    if !has_room || now >= budget {
                        break;
                    }
                }
                Given::Value(dumped) | Given::Raised(dumped) => tail = Some(dumped),
            }
        }
        Ok((begin.elapsed().as_secs_f64(), calls, tail))
    })
}
