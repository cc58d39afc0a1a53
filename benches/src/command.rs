//! The `arenite` command, which some cases run as a whole program.

use std::path::PathBuf;
use std::process::Command;

/// Builds the command where Cargo runs this program, so that it is not an older one, and returns its path: beside this
/// program. `None` where there is none.
pub fn locate() -> Option<PathBuf> {
    if let Some(cargo) = std::env::var_os("CARGO")
        && let Err(error) = build(&cargo)
    {
        eprintln!("the arenite command could not be built: {error}");
    }
    let command = std::env::current_exe().ok()?.with_file_name("arenite");
    command.is_file().then_some(command)
}

fn build(cargo: &std::ffi::OsStr) -> Result<(), String> {
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--package", "arenite-cli"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo ended with {status}")),
        Err(error) => Err(error.to_string()),
    }
}
