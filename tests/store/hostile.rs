//! Clients that do what they should not: an error for them, and nothing for others.

use std::io;
use std::os::unix::fs::PermissionsExt;

use arenite_store::{Store, StoreErrorKind, connect};
use nix::sys::resource::{Resource, setrlimit};

use crate::harness::{assert_says, case, tests, wait_until};
use crate::programs::{Home, Shop, array, descriptors};
use crate::raw::{self, Connection};

tests![
    no_descriptor_but_a_sealed_file_makes_an_object,
    a_file_that_is_still_mapped_for_writing_is_no_object,
    a_client_cannot_end_the_leases_of_others,
    a_received_object_cannot_be_changed,
    without_descriptors_clients_are_refused_and_others_served;
    where is_root() => another_user_is_refused, a_squatted_socket_is_refused,
];

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Others are served as before.
fn is_well(store: &Store) {
    store.put("well", &array()).unwrap();
    assert_eq!(store.get::<u8>("well").unwrap()[..], array()[..]);
    store.remove("well").unwrap();
}

fn no_descriptor_but_a_sealed_file_makes_an_object() {
    let shop = Shop::open();
    let store = &shop.store;
    let descriptors = || descriptors(shop.server.pid());
    is_well(store);
    let before = descriptors();
    let connection = Connection::new(&shop.home.path());
    let put = r#"{"op":"put","name":"a","kind":"bytes"}"#;
    raw::assert_refused(&connection, put, "bad_object");
    // Memory behind the file's end is not counted.
    let large = raw::memory_file(&[1; 100_000]);
    let keep = nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
    nix::fcntl::fallocate(&large, keep, 1 << 20, 16 << 20).unwrap();
    raw::seal(&large).unwrap();
    let (answer, _) = connection.ask(put, &[&large]);
    assert_eq!(answer["error"], "bad_object", "{answer}");
    // A lease on the file, which would let `open` wait for its holder.
    let leased = raw::sealed(&[1; 100_000]);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&leased));
    let reader = std::fs::File::open(path).unwrap();
    drop(leased);
    // SAFETY: takes numbers.
    let set = unsafe {
        libc::signal(libc::SIGIO, libc::SIG_IGN);
        libc::fcntl(
            std::os::fd::AsRawFd::as_raw_fd(&reader),
            libc::F_SETLEASE,
            libc::F_WRLCK,
        )
    };
    if set == 0 {
        let (answer, _) = connection.ask(put, &[&reader]);
        assert_eq!(answer["error"], "limit", "{answer}");
    }
    drop(reader);
    // With a request that has no use for it.
    let (answer, _) = connection.ask(r#"{"op":"info"}"#, &[&raw::sealed(b"bytes")]);
    assert_eq!(answer["protocol"], 1, "{answer}");
    // They are closed on a thread of their own.
    wait_until("at most the connection's are open", || {
        descriptors() <= before + 1
    });
    is_well(store);
    shop.close();
}

fn a_file_that_is_still_mapped_for_writing_is_no_object() {
    let shop = Shop::open();
    let connection = Connection::new(&shop.home.path());
    let file = raw::memory_file(&[1; 4096]);
    let options = memmap2::MmapOptions::new();
    let map = options.map_raw(&file).unwrap();
    assert_eq!(raw::seal(&file), Err(nix::Error::EBUSY));
    let (answer, _) = connection.ask(r#"{"op":"put","name":"a","kind":"bytes"}"#, &[&file]);
    assert_eq!(answer["error"], "bad_object", "{answer}");
    drop(map);
    raw::seal(&file).unwrap();
    let (answer, _) = connection.ask(r#"{"op":"put","name":"a","kind":"bytes"}"#, &[&file]);
    assert_eq!(answer["bytes"], 4096, "{answer}");
    shop.close();
}

fn a_client_cannot_end_the_leases_of_others() {
    let shop = Shop::open();
    let store = &shop.store;
    let object = store.put("a", &array()).unwrap();
    let _held = store.get::<u8>("a").unwrap();
    let connection = Connection::new(&shop.home.path());
    for id in [object.id, 0, u64::MAX] {
        connection.send(&format!(r#"{{"op":"release","id":{id}}}"#), &[]);
    }
    connection.ask(r#"{"op":"info"}"#, &[]);
    assert_eq!(store.objects().unwrap()[0].leases, 1);
    shop.close();
}

fn a_received_object_cannot_be_changed() {
    let shop = Shop::open();
    let store = &shop.store;
    store.put("large", &array()).unwrap();
    store
        .put("small", &arenite::Array::from_slice(&[1_u8, 2, 3]))
        .unwrap();
    let connection = Connection::new(&shop.home.path());
    for name in ["large", "small"] {
        case(name);
        let (_, file) = connection.ask(&format!(r#"{{"op":"get","name":"{name}"}}"#), &[]);
        let file = std::fs::File::from(file.unwrap());
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        // The same user may open it again for writing, and still cannot write.
        let again = std::fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        assert!(io::Write::write(&mut &again, b"x").is_err());
        assert!(again.set_len(0).is_err());
        assert!(again.set_len(1 << 30).is_err());
        assert!(memmap2::MmapOptions::new().map_raw(&again).is_err());
        assert!(
            nix::fcntl::fallocate(
                &again,
                nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
                    | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE,
                0,
                1
            )
            .is_err()
        );
    }
    shop.close();
}

fn without_descriptors_clients_are_refused_and_others_served() {
    let few = || setrlimit(Resource::RLIMIT_NOFILE, 40, 40).map_err(io::Error::from);
    let shop = Shop::with(|home| home.serve_with(few, 1 << 30, &[]));
    let store = &shop.store;
    is_well(store);
    let mut clients = Vec::new();
    let error = loop {
        // Linux accepts; the server closes at once what it has no descriptor for.
        match connect(&shop.home.socket()) {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
        assert!(clients.len() < 40);
    };
    assert_eq!(error.kind(), StoreErrorKind::System, "{error}");
    assert_says(&error, "open files");
    // A descriptor for each of two requests at a time, for objects large and small, is still free.
    is_well(store);
    for client in &clients {
        assert!(client.info().unwrap().clients > clients.len() as u64);
    }
    is_well(store);
    drop(clients);
    wait_until("the clients are gone", || {
        store.info().unwrap().clients == 1
    });
    is_well(store);
    shop.close();
}

/// Becomes another user.
fn become_nobody() -> io::Result<()> {
    nix::unistd::setgid(65534.into())?;
    nix::unistd::setuid(65534.into())?;
    Ok(())
}

fn another_user_is_refused() {
    let shop = Shop::open();
    // As if the folder and the socket were open to all.
    for path in [shop.home.folder(), &shop.home.path()] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    }
    let mut other = shop.home.start("reader", become_nobody);
    let ended = other.wait();
    assert_eq!(ended.code, Some(101), "{ended:?}");
    assert!(ended.errors.contains("another user"), "{ended:?}");
    // Its own check comes first; without it the server hangs up.
    shop.close();
}

fn a_squatted_socket_is_refused() {
    let home = Home::new();
    std::fs::set_permissions(home.folder(), PermissionsExt::from_mode(0o777)).unwrap();
    let mut squatter = home.start("squatter", become_nobody);
    squatter.expect("ready");
    let error = connect(&home.socket()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Denied, "{error}");
    assert_says(&error, "another user (65534)");
    squatter.go_on();
    squatter.wait().assert_done();
}
