//! How much freed memory the C library's allocator retains.

/// glibc's default `M_MMAP_THRESHOLD` in bytes: larger blocks get a mapping of their own.
#[cfg(target_env = "gnu")]
const MAPPED: u64 = 128 << 10;

/// Makes the allocator retain up to `bytes` of freed memory at the end of its heap, and serve blocks of up to half of
/// that from the heap. If more is free, it returns all of it. Each allocating thread but the first has a heap of its
/// own.
///
/// By default glibc returns the free end of its heap once that exceeds 128 KiB, or twice the largest block ever freed.
/// A program that allocates the same few buffers repeatedly then has Linux clear and map each of their pages
/// repeatedly.
///
/// Does nothing for small values of `bytes`, where the environment configures the allocator, and where the C library is
/// not glibc.
pub fn keep_freed(bytes: u64) {
    #[cfg(target_env = "gnu")]
    if bytes / 2 >= MAPPED && !is_set_up() {
        let keep = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: takes numbers, under the allocator's own lock. A return value of 0 means that the option is unknown:
        // memory is then returned as before.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, keep);
            libc::mallopt(libc::M_MMAP_THRESHOLD, keep / 2);
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

/// Whether the environment configures when memory is returned.
#[cfg(target_env = "gnu")]
fn is_set_up() -> bool {
    let old = ["TRIM_THRESHOLD", "MMAP_THRESHOLD", "TOP_PAD", "MMAP_MAX"];
    let tunables = std::env::var("GLIBC_TUNABLES").unwrap_or_default();
    old.iter().any(|name| {
        let tunable = format!("glibc.malloc.{}=", name.to_lowercase());
        tunables.contains(&tunable) || std::env::var_os(format!("MALLOC_{name}_")).is_some()
    })
}
