//! A service on tokio that makes thumbnails of whatever people upload:
//! `cargo run --release --features image,sandbox --example async_server [UPLOADS]`.
//!
//! Everything but the pictures happens in one thread: the event loop. Pictures are decoded in worker processes without
//! rights, each for a limited time and with limited memory; how many bytes are under way at once is limited as well, and
//! who comes beyond that waits without holding up anybody. What breaks a decoder costs the request it came with.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arenite::engine::Sandbox;
use arenite::image::{ResizeSpec, resize_encoded};
use arenite::{Array, Engine, JobErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The longest upload.
const MOST_BYTES: usize = 16 << 20;

/// A thumbnail of a picture. Some uploads stand for what breaks decoders written in C: they hang, crash, or take all the
/// memory there is.
fn thumbnail(upload: &[u8]) -> Result<Array<u8>, String> {
    match upload {
        b"hang" => loop {
            std::hint::spin_loop();
        },
        b"crash" => std::process::abort(),
        // What a bomb unpacks to.
        b"bomb" => return Ok(Array::from_slice(&vec![upload[0]; 64 << 30][..1])),
        _ => {}
    }
    let spec = ResizeSpec::new("128x128".parse()?);
    let small = resize_encoded(upload, &spec).map_err(|error| error.to_string())?;
    Array::try_from_slice(&small.bytes).map_err(|full| full.to_string())
}

/// What a request is answered with.
async fn answer(engine: &Engine, upload: &[u8]) -> (u16, Vec<u8>) {
    let Ok(upload) = engine.from_slice(upload) else {
        return (503, b"no room".to_vec());
    };
    let job = engine
        .job(thumbnail, (upload,))
        .deadline(Duration::from_secs(2))
        .submit_async();
    match job.await.await {
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
    }
}

/// One request: its head, `Content-Length` bytes, an answer.
async fn serve(mut peer: TcpStream, engine: Arc<Engine>) -> io::Result<()> {
    let mut request = Vec::new();
    let body = loop {
        if peer.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&request[..body]).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length: Option<usize> = length.and_then(|length| length.trim().parse().ok());
    let (status, answer) = match length {
        Some(length) if length <= MOST_BYTES => {
            while request.len() < body + length {
                if peer.read_buf(&mut request).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            answer(&engine, &request[body..body + length]).await
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

/// The longest time for which the loop did not come round.
async fn watch_the_loop(mut over: tokio::sync::oneshot::Receiver<()>) -> (u64, Duration) {
    let (mut rounds, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
    while over.try_recv().is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        rounds += 1;
    }
    (rounds, longest)
}

async fn run(engine: Engine, uploads: usize) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let engine = Arc::new(engine);
    let serving = Arc::clone(&engine);
    let server = tokio::spawn(async move {
        while let Ok((peer, _)) = listener.accept().await {
            let engine = Arc::clone(&serving);
            // A client that goes away ends its own request.
            tokio::spawn(async move { serve(peer, engine).await.ok() });
        }
    });

    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let photos = ["chelsea.jpg", "rocket.jpg", "astronaut.jpg", "coffee.png"];
    let photos: Vec<_> = photos
        .iter()
        .map(|name| std::fs::read(samples.join(name)))
        .collect::<Result<_, _>>()?;
    let torn = photos[0][..photos[0].len() / 2].to_vec();
    let bad = [
        b"hang".to_vec(),
        b"crash".to_vec(),
        b"bomb".to_vec(),
        torn,
        b"no picture".to_vec(),
    ];

    let (end, over) = tokio::sync::oneshot::channel();
    let watch = tokio::spawn(watch_the_loop(over));
    let start = Instant::now();
    let bodies = (0..uploads)
        .map(|n| photos[n % photos.len()].clone())
        .chain(bad);
    let clients: Vec<_> = bodies
        .map(|body| tokio::spawn(async move { upload(port, &body).await }))
        .collect();
    let mut answers = BTreeMap::new();
    for (n, client) in clients.into_iter().enumerate() {
        let (status, body) = client.await??;
        *answers.entry(status).or_insert(0) += 1;
        assert_eq!(
            n < uploads,
            status == 200,
            "upload {n}: {status}: {}",
            String::from_utf8_lossy(&body)
        );
        if status != 200 {
            println!("upload {n}: {status}: {}", String::from_utf8_lossy(&body));
        }
    }
    let took = start.elapsed();
    let _ = end.send(());
    let (rounds, longest) = watch.await?;
    server.abort();

    // A hang, a crash, a bomb; a torn picture and none at all. Nothing else was lost.
    assert_eq!(answers[&200], uploads);
    let others = [(504, 1), (500, 1), (413, 1), (422, 2)];
    assert!(
        others
            .iter()
            .all(|(status, count)| answers.get(status) == Some(count)),
        "{answers:?}"
    );
    assert!(rounds > 0, "the loop went on");
    let replaced: u64 = engine
        .stats()
        .workers
        .iter()
        .map(|worker| worker.restarts)
        .sum();
    assert_eq!(
        replaced, 3,
        "the hang, the crash and the bomb took a worker each"
    );
    println!(
        "{uploads} thumbnails and {} failures in {took:.1?}; {replaced} workers were replaced",
        others.len() + 1
    );
    println!("the loop came round {rounds} times meanwhile, after {longest:.1?} at the latest");
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
        .admission(8 << 20)
        .on_log(|_| {})
        .build()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(engine, uploads.unwrap_or(40)))
}
