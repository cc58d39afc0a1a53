//! Services: what travels, how calls fail, whose turn it is, and what is left when a client or the service dies.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use arenite::{Array, ArrayMut, Bytes, Engine};
use arenite_store::StoreErrorKind;
use arenite_store::service::{
    Call, Client, FromValue, IntoValue, Payload, Service, ServiceErrorKind, Value, connect,
};
use serde_json::{Value as Json, json};

use crate::harness::programs::{Program, pause, say, stay};
use crate::harness::{
    Gate, assert_says, block_on, builder, case, hang, pass, step, tests, wait_until,
};
use crate::programs::{Home, SOCKET, STEP, Shop, descriptors};
use crate::raw::{self, Connection};

tests![
    values_travel_both_ways,
    an_object_of_a_store_is_passed_on,
    a_call_that_fails_says_how_and_fails_alone,
    calls_are_cancelled_whether_they_wait_or_run,
    clients_take_turns,
    a_client_has_a_limited_number_of_calls,
    a_client_killed_at_any_step_leaves_no_call,
    a_killed_service_fails_its_calls_and_can_be_replaced,
    hostile_packets_are_errors_for_their_sender,
    a_client_that_does_not_read_is_disconnected,
    names_are_those_of_stores_too,
    a_service_without_workers_answers_while_a_call_runs,
    many_threads_and_futures_share_a_client,
];

/// Environment variable with the number of workers.
const WORKERS: &str = "ARENITE_TEST_WORKERS";
/// Environment variable with the path of a gate.
const GATE: &str = "ARENITE_TEST_GATE";

fn add(a: u32, b: u32) -> u32 {
    a + b
}
fn wait_at(gate: &str) -> u32 {
    pass(gate);
    std::process::id()
}
fn note(file: &str, text: &str) {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .unwrap();
    writeln!(file, "{text}").unwrap();
}
fn numbers(
    a: i64,
    b: u64,
    c: f64,
    is_kept: bool,
    d: f32,
    e: [u16; 3],
) -> (i64, u64, f64, [u16; 3]) {
    (if is_kept { a } else { 0 }, b, c * f64::from(d), e)
}
fn doubled(values: &Array<f32>) -> Array<f32> {
    Array::from_fn(values.shape(), |i| values[i] * 2.0)
}
fn sorted(mut values: ArrayMut<u16>) -> ArrayMut<u16> {
    values.sort_unstable();
    values
}
fn parts(all: &[Array<u8>], skip: usize) -> Vec<Array<u8>> {
    all.iter().skip(skip).cloned().collect()
}
fn sum(values: &[f64]) -> f64 {
    values.iter().sum()
}
fn reversed(bytes: &Bytes) -> Bytes {
    bytes.iter().rev().copied().collect::<Vec<u8>>().into()
}
fn repeated(text: &str, times: usize) -> Option<String> {
    (times > 0).then(|| text.repeat(times))
}
fn refuse(why: &str) -> Result<u32, String> {
    Err(why.to_owned())
}
fn panics() -> u32 {
    panic!("on purpose")
}
fn abort() {
    eprintln!("these are my last words");
    std::process::abort()
}
fn exit(code: i32) {
    std::process::exit(code)
}
fn many_texts(count: usize) -> (String, String) {
    let text = "x".repeat(count);
    (text.clone(), text)
}

/// Serves kernels until its input ends.
pub fn serve() {
    arenite::init();
    let workers = std::env::var(WORKERS).unwrap().parse().unwrap();
    let engine = builder(workers, 256 << 20).build().unwrap();
    let serving = Service::new(engine)
        .kernel("add", add)
        .kernel("wait_at", wait_at)
        .kernel("note", note)
        .kernel("numbers", numbers)
        .kernel("doubled", doubled)
        .kernel("sorted", sorted)
        .kernel("parts", parts)
        .kernel("sum", sum)
        .kernel("reversed", reversed)
        .kernel("repeated", repeated)
        .kernel("refuse", refuse)
        .kernel("panics", panics)
        .kernel("abort", abort)
        .kernel("exit", exit)
        .kernel("hang", hang)
        .kernel("many_texts", many_texts)
        .bind(&std::env::var(SOCKET).unwrap())
        .unwrap();
    let stopper = serving.stopper();
    say("ready");
    let input = std::thread::spawn(move || {
        stay();
        stopper.stop();
    });
    serving.run().unwrap();
    input.join().unwrap();
}

/// The steps at which a client is killed.
const STEPS: [&str; 5] = ["connected", "running", "waiting", "cancelled", "answered"];

/// Makes calls, and stops at a step.
pub fn call() {
    let last = std::env::var(STEP).unwrap();
    let gate = std::env::var(GATE).unwrap();
    let reached = |step: &str| {
        if step == last {
            say("here");
            pause();
        }
    };
    let client = connect(&std::env::var(SOCKET).unwrap()).unwrap();
    reached("connected");
    let running: Call<u32> = client.call("wait_at", (&*gate,));
    while client.status().unwrap()["kernels"][1]["running"] != 1 {
        std::thread::yield_now();
    }
    reached("running");
    let array = Array::from_fn(1 << 20, |i| i as f32);
    let waiting: Vec<Call<Array<f32>>> =
        (0..10).map(|_| client.call("doubled", (&array,))).collect();
    reached("waiting");
    running.cancel();
    reached("cancelled");
    assert_eq!(
        running.wait().unwrap_err().kind(),
        ServiceErrorKind::Cancelled
    );
    while !waiting.iter().all(Call::is_done) {
        std::thread::yield_now();
    }
    reached("answered");
}

/// A running service with its folder.
pub struct Served {
    pub home: Home,
    pub program: Program,
}

impl Served {
    fn new(workers: u32) -> Served {
        Served::at(Home::new(), workers)
    }

    fn at(home: Home, workers: u32) -> Served {
        Served::with(home, workers, &[])
    }

    pub fn with(home: Home, workers: u32, variables: &[(&str, &str)]) -> Served {
        let workers = workers.to_string();
        let variables = [&[(WORKERS, &*workers)][..], variables].concat();
        let mut program = home.start_with("service", || Ok(()), &variables);
        program.expect("ready");
        Served { home, program }
    }

    pub fn connect(&self) -> Client {
        connect(&self.home.socket()).unwrap()
    }

    fn descriptors(&self) -> usize {
        descriptors(self.program.pid())
    }

    pub fn stop(mut self) {
        self.program.wait().assert_done();
        self.program.await_all_gone();
        assert!(!self.home.path().exists());
    }
}

fn value_of<R: FromValue>(client: &Client, kernel: &str, args: impl IntoValue) -> R {
    client.call(kernel, args).wait().unwrap()
}

/// Others are served as before.
fn is_well(client: &Client) {
    assert_eq!(value_of::<u32>(client, "add", (40, 2)), 42);
}

fn kernel<'a>(status: &'a Json, name: &str) -> &'a Json {
    let kernels = status["kernels"].as_array().unwrap();
    kernels
        .iter()
        .find(|kernel| kernel["name"] == name)
        .unwrap()
}

fn values_travel_both_ways() {
    let served = Served::new(2);
    let client = served.connect();
    let kernels = client.info().unwrap().kernels;
    let signature = |name: &str| {
        let kernel = kernels.iter().find(|kernel| kernel.name == name).unwrap();
        kernel.signature.clone()
    };
    assert_eq!(signature("doubled"), "(array f4) -> array f4");
    assert_eq!(
        signature("parts"),
        "(list of array u1, usize) -> list of array u1"
    );
    assert_eq!(signature("note"), "(text, text) -> nothing");

    type Numbers = (i64, u64, f64, [u16; 3]);
    let three = [0, 1, u16::MAX];
    let call = client.call::<Numbers>("numbers", (i64::MIN, u64::MAX, 0.1, true, 2.0_f32, three));
    assert_eq!(call.wait().unwrap(), (i64::MIN, u64::MAX, 0.2, three));
    for (value, expected) in [
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::NAN, "NaN"),
    ] {
        let call = client.call::<Numbers>("numbers", (0, 0, value, true, 1.0_f32, three));
        assert_eq!(call.wait().unwrap().2.to_string(), expected);
    }
    // Every bit arrives.
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..200 {
        bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let value = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        let call = client.call::<Numbers>("numbers", (0, 0, value, true, 1.0_f32, three));
        assert_eq!(call.wait().unwrap().2.to_bits(), value.to_bits());
    }
    // Below, at and above the size from which a file is mapped to be written.
    for shape in [[0, 3], [1, 1], [512, 512], [1024, 1025]] {
        let array = Array::from_fn(shape, |i| i as f32);
        let twice = value_of::<Array<f32>>(&client, "doubled", (&array,));
        assert_eq!(twice.shape(), array.shape());
        assert!(
            twice
                .iter()
                .zip(array.iter())
                .all(|(twice, once)| *twice == once * 2.0)
        );
    }
    let mixed = Array::from_slice(&[3_u16, 1, 2]);
    let sorted = value_of::<Array<u16>>(&client, "sorted", (&mixed,));
    assert_eq!((&sorted[..], &mixed[..]), (&[1, 2, 3][..], &[3, 1, 2][..]));
    let all: Vec<Array<u8>> = (0..3).map(|i| Array::from_slice(&[i; 5])).collect();
    let parts = value_of::<Vec<Array<u8>>>(&client, "parts", (all, 1_usize));
    assert_eq!(parts.iter().map(|part| part[0]).collect::<Vec<_>>(), [1, 2]);
    let bytes = Bytes::from(b"\x00\xffabc");
    let back = value_of::<Bytes>(&client, "reversed", (&bytes,));
    assert_eq!(*back, *b"cba\xff\x00");
    // A text that is too long for a packet, both ways.
    let long = "äöü".repeat(40_000);
    let twice = value_of::<Option<String>>(&client, "repeated", (&*long, 2_usize));
    assert_eq!(twice.as_deref(), Some(&*long.repeat(2)));
    let none = value_of::<Option<String>>(&client, "repeated", ("x", 0_usize));
    assert_eq!(none, None);
    let value = value_of::<Value>(&client, "sum", (&Array::from_slice(&[1.5, 2.0]),));
    assert!(matches!(value, Value::Float(3.5)), "{value:?}");
    let (one, two) = value_of::<(String, String)>(&client, "many_texts", (15 << 10,));
    assert_eq!((one.len(), two.len()), (15 << 10, 15 << 10));
    drop(client);
    served.stop();
}

fn an_object_of_a_store_is_passed_on() {
    let shop = Shop::open();
    let store = &shop.store;
    store
        .put("values", &Array::from_slice(&[1.0, 2.5]))
        .unwrap();
    let served = Served::new(1);
    let client = served.connect();
    let values = store.get::<f64>("values").unwrap();
    assert_eq!(value_of::<f64>(&client, "sum", (&values,)), 3.5);
    // A result is an argument of the next call, without a copy.
    let twice = value_of::<Payload>(&client, "doubled", (&Array::from_slice(&[1.0_f32]),));
    let four = value_of::<Array<f32>>(&client, "doubled", (twice,));
    assert_eq!(four[..], [4.0]);
    shop.close();
    drop(client);
    served.stop();
}

fn a_call_that_fails_says_how_and_fails_alone() {
    let served = Served::new(2);
    let client = served.connect();
    let gate = Gate::new();
    // Runs on meanwhile, in the other worker.
    let other = client.call::<u32>("wait_at", (&*gate.path(),));
    let standing = gate.meet();
    // The second worker has started, too.
    is_well(&client);
    let before = served.descriptors();

    let failed = |kernel: &str, args: Vec<Value>| {
        let call = client.call::<Value>(kernel, Value::List(args));
        let error = call.wait().unwrap_err();
        is_well(&client);
        error
    };
    let error = failed("abort", vec![]);
    assert_eq!(error.last_words(), ["these are my last words"]);
    assert_eq!(error.attempts(), 1);
    let array = Array::from_slice(&[1_u8]);
    let bytes_as_floats = client.call::<f64>("sum", (&array,)).wait();
    let number_as_text = client.call::<String>("add", (1, 2)).wait();
    // Deeper than the service reads: the call's error, and the connection lives.
    let deep = (0..126).fold(Value::Nothing, |inner, _| Value::List(vec![inner]));
    use ServiceErrorKind::{BadArgument, Crashed, Exited, NoKernel, Panicked, Returned, WrongType};
    let not_today = Value::Text("not today".to_owned());
    for (error, kind, part) in [
        (failed("refuse", vec![not_today]), Returned, "not today"),
        (failed("panics", vec![]), Panicked, "on purpose"),
        (error, Crashed { signal: 6 }, ""),
        (
            failed("exit", vec![Value::Int(3)]),
            Exited { code: Some(3) },
            "",
        ),
        (
            failed("add", vec![Value::Int(1)]),
            BadArgument,
            "add(u32, u32) -> u32",
        ),
        (
            failed("add", vec![Value::Int(1), Value::Int(-1)]),
            BadArgument,
            "",
        ),
        (bytes_as_floats.unwrap_err(), BadArgument, ""),
        (failed("exit", vec![deep]), BadArgument, ""),
        (failed("nothing", vec![]), NoKernel, "wait_at"),
        (number_as_text.unwrap_err(), WrongType, ""),
    ] {
        assert_eq!(error.kind(), kind, "{error}");
        assert_says(&error, part);
    }
    let brief = client.clone().deadline(Duration::from_millis(20));
    let error = brief.call::<()>("hang", ()).wait().unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::Timeout);
    // Larger than the service's arena.
    let large = Array::from_fn(300 << 20, |_| 0_u8);
    let all = vec![large];
    let error = client
        .call::<Vec<Array<u8>>>("parts", (all, 0_usize))
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::ArenaFull, "{error}");

    let status = client.status().unwrap();
    // Those whose calls had begun.
    assert_eq!(status["failures"].as_array().unwrap().len(), 8, "{status}");
    assert_eq!(kernel(&status, "abort")["failed"], 1);
    drop(standing);
    other.wait().unwrap();
    is_well(&client);
    // Those of the workers' replacements come one after the other.
    wait_until("no more descriptors", || served.descriptors() <= before);
    drop((client, brief));
    served.stop();
}

fn calls_are_cancelled_whether_they_wait_or_run() {
    let served = Served::new(1);
    let client = served.connect();
    let gate = Gate::new();
    let runs = client.call::<u32>("wait_at", (&*gate.path(),));
    let standing = gate.meet();
    // One more is in the engine already; the others wait for their turns.
    let wait: Vec<Call<u32>> = (0..4).map(|i| client.call("add", (i, 1))).collect();
    wait[1].cancel();
    wait[3].cancel();
    runs.cancel();
    let cancelled =
        |call: Call<u32>| call.wait().unwrap_err().kind() == ServiceErrorKind::Cancelled;
    assert!(cancelled(runs));
    drop(standing);
    for (i, call) in (0..).zip(wait) {
        match i {
            1 | 3 => assert!(cancelled(call)),
            _ => assert_eq!(call.wait().unwrap(), i + 1),
        }
    }
    // Dropping a call is the same; whoever wants to know waits in `wait_timeout`.
    let mut runs = client.call::<u32>("wait_at", (&*gate.path(),));
    let standing = gate.meet();
    assert!(runs.wait_timeout(Duration::from_millis(1)).is_none());
    drop(runs);
    is_well(&client);
    drop(standing);
    wait_until("no call runs", || {
        kernel(&client.status().unwrap(), "wait_at")["running"] == 0
    });
    drop(client);
    served.stop();
}

fn clients_take_turns() {
    let served = Served::new(1);
    let (greedy, modest) = (served.connect(), served.connect());
    let gate = Gate::new();
    let notes = served.home.folder().join("notes");
    let notes = notes.to_str().unwrap();
    let first = greedy.call::<u32>("wait_at", (&*gate.path(),));
    let standing = gate.meet();
    let calls: Vec<Call<()>> = (0..40)
        .map(|_| greedy.call("note", (notes, "greedy")))
        .collect();
    // All of them have arrived when the next question is answered.
    greedy.info().unwrap();
    let call = modest.call::<()>("note", (notes, "modest"));
    modest.info().unwrap();
    drop(standing);
    first.wait().unwrap();
    call.wait().unwrap();
    calls.into_iter().for_each(|call| call.wait().unwrap());
    let notes = std::fs::read_to_string(notes).unwrap();
    let place = notes.lines().position(|line| line == "modest").unwrap();
    // Behind the one that was in the engine and one more, and those that pass while a thread of a busy machine has
    // begun the call and not yet submitted it. Without turns it would be the last.
    assert!(place <= 8, "place {place} of {}", notes.lines().count());
    drop((greedy, modest));
    served.stop();
}

fn a_client_has_a_limited_number_of_calls() {
    let served = Served::new(1);
    let client = served.connect();
    assert_eq!(client.info().unwrap().max_calls, 64);
    let gate = Gate::new();
    let raw = Connection::new(&served.home.path());
    let call = |id: u32| {
        format!(
            r#"{{"op":"call","id":{id},"kernel":"wait_at","args":["{}"]}}"#,
            gate.path()
        )
    };
    for id in 0..64 {
        raw.send(&call(id), &[]);
    }
    let (answer, _) = raw.ask(&call(64), &[]);
    assert_eq!(
        (&answer["id"], &answer["error"]),
        (&json!(64), &json!("busy")),
        "{answer}"
    );
    let (answer, _) = raw.ask(&call(63), &[]);
    assert_eq!(
        (&answer["id"], &answer["error"]),
        (&Json::Null, &json!("bad_request")),
        "{answer}"
    );
    // Others have their own.
    let mine = client.call::<u32>("add", (1, 2));
    drop(raw);
    assert_eq!(mine.wait().unwrap(), 3);

    // This client waits for room itself.
    let calls: Vec<Call<u32>> = (0..500).map(|i| client.call("add", (i, 1))).collect();
    for (i, call) in (0..).zip(calls) {
        assert_eq!(call.wait().unwrap(), i + 1);
    }
    drop(client);
    served.stop();
}

fn a_client_killed_at_any_step_leaves_no_call() {
    let served = Served::new(1);
    let client = served.connect();
    is_well(&client);
    let gate = Gate::new();
    for last in STEPS {
        for _ in 0..3 {
            case(format!("killed when {last}"));
            let before = served.descriptors();
            let path = gate.path();
            let variables = [(GATE, &*path), (STEP, last)];
            let mut caller = served.home.start_with("caller", || Ok(()), &variables);
            caller.expect("here");
            caller.kill();
            caller.wait().assert_killed();
            wait_until("its calls are gone", || {
                let status = client.status().unwrap();
                let kernels = status["kernels"].as_array().unwrap();
                let open = |kernel: &Json| kernel["queued"] != 0 || kernel["running"] != 0;
                status["clients"].as_array().unwrap().len() == 1 && !kernels.iter().any(open)
            });
            is_well(&client);
            wait_until("no more descriptors", || served.descriptors() <= before);
        }
    }
    drop(client);
    served.stop();
}

fn a_killed_service_fails_its_calls_and_can_be_replaced() {
    let mut home = Home::new();
    for round in 0..3 {
        case(format!("round {round}"));
        let mut served = Served::at(home, 2);
        let client = served.connect();
        let gate = Gate::new();
        let kept = value_of::<Array<f32>>(&client, "doubled", (&Array::from_slice(&[1.0_f32]),));
        let calls: Vec<Call<u32>> = (0..9)
            .map(|_| client.call("wait_at", (&*gate.path(),)))
            .collect();
        let standing = gate.meet();
        served.program.kill();
        served.program.wait().assert_killed();
        for call in calls {
            assert_eq!(
                call.wait().unwrap_err().kind(),
                ServiceErrorKind::NotRunning
            );
        }
        let error = client.call::<u32>("add", (1, 2)).wait().unwrap_err();
        assert_eq!(error.kind(), ServiceErrorKind::NotRunning);
        assert_eq!(
            client.info().unwrap_err().kind(),
            ServiceErrorKind::NotRunning
        );
        assert_eq!(kept[..], [2.0], "values that were received remain");
        drop(standing);
        served.program.await_all_gone();
        home = served.home;
    }
    let served = Served::at(home, 1);
    is_well(&served.connect());
    served.stop();
}

fn hostile_packets_are_errors_for_their_sender() {
    let served = Served::new(1);
    let client = served.connect();
    is_well(&client);
    let before = served.descriptors();
    let raw = Connection::new(&served.home.path());
    let call = |kernel: &str, args: &str| {
        format!(r#"{{"op":"call","id":1,"kernel":"{kernel}","args":{args}}}"#)
    };
    let long = "x".repeat(60 << 10);
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let no_requests = [
        "{}",
        "[1, 2]",
        "\u{0}\u{1}",
        r#"{"op":"fly"}"#,
        r#"{"op":"put","name":"a","kind":"bytes"}"#,
        r#"{"op":"call","id":-1,"kernel":"add"}"#,
    ];
    let no_arguments = [
        "{}",
        "[1,2,3]",
        "[1e300,2]",
        r#"[1,{"float":"2"}]"#,
        r#"[1,2],"deadline":-1"#,
        r#"[1,2],"deadline":1e300"#,
        r#"[{"kind":"array","dtype":"<f8","shape":[1]}]"#,
        &deep,
    ];
    let packets = [
        (String::new(), ""),
        (call(&long, "[]"), "no_kernel"),
        (call("refuse", &format!(r#"["{long}"]"#)), "returned"),
    ];
    let packets = packets.into_iter();
    let packets = packets.chain(no_requests.map(|packet| (packet.to_owned(), "bad_request")));
    let packets = packets.chain(no_arguments.map(|args| (call("add", args), "bad_argument")));
    for (packet, code) in packets {
        case(format!("{packet:.80}"));
        // An empty packet is a hang-up for its receiver.
        let raw = Connection::new(&served.home.path());
        raw.send(&packet, &[]);
        match raw.answer() {
            Some((answer, _)) => assert_eq!(answer["error"], code, "{answer}"),
            None => assert_eq!(code, ""),
        }
    }

    let call = call("sum", r#"[{"kind":"array","dtype":"<f8","shape":[2]}]"#);
    raw::assert_refused(&raw, &call, "bad_argument");
    let sealed = raw::sealed(&[0; 16]);
    let short = raw::sealed(&[0; 8]);
    let open = raw::memory_file(&[0; 16]);
    let sparse = raw::memory_file(&[]);
    sparse.set_len(16).unwrap();
    raw::seal(&sparse).unwrap();
    for file in [short, open, sparse] {
        let (answer, _) = raw.ask(&call, &[&file]);
        assert_eq!(answer["error"], "bad_argument", "{answer}");
    }
    let (answer, _) = raw.ask(r#"{"op":"info"}"#, &[&sealed]);
    assert_eq!(answer["error"], "bad_request", "{answer}");
    let (answer, _) = raw.ask(&call, &[&sealed]);
    assert_eq!(answer["value"], 0.0, "{answer}");
    // Cancelling what is not there has no answer.
    raw.send(r#"{"op":"cancel","id":7}"#, &[]);
    let (answer, _) = raw.ask(r#"{"op":"info"}"#, &[]);
    assert_eq!(answer["service"], true, "{answer}");
    drop(raw);
    is_well(&client);
    wait_until("no more descriptors", || served.descriptors() <= before);
    drop(client);
    served.stop();
}

fn a_client_that_does_not_read_is_disconnected() {
    let served = Served::new(1);
    let client = served.connect();
    let raw = Connection::new(&served.home.path());
    step("the service to disconnect it");
    while raw.try_send(r#"{"op":"status"}"#, &[]).is_ok() {}
    is_well(&client);
    assert_eq!(
        client.status().unwrap()["clients"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    drop(client);
    served.stop();
}

fn names_are_those_of_stores_too() {
    let served = Served::new(1);
    let socket = served.home.socket();
    let error = arenite_store::connect(&socket).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Protocol);
    assert_says(&error, "is a service");
    let error = arenite_store::Server::bind(&socket).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::AlreadyRunning);
    let error = Service::new(Engine::inline()).run(&socket).unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::AlreadyRunning);

    let shop = Shop::open();
    let error = connect(&shop.home.socket()).unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::Protocol);
    assert_says(&error, "is a store");
    let error = connect("/nowhere/at/all.sock").unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::NotRunning);
    let twice = Service::new(Engine::inline())
        .kernel("a", add)
        .kernel("a", add);
    assert_eq!(
        twice.run("/nowhere/a.sock").unwrap_err().kind(),
        ServiceErrorKind::BadName
    );
    shop.close();
    served.stop();
}

fn a_service_without_workers_answers_while_a_call_runs() {
    let home = Home::new();
    let gate = Gate::new();
    let serving = Service::new(Engine::inline())
        .kernel("wait_at", wait_at)
        .bind(&home.socket())
        .unwrap();
    let stopper = serving.stopper();
    let running = std::thread::spawn(|| serving.run());
    let client = connect(&home.socket()).unwrap();
    let call = client.call::<u32>("wait_at", (&*gate.path(),));
    let standing = gate.meet();
    step("an answer while the call runs");
    let status = connect(&home.socket()).unwrap().status().unwrap();
    assert_eq!(kernel(&status, "wait_at")["running"], 1);
    drop(standing);
    assert_eq!(call.wait().unwrap(), std::process::id());
    stopper.stop();
    running.join().unwrap().unwrap();
}

fn many_threads_and_futures_share_a_client() {
    let served = Served::new(2);
    let client = served.connect();
    std::thread::scope(|threads| {
        for thread in 0..8_u32 {
            let client = &client;
            threads.spawn(move || {
                for i in 0..200 {
                    let call = client.call::<u32>("add", (thread * 1000, i));
                    let result = if i % 2 == 0 {
                        call.wait()
                    } else {
                        block_on(call)
                    };
                    assert_eq!(result.unwrap(), thread * 1000 + i);
                    if i % 50 == 0 {
                        assert_eq!(client.info().unwrap().max_calls, 64);
                    }
                }
            });
        }
    });
    drop(client);
    served.stop();
}
