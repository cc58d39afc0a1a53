//! Output, and the effect of one failure on the rest.

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::world::{World, jpeg, wait, with_own_mounts};

#[test]
fn stdout_lists_the_written_paths_in_the_order_of_the_inputs() {
    let world = World::new();
    world.photos(&["p/c.jpg", "p/a.jpg", "p/b/x.jpg", "q.jpg"]);
    let run = world.run("q.jpg p -s 8 -o ./out").exits(0);
    assert_eq!(
        run.stdout,
        "./out/q.jpg\n./out/a.jpg\n./out/b/x.jpg\n./out/c.jpg\n"
    );
    assert!(run.stderr.contains("4 written"), "{}", run.stderr);
}

#[test]
fn quiet_prints_only_errors() {
    let world = World::new();
    world.photos(&["p/a.jpg"]).file("p/b.jpg", b"broken");
    let run = world.run("p -s 8 -o out --quiet").exits(1);
    assert_eq!(run.stdout, "");
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    run.says(&["p/b.jpg"]);
}

#[test]
fn a_broken_file_is_one_line_and_the_others_are_done() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/z.jpg"]);
    let whole = jpeg(200, 200);
    world.file("p/torn.jpg", &whole[..whole.len() / 2]);
    world.file("p/noise.png", b"\x89PNG\r\n\x1a\n and then noise");
    let run = world.run("p -s 8 -o out").exits(1);
    assert_eq!(run.lines(), ["out/a.jpg", "out/z.jpg"]);
    assert_eq!(run.errors().len(), 2, "{}", run.stderr);
    assert_eq!(
        run.stderr.lines().count(),
        3,
        "two failures and the summary: {}",
        run.stderr
    );
    run.says(&["p/torn.jpg"]).says(&["p/noise.png"]);
    assert_eq!(world.tree("out"), ["a.jpg", "z.jpg"]);
}

#[test]
fn json_has_an_object_per_input_and_a_summary_last() {
    let world = World::new();
    world
        .photos(&["p/a.jpg", "p/c.jpg"])
        .file("p/b.jp2", b"")
        .file("p/d.png", b"\x89PNG\r\n\x1a\n torn");
    world.file("p/notes.txt", b"hello");
    let lines = world.run("p -s 8 -o out --json").exits(1).json();
    assert_eq!(lines.len(), 5);
    let inputs: Vec<_> = lines[..4]
        .iter()
        .map(|line| line["input"].as_str().unwrap())
        .collect();
    assert_eq!(inputs, ["p/a.jpg", "p/b.jp2", "p/c.jpg", "p/d.png"]);

    let written = &lines[0];
    assert_eq!(written["type"], "file");
    assert_eq!(written["status"], "written");
    assert_eq!(written["output"], "out/a.jpg");
    assert_eq!(
        written["bytes"].as_u64(),
        Some(std::fs::metadata(world.path("out/a.jpg")).unwrap().len())
    );
    assert!(written["ms"].as_f64().unwrap() >= 0.0);
    let (width, height) = world.sides("out/a.jpg");
    assert_eq!([&written["width"], &written["height"]], [width, height]);
    assert_eq!(written["format"], "jpeg");
    assert!(written["error"].is_null() && written["cause"].is_null());

    let unsupported = &lines[1];
    assert_eq!(unsupported["status"], "failed");
    assert_eq!(unsupported["cause"], "unsupported-format");
    assert_eq!(
        unsupported["error"],
        "unsupported format: JPEG 2000; convert to JPEG, PNG or WebP first"
    );
    assert!(unsupported["output"].is_null() && unsupported["bytes"].is_null());
    assert!(unsupported["format"].is_null() && unsupported["width"].is_null());

    let torn = &lines[3];
    assert_eq!(torn["status"], "failed");
    assert!(
        ["truncated", "corrupt"].contains(&torn["cause"].as_str().unwrap()),
        "{torn}"
    );
    assert!(!torn["error"].as_str().unwrap().is_empty());

    let summary = &lines[4];
    assert_eq!(summary["type"], "summary");
    assert_eq!(summary["status"], "done");
    for (name, count) in [
        ("inputs", 4),
        ("written", 2),
        ("failed", 2),
        ("skipped", 1),
        ("fresh", 0),
        ("pending", 0),
    ] {
        assert_eq!(summary[name], count, "{name}");
    }
    assert!(summary["ms"].as_f64().unwrap() > 0.0);
}

/// A terminal acts on the characters behind DEL as on escape sequences, and on marks of direction.
#[test]
fn json_acts_on_no_terminal() {
    let world = World::new();
    let name = "p/a\u{9b}2J\u{7f}\u{202e}.jpg";
    world.photos(&[name]);
    let job =
        serde_json::json!({"id": "\u{9b}", "in": name, "out": "b.jpg", "size": 8}).to_string();
    for (line, stdin) in [("p -s 8 -o out --json", ""), ("--jobs -", &job[..])] {
        let run = world.run_with_stdin(line, stdin.as_bytes()).exits(0);
        let acting = run
            .stdout
            .chars()
            .find(|&each| each != '\n' && arenite::needs_escape(each));
        assert_eq!(acting, None, "{}", run.stdout);
        assert_eq!(run.json()[0]["input"], name);
    }
}

#[test]
fn json_lists_every_input_even_if_nothing_is_started() {
    let world = World::new();
    world
        .photos(&["p/a.jpg", "p/b.jpg", "q/a.jpg"])
        .file("p/c.jp2", b"")
        .file("notes/d.txt", b"hello");
    let cases: [(&str, &str, &[[&str; 3]]); 8] = [
        (
            "missing.jpg -o out",
            "no input found",
            &[["missing.jpg", "failed", "not-found"]],
        ),
        (
            "no*.jpg -o out",
            "no input found",
            &[["no*.jpg", "failed", "not-found"]],
        ),
        ("notes -o out", "1 file is not an image", &[]),
        (
            "p/a.jpg q -o p",
            "nothing was done",
            &[
                ["p/a.jpg", "failed", "name-conflict"],
                ["q/a.jpg", "failed", "name-conflict"],
            ],
        ),
        (
            "p/b.jpg p/c.jp2 -o p",
            "nothing was done",
            &[
                ["p/b.jpg", "failed", "name-conflict"],
                ["p/c.jp2", "failed", "unsupported-format"],
            ],
        ),
        ("q -o q", "is the output folder", &[]),
        (
            "q -o out --trace out/a.jpg",
            "overwritten by a result",
            &[["q/a.jpg", "pending", ""]],
        ),
        (
            "q -o out2 --capacity 100TB",
            "lower the capacity",
            &[["q/a.jpg", "pending", ""]],
        ),
    ];
    for (line, why, expected) in cases {
        let run = world.run(&format!("{line} -s 8 --json")).exits(2);
        let lines = run.json();
        let (summary, files) = lines.split_last().unwrap();
        assert_eq!(summary["type"], "summary", "{line}");
        assert_eq!(summary["status"], "refused", "{line}");
        let error = summary["error"].as_str().unwrap();
        assert!(error.contains(why), "{line}: {error}");
        let seen: Vec<[&str; 3]> = files
            .iter()
            .map(|file| ["input", "status", "cause"].map(|key| file[key].as_str().unwrap_or("")))
            .collect();
        assert_eq!(seen, expected, "{line}");
        for file in files {
            let failed = file["status"] == "failed";
            assert_eq!(file["error"].is_string(), failed, "{line}: {file}");
        }
        for status in ["failed", "pending"] {
            let count = files.iter().filter(|file| file["status"] == status).count();
            assert_eq!(summary[status], count, "{line}: {summary}");
        }
        let plain = world.run(&format!("{line} -s 8")).exits(2).says(&[why]);
        assert_eq!(plain.stdout, "", "{line}");
        assert_eq!(plain.stderr, run.stderr, "{line}: the same for people");
    }
    // The summary of a run that was started has no error.
    let lines = world.run("q -s 8 -o out --json").exits(0).json();
    assert!(lines[1]["error"].is_null(), "{}", lines[1]);
}

#[test]
fn a_dry_run_lists_results_and_writes_nothing() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/x/b.jpg"]).file("p/c.jp2", b"");
    for flag in ["-n", "--dry-run"] {
        let run = world
            .run(&format!("p -s 8 -o out {flag}"))
            .exits(1)
            .says(&["p/c.jp2"]);
        assert_eq!(run.lines(), ["out/a.jpg", "out/x/b.jpg"]);
        assert!(run.stderr.contains("2 to write"), "{}", run.stderr);
    }
    assert!(!world.path("out").exists());
    let lines = world.run("p -s 8 -o out -n --json").exits(1).json();
    assert_eq!(lines[0]["status"], "planned");
    assert_eq!(lines[3]["status"], "dry-run");
    // The same summary if nothing would be written.
    let run = world.run("p/c.jp2 -s 8 -o out -n").exits(1);
    assert!(
        run.stderr.contains("0 to write, 1 failed"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_reader_that_goes_away_does_not_stop_the_work() {
    let world = World::new();
    let names: Vec<String> = (0..40).map(|index| format!("p/{index}.jpg")).collect();
    world.photos(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut command = world.command("p -s 8 -o out");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let run = wait(child).exits(0);
    assert_eq!(run.errors(), [""; 0]);
    assert_eq!(world.tree("out").len(), 40);
}

#[test]
fn a_list_that_cannot_be_printed_is_exit_code_1() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg"]);
    let mut command = world.command("p -s 8 -o out");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    wait(child).exits(1).says(&["stdout", "no space left"]);
    assert_eq!(world.tree("out"), ["a.jpg", "b.jpg"]);
}

#[test]
fn progress_is_shown_in_a_pipe_only_on_request() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg", "p/c.jpg"]);
    for flags in ["", "--progress auto", "--progress never"] {
        let run = world.run(&format!("p -s 8 -o out {flags}")).exits(0);
        assert_eq!(
            run.stderr.lines().count(),
            1,
            "only the summary: {}",
            run.stderr
        );
        assert!(!run.stderr.contains('\x1b'));
    }
    let run = world.run("p -s 8 -o out --progress always").exits(0);
    assert!(
        run.stderr.contains("3/3, ") && run.stderr.contains("images/s, 0:00 left"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_terminal_shows_a_coloured_bar_with_rate_and_time_left() {
    let world = World::new();
    let names: Vec<String> = (0..60).map(|index| format!("p/{index}.jpg")).collect();
    let photo = jpeg(900, 700);
    for name in &names {
        world.file(name, &photo);
    }
    world.file("p/broken.jpg", b"\xff\xd8\xff\xe0 broken");
    let shown = on_terminal(world.command("p -s 8 -o out"));
    assert!(
        shown.contains("/61") && shown.contains("images/s") && shown.contains(" left"),
        "{shown:?}"
    );
    assert!(
        shown.contains("\x1b[1m\x1b[31merror:") || shown.contains("\x1b[31m"),
        "{shown:?}"
    );

    let mut command = world.command("p -s 8 -o out");
    command.env("NO_COLOR", "1");
    let shown = on_terminal(command);
    assert!(
        !shown.contains("\x1b[31m") && !shown.contains("\x1b[36m"),
        "{shown:?}"
    );
    let shown = on_terminal(world.command("p -s 8 -o out --color never"));
    assert!(
        !shown.contains("\x1b[31m") && !shown.contains("\x1b[36m"),
        "{shown:?}"
    );
    let shown = on_terminal(world.command("p -s 8 -o out --progress never"));
    assert!(!shown.contains("/61"), "{shown:?}");
}

#[test]
fn colour_can_be_forced_in_a_pipe() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    let run = world
        .run("a.jpg none.jpg -s 8 -o out --color always")
        .exits(1);
    assert!(run.stderr.contains("\x1b["), "{:?}", run.stderr);
    let run = world.run("a.jpg none.jpg -s 8 -o out").exits(1);
    assert!(!run.stderr.contains("\x1b["), "{:?}", run.stderr);
}

/// Runs with stderr on a terminal of 100 columns and returns what it shows.
fn on_terminal(mut command: Command) -> String {
    let (mut master, mut slave) = (0, 0);
    let size = libc::winsize {
        ws_row: 40,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the two numbers and the size live through the call; name and settings may be null.
    let made = unsafe {
        libc::openpty(
            &mut master,
            &mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            &size,
        )
    };
    assert_eq!(made, 0, "a terminal is needed");
    // SAFETY: `openpty` has just opened both, and nothing else owns them.
    let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    let reader = thread::spawn(move || {
        let mut shown = Vec::new();
        // Reading ends with an error when the other side is closed.
        let _ = File::from(master).read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    });
    let child = command
        .stdout(Stdio::null())
        .stdin(Stdio::null())
        .stderr(Stdio::from(slave))
        .spawn()
        .unwrap();
    drop(command);
    wait(child);
    reader.join().unwrap()
}

#[test]
fn names_can_end_with_nul() {
    let world = World::new();
    world
        .photos(&["p/a\nb.jpg", "p/c.jpg"])
        .file("p/d.jpg", b"torn");
    let run = world.run("p -s 8 -o out --print0").exits(1);
    assert_eq!(run.stdout, "out/a\nb.jpg\0out/c.jpg\0");
    let check = world.finish(world.subcommand("check", "p --print0"));
    assert_eq!(check.exits(1).stdout, "p/d.jpg\0");
    world.run("p -s 8 -o out --print0 --json").exits(2);
}

#[test]
fn results_have_the_time_of_their_input_if_asked_for() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg"]);
    let times = [
        SystemTime::UNIX_EPOCH - Duration::from_millis(1500),
        SystemTime::UNIX_EPOCH + Duration::new(9, 5),
    ];
    for (name, time) in ["p/a.jpg", "p/b.jpg"].into_iter().zip(times) {
        let file = File::options().write(true).open(world.path(name)).unwrap();
        file.set_modified(time).unwrap();
    }
    let time = |name: &str| world.path(name).metadata().unwrap().modified().unwrap();
    world.run("p -s 8 -o out").exits(0);
    assert!(time("out/a.jpg") > times[1]);
    let flags = "p -s 8 -o out --resume --preserve-times";
    assert_eq!(world.run(flags).exits(0).lines().len(), 2);
    assert_eq!(["out/a.jpg", "out/b.jpg"].map(time), times);
    assert_eq!(world.run(flags).exits(0).lines(), [""; 0]);
}

#[test]
fn a_file_system_without_inodes_is_named_as_such() {
    let world = World::new();
    let photos: Vec<String> = (10..40).map(|index| format!("p/{index}.jpg")).collect();
    world.photos(&photos.iter().map(String::as_str).collect::<Vec<_>>());
    std::fs::create_dir(world.path("few")).unwrap();
    let program = env!("CARGO_BIN_EXE_arenite");
    let script = format!(
        "mount -t tmpfs -o nr_inodes=12 none few && {program} resize p -s 8 -o few; code=$?; \
         {program} resize p -s 8 -o few/new; exit $code"
    );
    let Some(run) = with_own_mounts(&world, &script) else {
        return;
    };
    let run = run.exits(1).says(&["no inodes left"]).says(&["not begun"]);
    run.says(&[
        "few/new: the output folder cannot be used",
        "no inodes left",
    ]);
}

#[test]
fn a_full_disk_says_so_and_leaves_no_torn_file() {
    let world = World::new();
    let photo = jpeg(400, 300);
    for index in 0..40 {
        world.file(&format!("p/{index:02}.jpg"), &photo);
    }
    std::fs::create_dir(world.path("small")).unwrap();
    // A file system of a few pages, visible to this command only.
    let on_small = |flags: &str, behind: &str| {
        let program = env!("CARGO_BIN_EXE_arenite");
        let script = format!(
            "mount -t tmpfs -o size=200k none small && {program} resize p -s 400 -o small --quality 95 {flags}; \
             code=$?; {behind}; exit $code"
        );
        with_own_mounts(&world, &script)
    };
    let Some(run) = on_small("", "find small -type f -printf '%f %s\\n'") else {
        return;
    };
    let run = run
        .exits(1)
        .says(&["is full"])
        .says(&["not begun", "--resume"]);
    assert_eq!(run.errors().len(), 2, "{}", run.stderr);
    let listed = run
        .lines()
        .iter()
        .filter(|line| line.starts_with("small/"))
        .count();
    let found: Vec<&str> = run
        .lines()
        .into_iter()
        .filter(|line| !line.starts_with("small/"))
        .collect();
    assert!(found.iter().all(|line| !line.contains(".tmp")), "{found:?}");
    let pictures: Vec<&str> = found
        .iter()
        .copied()
        .filter(|line| line.contains(".jpg"))
        .collect();
    assert_eq!(pictures.len(), listed, "{found:?}");
    let size = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
    assert!(
        pictures.iter().all(|line| size(line) == size(pictures[0])),
        "{pictures:?}"
    );

    let run = on_small("--json", ":").unwrap().exits(1);
    let lines = run.json();
    let (summary, files) = lines.split_last().unwrap();
    assert_eq!(summary["status"], "stopped", "{summary}");
    let pending = files.iter().filter(|file| file["status"] == "pending");
    let pending = pending.count();
    assert!(pending > 0);
    assert_eq!(summary["pending"], pending, "{summary}");
}

#[test]
fn only_files_left_by_killed_runs_are_removed() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/x/b.jpg"]);
    let old = SystemTime::now() - Duration::from_secs(7200);
    let make = |name: &str, time: SystemTime| {
        world.file(name, b"half of a picture");
        let file = File::options().write(true).open(world.path(name)).unwrap();
        file.set_modified(time).unwrap();
        file
    };
    for name in [
        "out/.arenite-1-1.tmp",
        "out/.arenite-1-record.tmp",
        "out/x/.arenite-77-123.tmp",
    ] {
        make(name, old);
    }
    // Locked by another run, possibly in another container; just created; not one of ours.
    let locked = make("out/.arenite-1-2.tmp", old);
    locked.lock().unwrap();
    make("out/x/.arenite-1-3.tmp", SystemTime::now());
    make("out/.arenite-notes.tmp", old);
    world.symlink("../p/a.jpg", "out/.arenite-1-4.tmp");
    world.run("p -s 8 -o out").exits(0);
    assert_eq!(
        world.all("out"),
        [
            ".arenite-1-2.tmp",
            ".arenite-1-4.tmp",
            ".arenite-notes.tmp",
            ".arenite-resize",
            "a.jpg",
            "x/.arenite-1-3.tmp",
            "x/b.jpg"
        ]
    );
}

#[test]
fn an_output_folder_that_cannot_be_written_is_one_error() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg"]);
    std::fs::create_dir(world.path("fixed")).unwrap();
    let program = env!("CARGO_BIN_EXE_arenite");
    let script = format!("mount -t tmpfs -o ro none fixed && {program} resize p -s 8 -o fixed");
    let Some(run) = with_own_mounts(&world, &script) else {
        return;
    };
    let run = run.exits(2).says(&["fixed", "read-only"]);
    assert_eq!(run.errors().len(), 1, "{}", run.stderr);
}

#[test]
fn an_output_folder_behind_a_broken_link_is_one_error() {
    let world = World::new();
    world.photos(&["p/a.jpg"]).symlink("nowhere", "link");
    for out in ["link", "link/below"] {
        let run = world.run(&format!("p -s 8 -o {out}")).exits(2);
        run.says(&[out, "link is a link whose target is missing"]);
    }
    assert!(!world.path("nowhere").exists());
}

#[test]
fn too_few_descriptors_are_reported_with_advice_to_use_fewer_workers() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg", "p/c.jpg", "p/d.jpg"]);
    let with = |workers: u32| {
        let program = env!("CARGO_BIN_EXE_arenite");
        let script = format!("ulimit -n 30; exec {program} resize p -s 8 -o out -j {workers}");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(world.path(""));
        world.finish(command)
    };
    let run = with(4).exits(2).says(&["ulimit -n", "-j 1"]);
    assert_eq!(run.errors().len(), 1, "{}", run.stderr);
    assert!(!world.path("out").exists());
}

#[test]
fn one_worker_makes_hundreds_of_results() {
    let world = World::new();
    world.file("p/000.jpg", &jpeg(400, 300));
    for index in 1..300 {
        std::fs::hard_link(
            world.path("p/000.jpg"),
            world.path(&format!("p/{index:03}.jpg")),
        )
        .unwrap();
    }
    let run = world.run("p -s 300 -o out -j 1").exits(0);
    assert_eq!(run.lines().len(), 300);
    let first = std::fs::read(world.path("out/000.jpg")).unwrap();
    for name in world.tree("out") {
        assert!(
            std::fs::read(world.path(&format!("out/{name}"))).unwrap() == first,
            "{name} differs"
        );
    }
}
