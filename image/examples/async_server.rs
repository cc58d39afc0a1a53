//! A service on tokio that makes thumbnails of whatever people upload:
//! `cargo run --release --example async_server [UPLOADS]`.
//!
//! Everything but the pictures happens in one thread: the event loop. Pictures are decoded in worker processes without
//! rights, each for a limited time and with limited memory. How many bytes of uploads are in hand is limited, and so is how
//! many of those are under way; who comes beyond that waits without holding up anybody. Even the copy into the arena is made
//! beside the loop. What breaks a decoder costs the request it came with.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arenite::engine::Sandbox;
use arenite::{Array, Engine, JobErrorKind};
use arenite_image::{ResizeSpec, resize_encoded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

/// The longest upload.
const MOST_BYTES: usize = 16 << 20;
/// What comes before it.
const LONGEST_HEAD: usize = 64 << 10;
/// Bytes of uploads that are in hand, from the first byte of a body to its answer: the longest fits. What is admitted is a
/// part of these; the others are still being read, or wait.
const IN_HAND: usize = 2 * MOST_BYTES;
/// For reading one upload, so that who sends nothing keeps no room from others.
const READING: Duration = Duration::from_secs(60);
/// Bytes of the requests whose pictures are under way.
const ADMITTED: usize = 8 << 20;
/// For one picture.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long whoever counts the rounds of a loop sleeps in it.
const ROUND: Duration = Duration::from_millis(1);

/// A thumbnail of a picture. Some uploads stand for what breaks decoders written in C: they hang, crash, or take all the
/// memory there is.
fn thumbnail(upload: &[u8]) -> Result<Array<u8>, String> {
    match upload {
        [b'h', b'a', b'n', b'g', ..] => loop {
            std::hint::spin_loop();
        },
        b"crash" => std::process::abort(),
        b"hoard" => return Ok(Array::from_slice(&vec![upload[0]; 64 << 30][..1])),
        _ => {}
    }
    let spec = ResizeSpec::new("128x128".parse()?);
    let small = resize_encoded(upload, &spec).map_err(|error| error.to_string())?;
    Array::try_from_slice(&small.bytes).map_err(|full| full.to_string())
}

/// What requests are answered from.
struct Service {
    engine: Engine,
    /// Bytes that may still be taken in hand.
    room: Semaphore,
    /// Each upload that was looked at, in the order of the answers.
    log: Mutex<Vec<Answered>>,
    /// How often the loop came round.
    rounds: AtomicU64,
    /// How often a loop in a thread of its own did, which has nothing else to do.
    free_rounds: AtomicU64,
}

/// An upload with its answer.
#[derive(Debug)]
struct Answered {
    status: u16,
    bytes: usize,
    /// How often the loop came round while it waited for a worker, and for what that made of it.
    rounds: u64,
    /// How often the loop with nothing to do came round meanwhile.
    free_rounds: u64,
}

impl Service {
    /// What a request is answered with, the upload being a part of it.
    async fn answer(self: &Arc<Self>, request: Vec<u8>, upload: Range<usize>) -> (u16, Vec<u8>) {
        let bytes = upload.len();
        // Megabytes are copied, into memory that may have to be fetched first: not in the loop.
        let service = Arc::clone(self);
        let copied =
            tokio::task::spawn_blocking(move || service.engine.from_slice(&request[upload]));
        let Ok(Ok(picture)) = copied.await else {
            return (503, b"no room".to_vec());
        };
        let job = self
            .engine
            .job(thumbnail, (picture,))
            .deadline(DEADLINE)
            .submit_async();
        let before = (self.rounds.load(Relaxed), self.free_rounds.load(Relaxed));
        // First until there is room for its bytes beside those of others, and then for the thumbnail.
        let answer = match job.await.await {
            Ok(picture) => (200, picture.to_vec()),
            Err(error) => {
                let status = match error.kind() {
                    JobErrorKind::Returned(_) => 422,
                    JobErrorKind::DeadlineExceeded { .. } => 504,
                    JobErrorKind::MemoryLimit { .. } => 413,
                    _ => 500,
                };
                (status, error.to_string().into_bytes())
            }
        };
        let mut log = self.log.lock().expect("nothing panics with the log");
        log.push(Answered {
            status: answer.0,
            bytes,
            rounds: self.rounds.load(Relaxed) - before.0,
            free_rounds: self.free_rounds.load(Relaxed) - before.1,
        });
        answer
    }

    /// One request: its head, `Content-Length` bytes, an answer.
    async fn serve(self: &Arc<Self>, mut peer: TcpStream) -> io::Result<()> {
        let mut request = Vec::new();
        let body = loop {
            read_some(&mut peer, &mut request).await?;
            if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if request.len() > LONGEST_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
        };
        let head = String::from_utf8_lossy(&request[..body]).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"));
        let length: Option<usize> = length.and_then(|length| length.trim().parse().ok());
        let (status, answer) = match length {
            Some(length) if length <= MOST_BYTES => {
                // Given back with the answer. Whose turn it is not yet is not read: TCP holds the client up.
                let room = self.room.acquire_many(length as u32).await;
                let _room = room.map_err(io::Error::other)?;
                let read = async {
                    while request.len() < body + length {
                        read_some(&mut peer, &mut request).await?;
                    }
                    Ok::<_, io::Error>(())
                };
                tokio::time::timeout(READING, read).await??;
                self.answer(request, body..body + length).await
            }
            Some(_) => (413, Vec::new()),
            None => (411, Vec::new()),
        };
        let head = format!(
            "HTTP/1.1 {status} \r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        peer.write_all(head.as_bytes()).await?;
        peer.write_all(&answer).await
    }
}

async fn read_some(peer: &mut TcpStream, request: &mut Vec<u8>) -> io::Result<()> {
    match peer.read_buf(request).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// A client: the status of the answer, and its body.
async fn upload(port: u16, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut peer = TcpStream::connect(("127.0.0.1", port)).await?;
    let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    peer.write_all(head.as_bytes()).await?;
    peer.write_all(body).await?;
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).await?;
    let status = answer
        .get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok());
    let status = status
        .and_then(|status| status.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    let start = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map_or(0, |end| end + 4);
    Ok((status, answer.split_off(start)))
}

/// 65 bytes that claim to be a picture of 3.6 gigapixels.
fn bomb() -> Vec<u8> {
    let side = 60_000u32.to_be_bytes();
    // Grey, eight bits, not interlaced; and pixels that end where they begin.
    let header = [&side[..], &side, &[8, 0, 0, 0, 0]].concat();
    let pixels = [0x78, 1, 3, 0, 0, 0, 0, 1];
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", &header[..]), (b"IDAT", &pixels), (b"IEND", &[])] {
        let chunk = [kind, data].concat();
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&chunk);
        png.extend(crc32(&chunk).to_be_bytes());
    }
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ ((crc & 1) * 0xedb8_8320);
    let byte = |crc: u32, &byte: &u8| (0..8).fold(crc ^ u32::from(byte), bit);
    !bytes.iter().fold(!0, byte)
}

/// The same upload with zeros behind it, which no decoder looks at.
fn padded(upload: &[u8], bytes: usize) -> Vec<u8> {
    let mut padded = upload.to_vec();
    padded.resize(bytes, 0);
    padded
}

/// Counts how often the loop it is in comes round, and returns the longest time for which it did not.
async fn count_rounds(rounds: &AtomicU64, mut over: oneshot::Receiver<()>) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while over.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
        tokio::time::sleep(ROUND).await;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        rounds.fetch_add(1, Relaxed);
    }
    longest
}

/// The loop of the service if it had nothing to do, on the same machine at the same time. It ends when the other end of
/// `over` is dropped, whoever drops it.
fn count_free_rounds(service: &Service, over: oneshot::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(count_rounds(&service.free_rounds, over));
    Ok(())
}

async fn run(engine: Engine, uploads: usize) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let service = Arc::new(Service {
        engine,
        room: Semaphore::new(IN_HAND),
        log: Mutex::default(),
        rounds: AtomicU64::new(0),
        free_rounds: AtomicU64::new(0),
    });
    let serving = Arc::clone(&service);
    let server = tokio::spawn(async move {
        while let Ok((peer, _)) = listener.accept().await {
            let service = Arc::clone(&serving);
            // A client that goes away ends its own request.
            tokio::spawn(async move { service.serve(peer).await.ok() });
        }
    });

    let samples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../samples"));
    let photos = ["chelsea.jpg", "rocket.jpg", "astronaut.jpg", "coffee.png"];
    let photos: Vec<_> = photos
        .iter()
        .map(|name| std::fs::read(samples.join(name)))
        .collect::<Result<_, _>>()?;
    let hang = padded(b"hang", ADMITTED / 4 * 3);
    let large = padded(&photos[0], ADMITTED / 2);
    let torn = photos[0][..photos[0].len() / 2].to_vec();
    let others = [
        b"crash".to_vec(),
        b"hoard".to_vec(),
        torn,
        b"no picture".to_vec(),
        large.clone(),
    ];

    let (end, over) = oneshot::channel();
    let watched = Arc::clone(&service);
    let watch = tokio::spawn(async move { count_rounds(&watched.rounds, over).await });
    let (free_end, over) = oneshot::channel();
    let watched = Arc::clone(&service);
    let free = std::thread::spawn(move || count_free_rounds(&watched, over));
    let start = Instant::now();
    let send = |body: Vec<u8>| tokio::spawn(async move { upload(port, &body).await });
    // What one takes is known from the first.
    assert_eq!(send(photos[0].clone()).await??.0, 200);
    // One hangs, and the others come while it does.
    let hanging = send(hang.clone());
    while service.engine.stats().admitted < hang.len() as u64 && !hanging.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(send(photos[0].clone()).await??.0, 200);
    // A bomb is found out by its header: nothing is unpacked, and no worker is lost.
    let (status, why) = send(bomb()).await??;
    let why = String::from_utf8_lossy(&why);
    assert!(status == 422 && why.contains("3600000000 pixels"), "{why}");
    println!("422: {why}");
    let bodies = (2..uploads).map(|n| photos[n % photos.len()].clone());
    let clients: Vec<_> = bodies.chain(others).map(send).chain([hanging]).collect();
    let mut answers = BTreeMap::from([(200, 2), (422, 1)]);
    for client in clients {
        let (status, body) = client.await??;
        *answers.entry(status).or_insert(0) += 1;
        if status != 200 {
            println!("{status}: {}", String::from_utf8_lossy(&body));
        }
    }
    let took = start.elapsed();
    drop((end, free_end));
    let longest = watch.await?;
    free.join().expect("nothing panics there")?;
    server.abort();

    // A hoard; a bomb, a torn picture and none at all; a crash; a hang. Nothing else was lost.
    let expected = [(200, uploads + 1), (413, 1), (422, 3), (500, 1), (504, 1)];
    assert_eq!(answers, BTreeMap::from(expected));
    let log = service.log.lock().expect("nothing panics with the log");
    let answered = |status, bytes| {
        let mut log = log.iter();
        log.position(|entry| (entry.status, entry.bytes) == (status, bytes))
    };
    // The loop never waits for a worker: others were answered before the one that hung for all its time.
    let hung = answered(504, hang.len()).expect("it has been answered");
    let before = log[..hung]
        .iter()
        .filter(|entry| entry.status == 200)
        .count();
    assert!(before > 1, "nobody was served beside what hangs: {log:?}");
    // And it came round all the time, although a picture was being decoded: about as often as one that has nothing to do. A
    // busy machine holds up both. Blocked by a job or two, it would hardly come round at all.
    let Answered {
        rounds,
        free_rounds,
        ..
    } = log[hung];
    assert!(
        free_rounds > 0 && rounds * 4 >= free_rounds,
        "{rounds} of {free_rounds} times"
    );
    // Together these are more than is admitted: one had to wait, and whoever came after it.
    assert!(
        answered(200, large.len()) > Some(hung),
        "they were under way at the same time: {log:?}"
    );
    let replaced = service.engine.stats().restarts();
    assert_eq!(
        replaced, 3,
        "the hang, the crash and the hoard took a worker each"
    );
    println!(
        "{} thumbnails, {before} of them while one hung, and {} failures in {took:.1?}; {replaced} workers were replaced",
        answers[&200],
        log.len() - answers[&200],
    );
    println!(
        "the loop came round {rounds} times while it hung, a free one {free_rounds} times, after {longest:.1?} at the latest"
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // First of all: before the runtime.
    arenite::init();
    let uploads = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let engine = Engine::builder()
        .workers(2)
        .capacity(256 << 20)
        .sandbox(Sandbox::Strict)
        .memory_limit(512 << 20)
        .admission(ADMITTED as u64)
        .on_log(|_| {})
        .build()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(engine, uploads.unwrap_or(40).max(2)))
}
