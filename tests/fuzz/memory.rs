//! The maximum memory that a thread holds during an operation, whether allocated by Rust or by a C library.
//!
//! Both call `malloc`, which this program replaces by one that counts and calls the C library's, as its manual allows
//! ("Replacing malloc"). For alignments above 16 bytes Rust calls `posix_memalign`.

use std::cell::Cell;

thread_local! {
    // Constant and without destructors, so that they allocate nothing themselves.
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Where the C library's functions have other names, nothing is counted, and the test below reports that.
#[cfg(target_env = "gnu")]
mod counting {
    use std::ffi::{c_int, c_void};

    use super::{HELD, PEAK};

    unsafe extern "C" {
        fn __libc_malloc(size: usize) -> *mut c_void;
        fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
        fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
        fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
        fn __libc_free(block: *mut c_void);
    }

    /// Counts a new block, if it was allocated.
    fn come(block: *mut c_void) -> *mut c_void {
        let _ = HELD.try_with(|held| {
            held.set(held.get() + size_of(block));
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
        });
        block
    }

    /// Counts a block that is freed. Another thread may have allocated it.
    fn go(size: usize) {
        let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(size)));
    }

    /// The usable size that the C library gave the block; 0 for none.
    fn size_of(block: *mut c_void) -> usize {
        // SAFETY: a block of this allocator, or null.
        unsafe { libc::malloc_usable_size(block) }
    }

    #[unsafe(no_mangle)]
    extern "C" fn malloc(size: usize) -> *mut c_void {
        // SAFETY: passes its arguments on to the C library.
        come(unsafe { __libc_malloc(size) })
    }

    #[unsafe(no_mangle)]
    extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
        // SAFETY: as above.
        come(unsafe { __libc_calloc(count, size) })
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
        let before = size_of(block);
        // SAFETY: the caller's promises are passed on.
        let moved = unsafe { __libc_realloc(block, size) };
        // A refused block is still there. The old and the new block are not counted at the same time.
        if !moved.is_null() || size == 0 {
            go(before);
        }
        come(moved)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn posix_memalign(to: *mut *mut c_void, align: usize, size: usize) -> c_int {
        // SAFETY: passes its arguments on to the C library.
        let block = come(unsafe { __libc_memalign(align, size) });
        if block.is_null() {
            return libc::ENOMEM;
        }
        // SAFETY: guaranteed by the caller.
        unsafe { to.write(block) };
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn free(block: *mut c_void) {
        go(size_of(block));
        // SAFETY: the caller's promises are passed on.
        unsafe { __libc_free(block) }
    }
}

/// Returns the result of `f`, and the maximum number of bytes that this thread held while it ran, beyond what it held
/// before.
pub fn with_peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = f();
    (result, PEAK.get() - before)
}

#[test]
fn memory_of_c_libraries_counts() {
    const MIB: usize = 1 << 20;
    let (block, peak) = with_peak(|| std::hint::black_box(vec![7u8; MIB]));
    assert!((MIB..2 * MIB).contains(&peak), "{peak}");
    drop(block);
    let (width, height) = (1000, 1000);
    let picture = vec![0; width * height * 3];
    let (file, peak) = with_peak(|| {
        let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
        encoder.set_size(width, height);
        // All coefficients, two bytes each, are held until the last row.
        encoder.set_progressive_mode();
        let mut encoder = encoder.start_compress(Vec::new()).unwrap();
        encoder.write_scanlines(&picture).unwrap();
        encoder.finish().unwrap()
    });
    assert!(peak > width * height * 2, "{} bytes, {peak}", file.len());
}
