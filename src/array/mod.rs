//! The `array` floor.
