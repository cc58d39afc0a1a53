//! How much memory a thread holds at most while it does something, whether Rust asks for it or a library in C.
//!
//! Both ask `malloc`, and this program has its own, which counts and goes on to that of the C library: as its manual allows
//! ("Replacing malloc"). What is aligned beyond 16 bytes Rust gets from `posix_memalign`.

use std::cell::Cell;

thread_local! {
    // Without a destructor and known from the start, so that they need no memory themselves.
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Where the C library has other names for its own, nothing is counted, and the test below says so.
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

    /// Notes a block that has come, if there was memory for it.
    fn come(block: *mut c_void) -> *mut c_void {
        let _ = HELD.try_with(|held| {
            held.set(held.get() + size_of(block));
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
        });
        block
    }

    /// Notes that a block goes. Another thread may have made it.
    fn go(size: usize) {
        let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(size)));
    }

    /// What was asked for, and what the C library has made of that. Of none it is 0.
    fn size_of(block: *mut c_void) -> usize {
        // SAFETY: a block of this allocator, or none.
        unsafe { libc::malloc_usable_size(block) }
    }

    #[unsafe(no_mangle)]
    extern "C" fn malloc(size: usize) -> *mut c_void {
        // SAFETY: goes on to the C library as it came.
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
        // One that was refused is still there. The old and the new one are not counted as there at once.
        if !moved.is_null() || size == 0 {
            go(before);
        }
        come(moved)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn posix_memalign(to: *mut *mut c_void, align: usize, size: usize) -> c_int {
        // SAFETY: goes on to the C library as it came.
        let block = come(unsafe { __libc_memalign(align, size) });
        if block.is_null() {
            return libc::ENOMEM;
        }
        // SAFETY: the caller's promise.
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

/// What `f` returns, and the most bytes that this thread held while it ran, beyond what it held before.
pub fn with_peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = f();
    (result, PEAK.get() - before)
}

#[test]
fn memory_of_c_counts_as_that_of_rust_does() {
    const MIB: usize = 1 << 20;
    let (block, peak) = with_peak(|| std::hint::black_box(vec![7u8; MIB]));
    assert!((MIB..2 * MIB).contains(&peak), "{peak}");
    drop(block);
    let (width, height) = (1000, 1000);
    let picture = vec![0; width * height * 3];
    let (file, peak) = with_peak(|| {
        let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
        encoder.set_size(width, height);
        // All coefficients, two bytes each, are held until the last row is there.
        encoder.set_progressive_mode();
        let mut encoder = encoder.start_compress(Vec::new()).unwrap();
        encoder.write_scanlines(&picture).unwrap();
        encoder.finish().unwrap()
    });
    assert!(peak > width * height * 2, "{} bytes, {peak}", file.len());
}
