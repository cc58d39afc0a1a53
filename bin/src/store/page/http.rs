//! The part of HTTP/1.1 that the page needs: one request and one response for each connection.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::address::Stream;

/// Maximum length in bytes of a request line with its headers.
const MAX_HEAD: usize = 8 << 10;
const MAX_HEADERS: usize = 64;
/// The maximum number of bytes of a request's body that are read and dropped, so that the client gets the response and
/// not a reset.
const MAX_IGNORED: usize = 64 << 10;

/// The time limit for receiving a request, however slowly its client sends it.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// The time limit for sending a response.
const RESPONSE_LIMIT: Duration = Duration::from_secs(10);
/// The time limit for the client to close the connection after its response.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// A status code with its text.
pub(super) type Status = (u16, &'static str);

pub(super) const OK: Status = (200, "OK");
pub(super) const BAD_REQUEST: Status = (400, "Bad Request");
pub(super) const FORBIDDEN: Status = (403, "Forbidden");
pub(super) const NOT_FOUND: Status = (404, "Not Found");
pub(super) const METHOD_NOT_ALLOWED: Status = (405, "Method Not Allowed");
pub(super) const TIMEOUT: Status = (408, "Request Timeout");
pub(super) const TOO_LARGE: Status = (431, "Request Header Fields Too Large");
pub(super) const UNAVAILABLE: Status = (503, "Service Unavailable");

/// The parts of a request that the page uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub method: String,
    /// The target without its query.
    pub path: String,
    /// The parameter `token` of the query.
    pub query_token: Option<String>,
    /// The token of the header `Authorization: Bearer`.
    pub bearer_token: Option<String>,
    /// The header `Host`. `None` if it is missing or occurs more than once.
    pub host: Option<String>,
}

impl Request {
    /// Parses the bytes received so far. `None` if the request is not complete.
    fn parse(bytes: &[u8]) -> Result<Option<Request>, Status> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
            Err(_) => return Err(BAD_REQUEST),
        }
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Err(BAD_REQUEST);
        };
        if !target.starts_with('/') {
            return Err(BAD_REQUEST);
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let values = |name: &str| -> Vec<String> {
            let named = parsed
                .headers
                .iter()
                .filter(|header| header.name.eq_ignore_ascii_case(name));
            named
                .map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
                .collect()
        };
        let only = |mut values: Vec<String>| match values.len() {
            1 => values.pop(),
            _ => None,
        };
        let bearer = only(values("authorization"));
        Ok(Some(Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query_token: query
                .split('&')
                .find_map(|pair| pair.strip_prefix("token="))
                .map(str::to_owned),
            bearer_token: bearer
                .as_deref()
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim().to_owned()),
            host: only(values("host")),
        }))
    }

    /// Returns whether the client addressed this machine by a name that no other machine can have. Any other name may
    /// be registered to resolve to 127.0.0.1; then its owner's web pages could read this page (DNS rebinding).
    pub(super) fn is_for_this_machine(&self) -> bool {
        let Some(host) = &self.host else { return false };
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, rest)) => (
                name,
                rest.strip_prefix(':').or((rest.is_empty()).then_some("0")),
            ),
            None => match host.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (host.as_str(), Some("0")),
            },
        };
        let is_loopback = name.eq_ignore_ascii_case("localhost")
            || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        is_loopback && port.is_some_and(|port| port.parse::<u16>().is_ok())
    }
}

/// Reads one request.
///
/// # Errors
///
/// The status of the response to send; `None` if the client has disconnected.
pub(super) fn read_request(stream: &mut Stream) -> Result<Request, Option<Status>> {
    let end = Instant::now() + REQUEST_LIMIT;
    let mut bytes = [0; MAX_HEAD];
    let mut len = 0;
    loop {
        let some = match read_until(stream, &mut bytes[len..], end) {
            Ok(0) => return Err(None),
            Ok(some) => some,
            Err(error) if is_timeout(&error) => return Err(Some(TIMEOUT)),
            Err(_) => return Err(None),
        };
        len += some;
        match Request::parse(&bytes[..len]) {
            Ok(Some(request)) => return Ok(request),
            Ok(None) if len == MAX_HEAD => return Err(Some(TOO_LARGE)),
            Ok(None) => {}
            Err(status) => return Err(Some(status)),
        }
    }
}

/// A response. Its headers forbid caches, frames, and everything that the policy does not allow.
#[derive(Debug)]
pub(super) struct Response<'a> {
    pub status: Status,
    pub content_type: &'static str,
    /// The header `Content-Security-Policy`.
    pub policy: &'a str,
    pub body: &'a [u8],
}

/// Sends a response, without its body if `is_head`, and closes the connection.
pub(super) fn respond(mut stream: Stream, response: &Response<'_>, is_head: bool) {
    let Response {
        status: (code, text),
        content_type,
        policy,
        body,
    } = response;
    let head = format!(
        "HTTP/1.1 {code} {text}\r\n\
         Content-Type: {content_type}\r\n\
         Content-Length: {}\r\n\
         Content-Security-Policy: {policy}\r\n\
         Cache-Control: no-store\r\n\
         Referrer-Policy: no-referrer\r\n\
         X-Content-Type-Options: nosniff\r\n\
         X-Frame-Options: DENY\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\n\
         {}\
         Connection: close\r\n\r\n",
        body.len(),
        if *code == METHOD_NOT_ALLOWED.0 {
            "Allow: GET, HEAD\r\n"
        } else {
            ""
        },
    );
    let end = Instant::now() + RESPONSE_LIMIT;
    let body = if is_head { &[] } else { *body };
    let sent = write_until(&mut stream, head.as_bytes(), end)
        .and_then(|()| write_until(&mut stream, body, end))
        .and_then(|()| stream.finish());
    if sent.is_err() {
        return;
    }
    // If bytes are unread, closing resets the connection, and the client might lose the response.
    let end = Instant::now() + CLOSE_LIMIT;
    let mut bytes = [0; 4096];
    let mut ignored = 0;
    while let Ok(some @ 1..) = read_until(&mut stream, &mut bytes, end) {
        ignored += some;
        if ignored > MAX_IGNORED {
            return;
        }
    }
}

/// Reads once, or fails with a timeout at `end`.
fn read_until(stream: &mut Stream, bytes: &mut [u8], end: Instant) -> io::Result<usize> {
    loop {
        stream.set_patience(left(end)?)?;
        match stream.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Writes all bytes, or fails with a timeout at `end`.
fn write_until(stream: &mut Stream, mut bytes: &[u8], end: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_patience(left(end)?)?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(some) => bytes = &bytes[some..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the time until `end`. Fails if no time is left: a timeout of 0 would mean no timeout.
fn left(end: Instant) -> io::Result<Duration> {
    end.checked_duration_since(Instant::now())
        .filter(|left| left.as_micros() > 0)
        .ok_or_else(|| io::ErrorKind::TimedOut.into())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Request>, Status> {
        Request::parse(text.as_bytes())
    }

    #[test]
    fn requests_are_parsed() {
        let text = "GET /data?x=1&token=ab HTTP/1.1\r\nhost: localhost\r\nAUTHORIZATION: bearer  cd \r\n\r\n";
        let request = parse(text).unwrap().unwrap();
        assert_eq!(request.method, "GET");
        assert_eq!(request.path, "/data");
        assert_eq!(request.query_token.as_deref(), Some("ab"));
        assert_eq!(request.bearer_token.as_deref(), Some("cd"));
        assert_eq!(request.host.as_deref(), Some("localhost"));
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end]), Ok(None), "{}", &text[..end]);
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in [
            "\0",
            "GET http://127.0.0.1/ HTTP/1.1\r\n\r\n",
            "GET * HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
        ] {
            assert_eq!(parse(text), Err(BAD_REQUEST), "{text:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert_eq!(parse(&many), Err(TOO_LARGE));
        let basic = parse("GET / HTTP/1.1\r\nAuthorization: Basic ab\r\n\r\n");
        assert_eq!(basic.unwrap().unwrap().bearer_token, None);
        let two = parse("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n");
        assert_eq!(two.unwrap().unwrap().host, None);
    }

    #[test]
    fn only_names_of_this_machine_are_taken() {
        let is_taken = |host: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            parse(&text).unwrap().unwrap().is_for_this_machine()
        };
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]",
            "[::1]:80",
        ] {
            assert!(is_taken(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "127.0.0.1.example.org",
            "localhost.example.org:80",
            "10.0.0.1",
            "[::2]:80",
            "::1",
            "[::1]80",
            "127.0.0.1:port",
            "localhost@example.org",
        ] {
            assert!(!is_taken(host), "{host}");
        }
    }
}
