//! A Linux that lacks or refuses system calls, for a program and its children.

use std::io;

/// Returns a `pre_exec` function after which these system calls fail with `ENOSYS`. It makes system calls only.
pub fn without(
    calls: &[libc::c_long],
) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static + use<> {
    refusing(calls, libc::ENOSYS)
}

/// The same with another reason.
pub fn refusing(
    calls: &[libc::c_long],
    errno: i32,
) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static + use<> {
    let step = |code: u32, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let answer = |k: u32| step(libc::BPF_RET | libc::BPF_K, 0, k);
    // The number of the call is the first word of the filter's input.
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for &call in calls {
        // Any other call skips the answer.
        filter.push(step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            1,
            call as u32,
        ));
        filter.push(answer(libc::SECCOMP_RET_ERRNO | errno as u32));
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: the filter outlives the calls, which only read it. `PR_SET_NO_NEW_PRIVS` comes first: without it, only root
        // may install a filter.
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
