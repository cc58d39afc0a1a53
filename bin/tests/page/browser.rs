//! The page in headless Chromium.

use std::env;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use arenite::Array;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;

use crate::world::{World, status, until};

/// The browser, if there is one. With `ARENITE_NEED_CHROMIUM` there has to be.
fn chromium() -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders)
        .flat_map(|folder| ["chromium", "chromium-browser"].map(|name| folder.join(name)))
        .find(|path| path.is_file());
    if found.is_none() {
        assert!(
            env::var_os("ARENITE_NEED_CHROMIUM").is_none(),
            "there is no chromium, and ARENITE_NEED_CHROMIUM is set"
        );
        eprintln!("not tried: there is no chromium");
    }
    found
}

/// Opens `url` for some seconds of its own time, and returns the document then.
fn dom(world: &World, chromium: &PathBuf, url: &str) -> String {
    let home = world.path("browser");
    std::fs::create_dir_all(&home).unwrap();
    let output = world.path("dom.html");
    let mut child = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-sync",
        ])
        .args(["--disable-component-update", "--disable-dev-shm-usage"])
        .arg(format!("--user-data-dir={}", home.display()))
        .args(["--virtual-time-budget=4000", "--dump-dom", url])
        .env("HOME", &home)
        .stdin(Stdio::null())
        .stdout(File::create(&output).unwrap())
        .stderr(File::create(world.path("browser.log")).unwrap())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = Pid::from_raw(child.id() as i32);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("the browser ends", || child.try_wait().unwrap().is_some());
    }));
    // Its helpers too; none is there if it has ended as it should.
    let _ = killpg(group, Signal::SIGKILL);
    let _ = child.wait();
    let log = std::fs::read_to_string(world.path("browser.log")).unwrap();
    assert!(ended.is_ok(), "{log}");
    let dom = std::fs::read_to_string(output).unwrap();
    assert!(!dom.is_empty(), "{log}");
    dom
}

#[test]
fn a_browser_shows_the_store_and_its_services() {
    let Some(chromium) = chromium() else { return };
    let world = World::new();
    let serving = world.serve("127.0.0.1:0", "--capacity 1MiB");
    let mut reported = status("blur");
    // The same twice: each look shows both, and no more.
    let failure = reported["failures"][0].clone();
    reported["failures"].as_array_mut().unwrap().push(failure);
    reported["kernels"].as_array_mut().unwrap().push(json!({
        "name": "crash", "signature": "()", "queued": 0, "running": 0, "done": 0, "failed": 2, "seconds": 0.0,
    }));
    world.service("blur", &reported);
    let _hung = world.hung_service("hung");
    let store = world.store();
    let script = "<script>document.title = 'owned'</script>";
    let image = "<img src=x onerror=\"document.title = 'owned'\">";
    store
        .put("prices", &Array::from_slice(&[0.5_f32; 30_000]))
        .unwrap();
    store.put(script, &Array::from_slice(&[1_u8])).unwrap();
    store.put(image, &Array::from_slice(&[1_u8])).unwrap();

    let dom = dom(&world, &chromium, serving.url());
    for (what, part) in [
        ("counts", "<title>main: 3 objects, 1 program</title>"),
        ("state", "class=\"live\">live</p>"),
        ("object", "<span class=\"\">prices</span>"),
        ("kind", "array &lt;f4 30000"),
        ("size", "117.2 KiB"),
        ("memory", "of 1.0 MiB (11 %)"),
        (
            "hostile name",
            "&lt;script&gt;document.title = 'owned'&lt;/script&gt;",
        ),
        ("hostile name", "&lt;img src=x onerror="),
        ("service", "photo-server · process 123"),
        ("worker", "<span class=\"state\">busy</span>"),
        ("worker", "class=\"dead\""),
        ("restarts", "7 restarts"),
        ("kernel", "<span class=\"\">sharpen</span>"),
        ("signature", "(array f32, f32) -&gt; array f32"),
        ("queue", "4,321"),
        ("mean time", "52.0 ms"),
        ("client", "notebook"),
        ("failure", "it read a null pointer"),
        (
            "last words",
            "panicked at &lt;b&gt;blur&lt;/b&gt;.rs:42</pre>",
        ),
        ("hung service", "the service hung does not answer"),
    ] {
        assert!(dom.contains(part), "{what}: {part} is not in\n{dom}");
    }
    assert_eq!(dom.matches("it read a null pointer").count(), 2, "{dom}");
    // A kernel that only crashes has no mean time.
    assert!(!dom.contains("0.00 µs"), "{dom}");
    assert!(!dom.contains(serving.token()), "the token is in no element");
}

#[test]
fn a_browser_without_the_token_shows_nothing() {
    let Some(chromium) = chromium() else { return };
    let world = World::new();
    let serving = world.serve("127.0.0.1:0", "");
    let dom = dom(&world, &chromium, &format!("http://{}/", serving.host()));
    assert!(dom.contains("This page needs its token"), "{dom}");
    assert!(!dom.contains("id=\"objects\""), "{dom}");
}
