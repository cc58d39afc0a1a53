//! The `engine` floor.
