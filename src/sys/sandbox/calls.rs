//! The system calls of a sandboxed process, and the names of all system calls.

use seccompiler::SeccompCmpOp::{self, Eq, Gt, MaskedEq, Ne};
use seccompiler::{SeccompCmpArgLen, SeccompCondition, SeccompRule};

/// Makes a list of the numbers and names of calls, for this processor.
macro_rules! numbers {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name))),*] };
}

/// The number of a system call, and its name with the prefix `SYS_`.
type Named = (libc::c_long, &'static str);

/// Calls allowed with any arguments: they affect this process only.
pub(super) const FREE: &[Named] = numbers! {
    SYS_sched_yield SYS_nanosleep SYS_gettimeofday
    SYS_munmap SYS_brk SYS_getrandom SYS_membarrier SYS_ppoll SYS_pselect6
    SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigpending SYS_sigaltstack SYS_restart_syscall
    SYS_exit SYS_exit_group SYS_set_robust_list SYS_set_tid_address SYS_rseq
    SYS_getpid SYS_gettid SYS_getppid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid
    SYS_getcpu SYS_getrusage SYS_times SYS_sysinfo
};

/// Like `FREE`, for calls that only this processor has.
#[cfg(target_arch = "x86_64")]
pub(super) const FREE_HERE: &[Named] = numbers! { SYS_time SYS_poll SYS_select SYS_getrlimit };
#[cfg(not(target_arch = "x86_64"))]
pub(super) const FREE_HERE: &[Named] = numbers! { SYS_getrlimit };

/// Calls refused with `EACCES`: ordinary libraries try these calls, and work without them.
pub(super) const REFUSED: &[Named] = numbers! {
    SYS_openat SYS_openat2 SYS_fstat SYS_newfstatat SYS_statx SYS_statfs SYS_fstatfs SYS_faccessat SYS_faccessat2
    SYS_readlinkat SYS_getcwd SYS_getdents64 SYS_chdir SYS_fchdir SYS_mkdirat SYS_mknodat SYS_unlinkat SYS_linkat
    SYS_symlinkat SYS_renameat2 SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_utimensat SYS_truncate SYS_umask
    SYS_read SYS_readv SYS_pread64 SYS_preadv SYS_preadv2 SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_lseek
    SYS_fsync SYS_fdatasync SYS_sync SYS_syncfs SYS_flock SYS_fadvise64 SYS_readahead SYS_ioctl SYS_fcntl
    SYS_dup SYS_dup3 SYS_pipe2 SYS_eventfd2 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2
    SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_signalfd4 SYS_inotify_init1 SYS_inotify_add_watch
    SYS_sendfile SYS_copy_file_range SYS_splice SYS_tee SYS_vmsplice SYS_close_range
    SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr SYS_flistxattr
    SYS_socket SYS_socketpair SYS_connect SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_getsockname SYS_getpeername
    SYS_getsockopt SYS_setsockopt SYS_shutdown SYS_sendto SYS_recvfrom SYS_recvmsg SYS_sendmmsg SYS_recvmmsg
    SYS_uname SYS_getgroups SYS_getresuid SYS_getresgid SYS_getpgid SYS_getsid SYS_capget
    SYS_getpriority SYS_setpriority SYS_sched_getparam SYS_sched_getscheduler SYS_sched_setscheduler
    SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_setattr SYS_sched_getattr SYS_ioprio_get
    SYS_ioprio_set SYS_mlock SYS_mlock2 SYS_munlock SYS_mlockall SYS_munlockall SYS_mincore SYS_msync
    SYS_mbind SYS_get_mempolicy SYS_set_mempolicy SYS_wait4 SYS_waitid
    SYS_timer_create SYS_timer_settime SYS_timer_gettime SYS_timer_delete SYS_getitimer SYS_setitimer
    SYS_rt_sigtimedwait SYS_rt_sigsuspend SYS_get_robust_list
};

/// Like `REFUSED`, for calls that only this processor has.
#[cfg(target_arch = "x86_64")]
pub(super) const REFUSED_HERE: &[Named] = numbers! {
    SYS_open SYS_creat SYS_stat SYS_lstat SYS_access SYS_readlink SYS_getdents SYS_mkdir SYS_rmdir SYS_mknod SYS_unlink
    SYS_link SYS_symlink SYS_rename SYS_renameat SYS_chmod SYS_chown SYS_lchown SYS_utime SYS_utimes SYS_futimesat
    SYS_dup2 SYS_pipe SYS_eventfd SYS_signalfd SYS_epoll_create SYS_epoll_wait SYS_inotify_init SYS_getpgrp SYS_alarm
    SYS_pause
};
#[cfg(not(target_arch = "x86_64"))]
pub(super) const REFUSED_HERE: &[Named] = numbers! { SYS_renameat };

/// Calls reported as unknown (`ENOSYS`): libraries then use an older call, whose arguments can be checked.
pub(super) const UNKNOWN: &[Named] = numbers! { SYS_clone3 SYS_mremap SYS_futex_waitv };

/// The names of other calls, for messages. A call that is in no list above ends the process.
const OTHERS: &[Named] = numbers! {
    SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_sched_getaffinity
    SYS_futex SYS_write SYS_writev SYS_close SYS_mmap SYS_mprotect SYS_madvise SYS_rt_sigaction SYS_shmget SYS_shmat SYS_shmctl
    SYS_shmdt SYS_sendmsg SYS_clone SYS_execve SYS_kill SYS_semget SYS_semop SYS_semctl SYS_semtimedop SYS_msgget
    SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_ftruncate SYS_fallocate SYS_ptrace SYS_syslog SYS_setuid SYS_setgid
    SYS_setpgid SYS_setsid SYS_setreuid SYS_setregid SYS_setgroups SYS_setresuid SYS_setresgid SYS_setfsuid
    SYS_setfsgid SYS_capset SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_personality SYS_sched_setparam
    SYS_sched_setaffinity SYS_vhangup SYS_pivot_root SYS_prctl SYS_adjtimex SYS_chroot SYS_acct SYS_settimeofday
    SYS_mount SYS_umount2 SYS_swapon SYS_swapoff SYS_reboot SYS_sethostname SYS_setdomainname SYS_init_module
    SYS_delete_module SYS_finit_module SYS_quotactl SYS_quotactl_fd SYS_setxattr SYS_lsetxattr SYS_fsetxattr
    SYS_removexattr SYS_lremovexattr SYS_fremovexattr SYS_tkill SYS_tgkill SYS_io_setup SYS_io_destroy
    SYS_io_getevents SYS_io_submit SYS_io_cancel SYS_remap_file_pages SYS_clock_settime SYS_clock_adjtime
    SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr SYS_kexec_load
    SYS_add_key SYS_request_key SYS_keyctl SYS_migrate_pages SYS_move_pages SYS_unshare SYS_setns
    SYS_perf_event_open SYS_fanotify_init SYS_fanotify_mark SYS_prlimit64 SYS_name_to_handle_at
    SYS_open_by_handle_at SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp SYS_seccomp SYS_memfd_create
    SYS_memfd_secret SYS_bpf SYS_execveat SYS_userfaultfd SYS_pkey_mprotect SYS_pkey_alloc SYS_pkey_free
    SYS_pidfd_send_signal SYS_pidfd_open SYS_pidfd_getfd SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr SYS_process_madvise
    SYS_process_mrelease SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self
    SYS_set_mempolicy_home_node SYS_mseal
};

#[cfg(target_arch = "x86_64")]
const OTHERS_HERE: &[Named] = numbers! {
    SYS_fork SYS_vfork SYS_arch_prctl SYS_modify_ldt SYS_iopl SYS_ioperm SYS_setrlimit SYS_uselib SYS_ustat SYS_sysfs
    SYS_kexec_file_load SYS_set_thread_area SYS_get_thread_area SYS_sync_file_range
};
#[cfg(not(target_arch = "x86_64"))]
const OTHERS_HERE: &[Named] = numbers! { SYS_setrlimit SYS_sync_file_range SYS_kexec_file_load };

/// The bit of a call's number that selects the x32 interface of x86_64, which has 32-bit pointers.
const X32: u32 = 0x4000_0000;

/// All lists.
const ALL: [&[Named]; 7] = [
    FREE,
    FREE_HERE,
    REFUSED,
    REFUSED_HERE,
    UNKNOWN,
    OTHERS,
    OTHERS_HERE,
];

/// Returns the name of a call: `ptrace`, `x32 getpid`, `system call 9999`.
pub fn name(number: u32) -> String {
    if cfg!(target_arch = "x86_64") && number & X32 != 0 {
        return format!("x32 {}", name(number & !X32));
    }
    let found = ALL
        .iter()
        .copied()
        .flatten()
        .find(|(known, _)| *known == libc::c_long::from(number));
    match found {
        Some((_, name)) => name.trim_start_matches("SYS_").to_owned(),
        None => format!("system call {number}"),
    }
}

/// Values of this process that the filters compare with arguments of calls.
#[derive(Debug, Clone)]
pub(super) struct Own {
    /// The id of this process.
    pub(super) pid: u32,
    /// Descriptors that may be written to: logs and the monitor's event.
    pub(super) writable: Vec<u32>,
    /// The descriptors of the handshake, on which messages may be sent until they are closed.
    pub(super) channel: Vec<u32>,
    /// Descriptors that must not be closed: through them the process watches the supervisor.
    pub(super) unclosable: Vec<u32>,
}

/// Calls with their rules. A call matches if one of its rules matches, and a rule matches if all its conditions do.
pub(super) type Checked = Vec<(libc::c_long, Vec<SeccompRule>)>;

const INT: SeccompCmpArgLen = SeccompCmpArgLen::Dword;
const LONG: SeccompCmpArgLen = SeccompCmpArgLen::Qword;

/// Argument index, length, operator and value.
type Condition = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);

fn rule(conditions: impl IntoIterator<Item = Condition>) -> seccompiler::Result<SeccompRule> {
    let conditions = conditions
        .into_iter()
        .map(|(index, len, operator, value)| SeccompCondition::new(index, len, operator, value));
    Ok(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?)
}

/// Returns one rule for each value that the first argument, an `int`, may have.
fn first_is_one_of(values: impl IntoIterator<Item = u64>) -> seccompiler::Result<Vec<SeccompRule>> {
    let rules = values.into_iter().map(|value| rule([(0, INT, Eq, value)]));
    rules.collect()
}

/// The bits of the flags of `mmap` that are checked. Only private anonymous memory that the memory limit counts may be
/// mapped. Memory with `MAP_GROWSDOWN` counts as stack, not as data, and memory with `MAP_LOCKED` is taken from other
/// processes. Neither the C libraries nor Rust set these two flags, not even for thread stacks.
const MAP_KIND: u64 = 0x0f | (libc::MAP_ANONYMOUS | libc::MAP_GROWSDOWN | libc::MAP_LOCKED) as u64;
/// The flag for huge pages that an administrator has reserved. Such maps are refused; an allocator configured to prefer
/// these pages then uses ordinary pages.
const MAP_RESERVED: u64 = libc::MAP_HUGETLB as u64;
const MAP_PRIVATE_MEMORY: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const EXECUTABLE: u64 = libc::PROT_EXEC as u64;

/// Futex operations allowed on words that other processes can access: only waiting and waking, which semaphores and the
/// joining of threads need. Requeuing could move a waiter of another process to a word where no thread wakes it.
const PLAIN_FUTEX: [u64; 4] = [
    libc::FUTEX_WAIT as u64,
    libc::FUTEX_WAKE as u64,
    libc::FUTEX_WAIT_BITSET as u64,
    libc::FUTEX_WAKE_BITSET as u64,
];
const PRIVATE_FUTEX: u64 = libc::FUTEX_PRIVATE_FLAG as u64;
/// More futex operations, allowed only on words that no other process can access: all except locks with an owner,
/// because the owner could be set to a thread of another process.
const OWN_FUTEX: [u64; 3] = [
    libc::FUTEX_REQUEUE as u64,
    libc::FUTEX_CMP_REQUEUE as u64,
    libc::FUTEX_WAKE_OP as u64,
];
/// Mask of a futex operation without the clock flag.
const FUTEX_OPERATION: u64 = !(libc::FUTEX_CLOCK_REALTIME as u64);

/// The last clock that belongs to no process. Clocks of processes and threads have negative numbers, which count as
/// large unsigned values.
const LAST_CLOCK: u64 = libc::CLOCK_TAI as u64;

/// The flags with which the C libraries start a thread. musl adds `CLONE_DETACHED`.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u64;
const THREADS: [u64; 2] = [THREAD, THREAD | libc::CLONE_DETACHED as u64];

/// The operation that names a memory range in `/proc/PID/maps`.
const PR_SET_VMA: u64 = 0x5356_4d41;
const PR_GET_SECCOMP: u64 = 21;
const ALLOWED_PRCTL: [u64; 6] = [
    libc::PR_SET_NAME as u64,
    libc::PR_GET_NAME as u64,
    libc::PR_GET_DUMPABLE as u64,
    libc::PR_GET_NO_NEW_PRIVS as u64,
    PR_GET_SECCOMP,
    PR_SET_VMA,
];

/// Advice allowed on private memory; other advice is refused.
pub(super) const ADVICE: [u64; 6] = [
    libc::MADV_NORMAL as u64,
    libc::MADV_WILLNEED as u64,
    libc::MADV_DONTNEED as u64,
    libc::MADV_FREE as u64,
    libc::MADV_HUGEPAGE as u64,
    libc::MADV_NOHUGEPAGE as u64,
];
/// Advice that removes memory from its segment, which only an attacker uses.
const PUNCHING: [u64; 3] = [
    libc::MADV_REMOVE as u64,
    libc::MADV_HWPOISON as u64,
    libc::MADV_SOFT_OFFLINE as u64,
];
/// Commands of `fcntl` that could end the watch over the supervisor, or seal a segment.
const HARMFUL_FCNTL: [u64; 4] = [
    libc::F_SETFL as u64,
    libc::F_SETOWN as u64,
    10, // F_SETSIG, which libc names for some targets only.
    libc::F_ADD_SEALS as u64,
];

fn none_of(index: u8, values: &[u64]) -> seccompiler::Result<SeccompRule> {
    rule(values.iter().map(|&value| (index, INT, Ne, value)))
}

/// Returns rules that match any first argument except `descriptors`. Without descriptors, the list of rules is empty
/// and so matches every call.
fn others(descriptors: &[u32]) -> seccompiler::Result<Vec<SeccompRule>> {
    let values: Vec<u64> = descriptors.iter().map(|&fd| fd.into()).collect();
    if values.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![none_of(0, &values)?])
}

/// Returns the calls that are allowed if one of their rules matches, and that end the process otherwise. A call without
/// rules is always allowed.
pub(super) fn checked(own: &Own) -> seccompiler::Result<Checked> {
    let pid = u64::from(own.pid);
    let private = PLAIN_FUTEX.into_iter().chain(OWN_FUTEX);
    let private = private.map(|what| what | PRIVATE_FUTEX);
    let futex = PLAIN_FUTEX.into_iter().chain(private);
    let futex = futex.map(|what| rule([(1, INT, MaskedEq(FUTEX_OPERATION), what)]));
    Ok(vec![
        (libc::SYS_futex, futex.collect::<seccompiler::Result<_>>()?),
        (libc::SYS_close, others(&own.unclosable)?),
        (
            libc::SYS_mmap,
            vec![rule([
                (2, LONG, MaskedEq(EXECUTABLE), 0),
                (3, LONG, MaskedEq(MAP_KIND), MAP_PRIVATE_MEMORY),
            ])?],
        ),
        (
            libc::SYS_mprotect,
            vec![rule([(2, LONG, MaskedEq(EXECUTABLE), 0)])?],
        ),
        (libc::SYS_madvise, vec![none_of(2, &PUNCHING)?]),
        (
            libc::SYS_clone,
            THREADS
                .map(|flags| rule([(0, LONG, Eq, flags)]))
                .into_iter()
                .collect::<Result<_, _>>()?,
        ),
        (libc::SYS_prctl, first_is_one_of(ALLOWED_PRCTL)?),
        // A process may only read its own limits, so that it cannot raise the memory limit.
        (
            libc::SYS_prlimit64,
            vec![rule([(0, INT, Eq, 0), (2, LONG, Eq, 0)])?],
        ),
        // The handler that records denied calls must stay installed.
        (
            libc::SYS_rt_sigaction,
            vec![none_of(0, &[libc::SIGSYS as u64])?],
        ),
        (libc::SYS_kill, first_is_one_of([pid])?),
        (libc::SYS_tgkill, first_is_one_of([pid])?),
        // `raise` of musl on the first thread, whose id is the process id.
        (libc::SYS_tkill, first_is_one_of([pid])?),
        (libc::SYS_fcntl, vec![none_of(1, &HARMFUL_FCNTL)?]),
        // This filter allows the call; `refused_with` refuses most arguments.
        (libc::SYS_sched_setaffinity, vec![]),
        (libc::SYS_sched_getaffinity, vec![]),
        (libc::SYS_clock_gettime, vec![]),
        (libc::SYS_clock_getres, vec![]),
        (libc::SYS_clock_nanosleep, vec![]),
        (libc::SYS_write, vec![]),
        (libc::SYS_writev, vec![]),
        (libc::SYS_sendmsg, vec![]),
    ])
}

/// Returns the calls that are refused with `EACCES` if one of their rules matches, or if they have no rules.
pub(super) fn refused_with(own: &Own) -> seccompiler::Result<Checked> {
    Ok(vec![
        (libc::SYS_write, others(&own.writable)?),
        (libc::SYS_writev, others(&own.writable)?),
        (libc::SYS_sendmsg, others(&own.channel)?),
        (libc::SYS_sched_setaffinity, vec![none_of(0, &[0])?]),
        (
            libc::SYS_sched_getaffinity,
            vec![none_of(0, &[0, own.pid.into()])?],
        ),
        (
            libc::SYS_clock_gettime,
            vec![rule([(0, INT, Gt, LAST_CLOCK)])?],
        ),
        (
            libc::SYS_clock_getres,
            vec![rule([(0, INT, Gt, LAST_CLOCK)])?],
        ),
        (
            libc::SYS_clock_nanosleep,
            vec![rule([(0, INT, Gt, LAST_CLOCK)])?],
        ),
        (
            libc::SYS_mmap,
            vec![rule([(3, LONG, MaskedEq(MAP_RESERVED), MAP_RESERVED)])?],
        ),
    ])
}

/// Returns the calls that do nothing and report success: making memory read-only would take it out of what
/// `RLIMIT_DATA` counts.
pub(super) fn ignored_with() -> seccompiler::Result<Checked> {
    let writable = libc::PROT_WRITE as u64;
    Ok(vec![(
        libc::SYS_mprotect,
        vec![rule([(2, LONG, MaskedEq(writable), 0)])?],
    )])
}

/// Returns the calls of `madvise` that are reported as unknown (`ENOSYS`) because of their advice.
pub(super) fn unknown_with() -> seccompiler::Result<Checked> {
    Ok(vec![(libc::SYS_madvise, vec![none_of(2, &ADVICE)?])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_in_two_lists() {
        let mut all = ALL.concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup_by_key(|(number, _)| *number);
        assert_eq!(all.len(), count);
        assert!(count > 250, "{count} names");
    }

    #[test]
    fn calls_have_names() {
        assert_eq!(name(libc::SYS_ptrace as u32), "ptrace");
        assert_eq!(name(9999), "system call 9999");
        if cfg!(target_arch = "x86_64") {
            assert_eq!(name(libc::SYS_getpid as u32 | X32), "x32 getpid");
        }
    }
}
