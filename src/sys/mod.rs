//! The `sys` floor.
