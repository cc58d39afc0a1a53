//! The `supervisor` floor.
