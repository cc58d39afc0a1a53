//! The `image` floor.
