//! `arenite serve` and its clients: named objects in shared memory for all programs of a user.

mod client;
mod serve;
mod table;
mod top;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use arenite::store::{Store, StoreError, StoreErrorKind, connect};
use clap::Args;
use serde::Serialize;

use crate::exit::USAGE;
use crate::text::{one_line, reason};

pub(crate) use client::{GetArgs, LsArgs, PutArgs, RmArgs, StopArgs, get, ls, put, rm, stop};
pub(crate) use serve::{ServeArgs, serve};
pub(crate) use top::{TopArgs, top};

/// Which store a client talks to.
#[derive(Args, Debug)]
pub(crate) struct StoreName {
    /// The store: its name, or the path of its socket
    #[arg(
        long = "store",
        value_name = "NAME",
        env = "ARENITE_STORE",
        default_value = "main"
    )]
    name: String,
}

impl StoreName {
    fn connect(&self) -> Result<Store, Failure> {
        connect(&self.name).map_err(Failure::from)
    }
}

/// Why a command of the store failed.
#[derive(Debug)]
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// A failure that concerns one object.
    fn object(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            code: 1,
        }
    }

    fn io(what: &str, error: &io::Error) -> Failure {
        Failure::object(format!("{what}: {}", reason(error)))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let code = match error.kind() {
            StoreErrorKind::NotRunning
            | StoreErrorKind::AlreadyRunning
            | StoreErrorKind::BadName
            | StoreErrorKind::Denied
            | StoreErrorKind::Protocol => USAGE,
            _ => 1,
        };
        Failure {
            message: error.to_string(),
            code,
        }
    }
}

/// Prints the failure, if there is one, and returns the exit code.
fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", one_line(&failure.message));
            ExitCode::from(failure.code)
        }
    }
}

/// Writes results to stdout. A reader that stops early, such as `head`, is no failure.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("stdout", &error))
        }
        _ => Ok(()),
    }
}

/// Writes one line of JSON to stdout.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(value).map_err(|error| Failure::object(error.to_string()))?;
    line.push(b'\n');
    print(&line)
}

/// The width of the terminal at stdout in columns; `None` if it is none.
fn width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size().filter(|_| io::stdout().is_terminal())?;
    Some(usize::from(width.0))
}
