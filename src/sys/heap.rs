//! How much freed memory the C library's allocator keeps.

/// What a block has to have at least for the allocator to map it by itself, unless it is told otherwise.
const MAPPED: u64 = 128 << 10;

/// Lets the allocator keep what this process frees as long as less than `bytes` are free at the end of its heap, and serve blocks
/// of up to half of that from it. When there is more it gives all of that back; each thread that allocates beside the first
/// has a heap of its own.
///
/// By itself it gives back what is free at the end of its heap as soon as that is more than 128 KiB, or twice the largest
/// block that was ever freed. A program that makes the same few buffers again and again then has the kernel
/// clear and map each of their pages again and again.
///
/// Does nothing for a few bytes, where the environment has set the allocator up already, or where the C library is not glibc.
pub fn keep_freed(bytes: u64) {
    #[cfg(target_env = "gnu")]
    if bytes / 2 >= MAPPED && !is_set_up() {
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

/// Whether the environment has a word on when memory goes back.
#[cfg(target_env = "gnu")]
fn is_set_up() -> bool {
    let old = ["TRIM_THRESHOLD", "MMAP_THRESHOLD", "TOP_PAD", "MMAP_MAX"];
    let tunables = std::env::var("GLIBC_TUNABLES").unwrap_or_default();
    old.iter().any(|name| {
        let tunable = format!("glibc.malloc.{}=", name.to_lowercase());
        tunables.contains(&tunable) || std::env::var_os(format!("MALLOC_{name}_")).is_some()
    })
}
