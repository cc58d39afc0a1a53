//! Permanently drops rights of this process by seccomp, Landlock and `mseal`.
//!
//! Three seccomp filters are stacked, and the strictest of their results applies. The first filter passes [`calls`]
//! that are allowed or refused, and traps all others: [`trap`] records the number and the process ends. The second
//! refuses calls that libraries may try, with `EACCES`. The third returns `ENOSYS` for calls that libraries then
//! replace by older ones. With [`Keep::writable_memory`] a fourth filter skips calls that would make memory read-only,
//! and reports success. A call through another architecture's entry (`int 0x80`) ends the process without a record.

mod calls;
mod trap;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU32;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};
use libc::c_long;
use nix::errno::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};
use serde::{Deserialize, Serialize};

use super::Map;
use super::error::{Error, Result};
use super::inject::allowed;
pub use calls::name;
pub use trap::call;

/// Sandboxing features of the running version of Linux. Defaults to none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxFeatures {
    /// System call filters, with all actions that are needed.
    pub seccomp: bool,
    /// Version of Landlock's interface; 0 if it is missing.
    pub landlock: u32,
    /// Sealing of maps.
    pub mseal: bool,
}

/// From Linux' include/uapi/linux/landlock.h and seccomp.h.
const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
const SECCOMP_GET_ACTION_AVAIL: u32 = 2;

/// Detects the features without changing anything. A feature counts as missing if Linux does not know it or a container
/// hides it.
///
/// # Errors
/// Any other failure of a check: it does not show that the feature is missing, so the feature must not be skipped.
pub fn features() -> Result<SandboxFeatures> {
    let available = |action: u32| {
        let answer = ask("seccomp", || {
            // SAFETY: the call reads one number, which outlives it.
            unsafe {
                libc::syscall(
                    libc::SYS_seccomp,
                    SECCOMP_GET_ACTION_AVAIL,
                    0,
                    &raw const action,
                )
            }
        });
        Ok(answer?.is_some())
    };
    let landlock = ask("landlock_create_ruleset", || {
        // SAFETY: with this flag and no attributes the call reads no memory and returns a number.
        unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::null::<u8>(),
                0_usize,
                LANDLOCK_CREATE_RULESET_VERSION,
            )
        }
    })?;
    let mseal = ask("mseal", || {
        // SAFETY: sealing an empty range changes nothing.
        unsafe { libc::syscall(libc::SYS_mseal, std::ptr::null::<u8>(), 0_usize, 0_u64) }
    })?;
    Ok(SandboxFeatures {
        seccomp: available(libc::SECCOMP_RET_KILL_PROCESS)?
            && available(libc::SECCOMP_RET_TRAP)?
            && available(libc::SECCOMP_RET_ERRNO)?,
        landlock: landlock.map_or(0, |version| u32::try_from(version).unwrap_or(0)),
        mseal: mseal.is_some(),
    })
}

/// Returns the result of a query; `None` if the feature is missing.
fn ask(call: &'static str, question: impl Fn() -> c_long) -> Result<Option<c_long>> {
    match allowed().and_then(|()| Errno::result(question())) {
        Ok(answer) => Ok(Some(answer)),
        Err(Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::EPERM | Errno::EACCES) => {
            Ok(None)
        }
        Err(errno) => Err(Error::new(call, errno, "this version of Linux")),
    }
}

fn unread(error: &std::io::Error, folder: &str) -> Error {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    Error::new("readdir", errno, folder)
}

/// Returns the open descriptors of this process.
pub fn descriptors() -> Result<Vec<RawFd>> {
    let error = |error: std::io::Error| unread(&error, "/proc/self/fd");
    allowed().map_err(|errno| error(errno.into()))?;
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").map_err(error)? {
        let name = entry.map_err(error)?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    // Removes the number of the descriptor through which the folder was read, which is closed by now.
    // SAFETY: fcntl with F_GETFD takes a number and changes nothing.
    numbers.retain(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0);
    numbers.sort_unstable();
    Ok(numbers)
}

/// Closes every descriptor except `keep`, even if a value owns the descriptor: the value then has a number that is not
/// open.
///
/// For a process that is about to enter the sandbox. It can open no descriptor there, so no number is reused.
pub fn close_others(keep: &[RawFd]) -> Result<()> {
    for fd in descriptors()?.into_iter().filter(|fd| !keep.contains(fd)) {
        allowed().map_err(|errno| Error::new("close", errno, format!("descriptor {fd}")))?;
        // Whatever `close` returns, the descriptor is closed.
        // SAFETY: the owner of the number at worst gets an error when it closes it too. The number is not reused,
        // because this process opens nothing from now on.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Returns the number of threads of this process.
pub fn threads() -> Result<usize> {
    allowed()
        .map_err(std::io::Error::from)
        .and_then(|()| fs::read_dir("/proc/self/task"))
        .map(Iterator::count)
        .map_err(|error| unread(&error, "/proc/self/task"))
}

/// Descriptors and memory that a sandboxed process may use.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    /// Descriptors that the process may write to.
    pub writable: Vec<RawFd>,
    /// Descriptors on which the process may send messages while they are open.
    pub channel: Vec<RawFd>,
    /// Descriptors that the process must not close.
    pub unclosable: Vec<RawFd>,
    /// Whether writable memory must stay writable, because `RLIMIT_DATA` counts no other memory. Calls that would make
    /// memory read-only, such as guard pages, then report success, because some libraries end the process on an error.
    pub writable_memory: bool,
}

/// Permanently drops all rights of this process, and of its later threads, to files, sockets and other processes. Skips
/// mechanisms that `features` does not have.
///
/// A denied system call is recorded in `record` and ends the process. Must be called while there is only one thread.
pub fn lock_down(features: SandboxFeatures, keep: &Keep, record: &'static AtomicU32) -> Result<()> {
    allowed()
        .and_then(|()| nix::sys::prctl::set_no_new_privs())
        .map_err(|errno| Error::new("prctl(NO_NEW_PRIVS)", errno, "this process"))?;
    if features.landlock > 0 {
        restrict()?;
    }
    if features.seccomp {
        trap::install(record)?;
        for program in programs(keep)? {
            allowed().map_err(|errno| seccomp(&errno))?;
            seccompiler::apply_filter_all_threads(&program).map_err(|error| seccomp(&error))?;
        }
    }
    Ok(())
}

fn seccomp(error: &dyn std::fmt::Display) -> Error {
    Error::new("seccomp", Errno::EINVAL, error.to_string())
}

/// Applies Landlock without any exception: no file, no port, and no signal or abstract socket outside the process.
fn restrict() -> Result<()> {
    let error = |error: &dyn std::fmt::Display| {
        Error::new("landlock_restrict_self", Errno::EINVAL, error.to_string())
    };
    // Best effort: applies what both this release of the Landlock crate and the running version of Linux know.
    let abi = ABI::V7;
    allowed().map_err(|errno| error(&errno))?;
    let rules = Ruleset::default()
        .set_compatibility(landlock::CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .map_err(|reason| error(&reason))?;
    allowed().map_err(|errno| error(&errno))?;
    rules
        .restrict_self()
        .map_err(|reason| error(&reason))
        .and_then(|status| match status.ruleset {
            RulesetStatus::NotEnforced => Err(error(&"nothing was enforced")),
            RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
        })
}

/// Returns the filters in the order in which they are installed: the last filter forbids installing more.
fn programs(keep: &Keep) -> Result<Vec<BpfProgram>> {
    let numbers = |list: &[RawFd]| list.iter().map(|&fd| fd.cast_unsigned()).collect();
    let own = calls::Own {
        pid: std::process::id(),
        writable: numbers(&keep.writable),
        channel: numbers(&keep.channel),
        unclosable: numbers(&keep.unclosable),
    };
    let build = || -> seccompiler::Result<_> {
        let refused = lists(&[calls::REFUSED, calls::REFUSED_HERE]);
        let unknown = lists(&[calls::UNKNOWN]);
        let mut passing = lists(&[calls::FREE, calls::FREE_HERE]);
        passing.extend(refused.clone());
        passing.extend(unknown.clone());
        passing.extend(calls::checked(&own)?);
        let add = |mut rules: BTreeMap<i64, Vec<SeccompRule>>, more| {
            rules.extend(more);
            rules
        };
        let refused = add(refused, calls::refused_with(&own)?);
        let unknown = add(unknown, calls::unknown_with()?);
        Ok((unknown, refused, passing))
    };
    let (unknown, refused, passing) = build().map_err(|error| seccomp(&error))?;
    let errno = |errno: i32| SeccompAction::Errno(errno.cast_unsigned());
    let mut programs = Vec::new();
    if keep.writable_memory {
        let ignored = calls::ignored_with().map_err(|error| seccomp(&error))?;
        programs.push(program(
            ignored.into_iter().collect(),
            SeccompAction::Allow,
            errno(0),
        )?);
    }
    programs.push(program(unknown, SeccompAction::Allow, errno(libc::ENOSYS))?);
    programs.push(program(refused, SeccompAction::Allow, errno(libc::EACCES))?);
    programs.push(program(passing, SeccompAction::Trap, SeccompAction::Allow)?);
    Ok(programs)
}

/// Converts lists of calls to filter input without rules, so that their arguments are not checked.
fn lists(lists: &[&[(libc::c_long, &str)]]) -> BTreeMap<i64, Vec<SeccompRule>> {
    let all = lists.iter().copied().flatten();
    all.map(|&(number, _)| (number, Vec::new())).collect()
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| seccomp(&error))?;
    SeccompFilter::new(rules, otherwise, matching, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|error| seccomp(&error))
}

/// Returns the seccomp mode of this process: 0 without a filter, 2 with a filter.
pub fn mode() -> Result<i32> {
    allowed()
        // SAFETY: the call reads and writes no memory.
        .map(|()| unsafe { libc::prctl(libc::PR_GET_SECCOMP) })
        .and_then(Errno::result)
        .map_err(|errno| Error::new("prctl(GET_SECCOMP)", errno, "this process"))
}

impl Map {
    /// Seals the map: from then on no code, not even in this process, can unmap or move it or change its access rights.
    pub fn seal(&self) -> Result<()> {
        let len = self.len().next_multiple_of(super::page_size());
        allowed()
            // SAFETY: the range is this live map; sealing changes no byte and no right to read or write.
            .map(|()| unsafe { libc::syscall(libc::SYS_mseal, self.base().as_ptr(), len, 0_u64) })
            .and_then(Errno::result)
            .map(drop)
            .map_err(|errno| Error::new("mseal", errno, format!("{len} bytes of a map")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn the_filters_are_within_linux_limits() {
        let keep = Keep {
            writable: vec![1, 2, 3],
            channel: vec![5],
            unclosable: vec![4],
            writable_memory: true,
        };
        for program in programs(&keep).unwrap() {
            // Linux' BPF_MAXINSNS.
            assert!(program.len() < 4096, "{} instructions", program.len());
        }
    }

    #[test]
    fn open_descriptors_are_listed() {
        let file = fs::File::open("/proc/self/maps").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        assert!(descriptors().unwrap().contains(&number));
    }
}
