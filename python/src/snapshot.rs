//! Detects changes of objects that the program has sent to workers: [`Snapshot`] and [`Watch`].

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PyMapping, PyString,
    PyTuple, PyType,
};

/// The deepest nesting of containers.
const DEEPEST: u32 = 16;

/// The items that a list or dictionary had at one time, compared by identity, and the items of the lists and
/// dictionaries inside it.
///
/// Other items cannot change, so a container that matches the snapshot has the same contents.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Snapshot(Held);

/// An object and the items that it had at one time. The reference keeps the object alive, so that no other object gets
/// its address.
struct Held {
    object: Py<PyAny>,
    items: Items,
}

enum Items {
    /// An object that cannot change.
    None,
    List(Vec<Held>),
    /// The items of a list that cannot change themselves.
    Fixed(Vec<Py<PyAny>>),
    /// The keys and values of a dictionary, in their order.
    Dict(Vec<(Held, Held)>),
}

impl Held {
    /// Returns `None` if the object can change, and is neither a list nor a dictionary.
    fn new(object: &Bound<'_, PyAny>, depth: u32) -> Option<Self> {
        let items = if depth > DEEPEST {
            return None;
        } else if let Ok(list) = object.cast_exact::<PyList>() {
            if list.iter().all(|item| is_fixed(&item, depth + 1)) {
                Items::Fixed(list.iter().map(Bound::unbind).collect())
            } else {
                let items = list.iter().map(|item| Self::new(&item, depth + 1));
                Items::List(items.collect::<Option<_>>()?)
            }
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            let items = dict.iter().map(|(key, value)| {
                Some((Self::new(&key, depth + 1)?, Self::new(&value, depth + 1)?))
            });
            Items::Dict(items.collect::<Option<_>>()?)
        } else if is_fixed(object, depth) {
            Items::None
        } else {
            return None;
        };
        let object = object.clone().unbind();
        Some(Self { object, items })
    }

    /// Returns whether `object` is the recorded object and has the same items.
    ///
    /// # Safety
    ///
    /// The interpreter is attached. `object` is a pointer to an object or to freed memory: it is dereferenced only if
    /// it is equal to the recorded pointer.
    unsafe fn matches(&self, object: *mut ffi::PyObject) -> bool {
        if object != self.object.as_ptr() {
            return false;
        }
        match &self.items {
            Items::None => true,
            Items::List(items) => {
                // SAFETY: the object is the recorded list, which `self` has kept alive. The items are borrowed; no
                // Python code runs between reading the length and reading them.
                unsafe {
                    ffi::PyList_Size(object) == items.len() as isize
                        && items.iter().enumerate().all(|(index, held)| {
                            held.matches(ffi::PyList_GetItem(object, index as isize))
                        })
                }
            }
            Items::Fixed(items) => {
                // SAFETY: as above.
                unsafe {
                    ffi::PyList_Size(object) == items.len() as isize
                        && items.iter().enumerate().all(|(index, held)| {
                            ffi::PyList_GetItem(object, index as isize) == held.as_ptr()
                        })
                }
            }
            Items::Dict(items) => {
                let mut next = items.iter();
                let mut position = 0;
                let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
                // SAFETY: as above, for a dictionary.
                unsafe {
                    ffi::PyDict_Size(object) == items.len() as isize
                        && std::iter::from_fn(|| {
                            let more =
                                ffi::PyDict_Next(object, &mut position, &mut key, &mut value);
                            (more != 0).then_some((key, value))
                        })
                        .all(|(key, value)| {
                            next.next().is_some_and(|(held_key, held_value)| {
                                held_key.matches(key) && held_value.matches(value)
                            })
                        })
                }
            }
        }
    }
}

/// Returns whether an object cannot change.
fn is_fixed(object: &Bound<'_, PyAny>, depth: u32) -> bool {
    // A class is sent by its name, or has a definition of its own.
    if object.is_none()
        || object.is_instance_of::<PyType>()
        || object.is_exact_instance_of::<PyInt>()
        || object.is_exact_instance_of::<PyString>()
        || object.is_exact_instance_of::<PyFloat>()
        || object.is_exact_instance_of::<PyBool>()
        || object.is_exact_instance_of::<PyBytes>()
        || object.is_exact_instance_of::<PyComplex>()
    {
        return true;
    }
    if depth > DEEPEST {
        return false;
    }
    if let Ok(tuple) = object.cast_exact::<PyTuple>() {
        return tuple.iter().all(|item| is_fixed(&item, depth + 1));
    }
    object
        .cast_exact::<PyFrozenSet>()
        .is_ok_and(|set| set.iter().all(|item| is_fixed(&item, depth + 1)))
}

#[pymethods]
impl Snapshot {
    /// Records the present items of a list or dictionary; returns `None` if it contains an object of another type that
    /// can change.
    #[staticmethod]
    fn of(object: &Bound<'_, PyAny>) -> Option<Self> {
        Held::new(object, 0).map(Self)
    }

    /// Returns whether the container still has the same items.
    fn is_current(&self, py: Python<'_>) -> bool {
        let object = self.0.object.bind(py);
        // SAFETY: the interpreter is attached, and the reference lives as long as `self`.
        unsafe { self.0.matches(object.as_ptr()) }
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
