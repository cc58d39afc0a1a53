//! The `arenite` command line: parses, plans, calls the library, prints.

#[cfg(feature = "bench")]
mod bench;
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
    // First of all: in a worker this does not return, and neither does the next in a process of the benchmarks.
    arenite::init();
    #[cfg(feature = "bench")]
    arenite::twins::init();

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
        #[cfg(feature = "bench")]
        Some(Command::Bench(args)) => match args.generate.what {
            Some(what) => cli::generate(what, Some("bench")),
            None => bench::run(&args),
        },
        // Without any argument clap has printed the help; this is left for `arenite --`.
        None => ExitCode::from(cli::USAGE),
    }
}
