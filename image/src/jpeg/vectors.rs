//! Vector instructions of the processor.

#[cfg(target_arch = "x86_64")]
use fearless_simd::{Level, Simd};

/// Runs `work` compiled for AVX2 if this processor has it. Code that is `#[inline(always)]` at every level is compiled
/// both with and without AVX2. With AVX-512 the same loops take one and a half times as long.
#[inline(always)]
pub(super) fn vectorized<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = Level::new().as_avx2() {
        return simd.vectorize(work);
    }
    work()
}
