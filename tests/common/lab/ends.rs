//! How `arenite resize` ends after signals.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Before it had started work: at once.
    Early,
    /// During work: it finished the running jobs.
    Drained,
    /// During work, after a second signal: at once.
    Twice,
    /// All was done, or it ignores the signal.
    Late,
}

/// Returns how a program ended after `sent`, with `made` of `all` results; an error if that is wrong.
pub fn judge(
    status: ExitStatus,
    stderr: &str,
    sent: &[Signal],
    (made, all): (usize, usize),
) -> Result<End, String> {
    let Some(number) = status.signal() else {
        return match status.code() {
            Some(0) if made == all => Ok(End::Late),
            Some(0) => Err(format!("a success with {made} results")),
            _ => Err("ended with an exit code instead of the signal".into()),
        };
    };
    if !sent.iter().any(|&signal| signal as i32 == number) {
        return Err("ended by a signal that was not sent".into());
    }
    // Ignored from an early point on: it ends the program only before.
    if number == Signal::SIGPIPE as i32 && made > 0 {
        return Err("ended by SIGPIPE at work".into());
    }
    if stderr.contains("interrupted") {
        let by_the_first = number == sent[0] as i32;
        return match by_the_first || sent.len() > 1 {
            true => Ok(End::Drained),
            false => Err("another exit code than that of the signal that it heeded".into()),
        };
    }
    match (sent.len(), made) {
        (1, 0) => Ok(End::Early),
        // Without a second signal it ends like this only before it has started.
        (1, _) => Err(format!("ended at once, with {made} results")),
        // Either signal may have ended it.
        (_, 0) => Ok(End::Early),
        _ => Ok(End::Twice),
    }
}
