//! Reads the pickles that sandboxed workers send: [`load_plain`].
//!
//! Code that has taken over a worker can choose each byte of a pickle. So this module reads the pickles instead of
//! Python's `pickle`. Reading ends with an error at an opcode outside the list, a function outside the table, or a
//! value beyond a limit, before the object in question is created. Pickles of honest workers are read as `pickle` reads
//! them, except that values that contain themselves are refused.

mod keys;
mod limits;
mod opcode;

use pyo3::exceptions::{PyException, PyMemoryError};
use pyo3::prelude::*;
use pyo3::types::{
    PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PyMemoryView, PySet,
    PyString, PyTuple,
};

use crate::buffer::{Buffer, PrivateBuffer};
use keys::{Keys, Probing};
use limits::{LONGEST_INT, Limits, Refusal, Step, beyond, damaged, unpickling_error};
use opcode::{self as op, Follows, follows};

/// How a container is filled.
enum Filled<'py> {
    List(Bound<'py, PyList>),
    Set(Bound<'py, PySet>),
    /// A dictionary, or an object of a subclass, filled as a mapping.
    Dict,
    /// An object that is filled by its method `append`.
    Appended,
}

/// How a container is filled that may still be filled, because no other object refers to it.
struct Filling<'py> {
    how: Filled<'py>,
    /// The index of the container in the memo.
    memo: Option<usize>,
    keys: Keys,
}

/// How objects that a function creates are filled.
#[derive(Clone, Copy, PartialEq)]
enum Makes {
    /// The objects are not filled.
    Whole,
    Appended,
    Dict,
    /// The objects are exceptions, whose texts are escaped copies of the arguments.
    Shown,
}

/// An entry of the stack or the memo.
struct Item<'py> {
    object: Bound<'py, PyAny>,
    /// The number of nested levels of containers; 0 for a number.
    depth: u32,
    /// The number of elements when the object is written out in full.
    elements: u64,
    /// How the created object is filled, if this is a function that may be called.
    makes: Option<Makes>,
    filling: Option<Box<Filling<'py>>>,
}

impl<'py> Item<'py> {
    fn new(object: Bound<'py, PyAny>, depth: u32, elements: u64) -> Self {
        Self {
            object,
            depth,
            elements,
            makes: None,
            filling: None,
        }
    }

    /// Returns another reference to the object, through which the object cannot be filled.
    fn again(&self) -> Self {
        Self {
            object: self.object.clone(),
            filling: None,
            ..*self
        }
    }
}

/// An entry of the memo.
enum Noted<'py> {
    Whole(Item<'py>),
    /// The stack index of a container that may still be filled.
    Filling(usize),
}

/// The number of bytes that an entry of the stack or the memo is counted with.
const ITEM: u64 = 2 * size_of::<Item<'_>>() as u64;

/// Returns the refusal for an exception that a function has raised for its arguments.
fn refused(error: PyErr, function: &Bound<'_, PyAny>) -> Refusal {
    let py = function.py();
    let says_why = unpickling_error(py).is_ok_and(|kind| error.is_instance(py, &kind));
    let is_of_arguments =
        error.is_instance_of::<PyException>(py) && !error.is_instance_of::<PyMemoryError>(py);
    if says_why || !is_of_arguments {
        return Refusal::Raised(error);
    }
    let name = function
        .getattr("__name__")
        .and_then(|name| name.extract::<String>());
    Refusal::Damaged(format!(
        "has a call of {} that it does not take: {error}",
        name.unwrap_or_default().trim_start_matches('_')
    ))
}

struct Reader<'a, 'py> {
    py: Python<'py>,
    stack: Vec<Item<'py>>,
    /// The largest number of items on the stack so far.
    highest: usize,
    /// The number of containers that may still be filled.
    filling: usize,
    most_filling: usize,
    /// The length of the stack at each mark.
    marks: Vec<usize>,
    memo: Vec<Noted<'py>>,
    buffers: std::vec::IntoIter<Bound<'py, PyAny>>,
    /// The functions that may be called: see `load_plain`.
    makers: &'a Bound<'py, PyDict>,
    limits: Limits,
}

impl<'py> Reader<'_, 'py> {
    fn push_item(&mut self, item: Item<'py>) -> Step<()> {
        self.stack.push(item);
        if self.stack.len() > self.highest {
            self.highest = self.stack.len();
            self.limits.memory(ITEM)?;
        }
        Ok(())
    }

    fn push(&mut self, object: Bound<'py, PyAny>, bytes: u64, elements: u64) -> Step<()> {
        self.limits.memory(bytes)?;
        self.push_item(Item::new(object, 0, elements))
    }

    fn push_filling(
        &mut self,
        object: Bound<'py, PyAny>,
        how: Filled<'py>,
        depth: u32,
        elements: u64,
    ) -> Step<()> {
        let probing = match how {
            Filled::Set(_) => Probing::Set,
            _ => Probing::Dict,
        };
        self.filling += 1;
        if self.filling > self.most_filling {
            self.most_filling = self.filling;
            self.limits.memory(size_of::<Filling<'_>>() as u64)?;
        }
        let mut item = Item::new(object, depth, elements);
        item.filling = Some(Box::new(Filling {
            how,
            memo: None,
            keys: Keys::new(probing),
        }));
        self.push_item(item)
    }

    /// Returns the length of the stack at the last mark; values below the mark cannot be popped.
    fn bottom(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    /// Pops the last value, which can be filled no more if it is a container.
    fn pop(&mut self) -> Step<Item<'py>> {
        match self.stack.pop() {
            Some(item) if self.stack.len() >= self.bottom() => Ok(self.whole(item)),
            _ => damaged("takes a value that is not there"),
        }
    }

    fn pop_last(&mut self, count: usize) -> Step<Vec<Item<'py>>> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Step<Vec<_>>>()?;
        items.reverse();
        Ok(items)
    }

    /// Pops the values since the last mark.
    fn pop_mark(&mut self) -> Step<Vec<Item<'py>>> {
        let Some(begin) = self.marks.pop() else {
            return damaged("has no mark where it needs one");
        };
        let items = self.stack.split_off(begin);
        Ok(items.into_iter().map(|item| self.whole(item)).collect())
    }

    /// Ends the filling of a container that becomes part of another container, because it may get further references.
    fn whole(&mut self, mut item: Item<'py>) -> Item<'py> {
        if let Some(filling) = item.filling.take() {
            self.filling -= 1;
            if let Some(at) = filling.memo {
                self.memo[at] = Noted::Whole(item.again());
            }
        }
        item
    }

    /// Returns the depth and the number of elements of a container after `items` are added to it.
    fn contain(&self, items: &[Item<'py>], depth: u32, elements: u64) -> Step<(u32, u64)> {
        let (mut depth, mut elements) = (depth, elements);
        for item in items {
            if item.makes.is_some() {
                return damaged("has a function in the place of a value");
            }
            depth = depth.max(item.depth + 1);
            elements = elements.saturating_add(item.elements);
        }
        self.limits.container(depth, elements)?;
        Ok((depth, elements))
    }

    fn tuple(&mut self, items: Vec<Item<'py>>) -> Step<()> {
        let (depth, elements) = self.contain(&items, 1, 1)?;
        self.limits.memory(56 + 8 * items.len() as u64)?;
        let objects: Vec<_> = items.into_iter().map(|item| item.object).collect();
        let tuple = PyTuple::new(self.py, objects)?.into_any();
        self.push_item(Item::new(tuple, depth, elements))
    }

    /// Adds values to the container that is last on the stack.
    fn fill(&mut self, items: Vec<Item<'py>>) -> Step<()> {
        let Some(mut target) = self
            .stack
            .pop()
            .filter(|_| self.stack.len() >= self.bottom())
        else {
            return damaged("fills a container that is not there");
        };
        (target.depth, target.elements) = self.contain(&items, target.depth, target.elements)?;
        let Some(filling) = &mut target.filling else {
            // Another object refers to the container already.
            return match target.depth {
                0 => damaged("fills what is no container"),
                _ => beyond("contains itself"),
            };
        };
        let Filling { how, keys, .. } = &mut **filling;
        match how {
            Filled::List(list) => {
                self.limits.memory(9 * items.len() as u64)?;
                for item in items {
                    self.limits.step(self.py)?;
                    list.append(item.object)?;
                }
            }
            Filled::Appended => {
                self.limits.memory(9 * items.len() as u64)?;
                for item in items {
                    self.limits.step(self.py)?;
                    target.object.call_method1("append", (item.object,))?;
                }
            }
            Filled::Set(set) => {
                for item in items {
                    self.limits.step(self.py)?;
                    self.limits.memory(100)?;
                    let hash = self.limits.look(keys, &item.object, item.elements)?;
                    let before = set.len();
                    set.add(item.object)?;
                    if set.len() > before {
                        keys.add(hash, item.elements);
                    }
                }
            }
            Filled::Dict => {
                if !items.len().is_multiple_of(2) {
                    return damaged("has a key without a value");
                }
                let mut items = items.into_iter();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    self.limits.step(self.py)?;
                    self.limits.memory(if keys.is_empty() { 160 } else { 64 })?;
                    let hash = self.limits.look(keys, &key.object, key.elements)?;
                    let before = target.object.len()?;
                    target.object.set_item(key.object, value.object)?;
                    if target.object.len()? > before {
                        keys.add(hash, key.elements);
                    }
                }
            }
        }
        self.push_item(target)
    }

    /// Calls a function of the table.
    fn reduce(&mut self) -> Step<()> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let Some(makes) = function.makes else {
            return damaged("calls what is no function");
        };
        let Ok(tuple) = arguments.object.cast_exact::<PyTuple>() else {
            return damaged("calls a function without a tuple of arguments");
        };
        if makes == Makes::Shown {
            // Each part is looked at, and texts are copied with escapes.
            self.limits.hashed(arguments.elements.saturating_mul(8))?;
            self.limits.memory(size_of_escaped(&arguments.object)?)?;
        } else {
            self.limits.hashed(arguments.elements)?;
        }
        let object = function
            .object
            .call1(tuple)
            .map_err(|error| refused(error, &function.object))?;
        let bytes: u64 = object.call_method0("__sizeof__")?.extract()?;
        self.limits.memory(bytes.saturating_add(32))?;
        let (depth, elements) = (arguments.depth, arguments.elements);
        match makes {
            Makes::Whole | Makes::Shown => self.push_item(Item::new(object, depth, elements)),
            Makes::Appended => self.push_filling(object, Filled::Appended, depth, elements),
            Makes::Dict => self.push_filling(object, Filled::Dict, depth, elements),
        }
    }

    fn function(&mut self) -> Step<()> {
        let names = self.pop_last(2)?;
        let [module, name] = names.as_slice() else {
            return damaged("takes a value that is not there");
        };
        let text = |item: &Item<'py>| item.object.extract::<String>();
        let (Ok(module), Ok(name)) = (text(module), text(name)) else {
            return damaged("has a function whose name is no text");
        };
        let Some(found) = self.makers.get_item((&module, &name))? else {
            return damaged(format!(
                "has a call of {module:.100}.{name:.100}, which is not allowed"
            ));
        };
        let (object, fills): (Bound<'py, PyAny>, Option<String>) = found.extract()?;
        let mut item = Item::new(object, 0, 1);
        item.makes = Some(match fills.as_deref() {
            None => Makes::Whole,
            Some("append") => Makes::Appended,
            Some("shown") => Makes::Shown,
            Some(_) => Makes::Dict,
        });
        self.push_item(item)
    }

    fn integer(&mut self, bytes: &[u8]) -> Step<()> {
        if bytes.len() > LONGEST_INT {
            return beyond(format!(
                "has an integer of {} bytes, beyond {LONGEST_INT}",
                bytes.len()
            ));
        }
        let number = match bytes.len() {
            0..=8 => {
                let is_negative = bytes.last().is_some_and(|&last| last >= 0x80);
                let mut filled = [if is_negative { 0xff } else { 0 }; 8];
                filled[..bytes.len()].copy_from_slice(bytes);
                i64::from_le_bytes(filled)
                    .into_pyobject(self.py)?
                    .into_any()
            }
            _ => {
                let signed = PyDict::new(self.py);
                signed.set_item("signed", true)?;
                self.py.get_type::<PyInt>().call_method(
                    "from_bytes",
                    (PyBytes::new(self.py, bytes), "little"),
                    Some(&signed),
                )?
            }
        };
        // Python has only one object for each small number.
        let size = if bytes.len() <= 1 {
            0
        } else {
            32 + bytes.len() as u64 / 3 * 4
        };
        self.push(number, size, 1 + bytes.len() as u64 / 8)
    }

    fn text(&mut self, bytes: &[u8]) -> Step<()> {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => {
                let width = match text.chars().max() {
                    None | Some(..'\u{100}') => 1,
                    Some('\u{100}'..'\u{10000}') => 2,
                    _ => 4,
                };
                self.limits
                    .memory(72 + width * text.chars().count() as u64)?;
                PyString::new(self.py, text).into_any()
            }
            // The text has lone surrogates, as file names may have.
            Err(_) => {
                self.limits.memory(72 + 4 * bytes.len() as u64)?;
                PyBytes::new(self.py, bytes).call_method1("decode", ("utf-8", "surrogatepass"))?
            }
        };
        self.push(text, 0, 1 + bytes.len() as u64 / 8)
    }

    fn memoize(&mut self) -> Step<()> {
        self.limits.memory(ITEM)?;
        let place = self.stack.len().wrapping_sub(1);
        let Some(item) = self.stack.last_mut() else {
            return damaged("notes a value that is not there");
        };
        let noted = match &mut item.filling {
            None => Noted::Whole(item.again()),
            Some(filling) if filling.memo.is_some() => return damaged("notes a container twice"),
            Some(filling) => {
                filling.memo = Some(self.memo.len());
                Noted::Filling(place)
            }
        };
        self.memo.push(noted);
        Ok(())
    }

    fn get(&mut self, number: usize) -> Step<()> {
        let item = match self.memo.get(number) {
            None => return damaged("refers to a value that is not there"),
            Some(Noted::Whole(item)) => item.again(),
            Some(&Noted::Filling(place)) => {
                // From here on another object may refer to the container, so it can no longer be filled. A container
                // that contains itself would be filled later, and is refused by that.
                let item = self.stack[place].again();
                self.stack[place].filling = None;
                self.filling -= 1;
                self.memo[number] = Noted::Whole(item.again());
                item
            }
        };
        self.push_item(item)
    }

    /// Executes an opcode. `content`: the bytes that follow it, without their length.
    fn step(&mut self, opcode: u8, content: &[u8]) -> Step<()> {
        let py = self.py;
        let number = || {
            let mut bytes = [0; 4];
            let len = content.len().min(4);
            bytes[..len].copy_from_slice(&content[..len]);
            u32::from_le_bytes(bytes)
        };
        match opcode {
            op::PROTO | op::FRAME => Ok(()),
            op::MARK => {
                self.limits.memory(8)?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::NONE => self.push(py.None().into_bound(py), 0, 1),
            op::NEWTRUE => self.push(true.into_pyobject(py)?.to_owned().into_any(), 0, 1),
            op::NEWFALSE => self.push(false.into_pyobject(py)?.to_owned().into_any(), 0, 1),
            op::BININT1 | op::BININT2 => {
                let bytes = if opcode == op::BININT1 { 0 } else { 32 };
                self.push(number().into_pyobject(py)?.into_any(), bytes, 1)
            }
            op::BININT => self.push(number().cast_signed().into_pyobject(py)?.into_any(), 32, 1),
            op::LONG1 | op::LONG4 => self.integer(content),
            op::BINFLOAT => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(content);
                self.push(
                    PyFloat::new(py, f64::from_be_bytes(bytes)).into_any(),
                    24,
                    1,
                )
            }
            op::SHORT_BINUNICODE | op::BINUNICODE | op::BINUNICODE8 => self.text(content),
            op::SHORT_BINBYTES | op::BINBYTES | op::BINBYTES8 => {
                let len = content.len() as u64;
                self.push(PyBytes::new(py, content).into_any(), 40 + len, 1 + len / 8)
            }
            op::BYTEARRAY8 => {
                let len = content.len() as u64;
                self.push(
                    PyByteArray::new(py, content).into_any(),
                    64 + len,
                    1 + len / 8,
                )
            }
            op::NEXT_BUFFER => match self.buffers.next() {
                Some(buffer) => {
                    // The program may write to each private copy, also to copies of the same memory.
                    let own = match buffer.is_instance_of::<PrivateBuffer>() {
                        true => buffer.len()? as u64,
                        false => 0,
                    };
                    self.push(buffer, own, 1)
                }
                None => damaged("refers to a buffer that is not there"),
            },
            op::READONLY_BUFFER => {
                let item = self.pop()?;
                let view = PyMemoryView::from(&item.object)?;
                // The opcode means that the worker could not write to the memory. The program, however, can write to
                // its private copy.
                if item.object.is_instance_of::<PrivateBuffer>()
                    || view.getattr("readonly")?.is_truthy()?
                {
                    return self.push_item(item);
                }
                self.push(view.call_method0("toreadonly")?, 200, 1)
            }
            op::EMPTY_TUPLE => self.tuple(Vec::new()),
            op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => {
                let items = self.pop_last(usize::from(opcode - op::TUPLE1) + 1)?;
                self.tuple(items)
            }
            op::TUPLE => {
                let items = self.pop_mark()?;
                self.tuple(items)
            }
            op::EMPTY_LIST => {
                self.limits.memory(72)?;
                let list = PyList::empty(py);
                self.push_filling(list.clone().into_any(), Filled::List(list), 1, 1)
            }
            op::EMPTY_DICT => {
                self.limits.memory(80)?;
                self.push_filling(PyDict::new(py).into_any(), Filled::Dict, 1, 1)
            }
            op::EMPTY_SET => {
                self.limits.memory(232)?;
                let set = PySet::empty(py)?;
                self.push_filling(set.clone().into_any(), Filled::Set(set), 1, 1)
            }
            op::APPEND => {
                let item = self.pop()?;
                self.fill(vec![item])
            }
            op::SETITEM => {
                let items = self.pop_last(2)?;
                self.fill(items)
            }
            op::APPENDS | op::SETITEMS | op::ADDITEMS => {
                let items = self.pop_mark()?;
                self.fill(items)
            }
            op::FROZENSET => {
                let items = self.pop_mark()?;
                self.limits.memory(232)?;
                let members: Vec<_> = items.iter().map(|item| item.object.clone()).collect();
                let set = PySet::empty(py)?;
                self.push_filling(set.clone().into_any(), Filled::Set(set.clone()), 1, 1)?;
                self.fill(items)?;
                let filled = self.pop()?;
                if set.len() < members.len() {
                    return damaged("has a set with a member twice");
                }
                // The frozen set repeats the probes, since the table of a copied set may have another size.
                let frozen = PyFrozenSet::new(py, members)?.into_any();
                self.push_item(Item::new(frozen, filled.depth, filled.elements))
            }
            op::MEMOIZE => self.memoize(),
            op::BINGET | op::LONG_BINGET => self.get(number() as usize),
            op::STACK_GLOBAL => self.function(),
            op::REDUCE => self.reduce(),
            _ => damaged(format!("contains the opcode {opcode:#04x}")),
        }
    }

    /// Reads a pickle to its end.
    fn read(&mut self, pickle: &[u8]) -> Step<Bound<'py, PyAny>> {
        let (mut at, mut frame_end) = (0, 0);
        loop {
            self.limits.step(self.py)?;
            let Some((&opcode, after)) = pickle.get(at..).and_then(<[u8]>::split_first) else {
                return damaged("has no end");
            };
            let number = |width: usize| {
                let mut bytes = [0; 8];
                bytes[..width].copy_from_slice(after.get(..width)?);
                usize::try_from(u64::from_le_bytes(bytes)).ok()
            };
            let (width, len) = match follows(opcode) {
                // `pickle` writes this opcode for a tuple that contains itself.
                None if matches!(opcode, op::POP | op::POP_MARK) => {
                    return beyond("contains itself");
                }
                None => return damaged(format!("contains the opcode {opcode:#04x}")),
                Some(Follows::Fixed(len)) => (0, Some(len)),
                Some(Follows::Counted(width)) => (width, number(width)),
            };
            let begin = at + 1 + width;
            let end = len.and_then(|len| len.checked_add(begin));
            let content = end.and_then(|end| pickle.get(begin..end));
            // `pickle` never writes an opcode that crosses the end of a frame.
            let Some(content) =
                content.filter(|content| at >= frame_end || begin + content.len() <= frame_end)
            else {
                return damaged("ends too early");
            };
            let end = begin + content.len();
            match opcode {
                op::STOP => {
                    let value = self.pop()?;
                    if !self.stack.is_empty() || !self.marks.is_empty() || value.makes.is_some() {
                        return damaged("ends with more or less than a value");
                    }
                    return Ok(value.object);
                }
                op::FRAME => {
                    let frame = number(8).and_then(|len| len.checked_add(end));
                    match frame.filter(|&frame| at >= frame_end && frame <= pickle.len()) {
                        Some(frame) => frame_end = frame,
                        None => return damaged("has a wrong frame"),
                    }
                }
                _ => self.step(opcode, content)?,
            }
            at = end;
        }
    }
}

/// Returns the largest size in bytes of the texts in a value after they were escaped.
fn size_of_escaped(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if value.is_instance_of::<PyString>() {
        // A character may become eight, of four bytes each if the text has another one that is as wide.
        return Ok(32 * value.len()? as u64);
    }
    if let Ok(parts) = value.cast_exact::<PyDict>() {
        return parts
            .values()
            .iter()
            .map(|part| size_of_escaped(&part))
            .sum();
    }
    if value.is_exact_instance_of::<PyTuple>() || value.is_exact_instance_of::<PyList>() {
        return value.try_iter()?.map(|part| size_of_escaped(&part?)).sum();
    }
    Ok(0)
}

/// Returns the value of a pickle that a sandboxed worker has sent. `buffers`: the objects that the pickle refers to, of
/// `buffered` bytes. `makers`: the functions that the pickle may call, by module and name; each is a tuple of the
/// function and the method that fills the created object ("append", "update" or `None`; "shown" for exceptions).
///
/// Raises `pickle.UnpicklingError` for every other pickle, and for a value that exceeds the limits of time, memory or
/// stack.
#[pyfunction]
pub fn load_plain<'py>(
    py: Python<'py>,
    pickle: &Bound<'py, PyAny>,
    buffers: Vec<Bound<'py, PyAny>>,
    buffered: u64,
    makers: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let sealed = match pickle.cast::<Buffer>() {
        Ok(buffer) => buffer.get().sealed(),
        Err(_) => None,
    };
    let pickle: &[u8] = match &sealed {
        Some(array) => array,
        None => pickle.cast::<PyBytes>()?.as_bytes(),
    };
    let mut reader = Reader {
        py,
        stack: Vec::new(),
        highest: 0,
        filling: 0,
        most_filling: 0,
        marks: Vec::new(),
        memo: Vec::new(),
        buffers: buffers.into_iter(),
        makers,
        limits: Limits::new(pickle.len() as u64, buffered),
    };
    let read = reader.read(pickle);
    read.map_err(|refusal| refusal.into_error(py))
}
