//! A temporary folder with pictures, in which the program runs.

#[path = "../../../tests/common/asked.rs"]
mod asked;
#[path = "../../../tests/common/lab/mod.rs"]
mod lab;

use std::collections::HashMap;
use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "each test binary uses a part")]
pub use asked::{first_seed, not_tried, times};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use lab::Invariant;
#[allow(unused_imports, reason = "each test binary uses a part")]
pub use lab::{Dice, End, judge, private_bytes};

/// Longer than any run here takes: only a hang reaches it.
pub const WATCHDOG: Duration = Duration::from_secs(120);

/// A temporary folder of a test. When it is dropped, `/dev/shm` must list the same names as before.
pub struct World {
    folder: tempfile::TempDir,
    before: Invariant,
}

impl Drop for World {
    fn drop(&mut self) {
        if !thread::panicking() {
            let names = self.before.names_as_before();
            names.unwrap_or_else(|why| panic!("{why}"));
        }
    }
}

/// The outcome of a run.
#[derive(Debug)]
pub struct Run {
    /// The exit code as a shell shows it: 128 plus the number of a signal that ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A picture whose pixels depend on their position.
pub fn picture(width: u32, height: u32) -> DynamicImage {
    let image = RgbImage::from_fn(width, height, |x, y| {
        Rgb([
            (x * 255 / width) as u8,
            (y * 255 / height) as u8,
            ((x ^ y) % 64) as u8,
        ])
    });
    DynamicImage::ImageRgb8(image)
}

pub fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A file of such a picture. Large ones take seconds, so each is made once.
fn file_of(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    type Files = HashMap<(u32, u32, ImageFormat), Vec<u8>>;
    static MADE: LazyLock<Mutex<Files>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let file = made.entry((width, height, format));
    file.or_insert_with(|| encoded(&picture(width, height), format))
        .clone()
}

pub fn jpeg(width: u32, height: u32) -> Vec<u8> {
    file_of(width, height, ImageFormat::Jpeg)
}

pub fn png(width: u32, height: u32) -> Vec<u8> {
    file_of(width, height, ImageFormat::Png)
}

/// A JPEG with an EXIF block that contains only an orientation.
pub fn jpeg_turned(width: u32, height: u32, orientation: u8) -> Vec<u8> {
    let plain = jpeg(width, height);
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut bytes = plain[..2].to_vec();
    bytes.extend_from_slice(&[0xff, 0xe1]);
    bytes.extend_from_slice(&(exif.len() as u16 + 2).to_be_bytes());
    bytes.extend_from_slice(&exif);
    bytes.extend_from_slice(&plain[2..]);
    bytes
}

/// A HEIC file of 180x117 pixels.
pub const HEIC: &[u8] = include_bytes!("../../../image/src/tests/pictures/heic_grid.heic");
/// The first bytes of a JPEG 2000 file.
pub const JPEG_2000: &[u8] = b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ";

/// Resets signals to their default, so that programs started from here can be ended by them. This program may have been
/// started with signals ignored (as by a shell with `&`), which child processes inherit and `arenite` respects.
fn unignore_signals() {
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the default needs no handler; nothing else in this program changes these signals.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

impl World {
    pub fn new() -> World {
        unignore_signals();
        World {
            folder: tempfile::Builder::new()
                .prefix("arenite-test-")
                .tempdir()
                .unwrap(),
            before: Invariant::before(),
        }
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn mode(&self, relative: &str, mode: u32) {
        fs::set_permissions(self.path(relative), PermissionsExt::from_mode(mode)).unwrap();
    }

    /// Makes a named pipe without a process at the other end.
    pub fn pipe(&self, relative: &str) -> &World {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let status = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(status.success(), "mkfifo is needed");
        self
    }

    /// Writes a file, and creates its folders.
    pub fn file(&self, relative: &str, bytes: &[u8]) -> &World {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    /// Writes small JPEGs under these names.
    pub fn photos(&self, relative: &[&str]) -> &World {
        let bytes = jpeg(32, 24);
        for name in relative {
            self.file(name, &bytes);
        }
        self
    }

    pub fn symlink(&self, target: impl AsRef<Path>, relative: &str) -> &World {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
        self
    }

    /// `arenite resize` with the arguments in `line`, split at blanks.
    pub fn command(&self, line: &str) -> Command {
        self.subcommand("resize", line)
    }

    /// A command of `arenite` with the arguments in `line`, split at blanks.
    pub fn subcommand(&self, name: &str, line: &str) -> Command {
        let Some(program) = option_env!("CARGO_BIN_EXE_arenite") else {
            panic!("this package does not build the command");
        };
        let mut command = Command::new(program);
        command
            .arg(name)
            .args(line.split_whitespace())
            .current_dir(self.folder.path());
        command
            .env_remove("ARENITE_WORKERS")
            .env_remove("NO_COLOR")
            .env("TERM", "xterm");
        command
    }

    /// Like [`command`](World::command), but subject to file permissions even if root runs the tests.
    pub fn command_without_privilege(&self, line: &str) -> Command {
        let command = self.command(line);
        let me = fs::metadata("/proc/self").unwrap();
        if me.uid() != 0 {
            return command;
        }
        let rights = "-dac_override,-dac_read_search";
        let mut plain = Command::new("setpriv");
        plain
            .args(["--bounding-set", rights, "--inh-caps", rights])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(self.folder.path());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => plain.env(name, value),
                None => plain.env_remove(name),
            };
        }
        plain
    }

    pub fn run(&self, line: &str) -> Run {
        self.finish(self.command(line))
    }

    pub fn run_with_stdin(&self, line: &str, stdin: &[u8]) -> Run {
        let mut command = self.command(line);
        let mut child = piped(&mut command).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        wait(child)
    }

    /// Runs a command to its end, and checks that no process of its session is left.
    pub fn finish(&self, mut command: Command) -> Run {
        let child = own_session(piped(&mut command)).spawn().unwrap();
        let id = child.id();
        let run = wait(child);
        gone(id);
        run
    }

    /// The files below `relative`, without hidden ones, sorted.
    pub fn tree(&self, relative: &str) -> Vec<String> {
        self.all(relative)
            .into_iter()
            .filter(|path| !path.split('/').any(|part| part.starts_with('.')))
            .collect()
    }

    /// The files below `relative`, including hidden ones, sorted.
    pub fn all(&self, relative: &str) -> Vec<String> {
        let root = self.path(relative);
        let mut names: Vec<String> = walkdir::WalkDir::new(&root)
            .into_iter()
            .filter_map(Result::ok)
            .filter(|entry| !entry.file_type().is_dir())
            .map(|entry| {
                entry
                    .path()
                    .strip_prefix(&root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }

    pub fn image(&self, relative: &str) -> DynamicImage {
        let bytes = fs::read(self.path(relative)).unwrap();
        image::load_from_memory(&bytes).unwrap()
    }

    pub fn sides(&self, relative: &str) -> (u32, u32) {
        let image = self.image(relative);
        (image.width(), image.height())
    }

    pub fn format(&self, relative: &str) -> ImageFormat {
        image::guess_format(&fs::read(self.path(relative)).unwrap()).unwrap()
    }
}

impl Run {
    #[track_caller]
    pub fn exits(self, code: i32) -> Run {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// The lines on stderr that report failures.
    pub fn errors(&self) -> Vec<&str> {
        self.stderr
            .lines()
            .filter(|line| line.starts_with("error:"))
            .collect()
    }

    /// Asserts that an error line contains all these words.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Run {
        let found = self
            .errors()
            .iter()
            .any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no line with {words:?} in:\n{}", self.stderr);
        self
    }

    pub fn json(&self) -> Vec<serde_json::Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn piped(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
}

/// Waits for the end of a child, with a watchdog.
pub fn wait(child: Child) -> Run {
    let output = output(child);
    Run {
        code: output
            .status
            .code()
            .or_else(|| Some(128 + output.status.signal()?)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a shell script in a new mount namespace; `None` where that is not allowed.
pub fn with_own_mounts(world: &World, script: &str) -> Option<Run> {
    let mut command = Command::new("unshare");
    command
        .args(["-r", "-m", "sh", "-c", script])
        .current_dir(world.path(""));
    unless_forbidden(world.finish(command))
}

/// The outcome of a script that mounts; `None` if it was not allowed to.
pub fn unless_forbidden(run: Run) -> Option<Run> {
    if run.stderr.contains("unshare:") || run.stderr.contains("mount:") {
        not_tried(&format!("nothing can be mounted here: {}", run.stderr));
        return None;
    }
    Some(run)
}

/// The output and status of a child.
pub fn output(child: Child) -> Output {
    let id = child.id();
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(child.wait_with_output()));
    let Ok(output) = receive.recv_timeout(WATCHDOG) else {
        // With its group, if it leads one.
        signal_group(id, libc::SIGKILL);
        signal(id, libc::SIGKILL);
        panic!("process {id} did not end in {WATCHDOG:?}");
    };
    output.unwrap()
}

#[allow(
    clippy::disallowed_methods,
    reason = "the child has not been waited for"
)]
pub fn signal(id: u32, number: i32) {
    // SAFETY: `kill` touches no memory; the child has not been waited for, so the number is still its own.
    unsafe { libc::kill(id as i32, number) };
}

/// Signals the process group that the child leads.
#[allow(
    clippy::disallowed_methods,
    reason = "its leader has not been waited for"
)]
pub fn signal_group(id: u32, number: i32) {
    // SAFETY: `kill` touches no memory; the leader has not been waited for, so the number is still its group's.
    unsafe { libc::kill(-(id as i32), number) };
}

/// The child processes of all threads of `id`.
pub fn children(id: u32) -> Vec<u32> {
    // Empty once it has ended.
    let tasks = fs::read_dir(format!("/proc/{id}/task"));
    let mut children: Vec<u32> = tasks
        .into_iter()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect();
    children.sort_unstable();
    children.dedup();
    children
}

/// Lets the program that this starts lead a session, and so a group. Each worker leads a group of its own in it.
pub fn own_session(command: &mut Command) -> &mut Command {
    let lead = || {
        // SAFETY: it takes no arguments.
        match unsafe { libc::setsid() } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: it makes a system call only.
    unsafe { command.pre_exec(lead) }
}

/// Waits until no process of the session that `id` led is left.
pub fn gone(id: u32) {
    let members = || {
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            // After the name in brackets: state, parent, group, session.
            let Some((_, rest)) = stat.rsplit_once(") ") else {
                continue;
            };
            let words: Vec<&str> = rest.split(' ').collect();
            if words[3] == id.to_string() && words[0] != "Z" {
                members.push(stat);
            }
        }
        members
    };
    wait_until("no process is left", || members().is_empty());
}

/// Polls until `holds` returns `true`, with a watchdog.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < WATCHDOG, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
