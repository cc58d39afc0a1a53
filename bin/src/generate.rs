//! `--generate`: manual pages and completion scripts.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use crate::exit::USAGE;
use crate::text::reason;

/// The flag `--generate`, the same for the program and for each command.
#[derive(Clone, Debug, Args)]
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

/// Prints `what` for the command line `whole`; a manual page is that of `subcommand`, if there is one.
pub(crate) fn run(what: What, mut whole: Command, subcommand: Option<&str>) -> ExitCode {
    let mut text = Vec::new();
    let mut complete = |shell| {
        clap_complete::generate(shell, &mut whole, "arenite", &mut text);
        Ok(())
    };
    let made = match what {
        What::Man => manual(whole, subcommand, &mut text),
        What::CompleteBash => complete(Shell::Bash),
        What::CompleteZsh => complete(Shell::Zsh),
        What::CompleteFish => complete(Shell::Fish),
    };
    // A reader that stops early, such as `head`, is no failure.
    match made.and_then(|()| io::stdout().lock().write_all(&text)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("error: stdout: {}", reason(&error));
            ExitCode::from(USAGE)
        }
        _ => ExitCode::SUCCESS,
    }
}

fn manual(whole: Command, subcommand: Option<&str>, out: &mut Vec<u8>) -> io::Result<()> {
    // Each command has a page; `help` has none.
    let mut root = whole.disable_help_subcommand(true);
    root.build();
    let command = match subcommand.and_then(|name| root.find_subcommand(name)) {
        // The name by which `man arenite-resize` finds it.
        Some(command) => {
            // Leaked, because clap takes names of the program's lifetime, and the program ends after this.
            let name: &'static str = format!("arenite-{}", command.get_name()).leak();
            command.clone().name(name).display_name(name)
        }
        None => root,
    };
    // Otherwise the page would have the names of arguments hidden from the short help, without their descriptions.
    let command = command.mut_args(|arg| arg.hide_short_help(false));
    clap_mangen::Man::new(command).render(out)
}
