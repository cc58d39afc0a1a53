//! How much freed memory the C library's allocator keeps.

/// Lets the allocator keep `bytes` of what this process frees, and serve blocks of up to half of that from it.
///
/// By itself it gives back what is free at the end of its heap as soon as that is more than 128 KiB, or twice the largest
/// block that was ever freed. A program that makes the same few buffers again and again then has the kernel
/// clear and map each of their pages again and again.
///
/// Does nothing where the environment has set the allocator up already, or where the C library is not glibc.
pub fn keep_freed(bytes: u64) {
    #[cfg(target_env = "gnu")]
    if !is_set_up() {
        let keep = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: takes numbers, under the allocator's own lock. Its answer says whether the option is known: then nothing
        // is kept, as before.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, keep);
            libc::mallopt(libc::M_MMAP_THRESHOLD, keep / 2);
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

#[cfg(target_env = "gnu")]
fn is_set_up() -> bool {
    let old = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"];
    let tunables = std::env::var("GLIBC_TUNABLES").unwrap_or_default();
    tunables.contains("glibc.malloc.") || old.iter().any(|name| std::env::var_os(name).is_some())
}
