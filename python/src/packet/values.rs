//! Encodes values: plain types directly, others as pickles.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PySet, PyString, PyTuple};

use super::damaged;

/// The longest text or bytes that are encoded directly.
const LONGEST: usize = 8 << 10;
/// The deepest nesting of values that are encoded directly.
const DEEPEST: u32 = 4;
/// The largest number of parts of a value that is encoded directly.
const MAX_PARTS: u32 = 64;

/// The form of a value, or of the arguments of a call.
pub mod form {
    pub const NONE: u8 = 0;
    pub const TRUE: u8 = 1;
    pub const FALSE: u8 = 2;
    pub const INT: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const TEXT: u8 = 5;
    pub const BYTES: u8 = 6;
    pub const TUPLE: u8 = 7;
    /// A pickle, after the number of its buffers.
    pub const PICKLE: u8 = 8;
    /// The pickle of an exception, in the form of `arenite._core.worker`.
    pub const RAISED: u8 = 9;
}

/// Writes a value of a plain type. Returns false for other values, of which a part may have been written.
pub fn write_plain(value: &Bound<'_, PyAny>, to: &mut Vec<u8>, depth: u32) -> bool {
    write_part(value, to, depth, &mut Vec::new())
}

/// Like `write_plain`, for a part of a value. `tuples`: the tuples that were written.
fn write_part(
    value: &Bound<'_, PyAny>,
    to: &mut Vec<u8>,
    depth: u32,
    tuples: &mut Vec<*mut ffi::PyObject>,
) -> bool {
    if value.is_none() {
        to.push(form::NONE);
    } else if let Ok(flag) = value.cast_exact::<PyBool>() {
        to.push(if flag.is_true() {
            form::TRUE
        } else {
            form::FALSE
        });
    } else if let Ok(number) = value.cast_exact::<PyInt>() {
        let Ok(number) = number.extract::<i64>() else {
            return false;
        };
        to.push(form::INT);
        to.extend_from_slice(&number.to_le_bytes());
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        to.push(form::FLOAT);
        to.extend_from_slice(&number.value().to_bits().to_le_bytes());
    } else if let Ok(text) = value.cast_exact::<PyString>() {
        // Text with lone surrogates is not plain.
        let Ok(text) = text.to_str() else {
            return false;
        };
        return write_bytes(form::TEXT, text.as_bytes(), to);
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        return write_bytes(form::BYTES, bytes.as_bytes(), to);
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        let Some(len) = u8::try_from(tuple.len()).ok().filter(|_| depth < DEEPEST) else {
            return false;
        };
        if len > 0 {
            // Only a pickle can refer to a tuple twice.
            if tuples.contains(&tuple.as_ptr()) {
                return false;
            }
            tuples.push(tuple.as_ptr());
        }
        to.extend_from_slice(&[form::TUPLE, len]);
        return tuple
            .iter_borrowed()
            .all(|part| write_part(&part, to, depth + 1, tuples));
    } else {
        return false;
    }
    true
}

fn write_bytes(form: u8, bytes: &[u8], to: &mut Vec<u8>) -> bool {
    let Ok(len) = u32::try_from(bytes.len()) else {
        return false;
    };
    if bytes.len() > LONGEST {
        return false;
    }
    to.push(form);
    to.extend_from_slice(&len.to_le_bytes());
    to.extend_from_slice(bytes);
    true
}

pub fn write_pickle(form: u8, pickle: &[u8], buffers: u32, to: &mut Vec<u8>) {
    to.push(form);
    to.extend_from_slice(&(pickle.len() as u32).to_le_bytes());
    to.extend_from_slice(&buffers.to_le_bytes());
    to.extend_from_slice(pickle);
}

/// A decoded value, or the data from which the value is made.
pub enum Read<'a, 'py> {
    Value(Bound<'py, PyAny>),
    Pickle(&'a [u8], usize),
    Raised(&'a [u8]),
}

pub struct Reader<'a> {
    pub left: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let (taken, left) = self.left.split_first_chunk().ok_or_else(damaged)?;
        self.left = left;
        Ok(*taken)
    }

    fn bytes(&mut self, len: usize) -> PyResult<&'a [u8]> {
        let (taken, left) = self.left.split_at_checked(len).ok_or_else(damaged)?;
        self.left = left;
        Ok(taken)
    }

    fn len(&mut self) -> PyResult<usize> {
        Ok(u32::from_le_bytes(self.take()?) as usize)
    }

    pub fn read<'py>(&mut self, py: Python<'py>, depth: u32) -> PyResult<Read<'a, 'py>> {
        let [found] = self.take()?;
        Ok(Read::Value(match found {
            form::NONE => py.None().into_bound(py),
            form::TRUE => PyBool::new(py, true).to_owned().into_any(),
            form::FALSE => PyBool::new(py, false).to_owned().into_any(),
            form::INT => i64::from_le_bytes(self.take()?)
                .into_pyobject(py)?
                .into_any(),
            form::FLOAT => {
                PyFloat::new(py, f64::from_bits(u64::from_le_bytes(self.take()?))).into_any()
            }
            form::TEXT => {
                let len = self.len()?;
                let text = std::str::from_utf8(self.bytes(len)?).map_err(|_| damaged())?;
                PyString::new(py, text).into_any()
            }
            form::BYTES => {
                let len = self.len()?;
                PyBytes::new(py, self.bytes(len)?).into_any()
            }
            form::TUPLE if depth < DEEPEST => {
                let [len] = self.take()?;
                if len == 1 {
                    // The arguments of a call are usually a tuple of plain values.
                    let Read::Value(part) = self.read(py, depth + 1)? else {
                        return Err(damaged());
                    };
                    return Ok(Read::Value(PyTuple::new(py, [part])?.into_any()));
                }
                let mut parts = Vec::with_capacity(len.into());
                for _ in 0..len {
                    match self.read(py, depth + 1)? {
                        Read::Value(part) => parts.push(part),
                        _ => return Err(damaged()),
                    }
                }
                PyTuple::new(py, parts)?.into_any()
            }
            form::PICKLE | form::RAISED if depth == 0 => {
                let (len, buffers) = (self.len()?, self.len()?);
                let pickle = self.bytes(len)?;
                return Ok(match found {
                    form::PICKLE => Read::Pickle(pickle, buffers),
                    _ => Read::Raised(pickle),
                });
            }
            _ => return Err(damaged()),
        }))
    }
}

/// Returns whether Python's standard pickler suffices for a value, which it does for a list, a dictionary or a set of
/// plain values.
pub fn is_simple(value: &Bound<'_, PyAny>, depth: u32, parts: &mut u32) -> bool {
    *parts += 1;
    if *parts > MAX_PARTS || depth > DEEPEST {
        return false;
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        list.iter().all(|part| is_simple(&part, depth + 1, parts))
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        tuple
            .iter_borrowed()
            .all(|part| is_simple(&part, depth + 1, parts))
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        dict.iter().all(|(key, part)| {
            is_simple(&key, depth + 1, parts) && is_simple(&part, depth + 1, parts)
        })
    } else if let Ok(set) = value.cast_exact::<PySet>() {
        set.iter().all(|part| is_simple(&part, depth + 1, parts))
    } else {
        is_atom(value)
    }
}

/// Returns whether a value is a number, text, bytes or `None`, which cannot change.
pub fn is_atom(value: &Bound<'_, PyAny>) -> bool {
    value.is_none()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyBytes>()
}

/// Returns the pickle of a value for which `is_simple` is true.
pub fn dump_simple<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let dumps = DUMPS.import(value.py(), "_pickle", "dumps")?;
    Ok(dumps.call1((value, 5))?.cast_into()?)
}
