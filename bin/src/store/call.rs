//! `arenite call`: kernels of a service from the command line.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arenite::array::npy;
use arenite_store::service::{Payload, ServiceError, ServiceErrorKind, Value, connect};
use arenite_store::{Kind, StoreErrorKind, service_status, services};
use clap::Args;
use serde_json::json;

use super::client::write_file;
use super::table::{kernels, running};
use super::{Failure, StoreName, print, print_json};
use crate::text;
use crate::text::USAGE;
use crate::text::{columns, one_line, reason, show_path};

/// Call a kernel of a service
///
/// A service is a program that offers kernels under a name: arenite_store::service in Rust, Executor.serve() in Python. Without
/// a kernel, the service's kernels are listed; without a service, the services that run.
#[derive(Args, Debug)]
#[command(after_help = "\
Arguments: numbers, true, false and JSON are what they look like, @FILE is the
array of a .npy file, an Arrow stream, or the bytes of any other file, @- is
standard input, store:NAME is an object of a store, anything else is text.

Examples:
  arenite call
  arenite call photos
  arenite call photos brighten @photo.npy 10 --out bright.npy

Exit codes: 0 done, 1 the call failed, 2 wrong usage or no service.")]
pub(crate) struct CallArgs {
    /// The service: its name, or the path of its socket
    service: Option<String>,

    /// The kernel
    kernel: Option<String>,

    /// Its arguments
    #[arg(allow_negative_numbers = true)]
    args: Vec<String>,

    /// Where arrays and bytes of the result go, in their order; - is standard output
    #[arg(short, long, value_name = "FILE")]
    out: Vec<PathBuf>,

    /// How long the call may run, such as 20s; then its worker is killed
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = text::duration)]
    timeout: Option<Duration>,

    #[command(flatten)]
    store: StoreName,

    /// Print the result as a line of JSON, with the names of the files of arrays; or a line for each kernel or service
    #[arg(long)]
    json: bool,
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Failure {
        let code = match error.kind() {
            ServiceErrorKind::NotRunning
            | ServiceErrorKind::BadName
            | ServiceErrorKind::Denied
            | ServiceErrorKind::Protocol
            | ServiceErrorKind::NoKernel
            | ServiceErrorKind::BadArgument => USAGE,
            _ => 1,
        };
        Failure {
            message: error.to_string(),
            code,
        }
    }
}

fn usage(message: impl Into<String>) -> Failure {
    Failure {
        message: message.into(),
        code: USAGE,
    }
}

pub(super) fn call(args: &CallArgs) -> Result<(), Failure> {
    let Some(name) = &args.service else {
        return list(args.json);
    };
    let mut service = connect(name)?;
    let Some(kernel) = &args.kernel else {
        let found = service.info()?.kernels;
        if args.json {
            return found.iter().try_for_each(print_json);
        }
        return print(kernels(&found, columns()).as_bytes());
    };
    if let Some(limit) = args.timeout {
        service = service.deadline(limit);
    }
    let values = args
        .args
        .iter()
        .map(|text| argument(text, &args.store))
        .collect::<Result<Vec<Value>, Failure>>()?;
    let value: Value = service.call(kernel, Value::List(values)).wait()?;

    let mut out = args.out.clone();
    let count = payloads(&value);
    if out.is_empty() && count == 1 && !args.json && !io::stdout().is_terminal() {
        out.push("-".into());
    }
    if out.len() != count {
        return Err(usage(match count {
            0 => "the result has no array; leave out --out".to_owned(),
            1 => "the result is an array; name a file for it with --out".to_owned(),
            _ => format!("the result has {count} arrays; name a file for each with --out"),
        }));
    }
    let mut files = out.iter();
    let shown = write(value, &mut files)?;
    match shown {
        _ if args.json => print_json(&shown),
        // An array or a table, which was written to a file.
        serde_json::Value::Object(_) | serde_json::Value::Null => Ok(()),
        // The text is escaped for a terminal, and printed as it is for a program.
        serde_json::Value::String(text) if io::stdout().is_terminal() => {
            print(format!("{}\n", arenite::escape_text(&text)).as_bytes())
        }
        serde_json::Value::String(text) => print(format!("{text}\n").as_bytes()),
        shown => print_json(&shown),
    }
}

/// Prints the services that are running.
fn list(json: bool) -> Result<(), Failure> {
    /// The time limit for the answer of a service. Services answer at once, unless they are stopped.
    const PATIENCE: Duration = Duration::from_millis(500);
    let mut found: Vec<serde_json::Value> = Vec::new();
    for name in services()? {
        match service_status(&name, PATIENCE) {
            Ok(Some(status)) => found.extend(serde_json::from_str(&status)),
            // The socket of a store, or of a service that has ended.
            Ok(None) => {}
            Err(error) if error.kind() == StoreErrorKind::NotRunning => {}
            Err(error) => eprintln!("warning: {}", one_line(&error.to_string())),
        }
    }
    if json {
        return found.iter().try_for_each(print_json);
    }
    print(running(&found, columns()).as_bytes())
}

/// Converts an argument of the command line to a value.
fn argument(text: &str, store: &StoreName) -> Result<Value, Failure> {
    if let Some(name) = text.strip_prefix("store:") {
        let (object, bytes) = store.connect()?.get_bytes(name)?;
        return payload(object.kind, &bytes, text);
    }
    if let Some(path) = text.strip_prefix('@') {
        let failed =
            |error: &io::Error| usage(format!("{}: {}", show_path(Path::new(path)), reason(error)));
        let mut bytes = Vec::new();
        match path {
            "-" => io::stdin().read_to_end(&mut bytes).map(drop),
            _ => fs::read(path).map(|read| bytes = read),
        }
        .map_err(|error| failed(&error))?;
        if bytes.starts_with(b"\x93NUMPY") {
            let mut rest = &bytes[..];
            let header = npy::Header::read(&mut rest)
                .map_err(|error| usage(format!("{}: {error}", show_path(Path::new(path)))))?;
            return payload(Kind::of_npy(&header), rest, text);
        }
        let kind = match bytes.starts_with(&[0xff; 4]) {
            true => Kind::Arrow,
            false => Kind::Bytes,
        };
        return payload(kind, &bytes, text);
    }
    let shown = || arenite::escape_text(&text.chars().take(40).collect::<String>()).to_string();
    let value = Value::from_json(text).map_err(|why| usage(format!("{}: {why}", shown())))?;
    Ok(value.unwrap_or_else(|| Value::Text(text.to_owned())))
}

fn payload(kind: Kind, bytes: &[u8], text: &str) -> Result<Value, Failure> {
    Payload::new(kind, bytes)
        .map(Value::Payload)
        .map_err(|error| usage(format!("{text}: {error}")))
}

fn payloads(value: &Value) -> usize {
    match value {
        Value::Payload(_) => 1,
        Value::List(values) => values.iter().map(payloads).sum(),
        _ => 0,
    }
}

/// Writes the arrays of a value to files. Returns the value as JSON.
fn write<'a>(
    value: Value,
    files: &mut impl Iterator<Item = &'a PathBuf>,
) -> Result<serde_json::Value, Failure> {
    Ok(match value {
        Value::Bool(value) => value.into(),
        Value::Int(value) => match i64::try_from(value) {
            Ok(value) => value.into(),
            Err(_) => (value as u64).into(),
        },
        // JSON has no such numbers: use the texts of Rust and Python.
        Value::Float(value) if !value.is_finite() => value.to_string().to_lowercase().into(),
        Value::Float(value) => value.into(),
        Value::Text(text) => text.into(),
        Value::List(values) => {
            let mut list = Vec::new();
            for value in values {
                list.push(write(value, files)?);
            }
            list.into()
        }
        Value::Payload(payload) => {
            let path = files.next().ok_or_else(|| usage("too few files"))?;
            let header = payload.kind().npy_header().unwrap_or_default();
            let bytes = payload.bytes().map_err(Failure::object)?;
            if path.as_os_str() == "-" {
                print(&header)?;
                print(&bytes)?;
            } else {
                write_file(path, &[&header, &bytes])
                    .map_err(|error| Failure::io(&show_path(path), &error))?;
            }
            let mut shown = serde_json::to_value(payload.kind()).unwrap_or_default();
            shown["file"] = json!(path);
            shown
        }
        _ => serde_json::Value::Null,
    })
}
