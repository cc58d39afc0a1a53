//! The registers of a crashed thread, by processor.

use std::ffi::c_void;

use super::{CrashedAccess, NotedCrash};

/// The registers of a crashed thread that are recorded.
#[derive(Clone, Copy)]
pub(super) struct Registers {
    pub(super) instruction: u64,
    pub(super) stack: u64,
    pub(super) access: Option<CrashedAccess>,
}

impl Registers {
    /// # Safety
    /// `context` must be that of a running signal handler.
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn read(context: *const c_void) -> Self {
        /// The number of the exception for a failed memory access.
        const PAGE_FAULT: i64 = 14;
        // SAFETY: the caller guarantees it.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let error = registers[libc::REG_ERR as usize];
        Self {
            instruction: registers[libc::REG_RIP as usize].cast_unsigned(),
            stack: registers[libc::REG_RSP as usize].cast_unsigned(),
            access: (registers[libc::REG_TRAPNO as usize] == PAGE_FAULT).then_some(
                if error & 16 != 0 {
                    CrashedAccess::Execute
                } else if error & 2 != 0 {
                    CrashedAccess::Write
                } else {
                    CrashedAccess::Read
                },
            ),
        }
    }

    /// If the thread has called an address without code, changes the context to that of the caller, because an unwinder
    /// cannot step out of an unknown function. Returns the return address.
    ///
    /// # Safety
    /// `context` must be that of a running signal handler.
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn step_out_of_call(crash: &NotedCrash, context: *mut c_void) -> Option<u64> {
        if crash.access != Some(CrashedAccess::Execute) {
            return None;
        }
        // SAFETY: the caller guarantees it. A call has just written the return address to the stack. If it was a jump
        // instead, with a wrong stack pointer, this crashes, and the process ends with the note as it is.
        unsafe {
            let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
            let caller = (crash.stack as *const u64).read_volatile();
            registers[libc::REG_RIP as usize] = caller.cast_signed();
            registers[libc::REG_RSP as usize] += 8;
            Some(caller)
        }
    }

    /// Restores the context that [`step_out_of_call`](Self::step_out_of_call) has changed.
    ///
    /// # Safety
    /// `context` must be that of a running signal handler; `instruction` and `stack` must be its former values.
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn restore(instruction: u64, stack: u64, context: *mut c_void) {
        // SAFETY: the caller guarantees it.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        registers[libc::REG_RIP as usize] = instruction.cast_signed();
        registers[libc::REG_RSP as usize] = stack.cast_signed();
    }

    /// As on x86_64, but the return address is in a register.
    ///
    /// # Safety
    /// `context` must be that of a running signal handler.
    #[cfg(target_arch = "aarch64")]
    pub(super) unsafe fn step_out_of_call(crash: &NotedCrash, context: *mut c_void) -> Option<u64> {
        if crash.access != Some(CrashedAccess::Execute) {
            return None;
        }
        // SAFETY: the caller guarantees it.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
        registers.pc = registers.regs[30];
        Some(registers.pc)
    }

    /// Restores the context that [`step_out_of_call`](Self::step_out_of_call) has changed.
    ///
    /// # Safety
    /// `context` must be that of a running signal handler; `instruction` must be its former value.
    #[cfg(target_arch = "aarch64")]
    pub(super) unsafe fn restore(instruction: u64, _stack: u64, context: *mut c_void) {
        // SAFETY: the caller guarantees it.
        unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.pc = instruction };
    }

    /// # Safety
    /// `context` must be that of a running signal handler.
    #[cfg(target_arch = "aarch64")]
    pub(super) unsafe fn read(context: *const c_void) -> Self {
        /// The offset of the records from the beginning of the registers.
        const RECORDS: usize =
            (std::mem::offset_of!(libc::mcontext_t, pstate) + 8).next_multiple_of(16);
        const _: () = assert!(size_of::<libc::mcontext_t>() >= RECORDS + 4096);
        // SAFETY: the caller guarantees it. Linux has written 4096 bytes of records.
        let (registers, records) = unsafe {
            let registers = &raw const (*context.cast::<libc::ucontext_t>()).uc_mcontext;
            let records = registers.byte_add(RECORDS).cast::<u64>();
            (&*registers, std::slice::from_raw_parts(records, 512))
        };
        let is_jump = registers.pc == registers.fault_address;
        let access = access_by_syndrome(records);
        Self {
            instruction: registers.pc,
            stack: registers.sp,
            access: access.or_else(|| is_jump.then_some(CrashedAccess::Execute)),
        }
    }
}

/// Returns the kind of the memory access by the exception syndrome, a record that Linux writes after the registers on
/// aarch64.
#[cfg(any(target_arch = "aarch64", test))]
fn access_by_syndrome(mut records: &[u64]) -> Option<CrashedAccess> {
    /// `ESR_MAGIC`.
    const SYNDROME: u32 = 0x4553_5201;
    /// Set if the access of a data abort was a write.
    const IS_WRITE: u64 = 1 << 6;
    loop {
        // The kind of the record, and its length in bytes.
        let &head = records.first()?;
        let (kind, len) = (head as u32, (head >> 32) as usize);
        if kind == SYNDROME {
            let &syndrome = records.get(1)?;
            return match (syndrome >> 26) & 0x3f {
                // Instruction aborts and data aborts, of the same and of a lower exception level.
                0x20 | 0x21 => Some(CrashedAccess::Execute),
                0x24 | 0x25 if syndrome & IS_WRITE != 0 => Some(CrashedAccess::Write),
                0x24 | 0x25 => Some(CrashedAccess::Read),
                _ => None,
            };
        }
        // A record of kind 0 is the last.
        if kind == 0 || len < 8 {
            return None;
        }
        records = records.get(len / 8..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syndrome_of_aarch64_says_how_memory_was_accessed() {
        // Registers of floating-point numbers come first.
        let records = |syndrome: u64| {
            let mut records = vec![0; 512];
            records[0] = 0x4650_8001 | 528 << 32;
            records[66] = 0x4553_5201 | 16 << 32;
            records[67] = syndrome;
            records
        };
        for (syndrome, access) in [
            (0x9200_0046, Some(CrashedAccess::Write)),
            (0x9200_0006, Some(CrashedAccess::Read)),
            (0x8200_0006, Some(CrashedAccess::Execute)),
            (0x0200_0000, None),
        ] {
            assert_eq!(access_by_syndrome(&records(syndrome)), access);
        }
        let endless = [7; 3];
        let too_long = [7 | 4096 << 32, 0];
        for records in [&[0; 512][..], &[], &endless, &too_long, &records(0)[..67]] {
            assert_eq!(access_by_syndrome(records), None);
        }
    }
}
