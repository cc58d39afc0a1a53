//! The `arenite` command line: parses, plans, calls the library, prints.

#![forbid(unsafe_code)]

mod batch;
mod check;
mod choice;
mod cli;
mod doctor;
mod exit;
mod folder;
mod generate;
mod resize;
mod store;
mod text;
mod units;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use cli::{Cli, Command};

fn main() -> ExitCode {
    // First: a worker never returns from here.
    arenite::init();

    let matches = Cli::command().get_matches();
    let (name, args) = match matches.subcommand() {
        Some((name, args)) => (Some(name), args),
        None => (None, &matches),
    };
    // Before the arguments are read: it excludes even those that a command needs.
    if let Some(what) = args.get_one("generate") {
        return generate::run(*what, Cli::command(), name);
    }
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Some(Command::Resize(args)) => resize::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Store(command)) => store::run(&command),
        // Without any argument clap prints the help itself; this is left for `arenite --`.
        None => ExitCode::from(exit::USAGE),
    }
}
