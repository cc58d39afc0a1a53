//! Names of results, and what is refused before work starts.

use std::fs;

use crate::world::{World, jpeg, png};

#[test]
fn results_keep_the_path_below_the_given_folder() {
    let world = World::new();
    world.photos(&["in/x/y/a.jpg", "in/x/b.jpg", "top.jpg"]);
    let inside = world.path("in/x").display().to_string();
    let cases: [(&str, &[&str]); 8] = [
        ("in", &["x/b.jpg", "x/y/a.jpg"]),
        ("./in/x/", &["b.jpg", "y/a.jpg"]),
        (&inside, &["b.jpg", "y/a.jpg"]),
        ("in/*/y/*.jpg", &["x/y/a.jpg"]),
        ("./in/x/*.jpg", &["b.jpg"]),
        ("in/x/b.jpg ./top.jpg", &["b.jpg", "top.jpg"]),
        ("in/../in/x/b.jpg", &["b.jpg"]),
        (&format!("{inside}/b.jpg"), &["b.jpg"]),
    ];
    for (index, (inputs, expected)) in cases.into_iter().enumerate() {
        world.run(&format!("{inputs} -s 8 -o out{index}")).exits(0);
        assert_eq!(world.tree(&format!("out{index}")), expected, "{inputs}");
    }
}

#[test]
fn results_of_a_glob_outside_the_folder_stay_below_its_prefix() {
    let world = World::new();
    world.photos(&["in/x/a.jpg"]);
    fs::create_dir(world.path("here")).unwrap();
    let mut command = world.command("../in/*/*.jpg -s 8 -o out");
    command.current_dir(world.path("here"));
    world.finish(command).exits(0);
    assert_eq!(world.tree("here/out"), ["x/a.jpg"]);
}

#[test]
fn the_extension_is_that_of_the_output_format() {
    let world = World::new();
    world
        .file("p/a.png", &jpeg(9, 9))
        .file("p/b.JPEG", &jpeg(9, 9))
        .file("p/c", &png(9, 9));
    world.run("p -s 8 -o out").exits(0);
    assert_eq!(world.tree("out"), ["a.jpg", "b.jpg", "c.png"]);
    world.run("p -s 8 -o webp --format webp").exits(0);
    assert_eq!(world.tree("webp"), ["a.webp", "b.webp", "c.webp"]);
}

#[test]
fn only_the_extension_of_an_image_is_replaced() {
    let world = World::new();
    world.photos(&["p/IMG.0001", "p/IMG.0002", "p/b.jpg.orig"]);
    world.run("p -s 8 -o out --resume").exits(0);
    assert_eq!(
        world.tree("out"),
        ["IMG.0001.jpg", "IMG.0002.jpg", "b.jpg.orig.jpg"]
    );
    let again = world.run("p -s 8 -o out --resume").exits(0);
    assert_eq!(again.lines(), [""; 0]);
}

#[test]
fn inputs_with_one_output_fail_and_the_others_are_done() {
    let world = World::new();
    world
        .photos(&["p/a.jpg", "p/b.jpg", "q/b.jpg"])
        .file("p/a.png", &png(9, 9));
    let run = world.run("p -s 8 -o out --format webp").exits(1);
    assert_eq!((run.lines(), run.errors().len()), (vec!["out/b.webp"], 2));
    let template = "--name '{name}.webp'";
    run.says(&["error: p/a.jpg", "p/a.png", "out/a.webp", template])
        .says(&["error: p/a.png", "p/a.jpg", "out/a.webp", template]);
    // The template does what the message says.
    world.run("p -s 8 -o both --name {name}.webp").exits(0);
    let both = ["a.jpg.webp", "a.png.webp", "b.jpg.webp"];
    assert_eq!(world.tree("both"), both);
    world
        .run("p -s 8 -o from --name {from}/{stem}.webp")
        .exits(0);
    assert_eq!(
        world.tree("from"),
        ["jpg/a.webp", "jpg/b.webp", "png/a.webp"]
    );
    // Of files with one name, their folders.
    let run = world.run("p/a.jpg p/b.jpg q/b.jpg -s 8 -o out").exits(1);
    assert_eq!(run.lines(), ["out/a.jpg"]);
    run.says(&["p/b.jpg", "q/b.jpg", "--base . keeps"]);
    let run = world.run("p/b.jpg q/b.jpg -s 8 -o kept --base .").exits(0);
    assert_eq!(run.lines(), ["kept/p/b.jpg", "kept/q/b.jpg"]);
    // Nothing else to do.
    world.run("p/b.jpg q -s 8 -o none").exits(1);
    assert!(!world.path("none").exists());
    let shown = world.run("p -s 8 -o shown --format webp --json").exits(1);
    let causes = shown.json().into_iter().map(|line| line["cause"].clone());
    let expected = [
        "name-conflict".into(),
        "name-conflict".into(),
        serde_json::Value::Null,
    ];
    assert_eq!(causes.take(3).collect::<Vec<_>>(), expected);
}

#[test]
fn names_keep_their_path_below_the_base() {
    let world = World::new();
    world.photos(&["p/x/1.jpg", "p/y/1.jpg", "q/1.jpg"]);
    let (x, y) = (world.path("p/x/1.jpg"), world.path("p/y/1.jpg"));
    let list = format!("{}\0{}\0", x.display(), y.display());
    let base = world.path("p");
    let base = base.display();
    let flags = format!("-0 -s 8 -o out --base {base}");
    world.run_with_stdin(&flags, list.as_bytes()).exits(0);
    assert_eq!(world.tree("out"), ["x/1.jpg", "y/1.jpg"]);
    // By another path, and for inputs of any kind.
    world.symlink("p", "link");
    let line = format!("link/x/1.jpg p/y q/1.jpg -s 8 -o more --base {base}/x/..");
    let run = world.run(&line).exits(1);
    run.says(&["q/1.jpg", "not below", "--base"]);
    assert_eq!(world.tree("more"), ["x/1.jpg", "y/1.jpg"]);
}

#[test]
fn many_inputs_in_the_way_are_counted_after_the_first_ten() {
    let world = World::new();
    fs::create_dir(world.path("hard")).unwrap();
    for index in 0..25 {
        let name = format!("{index}.jpg");
        world.photos(&[&format!("p/{name}")]);
        let (from, to) = (world.path("p").join(&name), world.path("hard").join(&name));
        fs::hard_link(from, to).unwrap();
    }
    let run = world.run("p -s 8 -o hard").exits(2).says(&["25 conflicts"]);
    assert_eq!(run.errors().len(), 11);
}

#[test]
fn the_first_bytes_decide_formats_and_nothing_is_decoded() {
    let world = World::new();
    // A picture that no decoder accepts is planned too.
    world.file("p/a.gif", b"\xff\xd8\xff\xe0 and nothing more");
    assert_eq!(
        world.run("p -s 8 -o out -n").exits(0).lines(),
        ["out/a.jpg"]
    );
}

#[test]
fn inputs_are_never_overwritten_under_any_path() {
    let world = World::new();
    let original = jpeg(32, 24);
    world.file("p/a.jpg", &original).file("p/b.png", &png(9, 9));
    world.symlink("p", "out-link");
    fs::create_dir_all(world.path("hard")).unwrap();
    fs::hard_link(world.path("p/a.jpg"), world.path("hard/a.jpg")).unwrap();
    world.symlink("../p/a.jpg", "soft/a.jpg");
    let mut command = world.command("a.jpg -s 8 -o .");
    command.current_dir(world.path("p"));
    world
        .finish(command)
        .exits(2)
        .says(&["a.jpg", "overwritten"]);
    world.run("p/a.jpg -s 8 -o p").exits(2).says(&["p/a.jpg"]);
    for line in [
        "p/*.jpg -s 8 -o out-link",
        "p -s 8 -o hard",
        "p -s 8 -o soft",
    ] {
        world.run(line).exits(2);
    }
    // The result of one input is another input.
    let mut command = world.command("b.png a.jpg -s 8 --format jpeg -o .");
    world.file("p/b.jpg", &original);
    command.arg("b.jpg").current_dir(world.path("p"));
    world.finish(command).exits(2).says(&["b.png", "b.jpg"]);
    assert_eq!(fs::read(world.path("p/a.jpg")).unwrap(), original);
    assert_eq!(fs::read(world.path("p/b.jpg")).unwrap(), original);
}

#[test]
fn an_unreadable_input_is_not_overwritten() {
    let world = World::new();
    world
        .file("a.png", &png(9, 9))
        .file("a.jpg", b"broken but mine");
    world
        .run("a.png a.jpg -s 8 --format jpeg -o .")
        .exits(2)
        .says(&["a.png", "a.jpg"]);
    assert_eq!(fs::read(world.path("a.jpg")).unwrap(), b"broken but mine");
}

#[test]
fn results_next_to_inputs_are_allowed_under_other_names() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    world.run("a.jpg -s 8 -o . --format webp").exits(0);
    assert_eq!(world.tree(""), ["a.jpg", "a.webp"]);
}

#[test]
fn results_are_replaced_with_the_same_options_and_others() {
    let world = World::new();
    world.photos(&["p/a.jpg"]).file("out/else.txt", b"kept");
    for (flags, width) in [
        ("-s 8", 8),
        ("-s 8", 8),
        ("-s 9", 9),
        ("-s 12 --resume", 12),
    ] {
        world.run(&format!("p -o out {flags}")).exits(0);
        assert_eq!(world.sides("out/a.jpg").0, width, "{flags}");
    }
    assert_eq!(fs::read(world.path("out/else.txt")).unwrap(), b"kept");
    assert_eq!(
        world.all("out"),
        [".arenite-resize", "a.jpg", "else.txt"],
        "no temporary file is left"
    );
    // Names that depend on sides, and other ones since.
    for sides in ["-s 8", "-s 9", "-s 8"] {
        world.file("p/a.jpg", &jpeg(32, 24 + sides.len() as u32));
        world
            .run(&format!(
                "p -o many {sides} --name {{stem}}-{{width}}.{{ext}}"
            ))
            .exits(0);
        world.photos(&["p/a.jpg"]);
    }
    // Without a record, what has the same content.
    fs::remove_file(world.path("out/.arenite-resize")).unwrap();
    world.run("p -s 12 -o out").exits(0);
    fs::remove_file(world.path("out/.arenite-resize")).unwrap();
    world
        .run("p -s 8 -o out")
        .exits(1)
        .says(&["out/a.jpg exists"]);
}

#[test]
fn files_of_others_are_left_alone_unless_asked_for() {
    let world = World::new();
    world
        .photos(&["p/a.jpg", "p/b.jpg", "p/sub/c.jpg", "p/d.jpg"])
        .file("precious.jpg", b"mine");
    let foreign = || {
        world
            .file("out/a.jpg", b"theirs")
            .file("out/sub/c.jpg", &jpeg(32, 24));
        let _ = fs::remove_file(world.path("out/d.jpg"));
        world.symlink("../precious.jpg", "out/d.jpg");
    };
    foreign();
    for flags in ["", "--resume", "--shard 1/1"] {
        let run = world.run(&format!("p -s 8 -o out {flags} --json")).exits(1);
        let lines = run.json();
        let causes: Vec<_> = lines[..4]
            .iter()
            .map(|line| line["cause"].as_str())
            .collect();
        assert_eq!(
            causes,
            [Some("exists"), None, Some("exists"), Some("exists")],
            "{flags}"
        );
        assert_eq!(lines[4]["failed"], 3);
        assert_eq!(fs::read(world.path("out/a.jpg")).unwrap(), b"theirs");
        assert_eq!(fs::read(world.path("out/sub/c.jpg")).unwrap(), jpeg(32, 24));
        assert!(world.path("out/d.jpg").is_symlink());
        assert_eq!(world.sides("out/b.jpg"), (8, 6));
        run.says(&["p/a.jpg", "out/a.jpg exists", "--overwrite"])
            .says(&["p/sub/c.jpg", "out/sub/c.jpg exists"]);
    }
    world.run("p -s 8 -o out --overwrite").exits(0);
    for name in ["out/a.jpg", "out/b.jpg", "out/sub/c.jpg", "out/d.jpg"] {
        assert_eq!(world.sides(name), (8, 6), "{name}");
    }
    assert_eq!(fs::read(world.path("precious.jpg")).unwrap(), b"mine");
    // A result that another program has changed is not arenite's any more.
    foreign();
    let run = world.run("p -s 9 -o out").exits(1);
    assert_eq!(run.lines(), ["out/b.jpg"]);
}

#[test]
fn nothing_is_written_outside_the_output_folder() {
    let world = World::new();
    world
        .photos(&["p/sub/a.jpg", "p/b.jpg"])
        .file("outside/keep", b"")
        .symlink("../outside", "out/sub");
    let run = world
        .run("p -s 8 -o out")
        .exits(1)
        .says(&["p/sub/a.jpg", "out/sub is a link"]);
    assert_eq!(run.lines(), ["out/b.jpg"]);
    assert_eq!(world.all("outside"), ["keep"]);
}

#[test]
fn no_result_is_written_through_a_link_below_the_output_folder() {
    let world = World::new();
    world.file("p/x.jpg", &jpeg(32, 24));
    world.file("p/sub/x.jpg", &jpeg(24, 32));
    world.symlink(".", "out/sub");
    for flags in ["", "--resume"] {
        let run = world.run(&format!("p -s 8 -o out {flags}")).exits(1);
        let run = run.says(&["p/sub/x.jpg", "out/sub is a link"]);
        assert_eq!(run.errors().len(), 1, "{}", run.stderr);
        assert_eq!(world.sides("out/x.jpg"), (8, 6));
    }
    fs::remove_file(world.path("out/sub")).unwrap();
    world.run("p -s 8 -o out --resume").exits(0);
    assert_eq!(world.tree("out"), ["sub/x.jpg", "x.jpg"]);
    // The user's own path may lead through links.
    world.symlink("out", "link").symlink("out/sub", "deep");
    world.run("p -s 9 -o link").exits(0);
    world.run("p/x.jpg -s 8 -o deep/..").exits(0);
    assert_eq!(world.sides("out/x.jpg"), (8, 6));
    assert_eq!(world.sides("out/sub/x.jpg"), (7, 9));
    assert_eq!(world.tree("out"), ["sub/x.jpg", "x.jpg"]);
}

#[test]
fn results_have_the_default_mode() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    world.file("out/plain", b"");
    world.run("p -s 8 -o out").exits(0);
    let mode = |name: &str| fs::metadata(world.path(name)).unwrap().permissions().mode();
    assert_eq!(mode("out/a.jpg"), mode("out/plain"));
}
