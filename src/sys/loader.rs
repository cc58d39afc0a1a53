//! How this process was started, if Linux did not start the program's own file: by the dynamic loader, to which the
//! file was given (as bundles of programs do), or under valgrind.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::image::image;
use super::map::mapped_file;

/// What `/proc/self/exe` is.
#[derive(Debug, PartialEq, Eq)]
pub enum StartedBy {
    /// The program.
    Linux,
    /// The dynamic loader, which starts the program with these arguments, the first of which is its own name.
    Loader(Vec<CString>),
    /// Valgrind, which cannot start another process of the program.
    Valgrind,
}

/// Returns how this process was started.
pub fn started_by() -> StartedBy {
    let image = image();
    let maps = fs::read("/proc/self/maps").unwrap_or_default();
    let maps = String::from_utf8_lossy(&maps);
    // Valgrind loads a library of this name into every program.
    if maps.contains("/vgpreload_") {
        return StartedBy::Valgrind;
    }
    let code = image.text.first().filter(|_| image.is_program);
    let address = code.and_then(|text| std::ptr::NonNull::new(text.start as *mut u8));
    let program = address.and_then(mapped_file);
    let started = fs::metadata("/proc/self/exe").map(|meta| (meta.dev(), meta.ino()));
    match (program, started) {
        (Some(program), Ok(started)) if program != started => {
            let path = maps.lines().find_map(|line| path_of(line, program.1));
            path.and_then(loader_arguments)
                .map_or(StartedBy::Linux, StartedBy::Loader)
        }
        _ => StartedBy::Linux,
    }
}

/// Returns the path in a line of `/proc/self/maps`, if the file has this inode.
fn path_of(line: &str, inode: u64) -> Option<PathBuf> {
    let mut rest = line;
    let mut words = std::iter::from_fn(|| {
        let (word, more) = rest.trim_start().split_once(' ')?;
        rest = more;
        Some(word)
    });
    (words.nth(4)?.parse() == Ok(inode)).then(|| rest.trim_start().into())
}

/// Returns the arguments with which the loader starts `program`: those that it had itself, up to the program.
fn loader_arguments(program: PathBuf) -> Option<Vec<CString>> {
    let bytes = fs::read("/proc/self/cmdline").ok()?;
    let mut given = bytes.split(|&byte| byte == 0);
    let mut arguments = vec![given.next()?];
    while let Some(option) = given.next().filter(|option| option.starts_with(b"--")) {
        arguments.push(option);
        if TAKE_A_VALUE.contains(&option) {
            arguments.push(given.next()?);
        }
    }
    arguments.push(program.as_os_str().as_bytes());
    arguments
        .into_iter()
        .map(|argument| CString::new(argument).ok())
        .collect()
}

/// The options of the loaders of glibc and musl whose value is the next argument. Another form is `--option=value`.
const TAKE_A_VALUE: [&[u8]; 7] = [
    b"--library-path",
    b"--glibc-hwcaps-prepend",
    b"--glibc-hwcaps-mask",
    b"--inhibit-rpath",
    b"--audit",
    b"--preload",
    b"--argv0",
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_by_inode() {
        let line = "55d0c0a00000-55d0c0a01000 r-xp 00001000 08:01 131 /opt/my program";
        assert_eq!(path_of(line, 131), Some("/opt/my program".into()));
        assert_eq!(path_of(line, 13), None);
        assert_eq!(
            path_of("7ffd1000-7ffd2000 rw-p 00000000 00:00 0 [stack]", 7),
            None
        );
        assert_eq!(path_of("7ffd1000-7ffd2000 rw-p 00000000 00:00 0", 0), None);
    }

    #[test]
    fn this_test_was_started_by_linux() {
        assert_eq!(started_by(), StartedBy::Linux);
    }
}
