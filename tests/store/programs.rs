//! The programs of these tests: a server, and clients that stop at a step.

use std::io;
use std::path::Path;

use arenite::Array;
use arenite_store::{Kind, Server, Store, connect};
use tempfile::TempDir;

use crate::harness::programs::{Program, Scenario, pause, say};
use crate::{jobs, raw, service};

/// Environment variable with the path of the store's socket.
pub const SOCKET: &str = "ARENITE_TEST_SOCKET";
/// Environment variable with the store's capacity in bytes.
const CAPACITY: &str = "ARENITE_TEST_CAPACITY";
/// Environment variable with the step at which a client stops.
pub const STEP: &str = "ARENITE_TEST_STEP";

/// The bytes of the arrays that clients put: large enough for a file of their own.
pub const LEN: usize = 1 << 20;

/// The roles of child programs.
pub const ROLES: &[Scenario] = &[
    ("server", serve),
    ("client", client),
    ("reader", read),
    ("squatter", squat),
    ("service", service::serve),
    ("caller", service::call),
    (jobs::UNDUMPABLE, jobs::undumpable),
];

/// A store with its folder.
pub struct Home {
    folder: TempDir,
}

/// The steps at which a client is killed. At the end of each it holds what the step made.
pub const STEPS: [&str; 8] = [
    "connected",
    "drafted",
    "sealed",
    "sent",
    "published",
    "got",
    "replaced",
    "removed",
];

impl Home {
    pub fn new() -> Home {
        Home {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn socket(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("test.sock")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn connect(&self) -> Store {
        connect(&self.socket()).unwrap()
    }

    /// Starts a server, and waits until it can be connected to.
    pub fn serve(&self) -> Program {
        self.serve_with(|| Ok(()), 1 << 30, &[])
    }

    pub fn serve_with(
        &self,
        prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
        capacity: u64,
        variables: &[(&str, &str)],
    ) -> Program {
        let capacity = capacity.to_string();
        let variables = [&[(CAPACITY, &*capacity)][..], variables].concat();
        let mut server = self.start_with("server", prepare, &variables);
        server.expect("ready");
        server
    }

    /// Starts a client and waits until it stands at this step.
    pub fn client(&self, step: &str) -> Program {
        let mut client = self.start_with("client", || Ok(()), &[(STEP, step)]);
        client.expect("here");
        client
    }

    /// Starts a program that has mapped the array `kept`.
    pub fn reader(&self) -> Program {
        let mut reader = self.start("reader", || Ok(()));
        reader.expect("mapped");
        reader
    }

    pub fn start(
        &self,
        role: &str,
        prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Program {
        self.start_with(role, prepare, &[])
    }

    pub fn start_with(
        &self,
        role: &str,
        prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
        variables: &[(&str, &str)],
    ) -> Program {
        Program::with(role, prepare, |command| {
            command.env(SOCKET, self.path());
            command.envs(variables.iter().copied());
        })
    }
}

/// A running server, and a client of it.
pub struct Shop {
    pub home: Home,
    pub server: Program,
    pub store: Store,
}

impl Shop {
    pub fn open() -> Shop {
        Shop::with(Home::serve)
    }

    pub fn with(serve: impl FnOnce(&Home) -> Program) -> Shop {
        let home = Home::new();
        let server = serve(&home);
        let store = home.connect();
        Shop {
            home,
            server,
            store,
        }
    }

    /// Stops the server, which leaves nothing.
    pub fn close(mut self) {
        self.store.stop().unwrap();
        self.server.wait().assert_done();
        assert_eq!(std::fs::read_dir(self.home.folder()).unwrap().count(), 0);
    }
}

/// Number of descriptors of a process.
pub fn descriptors(pid: i32) -> usize {
    let folder = format!("/proc/{pid}/fd");
    std::fs::read_dir(folder).unwrap().count()
}

/// The array that clients put.
pub fn array() -> Array<u8> {
    Array::from_fn(LEN, |i| (i % 251) as u8)
}

fn socket() -> String {
    std::env::var(SOCKET).unwrap()
}

fn serve() {
    let capacity = std::env::var(CAPACITY).unwrap().parse().unwrap();
    let server = Server::bind(&socket()).unwrap().capacity(capacity);
    say("ready");
    server.run().unwrap();
}

fn client() {
    let last = std::env::var(STEP).unwrap();
    let mut at = STEPS.into_iter();
    // Whether the client stands here until it is killed.
    let mut reached = |step: &str| {
        assert_eq!(at.next(), Some(step));
        if step == last {
            say("here");
            pause();
        }
    };
    let store = connect(&socket()).unwrap();
    reached("connected");

    let mut draft = store.draft(Kind::array::<u8>(LEN), LEN).unwrap();
    draft.copy_from_slice(&array());
    reached("drafted");

    let file = raw::sealed(&array());
    reached("sealed");

    let connection = raw::Connection::new(Path::new(&socket()));
    connection.send(
        &format!(r#"{{"op":"put","name":"sent","kind":"array","dtype":"|u1","shape":[{LEN}]}}"#),
        &[&file],
    );
    reached("sent");

    draft.publish("published").unwrap();
    reached("published");

    let got = store.get::<u8>("kept").unwrap();
    reached("got");

    store
        .draft(Kind::array::<u8>(3), 3)
        .unwrap()
        .replace("published")
        .unwrap();
    reached("replaced");

    store.remove("kept").unwrap();
    reached("removed");
    drop(got);
}

fn read() {
    let store = connect(&socket()).unwrap();
    let kept = store.get::<u8>("kept").unwrap();
    assert_eq!(kept[..], array()[..]);
    say("mapped");
    pause();
    assert_eq!(kept[..], array()[..]);
}

/// Listens where a store's server would, as another user, and takes whatever is sent.
fn squat() {
    let path = socket();
    let _listener = raw::listen(Path::new(&path));
    say("ready");
    pause();
}
