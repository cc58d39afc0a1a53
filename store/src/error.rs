//! [`StoreError`].

use std::fmt;
use std::io;

use arenite::engine::SystemError;
use arenite::escape_text;

use super::message::{Failure, FailureCode};
use crate::sys;

/// Why a call to a store failed. Displays as a sentence that says what to do.
#[derive(Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
}

/// The causes that callers can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// No server of this name runs, or the server ended. Arrays from it remain usable.
    NotRunning,
    /// A server of this name runs already.
    AlreadyRunning,
    /// There is no object of this name.
    NoObject,
    /// There is an object of this name already.
    Exists,
    /// The store is full, in bytes.
    Full {
        /// The number of bytes that were requested.
        requested: u64,
        /// The number of free bytes.
        free: u64,
        /// The number of bytes that all objects together may have.
        capacity: u64,
    },
    /// The object has another kind or element type than the caller asked for.
    WrongKind,
    /// The name is not allowed.
    BadName,
    /// The server rejects the file or the kind of an object.
    BadObject,
    /// The server or the folder belongs to another user.
    Denied,
    /// The server does not answer in time, or sends an answer that this client does not understand.
    Protocol,
    /// A system call failed in this process or in the server, for lack of memory or descriptors.
    System,
}

impl StoreError {
    pub(super) fn new(kind: StoreErrorKind, message: impl Into<String>) -> StoreError {
        StoreError {
            kind,
            message: message.into(),
        }
    }

    pub(super) fn io(what: &str, error: &io::Error) -> StoreError {
        StoreError::new(StoreErrorKind::System, format!("{what}: {error}"))
    }

    /// Returns the cause, for a `match`.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl From<sys::Error> for StoreError {
    fn from(error: sys::Error) -> StoreError {
        StoreError::new(StoreErrorKind::System, error.to_string())
    }
}

impl From<SystemError> for StoreError {
    fn from(error: SystemError) -> StoreError {
        StoreError::new(StoreErrorKind::System, error.to_string())
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> StoreError {
        let kind = match (failure.error, failure.full) {
            (FailureCode::NoObject, _) => StoreErrorKind::NoObject,
            (FailureCode::Exists, _) => StoreErrorKind::Exists,
            (FailureCode::Full, Some(full)) => StoreErrorKind::Full {
                requested: full.requested,
                free: full.free,
                capacity: full.capacity,
            },
            (FailureCode::BadObject, _) => StoreErrorKind::BadObject,
            (FailureCode::Limit, _) => StoreErrorKind::System,
            (FailureCode::Full | FailureCode::BadRequest | FailureCode::Other, _) => {
                StoreErrorKind::Protocol
            }
        };
        StoreError::new(kind, failure.message)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The message may contain names that another program has chosen.
        escape_text(&self.message).fmt(f)
    }
}

// Like `Display`: `unwrap`, and a `main` that returns the error, print the sentence.
impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<StoreError> for arenite::Error {
    fn from(error: StoreError) -> Self {
        Self::Other(Box::new(error))
    }
}

impl std::error::Error for StoreError {}
