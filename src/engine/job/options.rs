//! The methods that set job options, written once for all types that create jobs.

/// Defines the methods that set [job options](crate::JobOptions), for a type with
/// `fn with_options(self, change: impl FnOnce(&mut JobOptions)) -> Self`.
///
/// `$limit`: the constructor of [`PermitSource`](crate::supervisor::PermitSource) that decides whose turn at the
/// limiter a job takes: this thread's (`for_this_thread`) or a new caller's (`for_new_caller`).
macro_rules! option_setters {
    // For jobs without retries.
    ($limit:ident) => {
        /// Sets all options at once, and replaces all that were set earlier.
        pub fn options(self, options: &$crate::JobOptions) -> Self {
            let limit = $crate::supervisor::PermitSource::$limit;
            self.with_options(|set| $crate::engine::job::replace(set, options, limit))
        }

        $crate::engine::job::option_setters!(@one_by_one $limit);
    };

    // For jobs with the arguments `$args`, which may have retries.
    ($limit:ident, $args:ty, $(#[$example:meta])*) => {
        /// Sets all options at once, and replaces all that were set earlier.
        pub fn options<N>(self, options: &$crate::JobOptions<N>) -> Self
        where
            $args: $crate::engine::Permits<N>,
        {
            let limit = $crate::supervisor::PermitSource::$limit;
            self.with_options(|set| $crate::engine::job::replace(set, options, limit))
        }

        /// Runs a job again, up to `retries` times, if it panics, exceeds its deadline, or ends its worker: see
        /// [`JobOptions::retries`](crate::JobOptions::retries). Requires arguments that the kernel cannot change.
        $(#[$example])*
        pub fn retries(self, retries: u32) -> Self
        where
            $args: $crate::kernel::RetrySafe,
        {
            self.with_options(|set| set.retries = retries)
        }

        $crate::engine::job::option_setters!(@about_retries);
        $crate::engine::job::option_setters!(@one_by_one $limit);
    };

    (@about_retries) => {
        /// Also runs a job again if its kernel returns an `Err`: see
        /// [`JobOptions::retry_errors`](crate::JobOptions::retry_errors).
        pub fn retry_errors(self) -> Self {
            self.with_options(|set| set.retry_errors = true)
        }

        /// Sets the pauses between attempts. Default: 10 ms, doubling up to a second.
        pub fn backoff(self, backoff: $crate::Backoff) -> Self {
            self.with_options(|set| set.backoff = backoff)
        }
    };

    (@name) => {
        /// Names the function that the job runs, in place of its kernel: see
        /// [`JobOptions::name`](crate::JobOptions::name).
        pub fn name(self, name: impl AsRef<str>) -> Self {
            let name = $crate::kernel::stored(name.as_ref());
            self.with_options(|set| set.name = name)
        }
    };

    (@one_by_one $limit:ident) => {
        /// Limits the run time of each attempt: see [`JobOptions::deadline`](crate::JobOptions::deadline).
        pub fn deadline(self, limit: ::std::time::Duration) -> Self {
            self.with_options(|set| set.deadline = Some(limit))
        }

        /// Sets the order in which waiting jobs start.
        pub fn priority(self, priority: $crate::Priority) -> Self {
            self.with_options(|set| set.priority = priority)
        }

        /// Names the job in errors, traces and reports: see [`JobOptions::label`](crate::JobOptions::label).
        pub fn label(self, label: impl Into<::std::sync::Arc<str>>) -> Self {
            let label = label.into();
            self.with_options(|set| set.label = Some(label))
        }

        /// Requires a permit of this limiter for each attempt: see [`JobOptions::limit`](crate::JobOptions::limit).
        pub fn limit(self, limiter: &$crate::Limiter) -> Self {
            let limit = $crate::supervisor::PermitSource::$limit(limiter);
            self.with_options(|set| set.limit = Some(limit))
        }
    };
}

pub(in crate::engine) use option_setters;

use crate::engine::Limiter;
use crate::supervisor::{JobOptions, PermitSource};

/// Replaces all options. `limit` decides whose turn at the limiter a job takes.
pub(in crate::engine) fn replace<M>(
    set: &mut JobOptions,
    options: &JobOptions<M>,
    limit: fn(&Limiter) -> PermitSource,
) {
    *set = options.clone().with_mode();
    set.limit = set.limit.take().map(|set| limit(set.limiter()));
}
