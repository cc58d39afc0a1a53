//! Values of `--progress` and `--color`.

use std::ffi::OsStr;

use clap::ValueEnum;

/// When to show progress or colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// On a terminal
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// Whether `--color` means colours on this stream.
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
