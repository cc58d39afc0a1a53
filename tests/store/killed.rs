//! Deaths: of clients at each step, of servers while clients hold arrays.

use arenite_store::{Store, StoreErrorKind, connect};
use nix::sys::signal::Signal;

use crate::harness::{case, send_signal, tests, wait_until};
use crate::programs::{Home, LEN, STEPS, Shop, array, descriptors};

tests![
    a_client_killed_at_any_step_leaves_what_it_published,
    readers_go_on_after_the_server_is_killed,
    a_server_killed_at_any_moment_can_be_replaced,
    four_programs_share_an_array_and_one_dies,
];

/// Names and leases.
fn list(store: &Store) -> Vec<(String, u64)> {
    let objects = store.objects().unwrap().into_iter();
    objects.map(|object| (object.name, object.leases)).collect()
}

fn a_client_killed_at_any_step_leaves_what_it_published() {
    let shop = Shop::open();
    let store = &shop.store;
    for (index, step) in STEPS.into_iter().enumerate() {
        for _ in 0..3 {
            case(format!("killed when {step}"));
            let before = descriptors(shop.server.pid());
            store.put("kept", &array()).unwrap();
            let mut client = shop.home.client(step);
            client.kill();
            client.wait().assert_killed();
            // The kernel closes its sockets; the server hears of it in its turn.
            wait_until("its connections are gone", || {
                store.info().unwrap().clients == 1
            });

            let reached = |step: &str| STEPS[..=index].contains(&step);
            let expected: Vec<(String, u64)> = [
                (!reached("removed")).then_some("kept"),
                reached("published").then_some("published"),
                reached("sent").then_some("sent"),
            ]
            .into_iter()
            .flatten()
            .map(|name| (name.to_owned(), 0))
            .collect();
            assert_eq!(list(store), expected);
            if reached("sent") {
                assert_eq!(store.get::<u8>("sent").unwrap()[..], array()[..]);
                store.remove("sent").unwrap();
            }
            if reached("published") {
                let len = if reached("replaced") { 3 } else { LEN };
                assert_eq!(store.remove("published").unwrap().bytes, len as u64);
            }
            if !reached("removed") {
                store.remove("kept").unwrap();
            }
            let info = store.info().unwrap();
            assert_eq!((info.used, info.retained, info.objects), (0, 0, 0));
            // They are closed on a thread of their own.
            wait_until("as many descriptors", || {
                descriptors(shop.server.pid()) == before
            });
        }
    }
    shop.close();
}

fn readers_go_on_after_the_server_is_killed() {
    let home = Home::new();
    let mut server = home.serve();
    let store = home.connect();
    store.put("kept", &array()).unwrap();
    let held = store.get::<u8>("kept").unwrap();
    let mut reader = home.reader();
    server.kill();
    server.wait().assert_killed();
    assert_eq!(held[..], array()[..]);
    reader.go_on();
    reader.wait().assert_done();
    let error = store.put("more", &held).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotRunning, "{error}");
    let error = connect(&home.socket()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotRunning, "{error}");
}

fn a_server_killed_at_any_moment_can_be_replaced() {
    let home = Home::new();
    for round in 0..20 {
        case(format!("round {round}"));
        let mut server = home.serve();
        let store = home.connect();
        let victim = server.pid();
        // Killed while requests are under way.
        let killer = std::thread::spawn(move || {
            for _ in 0..round * 50 {
                std::hint::spin_loop();
                std::thread::yield_now();
            }
            send_signal(victim, Signal::SIGKILL);
        });
        let mut held = Vec::new();
        let error = loop {
            let step = || {
                store.put("a", &array())?;
                let got = store.get::<u8>("a")?;
                store.remove("a")?;
                Ok(got)
            };
            match step() {
                Ok(got) => held = vec![got],
                Err(error) => break error,
            }
        };
        let error: arenite_store::StoreError = error;
        assert_eq!(error.kind(), StoreErrorKind::NotRunning, "{error}");
        killer.join().unwrap();
        server.wait().assert_killed();
        assert!(held.iter().all(|array_held| array_held[..] == array()[..]));
    }
}

fn four_programs_share_an_array_and_one_dies() {
    let shop = Shop::open();
    let store = &shop.store;
    store.put("kept", &array()).unwrap();
    let mut readers: Vec<_> = (0..3).map(|_| shop.home.reader()).collect();
    // The fourth holds it too, and has filled and sealed a second object that it has not sent.
    let held = shop.home.client("got");
    assert_eq!(store.objects().unwrap()[0].leases, 4);
    let mut fourth = shop.home.client("sealed");
    fourth.kill();
    fourth.wait().assert_killed();
    drop(held);
    wait_until("three leases", || store.objects().unwrap()[0].leases == 3);
    for reader in &mut readers {
        reader.go_on();
        reader.wait().assert_done();
    }
    // Started again, it has its array.
    let mut again = shop.home.reader();
    again.go_on();
    again.wait().assert_done();
    shop.close();
}
