//! `--resume`.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::world::{World, jpeg};

fn set_time(world: &World, name: &str, time: SystemTime) {
    let file = fs::File::options()
        .write(true)
        .open(world.path(name))
        .unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn fresh_results_are_skipped_and_the_rest_is_made() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg"]);
    world.run("p -s 8 -o out --resume").exits(0);
    world.photos(&["p/c.jpg"]);
    let run = world.run("p -s 8 -o out --resume").exits(0);
    assert_eq!(run.lines(), ["out/c.jpg"]);
    assert!(run.stderr.contains("2 up to date"), "{}", run.stderr);
    let lines = world.run("p -s 8 -o out --resume --json").exits(0).json();
    assert!(
        lines[..3].iter().all(|line| line["status"] == "fresh"),
        "{lines:?}"
    );
    assert_eq!(lines[3]["fresh"], 3);
}

#[test]
fn each_run_keeps_the_record_that_a_later_one_resumes_from() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg"]);
    for size in [8, 9] {
        world.run(&format!("p -s {size} -o out")).exits(0);
        assert_eq!(world.all("out"), [".arenite-resize", "a.jpg", "b.jpg"]);
        let run = world.run(&format!("p -s {size} -o out --resume")).exits(0);
        assert_eq!(run.lines(), [""; 0]);
    }
    // A picture failed.
    world.file("p/c.jpg", b"\xff\xd8\xff no more");
    world.run("p -s 8 -o part").exits(1);
    let run = world.run("p -s 8 -o part --resume").exits(1);
    assert!(run.stderr.contains("2 up to date"), "{}", run.stderr);
}

#[test]
fn without_work_the_output_folder_need_not_be_writable() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg"]);
    world.run("p -s 8 -o out --resume").exits(0);
    world.mode("out", 0o555);
    let plain = |line: &str| world.finish(world.command_without_privilege(line));
    let run = plain("p -s 8 -o out --resume").exits(0);
    assert!(run.stderr.contains("2 up to date"), "{}", run.stderr);
    // The counter-check: the folder is not writable for this command.
    plain("p -s 9 -o out --resume")
        .exits(2)
        .says(&["out", "permission denied"]);
    world.mode("out", 0o755);
    // Only inputs that fail.
    world.file("q/a.txt", b"no picture");
    world.run("q/a.txt missing.jpg -s 8 -o none").exits(1);
    assert!(!world.path("none").exists());
}

#[test]
fn without_resume_everything_is_made_again() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    for _ in 0..2 {
        assert_eq!(world.run("p -s 8 -o out").exits(0).lines().len(), 1);
    }
}

#[test]
fn a_result_older_than_its_input_is_made_again() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg"]);
    world.run("p -s 8 -o out --resume").exits(0);
    set_time(
        &world,
        "p/a.jpg",
        SystemTime::now() + Duration::from_secs(60),
    );
    assert_eq!(
        world.run("p -s 8 -o out --resume").exits(0).lines(),
        ["out/a.jpg"]
    );
}

/// Photos of a camera whose clock is ahead.
#[test]
fn inputs_with_times_in_the_future_are_processed_once() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    set_time(&world, "p/a.jpg", tomorrow);
    assert_eq!(
        world.run("p -s 8 -o out --resume").exits(0).lines().len(),
        1
    );
    let run = world.run("p -s 8 -o out --resume").exits(0);
    assert_eq!(run.lines(), [""; 0]);
}

#[test]
fn an_input_with_another_time_is_processed_again_even_if_it_is_older() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    world.run("p -s 8 -o out --resume").exits(0);
    assert_eq!(
        world.run("p -s 8 -o out --resume").exits(0).lines(),
        [""; 0]
    );
    // A file that is moved there keeps its time, which may be the only difference between two uncompressed pictures.
    set_time(
        &world,
        "p/a.jpg",
        SystemTime::now() - Duration::from_secs(3600),
    );
    let run = world.run("p -s 8 -o out --resume").exits(0);
    assert_eq!(run.lines(), ["out/a.jpg"]);
    let run = world.run("p -s 8 -o out --resume").exits(0);
    assert_eq!(run.lines(), [""; 0]);
}

#[test]
fn other_options_make_results_again() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    let mut options = vec![""];
    for other in [
        "-s 9",
        "-s 8 --fit cover",
        "-s 8 --quality 50",
        "-s 8 --filter box",
        "-s 8 --keep-metadata",
        "-s 8 --progressive",
        "-s 8 --no-enlarge",
    ] {
        world.run("p -s 8 -o out --resume").exits(0);
        let run = world.run(&format!("p -o out --resume {other}")).exits(0);
        assert_eq!(run.lines(), ["out/a.jpg"], "{other}");
        let run = world.run(&format!("p -o out --resume {other}")).exits(0);
        assert_eq!(run.lines(), [""; 0], "{other}");
        options.push(other);
    }
    // Options that do not change results do not matter.
    world.run("p -s 8 -o out --resume").exits(0);
    let run = world
        .run("p -s 8x8 -o out --resume -j 1 --memory-limit 2GiB --max-pixels 1M --progress never")
        .exits(0);
    assert_eq!(run.lines(), [""; 0]);
}

#[test]
fn a_result_changed_or_removed_since_is_made_again() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg", "p/c.jpg"]);
    world.run("p -s 8 -o out --resume").exits(0);
    fs::remove_file(world.path("out/a.jpg")).unwrap();
    world.file("out/b.jpg", b"another program's");
    let run = world.run("p -s 8 -o out --resume").exits(1);
    assert_eq!(run.lines(), ["out/a.jpg"]);
    run.says(&["p/b.jpg", "out/b.jpg exists", "--overwrite"]);
    let run = world.run("p -s 8 -o out --resume --overwrite").exits(0);
    assert_eq!(run.lines(), ["out/b.jpg"]);
    assert_eq!(world.sides("out/b.jpg"), (8, 6));
}

#[test]
fn results_without_a_note_are_made_again() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    world.run("p -s 8 -o out --resume").exits(0);
    fs::remove_file(world.path("out/.arenite-resize")).unwrap();
    assert_eq!(
        world.run("p -s 8 -o out --resume").exits(0).lines(),
        ["out/a.jpg"]
    );
    let record = world.path("out/.arenite-resize");
    fs::write(&record, b"").unwrap();
    assert_eq!(
        world.run("p -s 8 -o out --resume").exits(0).lines(),
        ["out/a.jpg"]
    );
    assert_eq!(
        world.run("p -s 8 -o out --resume").exits(0).lines(),
        [""; 0]
    );
    // What may be a file of another program stays as it is.
    let garbage = b"\xff\0garbage\nfile x\n";
    fs::write(&record, garbage).unwrap();
    let run = world.run("p -s 8 -o out --resume").exits(0);
    assert_eq!(run.lines(), ["out/a.jpg"]);
    assert!(run.stderr.contains("remove it"), "{}", run.stderr);
    assert_eq!(fs::read(&record).unwrap(), garbage);
}

/// On a file system that ignores case, two names lead to one file.
#[test]
fn a_result_that_is_kept_is_not_replaced_by_another_one() {
    let world = World::new();
    world.photos(&["p/A.jpg"]);
    world.run("p -s 8 -o out --resume").exits(0);
    let kept = fs::read(world.path("out/A.jpg")).unwrap();
    fs::hard_link(world.path("out/A.jpg"), world.path("out/a.jpg")).unwrap();
    world.file("p/a.jpg", &jpeg(50, 20));
    let run = world.run("p -s 8 -o out --resume --json").exits(1);
    let lines = run.json();
    assert_eq!(lines[0]["status"], "fresh");
    assert_eq!(lines[1]["cause"], "name-conflict");
    for name in ["out/A.jpg", "out/a.jpg"] {
        assert_eq!(fs::read(world.path(name)).unwrap(), kept, "{name}");
    }
    // Its own result is replaced.
    world.file("p/A.jpg", &jpeg(20, 50));
    fs::remove_file(world.path("out/a.jpg")).unwrap();
    let run = world.run("p -s 8 -o out --resume").exits(0);
    assert_eq!(run.lines(), ["out/A.jpg", "out/a.jpg"]);
}

#[test]
fn a_failed_input_is_tried_again() {
    let world = World::new();
    world
        .photos(&["p/a.jpg"])
        .file("p/b.jpg", b"\xff\xd8\xff\xe0 torn");
    world.run("p -s 8 -o out").exits(1);
    world
        .run("p -s 8 -o out --resume")
        .exits(1)
        .says(&["p/b.jpg"]);
    world.file("p/b.jpg", &jpeg(32, 32));
    assert_eq!(
        world.run("p -s 8 -o out --resume").exits(0).lines(),
        ["out/b.jpg"]
    );
}

#[test]
fn a_dry_run_respects_resume_and_leaves_the_record_alone() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    world.run("p -s 8 -o out --resume").exits(0);
    world.photos(&["p/b.jpg"]);
    let record = fs::read(world.path("out/.arenite-resize")).unwrap();
    assert_eq!(
        world.run("p -s 8 -o out --resume -n").exits(0).lines(),
        ["out/b.jpg"]
    );
    assert_eq!(fs::read(world.path("out/.arenite-resize")).unwrap(), record);
}

#[test]
fn two_runs_into_one_folder_do_not_spoil_the_record() {
    let world = World::new();
    for index in 0..20 {
        world.photos(&[&format!("p/{index}.jpg"), &format!("q/x{index}.jpg")]);
    }
    std::thread::scope(|scope| {
        for inputs in ["p", "q"] {
            let world = &world;
            scope.spawn(move || {
                world
                    .run(&format!("{inputs} -s 8 -o out --resume"))
                    .exits(0)
            });
        }
    });
    assert_eq!(
        world.run("p q -s 8 -o out --resume").exits(0).lines(),
        [""; 0]
    );
}
