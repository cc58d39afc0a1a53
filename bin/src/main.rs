//! The `arenite` command line: parses, plans, calls the library, prints.

#![forbid(unsafe_code)]

mod check;
mod choice;
mod cli;
mod doctor;
mod exit;
mod generate;
mod resize;
mod store;
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
        Some(command) => {
            let (name, generate) = command.generate();
            (generate.what, Some(name))
        }
    };
    if let Some(what) = what {
        return generate::run(what, Cli::command(), name);
    }
    match cli.command {
        Some(Command::Resize(args)) => resize::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Serve(args)) => store::serve(&args),
        Some(Command::Put(args)) => store::put(&args),
        Some(Command::Get(args)) => store::get(&args),
        Some(Command::Ls(args)) => store::ls(&args),
        Some(Command::Rm(args)) => store::rm(&args),
        Some(Command::Top(args)) => store::top(&args),
        Some(Command::Stop(args)) => store::stop(&args),
        // Without any argument clap prints the help itself; this is left for `arenite --`.
        None => ExitCode::from(exit::USAGE),
    }
}
