//! The `control` floor.
