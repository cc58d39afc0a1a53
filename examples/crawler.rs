//! A polite crawler that survives bad servers: `cargo run --release --example crawler [PAGES]`.
//!
//! It follows the links of its own small web server on loopback. Some answers are slow, some are wrong, and some never
//! come. Fetching a page is an ordinary blocking function. A limiter bounds the fetches at a time and per second, a
//! deadline ends those that hang, and temporary failures are retried. The rest become dead letters.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use arenite::{Array, Backoff, Engine, JobErrorKind, JobLimit, JobOptions, Limiter, Scalar, Typed};
use bytemuck::{CheckedBitPattern, NoUninit};

/// Maximum number of requests that the server accepts at a time.
const AT_ONCE: u32 = 4;
/// Maximum number of requests that the server accepts per second.
const PER_SECOND: u32 = 400;

/// Why a page has no links. Plain data, so it reaches the caller as a value.
#[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
#[repr(u16)]
enum PageError {
    /// The head of the answer is incomplete.
    Truncated,
    /// The status is not 200.
    Missing,
    /// The body is not a list of numbers.
    Garbage,
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the answer is truncated",
            Self::Missing => "the page does not exist",
            Self::Garbage => "the page is not a list of links",
        })
    }
}

impl Scalar for PageError {}

/// Returns the links of a page. Panics if the server is busy, because `retries` repeats panics. Permanent failures are
/// errors, which are final (`retry_errors` would request a missing page again as well).
fn fetch(port: u16, page: u32) -> Result<Array<u32>, Typed<PageError>> {
    let text = get(port, page).unwrap_or_else(|error| panic!("page {page}: {error}"));
    let (status, body) = text.split_once("\r\n\r\n").ok_or(PageError::Truncated)?;
    match status.split_whitespace().nth(1) {
        Some("200") => {}
        Some("503") => panic!("page {page}: the server is busy"),
        _ => return Err(PageError::Missing.into()),
    }
    let links: Result<Vec<u32>, _> = body.split_whitespace().map(str::parse).collect();
    let links = links.map_err(|_| PageError::Garbage)?;
    Ok(Array::from_slice(&links))
}

fn get(port: u16, page: u32) -> io::Result<String> {
    let mut peer = TcpStream::connect(("127.0.0.1", port))?;
    write!(peer, "GET /{page} HTTP/1.1\r\n\r\n")?;
    let mut text = String::new();
    peer.read_to_string(&mut text)?;
    Ok(text)
}

/// The server and its statistics.
#[derive(Default)]
struct Server {
    pages: u32,
    inside: AtomicU32,
    most: AtomicU32,
    requests: AtomicU32,
    /// Pages whose first request was refused.
    busy: AtomicU32,
}

/// How the server answers for a page.
#[derive(Debug, PartialEq)]
enum Trouble {
    None,
    /// The server answers after a delay.
    Slow,
    /// The server is busy at the first request.
    BusyOnce,
    /// The page does not exist.
    Missing,
    /// The server never answers.
    Silent,
    /// The body of the answer is not a list of numbers.
    Garbage,
}

fn trouble(page: u32) -> Trouble {
    match page {
        41 => Trouble::Silent,
        n if n % 31 == 30 => Trouble::Missing,
        n if n % 37 == 36 => Trouble::Garbage,
        n if n % 11 == 10 => Trouble::Slow,
        n if n < 128 && n % 17 == 16 => Trouble::BusyOnce,
        _ => Trouble::None,
    }
}

impl Server {
    fn run(self: Arc<Self>, listener: TcpListener) {
        for peer in listener.incoming().flatten() {
            let server = Arc::clone(&self);
            // A client that disconnects ends its own request.
            thread::spawn(move || server.serve(peer).ok());
        }
    }

    fn serve(&self, mut peer: TcpStream) -> io::Result<()> {
        let mut line = String::new();
        BufReader::new(&peer).read_line(&mut line)?;
        let page = line.split(['/', ' ']).find_map(|word| word.parse().ok());
        let page: u32 = page.ok_or(io::ErrorKind::InvalidData)?;
        self.requests.fetch_add(1, SeqCst);
        self.most
            .fetch_max(self.inside.fetch_add(1, SeqCst) + 1, SeqCst);
        let answer = self.answer(&peer, page);
        // Subtract before the answer is sent: the client may send its next request at once.
        self.inside.fetch_sub(1, SeqCst);
        peer.write_all(answer?.as_bytes())
    }

    fn answer(&self, peer: &TcpStream, page: u32) -> io::Result<String> {
        let ok = "HTTP/1.1 200 OK\r\n\r\n";
        Ok(match trouble(page) {
            Trouble::Missing => "HTTP/1.1 404 Not Found\r\n\r\n".into(),
            Trouble::Garbage => format!("{ok}1 2 buckle my shoe"),
            Trouble::Silent => {
                // Waits until the client gives up.
                let _ = (&mut &*peer).read(&mut [0; 64]);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Trouble::BusyOnce if self.is_busy(page) => "HTTP/1.1 503 Busy\r\n\r\n".into(),
            trouble => {
                if trouble == Trouble::Slow {
                    thread::sleep(Duration::from_millis(30));
                }
                let links = [2 * page + 1, 2 * page + 2, page / 2];
                let links = links.map(|link| (link % self.pages).to_string());
                format!("{ok}{}", links.join(" "))
            }
        })
    }

    /// Returns true for the first request of a page.
    fn is_busy(&self, page: u32) -> bool {
        let bit = 1 << (page / 17);
        self.busy.fetch_or(bit, SeqCst) & bit == 0
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    arenite::init();
    let pages: u32 = match std::env::args().nth(1) {
        Some(count) => count.parse()?,
        None => 200,
    };
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let server = Arc::new(Server {
        pages,
        ..Server::default()
    });
    let seen = Arc::clone(&server);
    thread::spawn(move || server.run(listener));

    // Fetches wait for the server most of the time, so a worker runs several on its lanes. A fetch that exceeds its
    // deadline ends its worker, and the other fetches of the worker are retried.
    let engine = Engine::builder()
        .workers(2)
        .lanes(8)
        .co_schedule_deadlines(true)
        .capacity(64 << 20)
        .on_log(|_| {})
        .build()?;
    let polite = Limiter::new()
        .concurrency(AT_ONCE)
        .rate(PER_SECOND, Duration::from_secs(1))
        .burst(AT_ONCE);
    let start = Instant::now();
    let (mut known, mut frontier) = (BTreeSet::from([0]), vec![0]);
    let (mut fetched, mut letters) = (0, Vec::new());
    let patiently = JobOptions::new()
        .limit(&polite)
        .deadline(Duration::from_millis(800))
        .retries(2)
        .backoff(Backoff::new(
            Duration::from_millis(20),
            Duration::from_secs(1),
        ));
    while !frontier.is_empty() {
        // All pages that are one link further away. A page that fails does not affect the others.
        let report = engine
            .map(fetch, frontier.drain(..).map(|page| (port, page)))
            .options(&patiently)
            .report();
        let (links, failures) = (report.values, report.failures);
        letters.extend(failures);
        for links in links.into_iter().flatten() {
            fetched += 1;
            frontier.extend(links.iter().copied().filter(|&link| known.insert(link)));
        }
    }
    let took = start.elapsed();

    for letter in &letters {
        println!(
            "page {}, attempt {}: {}",
            letter.args.1,
            letter.error.attempt(),
            letter.error.kind()
        );
    }
    let requests = seen.requests.load(SeqCst);
    let most = seen.most.load(SeqCst);
    println!(
        "{fetched} pages by {requests} requests in {took:.1?}, at most {most} at once; {} failed",
        letters.len()
    );

    // The dead letters are the permanent failures, each with its page.
    for letter in &letters {
        let (_, page) = letter.args;
        match (trouble(page), letter.error.kind()) {
            (Trouble::Missing, JobErrorKind::Returned(error)) => {
                assert_eq!(error.value(), Some(PageError::Missing));
                assert_eq!(letter.error.attempt(), 1);
            }
            (Trouble::Garbage, JobErrorKind::Returned(error)) => {
                assert_eq!(error.value(), Some(PageError::Garbage));
                assert_eq!(letter.error.attempt(), 1);
            }
            (Trouble::Silent, JobErrorKind::Limit(JobLimit::Deadline { .. })) => {
                assert_eq!(
                    (letter.error.attempt(), letter.error.deaths().len()),
                    (3, 2)
                );
            }
            (trouble, why) => panic!("page {page}, which is {trouble:?}: {why}"),
        }
    }
    let failed: BTreeSet<u32> = letters.iter().map(|letter| letter.args.1).collect();
    let bad = |page: &u32| {
        !matches!(
            trouble(*page),
            Trouble::None | Trouble::Slow | Trouble::BusyOnce
        )
    };
    let expected: BTreeSet<u32> = known.iter().copied().filter(bad).collect();
    assert_eq!(failed, expected);
    assert_eq!(fetched + letters.len(), known.len());
    // The server may still count requests that their clients have given up: up to three, the attempts of one page.
    assert!(most <= AT_ONCE + 3, "{most} requests at once");
    let least = Duration::from_secs(1) * requests.saturating_sub(2 * AT_ONCE) / PER_SECOND;
    assert!(took >= least, "{requests} requests in {took:?}");
    Ok(())
}
