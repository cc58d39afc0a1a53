//! The servers of `examples/`, which start `arenite resize --jobs -` once: each upload has an answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use image::ImageFormat;

use crate::crc32::crc32;
use crate::world::{
    JPEG_2000, WATCHDOG, World, children, gone, jpeg, not_tried, own_session, png, signal,
    signal_group, wait,
};

const UPLOADS: usize = 500;
const CLIENTS: usize = 8;

/// A PNG whose header claims 60,000 × 60,000 pixels.
fn bomb() -> Vec<u8> {
    let mut bomb = png(8, 8);
    bomb[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    bomb
}

/// Sends an upload; returns the status and the body of the answer.
fn post(port: u16, upload: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    let head = format!(
        "POST / HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        upload.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(upload).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = answer.split_off(end.expect("the end of a head") + 4);
    let head = String::from_utf8(answer).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body)
}

/// The path with the folder of the program before all others.
fn path_with_arenite() -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_arenite"));
    let folder = program.parent().unwrap().display();
    format!("{folder}:{}", std::env::var("PATH").unwrap())
}

fn answers_each_upload(interpreter: &str, example: &str) {
    if Command::new(interpreter).arg("--version").output().is_err() {
        return not_tried(&format!("{interpreter} is missing"));
    }
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(example);
    let world = World::new();
    let mut command = Command::new(interpreter);
    command.arg(script).arg("0").current_dir(world.path(""));
    command
        .env("PATH", path_with_arenite())
        .env("TMPDIR", world.path(""));
    let mut server = own_session(&mut command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = server.id();
    let mut port = String::new();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    stdout.read_line(&mut port).unwrap();
    let port = port.trim().parse().expect("a port");
    let torn = jpeg(640, 480);
    let uploads = [
        (jpeg(640, 480), "image"),
        (png(300, 200), "image"),
        (bomb(), "too-many-pixels"),
        (torn[..torn.len() / 2].to_vec(), "truncated"),
        (b"no picture".to_vec(), "not-an-image"),
        (Vec::new(), "not-an-image"),
        (JPEG_2000.to_vec(), "unsupported-format"),
    ];
    let (next, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let client = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= UPLOADS {
                break;
            }
            if number % 100 == 50 {
                // A worker is killed from outside: the pictures it had are tried again.
                let arenite = children(id)[0];
                children(arenite)
                    .first()
                    .iter()
                    .for_each(|&&worker| signal(worker, libc::SIGKILL));
            }
            let (upload, expected) = &uploads[number % uploads.len()];
            let (status, body) = post(port, upload);
            if *expected == "image" {
                let text = String::from_utf8_lossy(&body);
                assert_eq!(status, 200, "upload {number}: {text}");
                let image = image::load_from_memory_with_format(&body, ImageFormat::Jpeg).unwrap();
                assert_eq!(image.width().max(image.height()), 224);
            } else {
                let text = String::from_utf8(body).unwrap();
                assert!(
                    status == 422 && text.starts_with(expected),
                    "upload {number}: {status} {text}"
                );
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        thread::scope(|threads| (0..CLIENTS).for_each(|_| drop(threads.spawn(client))));
    }));
    let answered = answered.into_inner();
    let number = if done.is_ok() {
        libc::SIGTERM
    } else {
        libc::SIGKILL
    };
    signal(id, number);
    let run = wait(server);
    if done.is_err() {
        signal_group(id, libc::SIGKILL);
    }
    assert_eq!(answered, UPLOADS, "{}", run.stderr);
    // With its `arenite` and the workers.
    gone(id);
    assert_eq!(world.all(""), [""; 0], "nothing is left");
}

#[test]
fn the_node_server_answers_each_upload() {
    answers_each_upload("node", "node/server.js");
}

#[test]
fn the_python_server_answers_each_upload() {
    answers_each_upload("python3", "python/server.py");
}
