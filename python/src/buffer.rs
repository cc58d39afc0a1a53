//! Buffers over memory of the arena ([`Buffer`]), and the search for memory by its address.

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_int;
use std::ops::Range;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arenite::{Array, ArrayMut};
use arenite_memory::PrivateCopy;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::layout::Layout;

/// Stands for the arena of the task that this worker runs. The arenas of engines have numbers from 1.
pub const TASK: u64 = 0;
/// Stands for memory outside arenas: sealed memory files and snapshots. The workers of every engine map them, except
/// sandboxed workers.
pub const FILE: u64 = u64::MAX;

/// The number of memory handles in this process.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static NEXT_KEY: AtomicU64 = AtomicU64::new(0);
/// All memory that can be found by its address. The second part of a key makes it unique.
static KNOWN: Mutex<BTreeMap<(usize, u64), Known>> = Mutex::new(BTreeMap::new());

/// How many start addresses a search visits, from the searched address down. Blocks are disjoint, so one start address
/// would suffice, but there may be handles to parts of a block.
const LOOK_BACK: usize = 64;

struct Known {
    len: usize,
    arena: u64,
    bytes: Bytes,
}

/// The memory of an entry of [`KNOWN`].
#[derive(Clone)]
enum Bytes {
    Memory(Weak<Memory>),
    /// A private copy of memory of the arena.
    Private(Weak<PrivateCopy>),
}

fn known() -> MutexGuard<'static, BTreeMap<(usize, u64), Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds an entry that contains these bytes and for which `is_right` is true. Returns the entry's start address, arena
/// and memory.
fn look_up(
    address: usize,
    len: usize,
    is_right: impl Fn(&Known) -> bool,
) -> Option<(usize, u64, Bytes)> {
    let known = known();
    let (mut place, mut places) = (None, 0);
    let before = known.range(..=(address, u64::MAX)).rev();
    let mut before = before.take_while(|((start, _), _)| {
        places += usize::from(place.replace(*start) != Some(*start));
        places <= LOOK_BACK
    });
    before.find_map(|(&(start, _), entry)| {
        let fits = address - start <= entry.len && len <= entry.len - (address - start);
        (fits && is_right(entry)).then(|| (start, entry.arena, entry.bytes.clone()))
    })
}

/// Returns a new key of [`KNOWN`] for an address.
fn key(first: *const u8) -> (usize, u64) {
    // Relaxed: only uniqueness counts.
    (first.addr(), NEXT_KEY.fetch_add(1, Ordering::Relaxed))
}

/// A handle to memory of an arena, shared by all buffers that view it.
///
/// No Rust reference to writable bytes may exist: Python code may write the bytes, in this process or in a task that
/// borrows them.
pub struct Memory {
    array: Array<u8>,
    len: usize,
    arena: u64,
    key: (usize, u64),
    writable: bool,
}

impl Memory {
    /// Registers an array of an arena by its address. `writable`: whether Python may write to the array.
    pub fn new(array: Array<u8>, arena: u64, writable: bool) -> Arc<Self> {
        let memory = Self::unlisted(array, arena, writable);
        if memory.len > 0 {
            let entry = Known {
                len: memory.len,
                arena,
                bytes: Bytes::Memory(Arc::downgrade(&memory)),
            };
            known().insert(memory.key, entry);
        }
        memory
    }

    /// Like [`new`](Self::new), but a search by address does not find the memory: it is lent to a task, and must not
    /// become part of the task's result.
    pub fn unlisted(array: Array<u8>, arena: u64, writable: bool) -> Arc<Self> {
        let len = array.shape().dims().iter().product();
        let array = array
            .reshape([len])
            .unwrap_or_else(|error| unreachable!("the number of elements is the same: {error}"));
        let key = key(array.as_ptr());
        // Relaxed: read by the thread that runs the job.
        LIVE.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            array,
            len,
            arena,
            key,
            writable,
        })
    }

    fn part(&self, range: Range<usize>) -> Array<u8> {
        self.array.rows(range)
    }

    /// Copies bytes into new memory without forming a Rust reference to them, because Python code may write the bytes
    /// meanwhile.
    fn copy(&self, range: Range<usize>) -> Array<u8> {
        // If the arena is full, this panics with `ArenaFull`, which the program gets as the failure of the task.
        let mut copy = ArrayMut::<u8>::uninit(range.len());
        let from = self.part(range);
        // SAFETY: `from` keeps `range.len()` bytes mapped at its address. The copy has the same length; this function
        // has just allocated it, and no other code has its address.
        unsafe {
            copy.as_mut_ptr()
                .copy_from_nonoverlapping(from.as_ptr(), from.len());
        }
        copy.seal()
    }
}

/// A range of bytes in the result of a task.
pub struct ReturnedBytes {
    memory: Arc<Memory>,
    range: Range<usize>,
}

/// Makes returned memory read-only for this process, or copies it. Returns the arrays, and the number of bytes copied.
///
/// Python code may still refer to memory that the task has allocated, and could write to it: by an array or a view in a
/// cache, by a `memoryview`, or by an object in a reference cycle. Each of these has a handle to the memory, so the
/// memory has more handles than `returned` contains. Then the program gets one copy for all returned parts of this
/// memory. The caller must have dropped the Python objects from which `returned` was made, and must have the
/// interpreter attached, so that no other thread makes a handle meanwhile.
pub fn publish(returned: Vec<ReturnedBytes>) -> (Vec<Array<u8>>, u64) {
    let mut memories: HashMap<*const Memory, (usize, Range<usize>)> = HashMap::new();
    for ReturnedBytes { memory, range } in &returned {
        let first = || (0, range.clone());
        let (handles, all) = memories.entry(Arc::as_ptr(memory)).or_insert_with(first);
        *handles += 1;
        *all = all.start.min(range.start)..all.end.max(range.end);
    }
    let mut copies: HashMap<*const Memory, Array<u8>> = HashMap::new();
    let mut copied = 0;
    let mut arrays = Vec::with_capacity(returned.len());
    for ReturnedBytes { memory, range } in &returned {
        let (handles, all) = &memories[&Arc::as_ptr(memory)];
        if !memory.writable || Arc::strong_count(memory) == *handles {
            arrays.push(memory.part(range.clone()));
            continue;
        }
        let copy = copies.entry(Arc::as_ptr(memory)).or_insert_with(|| {
            copied += all.len() as u64;
            memory.copy(all.clone())
        });
        arrays.push(copy.rows(range.start - all.start..range.end - all.start));
    }
    (arrays, copied)
}

impl Drop for Memory {
    fn drop(&mut self) {
        known().remove(&self.key);
        LIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the number of memory handles that Python objects of this process own.
pub fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Bytes in shared memory, for `memoryview`, `numpy.frombuffer` and every other consumer of buffers.
///
/// The memory is freed when the last buffer, view or array over it is dropped, and cannot be freed earlier.
#[pyclass(frozen, weakref, module = "arenite._arenite")]
pub struct Buffer {
    memory: Arc<Memory>,
    start: usize,
    len: usize,
    /// Whether a task that gets this buffer may write to the memory.
    lent: bool,
    /// The bytes that the task reads or writes, if it is not all of them.
    layout: Option<Layout>,
    /// Whether [`find`](Self::find) was called with an address in a private copy.
    of_private: bool,
}

impl Buffer {
    /// Returns a buffer of all bytes of a memory handle.
    pub fn whole(memory: Arc<Memory>) -> Self {
        let len = memory.len;
        Self {
            memory,
            start: 0,
            len,
            lent: false,
            layout: None,
            of_private: false,
        }
    }

    /// Returns the `len` bytes at an address if they belong to `arena` or, with `files`, to a sealed memory file. With
    /// `writable`, read-only handles are ignored. If the address belongs to a private copy whose bytes were not
    /// written, returns the original of these bytes.
    pub fn find(
        address: usize,
        len: usize,
        arena: u64,
        files: bool,
        writable: bool,
    ) -> Option<Self> {
        let is_right = |found: u64| found == arena || files && found == FILE;
        let (start, arena, bytes) = look_up(address, len, |entry| {
            is_right(entry.arena)
                && match &entry.bytes {
                    Bytes::Memory(memory) => memory
                        .upgrade()
                        .is_some_and(|memory| memory.writable || !writable),
                    Bytes::Private(_) => !writable,
                }
        })?;
        let at = address - start;
        match bytes {
            Bytes::Memory(memory) => Some(Self {
                memory: memory.upgrade()?,
                start: at,
                len,
                lent: false,
                layout: None,
                of_private: false,
            }),
            Bytes::Private(copy) => {
                let array = copy.upgrade()?.unwritten(at..at + len)?;
                Some(Self::of_private_copy(array, arena))
            }
        }
    }

    /// Returns a snapshot of the `len` bytes at this address, if they lie in a private copy of memory of this arena,
    /// and the number of bytes that had to be copied because they were written. Returns `None` if they do not, or if a
    /// copy made by the caller costs less.
    pub fn snapshot(address: usize, len: usize, arena: u64) -> Option<(Self, usize)> {
        let is_private = |entry: &Known| matches!(entry.bytes, Bytes::Private(_));
        let (start, arena, bytes) = look_up(address, len, |entry| {
            entry.arena == arena && is_private(entry)
        })?;
        let Bytes::Private(copy) = bytes else {
            return None;
        };
        let at = address - start;
        let (array, copied) = copy.upgrade()?.snapshot(at..at + len)?;
        Some((Self::of_private_copy(array, arena), copied))
    }

    fn of_private_copy(array: Array<u8>, arena: u64) -> Self {
        Self {
            of_private: true,
            ..Self::whole(Memory::unlisted(array, arena, false))
        }
    }

    /// Like [`find`](Self::find), for the bytes of an object with a contiguous buffer.
    pub fn find_object(object: &Bound<'_, PyAny>, arena: u64, files: bool) -> Option<Self> {
        let buffer = PyUntypedBuffer::get(object).ok()?;
        if !buffer.is_c_contiguous() && !buffer.is_fortran_contiguous() {
            return None;
        }
        let address = buffer.buf_ptr().addr();
        Self::find(address, buffer.len_bytes(), arena, files, false)
    }

    /// Returns these bytes as a part of a task's result.
    pub fn returned(&self) -> ReturnedBytes {
        ReturnedBytes {
            memory: Arc::clone(&self.memory),
            range: self.start..self.start + self.len,
        }
    }

    /// Returns a handle to exactly these bytes.
    pub fn array(&self) -> Array<u8> {
        self.memory.part(self.start..self.start + self.len)
    }

    /// Like [`array`](Self::array), but returns `None` if Python can write to the bytes: the memory that a job reads
    /// must be read-only.
    pub fn sealed(&self) -> Option<Array<u8>> {
        (!self.memory.writable).then(|| self.array())
    }

    pub fn is_writable(&self) -> bool {
        self.memory.writable
    }

    pub fn is_lent(&self) -> bool {
        self.lent
    }

    /// Returns the address range of these bytes.
    pub fn addresses(&self) -> Range<usize> {
        let first = self.memory.key.0 + self.start;
        first..first + self.len
    }

    /// Returns the bytes that a task reads or writes.
    pub fn layout(&self) -> Layout {
        let all = || Layout::new(self.addresses().start, self.len, &[], &[]);
        self.layout.clone().unwrap_or_else(all)
    }
}

/// Maps a sealed memory file. The caller keeps the descriptor.
#[pyfunction]
pub fn map_file(fd: RawFd) -> PyResult<Buffer> {
    // SAFETY: the caller keeps the descriptor open until this function returns.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let array = arenite::raw::map_sealed(fd.try_clone_to_owned()?)?;
    Ok(Buffer::whole(Memory::new(array, FILE, false)))
}

#[pymethods]
impl Buffer {
    /// The address of the first byte in this process.
    #[getter]
    fn address(&self) -> usize {
        self.addresses().start
    }

    /// The number of bytes.
    #[getter]
    fn nbytes(&self) -> usize {
        self.len
    }

    /// Whether views of this buffer are read-only.
    #[getter]
    fn readonly(&self) -> bool {
        !self.memory.writable
    }

    /// Returns a private copy of these bytes, which only this process can change (a task or the program); `None` if the
    /// system cannot make a private copy.
    fn private_copy(&self) -> Option<PrivateBuffer> {
        let arena = self.memory.arena;
        let copy = PrivateCopy::of(&self.array())?;
        // Relaxed: read by the thread that runs the job.
        LIVE.fetch_add(1, Ordering::Relaxed);
        // In a task the copy is not registered: a result gets an ordinary copy of its bytes.
        let key = (arena != TASK).then(|| {
            let key = key(copy.as_ptr());
            let entry = Known {
                len: self.len,
                arena,
                bytes: Bytes::Private(Arc::downgrade(&copy)),
            };
            known().insert(key, entry);
            key
        });
        Some(PrivateBuffer { copy, key })
    }

    /// Whether this process can write to these bytes, through this handle or another handle.
    #[getter]
    fn lendable(&self) -> bool {
        let address = self.addresses().start;
        self.memory.writable
            || Self::find(address, self.len, self.memory.arena, false, true).is_some()
    }

    /// Whether this buffer was found by an address in a private copy. A task may write to its private copy.
    #[getter]
    fn of_private(&self) -> bool {
        self.of_private
    }

    /// Whether this buffer is lent to its task for writing.
    #[getter]
    fn lent(&self) -> bool {
        self.lent
    }

    /// Returns this buffer for an array of these bytes that has gaps, and elements. `address`: that of its first
    /// element. A task writes to no other bytes.
    fn for_array(
        &self,
        address: usize,
        itemsize: usize,
        shape: Vec<usize>,
        strides: Vec<isize>,
    ) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            layout: Some(Layout::new(address, itemsize, &shape, &strides)),
            ..*self
        }
    }

    /// Returns a buffer of the same bytes that is lent for writing to one task.
    pub fn lend(&self) -> PyResult<Self> {
        if !self.memory.writable {
            return Err(PyValueError::new_err(
                "this memory is read-only and cannot be lent for writing",
            ));
        }
        Ok(Self {
            memory: Arc::clone(&self.memory),
            lent: true,
            layout: self.layout.clone(),
            ..*self
        })
    }

    fn __len__(&self) -> usize {
        self.len
    }

    fn __repr__(&self) -> String {
        let kind = if self.memory.writable {
            "writable"
        } else {
            "read-only"
        };
        format!("<arenite buffer: {} bytes, {kind}>", self.len)
    }

    /// # Safety
    ///
    /// The interpreter calls this, with a view to fill.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        let first = this.memory.array.as_ptr().wrapping_add(this.start);
        let readonly = !this.memory.writable;
        // SAFETY: the interpreter passes a valid view. The view refers to this object, whose handle keeps the block or
        // lease of the bytes, so they stay mapped. This process may write to the bytes unless `readonly` is set.
        unsafe {
            fill(
                view,
                slf.as_any(),
                first.cast_mut(),
                this.len,
                readonly,
                flags,
            )
        }
    }
}

/// Fills a view with the bytes of an object.
///
/// # Safety
///
/// `view` is valid. The bytes are readable as long as the object lives, and writable unless `readonly` is set.
unsafe fn fill(
    view: *mut ffi::Py_buffer,
    object: &Bound<'_, PyAny>,
    first: *mut u8,
    len: usize,
    readonly: bool,
    flags: c_int,
) -> PyResult<()> {
    // SAFETY: the caller promises this.
    let code = unsafe {
        ffi::PyBuffer_FillInfo(
            view,
            object.as_ptr(),
            first.cast(),
            len.cast_signed(),
            c_int::from(readonly),
            flags,
        )
    };
    match code {
        0 => Ok(()),
        _ => Err(PyErr::fetch(object.py())),
    }
}

/// A private copy: an argument that its task may change, or a result that the program may change.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct PrivateBuffer {
    copy: Arc<PrivateCopy>,
    /// The key of the copy in [`KNOWN`], in the program.
    key: Option<(usize, u64)>,
}

impl Drop for PrivateBuffer {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            known().remove(key);
        }
        LIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

#[pymethods]
impl PrivateBuffer {
    /// # Safety
    ///
    /// The interpreter calls this, with a view to fill.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let copy = &slf.get().copy;
        // SAFETY: the interpreter passes a valid view. This process may read and write the copy as long as this object
        // lives.
        unsafe { fill(view, slf.as_any(), copy.as_ptr(), copy.len(), false, flags) }
    }

    fn __len__(&self) -> usize {
        self.copy.len()
    }
}
