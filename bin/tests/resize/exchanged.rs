//! Another program exchanges names while pictures are written: folders, files, links, temporary files, the record, the
//! output folder itself. Whatever it does, no file outside the output folder is created or changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};

use crate::world::{
    Dice, Run, World, first_seed, gone, jpeg, own_session, times, wait, with_own_mounts,
};

/// Pictures in `p/sub`; as many are in `p` itself.
const PICTURES: usize = 12;

/// The sides of results.
const SIDES: (u32, u32) = (8, 6);

/// What is exchanged: two names for each step, or none if there is nothing to exchange now.
type Step = fn(&Scene, &mut Dice) -> Option<(PathBuf, PathBuf)>;

/// What another program exchanges, by name. A job of `--jobs` knows no input but its own, by what its path leads to: with
/// inputs, only lists are disturbed.
const KINDS: [(&str, Step); 12] = [
    ("a folder and a link to another folder", |scene, _| {
        scene.pair("out/sub", "out/to-victim")
    }),
    ("a folder and a link to its inputs", |scene, _| {
        scene.pair("out/sub", "out/to-inputs")
    }),
    ("a folder in use and another folder", |scene, _| {
        scene.in_use("out/sub")?;
        scene.pair("out/sub", "victim")
    }),
    ("a folder and that of its input", |scene, _| {
        scene.in_work()?;
        scene.pair("out/sub", "p/sub")
    }),
    ("a result and a link", |scene, _| {
        scene.pair(&format!("out/{}", scene.chosen), "out/to-file")
    }),
    ("a result and its input", |scene, dice| {
        scene.in_work()?;
        let name = picture("sub", dice);
        scene.pair(&format!("out/{name}"), &format!("p/{name}"))
    }),
    ("a temporary file and a link", |scene, dice| {
        let temporary = scene.temporary(dice)?;
        Some((temporary, scene.world.path("out/to-file")))
    }),
    ("a temporary file and a result", |scene, dice| {
        let result = scene.world.path("out").join(picture("sub", dice));
        Some((scene.temporary(dice)?, result))
    }),
    ("the record and a link", |scene, _| {
        scene.pair("out/.arenite-resize", "out/to-file")
    }),
    ("a result and a hard link", |scene, _| {
        scene.pair(&format!("out/{}", scene.chosen), "out/hard")
    }),
    ("the record and a hard link", |scene, _| {
        scene.pair("out/.arenite-resize", "out/hard")
    }),
    ("the output folder in use and a link", |scene, _| {
        scene.in_use("out")?;
        scene.pair("out", "to-victim")
    }),
];

/// The pictures of a trial, and what must not change.
struct Scene {
    world: World,
    /// Whether an earlier run has written results.
    has_results: bool,
    /// The length of its record.
    noted: u64,
    /// One of the pictures.
    chosen: String,
    before: BTreeMap<PathBuf, Vec<u8>>,
}

fn picture(folder: &str, dice: &mut Dice) -> String {
    format!("{folder}/{:02}.jpg", dice.below(PICTURES as u64))
}

impl Scene {
    fn new(has_results: bool, dice: &mut Dice) -> Scene {
        let world = World::new();
        for index in 0..PICTURES {
            // Each is another file, told apart by its bytes.
            let photo = jpeg(32 + 4 * index as u32, 24 + 3 * index as u32);
            world.file(&format!("p/sub/{index:02}.jpg"), &photo);
            world.file(&format!("p/{index:02}.jpg"), &photo);
            let text = format!("precious {index}");
            world.file(&format!("victim/{index:02}.jpg"), text.as_bytes());
        }
        if has_results {
            world.run("p -s 9 -o out").exits(0);
        }
        fs::create_dir_all(world.path("out")).unwrap();
        for (name, target) in [
            ("out/to-victim", "victim"),
            ("out/to-inputs", "p/sub"),
            ("out/to-file", "victim/00.jpg"),
            ("to-victim", "victim"),
        ] {
            symlink(world.path(target), world.path(name)).unwrap();
        }
        fs::hard_link(world.path("victim/01.jpg"), world.path("out/hard")).unwrap();
        let before = outside(&world);
        let noted = fs::metadata(world.path("out/.arenite-resize")).map_or(0, |meta| meta.len());
        Scene {
            world,
            has_results,
            noted,
            chosen: picture("sub", dice),
            before,
        }
    }

    fn pair(&self, one: &str, other: &str) -> Option<(PathBuf, PathBuf)> {
        Some((self.world.path(one), self.world.path(other)))
    }

    /// Once the run has found its inputs: before, they are what their paths lead to.
    fn in_work(&self) -> Option<()> {
        let record = self.world.path("out/.arenite-resize").metadata().ok()?;
        (record.len() > self.noted).then_some(())
    }

    /// Once a folder has a result of this run: before, it is whatever has its name.
    fn in_use(&self, folder: &str) -> Option<()> {
        let mut names = fs::read_dir(self.world.path(folder)).ok()?.flatten();
        let is_result = |name: &OsStr| name.to_string_lossy().ends_with(".jpg");
        names.find(|entry| is_result(&entry.file_name()) && !self.has_results)?;
        Some(())
    }

    /// A temporary file that exists now.
    fn temporary(&self, dice: &mut Dice) -> Option<PathBuf> {
        let folder = self.world.path(["out", "out/sub"][dice.below(2) as usize]);
        let mut names = fs::read_dir(folder).ok()?.flatten();
        let found = names.find(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"));
        Some(found?.path())
    }
}

/// All that lies in the world outside `out`, with its content.
fn outside(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let root = world.path("");
    let walk = walkdir::WalkDir::new(&root).into_iter();
    let walk = walk.filter_entry(|entry| entry.path() != root.join("out"));
    walk.map(|entry| {
        let entry = entry.unwrap();
        let content = match entry.file_type() {
            kind if kind.is_dir() => b"folder".to_vec(),
            kind if kind.is_symlink() => fs::read_link(entry.path())
                .unwrap()
                .into_os_string()
                .into_encoded_bytes(),
            _ => fs::read(entry.path()).unwrap(),
        };
        (entry.into_path(), content)
    })
    .collect()
}

fn exchange(one: &Path, other: &Path) -> nix::Result<()> {
    let how = RenameFlags::RENAME_EXCHANGE;
    renameat2(AT_FDCWD, one, AT_FDCWD, other, how)
}

/// Exchanges names until `over`, then puts those outside the output folder back. Returns how often it did.
fn disturb(scene: &Scene, step: Step, dice: &mut Dice, over: &AtomicBool) -> usize {
    // Those that have not been undone by the next one.
    let mut exchanged: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        if let Some(pair) = step(scene, dice)
            && exchange(&pair.0, &pair.1).is_ok()
        {
            count += 1;
            match exchanged.last() == Some(&pair) {
                true => drop(exchanged.pop()),
                false => exchanged.push(pair),
            }
        }
        // The moment is what the trial varies; nothing depends on it.
        thread::sleep(dice.micros(0, 1500));
    }
    for (one, other) in exchanged.into_iter().rev() {
        // Fails where a name is gone. What lies outside is looked at afterwards.
        let _ = exchange(&one, &other);
    }
    count
}

/// How the pictures are made.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Run,
    Resume,
    Jobs,
}

/// Runs the command while another thread exchanges names.
fn disturbed(scene: &Scene, mode: Mode, step: Step, dice: &mut Dice) -> (Run, usize) {
    let overwrite = ["", "--overwrite"][dice.below(2) as usize];
    let flags = format!("-s 8x6 --fit fill -o out -j 2 {overwrite}");
    let mut command = scene.world.command(&match mode {
        Mode::Run => format!("p {flags} --json"),
        Mode::Resume => format!("p {flags} --json --resume"),
        Mode::Jobs => format!("--jobs - {flags}"),
    });
    let command = command.stdin(Stdio::piped());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = own_session(command).spawn().unwrap();
    let id = child.id();
    let mut stdin = child.stdin.take().unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|threads| {
        let other = threads.spawn(|| disturb(scene, step, dice, &over));
        if let Mode::Jobs = mode {
            for index in 0..PICTURES {
                for name in [format!("{index:02}.jpg"), format!("sub/{index:02}.jpg")] {
                    let job = json!({"in": format!("p/{name}"), "out": name});
                    writeln!(stdin, "{job}").unwrap();
                }
            }
        }
        drop(stdin);
        let run = wait(child);
        gone(id);
        over.store(true, Ordering::Relaxed);
        (run, other.join().unwrap())
    })
}

/// The number of results in the output folder, whatever their names.
fn results(world: &World) -> usize {
    let walk = walkdir::WalkDir::new(world.path("out")).into_iter();
    let files = walk.flatten().filter(|entry| entry.file_type().is_file());
    let images = files.filter_map(|entry| {
        image::open(entry.path())
            .ok()
            .or_else(|| guess(entry.path()))
    });
    images
        .filter(|image| (image.width(), image.height()) == SIDES)
        .count()
}

/// A picture under any name.
fn guess(path: &Path) -> Option<image::DynamicImage> {
    image::load_from_memory(&fs::read(path).ok()?).ok()
}

fn trial(name: &str, step: Step, seed: u64) -> usize {
    let mut dice = Dice::new(seed);
    let has_results = dice.below(2) == 0;
    let modes = [Mode::Run, Mode::Resume, Mode::Jobs];
    let modes = &modes[..if name.ends_with("input") { 2 } else { 3 }];
    let mode = modes[dice.below(modes.len() as u64) as usize];
    let case = format!("{name}, seed {seed}, {mode:?}, results {has_results}");
    let scene = Scene::new(has_results, &mut dice);
    let (run, exchanged) = disturbed(&scene, mode, step, &mut dice);
    let text = format!("{case}:\n{}\n{}", run.stdout, run.stderr);

    let after = outside(&scene.world);
    for (path, content) in &scene.before {
        assert!(
            after.get(path) == Some(content),
            "{path:?} has changed, {text}"
        );
    }
    let new = after.keys().find(|path| !scene.before.contains_key(*path));
    assert_eq!(new, None, "{text}");

    let lines: Vec<Value> = run.json();
    let files: Vec<&Value> = lines.iter().filter(|line| line["type"] == "file").collect();
    let with = |status: &str| files.iter().filter(|line| line["status"] == status).count();
    match (run.code, mode) {
        (Some(0), Mode::Jobs) => assert_eq!(files.len(), 2 * PICTURES, "{text}"),
        (Some(0), _) => assert_eq!(with("written") + with("fresh"), files.len(), "{text}"),
        (Some(1 | 2), Mode::Run | Mode::Resume) => assert!(!run.stderr.is_empty(), "{text}"),
        _ => panic!("exit code {:?}, {text}", run.code),
    }
    // With a result in the place of another one's temporary file, either may be the one that is renamed or removed.
    if !name.ends_with("a result") {
        assert!(results(&scene.world) >= with("written"), "{text}");
    }
    for line in files.iter().filter(|line| line["status"] == "failed") {
        let is_said = |key: &str| line[key].as_str().is_some_and(|said| !said.is_empty());
        assert!(is_said("input") && is_said("error"), "{line}, {text}");
    }
    exchanged
}

#[test]
fn whatever_is_exchanged_nothing_outside_changes() {
    let first = first_seed();
    for (name, step) in KINDS {
        let mut exchanged = 0;
        for seed in first..first + 3 * times() {
            exchanged += trial(name, step, seed);
        }
        println!("{name}: seeds from {first}, {exchanged} exchanged");
    }
}

/// What may be in the place of results, folders and the record before a run begins.
#[test]
fn hard_links_to_inputs_and_other_files_are_left_alone() {
    let scene = Scene::new(false, &mut Dice::new(1));
    let world = &scene.world;
    fs::create_dir_all(world.path("out/sub")).unwrap();
    let link = |from: &str, to: &str| fs::hard_link(world.path(from), world.path(to)).unwrap();
    link("victim/00.jpg", "out/.arenite-resize");
    link("victim/01.jpg", "out/sub/01.jpg");
    link("p/02.jpg", "out/sub/03.jpg");
    let run = world.run("p -s 16 -s 8 -o out --name {stem}.{ext}");
    run.exits(2);
    // Names that depend on sides are known only when their pictures are made.
    link("p/02.jpg", "out/04-8.jpg");
    fs::remove_file(world.path("out/sub/03.jpg")).unwrap();
    let run = world.run("p -s 8x8 -o out --fit fill --name {stem}-{width}.{ext} --resume");
    let run = run.exits(1).says(&["p/04.jpg", "would overwrite an input"]);
    assert_eq!(run.errors().len(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("not a record"), "{}", run.stderr);
    assert_eq!(outside(world), scene.before);
}

/// A record with another name, as in a backup of hard links, is copied before it is appended to.
#[test]
fn a_record_in_a_backup_stays_as_it_is() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    world.run("p -s 8 -o out --resume").exits(0);
    let record = world.path("out/.arenite-resize");
    fs::create_dir(world.path("backup")).unwrap();
    fs::hard_link(&record, world.path("backup/record")).unwrap();
    let before = fs::read(&record).unwrap();
    world.photos(&["p/b.jpg"]);
    world.run("p -s 8 -o out --resume").exits(0);
    assert_eq!(fs::read(world.path("backup/record")).unwrap(), before);
    assert!(fs::read(&record).unwrap().starts_with(&before));
    let again = world.run("p -s 8 -o out --resume").exits(0);
    assert_eq!(again.lines(), [""; 0]);
}

#[test]
fn a_job_cannot_name_the_record_or_a_temporary_file() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    world.run("p -s 8 -o out --resume").exits(0);
    let record = world.path("out/.arenite-resize");
    let before = fs::read(&record).unwrap();
    fs::hard_link(&record, world.path("out/hard.jpg")).unwrap();
    symlink(".arenite-resize", world.path("out/soft.jpg")).unwrap();
    let own = [
        ".arenite-resize",
        "./.arenite-resize",
        "sub/.arenite-resize",
        ".arenite-resize-1-of-2",
        ".ARENITE-resize",
        ".arenite-re\u{17f}ize",
        ".arenite-\u{200b}resize",
        ".arenite-1-1.tmp",
        ".arenite-1-record.tmp",
        "hard.jpg",
    ];
    let job = |out: &str| json!({"in": "p/a.jpg", "out": out}).to_string() + "\n";
    let lines: String = own.iter().map(|out| job(out)).collect();
    let absolute = job(record.to_str().unwrap());
    for (flags, lines) in [("-o out", &lines), ("", &absolute)] {
        let run = world.run_with_stdin(&format!("--jobs - -s 8 {flags}"), lines.as_bytes());
        for answer in run.exits(0).json() {
            assert_eq!(answer["cause"], "name-conflict", "{answer}");
        }
    }
    // The link is replaced, not its target.
    let flags = "--jobs - -s 8 -o out --overwrite";
    let run = world.run_with_stdin(flags, job("soft.jpg").as_bytes());
    assert_eq!(run.exits(0).json()[0]["status"], "written");
    assert_eq!(fs::read(&record).unwrap(), before);
    assert_eq!(
        world.all("out"),
        [".arenite-resize", "a.jpg", "hard.jpg", "soft.jpg"]
    );
}

#[test]
fn a_folder_mounted_in_two_places_overwrites_neither_inputs_nor_results() {
    let scene = Scene::new(false, &mut Dice::new(1));
    let world = &scene.world;
    let program = env!("CARGO_BIN_EXE_arenite");
    let within = |mount: &str, line: &str| {
        let script =
            format!("mkdir -p out/sub && mount --bind {mount} out/sub && {program} resize {line}");
        with_own_mounts(world, &script)
    };
    let Some(run) = within("p/sub", "p -s 8 -o out") else {
        return;
    };
    run.exits(2).says(&["p/sub/00.jpg", "overwritten"]);
    // Known only when the pictures are made.
    world.file("q/sub/0.jpg", &jpeg(32, 24));
    world.file("p/sub/0-8.jpg", &jpeg(16, 12));
    let line = "q p/sub/0-8.jpg -s 8 -o out --name {stem}-{width}.{ext}";
    let run = within("p/sub", line).unwrap().exits(1);
    run.says(&["q/sub/0.jpg", "would overwrite an input"]);
    world.file("r/0.jpg", &jpeg(32, 24));
    world.file("r/sub/0.jpg", &jpeg(24, 32));
    let run = within("out", "r -s 8 -o out -j 1").unwrap().exits(1);
    run.says(&["0.jpg", "mounted twice"]);
    for (path, content) in outside(world) {
        assert!(
            scene
                .before
                .get(&path)
                .is_none_or(|before| *before == content)
        );
    }
}

/// The folder of results is covered by another one once it is in use.
#[test]
fn a_mount_over_a_folder_in_use_fails_its_results() {
    let scene = Scene::new(false, &mut Dice::new(1));
    let world = &scene.world;
    // Enough to be busy when the mount is there.
    for index in 0..400 {
        let (one, other) = ("p/sub/00.jpg", format!("p/sub/more{index}.jpg"));
        fs::hard_link(world.path(one), world.path(&other)).unwrap();
    }
    let before = outside(world);
    let program = env!("CARGO_BIN_EXE_arenite");
    let script = format!(
        "mkdir -p out/sub; {program} resize p -s 8x6 --fit fill -o out -j 1 & id=$!; \
         until [ -e out/sub/00.jpg ] || ! kill -0 $id 2>/dev/null; do :; done; \
         mount --bind victim out/sub || exit 9; wait $id; code=$?; umount out/sub; exit $code"
    );
    let Some(run) = with_own_mounts(world, &script) else {
        return;
    };
    assert!([Some(0), Some(1)].contains(&run.code), "{}", run.stderr);
    if run.code == Some(1) {
        run.says(&["p/sub/", "out/sub is no longer"]);
    }
    assert_eq!(outside(world), before);
}
