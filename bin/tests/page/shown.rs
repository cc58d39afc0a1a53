//! What the data of the page has.

use std::fs;

use arenite::{Array, Engine};
use arenite_store::service::Service;
use serde_json::{Value, json};

use crate::world::{World, status, until};

#[test]
fn objects_and_programs_are_shown() {
    let world = World::new();
    let serving = world.serve("127.0.0.1:0", "--capacity 1M");
    let data = serving.data();
    assert_eq!(data["objects"], json!([]));
    assert_eq!(data["clients"], json!([]), "the page itself is not listed");
    assert_eq!(data["services"], json!([]));
    let store = world.store();
    let name = r#"<script>alert("1")</script>"#;
    store
        .put(name, &Array::from_slice(&[1.0_f32; 100]))
        .unwrap();
    store
        .put("large", &Array::from_slice(&[1.0_f64; 1000]))
        .unwrap();
    let held = store.get::<f64>("large").unwrap();
    // A snapshot is shown for a moment.
    let mut data = Value::Null;
    until("the objects are shown", || {
        data = serving.data();
        data["objects_total"] == 2
    });
    let objects: Vec<_> = [0, 1].map(|at| &data["objects"][at]).into();
    assert_eq!(objects[0]["name"], "large", "by size");
    assert_eq!(objects[0]["leases"], 1);
    assert_eq!(objects[1]["name"], name);
    assert_eq!(objects[1]["shape"], json!([100]));
    assert_eq!(data["store"]["used"], 8400);
    assert_eq!(data["store"]["capacity"], 1 << 20);
    assert_eq!(data["store"]["clients"], 1);
    assert_eq!(data["clients_total"], 1);
    assert_eq!(data["clients"][0]["bytes"], 8000);
    assert_eq!(data["clients"][0]["pid"], std::process::id());
    drop(held);
    drop(store);
    assert!(data["now"].as_f64() > data["store"]["started"].as_f64());
    // It is connected for no longer than it takes.
    let view = world.run("top --json");
    let view: Value = serde_json::from_str(&view).unwrap();
    assert_eq!(view["clients"].as_array().unwrap().len(), 1, "{view}");
}

#[test]
fn the_largest_of_many_objects_are_shown() {
    let world = World::new();
    let serving = world.serve("127.0.0.1:0", "");
    let store = world.store();
    for number in 0..1100 {
        let array = Array::from_fn(1 + number, |_| 0_u8);
        store.put(&format!("{number:04}"), &array).unwrap();
    }
    let data = serving.data();
    assert_eq!(data["objects_total"], 1100);
    let objects = data["objects"].as_array().unwrap();
    assert_eq!(objects.len(), 1000);
    assert_eq!(objects[0]["name"], "1099");
    assert_eq!(objects[999]["name"], "0100");
}

#[test]
fn services_are_shown_beside_what_is_none() {
    let world = World::new();
    let serving = world.serve("127.0.0.1:0", "");
    let _other = world.serve("127.0.0.1:0", "--name other");
    world.service("blur", &status("blur"));
    world.service("nonsense", &json!([1, 2]));
    world.service("refuses", &json!({"error": "bad_request", "message": "no"}));
    let _hung = world.hung_service("hung");
    // A socket that a killed service has left.
    drop(world.hung_service("gone"));
    fs::write(world.path("arenite/file.sock"), "no socket").unwrap();
    let data = serving.data();
    let services = data["services"].as_array().unwrap();
    let names: Vec<_> = services.iter().map(|service| &service["name"]).collect();
    assert_eq!(names, ["blur", "hung", "nonsense"]);
    assert_eq!(services[0], status("blur"), "as the service reports it");
    let error = |at: usize| services[at]["error"].as_str().unwrap();
    assert_eq!(
        error(1),
        "the service hung does not answer (within 300ms); is it stopped?"
    );
    assert!(
        error(2).starts_with("nonsense answered no status"),
        "{}",
        error(2)
    );
}

/// Each look is a connection, and a server that ends when idle waits for the last one.
#[test]
fn the_page_keeps_no_server_from_ending() {
    let world = World::new();
    let mut serving = world.serve("127.0.0.1:0", "--idle-exit 1s");
    let mut other = world.serve("127.0.0.1:0", "--name other --idle-exit 2s");
    let watched = world.serve("127.0.0.1:0", "--name watched");
    serving.data();
    until("a store that others look past ends", || {
        watched.data();
        other.has_ended()
    });
    assert_eq!(serving.ended(), Some(0));
}

#[test]
fn a_service_of_this_project_is_shown() {
    let world = World::new();
    let serving = world.serve("127.0.0.1:0", "");
    let socket = world.path("arenite/photos.sock");
    let service = Service::new(Engine::inline())
        .kernel("brighten", |photo: &Array<u8>, by: u8| {
            Array::from_fn(photo.shape(), |i| photo[i].saturating_add(by))
        })
        .kernel("refuse", || -> Result<u8, String> {
            Err("not today".to_owned())
        })
        .bind(socket.to_str().unwrap())
        .unwrap();
    let stopper = service.stopper();
    let running = std::thread::spawn(|| service.run());
    let client = arenite_store::service::connect(socket.to_str().unwrap()).unwrap();
    let photo = Array::from_slice(&[1_u8, 2]);
    client
        .call::<Array<u8>>("brighten", (&photo, 1_u8))
        .wait()
        .unwrap();
    client.call::<u8>("refuse", ()).wait().unwrap_err();
    let mut data = Value::Null;
    until("the service is shown", || {
        data = serving.data();
        data["services"][0]["failures"][0]["message"] == "not today"
    });
    let shown = &data["services"][0];
    assert_eq!(shown["pid"], std::process::id());
    let kernel = &shown["kernels"][0];
    assert_eq!(kernel["signature"], "(array u1, u8) -> array u1");
    assert_eq!((&kernel["done"], &kernel["failed"]), (&json!(1), &json!(0)));
    assert_eq!(shown["clients"][0]["done"], 2, "{shown}");
    stopper.stop();
    running.join().unwrap().unwrap();
}
