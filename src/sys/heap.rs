//! Sets how much freed memory the C library's allocator keeps.

/// glibc's default of `M_MMAP_THRESHOLD` in bytes: larger blocks get a map of their own.
#[cfg(target_env = "gnu")]
const MAPPED: u64 = 128 << 10;

/// Makes the allocator keep up to `bytes` of freed memory at the end of its heap, and allocate blocks of up to half of
/// `bytes` in the heap. If more memory at the end is free, the allocator returns all of it to Linux. Threads other than
/// the first have heaps of their own.
///
/// By default glibc returns the free end of its heap when the free end exceeds 128 KiB, or twice the largest block ever
/// freed. If a program allocates the same few buffers again and again, Linux then clears and maps each of their pages
/// again and again.
///
/// Does nothing if `bytes` is small, if the environment configures the allocator, or if the C library is not glibc.
pub fn keep_freed(bytes: u64) {
    #[cfg(target_env = "gnu")]
    if bytes / 2 >= MAPPED && !is_set_up() {
        let keep = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: takes numbers, under the allocator's own lock. It returns 0 if the option is unknown; then memory is
        // returned as before.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, keep);
            libc::mallopt(libc::M_MMAP_THRESHOLD, keep / 2);
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

/// Returns whether the environment configures when memory is returned.
#[cfg(target_env = "gnu")]
fn is_set_up() -> bool {
    let old = ["TRIM_THRESHOLD", "MMAP_THRESHOLD", "TOP_PAD", "MMAP_MAX"];
    let tunables = std::env::var("GLIBC_TUNABLES").unwrap_or_default();
    old.iter().any(|name| {
        let tunable = format!("glibc.malloc.{}=", name.to_lowercase());
        tunables.contains(&tunable) || std::env::var_os(format!("MALLOC_{name}_")).is_some()
    })
}
