//! The `twins` floor.
