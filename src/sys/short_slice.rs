//! Short scheduler time slices for a thread that starts processes, so that it gets a core sooner.
//!
//! `posix_spawn` sleeps until the new process no longer uses the parent's memory. Then the new process wakes the
//! caller, often on the new process's core. There the caller waits until the program is loaded, although another core
//! is idle. Measured with two cores: in six of ten starts the second worker began a millisecond after the first, and
//! the first result came after 2.8 ms instead of 2.0.

use nix::errno::Errno;

use super::inject::allowed;

/// The shortest time slice that Linux accepts.
const SHORT_NS: u64 = 100_000;

/// Gives the calling thread short time slices until dropped, so that it runs before threads that have begun a long
/// slice.
/// Works from Linux 6.12 on. Has no effect on older versions, and for threads with their own scheduling policy or nice
/// value. Processes and threads that this thread starts have ordinary slices.
#[derive(Debug)]
pub struct ShortSlice {
    /// The attributes to restore; `None` if nothing was changed.
    previous: Option<libc::sched_attr>,
    _not_send: std::marker::PhantomData<*const ()>,
}

impl ShortSlice {
    /// Shortens the slices of the calling thread from now on.
    pub fn begin() -> ShortSlice {
        // A negative nice value is left alone: because of the flag below, a child would lose it together with the
        // slices.
        let is_ordinary = |attr: &libc::sched_attr| {
            attr.sched_policy == libc::SCHED_OTHER as u32 && attr.sched_nice >= 0
        };
        // RESET_ON_FORK gives children ordinary slices. Once set, it cannot be cleared without privileges, so restoring
        // keeps it.
        let with_reset = |before: libc::sched_attr| libc::sched_attr {
            sched_flags: before.sched_flags | libc::SCHED_FLAG_RESET_ON_FORK as u64,
            ..before
        };
        let shorten = |previous: &libc::sched_attr| {
            let short = libc::sched_attr {
                sched_runtime: SHORT_NS,
                ..*previous
            };
            set_attributes(&short).is_ok()
        };
        let before = attributes().ok().filter(is_ordinary);
        ShortSlice {
            previous: before.map(with_reset).filter(shorten),
            _not_send: std::marker::PhantomData,
        }
    }
}

impl Drop for ShortSlice {
    fn drop(&mut self) {
        if let Some(previous) = &self.previous {
            // Linux has returned these attributes, so it accepts them. If it does not, workers lose a little speed.
            let _ = set_attributes(previous);
        }
    }
}

const SIZE: u32 = size_of::<libc::sched_attr>() as u32;

fn attributes() -> nix::Result<libc::sched_attr> {
    allowed()?;
    // SAFETY: a struct of integers, for which zero bytes are a valid value.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: `attr` is live and has the size given, beyond which Linux does not write. 0 means the calling thread.
    let answer = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, SIZE, 0) };
    Errno::result(answer).map(|_| attr)
}

fn set_attributes(attr: &libc::sched_attr) -> nix::Result<()> {
    allowed()?;
    let attr = libc::sched_attr {
        size: SIZE,
        ..*attr
    };
    // SAFETY: `attr` is live and contains its size, and Linux only reads it. 0 means the calling thread.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    Errno::result(answer).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Runs `body` on a thread of its own, whose attributes end with it.
    fn on_own_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(body).join().unwrap()
    }

    #[test]
    fn slices_are_short_until_dropped_but_not_those_of_children() {
        let (before, during, started, after) = on_own_thread(|| {
            let slice = || attributes().unwrap().sched_runtime;
            let before = slice();
            let guard = ShortSlice::begin();
            let during = slice();
            let started = on_own_thread(slice);
            drop(guard);
            (before, during, started, slice())
        });
        // Older versions of Linux report no slices.
        if before > 0 {
            assert_eq!(during, SHORT_NS);
            assert_ne!(started, SHORT_NS);
        }
        assert_eq!(after, before);
    }

    #[test]
    fn a_thread_with_its_own_policy_or_nice_value_keeps_it() {
        for (policy, nice) in [
            (libc::SCHED_BATCH, 0),
            (libc::SCHED_IDLE, 0),
            (libc::SCHED_OTHER, 7),
        ] {
            let (before, during, after) = on_own_thread(move || {
                let own = libc::sched_attr {
                    sched_policy: policy as u32,
                    sched_nice: nice,
                    ..attributes().unwrap()
                };
                set_attributes(&own).unwrap();
                let of = || {
                    attributes()
                        .map(|attr| (attr.sched_policy, attr.sched_nice))
                        .unwrap()
                };
                let before = of();
                let guard = ShortSlice::begin();
                let during = of();
                drop(guard);
                (before, during, of())
            });
            assert_eq!((before, before), (during, after));
        }
    }
}
