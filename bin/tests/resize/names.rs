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
        ("in/x/b.jpg ./top.jpg", &["in/x/b.jpg", "top.jpg"]),
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
fn two_inputs_with_one_output_are_refused_and_both_are_named() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/a.jpeg", "p/b.jpg"]);
    let run = world
        .run("p -s 8 -o out")
        .exits(2)
        .says(&["p/a.jpg", "p/a.jpeg", "out/a.jpg"]);
    assert_eq!(run.stdout, "");
    assert!(!world.path("out").exists());
    // Inputs in different folders may have one output too.
    world.photos(&["q/b.jpg"]);
    world.run("p/b.jpg q -s 8 -o out").exits(0);
    let one = world.path("p/b.jpg").display().to_string();
    world
        .run(&format!("{one} q -s 8 -o out"))
        .exits(2)
        .says(&["p/b.jpg", "q/b.jpg"]);
}

#[test]
fn many_conflicts_are_counted_after_the_first_ten() {
    let world = World::new();
    for index in 0..25 {
        world.photos(&[&format!("p/{index}.jpg"), &format!("p/{index}.jpeg")]);
    }
    let run = world.run("p -s 8 -o out").exits(2).says(&["25 conflicts"]);
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
    world.run("p/a.jpg -s 8 -o .").exits(2).says(&["p/a.jpg"]);
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
fn existing_results_are_replaced() {
    let world = World::new();
    world
        .photos(&["p/a.jpg"])
        .file("out/a.jpg", b"old")
        .file("out/else.txt", b"kept");
    world.run("p -s 8 -o out").exits(0);
    assert_eq!(world.sides("out/a.jpg"), (8, 6));
    assert_eq!(fs::read(world.path("out/else.txt")).unwrap(), b"kept");
    assert_eq!(
        world.all("out"),
        ["a.jpg", "else.txt"],
        "no temporary file is left"
    );
}

#[test]
fn a_link_with_the_name_of_a_result_is_replaced_and_its_target_kept() {
    let world = World::new();
    world
        .photos(&["p/a.jpg"])
        .file("precious.jpg", b"mine")
        .symlink("../precious.jpg", "out/a.jpg");
    world.run("p -s 8 -o out").exits(0);
    assert_eq!(fs::read(world.path("precious.jpg")).unwrap(), b"mine");
    assert_eq!(world.sides("out/a.jpg"), (8, 6));
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
    assert_eq!(world.sides("out/sub/x.jpg"), (7, 9));
    assert_eq!(world.tree("out"), ["p/x.jpg", "sub/x.jpg", "x.jpg"]);
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
