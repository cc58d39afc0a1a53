//! `arenite call` from outside: a service of this test, called by the command.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread::JoinHandle;

use arenite::array::npy;
use arenite::{Array, Bytes, Engine};
use arenite_store::service::{Service, ServiceError};
use arenite_store::{Server, Stopper, connect};
use tempfile::TempDir;

struct World {
    folder: TempDir,
    stopper: Stopper,
    running: Option<JoinHandle<Result<(), ServiceError>>>,
}

fn scale(values: &Array<f32>, by: f32) -> Array<f32> {
    Array::from_fn(values.shape(), |i| values[i] * by)
}
fn split(values: &[u8], at: usize) -> Result<(Array<u8>, u64, Array<u8>), String> {
    let (low, high) = values
        .split_at_checked(at)
        .ok_or("cannot be split there\nby anyone")?;
    Ok((Array::from_slice(low), u64::MAX, Array::from_slice(high)))
}
fn describe(text: &str, count: i64, part: f64, sure: bool) -> String {
    format!("{text} {count} {part} {sure}")
}
fn limit(positive: bool) -> f64 {
    if positive { f64::INFINITY } else { f64::NAN }
}
fn length(bytes: &Bytes) -> usize {
    bytes.len()
}
fn nothing() {}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("service.sock");
        let serving = Service::new(Engine::inline())
            .kernel("scale", scale)
            .kernel("split", split)
            .kernel("describe", describe)
            .kernel("limit", limit)
            .kernel("length", length)
            .kernel("nothing", nothing)
            .bind(name.to_str().unwrap())
            .unwrap();
        World {
            folder,
            stopper: serving.stopper(),
            running: Some(std::thread::spawn(|| serving.run())),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_arenite"))
            .args(["call", "./service.sock"])
            .args(arguments)
            .current_dir(self.folder.path())
            .env("ARENITE_STORE", "./store.sock")
            .output()
            .unwrap()
    }

    /// What a call prints that ends with success.
    fn out(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && errors.is_empty(),
            "{arguments:?}: {errors}"
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit code and message of a call that fails.
    fn failure(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert!(output.stdout.is_empty(), "{output:?}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(message.lines().count(), 1, "{message}");
        (output.status.code().unwrap(), message)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(running) = self.running.take() {
            running.join().unwrap().unwrap();
        }
    }
}

#[test]
fn kernels_are_listed_with_their_signatures() {
    let world = World::new();
    let list = world.out(&[]);
    assert!(list.starts_with("KERNEL"), "{list}");
    assert!(
        list.contains("scale     (array f4, f32) -> array f4"),
        "{list}"
    );
    assert!(
        list.contains("(array u1, usize) -> (array u1, u64, array u1)"),
        "{list}"
    );
    let lines = world.out(&["--json"]);
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["name"], "scale");
}

#[test]
fn services_that_run_are_listed() {
    let world = World::new();
    // Where services are found by name.
    let folder = world.path("arenite");
    fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
    std::os::unix::fs::symlink("../service.sock", folder.join("link.sock")).unwrap();
    let command = |flag: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arenite"));
        command
            .arg("call")
            .args(flag)
            .env("XDG_RUNTIME_DIR", world.folder.path());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    // No socket but a link to one.
    assert_eq!(command(&["--json"]), "");
    let socket = folder.join("photos.sock");
    let serving = Service::new(Engine::inline())
        .kernel("nothing", nothing)
        .bind(socket.to_str().unwrap())
        .unwrap();
    let stopper = serving.stopper();
    let running = std::thread::spawn(|| serving.run());
    let list = command(&[]);
    assert!(list.starts_with("SERVICE"), "{list}");
    assert_eq!(list.lines().count(), 2, "{list}");
    let line: serde_json::Value = serde_json::from_str(&command(&["--json"])).unwrap();
    assert_eq!(line["kernels"][0]["name"], "nothing");
    stopper.stop();
    running.join().unwrap().unwrap();
    assert_eq!(command(&["--json"]), "");
}

#[test]
fn plain_values_are_written_as_they_look() {
    let world = World::new();
    let call = |arguments: &[&str]| world.out(&[&["describe"], arguments].concat());
    assert_eq!(call(&["a", "-3", "2.5", "true"]), "a -3 2.5 true\n");
    // A text that looks like a number is one in quotes.
    assert_eq!(call(&["\"42\"", "0", "1", "false"]), "42 0 1 false\n");
    for (text, why) in [
        ("18446744073709551616", "64 bits"),
        ("[1, -9223372036854775809]", "64 bits"),
        (&"[".repeat(200), "nested too deeply"),
    ] {
        let (code, message) = world.failure(&["describe", "a", text, "0", "true"]);
        assert!(code == 2 && message.contains(why), "{message}");
    }
    assert_eq!(
        call(&["18446744073709551616 or so", "1", "0", "true"]),
        "18446744073709551616 or so 1 0 true\n"
    );
    assert_eq!(world.out(&["nothing"]), "");
    assert_eq!(world.out(&["nothing", "--json"]), "null\n");
    assert_eq!(world.out(&["limit", "true"]), "inf\n");
    assert_eq!(world.out(&["limit", "false", "--json"]), "\"nan\"\n");
}

#[test]
fn arrays_come_from_files_and_go_to_files() {
    let world = World::new();
    let array = Array::from_fn([2, 3], |i| i as f32);
    npy::write(world.path("in.npy"), &array).unwrap();
    assert_eq!(world.out(&["scale", "@in.npy", "2", "-o", "out.npy"]), "");
    let scaled = npy::read::<f32>(world.path("out.npy")).unwrap();
    assert_eq!((scaled.shape().dims(), scaled[5]), (&[2, 3][..], 10.0));
    // To a pipe.
    let output = world.run(&["scale", "@in.npy", "2"]);
    assert_eq!(output.stdout, fs::read(world.path("out.npy")).unwrap());

    fs::write(world.path("bytes"), [7; 10]).unwrap();
    assert_eq!(world.out(&["length", "@bytes"]), "10\n");
    let line = world.out(&[
        "split", "@bytes", "4", "-o", "low.npy", "-o", "high.npy", "--json",
    ]);
    let shown: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(shown[0]["file"], "low.npy");
    assert_eq!(shown[1], u64::MAX);
    assert_eq!(shown[2]["shape"], serde_json::json!([6]));
    assert_eq!(npy::read::<u8>(world.path("high.npy")).unwrap()[..], [7; 6]);
}

#[test]
fn an_object_of_a_store_is_an_argument() {
    let world = World::new();
    let name = world.path("store.sock");
    let server = Server::bind(name.to_str().unwrap()).unwrap();
    let running = std::thread::spawn(move || server.run());
    let store = connect(name.to_str().unwrap()).unwrap();
    store
        .put("values", &Array::from_slice(&[1.0_f32, 2.0]))
        .unwrap();
    world.out(&["scale", "store:values", "3", "-o", "out.npy"]);
    assert_eq!(
        npy::read::<f32>(world.path("out.npy")).unwrap()[..],
        [3.0, 6.0]
    );
    let (code, message) = world.failure(&["scale", "store:other", "3"]);
    assert_eq!(code, 1);
    assert!(message.contains("there is no object"), "{message}");
    store.stop().unwrap();
    running.join().unwrap().unwrap();
}

#[test]
fn a_failure_is_one_line_and_an_exit_code() {
    let world = World::new();
    npy::write(world.path("in.npy"), &Array::from_slice(&[1_u8])).unwrap();
    for (arguments, code, part) in [
        (
            &["split", "@in.npy", "9", "-o", "a", "-o", "b"][..],
            1,
            "cannot be split there",
        ),
        (&["split", "@in.npy", "1"], 2, "2 arrays"),
        (
            &["describe", "a", "0", "0", "true", "-o", "a"],
            2,
            "leave out --out",
        ),
        (
            &["describe", "a"],
            2,
            "describe(text, i64, f64, boolean) -> text",
        ),
        (&["scale", "@in.npy", "2"], 2, "array <f4 and not array |u1"),
        (&["scale", "@none.npy", "2"], 2, "none.npy: no such file"),
        (&["none"], 2, "it has scale, split"),
    ] {
        let (found, message) = world.failure(arguments);
        assert_eq!(found, code, "{message}");
        assert!(
            message.starts_with("error: ") && message.contains(part),
            "{message}"
        );
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_arenite"));
    let output = command
        .args(["call", "/nowhere.sock", "a"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("no service /nowhere.sock runs"),
        "{message}"
    );
}
