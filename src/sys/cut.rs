//! What becomes of this process when somebody takes the memory behind its maps away.
//!
//! Whoever may open a segment for writing can cut it; the next access beyond its end is SIGBUS, wherever in the program
//! that is. There is no way to go on: what was read before may be gone too. So the process ends, but says why.

use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::inject::allowed;

/// Maps that can be watched at once. Further ones end the process without a reason.
const PLACES: usize = 2048;

/// One map: base 0 is a free place. Written by who owns the place, read by the signal handler.
struct Place {
    base: AtomicUsize,
    len: AtomicUsize,
    fd: AtomicI32,
    /// 0 for a control segment, 1 for region 0 and so on.
    which: AtomicUsize,
}

static MAPS: [Place; PLACES] = [const {
    Place {
        base: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        fd: AtomicI32::new(-1),
        which: AtomicUsize::new(0),
    }
}; PLACES];

/// What handled SIGBUS before.
static BEFORE: OnceLock<SigAction> = OnceLock::new();

/// Puts the handler before the program's own, once. Where that fails the next map tries again: until then the process ends
/// without a reason.
fn explain_once() {
    static TRYING: Mutex<()> = Mutex::new(());
    if BEFORE.get().is_some() {
        return;
    }
    let _trying = TRYING.lock().unwrap_or_else(PoisonError::into_inner);
    if BEFORE.get().is_some() {
        return;
    }
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(explain), flags, SigSet::empty());
    // SAFETY: `explain` only calls what a signal handler may call.
    let before = allowed().and_then(|()| unsafe { sigaction(Signal::SIGBUS, &action) });
    if let Ok(before) = before {
        // Set once: under the lock.
        let _ = BEFORE.set(before);
    }
}

/// A map that is watched until this is dropped.
#[derive(Debug)]
pub struct Watched(Option<usize>);

/// Has an access to this map that ends the process explained on stderr. `region` is `None` for a control segment.
///
/// The first call puts a handler of SIGBUS before the program's own, which it calls for everything else.
pub fn watch(base: NonNull<u8>, len: usize, fd: RawFd, region: Option<u16>) -> Watched {
    explain_once();
    let address = base.as_ptr().expose_provenance();
    let free = MAPS.iter().position(|place| {
        // Acquire and Release: whoever takes the place sees that it was left whole.
        let taken = place
            .len
            .compare_exchange(0, len, Ordering::AcqRel, Ordering::Relaxed);
        taken.is_ok()
    });
    if let Some(index) = free {
        let place = &MAPS[index];
        place.fd.store(fd, Ordering::Relaxed);
        let which = region.map_or(0, |region| usize::from(region) + 1);
        place.which.store(which, Ordering::Relaxed);
        // Release: "place filled", pairs with `explain`.
        place.base.store(address, Ordering::Release);
    }
    Watched(free)
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(index) = self.0 {
            // Release, both: "place left"; the first pairs with `explain`, the second with `watch`.
            MAPS[index].base.store(0, Ordering::Release);
            MAPS[index].len.store(0, Ordering::Release);
        }
    }
}

/// Says what happened, if it happened in one of the watched maps, and lets the program's own handler end it.
extern "C" fn explain(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid description for the time of this call.
    let address = unsafe { (*info).si_addr() } as usize;
    let hit = MAPS.iter().find(|place| {
        // Acquire: "place filled", pairs with `watch`.
        let base = place.base.load(Ordering::Acquire);
        base != 0
            && (base..base.saturating_add(place.len.load(Ordering::Relaxed))).contains(&address)
    });
    let before = BEFORE.get();
    if let Some(place) = hit {
        let mut text = Text::default();
        text.push(b"arenite: the memory behind ");
        match place.which.load(Ordering::Relaxed) {
            0 => text.push(b"the control segment"),
            which => {
                text.push(b"region ");
                text.number(which as u64 - 1);
            }
        }
        text.push(b" is gone: its segment was cut by another process of this user");
        // SAFETY: fstat writes into a buffer of its own, and may be called in a signal handler.
        let len = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            (libc::fstat(place.fd.load(Ordering::Relaxed), &raw mut stat) == 0)
                .then_some(stat.st_size)
        };
        if let Some(len) = len {
            text.push(b" (");
            text.number(len.unsigned_abs());
            text.push(b" bytes are left)");
        }
        text.push(b", or /dev/shm has no room for a page of it. This program cannot go on. Backing::Sealed keeps segments from being cut.\n");
        // SAFETY: writes bytes of this stack to a descriptor, which a signal handler may do.
        unsafe { libc::write(2, text.bytes.as_ptr().cast(), text.len) };
    } else if let Some(SigHandler::SigAction(handler)) = before.map(SigAction::handler) {
        return handler(signal, info, context);
    }
    // Back to what was there before us: the access is made again, and ends there.
    if let Some(before) = before {
        // SAFETY: the very action that the program had installed itself.
        let _ = unsafe { sigaction(Signal::SIGBUS, before) };
    }
}

/// A line made without an allocation.
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
    fn lines_are_made_without_an_allocation() {
        let mut text = Text::default();
        text.push(b"a ");
        for number in [0, 7, 10, u64::MAX] {
            text.number(number);
            text.push(b" ");
        }
        assert_eq!(&text.bytes[..text.len], b"a 0 7 10 18446744073709551615 ");
        (0..100).for_each(|_| text.push(b"too much for it"));
        assert_eq!(text.len, 512);
    }
}
