//! An allocator for numpy: it places large arrays of the program in memory whose snapshots tasks can read.
//!
//! numpy allocates the memory of arrays by four functions of its default handler (NEP 49). `install` replaces these
//! functions in place: `PyDataMem_SetHandler` would act on one context, and each thread starts with a new context. The
//! address of an array tells which allocator must free it, so older arrays are still freed by numpy's functions.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use arenite_memory::CowHeap;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::process::is_worker;

/// The smallest array, in bytes, that is placed in shared memory.
const LARGE: usize = 1 << 20;
/// The size from which on arrays are placed in shared memory: [`LARGE`], or `usize::MAX` while the allocator is off.
static FROM: AtomicUsize = AtomicUsize::new(LARGE);

/// About the largest block size to which glibc raises its threshold for using `mmap`.
const ADAPTED: usize = 31 << 20;

/// `PyDataMemAllocator` of numpy's `ndarraytypes.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Functions {
    context: *mut c_void,
    malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

/// `PyDataMem_Handler`, version 1.
#[repr(C)]
struct Handler {
    name: [c_char; 127],
    version: u8,
    functions: Functions,
}

struct Installed {
    heap: &'static CowHeap,
    /// The functions that numpy had before the installation.
    before: Functions,
}

// SAFETY: the context is numpy's: numpy passes it from any thread, and this module does not read the memory behind it.
unsafe impl Send for Installed {}
// SAFETY: as for `Send`.
unsafe impl Sync for Installed {}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// Returns the installed allocator. `install` sets it before numpy can call the functions below.
fn installed() -> &'static Installed {
    INSTALLED.get().unwrap_or_else(|| std::process::abort())
}

unsafe extern "C" fn malloc(_: *mut c_void, size: usize) -> *mut c_void {
    let Installed { heap, before } = installed();
    // Relaxed: no other data depends on the switch.
    if size >= FROM.load(Ordering::Relaxed)
        && let Some(block) = heap.alloc(size, false)
    {
        return block.as_ptr().cast();
    }
    // SAFETY: this calls numpy's own function with its own context.
    unsafe { (before.malloc)(before.context, size) }
}

unsafe extern "C" fn calloc(_: *mut c_void, count: usize, size: usize) -> *mut c_void {
    let Installed { heap, before } = installed();
    if let Some(all) = count.checked_mul(size)
        && all >= FROM.load(Ordering::Relaxed)
        && let Some(block) = heap.alloc(all, true)
    {
        return block.as_ptr().cast();
    }
    // SAFETY: this calls numpy's own function with its own context.
    unsafe { (before.calloc)(before.context, count, size) }
}

unsafe extern "C" fn realloc(context: *mut c_void, old: *mut c_void, size: usize) -> *mut c_void {
    let Installed { heap, before } = installed();
    let known = NonNull::new(old.cast::<u8>());
    let Some((block, len)) = known.and_then(|at| Some((at, heap.len_of(at.addr().get())?))) else {
        // SAFETY: this calls numpy's own function, which has allocated the block, with its own context.
        return unsafe { (before.realloc)(before.context, old, size) };
    };
    // SAFETY: `block` belongs to the heap. numpy passes it for reallocation, and uses only the returned block
    // afterwards.
    unsafe {
        if heap.resize(block, size) {
            return old;
        }
        let new = malloc(context, size);
        if let Some(new) = NonNull::new(new.cast::<u8>()) {
            // Both blocks have at least this length, and only this function has the address of `new`.
            new.copy_from_nonoverlapping(block, len.min(size));
            heap.free(block);
        }
        new
    }
}

unsafe extern "C" fn free(_: *mut c_void, at: *mut c_void, size: usize) {
    let Installed { heap, before } = installed();
    // SAFETY: numpy does not use the block any more. A block outside the heap was allocated by numpy's own functions.
    unsafe {
        if !NonNull::new(at.cast::<u8>()).is_some_and(|block| heap.free(block)) {
            (before.free)(before.context, at, size);
        }
    }
}

/// Turns the placement of large arrays in shared memory on or off for later allocations. Does nothing in a worker.
#[pyfunction]
#[pyo3(signature = (on=true))]
pub fn install(py: Python<'_>, on: bool) -> PyResult<()> {
    static ONCE: Mutex<()> = Mutex::new(());
    if is_worker() {
        return Ok(());
    }
    FROM.store(if on { LARGE } else { usize::MAX }, Ordering::Relaxed);
    if !on || INSTALLED.get().is_some() {
        return Ok(());
    }
    let unknown = || PyRuntimeError::new_err("this numpy has no data handler that arenite knows");
    let module = py
        .import("numpy._core._multiarray_umath")
        .or_else(|_| py.import("numpy.core._multiarray_umath"))?;
    let table = module.getattr("_ARRAY_API")?;
    // SAFETY: the capsule contains numpy's table of functions and variables. In all versions that have
    // `PyDataMem_DefaultHandler` (1.22 and newer), entry 306 is the address of this variable: a capsule with a handler.
    let handler = unsafe {
        let api = ffi::PyCapsule_GetPointer(table.as_ptr(), std::ptr::null()).cast::<*mut c_void>();
        if api.is_null() {
            return Err(PyErr::fetch(py));
        }
        let default = (*api.add(306)).cast::<*mut ffi::PyObject>();
        if default.is_null() || ffi::PyCapsule_IsValid(*default, c"mem_handler".as_ptr()) == 0 {
            return Err(unknown());
        }
        ffi::PyCapsule_GetPointer(*default, c"mem_handler".as_ptr()).cast::<Handler>()
    };
    let _once = ONCE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the handler is numpy's and lives as long as the process. Its version is checked before the fields that
    // depend on it are read. Other threads may call its functions meanwhile: each of the four is one word. numpy's
    // functions and the new ones accept each other's blocks in the order of the writes below, and the new ones find the
    // installed allocator.
    unsafe {
        if (*handler).version != 1 {
            return Err(unknown());
        }
        let heap = CowHeap::new("arenite-numpy").map_err(|why| {
            PyOSError::new_err(format!(
                "numpy's arrays cannot be made in shared memory: {why}"
            ))
        })?;
        let before = (*handler).functions;
        // Freeing a large block raises glibc's threshold, after which glibc reuses memory for smaller arrays. Large
        // arrays do not use glibc from here on, so raise the threshold once by this block.
        let large = (before.malloc)(before.context, ADAPTED);
        (before.free)(before.context, large, ADAPTED);
        if INSTALLED.set(Installed { heap, before }).is_ok() {
            let functions = &raw mut (*handler).functions;
            // Installs the freeing functions first: no block of the heap exists before they are in place.
            (&raw mut (*functions).free).write_volatile(free);
            (&raw mut (*functions).realloc).write_volatile(realloc);
            (&raw mut (*functions).calloc).write_volatile(calloc);
            (&raw mut (*functions).malloc).write_volatile(malloc);
        }
    }
    Ok(())
}

/// Returns a snapshot of the bytes at this address, if numpy has allocated them by this module, and the number of bytes
/// that had to be copied because they were written since the last snapshot. Returns `None` if it has not, or if a copy
/// made by the caller costs less.
pub fn snapshot(address: usize, len: usize) -> Option<(arenite::Array<u8>, usize)> {
    INSTALLED.get()?.heap.snapshot(address, len)
}

/// Returns the number of bytes in numpy's arrays in shared memory, and the number in freed blocks that will be reused.
#[pyfunction]
pub fn numpy_memory() -> (usize, usize) {
    INSTALLED
        .get()
        .map_or((0, 0), |installed| installed.heap.in_use())
}
