//! Named arrays in shared memory for all programs of a user on one machine, and kernels that these programs call.
//!
//! A server (`arenite serve`, or [`Server`]) owns the names; programs [connect], publish arrays and map them. An object
//! is one memory file that is sealed before it gets its name: it appears as a whole or not at all, and no process can
//! change or truncate it under a reader. The memory of an object is freed once the object was removed and every program
//! that mapped the object has dropped it. Nothing is evicted: a full store is an error that states the sizes. A program
//! that ends, at any moment, leaves no file and no memory. Mapped arrays survive the server.
//!
//! ```
//! use arenite::Array;
//! use arenite_store::connect;
//!
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doctests/own_sockets.rs"))(false);
//! let store = connect("main")?;
//! store.put("prices", &Array::from_slice(&[1.5_f32, 2.5]))?;
//!
//! // In another program: mapped, not copied.
//! let prices: Array<f32> = connect("main")?.get("prices")?;
//! # Ok::<(), arenite_store::StoreError>(())
//! ```
//!
//! Jobs take an array from a store by reference, like an array of the engine's arena: workers map the object as well.
//! Workers that cannot open the object (because they are sandboxed, or their program is not dumpable) get a copy in the
//! arena, which jobs that run at the same time share. Objects of up to 64 KiB are always copied. A kernel may also take
//! a name, and connect to the store itself.
//!
//! Module [`service`] is about kernels: a program with an engine offers them under a name, and others call them.
//!
//! `docs/store-protocol.md` and `docs/service-protocol.md` of the repository describe the messages, for clients in
//! other languages.
//!
//! # Features
//!
//! - `points`: for the tests of this crate; rejected in release builds.

// The module `sys::passed` takes over descriptors by their numbers.
#![deny(unsafe_code)]

mod acceptor;
mod client;
mod closer;
mod draft;
mod error;
mod kind;
mod message;
mod objects;
mod place;
mod sealed;
mod server;
pub mod service;
mod services;
mod sys;
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

/// Marks a point between two steps of a protocol at which tests kill or stop the process. Its name must be listed in
/// `tests/support/points.rs`. Expands to nothing without the feature `points`.
macro_rules! point {
    ($name:literal) => {
        #[cfg(feature = "points")]
        {
            const INDEX: usize = arenite::points::index($name);
            arenite::points::pass(INDEX);
        }
    };
}
pub(crate) use point;

// The programs in README.md, docs/store.md and docs/service.md are doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
#[cfg(doctest)]
#[doc = include_str!("../../docs/store.md")]
struct StoreGuide;
#[cfg(doctest)]
#[doc = include_str!("../../docs/service.md")]
struct ServiceGuide;
