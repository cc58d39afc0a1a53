//! Tests with a server on a thread of its own, and clients in this process. In tests/store both are processes, and are
//! killed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use arenite::Array;
use tempfile::TempDir;

use super::message::{Answer, Failure, FailureCode, MAX_PACKET};
use super::objects::PAGE;
use super::service::{self, ServiceErrorKind, Value};
use super::{
    Kind, Server, Store, StoreError, StoreErrorKind, StoreInfo, connect, service_status,
    socket_path,
};
use crate::sys::file;
use crate::sys::packet::PacketSocket;

/// A running server; ended on drop.
struct Running {
    folder: TempDir,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Running {
    fn new(change: impl FnOnce(Server) -> Server) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let server = change(Server::bind(&socket_in(folder.path())).unwrap());
        let thread = Some(std::thread::spawn(move || server.run()));
        Running { folder, thread }
    }

    fn connect(&self) -> Store {
        connect(&self.name()).unwrap()
    }

    fn name(&self) -> String {
        socket_in(self.folder.path())
    }

    fn ended(mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.connect().stop();
            let _ = thread.join();
        }
    }
}

fn socket_in(folder: &Path) -> String {
    folder.join("test.sock").to_str().unwrap().to_owned()
}

/// Returns the store's info. Releases have no answer, but the server handles them before this request, which follows on
/// the same connection.
fn info(store: &Store) -> StoreInfo {
    store.info().unwrap()
}

#[test]
fn arrays_come_back_as_they_were_put() {
    let running = Running::new(|server| server);
    let (one, other) = (running.connect(), running.connect());
    let small = Array::from_fn([2, 3], |i| i as f32 / 2.0);
    let large = Array::from_fn([5, 300_000], |i| i as u16);
    let empty = Array::<i64>::zeros([0, 4]);
    one.put("small", &small).unwrap();
    one.put("large", &large).unwrap();
    one.put("empty", &empty).unwrap();
    let found = other.get::<f32>("small").unwrap();
    assert_eq!((found.shape(), &found[..]), (small.shape(), &small[..]));
    let found = other.get::<u16>("large").unwrap();
    assert_eq!((found.shape(), &found[..]), (large.shape(), &large[..]));
    assert_eq!(other.get::<i64>("empty").unwrap().shape(), empty.shape());

    let names: Vec<_> = other
        .objects()
        .unwrap()
        .into_iter()
        .map(|object| object.name)
        .collect();
    assert_eq!(names, ["empty", "large", "small"]);
    let (object, bytes) = other.get_bytes("small").unwrap();
    assert_eq!(object.kind, Kind::array::<f32>([2, 3]));
    assert_eq!(bytes[..], *bytemuck::must_cast_slice::<f32, u8>(&small));
}

#[test]
fn an_object_has_one_kind() {
    let running = Running::new(|server| server);
    let store = running.connect();
    store.put("a", &Array::from_slice(&[1_i32])).unwrap();
    let error = store.get::<f32>("a").unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::WrongKind);
    assert_eq!(
        error.to_string(),
        "a is array <i4 1, and not an array of f4"
    );
    store
        .put_from("b", Kind::Bytes, &b"text"[..], false)
        .unwrap();
    assert_eq!(
        store.get::<u8>("b").unwrap_err().kind(),
        StoreErrorKind::WrongKind
    );
    assert_eq!(store.get_bytes("b").unwrap().1[..], *b"text");
}

#[test]
fn names_are_unique_until_they_are_replaced_or_removed() {
    let running = Running::new(|server| server);
    let store = running.connect();
    let old = Array::from_fn(100_000, |i| i as u8);
    store.put("a", &old).unwrap();
    let held = store.get::<u8>("a").unwrap();
    let error = store.put("a", &held).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Exists);
    assert!(
        error.to_string().contains("replace or remove it"),
        "{error}"
    );

    let draft = store.draft(Kind::array::<u8>(3), 3).unwrap();
    draft.replace("a").unwrap();
    assert_eq!(store.get::<u8>("a").unwrap()[..], [0, 0, 0]);
    assert_eq!(held[..], old[..], "who holds the old one keeps it");
    assert_eq!(info(&store).retained, 100_000);
    assert_eq!(store.remove("a").unwrap().bytes, 3);
    assert_eq!(
        store.get::<u8>("a").unwrap_err().kind(),
        StoreErrorKind::NoObject
    );
    assert_eq!(
        store.remove("a").unwrap_err().kind(),
        StoreErrorKind::NoObject
    );
    drop(held);
    let info = info(&store);
    assert_eq!((info.used, info.retained, info.objects), (0, 0, 0));
}

#[test]
fn leases_are_counted_by_client_and_end_with_it() {
    let running = Running::new(|server| server);
    let (one, other) = (running.connect(), running.connect());
    one.put("a", &Array::<u8>::zeros(70_000)).unwrap();
    let held = [other.get::<u8>("a").unwrap(), other.get::<u8>("a").unwrap()];
    let copy = held[0].clone();
    assert_eq!(one.objects().unwrap()[0].leases, 2);
    let clients = one.clients().unwrap();
    let holds: Vec<_> = clients
        .iter()
        .map(|client| (client.leases, client.bytes))
        .collect();
    assert_eq!(holds, [(0, 0), (2, 70_000)]);
    drop(held);
    other.info().unwrap();
    assert_eq!(one.objects().unwrap()[0].leases, 1, "a clone holds it");
    one.remove("a").unwrap();
    assert_eq!(info(&one).retained, 70_000);
    drop(other);
    drop(copy);
    // The server handles the release when its turn comes.
    while info(&one).used > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn leases_that_end_on_many_threads_are_each_reported() {
    let running = Running::new(|server| server);
    let store = running.connect();
    store.put("a", &Array::<u8>::zeros(70_000)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| drop(store.get::<u8>("a").unwrap())));
        }
    });
    info(&store);
    assert_eq!(store.objects().unwrap()[0].leases, 0);
}

#[test]
fn a_full_store_says_how_full() {
    let running = Running::new(|server| server.capacity(100_000));
    let store = running.connect();
    store.put("a", &Array::<u8>::zeros(60_000)).unwrap();
    let full = StoreErrorKind::Full {
        requested: 50_000,
        free: 40_000,
        capacity: 100_000,
    };
    let array = Array::<u8>::zeros(50_000);
    assert_eq!(store.put("b", &array).unwrap_err().kind(), full);
    let error = store
        .put_from("b", Kind::Bytes, &array[..], false)
        .unwrap_err();
    assert!(
        matches!(error.kind(), StoreErrorKind::Full { free: 40_000, .. }),
        "{error}"
    );
    // A replaced object makes room.
    store
        .put_from("a", Kind::Bytes, &array[..40_000], true)
        .unwrap();
    assert_eq!(info(&store).used, 40_000);
    store.put("b", &array).unwrap();
}

/// Waits until `count` programs are connected.
fn await_clients(store: &Store, count: u64) {
    let begun = std::time::Instant::now();
    while info(store).clients != count {
        let clients = info(store).clients;
        assert!(
            begun.elapsed().as_secs() < 60,
            "{clients} clients, not {count}"
        );
        std::thread::yield_now();
    }
}

#[test]
fn waiting_for_a_name_ends_when_it_exists() {
    let long = Duration::from_secs(600);
    let server = Running::new(|server| server);
    let store = server.connect();
    let array = Array::from_slice(&[1_u8]);
    let there = store.put("there", &array).unwrap();
    assert_eq!(store.wait("there", long).unwrap(), there);
    std::thread::scope(|scope| {
        let wait = |name: &'static str| {
            let store = store.clone();
            scope.spawn(move || store.wait(name, Duration::MAX))
        };
        let waits = ["a", "b", "a"].map(wait);
        await_clients(&store, 4);
        // The connection of the store is free meanwhile, and other names end no wait.
        store.put("c", &array).unwrap();
        let b = store.put("b", &array).unwrap();
        let [first, of_b, second] = waits;
        assert_eq!(of_b.join().unwrap().unwrap(), b);
        assert!(!first.is_finished() && !second.is_finished());
        let a = store.put("a", &array).unwrap();
        for wait in [first, second] {
            assert_eq!(wait.join().unwrap().unwrap(), a);
        }
    });
    // A wait that is given up leaves nothing in the server, and no lease.
    let error = store.wait("never", Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NoObject);
    assert!(error.to_string().contains("never"), "{error}");
    await_clients(&store, 1);
    store.put("never", &array).unwrap();
    assert!(
        store
            .objects()
            .unwrap()
            .iter()
            .all(|object| object.leases == 0)
    );
    let error = store.wait("\n", long).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::BadObject);
}

#[test]
fn waiting_for_a_name_ends_with_the_server() {
    let server = Running::new(|server| server);
    let store = server.connect();
    let waiting = {
        let store = store.clone();
        std::thread::spawn(move || store.wait("never", Duration::MAX))
    };
    await_clients(&store, 2);
    store.stop().unwrap();
    let error = waiting.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotRunning);
    assert!(error.to_string().contains("arenite serve"), "{error}");
    server.ended();
}

#[test]
fn lists_of_any_length_are_whole() {
    let running = Running::new(|server| server);
    let store = running.connect();
    let count = 3 * PAGE + 1;
    let long = "n".repeat(250);
    for index in 0..count {
        store
            .put(
                &format!("{long}{index:03}"),
                &Array::from_slice(&[index as u32]),
            )
            .unwrap();
    }
    let names: Vec<_> = store
        .objects()
        .unwrap()
        .into_iter()
        .map(|object| object.name)
        .collect();
    assert_eq!(names.len(), count);
    assert!(names.is_sorted());
    let clients: Vec<_> = (0..count).map(|_| running.connect()).collect();
    assert_eq!(store.clients().unwrap().len(), clients.len() + 1);
}

#[test]
fn a_name_is_served_once() {
    let running = Running::new(|server| server);
    let error = Server::bind(&running.name()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::AlreadyRunning);
    let process = format!("(process {})", std::process::id());
    assert!(error.to_string().contains(&process), "{error}");

    let folder = running.folder.path().to_owned();
    running.connect().stop().unwrap();
    running.ended();
    assert_eq!(
        connect(&socket_in(&folder)).unwrap_err().kind(),
        StoreErrorKind::NotRunning
    );
}

#[test]
fn a_killed_server_leaves_a_name_that_can_be_served() {
    let folder = tempfile::tempdir().unwrap();
    let name = socket_in(folder.path());
    // Leave what remains of a killed server: two files without a lock.
    drop(PacketSocket::listen(Path::new(&name)).unwrap());
    std::fs::write(folder.path().join("test.sock.lock"), "").unwrap();
    assert_eq!(
        connect(&name).unwrap_err().kind(),
        StoreErrorKind::NotRunning
    );
    let server = Server::bind(&name).unwrap();
    drop(server);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left"
    );
}

#[test]
fn an_idle_server_ends() {
    let running = Running::new(|server| server.idle_exit(Duration::from_millis(1)));
    // The server ends without a client, and never while there is one.
    running.ended();
}

#[test]
fn names_of_stores_and_objects_are_checked() {
    for name in ["", "a b", ".hidden", &"n".repeat(65)] {
        assert_eq!(
            connect(name).unwrap_err().kind(),
            StoreErrorKind::BadName,
            "{name:?}"
        );
    }
    let running = Running::new(|server| server);
    let store = running.connect();
    let array = Array::from_slice(&[1_u8]);
    for name in ["", "line\nbreak", &"n".repeat(256)] {
        assert_eq!(
            store.put(name, &array).unwrap_err().kind(),
            StoreErrorKind::BadObject,
            "{name:?}"
        );
    }
    store.put("ünïcode / and blanks", &array).unwrap();
}

#[test]
fn what_is_no_object_is_refused() {
    let running = Running::new(|server| server);
    let store = running.connect();
    let refused = |kind: Kind, file: &File| {
        let sent = store.publish("a", kind, false, file.as_fd());
        let error = sent.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::BadObject, "{error}");
        error.to_string()
    };
    let file = file::create("test").unwrap();
    file.write_all_at(&[7; 100_000], 0).unwrap();
    assert!(refused(Kind::Bytes, &file).contains("can still be changed"));
    file::seal(&file).unwrap();
    assert!(refused(Kind::array::<u8>(99_999), &file).contains("100000 bytes for array |u1 99999"));
    let dtype = |dtype: &str| Kind::Array {
        dtype: dtype.to_owned(),
        shape: vec![100_000],
    };
    for wrong in ["", "u1", ">i2", "|f4", "<O8", "\u{e9}\u{e9}"] {
        assert!(
            refused(dtype(wrong), &file).contains("element type"),
            "{wrong}"
        );
    }
    let shape = |shape: Vec<u64>| Kind::Array {
        dtype: "|u1".to_owned(),
        shape,
    };
    assert!(refused(shape(vec![u64::MAX, 4]), &file).contains("does not fit"));
    assert!(refused(shape(vec![1; 65]), &file).contains("dimensions"));

    let sparse = file::create("test").unwrap();
    sparse.set_len(1 << 20).unwrap();
    file::seal(&sparse).unwrap();
    assert!(refused(Kind::Bytes, &sparse).contains("have memory"));

    let plain = tempfile::tempfile().unwrap();
    assert!(refused(Kind::Bytes, &plain).contains("memory file"));
    assert_eq!(info(&store).objects, 0);
    // An array without dimensions has one number.
    let one = file::sealed_copy("test", &[1]).unwrap();
    let kind = shape(Vec::new());
    store.publish("a", kind, false, one.as_fd()).unwrap();
}

#[test]
fn messages_that_are_no_requests_are_answered() {
    let running = Running::new(|server| server);
    let raw = PacketSocket::connect(Path::new(&running.name()), Duration::from_secs(30)).unwrap();
    let mut buffer = vec![0; 64 << 10];
    let mut ask = |text: &[u8]| {
        raw.send(text, &[]).unwrap();
        let packet = raw.receive(&mut buffer).unwrap();
        match serde_json::from_slice(&buffer[..packet.len]).unwrap() {
            Answer::<StoreInfo>::Failed(failure) => Err(failure.error),
            Answer::Done(info) => Ok(info.clients),
        }
    };
    for text in [
        &b"x"[..],
        b"{}",
        b"{\"op\":\"fly\"}",
        b"\xff\xfe",
        b"{\"op\":\"put\",\"name\":\"a\"}",
        &[b' '; 65_000],
    ] {
        assert_eq!(ask(text), Err(FailureCode::BadRequest), "{text:?}");
    }
    // Send more bytes than a packet may have.
    assert_eq!(ask(&[b'['; 70_000]), Err(FailureCode::BadRequest));
    assert_eq!(
        ask(b"{\"op\":\"info\",\"later\":1}"),
        Ok(1),
        "unknown members are for newer servers"
    );
    assert_eq!(
        ask(b"{\"op\":\"put\",\"name\":\"a\",\"kind\":\"bytes\"}"),
        Err(FailureCode::BadObject),
        "without a descriptor"
    );
}

#[test]
fn a_client_that_reads_no_answers_is_disconnected() {
    let running = Running::new(|server| server);
    let raw = PacketSocket::connect(Path::new(&running.name()), Duration::from_secs(30)).unwrap();
    // Sending fails once the server has closed the connection.
    while raw.send(b"{\"op\":\"info\"}", &[]).is_ok() {}
    assert_eq!(info(&running.connect()).clients, 1, "others are served");
}

#[test]
fn failures_of_newer_servers_are_understood() {
    let failure: Failure =
        serde_json::from_str(r#"{"error":"too_hot","message":"the store is too hot"}"#).unwrap();
    assert_eq!((failure.error, failure.full), (FailureCode::Other, None));
    assert_eq!(
        StoreError::from(failure).to_string(),
        "the store is too hot"
    );
}

#[test]
fn a_folder_that_others_can_enter_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let error = super::place::make_folder(folder.path()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Denied);
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    super::place::make_folder(folder.path()).unwrap();
    super::place::make_folder(&folder.path().join("new")).unwrap();
}

#[test]
fn a_store_is_no_service_and_a_service_is_asked_with_patience() {
    let running = Running::new(|server| server);
    let patience = Duration::from_millis(20);
    let ask = |name: &str| service_status(name, patience).map_err(|error| error.kind());
    assert_eq!(ask(&running.name()), Ok(None));
    let path = running.folder.path().join("service.sock");
    let name = path.to_str().unwrap();
    assert_eq!(ask(name), Err(StoreErrorKind::NotRunning));
    // The listener accepts no connections.
    let listener = PacketSocket::listen(&path).unwrap();
    assert_eq!(ask(name), Err(StoreErrorKind::Protocol));
    drop(listener);
    assert_eq!(ask(name), Err(StoreErrorKind::NotRunning));
    assert_eq!(socket_path(name).unwrap(), path);
    assert_eq!(
        socket_path("main").unwrap().file_name().unwrap(),
        "main.sock"
    );
}

#[test]
fn an_answer_that_cannot_be_read_fails_its_call_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("service.sock");
    let listener = PacketSocket::listen(&path).unwrap();
    let server = std::thread::spawn(move || {
        let client = loop {
            match listener.accept().unwrap() {
                Some(client) => break client,
                None => std::thread::yield_now(),
            }
        };
        let mut bytes = vec![0; MAX_PACKET];
        let mut calls = 0;
        // Until the client hangs up.
        loop {
            let len = match client.receive(&mut bytes) {
                Ok(packet) if packet.len > 0 => packet.len,
                Ok(_) => return,
                Err(error) if error.errno() == rustix::io::Errno::AGAIN => {
                    std::thread::yield_now();
                    continue;
                }
                Err(_) => return,
            };
            let request: serde_json::Value = serde_json::from_slice(&bytes[..len]).unwrap();
            if request["op"] == "info" {
                let info = r#"{"service":true,"protocol":1,"version":"","name":"s","pid":1,"started":0.0,
                    "max_calls":9,"kernels":[]}"#;
                client.send(info.as_bytes(), &[]).unwrap();
                continue;
            }
            calls += 1;
            let deep = "[".repeat(200) + &"]".repeat(200);
            let values = ["18446744073709551616", &deep, r#"{"dict":{"a":1}}"#, "5"];
            if calls == values.len() {
                for (id, value) in (1..).zip(values) {
                    let answer = format!("{{\"id\":{id},\"value\":{value}}}");
                    client.send(answer.as_bytes(), &[]).unwrap();
                }
            }
        }
    });
    let client = service::connect(path.to_str().unwrap()).unwrap();
    let calls = [(); 4].map(|()| client.call::<Value>("echo", ()));
    let [long, deep, dictionary, five] = calls.map(service::Call::wait);
    for (result, text) in [
        (long, "64 bits"),
        (deep, "recursion"),
        (dictionary, "dictionary"),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ServiceErrorKind::Protocol);
        assert!(error.to_string().contains(text), "{error}");
    }
    assert!(matches!(five, Ok(Value::Int(5))));
    drop(client);
    server.join().unwrap();
}
