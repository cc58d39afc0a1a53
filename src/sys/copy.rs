//! Copies of a process that are templates of workers, made by `fork`, and copies of a template that become workers,
//! made by the bare system call: each of these is a child of the template's parent.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::error::{Error, Result, retry};
use super::fork;
use super::inject::allowed;
use super::process::{OWN_DESCRIPTORS, close_all_except, exit_now, reap};

/// Called in a copy made by [`fork_sibling`]. Sets up the descriptors with which a process of
/// [`spawn`](super::process::spawn) would start: `standard` becomes stdin, stdout and stderr, followed by `fds`. Closes
/// all others except `shared`, which the copy shares with the copied process.
///
/// No value in the copy may own a descriptor that is closed.
pub fn adopt_in_copy(standard: &[OwnedFd], fds: &[OwnedFd], shared: &[RawFd]) -> Result<()> {
    for (fd, number) in standard.iter().zip(0..) {
        retry(|| {
            // SAFETY: dup2 takes numbers only. No value owns numbers 0 to 2, which `spawn` has opened.
            Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) })
        })
        .map_err(|errno| Error::new("dup2", errno, format!("descriptor {number}")))?;
    }
    let adopted = fds.iter().map(AsRawFd::as_raw_fd);
    let numbers: Vec<RawFd> = adopted.chain(shared.iter().copied()).collect();
    close_all_except(&numbers)
}

/// Forks this process. Returns the process id of the copy, and `None` in the copy, which has only this thread.
///
/// The copy must not drop values of this process that own descriptors.
pub fn fork() -> Result<Option<Pid>> {
    let error = |errno| Error::new("fork", errno, "a copy of this process");
    allowed().map_err(error)?;
    // Locked, so that the copy can read it.
    let unforked = fork::lock_unforked();
    // SAFETY: the copy only calls functions that are safe in the child of a program with threads, until it is a
    // template. What these functions need, handlers before the fork have locked.
    match unsafe { libc::fork() } {
        0 => {
            for number in unforked.iter() {
                // SAFETY: takes a number. The values that own these descriptors are never used in this process.
                unsafe { libc::close(*number) };
            }
            Ok(None)
        }
        pid => Errno::result(pid)
            .map(|pid| Some(Pid::from_raw(pid)))
            .map_err(error),
    }
}

/// Makes this process the leader of a process group of its own.
pub fn lead_group() -> Result<()> {
    nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))
        .map_err(|errno| Error::new("setpgid", errno, "this process"))
}

/// Runs the handlers that libraries have registered to run before a fork, by a fork whose copy ends at once. In such a
/// handler, libraries of linear algebra, for example, end their threads, which they start again when needed.
pub fn prepare_libraries_for_fork() {
    // SAFETY: the copy only ends itself; its exit handlers do not run.
    match unsafe { libc::fork() } {
        0 => exit_now(0),
        copy if copy > 0 => reap(Pid::from_raw(copy)),
        // If there is no memory for a copy, `other_threads` finds the threads of libraries later.
        _ => {}
    }
}

/// Returns the names of the other threads of this process.
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

/// The open descriptors of a process, by kind.
#[derive(Debug, Default)]
pub struct OpenFiles {
    /// Descriptors that are open for reading only, of files whose code is mapped.
    pub code: Vec<RawFd>,
    /// What the other descriptors refer to, as text.
    pub others: Vec<String>,
}

/// Returns the open descriptors of this process, except 0 to 2 and `known`.
pub fn open_files(known: &[RawFd]) -> OpenFiles {
    let maps = std::fs::read("/proc/self/maps").unwrap_or_default();
    let lines = maps.split_inclusive(|&byte| byte == b'\n');
    let is_code = |line: &&[u8]| line.windows(6).any(|part| part == b" r-xp ");
    let code = super::code_maps::parse(&lines.filter(is_code).collect::<Vec<_>>().concat());
    // The target of the descriptor through which this function reads the folder.
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

/// Returns the open descriptors of this process, except 0 to 2 and `known`.
pub fn open_numbers(known: &[RawFd]) -> Vec<RawFd> {
    let entries = std::fs::read_dir(OWN_DESCRIPTORS).into_iter().flatten();
    let numbers = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|number| *number > 2 && !known.contains(number))
        .collect()
}

/// Copies this process like `fork`, but makes the copy a child of this process's parent. The process must have no other
/// thread. Returns the process id of the copy, and `None` in the copy.
///
/// Handlers of `pthread_atfork` do not run. The C library's data about the thread is updated in the copy.
///
/// # Errors
/// `ENOTSUP` if the C library has more data to update: glibc before 2.25, and other C libraries.
pub fn fork_sibling() -> Result<Option<Pid>> {
    let error = |errno| Error::new("clone", errno, "a copy of this process");
    if !keeps_no_process_number() {
        return Err(error(Errno::ENOTSUP));
    }
    let (mut robust, mut robust_len) = (std::ptr::null::<libc::c_void>(), 0_usize);
    // SAFETY: writes an address and a length to the two variables.
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
    // The order of the last two arguments, for a new thread and for the address of the thread's id, depends on the
    // processor.
    #[cfg(target_arch = "x86_64")]
    let last = (thread, std::ptr::null::<libc::c_void>());
    #[cfg(not(target_arch = "x86_64"))]
    let last = (std::ptr::null::<libc::c_void>(), thread);
    allowed().map_err(error)?;
    // SAFETY: without CLONE_VM the copy has memory of its own, as after `fork`, and continues here on the same stack.
    // Linux writes the id of its thread to the address where the C library stores it.
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
    // SAFETY: the robust list of the copied process, at the same address in this one. If the call fails, a mutex that
    // is shared with other processes stays locked when this process ends.
    unsafe { libc::syscall(libc::SYS_set_robust_list, robust, robust_len) };
    Ok(None)
}

/// Returns the address where the C library stores the id of this thread, which is the first thread of this process.
/// `robust` is the thread's list of robust mutexes.
fn thread_number(robust: *const libc::pid_t) -> Option<*const libc::pid_t> {
    /// From Linux' include/uapi/linux/prctl.h.
    const PR_GET_TID_ADDRESS: i32 = 40;
    let mut cleared: *const libc::pid_t = std::ptr::null();
    // SAFETY: writes an address to the variable.
    Errno::result(unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut cleared) }).ok()?;
    // Linux clears the id at this address when the thread ends. But from glibc 2.43 on, this is the address of a state
    // next to the id, and the state may have the same value as the id. The id is two pointers before the list, so that
    // address is checked first.
    let before = (!robust.is_null()).then(|| robust.wrapping_byte_sub(2 * size_of::<usize>()));
    let places = [before, (!cleared.is_null()).then_some(cleared)];
    let number = nix::unistd::gettid().as_raw();
    // SAFETY: the C library of this process has passed both addresses to Linux; they are in its data about the thread.
    let is_number = |place: &*const libc::pid_t| unsafe { **place } == number;
    places.into_iter().flatten().find(is_number)
}

/// Returns whether `getpid` makes a system call instead of returning a stored number.
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
