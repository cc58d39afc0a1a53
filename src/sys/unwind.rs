//! Walks the stack of a crashed thread, in its signal handler.
//!
//! Uses the unwind tables, with the same unwinder as panics. Frame pointers would be simpler to walk, but neither Rust
//! nor C compilers make them by default. `_Unwind_Backtrace` allocates nothing. From glibc 2.35 and GCC 12 on it finds
//! the tables without a lock (`_dl_find_object`); older versions take the loader's lock. The unwinder trusts the stack:
//! if the stack was overwritten, the unwinder may crash. Then the process ends, and the frames found until then are
//! recorded.

use std::ffi::{c_int, c_void};
use std::ops::ControlFlow;

/// `_URC_NO_REASON` and `_URC_NORMAL_STOP`.
const CONTINUE: c_int = 0;
const STOP: c_int = 4;

type OnFrame = extern "C" fn(*mut c_void, *mut c_void) -> c_int;

unsafe extern "C" {
    fn _Unwind_Backtrace(on_frame: OnFrame, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn _Unwind_GetCFA(context: *mut c_void) -> usize;
}

/// Walks the stack of this thread once and ignores the result, so that later walks need less stack. The dynamic linker
/// looks up a function of another library at its first call. The look-up saves the vector registers, which takes about
/// 3 KiB of stack on a processor with AVX-512: too much for a signal handler on a small stack.
pub(super) fn prepare() {
    walk(|_, _| ControlFlow::Continue(()));
}

/// Calls `on_frame` with the instruction pointer and the stack address of each frame of this thread, the innermost
/// first, until `on_frame` returns `Break`.
pub(super) fn walk<F: FnMut(usize, usize) -> ControlFlow<()>>(mut on_frame: F) {
    extern "C" fn call<F: FnMut(usize, usize) -> ControlFlow<()>>(
        context: *mut c_void,
        argument: *mut c_void,
    ) -> c_int {
        // SAFETY: the argument is the address of `on_frame` below, which nothing else uses meanwhile; the unwinder
        // passes its own context.
        let flow = unsafe {
            let on_frame = &mut *argument.cast::<F>();
            on_frame(_Unwind_GetIP(context), _Unwind_GetCFA(context))
        };
        match flow {
            ControlFlow::Continue(()) => CONTINUE,
            ControlFlow::Break(()) => STOP,
        }
    }
    // SAFETY: calls `call` with the address of `on_frame`, which outlives the call.
    unsafe { _Unwind_Backtrace(call::<F>, (&raw mut on_frame).cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_from_the_innermost_to_the_outermost() {
        let mut last = 0;
        let mut count = 0;
        walk(|instruction, stack| {
            assert!(stack >= last);
            last = stack;
            count += 1;
            match instruction {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        assert!(count > 3, "{count}");
        let mut seen = 0;
        walk(|_, _| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert_eq!(seen, 1);
    }
}
