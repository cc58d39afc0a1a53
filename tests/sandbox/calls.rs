//! System calls that no kernel needs: a hostile kernel tries each of them.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use arenite::{JobErrorKind, WorkerExit};
use libc::*;

use crate::harness::{Calls, by_signal, tests};
use crate::lab::{Victim, denied, raw, sibling};

tests![
    processes_cannot_be_made,
    a_program_cannot_be_started,
    other_processes_cannot_be_touched,
    newer_linux_interfaces_are_denied,
    shared_and_executable_memory_is_denied,
    the_machine_cannot_be_changed,
    rights_cannot_be_changed,
    the_watch_over_the_supervisor_stays,
    files_are_refused,
    sockets_of_every_family_are_refused,
    descriptors_are_closed,
    older_calls_are_used_as_fallback,
    calls_of_other_architectures_are_denied,
    unknown_calls_are_denied,
    threads_of_a_kernel_are_sandboxed,
];

/// One hostile kernel per line: the system call that the error must name, and the attack. It gets the process ids of
/// the supervisor and of the other worker.
macro_rules! denied {
    ($victim:ident: $($name:literal => |$supervisor:ident, $sibling:ident| $attack:expr),+ $(,)?) => { $(
        $victim.denied($name, |victim| {
            let attack = |$supervisor: i32, first: i32, second: i32| -> i64 {
                let $sibling = sibling(first, second);
                let _ = ($supervisor, $sibling);
                $attack
            };
            victim.lab.submit(attack, victim.others())
        });
    )+ };
}

fn processes_cannot_be_made() {
    let victim = Victim::new();
    denied!(victim:
        "execve" => |_s, _w| raw!(SYS_execve, c"/bin/true".as_ptr(), 0, 0),
        "execveat" => |_s, _w| raw!(SYS_execveat, AT_FDCWD, c"/bin/true".as_ptr(), 0, 0, 0),
        "clone" => |_s, _w| raw!(SYS_clone, SIGCHLD, 0, 0, 0, 0),
        // A thread that shares everything but the memory, and one with its own user namespace.
        "clone" => |_s, _w| raw!(SYS_clone, 0x3d_0f00 & !CLONE_THREAD, 0, 0, 0, 0),
        "clone" => |_s, _w| raw!(SYS_clone, 0x3d_0f00 | CLONE_NEWUSER, 0, 0, 0, 0),
    );
    #[cfg(target_arch = "x86_64")]
    denied!(victim:
        "fork" => |_s, _w| raw!(SYS_fork),
        "vfork" => |_s, _w| raw!(SYS_vfork),
    );
    // As the C library and Rust call it.
    denied!(victim:
        "clone" => |_s, _w| {
            // SAFETY: an attack, which ends this process.
            i64::from(unsafe { libc::fork() })
        },
    );
    victim.lab.assert_idle();
}

fn other_processes_cannot_be_touched() {
    let victim = Victim::new();
    // Signal 0 does nothing, so no process dies if the sandbox fails.
    denied!(victim:
        "ptrace" => |supervisor, _w| raw!(SYS_ptrace, PTRACE_SEIZE, supervisor, 0, 0),
        "process_vm_readv" => |supervisor, _w| raw!(SYS_process_vm_readv, supervisor, 0, 0, 0, 0, 0),
        "process_vm_writev" => |_s, sibling| raw!(SYS_process_vm_writev, sibling, 0, 0, 0, 0, 0),
        "process_madvise" => |_s, sibling| raw!(SYS_process_madvise, sibling, 0, 0, 0, 0),
        "kill" => |supervisor, _w| raw!(SYS_kill, supervisor, 0),
        "kill" => |_s, sibling| raw!(SYS_kill, sibling, 0),
        "kill" => |_s, _w| raw!(SYS_kill, -1, 0),
        "kill" => |_s, _w| raw!(SYS_kill, 0, 0),
        "tgkill" => |_s, sibling| raw!(SYS_tgkill, sibling, sibling, 0),
        "tkill" => |_s, sibling| raw!(SYS_tkill, sibling, 0),
        "rt_sigqueueinfo" => |_s, sibling| raw!(SYS_rt_sigqueueinfo, sibling, 0, 0),
        "rt_tgsigqueueinfo" => |_s, sibling| raw!(SYS_rt_tgsigqueueinfo, sibling, sibling, 0, 0),
        "pidfd_open" => |supervisor, _w| raw!(SYS_pidfd_open, supervisor, 0),
        "pidfd_send_signal" => |_s, _w| raw!(SYS_pidfd_send_signal, 5, 0, 0, 0),
        "pidfd_getfd" => |_s, _w| raw!(SYS_pidfd_getfd, 5, 0, 0),
        "prlimit64" => |supervisor, _w| raw!(SYS_prlimit64, supervisor, RLIMIT_NOFILE, 0, 0),
        "kcmp" => |supervisor, sibling| raw!(SYS_kcmp, supervisor, sibling, 0, 0, 0),
        "move_pages" => |_s, sibling| raw!(SYS_move_pages, sibling, 0, 0, 0, 0, 0),
        "setpgid" => |_s, sibling| raw!(SYS_setpgid, 0, sibling),
        "setsid" => |_s, _w| raw!(SYS_setsid),
    );
    victim.refused("moving another process", |victim| {
        let attack = |supervisor: i32, first: i32, second: i32| {
            let sibling = sibling(first, second);
            let set = [u64::MAX; 16];
            let move_it = |pid| raw!(SYS_sched_setaffinity, pid, 128, set.as_ptr());
            i64::from(move_it(supervisor) != -13) + i64::from(move_it(sibling) != -13)
        };
        victim.lab.submit(attack, victim.others())
    });
}

/// The call is made with all signals blocked, so that no handler in the worker can record it.
fn a_program_cannot_be_started() {
    let victim = Victim::new();
    let honest = victim.honest();
    let start = || std::process::Command::new("/bin/true").status().is_ok();
    let error = victim.lab.error_of(start, ());
    let JobErrorKind::Lost(WorkerExit::Denied { call }) = error.kind() else {
        panic!("{error}")
    };
    assert!(call.starts_with("clone (starting a process)"), "{error}");
    honest.check();
    victim.check();
}

fn newer_linux_interfaces_are_denied() {
    let victim = Victim::new();
    denied!(victim:
        "io_uring_setup" => |_s, _w| raw!(SYS_io_uring_setup, 8, [0_u64; 16].as_ptr()),
        "io_uring_enter" => |_s, _w| raw!(SYS_io_uring_enter, 0, 0, 0, 0, 0, 0),
        "io_uring_register" => |_s, _w| raw!(SYS_io_uring_register, 0, 0, 0, 0),
        "io_setup" => |_s, _w| raw!(SYS_io_setup, 1, [0_u64; 1].as_ptr()),
        "bpf" => |_s, _w| raw!(SYS_bpf, 0, 0, 0),
        "perf_event_open" => |_s, _w| raw!(SYS_perf_event_open, [0_u64; 16].as_ptr(), 0, -1, -1, 0),
        "userfaultfd" => |_s, _w| raw!(SYS_userfaultfd, 0),
        "keyctl" => |_s, _w| raw!(SYS_keyctl, 0, 0, 0, 0, 0),
        "add_key" => |_s, _w| raw!(SYS_add_key, c"user".as_ptr(), c"k".as_ptr(), c"v".as_ptr(), 1, -2),
        "request_key" => |_s, _w| raw!(SYS_request_key, c"user".as_ptr(), c"k".as_ptr(), 0, 0),
        "seccomp" => |_s, _w| raw!(SYS_seccomp, 1, 8, 0),
        "landlock_create_ruleset" => |_s, _w| raw!(SYS_landlock_create_ruleset, 0, 0, 1),
        "fanotify_init" => |_s, _w| raw!(SYS_fanotify_init, 0, 0),
        "open_by_handle_at" => |_s, _w| raw!(SYS_open_by_handle_at, 0, 0, 0),
        "name_to_handle_at" => |_s, _w| raw!(SYS_name_to_handle_at, 0, 0, 0, 0, 0),
    );
}

fn shared_and_executable_memory_is_denied() {
    let victim = Victim::new();
    denied!(victim:
        "memfd_create" => |_s, _w| raw!(SYS_memfd_create, c"x".as_ptr(), 0),
        "memfd_secret" => |_s, _w| raw!(SYS_memfd_secret, 0),
        "shmget" => |_s, _w| raw!(SYS_shmget, IPC_PRIVATE, 4096, 0o600),
        "shmat" => |_s, _w| raw!(SYS_shmat, 0, 0, 0),
        "semget" => |_s, _w| raw!(SYS_semget, IPC_PRIVATE, 1, 0o600),
        "msgget" => |_s, _w| raw!(SYS_msgget, IPC_PRIVATE, 0o600),
        "mq_open" => |_s, _w| raw!(SYS_mq_open, c"x".as_ptr(), O_RDWR, 0, 0),
        // Executable memory, and shared memory that leads out.
        "mmap" => |_s, _w| raw!(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
        "mmap" => |_s, _w| raw!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
        "mmap" => |_s, _w| raw!(SYS_mmap, 0, 4096, PROT_READ, MAP_SHARED, 3, 0),
        "mmap" => |_s, _w| raw!(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, 1, 0),
        // Memory that the ceiling does not count, or that is taken from others.
        "mmap" => |_s, _w| raw!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0),
        "mmap" => |_s, _w| raw!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0),
        "pkey_mprotect" => |_s, _w| raw!(SYS_pkey_mprotect, 0, 4096, PROT_READ, -1),
        "mprotect" => |_s, _w| {
            let page = raw!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            raw!(SYS_mprotect, page, 4096, PROT_READ | PROT_EXEC)
        },
        "mprotect" => |_s, _w| {
            let page = raw!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            raw!(SYS_mprotect, page, 4096, PROT_EXEC)
        },
        "personality" => |_s, _w| raw!(SYS_personality, 0x0040_0000),
    );
}

fn the_machine_cannot_be_changed() {
    let victim = Victim::new();
    // Each with arguments that Linux refuses as well.
    denied!(victim:
        "mount" => |_s, _w| raw!(SYS_mount, 0, 0, 0, 0, 0),
        "umount2" => |_s, _w| raw!(SYS_umount2, 0, 0),
        "pivot_root" => |_s, _w| raw!(SYS_pivot_root, 0, 0),
        "chroot" => |_s, _w| raw!(SYS_chroot, 0),
        "fsopen" => |_s, _w| raw!(SYS_fsopen, 0, 0),
        "open_tree" => |_s, _w| raw!(SYS_open_tree, -1, 0, 0),
        "move_mount" => |_s, _w| raw!(SYS_move_mount, -1, 0, -1, 0, 0),
        "unshare" => |_s, _w| raw!(SYS_unshare, 1),
        "setns" => |_s, _w| raw!(SYS_setns, -1, 0),
        "reboot" => |_s, _w| raw!(SYS_reboot, 0, 0, 0, 0),
        "init_module" => |_s, _w| raw!(SYS_init_module, 0, 0, 0),
        "finit_module" => |_s, _w| raw!(SYS_finit_module, -1, 0, 0),
        "kexec_load" => |_s, _w| raw!(SYS_kexec_load, 0, u32::MAX, 0, u32::MAX),
        "swapon" => |_s, _w| raw!(SYS_swapon, 0, 0),
        "syslog" => |_s, _w| raw!(SYS_syslog, 99, 0, 0),
        "acct" => |_s, _w| raw!(SYS_acct, 1),
        "sethostname" => |_s, _w| raw!(SYS_sethostname, 0, -1),
        "settimeofday" => |_s, _w| raw!(SYS_settimeofday, 1, 1),
        "clock_settime" => |_s, _w| raw!(SYS_clock_settime, 99, 0),
        "quotactl" => |_s, _w| raw!(SYS_quotactl, -1, 0, 0, 0),
    );
}

fn rights_cannot_be_changed() {
    let victim = Victim::new();
    denied!(victim:
        "setuid" => |_s, _w| raw!(SYS_setuid, 0),
        "setresuid" => |_s, _w| raw!(SYS_setresuid, 0, 0, 0),
        "setgroups" => |_s, _w| raw!(SYS_setgroups, 0, 0),
        "capset" => |_s, _w| raw!(SYS_capset, 0, 0),
        // Raising its own memory ceiling, and becoming dumpable.
        "prlimit64" => |_s, _w| raw!(SYS_prlimit64, 0, RLIMIT_DATA, [u64::MAX; 2].as_ptr(), 0),
        "prctl" => |_s, _w| raw!(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0),
        "prctl" => |_s, _w| raw!(SYS_prctl, PR_SET_SECCOMP, 2, 0, 0, 0),
        "prctl" => |_s, _w| raw!(SYS_prctl, PR_SET_PTRACER, 1, 0, 0, 0),
        "prctl" => |_s, _w| raw!(SYS_prctl, PR_SET_MM, 1, 0, 0, 0),
        // The handler that records denied calls.
        "rt_sigaction" => |_s, _w| raw!(SYS_rt_sigaction, SIGSYS, [0_u64; 4].as_ptr(), 0, 8),
    );
    #[cfg(target_arch = "x86_64")]
    denied!(victim:
        "setrlimit" => |_s, _w| raw!(SYS_setrlimit, RLIMIT_DATA, [u64::MAX; 2].as_ptr()),
        "arch_prctl" => |_s, _w| raw!(SYS_arch_prctl, 0x1001, 0),
        "modify_ldt" => |_s, _w| raw!(SYS_modify_ldt, 1, 0, 0),
        "iopl" => |_s, _w| raw!(SYS_iopl, 3),
        "ioperm" => |_s, _w| raw!(SYS_ioperm, 0, 1, 1),
    );
}

fn the_watch_over_the_supervisor_stays() {
    let victim = Victim::new();
    let first = victim.lab.submit(
        || {
            // The highest open descriptor: only one of them is the watch.
            (3..64).filter(|&fd| raw!(SYS_close, fd) != CLOSED).count()
        },
        (),
    );
    let error = victim.lab.failure_of(first);
    assert_eq!(*error.kind(), denied("close"), "{error}");
    denied!(victim:
        "prctl" => |_s, _w| raw!(SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0),
        "fcntl" => |_s, _w| raw!(SYS_fcntl, 3, F_SETFL, 0),
        "fcntl" => |_s, _w| raw!(SYS_fcntl, 3, F_SETOWN, 0),
        "fcntl" => |_s, _w| raw!(SYS_fcntl, 3, 10, 0),
        "fcntl" => |_s, _w| raw!(SYS_fcntl, 3, F_ADD_SEALS, F_SEAL_WRITE),
        "ftruncate" => |_s, _w| raw!(SYS_ftruncate, 3, 0),
        "fallocate" => |_s, _w| raw!(SYS_fallocate, 3, 3, 0, 4096),
    );
}

/// The results -EACCES and -EBADF.
const NO: i64 = -13;
const CLOSED: i64 = -9;

fn files_are_refused() {
    let victim = Victim::new();
    victim.refused("opening files", |victim| {
        let attack = |supervisor: i32, first: i32, second: i32| {
            let sibling = sibling(first, second);
            let paths = [
                "/etc/passwd".to_owned(),
                "/".into(),
                ".".into(),
                "/dev/null".into(),
                "/dev/shm".into(),
                "/dev/mem".into(),
                "/proc/self/exe".into(),
                "/proc/self/mem".into(),
                "/proc/self/maps".into(),
                "/proc/self/fd/1".into(),
                "/proc/self/map_files".into(),
                format!("/proc/{supervisor}/mem"),
                format!("/proc/{supervisor}/environ"),
                format!("/proc/{sibling}/mem"),
                format!("/proc/{sibling}/maps"),
                format!("/proc/{sibling}/fd"),
            ];
            let is_shut = |path: &String| {
                let denied = |result: std::io::Result<()>| {
                    result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
                };
                let write = File::options().write(true).open(path).map(drop);
                let list = std::fs::read_dir(path).map(drop);
                let stat = std::fs::metadata(path).map(drop);
                let link = std::fs::read_link(path).map(drop);
                [File::open(path).map(drop), write, list, stat, link]
                    .into_iter()
                    .all(denied)
            };
            paths.iter().filter(|path| !is_shut(path)).count() as i64
        };
        victim.lab.submit(attack, victim.others())
    });
    victim.refused("changing the file system", |victim| {
        let attack = || {
            let x = c"/tmp/arenite-sandbox-test".as_ptr();
            let answers = [
                raw!(SYS_openat, AT_FDCWD, x, O_CREAT | O_WRONLY, 0o600),
                raw!(SYS_openat2, AT_FDCWD, x, [0_u64; 3].as_ptr(), 24),
                raw!(SYS_mkdirat, AT_FDCWD, x, 0o700),
                raw!(SYS_mknodat, AT_FDCWD, x, S_IFIFO, 0),
                raw!(SYS_unlinkat, AT_FDCWD, x, 0),
                raw!(SYS_symlinkat, x, AT_FDCWD, x),
                raw!(SYS_linkat, AT_FDCWD, x, AT_FDCWD, x, 0),
                raw!(SYS_renameat2, AT_FDCWD, x, AT_FDCWD, x, 0),
                raw!(SYS_fchmodat, AT_FDCWD, x, 0o777),
                raw!(SYS_fchownat, AT_FDCWD, x, 0, 0, 0),
                raw!(SYS_truncate, x, 0),
                raw!(SYS_utimensat, AT_FDCWD, x, 0, 0),
                raw!(SYS_chdir, x),
            ];
            answers.iter().filter(|&&answer| answer != NO).count() as i64
        };
        victim.lab.submit(attack, ())
    });
    assert!(!std::path::Path::new("/tmp/arenite-sandbox-test").exists());
}

fn sockets_of_every_family_are_refused() {
    let victim = Victim::new();
    victim.refused("sockets", |victim| {
        let attack = || {
            let kinds = [SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET];
            let open = |family, kind| raw!(SYS_socket, family, kind, 0) != NO;
            let families = (0..64).flat_map(|family| kinds.map(|kind| (family, kind)));
            let opened = families.filter(|&(family, kind)| open(family, kind)).count() as i64;
            let mut pair = [0_i32; 2];
            let pair = raw!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair.as_mut_ptr()) != NO;
            let denied = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
            let by_rust = [
                TcpStream::connect("127.0.0.1:1").map(drop),
                TcpListener::bind("127.0.0.1:0").map(drop),
                UdpSocket::bind("127.0.0.1:0").map(drop),
                std::os::unix::net::UnixStream::pair().map(drop),
            ];
            let by_rust = by_rust.into_iter().filter(|result| !matches!(result, Err(error) if denied(std::io::Error::from(error.kind())))).count();
            opened + i64::from(pair) + by_rust as i64
        };
        victim.lab.submit(attack, ())
    });
}

fn descriptors_are_closed() {
    let victim = Victim::new();
    victim.refused("using descriptors", |victim| {
        let attack = || {
            let mut buffer = [0_u8; 64];
            let mut got = 0;
            for fd in 0..64 {
                let at = buffer.as_mut_ptr();
                let answers = [
                    raw!(SYS_read, fd, at, 64),
                    raw!(SYS_pread64, fd, at, 64, 0),
                    raw!(SYS_pwrite64, fd, at, 64, 0),
                    raw!(SYS_lseek, fd, 0, 0),
                    raw!(SYS_ioctl, fd, 0x5412, at),
                    raw!(SYS_dup, fd),
                    raw!(SYS_fcntl, fd, F_DUPFD, 0),
                    raw!(SYS_recvmsg, fd, [0_u64; 7].as_ptr(), 0),
                    raw!(SYS_sendto, fd, at, 1, 0, 0, 0),
                ];
                // The descriptor of the handshake is closed.
                let sent = raw!(SYS_sendmsg, fd, [0_u64; 7].as_ptr(), 0);
                got += i64::from(sent != NO && sent != CLOSED);
                got += answers.iter().filter(|&&answer| answer != NO).count() as i64;
            }
            // Reading the supervisor's input, and writing to a descriptor that is not a log.
            got += i64::from(std::io::stdin().read(&mut buffer).is_ok_and(|len| len > 0));
            got += i64::from(raw!(SYS_write, 0, buffer.as_ptr(), 1) != NO);
            // Creating new descriptors.
            let mut pair = [0_i32; 2];
            got += i64::from(raw!(SYS_pipe2, pair.as_mut_ptr(), 0) != NO);
            got += i64::from(raw!(SYS_eventfd2, 0, 0) != NO);
            got += i64::from(raw!(SYS_epoll_create1, 0) != NO);
            got += i64::from(raw!(SYS_timerfd_create, 0, 0) != NO);
            got
        };
        victim.lab.submit(attack, ())
    });
    // The logs can still be written.
    let logged = victim
        .lab
        .submit(|| std::io::stderr().write(b"").is_ok(), ());
    assert!(logged.wait().unwrap());
}

fn older_calls_are_used_as_fallback() {
    const UNKNOWN: i64 = -38;
    let victim = Victim::new();
    victim.refused("newer calls", |victim| {
        let attack = || {
            let page = raw!(
                SYS_mmap,
                0,
                8192,
                PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS,
                -1,
                0
            );
            let answers = [
                raw!(SYS_clone3, [0_u64; 11].as_ptr(), 88),
                raw!(SYS_mremap, page, 4096, 8192, MREMAP_MAYMOVE, 0),
                raw!(SYS_madvise, page, 4096, MADV_DONTFORK),
                raw!(SYS_madvise, page, 4096, 25),
            ];
            answers.iter().filter(|&&answer| answer != UNKNOWN).count() as i64
        };
        victim.lab.submit(attack, ())
    });
}

fn calls_of_other_architectures_are_denied() {
    #[cfg(target_arch = "x86_64")]
    {
        let victim = Victim::new();
        denied!(victim:
            "x32 getpid" => |_s, _w| raw!(0x4000_0000 + SYS_getpid),
            "x32 execve" => |_s, _w| raw!(0x4000_0000 + SYS_execve, 0, 0, 0),
        );
        let int80 = |call: u32| -> u32 {
            let answer;
            // SAFETY: an attack, on purpose: a 32-bit system call with harmless arguments.
            unsafe {
                std::arch::asm!("push rbx", "xor ebx, ebx", "int 0x80", "pop rbx", inlateout("eax") call => answer, in("ecx") 0, in("edx") 0);
            }
            answer
        };
        // getpid, which the 64-bit entry allows, and execve. Linux without 32-bit calls ends the process as well.
        for call in [20, 11] {
            let honest = victim.honest();
            let error = victim.lab.error_of(int80, (call,));
            match error.kind() {
                JobErrorKind::Lost(WorkerExit::Denied { call }) => {
                    assert!(call.contains("another architecture"), "{error}");
                }
                other => {
                    assert_eq!(*other, by_signal(11), "{error}");
                    eprintln!("this kernel has no 32-bit calls: they are SIGSEGV here");
                }
            }
            honest.check();
            victim.check();
        }
    }
}

fn unknown_calls_are_denied() {
    let victim = Victim::new();
    denied!(victim:
        "system call 2000" => |_s, _w| raw!(2000),
        "system call 1000" => |_s, _w| raw!(1000),
    );
}

fn threads_of_a_kernel_are_sandboxed() {
    let victim = Victim::new();
    denied!(victim:
        "ptrace" => |_s, _w| {
            let thread = std::thread::spawn(|| raw!(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0));
            thread.join().unwrap_or(0)
        },
    );
    victim.refused("files on a thread", |victim| {
        let attack = || {
            let open = || File::open("/etc/passwd").is_ok();
            let threads = [(); 4].map(|()| std::thread::spawn(open));
            threads
                .into_iter()
                .filter(|_| true)
                .map(|thread| i64::from(thread.join().unwrap()))
                .sum::<i64>()
        };
        victim.lab.submit(attack, ())
    });
}
