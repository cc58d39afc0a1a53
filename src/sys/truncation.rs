//! Explains a SIGBUS that is caused by the truncation of a mapped segment.
//!
//! Any process that may open a segment for writing can truncate it. The next access beyond the segment's end raises
//! SIGBUS, anywhere in the program. The program cannot continue, since its data may be lost. The process ends, but a
//! handler prints the reason first.

use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::inject::allowed;

/// Maximum number of maps that can be watched at once. A SIGBUS in any other map ends the process without explanation.
const SLOTS: usize = 2048;

/// One watched map. Written by the owner of the slot (see [`Watched`]), read by the signal handler.
struct Slot {
    /// 0 while the slot is not filled.
    base: AtomicUsize,
    /// 0 while the slot is free.
    len: AtomicUsize,
    fd: AtomicI32,
    /// 0 for a control segment, 1 for region 0, and so on.
    which: AtomicUsize,
}

static MAPS: [Slot; SLOTS] = [const {
    Slot {
        base: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        fd: AtomicI32::new(-1),
        which: AtomicUsize::new(0),
    }
}; SLOTS];

/// The action for SIGBUS that was installed before [`explain`].
static BEFORE: OnceLock<SigAction> = OnceLock::new();

/// Installs the handler, once. If this fails, it is tried again for the next watched map.
fn explain_once() {
    static INSTALLING: Mutex<()> = Mutex::new(());
    if BEFORE.get().is_some() {
        return;
    }
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if BEFORE.get().is_some() {
        return;
    }
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(explain), flags, SigSet::empty());
    // SAFETY: `explain` makes async-signal-safe calls only.
    let before = allowed().and_then(|()| unsafe { sigaction(Signal::SIGBUS, &action) });
    if let Ok(before) = before {
        // Cannot fail: the lock is held, and it was empty.
        let _ = BEFORE.set(before);
    }
}

/// A map that is watched until this value is dropped; `None` if all slots were taken.
#[derive(Debug)]
pub struct Watched(Option<usize>);

/// Watches a map: if an access to it ends the process, the handler prints the reason on stderr. `region` is `None` for
/// a control segment.
///
/// The first call installs a SIGBUS handler, which passes every other SIGBUS to the program's own handler.
pub fn watch(base: NonNull<u8>, len: usize, fd: RawFd, region: Option<u16>) -> Watched {
    explain_once();
    let address = base.as_ptr().expose_provenance();
    let free = MAPS.iter().position(|slot| {
        // Acquire: "slot left", pairs with the last store of `Watched::drop`.
        let taken = slot
            .len
            .compare_exchange(0, len, Ordering::AcqRel, Ordering::Relaxed);
        taken.is_ok()
    });
    if let Some(index) = free {
        let slot = &MAPS[index];
        slot.fd.store(fd, Ordering::Relaxed);
        let which = region.map_or(0, |region| usize::from(region) + 1);
        slot.which.store(which, Ordering::Relaxed);
        // Release: "slot filled", pairs with `explain`.
        slot.base.store(address, Ordering::Release);
    }
    Watched(free)
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(index) = self.0 {
            // Release, both. The first: "slot emptied", pairs with `explain`. The second: "slot left", pairs with
            // `watch`.
            MAPS[index].base.store(0, Ordering::Release);
            MAPS[index].len.store(0, Ordering::Release);
        }
    }
}

/// Handles SIGBUS: prints an explanation if the address is in a watched map, then lets the program's own action end the
/// process.
extern "C" fn explain(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: Linux passes a siginfo that is valid during this call.
    let address = unsafe { (*info).si_addr() } as usize;
    let hit = MAPS.iter().find(|slot| {
        // Acquire: "slot filled", pairs with `watch`.
        let base = slot.base.load(Ordering::Acquire);
        base != 0
            && (base..base.saturating_add(slot.len.load(Ordering::Relaxed))).contains(&address)
    });
    let before = BEFORE.get();
    if let Some(slot) = hit {
        let mut text = Text::default();
        text.push(b"arenite: the memory behind ");
        match slot.which.load(Ordering::Relaxed) {
            0 => text.push(b"the control segment"),
            which => {
                text.push(b"region ");
                text.number(which as u64 - 1);
            }
        }
        text.push(b" is gone: its segment was truncated by another process of this user");
        // SAFETY: fstat writes into a local buffer and is async-signal-safe.
        let len = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            (libc::fstat(slot.fd.load(Ordering::Relaxed), &raw mut stat) == 0)
                .then_some(stat.st_size)
        };
        if let Some(len) = len {
            text.push(b" (");
            text.number(len.unsigned_abs());
            text.push(b" bytes are left)");
        }
        text.push(b", or /dev/shm has no room for a page of it. This program cannot continue. ");
        text.push(b"Backing::Sealed protects segments from truncation.\n");
        // SAFETY: writes bytes of this stack to a descriptor; write is async-signal-safe.
        unsafe { libc::write(2, text.bytes.as_ptr().cast(), text.len) };
    } else if let Some(SigHandler::SigAction(handler)) = before.map(SigAction::handler) {
        return handler(signal, info, context);
    }
    // Restore the previous action: when this handler returns, the access is repeated and the previous action ends the
    // process.
    if let Some(before) = before {
        // SAFETY: this is the action that the program had installed itself.
        let _ = unsafe { sigaction(Signal::SIGBUS, before) };
    }
}

/// A line of text that is built without allocating.
struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Default for Text {
    fn default() -> Text {
        Text {
            bytes: [0; 512],
            len: 0,
        }
    }
}

impl Text {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if let Some(free) = self.bytes.get_mut(self.len) {
                *free = byte;
                self.len += 1;
            }
        }
    }

    fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_built_without_allocating() {
        let mut text = Text::default();
        text.push(b"a ");
        for number in [0, 7, 10, u64::MAX] {
            text.number(number);
            text.push(b" ");
        }
        assert_eq!(&text.bytes[..text.len], b"a 0 7 10 18446744073709551615 ");
        (0..100).for_each(|_| text.push(b"more than fits"));
        assert_eq!(text.len, 512);
    }
}
