//! The `link` floor.
