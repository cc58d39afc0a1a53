//! The `arenite` command, which some cases run as a whole program.

use std::path::PathBuf;
use std::process::Command;

/// Returns the path of the command in the folder of this program, or `None` if the command is not built. If Cargo runs
/// this program, builds the command first, so that it is up to date.
pub fn locate() -> Option<PathBuf> {
    if let Some(cargo) = std::env::var_os("CARGO")
        && let Err(error) = build(&cargo)
    {
        eprintln!("the arenite command could not be built: {error}");
    }
    // A test program is in a subfolder of the command's folder.
    let program = std::env::current_exe().ok()?;
    let folders = program.ancestors().skip(1).take(2);
    folders
        .map(|folder| folder.join("arenite"))
        .find(|path| path.is_file())
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
