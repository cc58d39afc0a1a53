//! The messages: one JSON object for each packet. docs/store-protocol.md describes them for other clients.

use serde::{Deserialize, Serialize};

use super::kind::Kind;

/// Version of the protocol: raised by changes that old clients do not understand.
pub(super) const PROTOCOL: u32 = 1;

/// Maximum length of a packet in bytes, in both directions.
pub(crate) const MAX_PACKET: usize = 64 << 10;

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Request {
    /// About the store. Answer: [`StoreInfo`].
    Info,
    /// With a sealed memory file: makes it an object. Answer: [`Object`].
    Put {
        name: String,
        #[serde(flatten)]
        kind: Kind,
        /// Whether an object of this name is replaced. Otherwise it is an error.
        #[serde(default)]
        replace: bool,
    },
    /// The object of this name. Answer: [`Object`], with a sealed memory file; a lease begins.
    Get { name: String },
    /// Ends a lease on the object with this number. No answer.
    Release { id: u64 },
    /// A page of objects in the order of their names. Answer: [`Page<Object>`].
    Ls {
        /// The last name of the page before.
        #[serde(default)]
        after: String,
    },
    /// A page of clients in the order of their numbers. Answer: [`Page<Client>`].
    Clients {
        /// The last number of the page before.
        #[serde(default)]
        after: u64,
    },
    /// Removes a name. Answer: the [`Object`].
    Rm { name: String },
    /// Ends the server. Answer: [`StoreInfo`].
    Stop,
}

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Answer<T> {
    // First: only it has the member `error`.
    Failed(Failure),
    Done(T),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub error: FailureCode,
    /// For people.
    pub message: String,
    /// Bytes, if the store is full.
    #[serde(flatten)]
    pub full: Option<Full>,
}

/// The kinds of failure that clients tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FailureCode {
    /// There is no object of this name.
    NoObject,
    /// There is one already.
    Exists,
    /// The capacity does not suffice.
    Full,
    /// What was sent is no object: not sealed, of another length, without memory, with an unusable name.
    BadObject,
    /// What was sent is no request.
    BadRequest,
    /// The server has reached a limit of its process.
    Limit,
    /// A code of a newer server.
    #[serde(other)]
    Other,
}

impl From<Full> for Failure {
    fn from(full: Full) -> Failure {
        let held = match full.retained {
            0 => String::new(),
            retained => format!(", {retained} of it held by readers of removed objects"),
        };
        Failure {
            error: FailureCode::Full,
            message: format!(
                "the store is full: requested {} bytes, free {}, capacity {}{held}; remove objects, or start the \
                 server with a larger --capacity",
                full.requested, full.free, full.capacity
            ),
            full: Some(full),
        }
    }
}

/// How much room was asked for and is there, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Full {
    pub requested: u64,
    pub free: u64,
    pub capacity: u64,
    pub retained: u64,
}

/// A named object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Object {
    /// A number that no other object of this store has or will have.
    pub id: u64,
    /// The name.
    pub name: String,
    /// What it holds.
    #[serde(flatten)]
    pub kind: Kind,
    /// Size in bytes.
    pub bytes: u64,
    /// When it appeared, in seconds since 1970.
    pub created: f64,
    /// How many clients' handles exist. A removed object occupies memory until there are none.
    pub leases: u64,
    /// The process that made it.
    pub pid: i32,
    /// That process' program.
    pub program: String,
}

/// A program that is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Client {
    /// The connection's number.
    pub id: u64,
    /// Its process.
    pub pid: i32,
    /// That process' program.
    pub program: String,
    /// Handles to objects that it holds.
    pub leases: u64,
    /// Bytes of the objects that it holds, each counted once.
    pub bytes: u64,
}

/// A store as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreInfo {
    /// Version of the protocol.
    pub protocol: u32,
    /// Version of the server.
    pub version: String,
    /// The store's name.
    pub name: String,
    /// The server's process.
    pub pid: i32,
    /// When it started, in seconds since 1970.
    pub started: f64,
    /// Bytes that all objects together may have.
    pub capacity: u64,
    /// Bytes of all objects, removed ones with leases included.
    pub used: u64,
    /// Bytes of removed objects that clients still hold.
    pub retained: u64,
    /// Number of objects.
    pub objects: u64,
    /// Number of connections.
    pub clients: u64,
}

/// Part of a list.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Page<T> {
    pub items: Vec<T>,
    /// Whether there are more after the last one.
    pub more: bool,
}
