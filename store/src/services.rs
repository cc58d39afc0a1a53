//! The sockets of this user's stores and services: lists their names, and asks a service for its status.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

use rustix::io::Errno;
use serde::Deserialize;

use super::client::{not_running, open};
use super::error::{StoreError, StoreErrorKind};
use super::message::{Answer, FailureCode, MAX_PACKET};
use super::place;
use crate::sys::effective_user;

/// Returns the names of this user's sockets, of stores and of services, sorted.
///
/// Connects to no socket: a connection may start a server, and prevents an idle server from ending. [`service_status`]
/// shows whether a service runs under a name.
///
/// ```
/// use std::time::Duration;
/// use arenite_store::{service_status, services};
///
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doctests/own_sockets.rs"))(false);
/// for name in services()? {
///     if let Ok(Some(status)) = service_status(&name, Duration::from_millis(300)) {
///         println!("{name}: {status}");
///     }
/// }
/// # Ok::<(), arenite_store::StoreError>(())
/// ```
///
/// # Errors
///
/// [`StoreErrorKind::System`] if the folder of the sockets cannot be read. A folder that does not exist counts as
/// empty.
pub fn services() -> Result<Vec<String>, StoreError> {
    let folder = place::folder();
    let failed =
        |why: &io::Error| StoreError::io(&format!("cannot read {}", folder.display()), why);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(failed(&why)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|why| failed(&why))?;
        // A file that is removed meanwhile is skipped.
        let is_ours = entry
            .metadata()
            .is_ok_and(|found| found.file_type().is_socket() && found.uid() == effective_user());
        let file = entry.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".sock"));
        if let Some(name) = name
            && is_ours
            && place::socket(name).is_ok()
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Asks the service `name` for its status, which is a JSON object. `None` if the server of this name is a store.
///
/// # Errors
///
/// [`StoreErrorKind::NotRunning`] if no server of this name runs, [`StoreErrorKind::Denied`] if the server is another
/// user's, [`StoreErrorKind::Protocol`] if the server does not answer within `patience`, or sends anything but a
/// status.
pub fn service_status(name: &str, patience: Duration) -> Result<Option<String>, StoreError> {
    let failed = |error: crate::sys::Error| match error.errno() {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => not_running(name),
        Errno::AGAIN => {
            let text =
                format!("the service {name} does not answer (within {patience:?}); is it stopped?");
            StoreError::new(StoreErrorKind::Protocol, text)
        }
        _ => error.into(),
    };
    let socket = open(name, patience, failed)?;
    let mut bytes = vec![0; MAX_PACKET];
    let packet = socket
        .send(br#"{"op":"status"}"#, &[])
        .and_then(|()| socket.receive(&mut bytes))
        .map_err(failed)?;
    if packet.len == 0 {
        return Err(not_running(name));
    }
    bytes.truncate(packet.len);
    let wrong = |why: String| {
        StoreError::new(
            StoreErrorKind::Protocol,
            format!("{name} answered no status: {why}"),
        )
    };
    match serde_json::from_slice(&bytes) {
        Ok(Answer::Done(Status { service: true })) => {}
        // A store rejects this request.
        Ok(Answer::Failed(failure)) if failure.error != FailureCode::BadRequest => {
            return Err(failure.into());
        }
        Ok(Answer::Done(_) | Answer::Failed(_)) => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    }
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|error| wrong(error.to_string()))
}

/// The member that every status has.
#[derive(Debug, Deserialize)]
struct Status {
    #[serde(default)]
    service: bool,
}
