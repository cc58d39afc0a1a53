//! A service on tokio that makes thumbnails of uploads:
//! `cargo run --release --example async_server [UPLOADS]`.
//!
//! One thread runs the event loop. Pictures are decoded in sandboxed worker processes, with a time limit and a memory
//! limit each. The bytes of uploads in memory are limited, and so are those being processed; further uploads wait
//! without blocking others. The copy into the arena happens outside the loop. An upload that breaks the decoder fails
//! its own request only.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arenite::engine::Sandbox;
use arenite::{Array, Engine, JobErrorKind, JobLimit, Typed};
use arenite_image::{ImageError, ResizeSpec, Size, When, resize_encoded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

/// The maximum number of bytes of an upload.
const MAX_BYTES: usize = 16 << 20;
/// The maximum number of bytes of the head of a request.
const LONGEST_HEAD: usize = 64 << 10;
/// The maximum number of bytes of uploads in memory. An upload counts from the first byte of its body to its response;
/// the longest upload fits. The engine processes some uploads; others are still being read, or wait.
const IN_MEMORY: usize = 2 * MAX_BYTES;
/// Time limit for reading an upload: a client that sends nothing must not block others.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The maximum number of bytes of the requests that the engine processes at a time.
const ADMITTED: usize = 8 << 20;
/// The box of a thumbnail.
const THUMBNAIL: Size = Size::new(128, 128, When::Always);
/// Time limit for a picture.
const DEADLINE: Duration = Duration::from_secs(2);
/// The sleep between two ticks of a counter of loop iterations.
const TICK: Duration = Duration::from_millis(1);

/// Makes a thumbnail of a picture. Some uploads simulate bugs of decoders in C: they hang, crash, or exhaust memory.
fn thumbnail(upload: &[u8]) -> Result<Array<u8>, Typed<ImageError>> {
    match upload {
        [b'h', b'a', b'n', b'g', ..] => loop {
            std::hint::spin_loop();
        },
        b"crash" => std::process::abort(),
        b"hoard" => return Ok(Array::from_slice(&vec![upload[0]; 64 << 30][..1])),
        _ => {}
    }
    let small = resize_encoded(upload, &ResizeSpec::new(THUMBNAIL))?;
    Ok(Array::from_slice(&small.bytes))
}

/// The state of the service.
struct Service {
    engine: Engine,
    /// Bytes of uploads that may still be read.
    room: Semaphore,
    /// The processed uploads, in the order of the responses.
    log: Mutex<Vec<Answered>>,
    /// Ticks of the event loop.
    ticks: AtomicU64,
    /// Ticks of an idle loop on another thread.
    idle_ticks: AtomicU64,
}

/// A processed upload.
#[derive(Debug)]
struct Answered {
    status: u16,
    bytes: usize,
    /// Ticks of the event loop while the upload was processed.
    ticks: u64,
    /// Ticks of the idle loop in the same time.
    idle_ticks: u64,
}

impl Service {
    /// Responds to a request whose upload is at `upload`.
    async fn answer(self: &Arc<Self>, request: Vec<u8>, upload: Range<usize>) -> (u16, Vec<u8>) {
        let bytes = upload.len();
        // This copies megabytes, possibly into memory that is not mapped yet, so it runs outside the event loop.
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
        let before = (self.ticks.load(Relaxed), self.idle_ticks.load(Relaxed));
        // Waits for admission, then for the thumbnail.
        let answer = match job.await.await {
            Ok(picture) => (200, picture.to_vec()),
            Err(error) => {
                // The error that the kernel has returned arrives as a value of its own type.
                let status = match (error.returned(), error.kind()) {
                    (Some(ImageError::TooManyPixels { .. } | ImageError::Bomb { .. }), _) => 413,
                    (Some(_), _) => 422,
                    (None, JobErrorKind::Limit(JobLimit::Deadline { .. })) => 504,
                    (None, JobErrorKind::Limit(JobLimit::Memory { .. })) => 413,
                    (None, _) => 500,
                };
                (status, error.to_string().into_bytes())
            }
        };
        let mut log = self.log.lock().expect("nothing panics with the log");
        log.push(Answered {
            status: answer.0,
            bytes,
            ticks: self.ticks.load(Relaxed) - before.0,
            idle_ticks: self.idle_ticks.load(Relaxed) - before.1,
        });
        answer
    }

    /// Serves one request: a head, `Content-Length` bytes, a response.
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
            Some(length) if length <= MAX_BYTES => {
                // Held until the response. Until there is room, the body is not read, and TCP slows the client down.
                let room = self.room.acquire_many(length as u32).await;
                let _room = room.map_err(io::Error::other)?;
                let read = async {
                    while request.len() < body + length {
                        read_some(&mut peer, &mut request).await?;
                    }
                    Ok::<_, io::Error>(())
                };
                tokio::time::timeout(READ_TIMEOUT, read).await??;
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

/// Uploads as a client; returns the status and the body of the response.
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

/// Returns a PNG of 65 bytes that announces 3.6 gigapixels.
fn bomb() -> Vec<u8> {
    let side = 60_000u32.to_be_bytes();
    // Grey, eight bits, not interlaced, without pixel data.
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

/// Returns the upload followed by zeros, which decoders ignore.
fn padded(upload: &[u8], bytes: usize) -> Vec<u8> {
    let mut padded = upload.to_vec();
    padded.resize(bytes, 0);
    padded
}

/// Counts the ticks of the loop it runs on; returns the longest time between two of them.
async fn count_ticks(ticks: &AtomicU64, mut over: oneshot::Receiver<()>) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while over.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
        tokio::time::sleep(TICK).await;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        ticks.fetch_add(1, Relaxed);
    }
    longest
}

/// Counts the ticks of an idle loop on the same machine at the same time. Ends when the sender of `over` is dropped.
fn count_idle_ticks(service: &Service, over: oneshot::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(count_ticks(&service.idle_ticks, over));
    Ok(())
}

async fn run(engine: Engine, uploads: usize) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let service = Arc::new(Service {
        engine,
        room: Semaphore::new(IN_MEMORY),
        log: Mutex::default(),
        ticks: AtomicU64::new(0),
        idle_ticks: AtomicU64::new(0),
    });
    let serving = Arc::clone(&service);
    let server = tokio::spawn(async move {
        while let Ok((peer, _)) = listener.accept().await {
            let service = Arc::clone(&serving);
            // A client that disconnects ends only its own request.
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
    let watch = tokio::spawn(async move { count_ticks(&watched.ticks, over).await });
    let (free_end, over) = oneshot::channel();
    let watched = Arc::clone(&service);
    let free = std::thread::spawn(move || count_idle_ticks(&watched, over));
    let start = Instant::now();
    let send = |body: Vec<u8>| tokio::spawn(async move { upload(port, &body).await });
    // The first request shows the engine the cost of a job.
    assert_eq!(send(photos[0].clone()).await??.0, 200);
    // One upload hangs while the others arrive.
    let hanging = send(hang.clone());
    while service.engine.stats().admitted < hang.len() as u64 && !hanging.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(send(photos[0].clone()).await??.0, 200);
    // A bomb is rejected by its header: nothing is decompressed, and no worker is lost.
    let (status, why) = send(bomb()).await??;
    let why = String::from_utf8_lossy(&why);
    assert!(status == 413 && why.contains("3600000000 pixels"), "{why}");
    println!("413: {why}");
    let bodies = (2..uploads).map(|n| photos[n % photos.len()].clone());
    let clients: Vec<_> = bodies.chain(others).map(send).chain([hanging]).collect();
    let mut answers = BTreeMap::from([(200, 2), (413, 1)]);
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

    // The hoard; the bomb, the torn picture and the invalid one; the crash; the hang. All others succeeded.
    let expected = [(200, uploads + 1), (413, 2), (422, 2), (500, 1), (504, 1)];
    assert_eq!(answers, BTreeMap::from(expected));
    let log = service.log.lock().expect("nothing panics with the log");
    let answered = |status, bytes| {
        let mut log = log.iter();
        log.position(|entry| (entry.status, entry.bytes) == (status, bytes))
    };
    // The loop does not wait for a worker: other requests got responses during the hang.
    let hung = answered(504, hang.len()).expect("it has been answered");
    let before = log[..hung]
        .iter()
        .filter(|entry| entry.status == 200)
        .count();
    assert!(before > 1, "no request was served during the hang: {log:?}");
    // The loop kept running during the hang, about as often as the idle one; a busy machine slows both. If a job or two
    // had blocked the loop, it would hardly have ticked.
    let Answered {
        ticks, idle_ticks, ..
    } = log[hung];
    assert!(
        idle_ticks > 0 && ticks * 4 >= idle_ticks,
        "{ticks} of {idle_ticks} times"
    );
    // Together these uploads exceed the admission limit: one of them had to wait, with all requests after it.
    assert!(
        answered(200, large.len()) > Some(hung),
        "they were processed at the same time: {log:?}"
    );
    let replaced = service.engine.stats().restarts();
    assert_eq!(
        replaced, 3,
        "the hang, the crash and the hoard each killed a worker"
    );
    println!(
        "{} thumbnails, {before} of them during the hang, and {} failures in {took:.1?}; {replaced} workers replaced",
        answers[&200],
        log.len() - answers[&200],
    );
    println!(
        "during the hang the loop ticked {ticks} times, an idle one {idle_ticks}; the longest pause was {longest:.1?}"
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // This comes first, before the runtime starts.
    arenite::init();
    let uploads = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let engine = Engine::builder()
        .workers(2)
        .capacity(256 << 20)
        .sandbox(Sandbox::Strict)
        .memory_limit(512 << 20)
        .max_in_flight_bytes(ADMITTED as u64)
        .on_log(|_| {})
        .build()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(engine, uploads.unwrap_or(40).max(2)))
}
