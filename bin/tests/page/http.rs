//! Who gets what, and how little a client can do to others.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::world::{PATIENCE, Response, Serving, World, until};

/// A request of a browser, with other parts.
fn request(serving: &Serving, line: &str, host: &str, more: &str) -> Response {
    serving.send(&format!("{line} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"))
}

#[test]
fn each_request_needs_the_token() {
    let world = World::new();
    let serving = world.serve("127.0.0.1:0", "");
    let (host, token) = (serving.host(), serving.token());
    assert_eq!(token.len(), 32);
    let get = |target: &str, more: &str| request(&serving, &format!("GET {target}"), host, more);

    let page = get(&format!("/?token={token}"), "");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("<title>arenite</title>"));
    let nonce = page.body.split("<script nonce=\"").nth(1).unwrap();
    let nonce = nonce.split('"').next().unwrap();
    assert_eq!(nonce.len(), 32);
    let policy = page.header("content-security-policy");
    assert!(policy.contains(&format!("script-src 'nonce-{nonce}';")));
    assert!(policy.contains(&format!("style-src 'nonce-{nonce}';")));
    assert!(!page.body.contains("{nonce}") && !page.body.contains(token));
    let again = get(&format!("/?token={token}"), "");
    assert!(!again.body.contains(nonce), "a nonce is used once");

    assert_eq!(get(&format!("/data?token={token}"), "").status, 200);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    assert_eq!(get("/data", &bearer(token)).status, 200);
    assert_eq!(get("/other", &bearer(token)).status, 404);

    let wrong = token.replace(|c: char| c.is_ascii_digit(), "a") + "b";
    for token in ["", &token[1..], &token.to_uppercase(), &wrong] {
        // One without letters has no other case.
        if token != serving.token() {
            assert_eq!(get("/data", &bearer(token)).status, 403, "{token}");
            assert_eq!(get(&format!("/?token={token}"), "").status, 403, "{token}");
        }
    }
    assert_eq!(get("/data", "").status, 403);
    assert_eq!(get("/other", "").status, 403);
    let refused = get("/", "");
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("needs its token"), "{}", refused.body);
    assert!(!refused.body.contains(token));
}

#[test]
fn only_this_machine_is_a_host() {
    let world = World::new();
    let serving = world.serve("127.0.0.1:0", "");
    let line = format!("GET /data?token={}", serving.token());
    for host in [serving.host(), "localhost:1", "[::1]"] {
        assert_eq!(request(&serving, &line, host, "").status, 200, "{host}");
    }
    for host in ["example.org", "example.org:80", "192.168.1.1", ""] {
        assert_eq!(request(&serving, &line, host, "").status, 403, "{host}");
    }
    let two = request(&serving, &line, "localhost", "Host: example.org\r\n");
    assert_eq!(two.status, 403);
    assert_eq!(
        serving.send(&format!("{line} HTTP/1.0\r\n\r\n")).status,
        403
    );
}

#[test]
fn only_reading_is_a_method() {
    let world = World::new();
    let serving = world.serve("127.0.0.1:0", "");
    let (host, token) = (serving.host(), serving.token());
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "get"] {
        let mut stream = serving.connect();
        let head = format!("{method} /?token={token} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // A body that comes after the answer does not reset the connection.
        stream.peek(&mut [0]).unwrap();
        stream.write_all(&[b'x'; 30_000]).unwrap();
        let response = Response::read(stream);
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow"), "GET, HEAD");
    }
    let head = request(&serving, &format!("HEAD /?token={token}"), host, "");
    let get = request(&serving, &format!("GET /?token={token}"), host, "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), get.body.len().to_string());
    let refused = request(&serving, "HEAD /", host, "");
    assert_eq!((refused.status, refused.body.as_str()), (403, ""));
}

#[test]
fn what_is_no_request_is_answered_and_forgotten() {
    let world = World::new();
    let serving = world.serve("127.0.0.1:0", "");
    for (text, status) in [
        ("\0\0\0\0\r\n\r\n".to_owned(), 400),
        ("GET http://127.0.0.1/ HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("\x16\x03\x01\x02\0\x01\0\x01".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(9000)), 431),
        (format!("GET /{} HTTP/1.1\r\n", "b".repeat(9000)), 431),
        (format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(70)), 431),
    ] {
        assert_eq!(serving.send(&text).status, status, "{text:.40}");
    }
    // It says more than is read, and leaves without an answer.
    for _ in 0..40 {
        let mut stream = serving.connect();
        let _ = stream.write_all(&[b'a'; 100_000]);
    }
    drop(serving.connect());
    until("the page answers", || {
        // The connections above may still be closing.
        let mut stream = serving.connect();
        let line = format!(
            "GET /data?token={} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            serving.token()
        );
        let mut answer = String::new();
        stream.write_all(line.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200 OK")
    });
}

/// A client that sends a byte now and then has as little time as one that sends nothing.
#[test]
fn slow_clients_block_neither_others_nor_the_store() {
    let world = World::new();
    let serving = world.serve("127.0.0.1:0", "");
    let mut idle: Vec<TcpStream> = (0..14).map(|_| serving.connect()).collect();
    let mut slow = serving.connect();
    slow.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let dripping = thread::spawn(move || {
        let bytes = b"GET / HTTP/1.1\r\nA: "
            .iter()
            .chain(std::iter::repeat(&b'a'));
        for byte in bytes {
            slow.write_all(&[*byte]).unwrap();
            // Until the answer is there.
            match slow.peek(&mut [0]) {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
        slow.set_read_timeout(Some(PATIENCE)).unwrap();
        Response::read(slow).status
    });
    assert_eq!(serving.data()["objects_total"], 0);
    world.run("ls");
    // All sixteen are taken then, and another one closes.
    until("a connection too many closes", || {
        let mut more = serving.connect();
        more.set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        match more.read(&mut [0]) {
            Ok(0) => true,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => true,
            _ => {
                idle.push(more);
                false
            }
        }
    });
    world.run("ls");
    assert_eq!(dripping.join().unwrap(), 408);
    assert_eq!(Response::read(idle.remove(0)).status, 408);
    drop(idle);
    assert_eq!(serving.data()["objects_total"], 0);
}

/// A client that does not read what it has asked for.
#[test]
fn a_client_that_does_not_read_holds_nothing_up() {
    let world = World::new();
    let serving = world.serve("127.0.0.1:0", "");
    let store = world.store();
    let bytes = arenite::Array::from_slice(&[1_u8]);
    // More data than the buffers of a connection hold.
    for number in 0..1000 {
        store
            .put(&format!("{number}{}", "n".repeat(250)), &bytes)
            .unwrap();
    }
    let line = format!(
        "GET /data?token={} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        serving.token()
    );
    let unread: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = serving.connect();
            stream.write_all(line.as_bytes()).unwrap();
            stream
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(serving.data()["objects_total"], 1000);
    }
    drop(unread);
}

#[test]
fn addresses_that_others_reach_are_refused() {
    let world = World::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.168.1.1:80"] {
        let error = world.fails(2, &format!("serve --http {address}"));
        assert!(error.contains("other machines can reach"), "{error}");
    }
    let error = world.fails(2, "serve --http 8080");
    assert!(error.contains("it is no address"), "{error}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = world.fails(2, &format!("serve --http {address}"));
    assert!(
        error.contains(&format!(
            "error: cannot serve the page at {address}: address already in use"
        )),
        "{error}"
    );
    fs::write(world.path("file"), "mine").unwrap();
    let error = world.fails(2, "serve --http ./file");
    assert!(error.contains("it exists and is no socket"), "{error}");
    assert_eq!(fs::read(world.path("file")).unwrap(), b"mine");
    let sockets = fs::read_dir(world.path("arenite")).unwrap().count();
    assert_eq!(sockets, 0, "nothing is served, and nothing is left");
}

#[test]
fn a_unix_socket_is_for_this_user_and_goes_with_the_server() {
    let world = World::new();
    let path = world.path("page");
    let ask = |method: &str, serving: &Serving, body: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let token = serving.token();
        let line = format!("{method} /data?token={token} HTTP/1.1");
        let text = format!("{line}\r\nHost: localhost\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).unwrap();
        Response::read(stream).status
    };
    let get = |serving: &Serving| ask("GET", serving, "");
    let mut serving = world.serve("unix:page", "");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(serving.page.ends_with(", through page"), "{}", serving.page);
    assert_eq!(get(&serving), 200);
    // What is not read does not reset the connection.
    assert_eq!(ask("POST", &serving, &"x".repeat(30_000)), 405);
    let error = world.fails(2, "serve --name other --http ./page");
    assert!(error.contains("address already in use"), "{error}");
    assert_eq!(get(&serving), 200);
    // Killed, it leaves the file, which the next one replaces.
    assert_eq!(serving.signal(Signal::SIGKILL), None);
    assert!(path.exists());
    let mut serving = world.serve("./page", "");
    assert_eq!(get(&serving), 200);
    world.run("stop");
    assert_eq!(serving.ended(), Some(0));
    assert!(!path.exists());
}

#[test]
fn the_socket_is_removed_from_its_folder_and_nothing_elsewhere() {
    let world = World::new();
    for folder in ["one", "other"] {
        fs::create_dir(world.path(folder)).unwrap();
    }
    fs::write(world.path("other/page"), b"mine").unwrap();
    let mut serving = world.serve("one/page", "");
    fs::rename(world.path("one"), world.path("moved")).unwrap();
    std::os::unix::fs::symlink("other", world.path("one")).unwrap();
    world.run("stop");
    assert_eq!(serving.ended(), Some(0));
    assert!(!world.path("moved/page").exists());
    assert_eq!(fs::read(world.path("other/page")).unwrap(), b"mine");
    let error = world.fails(2, "serve --name other --http one/page");
    assert!(error.contains("it exists and is no socket"), "{error}");
}

#[test]
fn the_page_ends_with_the_server() {
    let world = World::new();
    let mut serving = world.serve("127.0.0.1:0", "");
    let _waiting = serving.connect();
    assert_eq!(serving.get("/").status, 200);
    let host = serving.host().to_owned();
    world.run("stop");
    // The port is free for the same command at once.
    let mut again = world.serve(&host, "");
    assert_eq!(serving.ended(), Some(0));
    assert_eq!((again.host(), again.get("/").status), (&*host, 200));
    assert_ne!(again.token(), serving.token());
    assert_eq!(again.signal(Signal::SIGTERM), Some(0));
    assert!(TcpStream::connect(host).is_err());
    assert_eq!(fs::read_dir(world.path("arenite")).unwrap().count(), 0);
}
