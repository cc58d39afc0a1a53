//! The messages: one JSON object for each packet. docs/store-protocol.md describes them for other clients.

use serde::{Deserialize, Serialize};

use super::kind::Kind;

/// Version of the protocol. Raised by changes that old clients do not understand.
pub(super) const PROTOCOL: u32 = 1;

/// Maximum length of a packet in bytes, in both directions.
pub(crate) const MAX_PACKET: usize = 64 << 10;

/// A request of a client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Request {
    /// Asks for the state of the store. Answer: [`StoreInfo`].
    Info,
    /// Publishes the sealed memory file that comes with the request. Answer: [`Object`].
    Put {
        name: String,
        #[serde(flatten)]
        kind: Kind,
        /// Whether to replace an object of this name. If false, an object of this name is an error.
        #[serde(default)]
        replace: bool,
    },
    /// Asks for the object of this name. Answer: [`Object`], with a sealed memory file; a lease begins.
    Get { name: String },
    /// Asks for an answer once there is an object of this name. Answer: [`Object`], without a file and a lease. A
    /// client uses a connection of its own for this, and closes it when it has waited for long enough.
    Wait { name: String },
    /// Ends a lease on the object with this number. No answer.
    Release { id: u64 },
    /// Asks for a page of objects in the order of their names. Answer: [`Page<Object>`].
    Ls {
        /// The last name of the previous page.
        #[serde(default)]
        after: String,
    },
    /// Asks for a page of clients in the order of their numbers. Answer: [`Page<Client>`].
    Clients {
        /// The last number of the previous page.
        #[serde(default)]
        after: u64,
    },
    /// Removes a name. Answer: the [`Object`] that had it.
    Rm { name: String },
    /// Ends the server. Answer: [`StoreInfo`].
    Stop,
}

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Answer<T> {
    // This variant is first, because only a failure has the member `error`.
    Failed(Failure),
    Done(T),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub error: FailureCode,
    /// A sentence for a person.
    pub message: String,
    /// The bytes requested and free, if the store is full.
    #[serde(flatten)]
    pub full: Option<Full>,
}

/// The kinds of failure that clients tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FailureCode {
    /// There is no object of this name.
    NoObject,
    /// There is an object of this name already.
    Exists,
    /// The store is full.
    Full,
    /// The file is not sealed, has another length, or has holes without memory; or the name is not allowed.
    BadObject,
    /// The packet is no request.
    BadRequest,
    /// The server has reached a limit of its process.
    Limit,
    /// A code that only newer servers send.
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

/// The bytes that were requested and that are free.
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
    /// The type of the content.
    #[serde(flatten)]
    pub kind: Kind,
    /// Size in bytes.
    pub bytes: u64,
    /// When the object was published, in seconds since 1970.
    pub created: f64,
    /// The number of handles of clients. A removed object occupies memory until this number is 0.
    pub leases: u64,
    /// The process that published the object.
    pub pid: i32,
    /// The program of that process.
    pub program: String,
}

/// A program that is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Client {
    /// The number of the connection.
    pub id: u64,
    /// The client's process.
    pub pid: i32,
    /// The program of that process.
    pub program: String,
    /// The number of leases of this client.
    pub leases: u64,
    /// Bytes of the objects that this client has leases on, each object counted once.
    pub bytes: u64,
}

/// The size, the contents and the version of a store.
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
    /// When the server started, in seconds since 1970.
    pub started: f64,
    /// The number of bytes that all objects together may have.
    pub capacity: u64,
    /// Bytes of all objects, removed ones with leases included.
    pub used: u64,
    /// Bytes of removed objects with leases.
    pub retained: u64,
    /// Number of objects.
    pub objects: u64,
    /// Number of connections.
    pub clients: u64,
}

/// A part of a list.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Page<T> {
    pub items: Vec<T>,
    /// Whether the list continues after the last item.
    pub more: bool,
}
