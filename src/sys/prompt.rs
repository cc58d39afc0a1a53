//! A thread that gets a core sooner, for as long as it starts processes.
//!
//! `posix_spawn` sleeps until the new process has left its memory, and is woken by it, often on that process's core: then it waits
//! for as long as a program takes to load, while another core has nothing to do. Measured with two cores: in six of ten starts the
//! second worker began a millisecond after the first, and the first result came after 2.8 ms in place of 2.0.

use nix::errno::Errno;

use super::inject::allowed;

/// Time slice of a thread that only starts others: the shortest that there is.
const SHORT_NS: u64 = 100_000;

/// From Linux 6.12 on the calling thread takes turns in short slices until this is dropped, so that it comes before whoever has begun
/// a long one. Elsewhere, and for threads with a policy or a rank of their own, it changes nothing.
///
/// What the thread starts has slices as ever.
#[derive(Debug)]
pub struct Prompt {
    /// What this thread, and it alone, goes back to.
    as_ever: Option<libc::sched_attr>,
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Prompt {
    /// From now on.
    pub fn begin() -> Prompt {
        let usual = |attr: &libc::sched_attr| {
            // What is started would lose a rank below 0, with the slices.
            attr.sched_policy == libc::SCHED_OTHER as u32 && attr.sched_nice >= 0
        };
        // Whoever has once asked that what it starts has slices as ever may not take that back.
        let as_ever = |before: libc::sched_attr| libc::sched_attr {
            sched_flags: before.sched_flags | libc::SCHED_FLAG_RESET_ON_FORK as u64,
            ..before
        };
        let is_short = |as_ever: &libc::sched_attr| {
            let short = libc::sched_attr {
                sched_runtime: SHORT_NS,
                ..*as_ever
            };
            set_attributes(&short).is_ok()
        };
        let before = attributes().ok().filter(usual);
        Prompt {
            as_ever: before.map(as_ever).filter(is_short),
            _not_send: std::marker::PhantomData,
        }
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        if let Some(as_ever) = &self.as_ever {
            // The kernel gave out these very attributes; short slices that stay cost the workers a little.
            let _ = set_attributes(as_ever);
        }
    }
}

const SIZE: u32 = size_of::<libc::sched_attr>() as u32;

fn attributes() -> nix::Result<libc::sched_attr> {
    allowed()?;
    // SAFETY: a struct of integers, for which zero bytes are a value.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: `attr` is live and of the size given; the kernel writes no more than that. 0 means the calling thread.
    let answer = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, SIZE, 0) };
    Errno::result(answer).map(|_| attr)
}

fn set_attributes(attr: &libc::sched_attr) -> nix::Result<()> {
    allowed()?;
    let attr = libc::sched_attr {
        size: SIZE,
        ..*attr
    };
    // SAFETY: `attr` is live and says its size, and the kernel only reads it. 0 means the calling thread.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    Errno::result(answer).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Each in a thread of its own, which ends with what it asked for.
    fn alone<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(body).join().unwrap()
    }

    #[test]
    fn slices_are_short_until_it_is_dropped_and_not_those_of_what_is_started() {
        let (before, during, started, after) = alone(|| {
            let slice = || attributes().unwrap().sched_runtime;
            let before = slice();
            let prompt = Prompt::begin();
            let during = slice();
            let started = alone(slice);
            drop(prompt);
            (before, during, started, slice())
        });
        // Older kernels tell of no slices.
        if before > 0 {
            assert_eq!(during, SHORT_NS);
            assert_ne!(started, SHORT_NS);
        }
        assert_eq!(after, before);
    }

    #[test]
    fn a_thread_with_a_policy_or_rank_of_its_own_keeps_it() {
        for (policy, nice) in [
            (libc::SCHED_BATCH, 0),
            (libc::SCHED_IDLE, 0),
            (libc::SCHED_OTHER, 7),
        ] {
            let (before, during, after) = alone(move || {
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
                let prompt = Prompt::begin();
                let during = of();
                drop(prompt);
                (before, during, of())
            });
            assert_eq!((before, before), (during, after));
        }
    }
}
