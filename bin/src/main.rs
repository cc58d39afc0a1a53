//! The `arenite` command line: parses, plans, calls the library, prints.

mod choice;
mod cli;
mod doctor;
mod resize;
mod soak;
mod units;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    // First of all: in a worker this does not return.
    arenite::init();

    let cli = Cli::parse();
    if let Some(what) = cli.generate.what {
        return cli::generate(what, None);
    }
    match cli.command {
        Some(Command::Resize(args)) => match args.generate.what {
            Some(what) => cli::generate(what, Some("resize")),
            None => resize::run(&args),
        },
        Some(Command::Doctor(args)) => match args.generate.what {
            Some(what) => cli::generate(what, Some("doctor")),
            None => doctor::run(&args),
        },
        Some(Command::Soak(args)) => soak::run(&args),
        // Without any argument clap has printed the help; this is left for `arenite --`.
        None => ExitCode::from(cli::USAGE),
    }
}
