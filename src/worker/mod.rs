//! The `worker` floor.
