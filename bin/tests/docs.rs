//! Runs every command that README.md and docs/ show: `arenite …` on the sample photos; of `cargo …`, the packages,
//! tests and examples it names have to exist.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use arenite::{Array, Engine};
use arenite_store::Stopper;
use arenite_store::service::Service;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Pages with commands.
fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    docs.map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .chain(
            ["README.md", "CONTRIBUTING.md", "tests/soak/README.md"].map(|page| root().join(page)),
        )
        .collect()
}

/// The lines of a page's shell blocks, without comments; continued lines are joined.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let lines = blocks.flat_map(|block| {
        block
            .replace("\\\n", " ")
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    let lines = lines.map(|line| line.split(" #").next().unwrap().trim().to_owned());
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// Copies the files of a folder: `find` does not follow a link to one.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A `.npy` file.
const PRICES: &[u8] = b"\x93NUMPY\x01\x00\x3c\x00{'descr': '<u2', 'fortran_order': False, 'shape': (2,), }  \n\x01\x00\x02\x00";

/// Serves `photos` until the test ends.
fn service(folder: &Path) -> Stopper {
    fn brighten(photo: &Array<u16>, by: u16) -> Array<u16> {
        Array::from_fn(photo.shape(), |i| photo[i].saturating_add(by))
    }
    fs::DirBuilder::new().mode(0o700).create(folder).unwrap();
    let socket = folder.join("photos.sock");
    let serving = Service::new(Engine::inline())
        .kernel("brighten", brighten)
        .bind(socket.to_str().unwrap())
        .unwrap();
    let stopper = serving.stopper();
    std::thread::spawn(|| serving.run());
    stopper
}

#[test]
fn each_arenite_command_runs() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["photos", "downloads", "samples"] {
        copy(&root().join("samples"), &folder.path().join(name));
    }
    let program = Path::new(env!("CARGO_BIN_EXE_arenite"));
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    // For the store's commands.
    let runtime = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prices.npy"), PRICES).unwrap();
    fs::write(folder.path().join("photo.npy"), PRICES).unwrap();
    let stopper = service(&runtime.path().join("arenite"));
    let mut ran = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for command in commands(&text) {
            if !(command.starts_with("arenite ") || command.contains("| arenite ")) {
                continue;
            }
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &command])
                .current_dir(folder.path())
                .env("PATH", &path)
                .env("XDG_RUNTIME_DIR", runtime.path());
            if command.ends_with('&') {
                // A server, which a later command of its page ends.
                let null = || std::process::Stdio::null();
                let status = shell.stdout(null()).stderr(null()).status().unwrap();
                assert!(status.success(), "{command}");
                let socket = runtime.path().join("arenite/main.sock");
                while !socket.exists() {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                continue;
            }
            let output = shell.output().unwrap();
            // `doctor` ends with 1 where it has something to say about this machine.
            let allowed = if command.starts_with("arenite doctor") {
                1
            } else {
                0
            };
            let code = output.status.code().unwrap_or(-1);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                (0..=allowed).contains(&code),
                "{}: `{command}` ended with {code}: {said}",
                page.display()
            );
            ran += 1;
        }
    }
    stopper.stop();
    assert!(ran > 5, "only {ran} commands were found");
}

#[test]
fn each_cargo_command_names_what_exists() {
    let manifests = [
        "Cargo.toml",
        "bin/Cargo.toml",
        "image/Cargo.toml",
        "store/Cargo.toml",
        "tables/Cargo.toml",
        "benches/Cargo.toml",
        "tests/Cargo.toml",
    ];
    let manifests: String = manifests
        .iter()
        .map(|file| fs::read_to_string(root().join(file)).unwrap_or_default())
        .collect();
    let files = |folder: &str, name: &str| root().join(folder).join(format!("{name}.rs")).exists();
    let mut looked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for command in commands(&text)
            .iter()
            .filter(|command| command.contains("cargo "))
        {
            let words: Vec<_> = command.split_whitespace().collect();
            for pair in words.windows(2) {
                let [option, name] = pair else { continue };
                let there = match *option {
                    "-p" | "--bench" => manifests.contains(&format!("name = \"{name}\"")),
                    "--test" => {
                        manifests.contains(&format!("name = \"{name}\""))
                            || files("bin/tests", name)
                            || files("image/tests", name)
                    }
                    "--example" => {
                        let of = [
                            "examples",
                            "image/examples",
                            "store/examples",
                            "tables/examples",
                        ];
                        *name == "NAME" || of.iter().any(|folder| files(folder, name))
                    }
                    _ => continue,
                };
                assert!(
                    there,
                    "{}: `{command}` names {name}, which does not exist",
                    page.display()
                );
                looked += 1;
            }
        }
    }
    assert!(looked > 6, "only {looked} names were found");
}
