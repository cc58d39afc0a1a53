//! Which features this kernel has, tried without changing anything.

use nix::errno::Errno;
use nix::unistd::Pid;

use super::error::{Error, Result};
use super::map::{HUGE, Map, Prot};
use super::process::PidFd;
use super::segment::Segment;

/// Whether processes can be held by a descriptor, and signalled through it.
pub fn pidfd() -> Result<()> {
    let own = PidFd::open(Pid::this())?;
    // SAFETY: signal 0 is sent to nobody, and no memory is read; the descriptor lives through the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            std::os::fd::AsRawFd::as_raw_fd(&own.as_fd()),
            0,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    answered("pidfd_send_signal", answer).map(drop)
}

/// Whether a range of descriptors can be closed by one call.
pub fn close_range() -> Result<()> {
    // SAFETY: no descriptor has this number, so that nothing is closed.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, 0) };
    answered("close_range", answer).map(drop)
}

/// Whether memory files exist, and can be sealed against being cut.
pub fn memfd_seals() -> Result<()> {
    Segment::create_memfd("arenite-probe", true).map(drop)
}

/// Whether a huge page can be made of small ones right now, in 2 MiB of shared memory.
pub fn collapse() -> Result<()> {
    let segment = Segment::create_memfd("arenite-probe", false)?;
    let len = HUGE as u64;
    segment.set_len(len)?;
    segment.allocate(0..super::map::PAGE as u64)?;
    let map = Map::new(&segment, 0, HUGE, Prot::ReadWrite, true)?;
    let mut answer = map.collapse(0..HUGE);
    // "Try again" is what a busy machine says.
    for _ in 0..3 {
        match &answer {
            Err(error) if error.errno() == Errno::EAGAIN => answer = map.collapse(0..HUGE),
            _ => break,
        }
    }
    answer
}

/// Whether a thread can sleep on several words at once.
pub fn wait_any() -> Result<()> {
    match super::futex::has_wait_any() {
        true => Ok(()),
        false => Err(Error::new("futex_waitv", Errno::ENOSYS, "two words")),
    }
}

/// The version of Landlock (Linux 6.12) that keeps signals and sockets in.
pub const LANDLOCK_SCOPES: u32 = 6;

/// The version of Landlock's interface that the kernel speaks.
pub fn landlock_abi() -> Result<u32> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the kernel reads no rules, so null is what it wants, and it only answers a number.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0,
            VERSION,
        )
    };
    answered("landlock_create_ruleset", answer).map(|abi| u32::try_from(abi).unwrap_or(0))
}

/// Whether system calls can be filtered such that a forbidden one ends the process.
pub fn seccomp() -> Result<()> {
    const GET_ACTION_AVAIL: u32 = 2;
    let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the kernel reads one word, which lives through the call, and changes nothing.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) };
    answered("seccomp", answer).map(drop)
}

/// Whether mappings can be sealed against being moved and replaced.
pub fn mseal() -> Result<()> {
    // The number is the same on every architecture; libc names it for some targets only.
    const SYS_MSEAL: libc::c_long = 462;
    // SAFETY: a range of no bytes: nothing is sealed.
    let answer = unsafe { libc::syscall(SYS_MSEAL, 0, 0, 0) };
    answered("mseal", answer).map(drop)
}

fn answered(call: &'static str, answer: libc::c_long) -> Result<libc::c_long> {
    if answer < 0 {
        return Err(Error::last(call, "a trial"));
    }
    Ok(answer)
}

/// Whether this process may make files in `folder`.
pub fn may_write(folder: &std::path::Path) -> bool {
    use nix::unistd::{AccessFlags, access};
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK) == Ok(())
}
