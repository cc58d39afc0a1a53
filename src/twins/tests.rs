//! Twins, tested with real processes: see `tests/`.
