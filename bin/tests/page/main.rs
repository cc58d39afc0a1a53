//! The page of `arenite serve --http`: over sockets, and in a browser.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    clippy::disallowed_methods,
    reason = "to children that are not yet waited for"
)]

mod browser;
mod http;
mod shown;
mod world;
