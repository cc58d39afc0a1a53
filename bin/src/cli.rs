//! The command line as a whole, and what is generated from it.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::doctor::DoctorArgs;
use crate::resize::{ResizeArgs, reason};

/// Exit code for a wrong command line and for set-up that failed.
pub(crate) const USAGE: u8 = 2;

const ABOUT: &str = "Image and array work in isolated worker processes, on shared memory";

const EXAMPLES: &str = "\
Examples:
  arenite resize photos --size 224 --out thumbs
  arenite resize --help
  arenite doctor

Exit codes: 0 all done, 1 some inputs failed (each named on stderr) or
something will hurt (doctor), 2 wrong usage or set-up, 130, 143 or 129 ended by
SIGINT, SIGTERM or SIGHUP.";

/// Everything that can be typed behind `arenite`.
#[derive(Debug, Parser)]
#[command(name = "arenite", version, long_version = LONG_VERSION, about = ABOUT, after_help = EXAMPLES)]
#[command(
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub generate: Generate,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The jobs of the program.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    // Described by the arguments themselves: a line here would replace their longer text.
    Resize(Box<ResizeArgs>),
    Doctor(DoctorArgs),
    #[command(hide = true)]
    Soak(crate::soak::SoakArgs),
}

/// `--generate`, the same at the top and in each command.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Print a manual page or a shell completion script and exit
    #[arg(
        long = "generate",
        value_name = "WHAT",
        hide_short_help = true,
        exclusive = true
    )]
    pub what: Option<What>,
}

/// What `--generate` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// A manual page, in roff
    Man,
    /// A completion script for bash
    CompleteBash,
    /// A completion script for zsh
    CompleteZsh,
    /// A completion script for fish
    CompleteFish,
}

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

/// Prints what was asked for; the manual page is that of the command `--generate` stands behind.
pub(crate) fn generate(what: What, subcommand: Option<&str>) -> ExitCode {
    let mut text = Vec::new();
    let written = match what {
        What::Man => manual(subcommand, &mut text),
        What::CompleteBash => complete(Shell::Bash, &mut text),
        What::CompleteZsh => complete(Shell::Zsh, &mut text),
        What::CompleteFish => complete(Shell::Fish, &mut text),
    };
    // A reader that stops early, such as `head`, is no failure.
    match written.and_then(|()| io::stdout().lock().write_all(&text)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("error: stdout: {}", reason(&error));
            ExitCode::from(USAGE)
        }
        _ => ExitCode::SUCCESS,
    }
}

fn complete(shell: Shell, out: &mut Vec<u8>) -> io::Result<()> {
    clap_complete::generate(shell, &mut shown(), "arenite", out);
    Ok(())
}

/// The command line without what its help leaves out: completion would offer that all the same.
fn shown() -> clap::Command {
    let whole = Cli::command();
    let commands = whole
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    clap::Command::new("arenite")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .args(whole.get_arguments().cloned())
        .subcommands(commands.cloned())
}

fn manual(subcommand: Option<&str>, out: &mut Vec<u8>) -> io::Result<()> {
    // Each command has a page; `help` has none.
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let command = match subcommand.and_then(|name| root.find_subcommand(name)) {
        // As `man arenite-resize` finds it.
        Some(command) => {
            let name: &'static str = match command.get_name() {
                "resize" => "arenite-resize",
                _ => "arenite-doctor",
            };
            command.clone().name(name).display_name(name)
        }
        None => root,
    };
    // A page leaves out the words of what the short help leaves out, but not its name.
    let command = command.mut_args(|arg| arg.hide_short_help(false));
    clap_mangen::Man::new(command).render(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
