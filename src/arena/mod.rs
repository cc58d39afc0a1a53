//! The `arena` floor.
