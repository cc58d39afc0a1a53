//! Tests of this floor with real processes and files.
