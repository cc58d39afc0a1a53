//! Many clients, many objects, large objects.

use std::io::Read;

use arenite::Array;
use arenite_store::Kind;

use crate::harness::programs::{may_have_own_shm, own_shm};
use crate::harness::{case, tests};
use crate::programs::{LEN, Shop, array, descriptors};

tests![
    a_thousand_clients_and_a_hundred_thousand_objects,
    readers_of_an_array_take_its_memory_once;
    where may_have_own_shm() => a_small_dev_shm_does_not_matter,
];

fn a_thousand_clients_and_a_hundred_thousand_objects() {
    const OBJECTS: usize = 100_000;
    let shop = Shop::open();
    let clients: Vec<_> = (0..999).map(|_| shop.home.connect()).collect();
    for index in 0..OBJECTS {
        if index % 10_000 == 0 {
            case(format!("object {index}"));
        }
        let store = &clients[index % clients.len()];
        let array = Array::from_slice(&[index as u64]);
        store.put(&format!("object {index:06}"), &array).unwrap();
    }
    let store = &shop.store;
    let info = store.info().unwrap();
    assert_eq!(
        (info.objects, info.clients, info.used),
        (100_000, 1000, 800_000)
    );
    for index in (0..OBJECTS).step_by(997) {
        let found = clients[index % 999].get::<u64>(&format!("object {index:06}"));
        assert_eq!(found.unwrap()[..], [index as u64]);
    }
    case("the list");
    let objects = store.objects().unwrap();
    assert_eq!(objects.len(), OBJECTS);
    assert!(objects.is_sorted_by(|a, b| a.name < b.name));
    // Small objects take no descriptors.
    let descriptors = descriptors(shop.server.pid());
    assert!(descriptors < 1000 + 100, "{descriptors}");
    drop(clients);
    shop.close();
}

/// The bytes of objects that a process has mapped, each page divided by the number of processes that have it: what
/// `Pss` says.
fn share_of_objects(pid: i32) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut is_object = false;
    let mut sum = 0;
    for line in maps.lines() {
        if let Some(kib) = line.strip_prefix("Pss:") {
            let kib: u64 = kib.trim().trim_end_matches(" kB").parse().unwrap();
            sum += if is_object { kib << 10 } else { 0 };
        } else if !line.split(' ').next().unwrap_or_default().ends_with(':') {
            is_object = line.contains("/memfd:arenite-object");
        }
    }
    sum
}

fn readers_of_an_array_take_its_memory_once() {
    let shop = Shop::open();
    let store = &shop.store;
    store.put("kept", &array()).unwrap();
    // They read all of it.
    let mut readers: Vec<_> = (0..4).map(|_| shop.home.reader()).collect();
    let sum: u64 = readers
        .iter()
        .map(|reader| share_of_objects(reader.pid()))
        .sum();
    let len = LEN as u64;
    assert!(
        (len * 9 / 10..=len * 11 / 10).contains(&sum),
        "{sum} for {len} bytes"
    );
    for reader in &mut readers {
        reader.go_on();
        reader.wait().assert_done();
    }
    shop.close();
}

fn a_small_dev_shm_does_not_matter() {
    let shop = Shop::with(|home| home.serve_with(own_shm(Some(8)), 1 << 30, &[]));
    let store = &shop.store;
    let len = 64 << 20;
    let mut draft = store.draft(Kind::array::<u8>(len), len).unwrap();
    draft.fill(7);
    draft.publish("large").unwrap();
    let large = store.get::<u8>("large").unwrap();
    assert!(large.iter().all(|&byte| byte == 7));
    // From a stream of unknown length.
    let bytes = array();
    store
        .put_from("stream", Kind::Bytes, (&bytes[..]).chain(&bytes[..]), false)
        .unwrap();
    assert_eq!(store.get_bytes("stream").unwrap().1.len(), 2 * bytes.len());
    shop.close();
}
