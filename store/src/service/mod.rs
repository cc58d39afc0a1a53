//! Kernels that other programs of the same user call: a program with an engine offers them under a name.
//!
//! ```
//! use arenite::{Array, Engine};
//! use arenite_store::service::Service;
//!
//! fn brighten(photo: &Array<u8>, by: u8) -> Array<u8> {
//!     Array::from_fn(photo.shape(), |i| photo[i].saturating_add(by))
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     arenite::init();
//!     # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doctests/own_sockets.rs"))(true);
//!     let engine = Engine::builder().build()?;
//!     Service::new(engine).kernel("brighten", brighten).run("photos")?;
//!     Ok(())
//! }
//! ```
//!
//! Another program, in Rust, in Python (`arenite.service`) or by `arenite call`:
//!
//! ```
//! use arenite::Array;
//!
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doctests/own_sockets.rs"))(false);
//! let service = arenite_store::service::connect("photos")?;
//! let photo = Array::from_slice(&[1_u8, 2, 250]);
//! let bright: Array<u8> = service.call("brighten", (&photo, 10_u8)).wait()?;
//! assert_eq!(bright[..], [11, 12, 255]);
//! # Ok::<(), arenite_store::service::ServiceError>(())
//! ```
//!
//! Arrays travel as sealed memory files, which both ends map: each argument and each result is copied once, into its
//! file. If a call crashes, exceeds its deadline or runs out of memory, then only this call fails, with its cause. When
//! a client ends, its calls end. Clients take turns, and each has a limited number of open calls.
//!
//! docs/service-protocol.md describes the messages for clients in other languages.

mod client;
mod convert;
mod error;
mod kernel;
mod message;
mod server;
mod state;
mod turns;
mod value;

pub use client::{Call, Client, connect};
pub use convert::{FromValue, IntoValue, ValueType};
pub use error::{ServiceError, ServiceErrorKind};
pub use kernel::{ServiceParam, ServiceParams};
pub use message::{KernelInfo, ServiceInfo};
pub use server::{Service, Serving};
pub use value::{Payload, Value};

#[doc(hidden)]
pub use kernel::Refused;
