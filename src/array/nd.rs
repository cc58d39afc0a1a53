//! Views as `ndarray` arrays, and copies of them.
