//! Traced events, with a worker that may report any times.

use std::os::unix::fs::FileExt;

use serde_json::Value;

use super::*;
use crate::link::STAMPED;
use crate::sys::clock::monotonic_ns;
use crate::trace::{TraceConfig, TraceOwner, Tracer};
use crate::worker::panics::TEXT_LIMIT;

struct World {
    shared: Arc<Supervisor>,
    consumers: Vec<Consumer>,
    _owner: TraceOwner,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (shared, consumers) = fixture(1, 1);
        let folder = tempfile::tempdir().unwrap();
        let plan = TraceConfig {
            events: Some(folder.path().join("events.json")),
            report: None,
            attempts: 1000,
        };
        let owner = Tracer::start(plan, "test").unwrap();
        let mut locked = shared.lock();
        let state = &mut *locked;
        state.trace.begin(Arc::clone(&owner.0), &state.lanes);
        drop(locked);
        Self {
            shared,
            consumers,
            _owner: owner,
            folder,
        }
    }

    /// Runs one job whose worker reports these times.
    fn run(&mut self, began: Option<u64>, ended: Option<u64>) {
        let id = submit(&self.shared);
        let consumer = &mut self.consumers[0];
        assert_eq!(consumer.next(), Next::Run);
        assert_eq!(consumer.call().form, STAMPED);
        if let Some(at) = began {
            consumer.stamp(at, false);
        }
        if let Some(at) = ended {
            consumer.stamp(at, true);
        }
        consumer.finish(false, 0, None);
        assert_eq!(answer(&self.shared, id).as_deref(), Some("value"));
    }

    fn events(&self) -> Vec<Value> {
        let tracer = self.shared.lock().trace.get().unwrap().tracer();
        tracer.flush().unwrap();
        let text = std::fs::read_to_string(self.folder.path().join("events.json")).unwrap();
        let whole: Value = serde_json::from_str(&text).unwrap();
        whole["traceEvents"].as_array().unwrap().clone()
    }
}

#[test]
fn a_call_requests_times_only_with_a_trace() {
    let (shared, mut consumers) = fixture(1, 1);
    let id = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    assert_eq!(consumers[0].call().form, 0);
    consumers[0].finish(false, 0, None);
    assert!(answer(&shared, id).is_some());
    World::new().run(None, None);
}

#[test]
fn impossible_times_are_replaced_by_known_bounds() {
    let mut world = World::new();
    let before = monotonic_ns();
    for (began, ended) in [
        (None, None),
        (Some(0), Some(0)),
        (Some(u64::MAX), Some(u64::MAX)),
        (Some(u64::MAX), Some(0)),
        (Some(before - 1), Some(before + 3_600_000_000_000)),
    ] {
        world.run(began, ended);
    }
    let span = (monotonic_ns() - before) as f64 / 1000.0;
    let events = world.events();
    let runs: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(runs.len(), 5);
    let mut last = 0.0;
    for run in runs {
        let (at, took) = (run["ts"].as_f64().unwrap(), run["dur"].as_f64().unwrap());
        assert!(at >= last && took <= span, "{run}");
        last = at + took;
    }
}

#[test]
fn memory_waits_in_the_trace_are_bounded() {
    let mut world = World::new();
    let wants: [fn(u64) -> u64; 4] = [|_| 0, |_| 1, |now| now, |_| u64::MAX];
    let mut said = Vec::new();
    for want in wants.iter().cycle().take(100) {
        let wanted_at = want(monotonic_ns());
        world.consumers[0].request_alloc(4096, wanted_at);
        let at = monotonic_ns();
        let state = &mut *world.shared.lock();
        state.trace.granted(&state.lanes, 0, 4096, true, at);
        said.push((wanted_at, at));
    }
    let events = world.events();
    let waits = |phase: &str| {
        let of_phase = |event: &&Value| event["name"] == "waits for memory" && event["ph"] == phase;
        let times = events.iter().filter(of_phase);
        let ns = times.map(|event| (event["ts"].as_f64().unwrap() * 1000.0).round() as u64);
        ns.collect::<Vec<_>>()
    };
    let (began, ended) = (waits("b"), waits("e"));
    assert_eq!((began.len(), ended.len()), (100, 100));
    let mut before = 0;
    for (n, (from, to)) in std::iter::zip(began, ended).enumerate() {
        // No run begins before the previous run has ended.
        assert!(before <= from && from <= to, "{n}: {before} {from} {to}");
        let (wanted_at, at) = said[n];
        match n % 4 {
            2 => assert_eq!(to - from, at - wanted_at, "what can be true counts"),
            3 => assert_eq!(from, to),
            _ => {}
        }
        before = to;
    }
}

#[test]
fn a_dependency_is_an_arrow() {
    let mut world = World::new();
    world.shared.lock().trace.depends(1, 2);
    let job = |world: &mut World| {
        let now = monotonic_ns();
        world.run(Some(now), Some(now));
    };
    job(&mut world);
    job(&mut world);
    let events = world.events();
    let phases: Vec<_> = events
        .iter()
        .map(|event| event["ph"].as_str().unwrap())
        .collect();
    assert!(phases.contains(&"s") && phases.contains(&"f"), "{phases:?}");
}

#[test]
fn jobs_that_leave_without_running_are_traced() {
    let mut world = World::new();
    let ids = [submit(&world.shared), submit(&world.shared)];
    // One handle is dropped, one job is cancelled.
    world.shared.abandon(ids[0]);
    world.shared.cancel(ids[1]);
    assert!(answer(&world.shared, ids[1]).unwrap().contains("cancel"));
    world.run(None, None);
    let events = world.events();
    let named = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    assert_eq!(named("not run"), 2, "{events:#?}");
    assert_eq!(events.iter().filter(|event| event["ph"] == "X").count(), 1);
    let progress = world.shared.progress();
    assert_eq!(
        (progress.done, progress.cancelled, progress.left()),
        (1, 2, 0)
    );
}

#[test]
fn a_text_of_any_length_is_truncated_to_its_limit() {
    let mut world = World::new();
    let id = submit(&world.shared);
    assert_eq!(world.consumers[0].next(), Next::Run);
    // A worker that was taken over answers with a megabyte of text that is even longer when it is escaped.
    let arena = Arc::clone(&world.shared.arena);
    let (number, at) = {
        let mut state = world.shared.lock();
        let number = state.lanes[0].producer.granted();
        let block = arena.grant(1, 2 << 20, false).unwrap();
        let at = block.extent().at;
        state.lanes[0].grant(block).unwrap();
        (number, at)
    };
    let len = 1usize << 20;
    let mut bytes = (len as u64).to_le_bytes().to_vec();
    bytes.resize(8 + len, 0x1b);
    let memory: std::fs::File = arena.descriptors()[2].try_clone_to_owned().unwrap().into();
    memory.write_all_at(&bytes, at.offset()).unwrap();
    let reply = OutgoingReply {
        spilled: true,
        len: (bytes.len() / 8) as u32,
        grant: number.into(),
        cursor: (at.offset() + bytes.len() as u64).next_multiple_of(PAGE),
        words: &[bytemuck::cast(at), bytes.len() as u64],
        ..one_word(kind::RETURNED, &[0])
    };
    while world.consumers[0].next_grant().is_some() {}
    let _ = world.consumers[0].finish(true, 1, Some(&reply));
    let value = world
        .shared
        .wait_timeout(id, <() as Reply>::receive, Duration::ZERO);
    let error = value.unwrap().unwrap_err();
    let JobErrorKind::Returned(text) = error.kind() else {
        panic!("{}", error.kind());
    };
    assert_eq!(text.text().len(), TEXT_LIMIT);
    let events = world.events();
    let event = events.iter().find(|event| event["name"] == "failed");
    let text = event.unwrap()["args"]["error"].as_str().unwrap();
    assert!(
        text.len() <= TEXT_LIMIT && text.contains("\\u{1b}"),
        "{} bytes",
        text.len()
    );
}
