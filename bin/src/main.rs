//! The `arenite` command line: parses, plans, calls the library, prints.
//!
//! # From `arenite resize photos -s 224 -o out` to a written file
//! 1. `main.rs` parses the words by the flags of `resize/args/mod.rs` and, for those that `check` has too,
//!    `batch/run_args.rs`. Numbers with units are read in `text.rs`.
//! 2. `resize/mod.rs` is the command. It listens to signals (`batch/stop.rs`) and checks the flags (`Options` in
//!    `resize/args/mod.rs`).
//! 3. `batch/inputs.rs` finds the pictures, and `batch/plan.rs` names their results.
//! 4. `batch/mod.rs` works through the list: `batch/pool.rs` has the engine, reads files and starts jobs.
//! 5. `resize/output.rs` writes a result below the output folder, which `folder/mod.rs` holds open.
//!
//! Afterwards `resize/record.rs` notes the result for `--resume`, and `batch/printer.rs` prints its path.

#![forbid(unsafe_code)]

mod batch;
mod check;
mod doctor;
mod folder;
mod generate;
mod resize;
mod store;
mod text;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use check::CheckArgs;
use doctor::DoctorArgs;
use generate::What;
use resize::ResizeArgs;
use store::StoreCommand;
use text::USAGE;

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

Completions (also complete-zsh and complete-fish) and manual pages:
  arenite --generate complete-bash >> ~/.bash_completion
  arenite resize --generate man > arenite-resize.1

Exit codes: 0 all done, 1 some inputs failed (each named) or trouble found
(doctor), 2 wrong usage or set-up, 130, 143 or 129 ended by SIGINT,
SIGTERM or SIGHUP.";

/// What `--version` prints, without the last line.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    env!("ARENITE_COMMIT"),
    "\n",
    env!("ARENITE_PROFILE"),
    " build for ",
    env!("ARENITE_TARGET"),
    "\nlicense: ",
    env!("CARGO_PKG_LICENSE")
);

/// Leaked, because clap requires a `'static` text.
fn long_version() -> &'static str {
    let jpeg = match arenite_image::has_jpeg_assembly() {
        true => "with assembly",
        false => "without assembly",
    };
    format!("{VERSION}\nJPEG: {jpeg}").leak()
}

/// The arguments of `arenite`.
#[derive(Debug, Parser)]
#[command(name = "arenite", version, long_version = long_version(), about = ABOUT, after_help = EXAMPLES)]
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
        hide = true
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

fn main() -> ExitCode {
    // This must come first: in a worker it never returns.
    arenite::init();

    let matches = Cli::command().get_matches();
    let (name, args) = match matches.subcommand() {
        Some((name, args)) => (Some(name), args),
        None => (None, &matches),
    };
    // `--generate` is checked before the arguments are parsed, because it excludes even arguments that a command
    // requires.
    if let Some(what) = args.get_one("generate") {
        return generate::run(*what, Cli::command(), name);
    }
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Some(Command::Resize(args)) => resize::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Store(command)) => store::run(&command),
        // Without any argument clap prints the help itself. This is only reached with `arenite --`.
        None => ExitCode::from(USAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
