//! Checks for features of Linux, which change nothing.

use nix::errno::Errno;
use nix::unistd::Pid;

use super::error::{Error, Result};
use super::map::{HUGE, Map, Prot};
use super::process::PidFd;
use super::segment::Segment;

/// Checks that pidfds, and signals through them, work.
pub fn pidfd() -> Result<()> {
    let own = PidFd::open(Pid::this())?;
    // SAFETY: signal 0 is not delivered, and no memory is read; the descriptor lives through the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            std::os::fd::AsRawFd::as_raw_fd(&own.as_fd()),
            0,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    checked("pidfd_send_signal", answer).map(drop)
}

/// Checks that a range of descriptors can be closed with one call.
pub fn close_range() -> Result<()> {
    // SAFETY: no descriptor has this number, so nothing is closed.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, 0) };
    checked("close_range", answer).map(drop)
}

/// Checks that memory files exist and can be sealed against truncation.
pub fn memfd_seals() -> Result<()> {
    Segment::create_memfd("arenite-probe", true).map(drop)
}

/// Checks that 2 MiB of shared memory can be collapsed into a huge page right now.
pub fn collapse() -> Result<()> {
    let segment = Segment::create_memfd("arenite-probe", false)?;
    let len = HUGE as u64;
    segment.set_len(len)?;
    segment.allocate(0..super::map::PAGE as u64)?;
    let map = Map::new(&segment, 0, HUGE, Prot::ReadWrite, true)?;
    let mut answer = map.collapse(0..HUGE);
    // On a busy machine, the call returns EAGAIN.
    for _ in 0..3 {
        match &answer {
            Err(error) if error.errno() == Errno::EAGAIN => answer = map.collapse(0..HUGE),
            _ => break,
        }
    }
    answer
}

/// Checks that a thread can sleep on several futex words at once.
pub fn wait_any() -> Result<()> {
    match super::futex::has_wait_any() {
        true => Ok(()),
        false => Err(Error::new("futex_waitv", Errno::ENOSYS, "two words")),
    }
}

/// The first Landlock version that can restrict signals and abstract sockets (Linux 6.12).
pub const LANDLOCK_SCOPES: u32 = 6;

/// Returns the version of Landlock's interface.
pub fn landlock_abi() -> Result<u32> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag Linux reads no attributes, so null is correct, and only returns a number.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0,
            VERSION,
        )
    };
    checked("landlock_create_ruleset", answer).map(|abi| u32::try_from(abi).unwrap_or(0))
}

/// Checks that system calls can be filtered so that a forbidden call kills the process.
pub fn seccomp() -> Result<()> {
    const GET_ACTION_AVAIL: u32 = 2;
    let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: Linux reads one word, which lives through the call, and changes nothing.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) };
    checked("seccomp", answer).map(drop)
}

/// Checks that mappings can be sealed against moving and replacing.
pub fn mseal() -> Result<()> {
    // The number is the same on every architecture; libc defines it for some targets only.
    const SYS_MSEAL: libc::c_long = 462;
    // SAFETY: the range is empty, so nothing is sealed.
    let answer = unsafe { libc::syscall(SYS_MSEAL, 0, 0, 0) };
    checked("mseal", answer).map(drop)
}

fn checked(call: &'static str, answer: libc::c_long) -> Result<libc::c_long> {
    if answer < 0 {
        return Err(Error::last(call, "a trial"));
    }
    Ok(answer)
}

/// Returns whether this process may create files in `folder`.
pub fn may_write(folder: &std::path::Path) -> bool {
    use nix::unistd::{AccessFlags, access};
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK) == Ok(())
}
