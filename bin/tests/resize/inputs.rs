//! Which files become inputs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::world::{HEIC, JPEG_2000, World, jpeg, png, with_own_mounts};

#[test]
fn files_and_folders_at_any_depth_are_inputs() {
    let world = World::new();
    world.photos(&["photos/a.jpg", "photos/x/y/z/b.jpg", "c.jpg"]);
    let run = world.run("photos c.jpg --size 8 --out out").exits(0);
    assert_eq!(run.lines(), ["out/a.jpg", "out/x/y/z/b.jpg", "out/c.jpg"]);
    assert_eq!(world.tree("out"), ["a.jpg", "c.jpg", "x/y/z/b.jpg"]);
}

#[test]
fn globs_are_expanded() {
    let world = World::new();
    world.photos(&["p/a1.jpg", "p/a2.jpg", "p/b1.jpg", "p/sub/a3.jpg"]);
    world.run("p/a?.jpg -s 8 -o out").exits(0);
    assert_eq!(world.tree("out"), ["a1.jpg", "a2.jpg"]);
    world.run("p/**/a[13].jpg -s 8 -o deep").exits(0);
    assert_eq!(world.tree("deep"), ["a1.jpg", "sub/a3.jpg"]);
    world.run("p/* -s 8 -o star").exits(0);
    assert_eq!(
        world.tree("star"),
        ["a1.jpg", "a2.jpg", "b1.jpg", "sub/a3.jpg"]
    );
    for all in ["p/**", "p/**/", "./p/**/*"] {
        let run = world.run(&format!("{all} -s 8 -o all")).exits(0);
        assert_eq!(run.lines().len(), 4, "{all}");
        assert_eq!(world.tree("all"), world.tree("star"), "{all}");
    }
    world.run("p/*/ -s 8 -o folders").exits(0);
    assert_eq!(world.tree("folders"), ["sub/a3.jpg"]);
    let here = world.run("?/a?.jpg -s 8 -o here -n").exits(0);
    assert_eq!(here.lines(), ["here/p/a1.jpg", "here/p/a2.jpg"]);
    for none in ["p/*/b?.jpg", "none/*.jpg", "p/a1.jpg/*", "p/a1.jpg/**"] {
        world
            .run(&format!("{none} -s 8 -o none"))
            .exits(2)
            .says(&[none, "no file matches"]);
    }
    for negated in ["p/[!b]1.jpg", "p/[^b]1.jpg"] {
        let run = world.run(&format!("{negated} -s 8 -o none -n")).exits(0);
        assert_eq!(run.lines(), ["none/a1.jpg"], "{negated}");
    }
    world
        .run("p/a** -s 8 -o none")
        .exits(2)
        .says(&["p/a**", "not a valid glob"]);
}

#[test]
fn a_glob_searches_only_where_something_may_match_and_reports_unreadable_folders() {
    let world = World::new();
    world.photos(&["p/a/x.jpg", "p/b/x.jpg", "p/closed/x.jpg"]);
    world.mode("p/closed", 0);
    let run = world.finish(world.command_without_privilege("p/?/*.jpg -s 8 -o out"));
    assert_eq!(run.exits(0).lines(), ["out/a/x.jpg", "out/b/x.jpg"]);
    for glob in ["p/**/*.jpg", "p/*/*.jpg"] {
        let run = world.finish(world.command_without_privilege(&format!("{glob} -s 8 -o out")));
        let run = run.exits(1).says(&["p/closed", "permission denied"]);
        assert_eq!(run.errors().len(), 1, "{}", run.stderr);
        assert_eq!(run.lines(), ["out/a/x.jpg", "out/b/x.jpg"]);
    }
    world.mode("p/closed", 0o755);
}

#[test]
fn patterns_that_only_shells_support_get_a_hint() {
    let world = World::new();
    world.photos(&["p/a1.jpg", "p/{b}.jpg", "{c}.jpg"]);
    for foreign in [
        "p/{a1,a2}.jpg",
        "p/{a,b}*.jpg",
        "p/a[[:digit:]].jpg",
        "~/photos",
        "~/p/*.jpg",
    ] {
        world
            .run(&format!("{foreign} -s 8 -o out"))
            .exits(2)
            .says(&[foreign, "globs of arenite support *, ?, […] and **"]);
    }
    for missing in ["p/none.jpg", "p/none*.jpg"] {
        let run = world.run(&format!("{missing} -s 8 -o out")).exits(2);
        assert!(!run.stderr.contains("support"), "{}", run.stderr);
    }
    // An existing file with this name takes precedence.
    let run = world.run("p/{b}* {c}.jpg -s 8 -o out -n").exits(0);
    assert_eq!(run.lines(), ["out/{b}.jpg", "out/{c}.jpg"]);
}

#[test]
fn a_file_whose_name_looks_like_a_glob_is_that_file() {
    let world = World::new();
    world.photos(&["a[1].jpg", "a1.jpg"]);
    assert_eq!(
        world.run("a[1].jpg -s 8 -o out").exits(0).lines(),
        ["out/a[1].jpg"]
    );
}

#[test]
fn a_dash_reads_a_list_of_lines() {
    let world = World::new();
    world.photos(&["a.jpg", "with blank.jpg", "f/c.jpg", "other.jpg"]);
    let run = world
        .run_with_stdin("- -s 8 -o out", b"a.jpg\n\nwith blank.jpg\nf")
        .exits(0);
    assert_eq!(
        run.lines(),
        ["out/a.jpg", "out/with blank.jpg", "out/c.jpg"]
    );
}

/// Editors and programs for other systems write such lines.
#[test]
fn a_line_may_end_in_carriage_return_and_line_feed() {
    let world = World::new();
    world.photos(&["a.jpg", "b.jpg", "b.jpg\r", "f/c.jpg"]);
    let run = world
        .run_with_stdin("- -s 8 -o out", b"a.jpg\r\n\r\nb.jpg\r\nf\r\nnone.jpg\r\n")
        .exits(1)
        .says(&["none.jpg", "no such file"]);
    assert_eq!(run.errors().len(), 1, "{}", run.stderr);
    // A file with exactly this name takes precedence.
    assert_eq!(run.lines(), ["out/a.jpg", "out/b.jpg\r.jpg", "out/c.jpg"]);
    // With NUL as separator a carriage return is part of the name.
    world
        .run_with_stdin("-0 -s 8 -o out", b"a.jpg\r\0")
        .exits(2)
        .says(&["a.jpg\\r", "no such file"]);
}

/// Programs for other systems write such marks.
#[test]
fn a_list_may_start_with_a_byte_order_mark() {
    let world = World::new();
    world.photos(&["a.jpg", "b.jpg"]);
    let list = "\u{feff}a.jpg\r\nb.jpg\r\n".as_bytes();
    let run = world.run_with_stdin("- -s 8 -o out", list).exits(0);
    assert_eq!(run.lines(), ["out/a.jpg", "out/b.jpg"]);
    // A file with exactly this name takes precedence.
    world.photos(&["\u{feff}c.jpg"]);
    let list = "\u{feff}c.jpg".as_bytes();
    let run = world.run_with_stdin("- -s 8 -o out", list).exits(0);
    assert_eq!(run.lines(), ["out/\u{feff}c.jpg"]);
}

#[test]
fn the_flag_0_reads_a_list_separated_by_nul() {
    let world = World::new();
    world.photos(&["a.jpg", "line\nbreak.jpg"]);
    for line in ["-0 -s 8 -o out", "- -0 -s 8 -o out"] {
        world
            .run_with_stdin(line, b"a.jpg\0line\nbreak.jpg\0")
            .exits(0);
        assert_eq!(world.tree("out"), ["a.jpg", "line\nbreak.jpg"]);
    }
}

#[test]
fn a_walk_takes_files_by_extension_or_first_bytes_and_counts_the_rest() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/no-extension"]);
    world
        .file("p/wrong.txt", &png(9, 9))
        .file("p/notes.txt", b"BM notes")
        .file("p/empty", b"")
        .file("p/x/c.html", b"<p>");
    let run = world.run("p -s 8 -o out").exits(0);
    assert_eq!(
        world.tree("out"),
        ["a.jpg", "no-extension.jpg", "wrong.txt.png"]
    );
    assert_eq!(run.errors(), [""; 0], "skipped silently");
    assert!(run.stderr.contains("3 skipped"), "{}", run.stderr);
    let summary = world
        .run("p -s 8 -o out --json")
        .exits(0)
        .json()
        .pop()
        .unwrap();
    assert_eq!(summary["skipped"], 3);
}

#[test]
fn hidden_files_and_folders_are_skipped() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/.b.jpg", "p/.cache/c.jpg", "p/.cache/d.jpg"]);
    let run = world.run("p -s 8 -o out").exits(0);
    assert_eq!(run.lines(), ["out/a.jpg"]);
    assert!(run.stderr.contains("2 hidden"), "{}", run.stderr);
    assert_eq!(
        world.run("p/* p/**/*.jpg -s 8 -o out").exits(0).lines(),
        ["out/a.jpg"]
    );
    // A file given by name is always an input.
    world.run("p/.b.jpg p/.cache -s 8 -o named").exits(0);
    let named = [".arenite-resize", ".b.jpg", "c.jpg", "d.jpg"];
    assert_eq!(world.all("named"), named);
    // A glob matches it by its point.
    let run = world
        .run("p/.cache/c* p/.*.jpg p/.*/d.jpg -s 8 -o out")
        .exits(0);
    assert_eq!(run.lines(), ["out/c.jpg", "out/.b.jpg", "out/.cache/d.jpg"]);
}

#[test]
fn the_output_folder_is_not_an_input() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/x/b.jpg"]);
    for _ in 0..2 {
        let run = world.run("p -s 8 -o p/out").exits(0);
        assert_eq!(run.lines(), ["p/out/a.jpg", "p/out/x/b.jpg"]);
        for glob in ["p/**/*.jpg", "p/**", "p/*", "*"] {
            let run = world.run(&format!("{glob} -s 8 -o p/out")).exits(0);
            let depth = if glob == "*" { "p/out/p" } else { "p/out" };
            let made = ["a.jpg", "x/b.jpg"].map(|name| format!("{depth}/{name}"));
            assert_eq!(run.lines(), made, "{glob}");
        }
        std::fs::remove_dir_all(world.path("p/out/p")).unwrap();
    }
    assert_eq!(world.tree("p/out"), ["a.jpg", "x/b.jpg"]);
    world
        .run("p -s 8 -o p")
        .exits(2)
        .says(&["p", "output folder"]);
    world.symlink("p", "link");
    world
        .run("p -s 8 -o link")
        .exits(2)
        .says(&["p", "output folder"]);
}

/// Once there are results, a shell's `*` names their folder too.
#[test]
fn the_output_folder_among_other_inputs_is_skipped() {
    let world = World::new();
    world.photos(&["a.jpg", "x/b.jpg"]);
    let made = ["thumbs/a.jpg", "thumbs/b.jpg"];
    assert_eq!(world.run("a.jpg x -s 8 -o thumbs").exits(0).lines(), made);
    let run = world.run("a.jpg thumbs x -s 8 -o thumbs").exits(0);
    assert_eq!(run.lines(), made);
    assert!(
        run.stderr
            .contains("thumbs: skipped: it is the output folder"),
        "{}",
        run.stderr
    );
    let run = world.run("thumbs a.jpg x -s 8 -o thumbs --resume").exits(0);
    assert_eq!(run.lines(), [""; 0]);
    assert_eq!(world.tree("thumbs"), ["a.jpg", "b.jpg"]);
}

#[test]
fn files_below_the_output_folder_are_inputs_for_a_glob_and_for_a_folder() {
    let world = World::new();
    world.photos(&["photos/a.jpg", "photos/x/b.jpg", "c.jpg"]);
    for (inputs, made) in [
        ("photos", &["./a.jpg", "./x/b.jpg"][..]),
        ("photos/**/*.jpg", &["./a.jpg", "./x/b.jpg"]),
        ("photos/**", &["./a.jpg", "./x/b.jpg"]),
        ("photos/*.jpg photos/x/*.jpg", &["./a.jpg", "./b.jpg"]),
    ] {
        let run = world.run(&format!("{inputs} -s 8 -o .")).exits(0);
        assert_eq!(run.lines(), made, "{inputs}");
    }
    // The folder itself is an error under each of its names: a user who names it expects results.
    for inputs in ["*.jpg", "photos/a.jpg */a.jpg", "./**"] {
        let run = world.run(&format!("{inputs} -s 8 -o .")).exits(2);
        run.says(&[".", "is the output folder"]);
    }
    world
        .run("photos/*.jpg -s 8 -o photos")
        .exits(2)
        .says(&["photos", "is the output folder"]);
}

#[test]
fn a_mount_point_as_output_folder_is_not_an_input() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    std::fs::create_dir(world.path("p/out")).unwrap();
    let program = env!("CARGO_BIN_EXE_arenite");
    let script = format!(
        "mount -t tmpfs none p/out && {program} resize p -s 8 -o p/out && \
         {program} resize p -s 8 -o p/out && {program} resize 'p/**/*.jpg' -s 8 -o p/out"
    );
    let Some(run) = with_own_mounts(&world, &script) else {
        return;
    };
    assert_eq!(run.exits(0).lines(), ["p/out/a.jpg"; 3]);
}

#[test]
fn links_to_files_are_followed_and_links_to_folders_are_not() {
    let world = World::new();
    world.photos(&["else/a.jpg", "p/own.jpg"]);
    world
        .symlink("../else/a.jpg", "p/link.jpg")
        .symlink("../else", "p/folder")
        .symlink("..", "p/loop");
    for input in ["p", "p/*", "p/*.jpg", "p/**", "p/**/*.jpg", "p/**/*"] {
        let run = world.run(&format!("{input} -s 8 -o out")).exits(0);
        assert_eq!(run.lines(), ["out/link.jpg", "out/own.jpg"], "{input}");
    }
    for input in ["p/*/*.jpg", "p/*/p/*.jpg"] {
        let run = world.run(&format!("{input} -s 8 -o out")).exits(2);
        run.says(&[input, "no file matches"]);
    }
    // A link to a folder that is named as an input is followed.
    for input in ["p/folder", "p/folder/*.jpg", "p/folder/**/*.jpg"] {
        let run = world.run(&format!("{input} -s 8 -o named")).exits(0);
        assert_eq!(run.lines(), ["named/a.jpg"], "{input}");
        assert!(!run.stderr.contains("skipped"), "{}", run.stderr);
    }
}

#[test]
fn an_unreadable_named_input_is_an_error_and_the_rest_is_done() {
    let world = World::new();
    world.photos(&["a.jpg"]).file("notes.txt", b"hello");
    let run = world
        .run("missing.jpg a.jpg notes.txt no*such.jpg -s 8 -o out")
        .exits(1);
    assert_eq!(run.lines(), ["out/a.jpg"]);
    assert_eq!(run.errors().len(), 3, "{}", run.stderr);
    run.says(&["missing.jpg", "no such file"])
        .says(&["notes.txt", "not an image"])
        .says(&["no*such.jpg", "no file matches"]);
}

#[test]
fn an_unreadable_file_with_an_image_extension_is_an_error_in_a_walk() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    world
        .file("p/empty.png", b"")
        .file("p/page.gif", b"<html>")
        .symlink("nowhere", "p/gone.jpg")
        .symlink("nowhere", "p/gone");
    let run = world.run("p -s 8 -o out").exits(1);
    assert_eq!(run.lines(), ["out/a.jpg"]);
    assert_eq!(run.errors().len(), 3, "{}", run.stderr);
    run.says(&["p/empty.png", "empty"])
        .says(&["p/page.gif", "not an image"])
        .says(&["p/gone.jpg", "a link whose target is missing"]);
    world
        .run("p/gone -s 8 -o out")
        .exits(2)
        .says(&["p/gone", "a link whose target is missing"]);
}

#[test]
fn jpeg_2000_is_an_unsupported_format() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    world
        .file("p/b.jp2", JPEG_2000)
        .file("p/c.jpg", JPEG_2000)
        .file("p/d", JPEG_2000);
    let run = world.run("p -s 8 -o out").exits(1);
    assert_eq!(run.errors().len(), 3, "{}", run.stderr);
    assert_eq!(run.lines(), ["out/a.jpg"]);
    run.says(&["p/b.jp2", "unsupported format: JPEG 2000; convert to JPEG"])
        .says(&["p/c.jpg", "unsupported format: JPEG 2000"]);
    world
        .run("p/b.jp2 -s 8 -o alone")
        .exits(1)
        .says(&["unsupported format: JPEG 2000"]);
}

/// In a sandbox, where no library can be loaded any more once a picture has arrived.
#[test]
fn heic_is_read_where_there_is_a_decoder() {
    let world = World::new();
    world.file("p/a.heic", HEIC);
    let run = world.run("p -s 64 -o out");
    if arenite_image::heic_decoder().is_ok() {
        assert_eq!(run.exits(0).lines(), ["out/a.jpg"]);
        assert_eq!(world.sides("out/a.jpg"), (64, 42));
    } else {
        assert!(std::env::var_os("ARENITE_NEED_LIBDE265").is_none());
        run.exits(1).says(&["p/a.heic", "libde265"]);
    }
}

#[test]
fn of_raw_files_of_cameras_the_preview_is_taken_unless_refused() {
    let world = World::new();
    let preview = jpeg(64, 48);
    let mut raf = b"FUJIFILMCCD-RAW 0201".to_vec();
    raf.resize(84, 0);
    raf.extend(92u32.to_be_bytes());
    raf.extend((preview.len() as u32).to_be_bytes());
    raf.extend(preview);
    world
        .file("p/a.RAF", &raf)
        .file("p/b.PEF", b"MM\0*\0\0\0\x08\0\0");
    let run = world.run("p -s 8 -o out").exits(1);
    assert_eq!(run.lines(), ["out/a.jpg"]);
    assert_eq!((world.sides("out/a.jpg"), run.errors().len()), ((8, 6), 1));
    let note = "1 raw file of a camera: its largest preview is taken";
    assert_eq!(run.stderr.matches(note).count(), 1, "{}", run.stderr);
    run.says(&["p/b.PEF", "unsupported format: other camera raw"]);
    // The picture is whole: nothing may call it damaged.
    let run = world.run("p/a.RAF -s 80 -o large").exits(0);
    for words in ["is enlarged", "1 written, 1 of them with a warning"] {
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
    assert!(!run.stderr.contains("damage"), "{}", run.stderr);
    let run = world.run("p -s 8 -o none --raw refuse").exits(1);
    run.says(&["p/a.RAF", "unsupported format: camera raw"]);
}

#[test]
fn pictures_that_are_not_read_are_named_and_counted_by_kind() {
    let world = World::new();
    world
        .photos(&["p/a.jpg"])
        .file("p/b.psd", b"8BPS\0\x01\0\0")
        .file("p/c", b"%PDF-1.4\n")
        .file("p/d.pdf", b"%PDF-1.7\n")
        .file("p/e.svg", b"<?xml version=\"1.0\"?>\n<svg></svg>")
        .file("p/f.crw", b"II\x1a\0\0\0HEAPCCDR")
        .file("p/g.hdr", b"ENVI\ndescription = {}\n");
    let run = world.run("p -s 8 -o out").exits(1);
    assert_eq!(run.errors().len(), 5, "{}", run.stderr);
    let kinds = "5 failed, of them unsupported: 2 PDF, 1 PSD, 1 SVG, 1 other camera raw, 1 skipped";
    assert!(run.stderr.contains(kinds), "{}", run.stderr);
    run.says(&["p/c", "unsupported format: PDF"]);
    let check = || world.subcommand("check", "p --json");
    for command in [world.command("p -s 8 -o out --json"), check()] {
        let lines = world.finish(command).exits(1).json();
        assert_eq!(lines[1]["cause"], "unsupported-format");
        assert!(lines[1]["error"].as_str().unwrap().contains("PSD"));
        assert_eq!(lines[6]["unsupported"]["PDF"], 2);
    }
}

#[test]
fn excluded_files_and_folders_are_left_out() {
    let world = World::new();
    world.photos(&[
        "p/a.jpg",
        "p/a.edit.jpg",
        "p/raw/b.jpg",
        "p/x/raw/c.jpg",
        "p/x/d.jpg",
        "p/@eaDir/a.jpg/thumb.jpg",
        "p/x/__MACOSX/a.jpg",
    ]);
    let left = |line: &str, stdin: &str| {
        let line = format!("{line} -s 8 -o out -n");
        let run = world.run_with_stdin(&line, stdin.as_bytes()).exits(0);
        let names = run.stdout.replace("out/", "").replace('\n', " ");
        names.trim_end().to_owned()
    };
    assert_eq!(
        left("p", ""),
        "a.edit.jpg a.jpg raw/b.jpg x/d.jpg x/raw/c.jpg"
    );
    let flags = "--exclude *.edit.* --exclude raw";
    assert_eq!(left(&format!("p {flags}"), ""), "a.jpg x/d.jpg");
    assert_eq!(
        left("p --exclude raw/*", ""),
        "a.edit.jpg a.jpg x/d.jpg x/raw/c.jpg"
    );
    assert_eq!(
        left(&format!("p/*.jpg p/x/* p/raw/b.jpg {flags}"), ""),
        "a.jpg d.jpg"
    );
    let list = "p/a.jpg\np/raw/b.jpg\np/@eaDir/a.jpg/thumb.jpg\n";
    assert_eq!(
        left(&format!("- {flags}"), list),
        "p/a.jpg p/@eaDir/a.jpg/thumb.jpg"
    );
    // Named as inputs.
    assert_eq!(left("p/@eaDir p/@eaDir/*/*.jpg", ""), "a.jpg/thumb.jpg");
    let run = world.run("p/raw --exclude raw -s 8 -o out").exits(2);
    run.says(&["no input found: 1 is excluded"]);
    let run = world.run(&format!("p -s 8 -o out {flags}")).exits(0);
    assert!(run.stderr.contains("5 excluded"), "{}", run.stderr);
}

#[test]
fn pipes_and_devices_are_never_opened() {
    let world = World::new();
    world.photos(&["p/a.jpg"]).pipe("p/pipe.jpg");
    for line in ["p", "p/*", "p/pipe.jpg p/a.jpg"] {
        let run = world
            .run(&format!("{line} -s 8 -o out"))
            .exits(1)
            .says(&["p/pipe.jpg", "not a regular file"]);
        assert_eq!(run.errors().len(), 1, "{line}: {}", run.stderr);
        assert_eq!(run.lines().len(), 1, "{line}");
    }
}

#[test]
fn special_files_without_an_image_extension_are_counted() {
    let world = World::new();
    world
        .photos(&["p/a.jpg"])
        .pipe("p/pipe")
        .symlink("/dev/zero", "p/zero")
        // A link to a folder, whatever its name.
        .symlink("..", "p/up.jpg");
    let run = world.run("p -s 8 -o out").exits(0);
    assert!(run.stderr.contains("3 skipped"), "{}", run.stderr);
    assert_eq!(run.lines(), ["out/a.jpg"]);
}

#[test]
fn no_input_found_is_exit_code_2_and_nothing_is_written() {
    let world = World::new();
    world.file("p/notes.txt", b"hello");
    std::fs::create_dir(world.path("empty")).unwrap();
    for line in [
        "empty -s 8 -o out",
        "p -s 8 -o out",
        "missing.jpg -s 8 -o out",
        "*.gif -s 8 -o out",
    ] {
        world.run(line).exits(2).says(&["no input found"]);
    }
    world
        .run_with_stdin("- -s 8 -o out", b"")
        .exits(2)
        .says(&["no input found"]);
    // Skipped files are counted.
    let counted = |others: &str| {
        let run = world.run("p -s 8 -o out").exits(2);
        assert_eq!(run.errors(), [format!("error: no input found: {others}")]);
    };
    counted("1 file is not an image");
    world.file("p/.hidden", b"");
    counted("1 file is not an image, 1 is hidden");
    world.file("p/more.txt", b"").file("p/.more", b"");
    counted("2 files are not images, 2 are hidden");
    world.photos(&["elsewhere/a.jpg"]);
    let folder = world.path("elsewhere");
    std::os::unix::fs::symlink(folder, world.path("p/link")).unwrap();
    let link = "1 is a link to a folder (followed only if named as inputs)";
    counted(&format!("2 files are not images, {link}, 2 are hidden"));
    for name in ["p/notes.txt", "p/more.txt", "p/link"] {
        std::fs::remove_file(world.path(name)).unwrap();
    }
    counted("2 are hidden");
    assert!(!world.path("out").exists());
}

#[test]
fn a_folder_and_a_file_in_it_are_both_processed() {
    let world = World::new();
    world.file("p/a.jpg", &jpeg(20, 20));
    // One file with one result, then with two.
    for inputs in ["p p", "p p/a.jpg", "p ./p/a.jpg p/a.jpg"] {
        let run = world.run(&format!("{inputs} -s 8 -o out")).exits(0);
        assert_eq!(run.lines(), ["out/a.jpg"], "{inputs}");
    }
    let run = world.run_with_stdin("p - -s 8 -o out", b"p/a.jpg").exits(0);
    assert_eq!(run.lines(), ["out/a.jpg", "out/p/a.jpg"]);
    // An unreadable file is reported once too.
    world.file("p/b.jpg", b"broken");
    let run = world
        .run("p p p/b.jpg no*such no*such -s 8 -o out")
        .exits(1);
    assert_eq!(run.lines(), ["out/a.jpg"]);
    assert_eq!(run.errors().len(), 2, "{}", run.stderr);
}

#[test]
fn names_need_not_be_utf8() {
    let world = World::new();
    let name = OsStr::from_bytes(b"p/\xff\xfe.jpg");
    world.file("p/a.jpg", &jpeg(20, 20));
    std::fs::write(world.path("").join(name), jpeg(20, 20)).unwrap();
    world.run("p -s 8 -o out --resume").exits(0);
    assert!(
        world
            .path("out")
            .join(OsStr::from_bytes(b"\xff\xfe.jpg"))
            .exists()
    );
    assert_eq!(
        world.run("p -s 8 -o out --resume").exits(0).lines(),
        [""; 0]
    );
    let run = world
        .run_with_stdin("-0 -s 8 -o list", b"p/\xff\xfe.jpg\0")
        .exits(0);
    assert_eq!(run.lines().len(), 1);
    assert_eq!(world.run("p -s 8 -o out --json").exits(0).json().len(), 3);
    for (glob, count) in [
        (&b"p/*.jpg"[..], 2),
        (b"p/*", 2),
        (b"p/??.jpg", 1),
        (b"p/\xff?.jpg", 1),
        (b"p/**/\xff*", 1),
        (b"p/*\xfd*", 0),
    ] {
        let mut command = world.command("-s 8 -o glob");
        command.arg(OsStr::from_bytes(glob));
        let run = world.finish(command);
        assert_eq!(
            run.lines().len(),
            count,
            "{}: {}",
            glob.escape_ascii(),
            run.stderr
        );
    }
}
