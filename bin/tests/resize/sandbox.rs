//! `--sandbox`, which is on by default: the same results as without it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;

use arenite::SandboxReport;
use image::ImageFormat::{Bmp, Gif, Ico, Jpeg, Png, Pnm, Qoi, Tga, Tiff, WebP};

use crate::world::{
    HEIC, Run, World, children, encoded, gone, not_tried, own_session, picture, png, private_bytes,
    signal, wait, wait_until,
};

#[path = "../../../tests/common/lacking.rs"]
mod kernels;

fn folder() -> World {
    let world = World::new();
    let image = picture(120, 90);
    for (name, format) in [
        ("p/a.jpg", Jpeg),
        ("p/b.png", Png),
        ("p/c.webp", WebP),
        ("p/d.gif", Gif),
        ("p/e.tiff", Tiff),
        ("p/f.bmp", Bmp),
        ("p/g.ico", Ico),
        ("p/h.ppm", Pnm),
        ("p/i.qoi", Qoi),
        ("p/j.tga", Tga),
    ] {
        let image = image.to_rgb8().into();
        world.file(name, &encoded(&image, format));
    }
    world
}

/// Runs a command on a large picture. Returns the lines of `/proc/PID/status` of its worker, in the midst of the
/// picture, that show rights.
fn rights_of_worker(world: &World, name: &str, line: &str) -> Vec<String> {
    let mut command = world.subcommand(name, line);
    let child = own_session(&mut command).spawn().unwrap();
    let id = child.id();
    let mut worker = None;
    wait_until("a worker is in the midst of the picture", || {
        let mut workers = children(id).into_iter();
        worker = workers.find(|&worker| private_bytes(worker) > Some(30 << 20));
        worker.is_some()
    });
    let worker = worker.unwrap();
    signal(worker, libc::SIGSTOP);
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    signal(worker, libc::SIGCONT);
    wait(child).exits(0);
    gone(id);
    let shows_rights =
        |line: &&str| line.starts_with("NoNewPrivs:") || line.starts_with("Seccomp:");
    status
        .lines()
        .filter(shows_rights)
        .map(|line| line.replace('\t', " "))
        .collect()
}

#[test]
fn workers_have_no_rights_unless_the_sandbox_is_off() {
    let lacking = SandboxReport::of_this_kernel().lacking();
    if lacking.iter().any(|part| part.starts_with("seccomp")) {
        return not_tried("this Linux has no seccomp");
    }
    let world = World::new();
    world.file("large.png", &png(6000, 4000));
    for (name, line) in [("resize", "large.png -s 8 -o out"), ("check", "large.png")] {
        let rights = |flag: &str| rights_of_worker(&world, name, &format!("{line} -j 1 {flag}"));
        assert_eq!(rights(""), ["NoNewPrivs: 1", "Seccomp: 2"], "{name}");
        let all = rights("--sandbox off");
        assert_eq!(all, ["NoNewPrivs: 0", "Seccomp: 0"], "{name}");
    }
}

/// In all formats, and started before and after the search for inputs.
#[test]
fn results_are_the_same() {
    let world = folder();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples");
    for entry in fs::read_dir(samples).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("p/{}", path.file_name().unwrap().to_str().unwrap());
        world.file(&name, &fs::read(&path).unwrap());
    }
    world.file("p/k.avif", include_bytes!("alpha.avif"));
    world.file("p/l.jxl", include_bytes!("damaged-exif.jxl"));
    if arenite_image::heic_decoder().is_ok() {
        world.file("p/m.heic", HEIC);
    }
    for (number, line) in ["p -s 32 -j 2", "p -s 32 -j 2 --trace run.json"]
        .iter()
        .enumerate()
    {
        let (plain, locked) = (format!("plain-{number}"), format!("locked-{number}"));
        let off = format!("{line} -o {plain} --sandbox off --json");
        let off = world.run(&off).exits(0).json();
        let run = world.run(&format!("{line} -o {locked} --json")).exits(0);
        let lacking = SandboxReport::of_this_kernel().lacking();
        for part in &lacking {
            assert!(run.stderr.contains(part), "{part}");
        }
        let of_summary = |lines: &[serde_json::Value]| {
            let summary = lines.last().unwrap();
            (summary["sandbox"].clone(), summary["not_enforced"].clone())
        };
        assert_eq!(of_summary(&off), ("off".into(), [""; 0].as_slice().into()));
        assert_eq!(of_summary(&run.json()), ("on".into(), lacking.into()));
        let names = world.tree(&plain);
        assert_eq!(names, world.tree(&locked));
        assert!(names.len() >= 18, "{names:?}");
        for name in names {
            let read = |folder: &str| fs::read(world.path(&format!("{folder}/{name}"))).unwrap();
            assert_eq!(read(&plain), read(&locked), "{name}");
        }
    }
    let check = |flag: &str| {
        let run = world.finish(world.subcommand("check", &format!("p {flag}")));
        run.exits(0).stdout
    };
    assert_eq!(check(""), check("--sandbox off"));
}

#[test]
fn a_broken_picture_is_one_failure() {
    let world = folder();
    let whole = std::fs::read(world.path("p/a.jpg")).unwrap();
    world.file("p/broken.jpg", &whole[..whole.len() / 3]);
    world.file("p/none.png", b"no picture");
    world.run("p -s 32 -o out").exits(1).says(&["none.png"]);
    assert!(world.path("out/f.png").exists());
}

#[test]
fn a_required_sandbox_is_complete_or_nothing_is_started() {
    let world = folder();
    let run = world.run("p -s 32 -o out --sandbox require");
    let report = SandboxReport::of_this_kernel();
    if report.is_complete() {
        run.exits(0);
        assert!(world.path("out/a.jpg").exists());
    } else {
        run.exits(2).says(&["sandbox is required"]);
        assert!(!world.path("out/a.jpg").exists());
    }
}

/// A system call, and the name of the part of the sandbox that is missing without it.
const PARTS: [(libc::c_long, &str); 3] = [
    (libc::SYS_seccomp, "seccomp (filters on system calls)"),
    (libc::SYS_landlock_create_ruleset, "Landlock (Linux 5.13)"),
    (libc::SYS_mseal, "mseal (Linux 6.10)"),
];

/// Runs the command on a Linux that lacks a system call.
fn run_without(call: libc::c_long, world: &World, line: &str) -> Run {
    let mut command = world.command(line);
    // SAFETY: the closure makes only system calls in the new process.
    unsafe { command.pre_exec(kernels::without(&[call])) };
    world.finish(command)
}

fn is_of_the_kernel(line: &&str) -> bool {
    line.starts_with("not enforced by this Linux: ")
}

/// Also with --quiet, if a sandbox was requested.
#[test]
fn missing_protection_is_named_and_refused_if_required() {
    let world = folder();
    world.run("p -s 32 -o plain --sandbox off").exits(0);
    let names = world.tree("plain");
    assert!(names.len() >= 6, "{names:?}");
    for (number, (call, part)) in PARTS.into_iter().enumerate() {
        let refused = format!("refused-{number}");
        let line = format!("p -s 32 -o {refused} --sandbox require");
        run_without(call, &world, &line)
            .exits(2)
            .says(&["a sandbox is required", part]);
        if world.path(&refused).exists() {
            assert_eq!(world.tree(&refused), [""; 0]);
        }
        let done = format!("done-{number}");
        let line = format!("p -s 32 -o {done}");
        let run = run_without(call, &world, &line).exits(0);
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
        assert_eq!(world.tree(&done), names);
        let named: Vec<&str> = run.stderr.lines().filter(is_of_the_kernel).collect();
        assert_eq!(named.len(), 1, "{}", run.stderr);
        for (flag, expected) in [("", &[][..]), ("--sandbox on", &named)] {
            let line = format!("p -s 32 -o quiet-{number} --overwrite --quiet {flag}");
            let quiet = run_without(call, &world, &line).exits(0);
            assert_eq!(quiet.stdout, "");
            assert_eq!(quiet.stderr.lines().collect::<Vec<_>>(), expected, "{flag}");
        }
        for name in &names {
            let read = |folder: &str| std::fs::read(world.path(&format!("{folder}/{name}")));
            assert_eq!(read("plain").unwrap(), read(&done).unwrap(), "{name}");
        }
    }
}
