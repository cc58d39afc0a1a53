//! `arenite put`, `get`, `ls`, `rm` and `stop`.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arenite::array::npy;
use arenite_store::{Kind, Object};
use clap::{Args, ValueEnum};

use super::table::objects;
use super::{Failure, StoreName, print, print_json};
use crate::batch::stop::Stop;
use crate::folder::Folder;
use crate::resize::output::{NotPut, Writer};
use crate::text::{columns, duration, show_path};

/// Put a file into a store as a named object
///
/// A `.npy` file becomes an array, an Arrow stream a table, anything else bytes.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 done, 1 not (the name exists, the store is full), 2 wrong usage or no server."
)]
pub(crate) struct PutArgs {
    /// The object's name
    object: String,

    /// The file; - is standard input
    file: PathBuf,

    /// Replace the object of this name, if there is one; programs that hold it keep it
    #[arg(long)]
    replace: bool,

    /// What the file is
    #[arg(long, value_enum, value_name = "KIND", default_value_t = FileKind::Auto)]
    kind: FileKind,

    #[command(flatten)]
    store: StoreName,

    /// Print the object as a line of JSON
    #[arg(long)]
    json: bool,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FileKind {
    /// By its first bytes
    Auto,
    /// A .npy file
    Npy,
    /// A stream in Arrow's IPC format
    Arrow,
    /// Anything
    Bytes,
}

pub(super) fn put(args: &PutArgs) -> Result<(), Failure> {
    let path = &args.file;
    let store = args.store.connect()?;
    let shown = show_path(path);
    let failed = |error: &io::Error| Failure::io(&shown, error);
    let mut file: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(|error| failed(&error))?),
    };
    // Read enough bytes to recognize the format.
    let mut start = Vec::new();
    file.by_ref()
        .take(8)
        .read_to_end(&mut start)
        .map_err(|error| failed(&error))?;
    let kind = match args.kind {
        FileKind::Auto if start.starts_with(b"\x93NUMPY") => FileKind::Npy,
        FileKind::Auto if start.starts_with(&[0xff; 4]) => FileKind::Arrow,
        FileKind::Auto if start.starts_with(b"ARROW1") => {
            return Err(Failure::object(format!(
                "{shown} is an Arrow file, and a store keeps Arrow streams; write it as a stream, or add --kind bytes"
            )));
        }
        FileKind::Auto => FileKind::Bytes,
        kind => kind,
    };
    let mut reader = BufReader::with_capacity(1 << 20, start.as_slice().chain(file));
    let kind = match kind {
        FileKind::Npy => {
            let header = npy::Header::read(&mut reader)
                .map_err(|error| Failure::object(format!("{shown}: {error}")))?;
            Kind::of_npy(&header)
        }
        FileKind::Arrow => Kind::Arrow,
        FileKind::Bytes | FileKind::Auto => Kind::Bytes,
    };
    let object = store.put_from(&args.object, kind, reader, args.replace)?;
    if args.json {
        return print_json(&object);
    }
    Ok(())
}

/// Copy an object of a store to a file
///
/// An array becomes a `.npy` file. Programs that want the object itself map it: arenite_store in Rust,
/// arenite.connect() in Python.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 done, 1 not (no such object), 2 wrong usage or no server.")]
pub(crate) struct GetArgs {
    /// The object's name
    object: String,

    /// The file, which is replaced; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    out: PathBuf,

    /// Wait until the object exists, for this long at most, such as 10s
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = duration)]
    wait: Option<Duration>,

    #[command(flatten)]
    store: StoreName,

    /// Print the object's description as a line of JSON (with --out FILE)
    #[arg(long)]
    json: bool,
}

pub(super) fn get(args: &GetArgs) -> Result<(), Failure> {
    let to_stdout = args.out.as_os_str() == "-";
    if to_stdout && (args.json || io::stdout().is_terminal()) {
        return Err(Failure {
            message: "the object would be written to the terminal, or among the JSON; name a file with --out".to_owned(),
            code: crate::text::USAGE,
        });
    }
    let store = args.store.connect()?;
    if let Some(limit) = args.wait {
        store.wait(&args.object, limit)?;
    }
    let (object, bytes) = store.get_bytes(&args.object)?;
    let header = object.kind.npy_header().unwrap_or_default();
    if to_stdout {
        print(&header)?;
        return print(&bytes);
    }
    write_file(&args.out, &[&header, &bytes])
        .map_err(|error| Failure::io(&show_path(&args.out), &error))?;
    if args.json {
        return print_json(&object);
    }
    Ok(())
}

/// Writes a file atomically: it appears complete or not at all.
pub(super) fn write_file(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    // A pipe or a device is written to, not replaced.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        // With `create`, Linux would refuse the pipe of another user in a folder that all users may write to, such as
        // /tmp.
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        // A file may have replaced the pipe or device meanwhile.
        if !file.metadata()?.is_file() {
            return parts.iter().try_for_each(|part| file.write_all(part));
        }
    }
    let Some(name) = path.file_name() else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let folder = Arc::new(Folder::open(path.parent().unwrap_or(Path::new("")))?);
    let put = Writer::new(&Stop::default()).put(&folder, name, parts, |_| Ok(()));
    put.map(drop).map_err(|failure| match failure {
        NotPut::Io(error) => error,
        NotPut::Refused(fault) => io::Error::other(fault.to_string()),
    })
}

/// List the objects of a store
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 done, 2 wrong usage or no server.")]
pub(crate) struct LsArgs {
    #[command(flatten)]
    store: StoreName,

    /// Print a line of JSON for each object: id, name, kind, dtype and shape of arrays, bytes, created (seconds since
    /// 1970), leases, pid and program of the maker
    #[arg(long)]
    json: bool,
}

pub(super) fn ls(args: &LsArgs) -> Result<(), Failure> {
    let found = args.store.connect()?.objects()?;
    if args.json {
        return found.iter().try_for_each(print_json);
    }
    print(objects(&found, now(), columns()).as_bytes())
}

/// Remove objects from a store; programs that hold them keep them
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 done, 1 some do not exist (each is named), 2 wrong usage or no server."
)]
pub(crate) struct RmArgs {
    /// The objects' names
    #[arg(required = true, value_name = "OBJECT")]
    objects: Vec<String>,

    #[command(flatten)]
    store: StoreName,

    /// Print each removed object as a line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn rm(args: &RmArgs) -> Result<(), Failure> {
    let store = args.store.connect()?;
    let mut removed: Vec<Object> = Vec::new();
    let mut failures = Vec::new();
    for name in &args.objects {
        match store.remove(name) {
            Ok(object) => removed.push(object),
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    if args.json {
        removed.iter().try_for_each(print_json)?;
    }
    let Some(last) = failures.pop() else {
        return Ok(());
    };
    for failure in failures {
        failure.print();
    }
    Err(last)
}

/// End the server of a store; programs that hold objects keep them
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 done, 2 wrong usage or no server.")]
pub(crate) struct StopArgs {
    #[command(flatten)]
    store: StoreName,

    /// Print what the store was as a line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn stop(args: &StopArgs) -> Result<(), Failure> {
    let info = args.store.connect()?.stop()?;
    match args.json {
        true => print_json(&info),
        false => Ok(()),
    }
}

/// Returns the time in seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
