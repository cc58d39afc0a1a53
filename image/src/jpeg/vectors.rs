//! Loops with the vectors of the processor at hand.

#[cfg(target_arch = "x86_64")]
use fearless_simd::{Level, Simd};

/// Does it with the instructions of AVX2 and its time, where this processor has them. What is `#[inline(always)]` all the way down is
/// compiled for them and once more without. With those of AVX-512 the same loops took half as long again.
#[inline(always)]
pub(super) fn vectorized<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = Level::new().as_avx2() {
        return simd.vectorize(work);
    }
    work()
}
