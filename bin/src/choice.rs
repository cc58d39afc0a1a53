//! When to show something: progress, colours.

use std::ffi::OsStr;

use clap::ValueEnum;

/// Whether to show something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// On a terminal
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// What `--color` means on a stream that is a terminal or not.
pub(crate) fn wants_color(choice: Choice, terminal: bool) -> bool {
    let unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    match choice {
        Choice::Always => true,
        Choice::Never => false,
        Choice::Auto => {
            terminal
                && unset("NO_COLOR")
                && std::env::var_os("TERM").as_deref() != Some(OsStr::new("dumb"))
        }
    }
}
