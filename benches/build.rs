//! What the command's `--version` reports: the commit of a figure.

include!("../bin/build.rs");
