//! `--shard`.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use image::ImageFormat;

use crate::begun::{PICTURES, begun, many_pictures};
use crate::world::{World, encoded, jpeg, picture, signal_group, unless_forbidden, wait};

/// Variables of schedulers, which these tests may run under.
const SCHEDULERS: [&str; 12] = [
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_COUNT",
    "SLURM_ARRAY_TASK_MIN",
    "SLURM_ARRAY_TASK_MAX",
    "SLURM_ARRAY_TASK_STEP",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_RANK",
    "PMI_SIZE",
    "JOB_COMPLETION_INDEX",
];

/// A command in an environment that has these variables of schedulers only.
fn command(world: &World, line: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = world.command(line);
    for name in SCHEDULERS {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    command
}

/// A folder `p` with different pictures at two depths, and some files that fail.
fn different_pictures(count: u32) -> World {
    let world = World::new();
    for index in 0..count {
        let image = picture(40 + index, 30);
        let (name, format) = match index % 3 {
            0 => (format!("p/{index}.jpg"), ImageFormat::Jpeg),
            1 => (format!("p/sub/{index}.png"), ImageFormat::Png),
            _ => (format!("p/sub/deep/{index}.bmp"), ImageFormat::Bmp),
        };
        world.file(&name, &encoded(&image, format));
    }
    world
}

#[track_caller]
fn assert_same_results(world: &World, folder: &str, expected: &str) {
    assert_eq!(world.tree(folder), world.tree(expected));
    for name in world.tree(folder) {
        let bytes = |folder: &str| fs::read(world.path(folder).join(&name)).unwrap();
        assert!(bytes(folder) == bytes(expected), "{name}");
    }
}

#[test]
fn shards_side_by_side_make_what_one_run_makes() {
    let world = different_pictures(60);
    world.run("p -s 16 -o whole").exits(0);
    let lines: Vec<String> = thread::scope(|threads| {
        // In the inputs, where each run must leave it alone, also if another run creates it.
        let shard = |k| command(&world, &format!("p -s 16 -o p/out --shard {k}/2"), &[]);
        let runs = [1, 2].map(|k| {
            let run = shard(k);
            threads.spawn(|| world.finish(run).exits(0))
        });
        let runs = runs.map(|run| run.join().unwrap());
        let lines = runs.iter().flat_map(|run| run.lines());
        lines.map(str::to_owned).collect()
    });
    assert_same_results(&world, "p/out", "whole");
    // Each result was made by one of them.
    assert_eq!(lines.len(), 60);
}

/// As on machines of their own: without network, and with the same process numbers.
#[test]
fn shards_on_several_machines_share_a_folder() {
    let world = different_pictures(60);
    world.run("p -s 16 -o whole").exits(0);
    let machine = |k: u32| {
        let shard = command(&world, &format!("p -s 16 -o out --shard {k}/3"), &[]);
        let mut machine = Command::new("unshare");
        let own = ["--user", "--map-root-user", "--net", "--pid", "--fork"];
        machine
            .args(own)
            .arg("--mount-proc")
            .arg(shard.get_program())
            .args(shard.get_args())
            .current_dir(world.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        machine.spawn().unwrap()
    };
    let runs = [1, 2, 3].map(machine).map(wait).map(unless_forbidden);
    for run in runs {
        let Some(run) = run else { return };
        run.exits(0);
    }
    assert_same_results(&world, "out", "whole");
}

#[test]
fn another_number_of_shards_goes_on_where_a_killed_one_ended() {
    let world = many_pictures();
    let line = |shard: &str| format!("p -s 64 -o out --resume --json --shard {shard}");
    let first = world.finish(command(&world, &line("1/2"), &[])).exits(0);
    let made = first.json().pop().unwrap()["written"].as_u64().unwrap();
    let killed = begun(command(&world, &line("2/2"), &[]));
    signal_group(killed.id(), libc::SIGKILL);
    assert_eq!(killed.ended().code, Some(128 + libc::SIGKILL));
    let names = world.tree("out");
    assert!(made < names.len() as u64 && names.len() < PICTURES);
    let modified = |name: &String| {
        let meta = fs::metadata(world.path("out").join(name)).unwrap();
        meta.modified().unwrap()
    };
    let before: Vec<_> = names.iter().map(modified).collect();

    let mut fresh = 0;
    let mut written = 0;
    for shard in ["1/3", "2/3", "3/3"] {
        let run = world.finish(command(&world, &line(shard), &[])).exits(0);
        let summary = run.json().pop().unwrap();
        assert_eq!(summary["shard"], shard);
        fresh += summary["fresh"].as_u64().unwrap();
        written += summary["written"].as_u64().unwrap();
    }
    assert_eq!(fresh + written, PICTURES as u64);
    assert_eq!(world.tree("out").len(), PICTURES);
    // The kill may have come between a result and its note.
    let after = names.iter().map(modified);
    let again = after
        .zip(&before)
        .filter(|(after, before)| after != *before);
    assert!(again.count() <= 1);
    // And one run finds the notes of all.
    let run = world.run("p -s 64 -o out --resume").exits(0);
    assert_eq!(run.lines(), [""; 0]);
}

#[test]
fn each_shard_keeps_a_record_and_knows_the_results_of_all() {
    let world = different_pictures(12);
    for k in [1, 2] {
        let line = format!("p -s 16 -o out --shard {k}/2");
        world.finish(command(&world, &line, &[])).exits(0);
    }
    let records = [1, 2].map(|k| format!(".arenite-resize-{k}-of-2"));
    assert_eq!(world.all("out")[..2], records);
    world.run("p -s 17 -o out").exits(0);
}

#[test]
fn auto_takes_what_the_scheduler_says_and_prints_it() {
    let world = different_pictures(12);
    let dry = |value: &str, environment: &[(&str, &str)]| {
        let line = format!("p -s 16 -o out -n --json --shard {value}");
        world.finish(command(&world, &line, environment)).exits(0)
    };
    let planned = |value: &str, environment: &[(&str, &str)]| {
        let mut lines = dry(value, environment).json();
        let summary = lines.pop().unwrap();
        let inputs: Vec<_> = lines
            .into_iter()
            .map(|line| line["input"].clone())
            .collect();
        assert_eq!(summary["inputs"], inputs.len());
        (summary["shard"].clone(), inputs)
    };
    let expected = planned("2/3", &[]);
    assert_eq!(expected.0, "2/3");
    assert!(!expected.1.is_empty() && expected.1.len() < 12);
    let slurm = [
        ("SLURM_ARRAY_TASK_ID", "5"),
        ("SLURM_ARRAY_TASK_COUNT", "3"),
        ("SLURM_ARRAY_TASK_MIN", "4"),
        ("SLURM_PROCID", "0"),
        ("SLURM_NTASKS", "7"),
    ];
    assert_eq!(planned("auto", &slurm), expected);
    assert_eq!(
        planned("auto", &[("PMI_RANK", "1"), ("PMI_SIZE", "3")]),
        expected
    );
    let kubernetes = [("JOB_COMPLETION_INDEX", "1")];
    assert_eq!(planned("auto/3", &kubernetes), expected);
    let run = dry("auto/3", &kubernetes);
    assert!(
        run.stderr.contains("shard 2/3: JOB_COMPLETION_INDEX is 1"),
        "{}",
        run.stderr
    );
    let run = dry("2/3", &kubernetes);
    assert!(!run.stderr.contains("shard"), "{}", run.stderr);
    // Without the flag the environment does not matter.
    let line = "p -s 16 -o out -n";
    let run = world.finish(command(&world, line, &slurm)).exits(0);
    assert_eq!(run.lines().len(), 12);
}

#[test]
fn a_wrong_shard_is_refused_with_what_is_right() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    for (value, environment, words) in [
        ("0/4", &[][..], "1/4 to 4/4"),
        ("5/4", &[], "1/4 to 4/4"),
        ("-1", &[], "K/N, such as 1/4, or auto, or auto/N"),
        ("half", &[], "K/N, such as 1/4, or auto, or auto/N"),
        ("1/0", &[], "as in 1/1"),
        ("auto", &[], "write K/N"),
        ("auto", &[("JOB_COMPLETION_INDEX", "1")], "write auto/N"),
        (
            "auto/4",
            &[("JOB_COMPLETION_INDEX", "4")],
            "below the count",
        ),
        (
            "auto",
            &[("SLURM_PROCID", "one"), ("SLURM_NTASKS", "4")],
            "SLURM_PROCID is \"one\"",
        ),
    ] {
        let line = format!("a.jpg -s 8 -o out --shard {value}");
        let run = world.finish(command(&world, &line, environment)).exits(2);
        assert!(run.stderr.contains(words), "{value}: {}", run.stderr);
        assert_eq!(run.stdout, "");
    }
    world.run("--jobs - --shard 1/2").exits(2);
    assert!(!world.path("out").exists());
}

#[test]
fn conflicts_are_found_by_each_shard_and_failures_reported_by_one() {
    let world = different_pictures(12);
    world.file("p/torn.jpg", &jpeg(64, 48)[..400]);
    world.file("p/page.jpg", b"<html>");
    world.photos(&["q/a.jpg", "q/b.jpg", "q/c.jpg", "q/c.jpeg"]);
    let (mut codes, mut refused) = (Vec::new(), Vec::new());
    let mut errors = Vec::new();
    for k in [1, 2, 3, 4] {
        let line = format!("p -s 16 -o out --shard {k}/4");
        let run = world.finish(command(&world, &line, &[]));
        codes.push(run.code.unwrap());
        errors.extend(run.errors().into_iter().map(str::to_owned));
        let line = format!("q -s 8 -o none --shard {k}/4");
        let run = world.finish(command(&world, &line, &[]));
        let conflicts = run
            .errors()
            .into_iter()
            .filter(|line| line.contains("q/c.jpeg"));
        refused.push(conflicts.count());
    }
    // Both by the shard of their name.
    refused.sort_unstable();
    assert_eq!(refused, [0, 0, 0, 2]);
    errors.sort();
    let [page, torn] = &errors[..] else {
        panic!("{errors:?}");
    };
    assert!(
        page.contains("p/page.jpg") && torn.contains("p/torn.jpg"),
        "{errors:?}"
    );
    assert!(
        codes.iter().all(|code| [0, 1].contains(code)) && codes.contains(&0),
        "{codes:?}"
    );
    // A shard may be empty.
    let line = "q/a.jpg q/b.jpg -s 8 -o few --shard";
    let made = |k: u32| {
        world
            .finish(command(&world, &format!("{line} {k}/9"), &[]))
            .exits(0)
    };
    let made: usize = (1..=9).map(|k| made(k).lines().len()).sum();
    assert_eq!((made, world.tree("few").len()), (2, 2));
}
