//! The command line as a whole.

use clap::{Parser, Subcommand};

use crate::check::CheckArgs;
use crate::doctor::DoctorArgs;
use crate::generate::What;
use crate::resize::ResizeArgs;
use crate::store::StoreCommand;

const ABOUT: &str = "Image and array work in isolated worker processes, on shared memory";

const EXAMPLES: &str = "\
Examples:
  arenite resize photos --size 224 --out thumbs
  arenite check photos
  arenite resize --help
  arenite doctor
  arenite serve --capacity 20GiB
  arenite put prices prices.npy
  arenite call photos brighten @photo.npy 10 -o bright.npy

Exit codes: 0 all done, 1 some inputs failed (each named) or trouble found
(doctor), 2 wrong usage or set-up, 130, 143 or 129 ended by SIGINT,
SIGTERM or SIGHUP.";

const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    env!("ARENITE_COMMIT"),
    "\n",
    env!("ARENITE_PROFILE"),
    " build for ",
    env!("ARENITE_TARGET"),
    "\nlicense: ",
    env!("CARGO_PKG_LICENSE")
);

/// The arguments of `arenite`.
#[derive(Debug, Parser)]
#[command(name = "arenite", version, long_version = LONG_VERSION, about = ABOUT, after_help = EXAMPLES)]
#[command(
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Print a manual page or a shell completion script and exit
    #[arg(
        long,
        value_name = "WHAT",
        global = true,
        exclusive = true,
        hide_short_help = true
    )]
    pub generate: Option<What>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    // The descriptions are those of the arguments: a doc comment here would replace their long text.
    Resize(Box<ResizeArgs>),
    Check(Box<CheckArgs>),
    Doctor(DoctorArgs),
    #[command(flatten)]
    Store(StoreCommand),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
