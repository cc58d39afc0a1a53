//! Detects changes of objects that the program has sent to workers: [`Snapshot`] and [`Watch`].

use std::collections::HashSet;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PyMapping, PyString,
    PyTuple, PyType,
};

/// The items that a list or dictionary had at one time, compared by identity, and the items of the lists and
/// dictionaries inside it.
///
/// Other items cannot change, so a container that matches the snapshot has the same contents. Each container is
/// recorded once, however often it occurs: containers that share parts may have far more items than memory can hold.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Snapshot(Vec<Held>);

/// A list or dictionary, and the items that it had at one time. The references keep them alive, so that no other object
/// gets their addresses.
enum Held {
    List(Py<PyList>, Vec<Py<PyAny>>),
    /// With the keys and values in their order.
    Dict(Py<PyDict>, Vec<(Py<PyAny>, Py<PyAny>)>),
}

/// The objects that are still to be recorded.
struct Walk<'py> {
    left: Vec<Bound<'py, PyAny>>,
    /// The addresses of objects to which several others may refer. The recorded containers keep the objects alive.
    seen: HashSet<*mut ffi::PyObject>,
}

impl<'py> Walk<'py> {
    /// Adds an item of a container, unless it cannot change or was added before.
    fn add(&mut self, item: &Bound<'py, PyAny>) {
        if is_atom(item) {
            return;
        }
        // SAFETY: `item` keeps the object alive.
        let references = unsafe { ffi::Py_REFCNT(item.as_ptr()) };
        // One of them is of the container, another one of `item`.
        if references <= 2 || self.seen.insert(item.as_ptr()) {
            self.left.push(item.clone());
        }
    }
}

impl Held {
    /// Returns `None` for an object that is neither a list nor a dictionary.
    fn new<'py>(object: &Bound<'py, PyAny>, walk: &mut Walk<'py>) -> Option<Self> {
        if let Ok(list) = object.cast_exact::<PyList>() {
            let items = list.iter().inspect(|item| walk.add(item));
            let items = items.map(Bound::unbind).collect();
            return Some(Self::List(list.clone().unbind(), items));
        }
        let dict = object.cast_exact::<PyDict>().ok()?;
        let items = dict.iter().map(|(key, value)| {
            walk.add(&key);
            walk.add(&value);
            (key.unbind(), value.unbind())
        });
        Some(Self::Dict(dict.clone().unbind(), items.collect()))
    }

    /// Returns whether the container still has the recorded items.
    fn is_current(&self, py: Python<'_>) -> bool {
        match self {
            Self::List(list, items) => {
                let list = list.bind(py).as_ptr();
                // SAFETY: the interpreter is attached, and `self` keeps the list alive. The items are borrowed; no
                // Python code runs between reading the length and reading them.
                unsafe {
                    ffi::PyList_Size(list) == items.len() as isize
                        && items.iter().enumerate().all(|(index, item)| {
                            ffi::PyList_GetItem(list, index as isize) == item.as_ptr()
                        })
                }
            }
            Self::Dict(dict, items) => {
                let dict = dict.bind(py).as_ptr();
                let mut position = 0;
                let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
                // SAFETY: as above, for a dictionary.
                unsafe {
                    ffi::PyDict_Size(dict) == items.len() as isize
                        && items.iter().all(|(held_key, held_value)| {
                            ffi::PyDict_Next(dict, &mut position, &mut key, &mut value) != 0
                                && (key, value) == (held_key.as_ptr(), held_value.as_ptr())
                        })
                }
            }
        }
    }
}

/// Returns whether an object cannot change and contains no others. A class is sent by its name, or has a definition of
/// its own.
fn is_atom(object: &Bound<'_, PyAny>) -> bool {
    object.is_none()
        || object.is_instance_of::<PyType>()
        || object.is_exact_instance_of::<PyInt>()
        || object.is_exact_instance_of::<PyString>()
        || object.is_exact_instance_of::<PyFloat>()
        || object.is_exact_instance_of::<PyBool>()
        || object.is_exact_instance_of::<PyBytes>()
        || object.is_exact_instance_of::<PyComplex>()
}

#[pymethods]
impl Snapshot {
    /// Records the present items of a list or dictionary; returns `None` if it contains an object of another type that
    /// can change.
    #[staticmethod]
    fn of(object: Bound<'_, PyAny>) -> Option<Self> {
        let mut held = Vec::new();
        let mut walk = Walk {
            seen: HashSet::from([object.as_ptr()]),
            left: vec![object],
        };
        while let Some(object) = walk.left.pop() {
            if let Ok(tuple) = object.cast_exact::<PyTuple>() {
                tuple.iter().for_each(|item| walk.add(&item));
            } else if let Ok(set) = object.cast_exact::<PyFrozenSet>() {
                set.iter().for_each(|item| walk.add(&item));
            } else {
                held.push(Held::new(&object, &mut walk)?);
            }
        }
        Some(Self(held))
    }

    /// Returns whether the container still has the same items.
    fn is_current(&self, py: Python<'_>) -> bool {
        self.0.iter().all(|held| held.is_current(py))
    }
}

/// All keys and values of a mapping, in their order.
type Mapping = (Py<PyAny>, Vec<Py<PyAny>>, Vec<Py<PyAny>>);

/// Recorded values of variables: globals, attributes of functions, and all attributes of classes.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Watch {
    items: Vec<(Py<PyDict>, Py<PyAny>, Py<PyAny>)>,
    absent: Vec<(Py<PyDict>, Py<PyAny>)>,
    attributes: Vec<(Py<PyAny>, Py<PyString>, Py<PyAny>)>,
    mappings: Vec<Mapping>,
    names: Vec<(Py<PyDict>, Vec<Py<PyAny>>)>,
}

#[pymethods]
impl Watch {
    /// `items`: dictionaries, each with a key and its value; `absent`: dictionaries, each with a key that it does not
    /// contain; `attributes`: objects, each with the name and the value of an attribute; `mappings`: mappings, each
    /// with all its keys and values in order; `names`: dictionaries, each with all its keys in order.
    #[new]
    fn new(
        items: Vec<(Py<PyDict>, Py<PyAny>, Py<PyAny>)>,
        absent: Vec<(Py<PyDict>, Py<PyAny>)>,
        attributes: Vec<(Py<PyAny>, Py<PyString>, Py<PyAny>)>,
        mappings: Vec<Mapping>,
        names: Vec<(Py<PyDict>, Vec<Py<PyAny>>)>,
    ) -> Self {
        Self {
            items,
            absent,
            attributes,
            mappings,
            names,
        }
    }

    /// Returns whether each variable still has its value.
    fn is_current(&self, py: Python<'_>) -> PyResult<bool> {
        for (dict, key, value) in &self.items {
            let found = dict.bind(py).get_item(key)?;
            if !found.is_some_and(|found| found.is(value)) {
                return Ok(false);
            }
        }
        for (dict, key) in &self.absent {
            if dict.bind(py).contains(key)? {
                return Ok(false);
            }
        }
        for (object, name, value) in &self.attributes {
            // Reading an annotation, or an empty cell, raises.
            let found = object.bind(py).getattr(name);
            if !found.is_ok_and(|found| found.is(value)) {
                return Ok(false);
            }
        }
        for (mapping, keys, values) in &self.mappings {
            let mapping = mapping.bind(py);
            let is_same = if let Ok(dict) = mapping.cast_exact::<PyDict>() {
                holds(dict, keys, Some(values.as_slice()))
            } else {
                let mapping = mapping.cast::<PyMapping>()?;
                are_same(&mapping.values()?, values) && are_same(&mapping.keys()?, keys)
            };
            if !is_same {
                return Ok(false);
            }
        }
        for (dict, keys) in &self.names {
            if !holds(dict.bind(py), keys, None) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Returns whether a dictionary has these keys, and these values, in this order.
fn holds(dict: &Bound<'_, PyDict>, keys: &[Py<PyAny>], values: Option<&[Py<PyAny>]>) -> bool {
    if dict.len() != keys.len() {
        return false;
    }
    let (mut place, mut position) = (0, 0);
    let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the interpreter is attached. The pointers are borrowed; no Python code runs while they are compared.
    while unsafe { ffi::PyDict_Next(dict.as_ptr(), &mut position, &mut key, &mut value) } != 0 {
        let is_same = keys[place].as_ptr() == key
            && values.is_none_or(|values| values[place].as_ptr() == value);
        if !is_same {
            return false;
        }
        place += 1;
    }
    true
}

fn are_same(found: &Bound<'_, PyList>, recorded: &[Py<PyAny>]) -> bool {
    found.len() == recorded.len() && found.iter().zip(recorded).all(|(one, other)| one.is(other))
}
