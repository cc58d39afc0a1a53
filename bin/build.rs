//! Passes the compiler what `--version` prints: commit, profile and target.

use std::env;
use std::process::Command;

/// Also called by the build script of the benchmarks.
pub fn main() {
    // A source archive has no `.git`: `--version` then prints no commit.
    let commit = git(&[
        "describe",
        "--always",
        "--dirty",
        "--abbrev=10",
        "--exclude=*",
    ]);
    let commit = commit
        .map(|commit| format!(" ({commit})"))
        .unwrap_or_default();
    println!("cargo::rustc-env=ARENITE_COMMIT={commit}");
    for (name, variable) in [("ARENITE_PROFILE", "PROFILE"), ("ARENITE_TARGET", "TARGET")] {
        println!(
            "cargo::rustc-env={name}={}",
            env::var(variable).unwrap_or_default()
        );
    }
    for path in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", path]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
