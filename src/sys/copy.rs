//! Copies of a process, made by the bare system call: another child of the parent of the process that is copied.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::error::{Error, Result, retry};
use super::inject::allowed;
use super::process::{OWN_DESCRIPTORS, close_all_except, exit_now, reap};

/// Lets the copy of a process that [`fork_sibling`] has made have the descriptors of a process that
/// [`spawn`](super::process::spawn) has just started: `standard` as stdin, stdout and stderr, `fds`, and no others but
/// `shared`, which it has in common with that process.
///
/// Nothing in the copy may own another descriptor.
pub fn adopt_in_copy(standard: &[OwnedFd], fds: &[OwnedFd], shared: &[RawFd]) -> Result<()> {
    for (fd, number) in standard.iter().zip(0..) {
        retry(|| {
            // SAFETY: dup2 takes numbers only. No value owns numbers 0 to 2, which are open in a process of `spawn`.
            Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) })
        })
        .map_err(|errno| Error::new("dup2", errno, format!("descriptor {number}")))?;
    }
    let adopted = fds.iter().map(AsRawFd::as_raw_fd);
    let numbers: Vec<RawFd> = adopted.chain(shared.iter().copied()).collect();
    close_all_except(&numbers)
}

/// Lets libraries do what they have registered to be done before a fork, as those of linear algebra do, which end their
/// threads and start others when they are needed: forks, and ends the copy at once.
pub fn prepare_libraries_for_fork() {
    // SAFETY: the copy does nothing but to end; its exit handlers do not run.
    match unsafe { libc::fork() } {
        0 => exit_now(0),
        copy if copy > 0 => reap(Pid::from_raw(copy)),
        // Without memory for a copy, threads of libraries are found afterwards.
        _ => {}
    }
}

/// The names of the other threads of this process.
pub fn other_threads() -> Vec<String> {
    let own = nix::unistd::gettid().to_string();
    let entries = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let others = entries.flatten().filter(|entry| *entry.file_name() != *own);
    let name = |entry: std::fs::DirEntry| {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        name.trim_end().to_owned()
    };
    others.map(name).collect()
}

/// Files that a process has open.
#[derive(Debug, Default)]
pub struct OpenFiles {
    /// Descriptors for reading of files whose code is mapped.
    pub code: Vec<RawFd>,
    /// What the others refer to.
    pub others: Vec<String>,
}

/// What this process has open, except descriptors 0 to 2 and `known`.
pub fn open_files(known: &[RawFd]) -> OpenFiles {
    let maps = std::fs::read("/proc/self/maps").unwrap_or_default();
    let lines = maps.split_inclusive(|&byte| byte == b'\n');
    let is_code = |line: &&[u8]| line.windows(6).any(|part| part == b" r-xp ");
    let code = super::code_maps::parse(&lines.filter(is_code).collect::<Vec<_>>().concat());
    // The one that reads the folder.
    let own = format!("/proc/{}/fd", std::process::id());
    let entries = std::fs::read_dir(OWN_DESCRIPTORS).into_iter().flatten();
    let open = entries.flatten().filter_map(|entry| {
        let number: RawFd = entry.file_name().to_str()?.parse().ok()?;
        let file = std::fs::read_link(entry.path()).ok()?;
        (number > 2 && !known.contains(&number)).then_some((number, file))
    });
    let mut files = OpenFiles::default();
    for (number, file) in open.filter(|(_, file)| file.as_os_str() != &*own) {
        // SAFETY: fcntl with F_GETFL takes numbers only.
        let mode = unsafe { libc::fcntl(number, libc::F_GETFL) };
        let is_for_reading = mode >= 0 && mode & libc::O_ACCMODE == libc::O_RDONLY;
        if is_for_reading && code.iter().any(|map| map.path == file) {
            files.code.push(number);
        } else {
            files.others.push(file.display().to_string());
        }
    }
    files
}

/// Copies this process, whose only thread this is, as `fork` does, but as another child of its own parent. Returns the
/// number of the copy, and `None` in the copy.
///
/// Handlers of `pthread_atfork` do not run. What the C library keeps about the thread is renewed.
///
/// # Errors
/// `ENOTSUP` with a C library that keeps more than that: glibc before 2.25, and others.
pub fn fork_sibling() -> Result<Option<Pid>> {
    let error = |errno| Error::new("clone", errno, "a copy of this process");
    if !keeps_no_process_number() {
        return Err(error(Errno::ENOTSUP));
    }
    let (mut robust, mut robust_len) = (std::ptr::null::<libc::c_void>(), 0_usize);
    // SAFETY: writes an address and a length to the variables.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_get_robust_list,
            0,
            &raw mut robust,
            &raw mut robust_len,
        )
    };
    Errno::result(answer).map_err(error)?;
    let thread = thread_number(robust.cast()).ok_or_else(|| error(Errno::ENOTSUP))?;
    let flags = libc::CLONE_PARENT | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
    // The last two arguments, for a new thread and for the number of the copy's thread, have their places changed.
    #[cfg(target_arch = "x86_64")]
    let last = (thread, std::ptr::null::<libc::c_void>());
    #[cfg(not(target_arch = "x86_64"))]
    let last = (std::ptr::null::<libc::c_void>(), thread);
    allowed().map_err(error)?;
    // SAFETY: without CLONE_VM the copy has memory of its own, as after `fork`, and goes on from here on the same
    // stack. Linux writes the number of its thread where the C library keeps it.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_clone,
            (flags | libc::SIGCHLD) as libc::c_ulong,
            0_usize,
            0_usize,
            last.0,
            last.1,
        )
    };
    let pid = Errno::result(answer).map_err(error)?;
    if pid != 0 {
        return Ok(Some(Pid::from_raw(pid as i32)));
    }
    // SAFETY: the list of the process that was copied, at the same address in this one. If it fails, a mutex that other
    // processes share stays locked when this process ends.
    unsafe { libc::syscall(libc::SYS_set_robust_list, robust, robust_len) };
    Ok(None)
}

/// Where the C library keeps the number of this thread, the first one of this process. `robust` is its list of robust
/// mutexes.
fn thread_number(robust: *const libc::pid_t) -> Option<*const libc::pid_t> {
    /// From Linux' include/uapi/linux/prctl.h.
    const PR_GET_TID_ADDRESS: i32 = 40;
    let mut cleared: *const libc::pid_t = std::ptr::null();
    // SAFETY: writes an address to the variable.
    Errno::result(unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut cleared) }).ok()?;
    // Linux clears the number when the thread ends, but from glibc 2.43 on it clears a state beside it, whose value may
    // be the number of a process, too. The number is two pointers before the list: look there first.
    let before = (!robust.is_null()).then(|| robust.wrapping_byte_sub(2 * size_of::<usize>()));
    let places = [before, (!cleared.is_null()).then_some(cleared)];
    let number = nix::unistd::gettid().as_raw();
    // SAFETY: the C library of this process has told Linux both addresses, which are in its description of the thread.
    let is_number = |place: &*const libc::pid_t| unsafe { **place } == number;
    places.into_iter().flatten().find(is_number)
}

/// Whether `getpid` asks Linux.
#[cfg(target_env = "gnu")]
fn keeps_no_process_number() -> bool {
    // SAFETY: returns a constant string.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    let version = version.to_str().ok().and_then(|text| {
        let (major, minor) = text.split_once('.')?;
        let minor = minor.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    version >= Some((2_u32, 25_u32))
}

#[cfg(not(target_env = "gnu"))]
fn keeps_no_process_number() -> bool {
    false
}
