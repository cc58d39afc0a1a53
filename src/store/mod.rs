//! Named objects in shared memory, for all programs of a user on one machine.
//!
//! A server (`arenite serve`, or [`Server`]) owns the names; programs [connect], publish arrays and map them. An object is
//! one memory file that is sealed before it gets its name: it appears whole or not at all, cannot be changed or
//! truncated under a reader, and lives until it is removed and the last program that holds it lets it go. Nothing is
//! evicted: a full store is an error with numbers. Whatever program ends at whatever moment, nothing is left behind,
//! and arrays survive the server.
//!
//! ```no_run
//! use arenite::Array;
//! use arenite::store::connect;
//!
//! let store = connect("main")?;
//! store.put("prices", &Array::from_slice(&[1.5_f32, 2.5]))?;
//!
//! // In another program: mapped, not copied.
//! let prices: Array<f32> = connect("main")?.get("prices")?;
//! # Ok::<(), arenite::store::StoreError>(())
//! ```
//!
//! An array from a store is an argument of jobs like one of the engine's arena, by reference: workers map the object as
//! well. Workers that cannot open it (those of a sandbox, and of a program that is not dumpable) get a copy in the arena,
//! which jobs that run at the same time share; so do jobs that take an object of up to 64 KiB. A kernel may also take a
//! name, and connect itself.
//!
//! docs/store-protocol.md describes the messages for clients in other languages.

mod client;
pub(crate) mod closer;
pub(crate) mod door;
mod draft;
mod error;
mod kind;
mod message;
mod objects;
pub(crate) mod place;
pub(crate) mod sealed;
mod server;
mod services;
#[cfg(test)]
mod tests;
mod upgrade;

pub use client::{Store, connect};
pub use draft::Draft;
pub use error::{StoreError, StoreErrorKind};
pub use kind::Kind;
pub use message::{Client, Object, StoreInfo};
pub use place::socket as socket_path;
pub use server::{Server, Stopper};
pub use services::{service_status, services};

pub(crate) use client::open;
pub(crate) use message::MAX_PACKET;
