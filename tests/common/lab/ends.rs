//! How `arenite resize` takes signals.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

/// How a program took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Before work: at once.
    Early,
    /// At work: what ran was finished.
    Drained,
    /// At work, and again: at once.
    Twice,
    /// All was done, or the signal is one that it ignores.
    Late,
}

/// Whether it ended as it should, with so many results of all.
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
            _ => Err("an exit code, and no signal".into()),
        };
    };
    if !sent.iter().any(|&signal| signal as i32 == number) {
        return Err("ended by a signal that was not sent".into());
    }
    // Nobody listens to this one: it ends only what has not come to ignoring it.
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
        // Without a second one it ends like this only before it has begun.
        (1, _) => Err(format!("ended at once, with {made} results")),
        // Either of the two may have been it.
        (_, 0) => Ok(End::Early),
        _ => Ok(End::Twice),
    }
}
