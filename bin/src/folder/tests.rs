//! Compares with Linux and Rust's library, and exchanges names between two steps as another program might.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use rustix::fs::CWD;

use super::*;

/// A folder `out` with folders, files and links in it, beside a folder `outside`.
fn tree() -> (tempfile::TempDir, Folder) {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    fs::create_dir_all(out.join("a/b/c")).unwrap();
    fs::create_dir(place.path().join("outside")).unwrap();
    fs::write(out.join("a/file"), b"content").unwrap();
    for (target, name) in [
        ("a", "inside"),
        ("../outside", "up"),
        ("b/c", "a/chain"),
        ("loop", "loop"),
        ("nowhere", "broken"),
        ("/proc/self/cwd", "magic"),
    ] {
        symlink(target, out.join(name)).unwrap();
    }
    let folder = Folder::open(&out).unwrap();
    (place, folder)
}

/// Compares with Linux: `openat2` and the walk open the same folders, and refuse the same paths.
#[test]
fn the_walk_opens_what_linux_opens_beneath_a_folder() {
    let (place, folder) = tree();
    let names = [
        "a", "b", "c", "file", "inside", "up", "chain", "loop", "broken", "magic",
    ];
    let (mut opened, mut refused) = (0, 0);
    for first in names {
        for second in names {
            for path in [
                PathBuf::from(first),
                Path::new(first).join(second),
                Path::new("a").join(first).join(second),
            ] {
                let by_walk = folder.walk(&path, false);
                let by_linux = match folder.resolve(&path) {
                    Err(Errno::ENOSYS | Errno::EPERM) => return,
                    by_linux => by_linux,
                };
                let identity = |fd: &OwnedFd| Entry(fstat(fd).unwrap()).identity();
                match (&by_linux, &by_walk) {
                    (Ok(one), Ok(other)) => assert_eq!(identity(one), identity(other)),
                    (Err(_), Err(_)) => {}
                    _ => panic!("{path:?}: {by_linux:?}, {by_walk:?}"),
                }
                match by_walk {
                    Ok(_) => opened += 1,
                    Err(error) if first == "up" && path.starts_with(first) => {
                        refused += 1;
                        assert!(error.to_string().contains("out/up is a link"), "{error}");
                    }
                    Err(_) => {}
                }
            }
        }
    }
    assert!(opened > 0 && refused > 0);
    assert_eq!(
        fs::read_dir(place.path().join("outside")).unwrap().count(),
        0
    );
}

#[test]
fn folders_are_created_below_and_never_through_a_link() {
    let (place, folder) = tree();
    let deep = folder.create_below(Path::new("x/./y/z")).unwrap();
    let meta = fs::metadata(place.path().join("out/x/y/z")).unwrap();
    assert_eq!(deep.identity().unwrap(), (meta.dev(), meta.ino()));
    assert_eq!(deep.path(), place.path().join("out/x/y/z"));
    for path in [
        "up/x", "inside/x", "broken", "magic/x", "../x", "/x", "a/../x",
    ] {
        folder.create_below(Path::new(path)).unwrap_err();
    }
    assert_eq!(
        fs::read_dir(place.path().join("outside")).unwrap().count(),
        0
    );
    assert!(!place.path().join("out/a/x").exists() && !place.path().join("x").exists());
    assert!(!place.path().join("out/nowhere").exists());
}

#[test]
fn an_entry_is_what_the_library_of_rust_says() {
    let (place, folder) = tree();
    for name in ["a", "inside", "broken"] {
        let entry = folder.entry(name.as_ref()).unwrap();
        let meta = place
            .path()
            .join("out")
            .join(name)
            .symlink_metadata()
            .unwrap();
        assert_eq!(entry.identity(), (meta.dev(), meta.ino()));
        assert_eq!(entry.len(), meta.len());
        let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        assert_eq!(entry.modified(), modified);
        assert_eq!(entry.is_file(), meta.is_file());
        assert_eq!(entry.is_folder(), meta.is_dir());
        assert_eq!(entry.is_link(), meta.is_symlink());
    }
    let file = folder.entry_below(Path::new("a/file")).unwrap();
    assert!(file.is_file() && !file.has_other_names());
    for name in ["", ".", "..", "a/file", "a/"] {
        assert!(folder.entry(name.as_ref()).is_err(), "{name}");
    }
    let mut names = folder.names(|name| !name.starts_with('.')).unwrap();
    names.sort();
    assert_eq!(names, ["a", "broken", "inside", "loop", "magic", "up"]);
    let opened = folder.open_file("broken".as_ref(), OFlag::O_RDWR);
    assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

fn temporary(folder: &Arc<Folder>) -> Temporary {
    temporary_named(folder, "new")
}

fn temporary_named(folder: &Arc<Folder>, name: &str) -> Temporary {
    let name = format!("{name}.tmp");
    Temporary::create(folder, &name, OFlag::O_WRONLY).unwrap().0
}

#[test]
fn a_file_that_is_exchanged_for_a_protected_one_after_the_first_look_is_put_back() {
    let (place, folder) = tree();
    let folder = Arc::new(folder);
    let path = |name: &str| place.path().join("out").join(name);
    fs::write(path("old"), b"old").unwrap();
    fs::write(path("input"), b"input").unwrap();
    let input = fs::metadata(path("input")).unwrap().ino();
    let looks = Cell::new(0);
    let judge = |old: &Entry| {
        looks.set(looks.get() + 1);
        let is_input = old.identity().1 == input;
        if !is_input {
            // What another program may do between any two steps.
            let both = (path("old"), path("input"));
            renameat_with(CWD, &both.0, CWD, &both.1, RenameFlags::EXCHANGE).unwrap();
            return Ok(());
        }
        Err(io::Error::other("an input"))
    };
    let new = temporary(&folder);
    let error = new.place("old".as_ref(), judge).unwrap_err();
    assert_eq!((error.to_string().as_str(), looks.get()), ("an input", 2));
    assert_eq!(fs::read(path("old")).unwrap(), b"input");
    assert_eq!(fs::read(path("input")).unwrap(), b"old");
    new.remove();
    assert!(!path("new.tmp").exists());
}

#[test]
fn a_temporary_file_whose_name_another_one_took_is_reported_and_not_removed() {
    let (place, folder) = tree();
    let folder = Arc::new(folder);
    let new = temporary(&folder);
    let path = |name: &str| place.path().join("out").join(name);
    fs::rename(path("new.tmp"), path("moved")).unwrap();
    symlink("../outside/victim", path("new.tmp")).unwrap();
    let placed = new.place::<io::Error>("result".as_ref(), |_| Ok(()));
    assert!(placed.unwrap_err().to_string().contains("another program"));
    assert!(!path("result").is_symlink());
    new.remove();
    assert!(path("new.tmp").is_symlink());
    assert_eq!(
        fs::read_dir(place.path().join("outside")).unwrap().count(),
        0
    );
}

/// Runs as on a file system that supports only the plain rename.
#[test]
fn a_plain_rename_replaces_what_may_be_replaced() {
    let (place, folder) = tree();
    let folder = Arc::new(folder);
    let path = |name: &str| place.path().join("out").join(name);
    fs::write(path("input"), b"input").unwrap();
    let input = fs::metadata(path("input")).unwrap().ino();
    let judge = |old: &Entry| match old.identity().1 == input {
        true => Err(io::Error::other("an input")),
        false => Ok(()),
    };
    let new = temporary(&folder);
    let error = new.place_plainly("input".as_ref(), judge).unwrap_err();
    assert_eq!(error.to_string(), "an input");
    assert_eq!(fs::read(path("input")).unwrap(), b"input");
    for name in ["up", "result"] {
        let new = temporary_named(&folder, name);
        let placed = new.place_plainly(name.as_ref(), judge).unwrap();
        assert!(placed.is_file() && !path(name).is_symlink());
    }
    assert_eq!(
        fs::read_dir(place.path().join("outside")).unwrap().count(),
        0
    );
}

#[test]
fn names_of_own_files_are_reserved_in_any_spelling() {
    let own = [
        ".arenite-resize",
        ".arenite-resize-1-of-2",
        ".Arenite-Resize",
        ".arenite-re\u{17f}ize",
        ".aren\u{ad}ite-resize",
        &Temporary::name(2),
        &Temporary::name(Temporary::RECORD),
    ];
    for name in own {
        assert!(is_reserved(OsStr::new(name)), "{name}");
    }
    for name in ["arenite-resize", ".arenite", "a.arenite-1-1.tmp", ".jpg"] {
        assert!(!is_reserved(OsStr::new(name)), "{name}");
    }
}
