//! A kernel that lacks a system call, for a program that is started so and for all that it starts.

use std::io;

/// To be called in a new process before anything else runs there: from then on these calls answer as if the kernel did
/// not know them. Makes system calls only.
pub fn without(
    calls: &[libc::c_long],
) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static + use<> {
    let step = |code: u32, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let answer = |k: u32| step(libc::BPF_RET | libc::BPF_K, 0, k);
    // The number of the call is the first word of what a filter sees.
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for &call in calls {
        // Another call goes on behind the answer.
        filter.push(step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            1,
            call as u32,
        ));
        filter.push(answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: the filter lives through the calls, which only read it. Whoever is not root has to give up new
        // privileges first.
        let set = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const program,
                ) == 0
        };
        if set {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
