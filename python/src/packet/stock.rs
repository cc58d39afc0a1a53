//! Calls that wait to be sent ([`Stock`]), and the packets in which they are sent ([`Packet`]).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::values::{dump_simple, form, is_atom, is_simple, write_pickle, write_plain};
use crate::buffer::Buffer;

/// The number of argument bytes at which a packet is full.
const LONGEST_PACKET: u32 = 112 << 10;
/// The maximum length in bytes of arguments that are written without a pickle.
const LONGEST_CALL: usize = 8 << 10;
/// The number of buffers at which a packet is full.
const MAX_BUFFERS: u32 = 512;

/// Where a call ends in the bytes and buffers of its packet, and the number of bytes copied for the call.
#[derive(Clone, Copy, Default)]
struct End {
    byte: u32,
    buffer: u32,
    copied: u64,
}

/// Calls that were taken from the input and have not been sent. Arguments are encoded when they are taken from the
/// input.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Stock {
    calls: Mutex<Calls>,
    /// Whether each item of the input is the only argument of a call, rather than a tuple of all arguments.
    is_single: bool,
    shares_objects: bool,
}

#[derive(Default)]
struct Calls {
    /// The encoded arguments, from `start` on.
    bytes: Vec<u8>,
    start: usize,
    /// The length of each call: its bytes and buffers, and the number of copied bytes.
    lens: VecDeque<End>,
    buffers: VecDeque<Py<Buffer>>,
    /// The number of calls taken from the input.
    pulled: usize,
    pulled_bytes: u64,
    /// Arguments that were taken from the input and cannot be part of a packet.
    held: Option<Py<PyAny>>,
}

impl Calls {
    fn add(&mut self, bytes: &[u8], buffers: Vec<Py<Buffer>>, copied: u64) {
        self.add_all(bytes, &[bytes.len() as u32]);
        if let Some(last) = self.lens.back_mut() {
            (last.buffer, last.copied) = (buffers.len() as u32, copied);
        }
        self.buffers.extend(buffers);
        self.pulled_bytes += copied;
    }

    /// Adds calls without buffers. `bytes`: their arguments; `lens`: the length of each call's arguments.
    fn add_all(&mut self, bytes: &[u8], lens: &[u32]) {
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
        let ends = lens.iter().map(|&byte| End {
            byte,
            ..End::default()
        });
        self.lens.extend(ends);
        self.pulled += lens.len();
    }
}

/// A batch of encoded calls, which are added to the stock when the batch is flushed or dropped.
struct Batch<'a> {
    stock: &'a Stock,
    bytes: Vec<u8>,
    lens: Vec<u32>,
}

impl Batch<'_> {
    /// Ends a call. Its arguments are the bytes from `first` on.
    fn end_call(&mut self, first: usize) {
        self.lens.push((self.bytes.len() - first) as u32);
    }

    fn flush(&mut self) {
        if !self.lens.is_empty() {
            self.stock.lock().add_all(&self.bytes, &self.lens);
            self.bytes.clear();
            self.lens.clear();
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Stock {
    /// Writes arguments that consist of numbers, text and containers of these. Returns false for other arguments, of
    /// which a part may have been written.
    fn write(&self, item: &Bound<'_, PyAny>, to: &mut Vec<u8>) -> PyResult<bool> {
        if self.shares_objects {
            let is_plain = match item.cast_exact::<PyTuple>() {
                Ok(items) if !self.is_single => items.iter_borrowed().all(|item| is_atom(&item)),
                _ => self.is_single && is_atom(item),
            };
            if !is_plain {
                return Ok(false);
            }
        }
        let first = to.len();
        if self.is_single {
            to.extend_from_slice(&[form::TUPLE, 1]);
        }
        if (self.is_single || item.is_exact_instance_of::<PyTuple>())
            && write_plain(item, to, u32::from(self.is_single))
            && to.len() - first <= LONGEST_CALL
        {
            return Ok(true);
        }
        to.truncate(first);
        if !is_simple(item, 0, &mut 0) {
            return Ok(false);
        }
        let pickle = match self.is_single {
            true => dump_simple(PyTuple::new(item.py(), [item])?.as_any())?,
            false => dump_simple(item)?,
        };
        write_pickle(form::PICKLE, pickle.as_bytes(), 0, to);
        Ok(to.len() - first <= LONGEST_CALL)
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Stock {
    /// `is_single`: whether each item of the input is the only argument of a call, rather than a tuple of all
    /// arguments. `shares_objects`: whether the function may contain objects of the arguments; then containers are
    /// pickled by `dump`.
    #[new]
    fn new(is_single: bool, shares_objects: bool) -> Self {
        Self {
            calls: Mutex::default(),
            is_single,
            shares_objects,
        }
    }

    /// Takes the arguments of at most `most` calls from an iterator. Returns whether the iterator may have more.
    /// `waits`: whether the iterator may wait for the results of these calls. `dump` pickles a tuple that is not plain:
    /// it returns the pickle, its buffers and the number of copied bytes, or `None` if the tuple cannot be part of a
    /// packet. If `dump` returns `None` or raises, the tuple becomes `held`.
    fn pull(
        &self,
        items: &Bound<'_, PyAny>,
        most: usize,
        waits: bool,
        dump: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let py = items.py();
        let mut items = items.try_iter()?;
        let mut held = self.held(py).map(|held| held.into_bound(py));
        let mut batch = Batch {
            stock: self,
            bytes: Vec::new(),
            lens: Vec::new(),
        };
        for _ in 0..most {
            let arguments = match held.take() {
                Some(held) => held,
                None => {
                    let Some(item) = items.next() else {
                        return Ok(false);
                    };
                    let item = item?;
                    let first = batch.bytes.len();
                    if self.write(&item, &mut batch.bytes)? {
                        batch.end_call(first);
                        if waits {
                            batch.flush();
                        }
                        continue;
                    }
                    batch.bytes.truncate(first);
                    if self.is_single {
                        PyTuple::new(py, [item])?.into_any()
                    } else {
                        item
                    }
                }
            };
            batch.flush();
            self.lock().held = Some(arguments.clone().unbind());
            let dumped = dump.call1((arguments,))?;
            if dumped.is_none() {
                return Ok(true);
            }
            let (pickle, buffers, copied): (Bound<'_, PyBytes>, Vec<Py<Buffer>>, u64) =
                dumped.extract()?;
            let mut bytes = Vec::new();
            let count = buffers.len() as u32;
            write_pickle(form::PICKLE, pickle.as_bytes(), count, &mut bytes);
            let mut calls = self.lock();
            calls.add(&bytes, buffers, copied);
            let sent = calls.held.take();
            drop(calls);
            drop(sent);
        }
        Ok(true)
    }

    /// Arguments that `pull` has taken and that cannot be part of a packet.
    #[getter]
    fn held(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.lock().held.as_ref().map(|held| held.clone_ref(py))
    }

    /// Removes the held arguments, which the caller has sent or replaced.
    fn release(&self) {
        let mut calls = self.lock();
        let held = calls.held.take();
        calls.pulled += 1;
        drop(calls);
        drop(held);
    }

    /// The number of calls taken from the input, without the held call.
    #[getter]
    fn pulled(&self) -> usize {
        self.lock().pulled
    }

    /// The number of bytes copied for all calls that were added.
    #[getter]
    fn pulled_bytes(&self) -> u64 {
        self.lock().pulled_bytes
    }

    /// Takes the next calls as a packet, at most `most`.
    fn take(&self, most: usize) -> Packet {
        let mut calls = self.lock();
        let mut end = End::default();
        let mut ends = Vec::new();
        while ends.len() < most.max(1) && end.byte < LONGEST_PACKET && end.buffer < MAX_BUFFERS {
            let Some(len) = calls.lens.pop_front() else {
                break;
            };
            end.byte += len.byte;
            end.buffer += len.buffer;
            end.copied += len.copied;
            ends.push(end);
        }
        let first = calls.start;
        calls.start += end.byte as usize;
        Packet {
            bytes: calls.bytes[first..calls.start].to_vec(),
            buffers: calls.buffers.drain(..end.buffer as usize).collect(),
            ends,
        }
    }

    fn __len__(&self) -> usize {
        self.lock().lens.len()
    }

    /// Drops all calls.
    fn clear(&self) {
        let mut calls = self.lock();
        let (pulled, pulled_bytes) = (calls.pulled, calls.pulled_bytes);
        let dropped = std::mem::take(&mut *calls);
        (calls.pulled, calls.pulled_bytes) = (pulled, pulled_bytes);
        drop(calls);
        drop(dropped);
    }
}

/// Calls that are sent as one task.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Packet {
    bytes: Vec<u8>,
    buffers: Vec<Py<Buffer>>,
    ends: Vec<End>,
}

impl Packet {
    fn end(&self, calls: usize) -> End {
        match calls.checked_sub(1) {
            Some(last) => self.ends[last],
            None => End::default(),
        }
    }
}

#[pymethods]
impl Packet {
    /// The arguments of the calls.
    #[getter]
    fn arguments<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.bytes)
    }

    /// The buffers that the pickled arguments refer to.
    #[getter]
    fn buffers(&self, py: Python<'_>) -> Vec<Py<Buffer>> {
        self.buffers
            .iter()
            .map(|buffer| buffer.clone_ref(py))
            .collect()
    }

    #[getter]
    fn copied(&self) -> u64 {
        self.end(self.ends.len()).copied
    }

    fn __len__(&self) -> usize {
        self.ends.len()
    }

    /// Returns the calls from `first` on, as packets of at most `most` calls.
    fn rest(&self, py: Python<'_>, first: usize, most: usize) -> Vec<Self> {
        let first = first.min(self.ends.len());
        let starts = (first..self.ends.len()).step_by(most.max(1));
        starts
            .map(|start| {
                let ends = &self.ends[start..self.ends.len().min(start + most.max(1))];
                let (from, to) = (self.end(start), ends[ends.len() - 1]);
                let buffers = self.buffers[from.buffer as usize..to.buffer as usize].iter();
                Self {
                    bytes: self.bytes[from.byte as usize..to.byte as usize].to_vec(),
                    buffers: buffers.map(|buffer| buffer.clone_ref(py)).collect(),
                    ends: ends
                        .iter()
                        .map(|end| End {
                            byte: end.byte - from.byte,
                            buffer: end.buffer - from.buffer,
                            copied: end.copied - from.copied,
                        })
                        .collect(),
                }
            })
            .collect()
    }
}
