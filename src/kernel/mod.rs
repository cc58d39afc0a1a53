//! The `kernel` floor.
