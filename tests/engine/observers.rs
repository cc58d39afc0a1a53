//! The socket at which processes ask for the state of an engine, as `arenite top` does. The README of the supervisor
//! has the protocol.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use arenite::Engine;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Uid, fork, geteuid, setresuid};
use serde_json::{Value, json};

use crate::harness::programs::{Program, Scenario, say};
use crate::harness::{
    ABORTED, Calls, Lab, at_gates, builder, children, pass, step, tests, wait_until,
};

tests![
    the_answer_is_the_state_of_the_engine,
    kernels_that_run_come_first,
    each_engine_is_found_while_it_lives,
    a_thousand_observers_that_do_not_read,
    an_observer_gets_an_answer_while_no_descriptor_is_left,
    workers_do_not_have_the_socket,
    the_socket_of_a_killed_program_is_gone,
    a_forked_copy_does_not_answer_for_an_engine_that_has_ended;
    where geteuid().is_root() => another_user_gets_no_answer,
];

pub const SCENARIOS: &[Scenario] = &[
    ("observed-crowd", crowd),
    ("observed-killed", killed),
    ("observed-short", short),
    ("observed-stranger", stranger),
];

/// The variable with the name of a socket, for another program.
const SOCKET: &str = "ARENITE_TEST_SOCKET";
const OTHER_USER: u32 = 65534;

/// Returns the names and inodes of the listening sockets of a program's engines, in the order of their numbers.
fn sockets(pid: u32) -> Vec<(String, String)> {
    let prefix = format!("@arenite-engine-{}-{pid}-", geteuid());
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let rows = table.lines().map(|line| line.split_ascii_whitespace());
    let rows = rows.map(Iterator::collect::<Vec<_>>);
    let mut found: Vec<_> = rows
        .filter(|row| row.len() == 8 && row[3] == "00010000" && row[7].starts_with(&prefix))
        .map(|row| (row[7][1..].to_owned(), row[6].to_owned()))
        .collect();
    found.sort_by_key(|(name, _)| name.rsplit('-').next().unwrap().parse::<u32>().unwrap());
    found
}

/// Returns the name of the socket of the only engine of this process.
fn socket() -> String {
    wait_until("the socket of the engine", || {
        sockets(std::process::id()).len() == 1
    });
    sockets(std::process::id()).remove(0).0
}

fn connect(name: &str) -> std::io::Result<UnixStream> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap())
}

/// Reads an answer, after which the connection is closed.
fn answer(peer: UnixStream) -> Value {
    step("the answer of an engine");
    let mut text = String::new();
    BufReader::new(peer).read_to_string(&mut text).unwrap();
    assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn ask(name: &str) -> Value {
    answer(connect(name).unwrap())
}

fn double(number: u64) -> u64 {
    number * 2
}

fn the_answer_is_the_state_of_the_engine() {
    let label = "a \"label\"\n\u{1b}";
    let engine = Lab::with(3, |builder| builder.label(label).spares(1));
    for number in 0..20 {
        engine.value_of(double, (number,));
    }
    assert_eq!(
        *engine
            .error_of(|| -> u8 { std::process::abort() }, ())
            .kind(),
        ABORTED
    );
    let array = engine.value_of(|| arenite::Array::from_slice(&[1_u8; 100_000]), ());
    wait_until("all workers to have started", || {
        let stats = engine.stats();
        let workers = &stats.workers;
        stats.restarts() == 1 && workers.iter().all(|worker| worker.ready || worker.spare)
    });
    let seen = ask(&socket());
    let (stats, progress) = (engine.stats(), engine.progress());
    let workers: Vec<_> = stats
        .workers
        .iter()
        .map(|worker| {
            json!({
                "pid": worker.pid, "ready": worker.ready, "spare": worker.spare, "restarts": worker.restarts,
                "jobs": worker.jobs, "open": worker.open,
            })
        })
        .collect();
    assert_eq!(seen["workers"], json!(workers));
    let mut pids: Vec<_> = stats
        .workers
        .iter()
        .map(|worker| worker.pid as i32)
        .collect();
    let mut own = children();
    pids.sort_unstable();
    own.sort_unstable();
    assert_eq!(pids, own);
    let counts = json!({
        "version": 1, "pid": std::process::id(), "name": label, "sandboxed": false, "worker_count": 4, "restarts": 1,
        "submitted": progress.submitted, "queued": 0, "waiting": 0, "limited": 0, "ahead": 0,
        "running": 0, "done": progress.done, "failed": 1, "cancelled": 0, "memory_short": stats.memory_short,
        "start_failure": stats.start_failure,
        "arena": {"used": stats.arena.in_use, "capacity": stats.arena.capacity},
    });
    for (member, value) in counts.as_object().unwrap() {
        assert_eq!(seen[member], *value, "{member}");
    }
    assert_eq!((progress.submitted, progress.done), (22, 21));
    let elapsed = seen["elapsed"].as_f64().unwrap();
    // It is rounded to milliseconds.
    assert!(elapsed > 0.0 && elapsed <= progress.elapsed.as_secs_f64() + 0.001);
    let kernels = seen["kernels"].as_array().unwrap();
    let doubled = kernels
        .iter()
        .find(|kernel| kernel["name"] == "double")
        .unwrap();
    let expected = stats
        .kernels
        .iter()
        .find(|kernel| kernel.name.ends_with("::double"));
    assert_eq!(doubled["calls"], expected.unwrap().calls);
    assert_eq!(kernels.len(), stats.kernels.len());
    drop(array);
}

fn kernels_that_run_come_first() {
    // More workers and kernels than an answer has.
    let engine = Lab::with(40, |builder| builder.capacity(1 << 30));
    for number in 0..30 {
        let name = format!("named {number}{}", "x".repeat(300));
        engine
            .job(double, (1,))
            .name(&name)
            .submit()
            .wait()
            .unwrap();
    }
    let (jobs, gates) = at_gates(2, |gate| {
        engine.job(pass, (gate.to_owned(),)).name("gate").submit()
    });
    let seen = ask(&socket());
    assert_eq!(seen["worker_count"], 40);
    assert_eq!(seen["workers"].as_array().unwrap().len(), 32);
    let kernels = seen["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), 20);
    assert_eq!(kernels[0]["name"], "gate");
    assert_eq!(kernels[0]["running"], 2);
    assert_eq!(kernels[1]["running"], 0);
    assert_eq!(seen["running"], 2);
    let long = kernels[1]["name"].as_str().unwrap();
    assert!(long.starts_with("named") && long.ends_with("x…"), "{long}");
    drop(gates);
    jobs.into_iter().for_each(|job| job.wait().unwrap());
}

fn each_engine_is_found_while_it_lives() {
    let own = std::process::id();
    let labels = || -> Vec<_> {
        let names = sockets(own).into_iter().map(|(name, _)| name);
        names.map(|name| ask(&name)["name"].clone()).collect()
    };
    let [first, second] = ["first", "second"].map(|label| {
        let engine = builder(1, 8 << 20).label(label).build().unwrap();
        wait_until("its socket", || labels().contains(&json!(label)));
        engine
    });
    assert_eq!(labels(), ["first", "second"]);
    drop(first);
    assert_eq!(labels(), ["second"]);
    second.shutdown();
    assert!(sockets(own).is_empty());
    // It has no monitor.
    let inline = Engine::inline();
    assert!(sockets(own).is_empty());
    drop(inline);
}

fn a_thousand_observers_that_do_not_read() {
    Program::start("observed-crowd", || Ok(()))
        .end()
        .assert_done();
}

fn crowd() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(4096), hard).unwrap();
    let engine = builder(2, 8 << 20).build().unwrap();
    let name = socket();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    std::thread::scope(|scope| {
        let jobs = scope.spawn(|| {
            for number in 0..2_000 {
                assert_eq!(engine.value_of(double, (number,)), number * 2);
            }
        });
        let connect = |_| connect(&name).unwrap();
        let peers: Vec<_> = (0..1_000).map(connect).collect();
        // The text that these send is not read, and resets the connection; or they are closed already.
        for mut peer in (0..100).map(connect) {
            let _ = peer.write_all(b"GET / HTTP/1.1\r\n\r\n");
        }
        jobs.join().unwrap();
        // None of these has read: all answers are there, and the engine has closed its ends.
        for peer in peers {
            assert_eq!(answer(peer)["worker_count"], 2);
        }
    });
    // Fewer, if the start of a worker was not quite over before.
    wait_until("the connections to be closed", || descriptors() <= before);
    assert_eq!(ask(&name)["done"], 2_000);
    engine.shutdown();
}

fn an_observer_gets_an_answer_while_no_descriptor_is_left() {
    Program::start("observed-short", || Ok(()))
        .end()
        .assert_done();
}

fn short() {
    let engine = builder(1, 8 << 20).build().unwrap();
    let name = socket();
    let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
    // The descriptors of the observers.
    let own = [(); 3].map(|()| {
        nix::sys::socket::socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
    });
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        taken.push(file);
    }
    for own in own {
        let own = own.unwrap();
        nix::sys::socket::connect(own.as_raw_fd(), &address).unwrap();
        assert_eq!(answer(own.into())["start_failure"], Value::Null);
    }
    drop(taken);
    engine.shutdown();
}

fn workers_do_not_have_the_socket() {
    let engine = Lab::new(2);
    socket();
    let inode = format!("socket:[{}]", sockets(std::process::id())[0].1);
    let files = || -> String {
        let links = fs::read_dir("/proc/self/fd").unwrap();
        let links = links.filter_map(|link| fs::read_link(link.unwrap().path()).ok());
        links.map(|to| format!("{}\n", to.display())).collect()
    };
    assert!(files().contains(&inode), "this process has it");
    // Also one that was started after the socket was made.
    for _ in 0..2 {
        let all = engine.value_of(files, ());
        assert!(!all.contains(&inode), "{all}");
        engine.error_of(|| -> u8 { std::process::abort() }, ());
    }
}

fn the_socket_of_a_killed_program_is_gone() {
    let mut program = Program::start("observed-killed", || Ok(()));
    program.expect("ready");
    let pid = program.pid() as u32;
    let (name, _) = sockets(pid).remove(0);
    assert_eq!(ask(&name)["pid"], pid);
    program.kill();
    wait_until("the socket is gone", || sockets(pid).is_empty());
    assert_eq!(
        connect(&name).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    program.end();
}

fn killed() {
    let engine = builder(1, 8 << 20).build().unwrap();
    socket();
    say("ready");
    let _ = std::io::stdin().lock().read_line(&mut String::new());
    drop(engine);
}

fn a_forked_copy_does_not_answer_for_an_engine_that_has_ended() {
    let engine = builder(1, 8 << 20).build().unwrap();
    let name = socket();
    // SAFETY: the copy only sleeps, until it is killed.
    let copy = match unsafe { fork() }.unwrap() {
        ForkResult::Child => loop {
            nix::unistd::pause();
        },
        ForkResult::Parent { child } => child,
    };
    assert_eq!(ask(&name)["worker_count"], 1);
    engine.shutdown();
    let refused = connect(&name).unwrap_err();
    kill(copy, Signal::SIGKILL).unwrap();
    waitpid(copy, None).unwrap();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

fn another_user_gets_no_answer() {
    let engine = Lab::new(1);
    let name = socket();
    for (user, expected) in [(OTHER_USER, "0"), (0, "1")] {
        let prepare = move || {
            let user = Uid::from_raw(user);
            setresuid(user, user, user).map_err(std::io::Error::from)
        };
        let change = |command: &mut std::process::Command| {
            command.env(SOCKET, &name);
        };
        let mut program = Program::with("observed-stranger", prepare, change);
        assert_eq!(program.line_after("lines"), expected, "user {user}");
        program.end().assert_done();
    }
    assert_eq!(engine.value_of(double, (4,)), 8);
}

fn stranger() {
    let name = std::env::var(SOCKET).unwrap();
    let mut text = String::new();
    connect(&name).unwrap().read_to_string(&mut text).unwrap();
    say(format!("lines {}", text.lines().count()));
}
