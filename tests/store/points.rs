//! The server killed between the steps of a request.

use arenite::points::{Board, Fault, POINTS, Side, VARIABLE};
use arenite::store::{Kind, Store, StoreError, StoreErrorKind};

use crate::harness::{case, tests};
use crate::programs::{Home, array};

tests![a_server_killed_at_any_step_leaves_no_half_object];

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
                let mut server = home.serve_with(|| Ok(()), 1 << 30, &[(VARIABLE, &path)]);
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
