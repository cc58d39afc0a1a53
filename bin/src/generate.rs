//! `--generate`: manual pages and completion scripts.

use std::io;
use std::process::ExitCode;

use clap::{Command, ValueEnum};
use clap_complete::Shell;

use crate::text::USAGE;
use crate::text::{print, reason};

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

/// Prints `what` for the whole command line. If it is a manual page and `subcommand` is given, prints the page of that
/// command.
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
    match made.and_then(|()| print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: stdout: {}", reason(&error));
            ExitCode::from(USAGE)
        }
    }
}

fn manual(whole: Command, subcommand: Option<&str>, out: &mut Vec<u8>) -> io::Result<()> {
    // Each command has a page, except `help`.
    let mut root = whole.disable_help_subcommand(true);
    root.build();
    let command = match subcommand.and_then(|name| root.find_subcommand(name)) {
        // `man arenite-resize` finds the page by this name.
        Some(command) => {
            // Leaked, because clap requires a `'static` name. The program ends after this.
            let name: &'static str = format!("arenite-{}", command.get_name()).leak();
            command.clone().name(name).display_name(name)
        }
        None => root,
    };
    clap_mangen::Man::new(command).render(out)
}
