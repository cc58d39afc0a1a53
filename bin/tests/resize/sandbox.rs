//! `--sandbox`: the same results, from sandboxed workers.

use std::os::unix::process::CommandExt;

use arenite::SandboxReport;

use crate::world::{Run, World, encoded, picture};
use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};

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
    ] {
        let image = image.to_rgb8().into();
        world.file(name, &encoded(&image, format));
    }
    world
}

#[test]
fn results_are_the_same() {
    let world = folder();
    world.run("p -s 32 -o plain").exits(0);
    let run = world.run("p -s 32 -o locked --sandbox").exits(0);
    for part in SandboxReport::of_this_kernel().lacking() {
        assert!(run.stderr.lines().any(|line| line.contains(part)), "{part}");
    }
    let names = world.tree("plain");
    assert_eq!(names, world.tree("locked"));
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        let read = |folder: &str| std::fs::read(world.path(&format!("{folder}/{name}"))).unwrap();
        assert_eq!(read("plain"), read("locked"), "{name}");
    }
}

#[test]
fn a_broken_picture_is_one_failure() {
    let world = folder();
    let whole = std::fs::read(world.path("p/a.jpg")).unwrap();
    world.file("p/broken.jpg", &whole[..whole.len() / 3]);
    world.file("p/none.png", b"no picture");
    world
        .run("p -s 32 -o out --sandbox")
        .exits(1)
        .says(&["none.png"]);
    assert!(world.path("out/f.png").exists());
}

#[test]
fn a_required_sandbox_is_complete_or_nothing_is_started() {
    let world = folder();
    let run = world.run("p -s 32 -o out --sandbox=require");
    let report = SandboxReport::of_this_kernel();
    if report.is_complete() {
        run.exits(0);
        assert!(world.path("out/a.jpg").exists());
    } else {
        run.exits(2).says(&["sandbox is required"]);
        assert!(!world.path("out/a.jpg").exists());
    }
}

#[test]
fn a_value_meant_for_the_flag_is_not_an_input() {
    let world = folder();
    for word in ["require", "available"] {
        let line = format!("p -s 32 -o out --sandbox {word}");
        let sign = format!("--sandbox={word}");
        world.run(&line).exits(2).says(&[&sign]);
        assert!(!world.path("out").exists());
    }
    // Without --sandbox, or if such a file exists, it is an input.
    world.run("p require -s 32 -o plain").exits(1);
    let picture = encoded(&picture(40, 30), Png);
    world.file("require", &picture);
    world.run("p -s 32 -o locked --sandbox require").exits(0);
    assert!(world.path("locked/require.png").exists());
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

/// Also with --quiet: a user of a sandbox has to know what it does not enforce.
#[test]
fn missing_protection_is_named_and_refused_if_required() {
    let world = folder();
    world.run("p -s 32 -o plain").exits(0);
    let names = world.tree("plain");
    assert!(names.len() >= 6, "{names:?}");
    for (number, (call, part)) in PARTS.into_iter().enumerate() {
        let refused = format!("refused-{number}");
        let line = format!("p -s 32 -o {refused} --sandbox=require");
        run_without(call, &world, &line)
            .exits(2)
            .says(&["a sandbox is required", part]);
        if world.path(&refused).exists() {
            assert_eq!(world.tree(&refused), [""; 0]);
        }
        let done = format!("done-{number}");
        let line = format!("p -s 32 -o {done} --sandbox");
        let run = run_without(call, &world, &line).exits(0);
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
        assert_eq!(world.tree(&done), names);
        let named: Vec<&str> = run.stderr.lines().filter(is_of_the_kernel).collect();
        let line = format!("p -s 32 -o quiet-{number} --sandbox --quiet");
        let quiet = run_without(call, &world, &line).exits(0);
        assert_eq!(quiet.stdout, "");
        assert_eq!(quiet.stderr.lines().collect::<Vec<_>>(), named);
        for name in &names {
            let read = |folder: &str| std::fs::read(world.path(&format!("{folder}/{name}")));
            assert_eq!(read("plain").unwrap(), read(&done).unwrap(), "{name}");
        }
    }
}
