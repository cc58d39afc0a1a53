//! `arenite serve` and its clients: named objects in shared memory for all programs of a user; `arenite call`, and
//! `arenite top`, which also shows engines.

mod call;
mod client;
mod engines;
mod page;
mod serve;
mod table;
mod top;

use std::io;
use std::process::ExitCode;

use arenite_store::{Store, StoreError, StoreErrorKind, connect};
use clap::{Args, Subcommand};
use serde::Serialize;

pub(crate) use engines::engines;

use crate::text::USAGE;
use crate::text::{json_line, one_line, reason};

/// The server and its clients.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    Serve(serve::ServeArgs),
    Put(client::PutArgs),
    Get(client::GetArgs),
    Ls(client::LsArgs),
    Rm(client::RmArgs),
    Top(top::TopArgs),
    Stop(client::StopArgs),
    Call(call::CallArgs),
}

/// Runs the command and returns its exit code.
pub(crate) fn run(command: &StoreCommand) -> ExitCode {
    let result = match command {
        StoreCommand::Serve(args) => serve::serve(args),
        StoreCommand::Put(args) => client::put(args),
        StoreCommand::Get(args) => client::get(args),
        StoreCommand::Ls(args) => client::ls(args),
        StoreCommand::Rm(args) => client::rm(args),
        StoreCommand::Top(args) => top::top(args),
        StoreCommand::Stop(args) => client::stop(args),
        StoreCommand::Call(args) => call::call(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

/// Which store a client talks to.
#[derive(Args, Debug)]
pub(crate) struct StoreName {
    /// The store: its name, or the path of its socket [env: ARENITE_STORE] [default: main]
    #[arg(long = "store", visible_alias = "name", value_name = "NAME")]
    name: Option<String>,
}

/// Returns the name of the store in the environment. Not clap's `env`, which counts a set variable as an argument; that
/// would conflict with the exclusive --generate.
fn name_in_environment() -> Option<String> {
    let name = std::env::var("ARENITE_STORE").ok();
    name.filter(|name| !name.is_empty())
}

/// Returns the name of the store if no flag specifies it.
fn default_name() -> String {
    name_in_environment().unwrap_or_else(|| "main".to_owned())
}

impl StoreName {
    fn connect(&self) -> Result<Store, Failure> {
        let name = self.name.clone().unwrap_or_else(default_name);
        connect(&name).map_err(Failure::from)
    }

    /// Like [`connect`](Self::connect), but returns `None` if the user has named no store and the default does not run.
    fn connect_if_any(&self) -> Result<Option<Store>, Failure> {
        if self.name.is_some() || name_in_environment().is_some() {
            return self.connect().map(Some);
        }
        match connect(&default_name()) {
            Err(error) if error.kind() == StoreErrorKind::NotRunning => Ok(None),
            connected => Ok(Some(connected?)),
        }
    }
}

/// The reason why a command of the store failed.
#[derive(Debug)]
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// Returns a failure that concerns one object.
    fn object(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            code: 1,
        }
    }

    fn io(what: &str, error: &io::Error) -> Failure {
        Failure::object(format!("{what}: {}", reason(error)))
    }

    fn print(&self) {
        eprintln!("error: {}", one_line(&self.message));
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

/// Writes results to stdout.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    crate::text::print(bytes).map_err(|error| Failure::io("stdout", &error))
}

/// Writes one line of JSON to stdout.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let line = json_line(value).map_err(|error| Failure::object(error.to_string()))?;
    print(line.as_bytes())
}
