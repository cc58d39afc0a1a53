//! `--trace` and `--report`.

use std::fs;

use serde_json::Value;

use crate::world::{World, with_own_mounts};

fn events(world: &World, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(world.path(name)).unwrap();
    let whole: Value = serde_json::from_str(&text).unwrap();
    whole["traceEvents"].as_array().unwrap().clone()
}

/// Runs of the kernel.
fn runs(events: &[Value]) -> Vec<&Value> {
    let run = |event: &&Value| event["ph"] == "X" && event["cat"] == "job";
    events.iter().filter(run).collect()
}

#[test]
fn both_files_contain_jobs_and_failures() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg", "p/c.jpg"]);
    // Cut in its headers.
    let whole = fs::read(world.path("p/a.jpg")).unwrap();
    world.file("p/broken.jpg", &whole[..whole.len() / 8]);
    let run = world.run("p -s 16 -o out -j 2 --trace run.json --report run.html");
    run.exits(1);
    let events = events(&world, "run.json");
    let runs = runs(&events);
    assert_eq!(runs.len(), 4);
    let failed: Vec<_> = runs
        .iter()
        .filter(|run| run["args"]["error"].is_string())
        .collect();
    assert_eq!(failed.len(), 1);
    // The name of the picture, and a sentence.
    assert_eq!(failed[0]["args"]["label"], "p/broken.jpg");
    let error = failed[0]["args"]["error"].as_str().unwrap();
    assert!(
        error.ends_with("[truncated]") && !error.contains(char::is_control),
        "{error}"
    );
    let good = runs
        .iter()
        .filter(|run| run["args"]["bytes_out"].as_u64() > Some(0));
    assert_eq!(good.count(), 3);
    let starts = events.iter().filter(|event| event["name"] == "start");
    assert_eq!(starts.count(), 2);
    let page = fs::read_to_string(world.path("run.html")).unwrap();
    for part in [
        "resize_file",
        "Failures: 1",
        "worker 1",
        "p/broken.jpg",
        "</html>",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn each_file_can_be_written_without_the_other() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    world.run("p -s 16 -o one --trace run.json").exits(0);
    assert_eq!(runs(&events(&world, "run.json")).len(), 1);
    assert!(!world.path("run.html").exists());
    world.run("p -s 16 -o two --report run.html").exits(0);
    let page = fs::read_to_string(world.path("run.html")).unwrap();
    assert!(
        page.contains("resize_file"),
        "sandboxed workers measure times too"
    );
}

#[test]
fn a_file_that_cannot_be_created_is_reported_before_work() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    let run = world
        .run("p -s 16 -o out --trace no/such/run.json")
        .exits(2);
    let no_file = "error: cannot write the trace to no/such/run.json: no such file or directory";
    assert_eq!(run.errors(), [no_file]);
    let run = world
        .run("p -s 16 -o out --report no/such/run.html")
        .exits(2);
    let no_file = "error: cannot write the report to no/such/run.html: no such file or directory";
    assert_eq!(run.errors(), [no_file]);
    world.file("one", b"").symlink("one", "other");
    for [trace, report] in [["t", "t"], ["t", "p/../t"], ["one", "other"]] {
        world
            .run(&format!("p -s 16 -o out --trace {trace} --report {report}"))
            .exits(2)
            .says(&["--report", "a file each"]);
    }
    assert!(!world.path("out").exists(), "as it was");
    let run = world.run("p -s 16 -o x/y/out --trace no/such/run.json");
    run.exits(2);
    assert!(!world.path("x").exists());
    // Existing files and non-empty folders stay.
    fs::create_dir(world.path("x")).unwrap();
    let run = world.run("p -s 16 -o x/out --trace no/such/run.json");
    run.exits(2);
    assert!(world.path("x").exists() && !world.path("x/out").exists());
}

#[test]
fn a_file_that_cannot_be_completed_is_exit_code_1() {
    let world = World::new();
    let names: Vec<String> = (0..40).map(|index| format!("p/{index}.jpg")).collect();
    world.photos(&names.iter().map(String::as_str).collect::<Vec<_>>());
    fs::create_dir(world.path("small")).unwrap();
    for flag in ["--trace", "--report"] {
        // Room for the start of either file, but not for this number of pictures.
        let script = format!(
            "mount -t tmpfs -o size=8k none small && {} resize p -s 8 -o out {flag} small/run",
            env!("CARGO_BIN_EXE_arenite")
        );
        let Some(run) = with_own_mounts(&world, &script) else {
            return;
        };
        let run = run.exits(1).says(&["small/run", "no space left"]);
        assert_eq!(run.errors().len(), 1, "{}", run.stderr);
        assert_eq!(run.lines().len(), 40, "{flag}");
    }
}

#[test]
fn inputs_are_not_overwritten() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg"]);
    let before = fs::read(world.path("p/a.jpg")).unwrap();
    for flag in ["--trace", "--report"] {
        let run = world
            .run(&format!("p -s 16 -o out {flag} ./p/a.jpg"))
            .exits(2);
        run.says(&[flag, "a.jpg", "overwrite"]);
    }
    // Nor under another name, nor if the input is unreadable.
    world.file("p/broken.jpg", b"broken but mine");
    for (input, link) in [("p/a.jpg", "a.json"), ("p/broken.jpg", "broken.json")] {
        fs::hard_link(world.path(input), world.path(link)).unwrap();
        for flag in ["--trace", "--report"] {
            let run = world.run(&format!("p -s 16 -o out {flag} {link}"));
            run.exits(2).says(&[flag, link, "would overwrite an input"]);
        }
    }
    assert_eq!(fs::read(world.path("p/a.jpg")).unwrap(), before);
    assert_eq!(
        fs::read(world.path("p/broken.jpg")).unwrap(),
        b"broken but mine"
    );
}

#[test]
fn results_are_not_overwritten() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    world.run("p -s 16 -o out").exits(0);
    let before = fs::read(world.path("out/a.jpg")).unwrap();
    fs::hard_link(world.path("out/a.jpg"), world.path("a.json")).unwrap();
    let run = world.run("p -s 16 -o out --resume --trace a.json").exits(2);
    run.says(&["--trace", "a.json", "would overwrite a result"]);
    assert_eq!(fs::read(world.path("out/a.jpg")).unwrap(), before);
}

#[test]
fn no_link_in_the_output_folder_leads_out_of_it() {
    let world = World::new();
    world
        .photos(&["p/a.jpg"])
        .file("precious/run.html", b"mine")
        .symlink("../precious/run.html", "out/run.html")
        .symlink("../precious", "out/sub");
    for flag in ["--trace", "--report"] {
        for file in ["out/run.html", "./out/sub/run.html", "out/sub/new.html"] {
            let run = world.run(&format!("p -s 8 -o out {flag} {file}"));
            run.exits(2).says(&[flag, "is a link in the output folder"]);
        }
    }
    assert_eq!(world.all("precious"), ["run.html"]);
    assert_eq!(fs::read(world.path("precious/run.html")).unwrap(), b"mine");
    // Outside, a link leads where the user wants.
    world.symlink("precious/run.html", "run.html");
    world.run("p -s 8 -o out --report run.html").exits(0);
    assert_ne!(fs::read(world.path("precious/run.html")).unwrap(), b"mine");
}
