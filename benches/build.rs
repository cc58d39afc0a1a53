//! What the command's `--version` reports: the commit of a figure.

#[path = "../bin/build.rs"]
mod command;

fn main() {
    command::main();
}
