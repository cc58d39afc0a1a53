//! `--jobs -`: jobs on stdin, answers on stdout, both as lines of JSON.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use image::ImageFormat;
use nix::fcntl::{FcntlArg, fcntl};
use serde_json::{Value, json};

use crate::world::{
    Run, WATCHDOG, World, children, gone, jpeg, own_session, png, private_bytes, signal,
    signal_group, wait, wait_until,
};

/// The program while it runs.
pub struct CoProcess {
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl CoProcess {
    pub fn start(world: &World, flags: &str) -> CoProcess {
        let mut command = world.command(&format!("--jobs - {flags}"));
        own_session(&mut command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = channel();
        thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        CoProcess {
            stdin: child.stdin.take(),
            child: Some(child),
            answers,
        }
    }

    fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn send(&mut self, job: Value) {
        self.send_text(&format!("{job}\n"));
    }

    fn send_text(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn answer(&self) -> Value {
        let line = self.answers.recv_timeout(WATCHDOG).expect("an answer");
        serde_json::from_str(&line).unwrap()
    }

    /// Waits for the end, after that of stdin.
    fn end(mut self) -> Run {
        drop(self.stdin.take());
        self.ended()
    }

    /// Waits for the end without ending stdin.
    fn ended(mut self) -> Run {
        let stdin = self.stdin.take();
        let child = self.child.take().unwrap();
        let id = child.id();
        let mut run = wait(child);
        drop(stdin);
        run.stdout = self.answers.iter().map(|line| line + "\n").collect();
        gone(id);
        run
    }

    /// The worker that holds many pixels of a picture.
    fn worker_in_the_middle(&self) -> u32 {
        let mut worker = None;
        wait_until("a worker is in the middle of the picture", || {
            let mut workers = children(self.id()).into_iter();
            worker = workers.find(|&worker| private_bytes(worker) > Some(30 << 20));
            worker.is_some()
        });
        worker.unwrap()
    }
}

impl Drop for CoProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal_group(child.id(), libc::SIGKILL);
            let _ = child.wait();
        }
    }
}

fn run(world: &World, flags: &str, jobs: &[Value]) -> Vec<Value> {
    let lines: String = jobs.iter().map(|job| format!("{job}\n")).collect();
    let run = world.run_with_stdin(&format!("--jobs - {flags}"), lines.as_bytes());
    let mut answers = run.exits(0).json();
    answers.sort_by_key(|answer| answer["line"].as_u64());
    answers
}

/// A world with the small `a.jpg` and the large `large.png`.
fn small_and_large() -> World {
    let world = World::new();
    world.photos(&["a.jpg"]).file("large.png", &png(6000, 4000));
    world
}

#[test]
fn each_job_has_its_options_and_the_rest_are_those_of_the_command_line() {
    let world = World::new();
    world
        .file("a.jpg", &jpeg(320, 240))
        .file("b.png", &png(64, 64));
    let answers = run(
        &world,
        "-s 32 --fit cover",
        &[
            json!({"id": "first", "in": "a.jpg", "out": "deep/er/1.jpg"}),
            json!({"id": 2, "in": "a.jpg", "out": "2.webp", "size": "20x10", "fit": "fill"}),
            json!({"in": "b.png", "out": "3", "size": 8}),
            json!({"id": -4.5, "in": "b.png", "out": "4.JPE", "format": "jpeg", "quality": 5}),
            json!({"id": 5, "in": "b.png", "out": world.path("5.jpg").to_str().unwrap()}),
            json!({"id": 6, "in": "no.jpg", "out": "6.jpg"}),
        ],
    );
    let ids: Vec<_> = answers.iter().map(|answer| &answer["id"]).collect();
    let expected = [
        json!("first"),
        json!(2),
        Value::Null,
        json!(-4.5),
        json!(5),
        json!(6),
    ];
    assert_eq!(ids, expected.each_ref());
    for answer in &answers[..5] {
        assert_eq!(answer["status"], "written", "{answer}");
        let output = answer["output"].as_str().unwrap();
        let bytes = fs::metadata(world.path(output)).unwrap().len();
        assert_eq!(answer["bytes"], bytes, "{answer}");
        let (width, height) = world.sides(output);
        assert_eq!([&answer["width"], &answer["height"]], [width, height]);
    }
    assert_eq!(
        (&answers[0]["type"], &answers[0]["input"]),
        (&json!("file"), &json!("a.jpg"))
    );
    assert_eq!(
        (&answers[5]["status"], &answers[5]["cause"]),
        (&json!("failed"), &json!("not-found"))
    );
    let made = |name| (world.sides(name), world.format(name));
    assert_eq!(made("deep/er/1.jpg"), ((32, 32), ImageFormat::Jpeg));
    assert_eq!(made("2.webp"), ((20, 10), ImageFormat::WebP));
    assert_eq!(made("3"), ((8, 8), ImageFormat::Png));
    assert_eq!(made("4.JPE"), ((32, 32), ImageFormat::Jpeg));
    assert_eq!(made("5.jpg"), ((32, 32), ImageFormat::Jpeg));
}

#[test]
fn a_job_with_a_list_of_sizes_has_a_result_for_each() {
    let world = World::new();
    world.file("up/a.png", &jpeg(64, 48));
    let answers = run(
        &world,
        "-o out --format webp",
        &[
            json!({"in": "up/a.png", "out": "x/{stem}-{width}x{height}.{ext}", "size": [16, "x24"]}),
            json!({"in": "up/a.png", "out": "one.webp", "size": [8]}),
            json!({"in": "up/a.png", "out": "{width}.webp", "size": 8}),
            json!({"in": "up/a.png", "out": "up.webp", "size": [8, 9]}),
            json!({"in": "up/a.png", "out": "../{width}.webp", "size": [8, 9]}),
        ],
    );
    let results = answers[0]["results"].as_array().unwrap();
    let outputs: Vec<_> = results.iter().map(|result| &result["output"]).collect();
    assert_eq!(outputs, ["out/x/a-16x12.webp", "out/x/a-32x24.webp"]);
    assert_eq!([&results[1]["width"], &results[1]["height"]], [32, 24]);
    assert_eq!(answers[0]["output"], outputs[1].as_str().unwrap());
    assert_eq!(answers[1]["output"], "out/one.webp");
    // Without a list, braces are a part of the name.
    assert_eq!(answers[2]["output"], "out/{width}.webp");
    assert_eq!(answers[3]["cause"], "bad-job");
    assert_eq!(answers[4]["cause"], "write");
    assert_eq!(
        world.tree("out"),
        [
            "one.webp",
            "x/a-16x12.webp",
            "x/a-32x24.webp",
            "{width}.webp"
        ]
    );
}

#[test]
fn a_bad_line_is_an_answer_and_the_next_one_is_done() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    let mut co = CoProcess::start(&world, "-j 1");
    let good = json!({"id": "good", "in": "a.jpg", "out": "out.jpg", "size": 8});
    for (line, id, words) in [
        ("nonsense".to_owned(), Value::Null, "not an object of JSON"),
        (
            r#"{"id": 1, "in": "a.jpg", "out": "b.jpg", "siez": 8}"#.into(),
            json!(1),
            "unknown field `siez`",
        ),
        (
            r#"{"id": "2", "in": "a.jpg", "size": 8}"#.into(),
            json!("2"),
            "out: ",
        ),
        (
            r#"{"id": 3, "in": "a.jpg", "out": "b.jpg"}"#.into(),
            json!(3),
            "size: ",
        ),
        (
            r#"{"id": 6, "in": "a.jpg", "out": "sub/", "size": 8}"#.into(),
            json!(6),
            "sub/ is a folder; add the name of the file",
        ),
        (
            r#"{"in": "a\ud800.jpg", "id": "half", "out": "b.jpg", "size": 8}"#.into(),
            json!("half"),
            "hex escape",
        ),
        (
            r#"{"id": 5, "in": "a.jpg", "out": "\udc00", "size": 8}"#.into(),
            json!(5),
            "hex escape",
        ),
        (
            format!(r#"{{"id": 4, "in": "{}"}}"#, "x".repeat(1 << 20)),
            Value::Null,
            "longer than",
        ),
    ] {
        co.send_text(&format!("{line}\n"));
        let bad = co.answer();
        assert_eq!(
            (&bad["id"], &bad["cause"]),
            (&id, &json!("bad-job")),
            "{bad}"
        );
        assert!(bad["error"].as_str().unwrap().contains(words), "{bad}");
        co.send(good.clone());
        let next = co.answer();
        assert_eq!(
            (&next["id"], &next["status"]),
            (&json!("good"), &json!("written")),
            "{next}"
        );
        assert_eq!(next["line"], bad["line"].as_u64().unwrap() + 1);
    }
    let run = co.end().exits(0);
    assert_eq!((&*run.stdout, &*run.stderr), ("", ""));
    assert_eq!(world.tree(""), ["a.jpg", "out.jpg"]);
}

#[test]
fn all_jobs_before_the_end_of_stdin_are_answered() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    let job = |id| json!({"id": id, "in": "a.jpg", "out": format!("{id}.jpg")});
    let mut lines: String = (0..300).map(|id| format!("{}\n\n", job(id))).collect();
    // The last one has no line break.
    lines.truncate(lines.len() - 2);
    let run = world.run_with_stdin("--jobs - -s 8 -o out", lines.as_bytes());
    let answers = run.exits(0).json();
    let mut ids: Vec<_> = answers
        .iter()
        .map(|answer| answer["id"].as_u64().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..300).collect::<Vec<_>>());
    assert!(answers.iter().all(|answer| answer["status"] == "written"));
    assert_eq!(world.all("out").len(), 300, "nothing but results");
    world.run_with_stdin("--jobs -", b"").exits(0);
}

#[test]
fn a_job_that_hangs_delays_no_other_and_ends_by_its_deadline() {
    let world = small_and_large();
    let mut co = CoProcess::start(&world, "-j 2 -s 8");
    co.send(json!({"id": "hangs", "in": "large.png", "out": "large.jpg", "timeout": "6s"}));
    signal(co.worker_in_the_middle(), libc::SIGSTOP);
    for id in 0..20 {
        co.send(json!({"id": id, "in": "a.jpg", "out": format!("{id}.jpg")}));
        let answer = co.answer();
        // Under load its deadline may come first.
        let answer = if answer["id"] == "hangs" {
            co.answer()
        } else {
            answer
        };
        assert_eq!(
            (&answer["id"], &answer["status"]),
            (&json!(id), &json!("written"))
        );
    }
    let run = co.end().exits(0);
    if let Some(answer) = run.json().first() {
        assert_eq!(
            (&answer["cause"], &answer["attempts"]),
            (&json!("timeout"), &json!(1))
        );
    }
    assert!(!world.path("large.jpg").exists());
}

#[test]
fn a_killed_worker_costs_a_retry_or_an_answer_with_the_cause() {
    for (retries, status) in [(0, "failed"), (1, "written")] {
        let world = small_and_large();
        let mut co = CoProcess::start(&world, "-j 1 -s 8");
        co.send(json!({"id": 1, "in": "large.png", "out": "large.jpg", "retries": retries}));
        signal(co.worker_in_the_middle(), libc::SIGKILL);
        let answer = co.answer();
        assert_eq!(answer["status"], status, "{answer}");
        if retries == 0 {
            assert_eq!(
                (&answer["cause"], &answer["attempts"]),
                (&json!("signal-9"), &json!(1))
            );
        }
        co.send(json!({"id": 2, "in": "a.jpg", "out": "a-8.jpg"}));
        assert_eq!(co.answer()["status"], "written");
        co.end().exits(0);
    }
}

#[test]
fn while_answers_are_not_read_jobs_are_not_read_either() {
    const JOBS: usize = 2000;
    let world = World::new();
    world.photos(&["a.jpg"]);
    let mut command = world.command("--jobs - -j 2 -s 8");
    own_session(&mut command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    fcntl(&stdin, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let id = child.id();
    let sent = AtomicUsize::new(0);
    let long = "x".repeat(4000);
    thread::scope(|threads| {
        threads.spawn(|| {
            let mut stdin = stdin;
            for job in 0..JOBS {
                let job = json!({"id": format!("{job}-{long}"), "in": "a.jpg", "out": "out.jpg"});
                if stdin.write_all(format!("{job}\n").as_bytes()).is_err() {
                    break;
                }
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        // A run that goes on reading ends this by its last job.
        let (mut before, mut same) = (0, 0);
        wait_until("no further job is read", || {
            let now = sent.load(Ordering::Relaxed);
            same = if now == before && now > 0 {
                same + 1
            } else {
                0
            };
            before = now;
            same == 300 || now == JOBS
        });
        let sent = sent.load(Ordering::Relaxed);
        let private = private_bytes(id);
        let answers = BufReader::new(stdout).lines().map_while(Result::ok).count();
        assert!(sent < 100, "{sent} jobs were read");
        assert!(private < Some(64 << 20), "{private:?}");
        assert_eq!(answers, JOBS);
    });
    wait(child).exits(0);
    gone(id);
}

#[test]
fn without_a_reader_of_its_answers_the_program_ends_and_leaves_nothing() {
    let world = small_and_large();
    let mut command = world.command("--jobs - -j 1 -s 8");
    own_session(&mut command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (id, mut stdin) = (child.id(), child.stdin.take().unwrap());
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    writeln!(stdin, "{}", json!({"in": "a.jpg", "out": "out/1.jpg"})).unwrap();
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    // It need not end for the large one.
    writeln!(stdin, "{}", json!({"in": "large.png", "out": "out/2.jpg"})).unwrap();
    writeln!(stdin, "nonsense").unwrap();
    wait(child).exits(1).says(&["stdout", "reader"]);
    drop(stdin);
    gone(id);
    let files = world.all("out");
    assert!(
        files
            .iter()
            .all(|name| ["1.jpg", "2.jpg"].contains(&&**name)),
        "{files:?}"
    );
}

#[test]
fn two_jobs_with_one_output_leave_one_of_their_results_whole() {
    let world = World::new();
    world.file("a.jpg", &jpeg(300, 300));
    let over = AtomicBool::new(false);
    let jobs: Vec<_> = (0..400)
        .map(|id| json!({"id": id, "in": "a.jpg", "out": "same.jpg", "size": 100 + id % 2 * 50}))
        .collect();
    let looked = thread::scope(|threads| {
        let reader = threads.spawn(|| {
            let mut looked = 0;
            while !over.load(Ordering::Relaxed) {
                if let Ok(bytes) = fs::read(world.path("same.jpg")) {
                    let image = image::load_from_memory(&bytes).unwrap();
                    assert!([100, 150].contains(&image.width()), "{}", image.width());
                    looked += 1;
                }
            }
            looked
        });
        let answers = run(&world, "", &jobs);
        over.store(true, Ordering::Relaxed);
        assert!(answers.iter().all(|answer| answer["status"] == "written"));
        reader.join().unwrap()
    });
    assert!(looked > 0);
    assert_eq!(world.all(""), ["a.jpg", "same.jpg"]);
}

#[test]
fn an_output_named_as_another_format_is_refused() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    for (flags, out, format, words) in [
        ("", "x.jxl", None, "JPEG XL cannot be written"),
        ("", "x.TIF", None, "TIFF cannot be written"),
        ("", "x.psd", None, "PSD cannot be written"),
        ("", "x.bmp", Some("webp"), "BMP cannot be written"),
        (
            "",
            "x.png",
            Some("jpeg"),
            "stands for PNG, and format writes JPEG: name it .jpg",
        ),
        ("--format webp", "x.png", None, "format writes WebP"),
    ] {
        let job = json!({"id": 7, "in": "a.jpg", "out": out, "format": format});
        let answer = run(&world, &format!("-s 8 {flags}"), &[job]).remove(0);
        assert_eq!(
            (&answer["id"], &answer["cause"]),
            (&json!(7), &json!("bad-job"))
        );
        assert!(
            answer["error"].as_str().unwrap().contains(words),
            "{answer}"
        );
    }
    assert_eq!(world.all(""), ["a.jpg"]);
    // The extension of no picture says nothing.
    let job = json!({"in": "a.jpg", "out": "x.0001", "format": "webp"});
    assert_eq!(run(&world, "-s 8", &[job])[0]["status"], "written");
}

#[test]
fn files_of_others_are_left_alone_unless_a_job_asks_for_it() {
    let world = World::new();
    world
        .file("a.jpg", &jpeg(64, 48))
        .file("theirs.jpg", b"theirs")
        .symlink("a.jpg", "out/theirs.jpg");
    let job = |out: &str, size: u32| json!({"in": "a.jpg", "out": out, "size": size});
    for flags in ["", "-o out"] {
        let answers = run(&world, flags, &[job("theirs.jpg", 8), job("own.jpg", 8)]);
        assert_eq!(answers[0]["cause"], "exists", "{answers:?}");
        assert_eq!(answers[1]["status"], "written");
        // Made by a program that has ended: known by its content only.
        let answers = run(&world, flags, &[job("own.jpg", 8)]);
        assert_eq!(answers[0]["status"], "written");
        let answers = run(&world, flags, &[job("own.jpg", 9)]);
        assert_eq!(answers[0]["cause"], "exists");
    }
    assert_eq!(fs::read(world.path("theirs.jpg")).unwrap(), b"theirs");
    let mut asked = job("theirs.jpg", 8);
    asked["overwrite"] = true.into();
    asked["preserve-times"] = true.into();
    assert_eq!(run(&world, "", &[asked])[0]["status"], "written");
    let answers = run(&world, "-o out --overwrite", &[job("theirs.jpg", 8)]);
    assert_eq!(answers[0]["status"], "written");
    let time = |name: &str| {
        fs::symlink_metadata(world.path(name))
            .unwrap()
            .modified()
            .unwrap()
    };
    assert_eq!(time("theirs.jpg"), time("a.jpg"));
    assert_ne!(time("out/theirs.jpg"), time("a.jpg"));
    assert_eq!(world.sides("out/theirs.jpg"), (8, 6));
}

#[test]
fn an_input_is_not_overwritten_by_its_own_result() {
    let world = World::new();
    let before = jpeg(64, 64);
    world.file("a.jpg", &before);
    world.symlink("a.jpg", "link.jpg");
    fs::hard_link(world.path("a.jpg"), world.path("hard.jpg")).unwrap();
    for output in ["a.jpg", "./a.jpg", "link.jpg", "hard.jpg"] {
        let answers = run(&world, "-s 8", &[json!({"in": "a.jpg", "out": output})]);
        assert_eq!(answers[0]["cause"], "name-conflict", "{answers:?}");
    }
    assert_eq!(fs::read(world.path("a.jpg")).unwrap(), before);
}

#[test]
fn with_a_folder_given_no_result_leaves_it() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    fs::create_dir_all(world.path("out")).unwrap();
    fs::create_dir_all(world.path("elsewhere")).unwrap();
    world.symlink(world.path("elsewhere"), "out/link");
    let absolute = world.path("b.jpg");
    for output in [
        "../b.jpg",
        "x/../../b.jpg",
        absolute.to_str().unwrap(),
        "link/b.jpg",
    ] {
        let job = json!({"in": "a.jpg", "out": output});
        let answers = run(&world, "-s 8 -o out", &[job]);
        assert_eq!(answers[0]["cause"], "write", "{output}: {answers:?}");
        assert_eq!(world.tree("out"), ["link"], "{output}");
    }
    assert_eq!(world.tree("elsewhere"), [""; 0]);
    let answers = run(
        &world,
        "-s 8 -o out",
        &[json!({"in": "a.jpg", "out": "x/./b.jpg"})],
    );
    assert_eq!(answers[0]["output"], "out/x/./b.jpg");
    assert_eq!(world.sides("out/x/b.jpg"), (8, 6));
}

#[test]
fn a_signal_ends_a_program_that_waits_for_jobs() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    for (number, code) in [
        (libc::SIGTERM, 143),
        (libc::SIGINT, 130),
        (libc::SIGHUP, 129),
    ] {
        let mut co = CoProcess::start(&world, "-j 2 -s 8");
        co.send(json!({"in": "a.jpg", "out": "b.jpg"}));
        co.answer();
        signal(co.id(), number);
        co.ended().exits(code).says(&["interrupted"]);
    }
}

#[test]
fn a_signal_lets_jobs_under_way_be_answered_and_a_second_one_does_not() {
    for signals in [1, 2] {
        let world = small_and_large();
        let mut co = CoProcess::start(&world, "-j 1 -s 8");
        co.send(json!({"id": 1, "in": "large.png", "out": "large.jpg"}));
        let worker = co.worker_in_the_middle();
        signal(worker, libc::SIGSTOP);
        signal(co.id(), libc::SIGTERM);
        if signals == 2 {
            // The message shows that the first one has been handled.
            let stderr = co.child.as_mut().unwrap().stderr.as_mut().unwrap();
            BufReader::with_capacity(1, stderr)
                .read_line(&mut String::new())
                .unwrap();
            signal(co.id(), libc::SIGTERM);
        } else {
            signal(worker, libc::SIGCONT);
        }
        let run = co.ended().exits(143);
        let written = run
            .json()
            .iter()
            .filter(|answer| answer["status"] == "written")
            .count();
        assert_eq!(written, 2 - signals, "{run:?}");
        assert_eq!(
            world.tree("").contains(&"large.jpg".to_owned()),
            signals == 1
        );
    }
}

#[test]
fn jobs_work_in_the_sandbox_and_within_their_memory() {
    let world = small_and_large();
    let answers = run(
        &world,
        "-s 8 --memory-limit 32MiB",
        &[
            json!({"in": "a.jpg", "out": "b.jpg"}),
            json!({"in": "large.png", "out": "c.jpg", "max-pixels": "1G"}),
            json!({"in": "large.png", "out": "c.jpg", "max-pixels": "1M"}),
        ],
    );
    assert_eq!(answers[0]["status"], "written");
    assert_eq!(answers[1]["cause"], "too-many-bytes", "{}", answers[1]);
    assert_eq!(answers[2]["cause"], "too-many-pixels", "{}", answers[2]);
}

#[test]
fn files_that_do_not_fit_together_are_done_one_after_the_other() {
    let world = World::new();
    world.file("a.png", &png(900, 900));
    let len = fs::metadata(world.path("a.png")).unwrap().len();
    assert!(len > 100 << 10, "{len}");
    let jobs: Vec<_> = (0..30)
        .map(|id| json!({"id": id, "in": "a.png", "out": format!("{id}.jpg")}))
        .collect();
    let answers = run(&world, &format!("-s 8 -j 4 --capacity {}", 3 * len), &jobs);
    assert!(
        answers.iter().all(|answer| answer["status"] == "written"),
        "{answers:?}"
    );
}

#[test]
fn flags_about_lists_of_inputs_are_refused() {
    let world = World::new();
    for (flag, name) in [
        ("a.jpg", "[INPUT]"),
        ("-0", "--null"),
        ("--base .", "--base"),
        ("--exclude x", "--exclude"),
        ("--print0", "--print0"),
        ("--resume", "--resume"),
        ("-n", "--dry-run"),
        ("--json", "--json"),
        ("--trace t", "--trace"),
        ("--report r", "--report"),
        ("--progress always", "--progress"),
    ] {
        let run = world.run(&format!("--jobs - {flag}")).exits(2);
        let names = run.stderr.contains("--jobs") && run.stderr.contains(name);
        assert!(names, "{name}: {}", run.stderr);
    }
    world
        .run("--jobs - -s 5! --fit cover")
        .exits(2)
        .says(&["--fit cover"]);
    world.run("--jobs jobs.txt").exits(2);
    world.file("out", b"a file");
    world
        .run("--jobs - -o out")
        .exits(2)
        .says(&["out", "output folder"]);
    assert_eq!(world.all(""), ["out"]);
}

#[test]
fn a_stdin_that_cannot_be_read_is_named() {
    let world = World::new();
    let mut command = world.command("--jobs -");
    command.stdin(File::open(world.path("")).unwrap());
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait(child).exits(1).says(&["stdin", "directory"]);
}
