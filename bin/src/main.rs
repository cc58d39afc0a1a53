//! The `arenite` command line: parses, plans, calls the library, prints.

#![forbid(unsafe_code)]

mod choice;
mod cli;
mod doctor;
mod exit;
mod generate;
mod resize;
mod text;
mod units;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use cli::{Cli, Command};

fn main() -> ExitCode {
    // First: a worker never returns from here.
    arenite::init();

    let cli = Cli::parse();
    let (what, name) = match &cli.command {
        None => (cli.generate.what, None),
        Some(Command::Resize(args)) => (args.generate.what, Some("resize")),
        Some(Command::Doctor(args)) => (args.generate.what, Some("doctor")),
    };
    if let Some(what) = what {
        return generate::run(what, Cli::command(), name);
    }
    match cli.command {
        Some(Command::Resize(args)) => resize::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        // Without any argument clap prints the help itself; this is left for `arenite --`.
        None => ExitCode::from(exit::USAGE),
    }
}
