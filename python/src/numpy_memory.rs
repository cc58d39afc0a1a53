//! numpy's allocator: large arrays of the program are born in memory of which tasks read snapshots.
//!
//! numpy takes the memory of arrays from four functions in its default handler (NEP 49). `install` replaces these in
//! place. `PyDataMem_SetHandler` would be per context, and threads start with a context of their own. Arrays that were
//! made before are freed by the functions that made them, which an address tells.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use arenite::raw::CowHeap;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::process::is_worker;

/// Smaller arrays stay where they are.
const LARGE: usize = 1 << 20;
/// The same, or more than any array has while nothing new is to be made here.
static FROM: AtomicUsize = AtomicUsize::new(LARGE);

/// About the largest piece of memory that changes when glibc takes memory from Linux, and returns it.
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
    /// numpy's own functions.
    before: Functions,
}

// SAFETY: the context is numpy's, which passes it from any thread; nothing here looks behind the pointer.
unsafe impl Send for Installed {}
// SAFETY: as above.
unsafe impl Sync for Installed {}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// What was installed before numpy could call any of the functions below.
fn installed() -> &'static Installed {
    INSTALLED.get().unwrap_or_else(|| std::process::abort())
}

unsafe extern "C" fn malloc(_: *mut c_void, size: usize) -> *mut c_void {
    let Installed { heap, before } = installed();
    // Relaxed: a switch.
    if size >= FROM.load(Ordering::Relaxed)
        && let Some(block) = heap.alloc(size, false)
    {
        return block.as_ptr().cast();
    }
    // SAFETY: numpy's own function, with its context.
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
    // SAFETY: as above.
    unsafe { (before.calloc)(before.context, count, size) }
}

unsafe extern "C" fn realloc(context: *mut c_void, old: *mut c_void, size: usize) -> *mut c_void {
    let Installed { heap, before } = installed();
    let known = NonNull::new(old.cast::<u8>());
    let Some((block, len)) = known.and_then(|at| Some((at, heap.len_of(at.addr().get())?))) else {
        // SAFETY: numpy's own function, which has allocated this, with its context.
        return unsafe { (before.realloc)(before.context, old, size) };
    };
    // SAFETY: a block of the heap, which numpy gives up for what is returned.
    unsafe {
        if heap.resize(block, size) {
            return old;
        }
        let new = malloc(context, size);
        if let Some(new) = NonNull::new(new.cast::<u8>()) {
            // Both have as many bytes, and the new one was just made.
            new.copy_from_nonoverlapping(block, len.min(size));
            heap.free(block);
        }
        new
    }
}

unsafe extern "C" fn free(_: *mut c_void, at: *mut c_void, size: usize) {
    let Installed { heap, before } = installed();
    // SAFETY: numpy does not use it any more. What is not of the heap is of numpy's own functions.
    unsafe {
        if !NonNull::new(at.cast::<u8>()).is_some_and(|block| heap.free(block)) {
            (before.free)(before.context, at, size);
        }
    }
}

/// Lets numpy make large arrays in memory of which tasks read snapshots, from now on, or where it made them before.
/// Does nothing in a worker.
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
    // SAFETY: the capsule's pointer is numpy's table of functions and variables. Entry 306 is the address of the
    // variable `PyDataMem_DefaultHandler` in all versions that have it (1.22 and newer), a capsule with a handler.
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
    // SAFETY: a handler of numpy, which lives as long as the process. Its version is read before what depends on it.
    // Other threads may call its functions meanwhile: each of the four is a word, both the old and the new ones accept
    // what the other has allocated if it comes later, and the new ones find what was installed.
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
        // Freeing a large array tells glibc to keep more memory for small ones, and from now on none comes to it.
        let large = (before.malloc)(before.context, ADAPTED);
        (before.free)(before.context, large, ADAPTED);
        if INSTALLED.set(Installed { heap, before }).is_ok() {
            let functions = &raw mut (*handler).functions;
            // First what frees: a block is only made behind it.
            (&raw mut (*functions).free).write_volatile(free);
            (&raw mut (*functions).realloc).write_volatile(realloc);
            (&raw mut (*functions).calloc).write_volatile(calloc);
            (&raw mut (*functions).malloc).write_volatile(malloc);
        }
    }
    Ok(())
}

/// The bytes at this address as they are now, if numpy has made them here, and the number of those that were copied
/// because they were written since the last time. `None` also if a copy by the caller costs less.
pub fn snapshot(address: usize, len: usize) -> Option<(arenite::Array<u8>, usize)> {
    INSTALLED.get()?.heap.snapshot(address, len)
}

/// The number of bytes in arrays that numpy has made in shared memory, and of freed ones that are kept for reuse.
#[pyfunction]
pub fn numpy_memory() -> (usize, usize) {
    INSTALLED
        .get()
        .map_or((0, 0), |installed| installed.heap.in_use())
}
