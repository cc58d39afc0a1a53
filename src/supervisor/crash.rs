//! Classifies a crash: which part of the arena, or which argument of the job, the faulting address lies in.
//!
//! All data about a crash comes from a possibly hostile worker. It is compared with the supervisor's own records, and
//! affects only the text of an error.

use super::error::{Crash, CrashClass, JobErrorKind, Stack, fatal_signal};
use super::output::last_words::LastWords;
use super::record::Record;
use super::worker::Worker;
use crate::arena::Arena;
use crate::kernel::wire::Lease;
use crate::link::SPILLED;
use crate::sys::crash::{Area, CrashedAccess, Located, NotedCrash};

/// An access below this address counts as one through a null pointer, at an offset. Linux maps nothing there
/// (`vm.mmap_min_addr`).
const NULL_PAGES: u64 = 64 << 10;
/// How far below the stack pointer a stack overflow may access memory, in bytes: code that does not probe its stack may
/// access any part of its frame first.
const BELOW_STACK: u64 = 1 << 20;
/// How far above the stack pointer a stack overflow may access memory, in bytes: the function may have moved the
/// pointer to the end of its frame.
const ABOVE_STACK: u64 = 64 << 10;

/// `si_code` of SIGSEGV: the address is mapped, without permission for this access.
const SEGV_ACCERR: i32 = 2;
/// `si_code` of SIGSEGV without an address.
const SI_KERNEL: i32 = 0x80;
/// `si_code` of SIGBUS: the address is beyond the mapped object.
const BUS_ADRERR: i32 = 2;
/// `si_code` of SIGFPE: an integer division by zero.
const FPE_INTDIV: i32 = 1;
/// `si_code` of SIGFPE: an integer overflow.
const FPE_INTOVF: i32 = 2;

impl Record {
    /// Describes the crash of the worker that ran this job, if the job ended because of it.
    pub(super) fn crash(
        &self,
        worker: Option<&Worker>,
        arena: &Arena,
        kind: &JobErrorKind,
    ) -> Option<Crash> {
        let signal = fatal_signal(kind)?;
        let noted = worker?.last_words().crash.as_ref()?;
        if noted.signal != signal {
            return None;
        }
        let class = match noted.located {
            Some(located) => self.class_in_arena(arena, located),
            None => class_outside(noted),
        };
        Some(crash(noted, class))
    }

    /// Classifies an address in the arena, for this job.
    fn class_in_arena(&self, arena: &Arena, located: Located) -> CrashClass {
        let Located {
            area,
            region,
            offset,
        } = located;
        if area == Area::Control {
            return CrashClass::Records;
        }
        for (at, lease) in self.leases.iter().enumerate() {
            let (Lease::Shared(block) | Lease::Owned(block) | Lease::Loan { block, .. }) = lease
            else {
                continue;
            };
            let extent = block.extent();
            let is_inside = extent.at.region() == region
                && offset
                    .checked_sub(extent.at.offset())
                    .is_some_and(|byte| byte < block.held());
            if !is_inside {
                continue;
            }
            // The block with the words of the call comes last.
            if self.form & SPILLED != 0 && at + 1 == self.leases.len() {
                return CrashClass::Arguments;
            }
            return CrashClass::Input {
                array: at + 1,
                offset: offset - extent.at.offset(),
                len: extent.len,
            };
        }
        match arena.is_free(region, offset) {
            true => CrashClass::Unused { region, offset },
            false => CrashClass::Published { region, offset },
        }
    }
}

/// Describes the crash of a worker that was not ready yet, with the names of the functions on its stack.
pub(super) fn crash_in_start(words: &LastWords, cause: &JobErrorKind) -> Option<Crash> {
    let noted = words.crash.as_ref()?;
    if fatal_signal(cause) != Some(noted.signal) {
        return None;
    }
    let class = match noted.located {
        None => class_outside(noted),
        Some(Located {
            area: Area::Control,
            ..
        }) => CrashClass::Records,
        Some(Located { region, offset, .. }) => CrashClass::Published { region, offset },
    };
    let crash = crash(noted, class);
    crash.frames();
    Some(crash)
}

fn crash(noted: &NotedCrash, class: CrashClass) -> Crash {
    Crash {
        signal: noted.signal,
        code: noted.code,
        class,
        address: noted.address,
        access: noted.access,
        instruction: noted.instruction,
        stack: Stack::of(noted),
    }
}

/// Classifies a crash at an address outside the arena.
fn class_outside(noted: &NotedCrash) -> CrashClass {
    let NotedCrash { signal, code, .. } = *noted;
    if code <= 0 {
        return match signal {
            libc::SIGABRT => CrashClass::Abort,
            _ => CrashClass::Raised,
        };
    }
    match (signal, code, noted.address) {
        (libc::SIGSEGV, SI_KERNEL, _) => CrashClass::Impossible,
        (libc::SIGSEGV, _, Some(address)) => segv(noted, address),
        (libc::SIGBUS, BUS_ADRERR, _) => CrashClass::BeyondFile,
        (libc::SIGBUS, _, _) => CrashClass::Hardware,
        (libc::SIGILL | libc::SIGTRAP, _, _) => CrashClass::Instruction,
        (libc::SIGFPE, FPE_INTDIV | FPE_INTOVF, _) => CrashClass::Division,
        (libc::SIGFPE, _, _) => CrashClass::Arithmetic,
        (libc::SIGABRT, _, _) => CrashClass::Abort,
        _ => CrashClass::Unknown,
    }
}

fn segv(noted: &NotedCrash, address: u64) -> CrashClass {
    if address < NULL_PAGES {
        return CrashClass::Null;
    }
    let around_stack =
        noted.stack.saturating_sub(BELOW_STACK)..=noted.stack.saturating_add(ABOVE_STACK);
    if noted.access != Some(CrashedAccess::Execute) && around_stack.contains(&address) {
        let depth = noted
            .stack_start
            .and_then(|start| start.checked_sub(noted.stack));
        return CrashClass::StackOverflow { depth };
    }
    match noted.code {
        SEGV_ACCERR => CrashClass::Protected,
        _ => CrashClass::Unmapped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noted(signal: i32, code: i32, address: Option<u64>) -> NotedCrash {
        NotedCrash {
            signal,
            code,
            access: Some(CrashedAccess::Write),
            located: None,
            address,
            instruction: 0x1000,
            stack: 0x7fff_0000_0000,
            stack_start: Some(0x7fff_0010_0000),
            frames: Vec::new(),
            omitted: (0, 0),
            files: Vec::new(),
        }
    }

    #[test]
    fn addresses_have_classes() {
        let class = |address| class_outside(&noted(libc::SIGSEGV, 1, Some(address)));
        assert_eq!(class(0), CrashClass::Null);
        assert_eq!(class(0xffff), CrashClass::Null);
        assert_eq!(class(0x1_0000), CrashClass::Unmapped);
        let overflow = CrashClass::StackOverflow {
            depth: Some(1 << 20),
        };
        assert_eq!(class(0x7ffe_ffff_fff8), overflow);
        assert_eq!(class(0x7fff_0000_0010), overflow);
        assert_eq!(class(0x7fff_1000_0000), CrashClass::Unmapped);
        let mut protected = noted(libc::SIGSEGV, SEGV_ACCERR, Some(1 << 40));
        assert_eq!(class_outside(&protected), CrashClass::Protected);
        protected.code = SI_KERNEL;
        protected.address = None;
        assert_eq!(class_outside(&protected), CrashClass::Impossible);
    }

    #[test]
    fn signals_have_classes() {
        let class = |signal, code| class_outside(&noted(signal, code, None));
        assert_eq!(class(libc::SIGABRT, libc::SI_TKILL), CrashClass::Abort);
        assert_eq!(class(libc::SIGSEGV, libc::SI_TKILL), CrashClass::Raised);
        assert_eq!(class(libc::SIGFPE, FPE_INTDIV), CrashClass::Division);
        assert_eq!(class(libc::SIGFPE, 3), CrashClass::Arithmetic);
        assert_eq!(class(libc::SIGILL, 2), CrashClass::Instruction);
        assert_eq!(class(libc::SIGBUS, BUS_ADRERR), CrashClass::BeyondFile);
        assert_eq!(class(libc::SIGBUS, 4), CrashClass::Hardware);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
        /// Whatever a worker claims, the crash has a class.
        #[test]
        fn any_claims_have_a_class(
            signal: i32, code: i32, address: Option<u64>, stack: u64, stack_start: Option<u64>,
        ) {
            let claimed = NotedCrash { stack, stack_start, ..noted(signal, code, address) };
            class_outside(&claimed);
        }
    }
}
