//! Servers killed between the steps of a request.

use arenite::points::{Board, Fault, POINTS, Side, VARIABLE};
use arenite_store::service::ServiceErrorKind;
use arenite_store::{Kind, Store, StoreError, StoreErrorKind};

use crate::harness::{case, tests};
use crate::programs::{Home, array};
use crate::service::Served;

tests![
    a_server_killed_at_any_step_leaves_no_half_object,
    a_service_killed_at_any_step_fails_its_calls_and_leaves_no_worker,
];

/// A request, with its name.
type Request = (&'static str, fn(&Store) -> Result<(), StoreError>);

/// What a client asks for when the server is killed.
const REQUESTS: [Request; 5] = [
    ("put", |store| store.put("new", &array()).map(drop)),
    ("replace", |store| {
        store.draft(Kind::Bytes, 3)?.replace("kept").map(drop)
    }),
    ("get", |store| store.get::<u8>("kept").map(drop)),
    ("rm", |store| store.remove("kept").map(drop)),
    ("stop", |store| store.stop().map(drop)),
];

fn a_server_killed_at_any_step_leaves_no_half_object() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("board");
    let board = Board::create(&path).unwrap();
    for (name, request) in REQUESTS {
        for point in POINTS.iter().filter(|point| point.side == Side::Store) {
            for _ in 0..3 {
                case(format!("killed at {} of {name}", point.name));
                let home = Home::new();
                let mut server =
                    home.serve_with(|| Ok(()), 1 << 30, &[(VARIABLE, path.to_str().unwrap())]);
                let store = home.connect();
                store.put("kept", &array()).unwrap();
                let held = store.get::<u8>("kept").unwrap();
                // `put` and `replace` ask for the room first.
                let passings = match (name, point.name) {
                    ("put" | "replace", "store.checked") => 1..2,
                    ("put" | "replace", _) => 2..3,
                    _ => 1..2,
                };
                board.arm(point.name, Fault::Kill, passings);
                let result = request(&store);
                if point.name == "store.checked" && !matches!(name, "put" | "replace") {
                    // Only objects are checked. Dropping the server ends it.
                    board.disarm();
                    continue;
                }
                server.wait().assert_killed();
                board.disarm();
                match result {
                    Ok(()) => assert_eq!(point.name, "store.sent"),
                    Err(error) => assert_eq!(error.kind(), StoreErrorKind::NotRunning, "{error}"),
                }
                assert_eq!(held[..], array()[..], "readers go on");

                let mut next = home.serve();
                let store = home.connect();
                assert_eq!(store.info().unwrap().objects, 0);
                store.put("kept", &array()).unwrap();
                store.stop().unwrap();
                next.wait().assert_done();
            }
        }
    }
}

fn a_service_killed_at_any_step_fails_its_calls_and_leaves_no_worker() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("board");
    let board = Board::create(&path).unwrap();
    for point in POINTS.iter().filter(|point| point.side == Side::Service) {
        for _ in 0..3 {
            case(format!("killed at {}", point.name));
            let mut served = Served::with(Home::new(), 2, &[(VARIABLE, path.to_str().unwrap())]);
            let client = served.connect();
            assert_eq!(client.call::<u32>("add", (1, 1)).wait().unwrap(), 2);
            board.arm(point.name, Fault::Kill, 1..2);
            let calls: Vec<_> = (0..4).map(|i| client.call::<u32>("add", (i, 1))).collect();
            for (i, call) in (0..).zip(calls) {
                match call.wait() {
                    Ok(sum) => assert_eq!(sum, i + 1),
                    Err(error) => assert_eq!(error.kind(), ServiceErrorKind::NotRunning, "{error}"),
                }
            }
            served.program.wait().assert_killed();
            board.disarm();
            served.program.await_all_gone();
            let served = Served::with(served.home, 1, &[]);
            assert_eq!(
                served.connect().call::<u32>("add", (1, 2)).wait().unwrap(),
                3
            );
            served.stop();
        }
    }
}
