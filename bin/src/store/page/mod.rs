//! The page of `arenite serve --http`: the store and the services of this user in a browser.
//!
//! It runs on separate threads next to the store's server: one thread accepts connections, and each connection has a
//! thread for its single request. Time, bytes and the number of connections are limited, so that a client can use up no
//! more than its connection.
//!
//! Other users of this machine can connect to a loopback port, and any website can make this user's browser connect. So
//! each request needs the token of the URL, and the name of this machine as its host.

mod address;
mod data;
mod http;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub(super) use address::Address;
use address::{Listener, SocketFile, Stream};
use data::Source;
use http::{Request, Response, Status};

use crate::text::show_path;

const PAGE: &str = include_str!("page.html");
const REFUSED: &str = include_str!("refused.html");

/// The placeholder for the nonce in the pages.
const NONCE: &str = "{nonce}";

/// The maximum number of open connections.
const MAX_CONNECTIONS: usize = 16;
/// The pause after a failed attempt to listen, or to accept a connection, which fails mostly for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// The time to wait until another server frees the address.
const TAKEOVER: Duration = Duration::from_secs(1);

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// The content security policy for responses that are not pages.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// A page that is served to the end of the process. Dropping this handle removes the file of a Unix socket.
#[derive(Debug)]
pub(super) struct Page {
    url: String,
    file: Option<SocketFile>,
}

/// The state that the threads share.
#[derive(Debug)]
struct Site {
    source: Source,
    token: String,
}

impl Page {
    /// Serves the page of the store `name` at `address`.
    pub(super) fn serve(name: &str, address: &Address) -> io::Result<Page> {
        let (listener, file) = bind(address)?;
        let token = random()?;
        let url = format!("{}/?token={token}", listener.origin()?);
        let site = Arc::new(Site {
            source: Source::new(name),
            token,
        });
        thread::Builder::new()
            .name("arenite-page".to_owned())
            .spawn(move || accept(&listener, &site))?;
        Ok(Page { url, file })
    }

    /// Returns the address for a browser, with the token.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

/// Listens at `address`. A server that is ending may occupy the address for a moment after its name is free, so this
/// tries several times.
fn bind(address: &Address) -> io::Result<(Listener, Option<SocketFile>)> {
    let end = Instant::now() + TAKEOVER;
    loop {
        match Listener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}, through {}", self.url, show_path(file.path())),
            None => f.write_str(&self.url),
        }
    }
}

/// Returns 128 random bits as hexadecimal text.
fn random() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn accept(listener: &Listener, site: &Arc<Site>) {
    // Each connection has a clone, so the number of clones is that of connections.
    let slots = Arc::new(());
    loop {
        let Ok(stream) = listener.accept() else {
            thread::sleep(PAUSE);
            continue;
        };
        // If there are too many connections, the new one is closed.
        let slot = Arc::clone(&slots);
        if Arc::strong_count(&slots) > MAX_CONNECTIONS + 1 {
            continue;
        }
        let site = Arc::clone(site);
        // If no thread can be started, the connection is closed too.
        let _ = thread::Builder::new()
            .name("arenite-page".to_owned())
            .spawn(move || {
                site.answer(stream);
                drop(slot);
            });
    }
}

impl Site {
    fn answer(&self, mut stream: Stream) {
        let request = match http::read_request(&mut stream) {
            Ok(request) => request,
            Err(Some(status)) => return respond_text(stream, status, status.1, false),
            Err(None) => return,
        };
        let is_head = request.method == "HEAD";
        if !request.is_for_this_machine() {
            let text = "The page is served to 127.0.0.1, [::1] and localhost.";
            return respond_text(stream, http::FORBIDDEN, text, is_head);
        }
        if !is_head && request.method != "GET" {
            let text = "The page is read with GET and HEAD.";
            return respond_text(stream, http::METHOD_NOT_ALLOWED, text, false);
        }
        if !self.is_allowed(&request) {
            return match request.path.as_str() {
                // This page reads the token that an earlier page has stored, and loads the page again.
                "/" => respond_html(stream, http::FORBIDDEN, REFUSED, is_head),
                _ => respond_text(stream, http::FORBIDDEN, "Wrong token, or none.", is_head),
            };
        }
        match request.path.as_str() {
            "/" => respond_html(stream, http::OK, PAGE, is_head),
            "/data" => match self.source.json() {
                Ok(json) => {
                    let response = Response {
                        status: http::OK,
                        content_type: JSON,
                        policy: NOTHING,
                        body: &json,
                    };
                    http::respond(stream, &response, is_head);
                }
                Err(error) => {
                    respond_text(stream, http::UNAVAILABLE, &error.to_string(), is_head);
                }
            },
            _ => respond_text(stream, http::NOT_FOUND, "There is / and /data.", is_head),
        }
    }

    /// Returns whether the request has the right token.
    fn is_allowed(&self, request: &Request) -> bool {
        let tokens = [&request.bearer_token, &request.query_token];
        tokens
            .into_iter()
            .flatten()
            .any(|token| is_same(token, &self.token))
    }
}

/// Compares two texts in a time that does not depend on the position of the first difference.
fn is_same(one: &str, other: &str) -> bool {
    let pairs = one.bytes().zip(other.bytes());
    one.len() == other.len() && pairs.fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

fn respond_text(stream: Stream, status: Status, text: &str, is_head: bool) {
    let body = format!("{text}\n");
    let response = Response {
        status,
        content_type: TEXT,
        policy: NOTHING,
        body: body.as_bytes(),
    };
    http::respond(stream, &response, is_head);
}

/// Sends a page. The policy allows its style and script by a number that is used only once.
fn respond_html(stream: Stream, status: Status, page: &str, is_head: bool) {
    let Ok(nonce) = random() else { return };
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let body = page.replace(NONCE, &nonce);
    let response = Response {
        status,
        content_type: HTML,
        policy: &policy,
        body: body.as_bytes(),
    };
    http::respond(stream, &response, is_head);
}
